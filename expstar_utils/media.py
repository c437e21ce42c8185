"""Video in: what a file holds, and the one function that picks frames for training, inference and serving."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from expstar_utils.records import ExpStarError
from expstar_utils.sizes import FrameSize, scaled

SKIPPABLE = ("h264", "hevc")  # decoders that can leave out a picture that no other refers to, from one packet to the next
SPARSE = 4  # pictures in a clip for one that is wanted, from which on it is worth to look first
MOST_PIXELS = 1 << 26  # of a picture: twice 8K video, 200 MB
PICTURE_FORMATS = ("image2", "png_pipe", "jpeg_pipe", "gif", "bmp_pipe", "webp_pipe", "tiff_pipe", "svg_pipe")
FORMATS = ",".join((  # that are opened: no playlist (hls, dash, concat), which names other files, and no text drawn as pictures
    *PICTURE_FORMATS, "mp3,wav,flac,aac,srt,webvtt,ass", "avi,asf,dv,flv,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts",
    "mpegvideo,mxf,nut,obu,ogg,rm,vc1,wtv,yuv4mpegpipe"))


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds. duration_s > 0, fps frames a second, size in pixels as it is shown.

    rotation: degrees counter-clockwise by which a player turns the pictures (phones film sideways and say so): 0, 90, 180, 270.
    """

    path: Path
    duration_s: float
    fps: float
    width_px: int
    height_px: int
    has_audio: bool
    rotation: int = 0


@dataclass(frozen=True)
class Frames:
    """Frames of a clip.

    pixels: uint8 [n, height, width, 3], RGB. times_s: float [n], seconds from the start of the *file*, increasing.
    indices: int [n], frame numbers at the file's own rate. start_s, end_s: the clip. fps: n / clip length.
    """

    pixels: np.ndarray
    times_s: np.ndarray
    indices: np.ndarray
    start_s: float
    end_s: float

    @property
    def fps(self) -> float:
        return len(self.times_s) / max(self.end_s - self.start_s, 1e-6)

    def blanked(self) -> Frames:
        """The same clip with every frame mid-grey (not black: SmolVLM drops all-zero frames as padding)."""
        return Frames(np.full_like(self.pixels, 127), self.times_s, self.indices, self.start_s, self.end_s)


@contextmanager
def _open(path: Path) -> Iterator[av.container.InputContainer]:
    path = Path(path)
    if not path.is_file():
        raise ExpStarError(f"{path}: no such file, expected a video; check the path")
    if path.stat().st_size == 0:
        raise ExpStarError(f"{path}: found an empty file, expected a video; copy or download it again")
    try:
        container = av.open(str(path.absolute()), options={"format_whitelist": FORMATS})  # absolute: "a:b.mp4" is a protocol
    except (av.FFmpegError, ValueError) as error:
        raise ExpStarError(f"{path}: found something that is not a readable video ({_reason(error)}), expected mp4, mkv, "
                           "webm, mov or avi; convert it, or copy it again if it was cut short") from None
    with container:
        if container.format.name in PICTURE_FORMATS or not video_stream(container):
            found = "a picture" if video_stream(container) else "a file without pictures in it"
            raise ExpStarError(f"{path}: found {found}, expected a video; give the video file itself")
        yield container


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """First stream of moving pictures; the cover of a sound file is none."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def probe(path: Path) -> VideoInfo:
    """What a video holds; a file is looked at once as long as it does not change.

    Raises:
        ExpStarError: missing, empty, cut short, without frames, or not a video.
    """
    path = Path(path)
    state = path.stat() if path.is_file() else None
    return _probe(path, state and state.st_mtime_ns, state and state.st_size)


@lru_cache(maxsize=4096)
def _probe(path: Path, mtime_ns: int | None, size_bytes: int | None) -> VideoInfo:
    with _open(path) as container:
        stream = video_stream(container)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise ExpStarError(f"{path}: no frame can be decoded ({_reason(error)}), expected a whole video; copy it "
                               "again") from None
        if first is None:
            raise ExpStarError(f"{path}: found a video with no frames, expected at least one; copy or record it again")
        duration = float(stream.duration * stream.time_base) if stream.duration else _last_end_s(path)
        if stream.duration and not _end_is_there(container, stream):
            raise ExpStarError(f"{path}: the end of the video is missing, expected all of its {duration:.1f} s; copy or "
                               "download it again")
        if first.width * first.height > MOST_PIXELS:
            raise ExpStarError(f"{path}: found pictures of {first.width} x {first.height} px, expected {MOST_PIXELS:,} px at "
                               "most; scale the video down")
        turns = _turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        return VideoInfo(Path(path), max(duration, 1 / fps), fps, width, height, bool(container.streams.audio), 90 * turns)


def _end_is_there(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether packets reach into the last tenth of the length that the file names (a cut copy has an index, no data)."""
    wanted = (stream.start_time or 0) + int(0.9 * stream.duration)
    try:
        container.seek(wanted, stream=stream)
        return any(p.size and p.pts is not None and p.pts + (p.duration or 0) >= wanted for p in container.demux(stream))
    except av.FFmpegError:
        return False


def _last_end_s(path: Path) -> float:
    """Seconds from a file's first frame to the end of its last one; for files that name no length for their pictures.

    Matroska's own length counts from time zero, not from the first frame; a browser's recording names none.
    """
    with _open(path) as container:
        stream = video_stream(container)
        origin = stream.start_time or 0
        with suppress(av.FFmpegError):  # cannot be sought: read through
            container.seek(origin + int(1e6 / stream.time_base), stream=stream, backward=True)
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        return float((max(ends, default=origin) - origin) * stream.time_base)


def sample_times(start_s: float, end_s: float, fps: float, max_frames: int) -> np.ndarray:
    """Middles of equal stretches of a clip: `fps` a second, at least one, at most `max_frames`; float [n], seconds."""
    count = int(min(max(round((end_s - start_s) * fps), 1), max_frames))
    return start_s + (np.arange(count) + 0.5) * (end_s - start_s) / count


def check_span(info: VideoInfo, start_s: float, end_s: float) -> None:
    """Raises ExpStarError unless a clip starts inside its video and before its own end; it may end after the video."""
    if not 0 <= start_s < min(end_s, info.duration_s):
        raise ExpStarError(f"{info.path}: found a clip from {start_s:g} to {end_s:g} s in a video of {info.duration_s:.2f} s, "
                           "expected a start before the end and inside the video; correct the times")


def sample_frames(path: Path, start_s: float = 0.0, end_s: float | None = None, *, fps: float = 1.0, max_frames: int = 64,
                  size_px: FrameSize = None) -> Frames:
    """Frames of a clip, evenly spread: for each wanted time the last frame at or before it.

    Args:
        start_s, end_s: the clip within the file, seconds; None is the end of the file.
        fps: frames a second of video, > 0. max_frames: at most so many, >= 1.
        size_px: (height, width) to scale to, or a limit of pixels; None keeps the file's size.

    Returns:
        Frames with 1 <= n <= max_frames.

    Raises:
        ExpStarError: see `probe`; also when the clip lies outside the file.
    """
    info = probe(path)
    end_s = info.duration_s if end_s is None else min(end_s, info.duration_s + 1.0)
    check_span(info, start_s, end_s)
    wanted = sample_times(start_s, end_s, fps, max_frames)
    height, width = scaled(size_px, info.height_px, info.width_px, len(wanted))
    pixels, times = np.empty((len(wanted), height, width, 3), np.uint8), np.empty(len(wanted))
    for place, time_s, frame in _last_at_or_before(path, start_s, wanted):  # put down as they come: a long film's do not pile up
        pixels[place], times[place] = _upright(frame, height, width), time_s
    return Frames(pixels, times, np.round(times * info.fps).astype(int), float(start_s), float(end_s))


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that a frame needs before it is shown, 0 to 3."""
    return round(frame.rotation / 90) % 4


def _upright(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """A frame as it is shown, scaled: uint8 [height, width, 3], RGB."""
    turns = _turns(frame)
    if turns % 2:
        height, width = width, height
    return np.rot90(frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray(), turns)


def _last_at_or_before(path: Path, start_s: float, wanted: np.ndarray) -> Iterator[tuple[int, float, av.VideoFrame]]:
    """(place, time, frame) for each wanted time, in one pass from the key frame before `start_s`.

    Every place comes; one that comes twice holds what came last.
    """
    if (yield from _without_the_rest(path, start_s, wanted)):
        return
    place, before = 0, None
    for time_s, frame in _decode_from(path, start_s):
        while place < len(wanted) and time_s > wanted[place] + 1e-6:
            yield place, *(before or (time_s, frame))
            place += 1
        if place == len(wanted):
            return
        before = time_s, frame
    if before is None:
        raise ExpStarError(f"{path}: no frame could be decoded after {start_s:g} s, expected some; copy the file again")
    yield from ((rest, *before) for rest in range(place, len(wanted)))


def _without_the_rest(path: Path, start_s: float, wanted: np.ndarray) -> Generator[tuple[int, float, av.VideoFrame], None, bool]:
    """The same, without decoding pictures that are neither wanted nor needed by others; returns whether all of them came.

    The packets' times say beforehand which pictures are wanted. Then the decoder is told with every packet whether it may leave
    the picture out if no other refers to it: a third to a half of a film with B-frames.
    """
    with _open(path) as container:
        stream = video_stream(container)
        if stream.codec_context.name not in SKIPPABLE:
            return False
        stream.thread_type = "SLICE"  # threads by frame cost more than they gain where frames are left out
        origin, step_s = stream.start_time or 0, float(stream.time_base)
        pts = _pictures_until(container, stream, start_s, float(wanted[-1]))
        times = (pts - origin) * step_s
        if len(times) < SPARSE * len(wanted) or times[0] > start_s + 1e-6:
            return False
        places = defaultdict(list)
        for place, shown in enumerate(np.maximum(np.searchsorted(times, wanted + 1e-6, side="right") - 1, 0)):
            places[int(pts[shown])].append(place)
        with suppress(av.FFmpegError):
            missing = set(places)
            _seek(container, stream, start_s)
            for packet in container.demux(stream):
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in places else "NONREF"
                for frame in (f for f in packet.decode() if f.pts in missing):
                    yield from ((place, (frame.pts - origin) * step_s, frame) for place in places[frame.pts])
                    missing.remove(frame.pts)
                if not missing:
                    return True
    return False


def _pictures_until(container: av.container.InputContainer, stream: av.VideoStream, start_s: float, end_s: float) -> np.ndarray:
    """Times of the pictures from the key frame before `start_s` to the one on the screen at `end_s`; int [n], in order."""
    last, found = (stream.start_time or 0) + end_s / float(stream.time_base) + 1, []
    with suppress(av.FFmpegError):
        _seek(container, stream, start_s)
        for packet in container.demux(stream):
            if packet.dts is not None and packet.dts > last:
                break
            if packet.pts is not None and not packet.is_discard:
                found.append(packet.pts)
    return np.sort(np.array(found, np.int64))


def _seek(container: av.container.InputContainer, stream: av.VideoStream, start_s: float) -> None:
    container.seek((stream.start_time or 0) + int(start_s / stream.time_base), stream=stream, backward=True)


def _decode_from(path: Path, start_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds from the file's first frame, frame) from the key frame before `start_s`; damaged tails end it quietly."""
    for seek_s in dict.fromkeys((start_s, max(start_s - 10, 0), 0)):
        frames = _decode_at(path, seek_s)
        first = next(frames, None)
        if first and first[0] <= start_s + 1e-6:
            break  # else a transport stream, sought by bytes, that landed too late
    if first:
        yield first
        yield from frames


def _decode_at(path: Path, seek_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    with _open(path) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        origin = stream.start_time or 0
        try:
            if seek_s > 0:
                _seek(container, stream, seek_s)
            for frame in container.decode(stream):
                if frame.pts is not None:
                    yield float((frame.pts - origin) * stream.time_base), frame
        except av.FFmpegError:
            return

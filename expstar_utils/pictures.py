"""Pictures of a video file: how it is opened, and its pictures at the wanted times, decoded with as few others as can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from expstar_utils.records import ExpStarError

SKIPPABLE = ("h264", "hevc")  # decoders that can leave out a picture that no other refers to, from one packet to the next
SPARSE = 4  # pictures in a clip for one that is wanted, from which on it is worth to look first
PICTURE_FORMATS = ("image2", "png_pipe", "jpeg_pipe", "gif", "bmp_pipe", "webp_pipe", "tiff_pipe", "svg_pipe")
FORMATS = ",".join((  # that are opened: no playlist (hls, dash, concat), which names other files, and no text drawn as pictures
    *PICTURE_FORMATS, "mp3,wav,flac,aac,srt,webvtt,ass", "avi,asf,dv,flv,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts",
    "mpegvideo,mxf,nut,obu,ogg,rm,vc1,wtv,yuv4mpegpipe"))


@contextmanager
def open_video(path: Path) -> Iterator[av.container.InputContainer]:
    """A video file, open for reading.

    Raises:
        ExpStarError: missing, empty, or not a video.
    """
    path = Path(path)
    if not path.is_file():
        raise ExpStarError(f"{path}: no such file, expected a video; check the path")
    if path.stat().st_size == 0:
        raise ExpStarError(f"{path}: found an empty file, expected a video; copy or download it again")
    try:
        container = av.open(str(path.absolute()), options={"format_whitelist": FORMATS})  # absolute: "a:b.mp4" is a protocol
    except (av.FFmpegError, ValueError) as error:
        raise ExpStarError(f"{path}: found something that is not a readable video ({reason(error)}), expected mp4, mkv, "
                           "webm, mov or avi; convert it, or copy it again if it was cut short") from None
    with container:
        if container.format.name in PICTURE_FORMATS or not video_stream(container):
            found = "a picture" if video_stream(container) else "a file without pictures in it"
            raise ExpStarError(f"{path}: found {found}, expected a video; give the video file itself")
        yield container


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """First stream of moving pictures; the cover of a sound file is none."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def reason(error: Exception) -> str:
    """What an error of FFmpeg says, in one line."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that a frame needs before it is shown, 0 to 3."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """A frame as it is shown, scaled: uint8 [height, width, 3], RGB."""
    turns = quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    return np.rot90(frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray(), turns)


def last_at_or_before(path: Path, start_s: float, wanted: np.ndarray) -> Iterator[tuple[int, float, av.VideoFrame]]:
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
    with open_video(path) as container:
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
    with open_video(path) as container:
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

"""Video in: what a file holds, and the one function that picks frames for training, inference and serving."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from expstar_utils.pictures import last_at_or_before, open_video, quarter_turns, reason, upright, video_stream
from expstar_utils.records import ExpStarError
from expstar_utils.sizes import FrameSize, scaled

MOST_PIXELS = 1 << 26  # of a picture: twice 8K video, 200 MB


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
    with open_video(path) as container:
        stream = video_stream(container)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise ExpStarError(f"{path}: no frame can be decoded ({reason(error)}), expected a whole video; copy it "
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
        turns = quarter_turns(first)
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
    with open_video(path) as container:
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
    start_s, end_s, info, wanted, pixels = _asked(path, start_s, end_s, fps, max_frames, size_px)
    times = np.empty(len(wanted))
    for place, time_s, frame in last_at_or_before(path, start_s, wanted):  # put down as they come: a long film's do not pile up
        pixels[place], times[place] = upright(frame, *pixels.shape[1:3]), time_s
    return Frames(pixels, times, np.round(times * info.fps).astype(int), start_s, end_s)


def outline(path: Path, start_s: float = 0.0, end_s: float | None = None, *, fps: float = 1.0, max_frames: int = 64,
            size_px: FrameSize = None) -> Frames:
    """As many frames, as large, as `sample_frames` with the same arguments gives, all grey, at the times that were wanted.

    Nothing but the file's head is decoded.

    Raises:
        ExpStarError: as `sample_frames`, but for what is wrong behind the head.
    """
    start_s, end_s, info, wanted, pixels = _asked(path, start_s, end_s, fps, max_frames, size_px)
    return Frames(pixels, wanted, np.round(wanted * info.fps).astype(int), start_s, end_s).blanked()


def _asked(path: Path, start_s: float, end_s: float | None, fps: float, max_frames: int, size_px: FrameSize,
           ) -> tuple[float, float, VideoInfo, np.ndarray, np.ndarray]:
    """What frames are wanted of a clip: its span, its file's description, their times, and room for them."""
    info = probe(path)
    end_s = info.duration_s if end_s is None else min(end_s, info.duration_s + 1.0)
    check_span(info, start_s, end_s)
    wanted = sample_times(start_s, end_s, fps, max_frames)
    height, width = scaled(size_px, info.height_px, info.width_px, len(wanted))
    return float(start_s), float(end_s), info, wanted, np.empty((len(wanted), height, width, 3), np.uint8)

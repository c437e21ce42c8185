"""What a page shows of a film: the clip alone as a file that browsers play, and the frames at given times."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from expstar_utils.cutting import Clip, cut_clips, encode_whole
from expstar_utils.files import inside
from expstar_utils.media import Frames, check_span, probe, sample_frames
from expstar_utils.pictures import video_stream
from expstar_utils.records import ExpStarError, VirtualClip

LONGEST_S = 120.0  # of a clip that is sent to a page
SMALL_FILE = 64 << 20  # bytes of a film that is read through to find its groups of pictures; of a larger one, the clip is encoded
PLAYED = {  # what browsers play as it is: codecs of pictures and of sound by container
    ".mp4": ({"h264"}, {"aac", "mp3", "opus", "flac"}),
    ".webm": ({"vp8", "vp9", "av1", "libdav1d"}, {"opus", "vorbis"}),
}
THUMB_PX = 144  # height of a frame in the strip
SAME_S = 2e-3  # times are kept in milliseconds


@dataclass(frozen=True)
class Span:
    """A stretch of a film: its file, and seconds from the file's first frame."""

    path: Path
    start_s: float
    end_s: float


def span_of(clip: str | VirtualClip, root: Path) -> Span:
    """Where a case's clip lies.

    Raises:
        ExpStarError: there is none, it points outside `root`, or its film cannot be read; see `media.probe`, `media.check_span`.
    """
    name = clip.video if isinstance(clip, VirtualClip) else clip
    if not name:
        raise ExpStarError("cases.jsonl has no clip for this id, expected one; run notebook 02")
    path = inside(root, name)
    info = probe(path)
    span = Span(path, float(clip.start), float(clip.end)) if isinstance(clip, VirtualClip) else Span(path, 0.0, info.duration_s)
    check_span(info, span.start_s, span.end_s)
    return span


def shown_clip(span: Span) -> bytes:
    """The clip alone, at most its first two minutes, as a file that browsers play (H.264 in mp4, or webm as it was).

    A file that is the clip and plays is taken as it is; else groups of pictures are copied where that is possible, and the rest
    is encoded. A large film is never read as a whole.

    Raises:
        ExpStarError: the film cannot be decoded.
    """
    path, end_s = span.path, min(span.end_s, span.start_s + LONGEST_S)
    whole = span.start_s == 0 and end_s >= probe(path).duration_s
    if whole and path.stat().st_size <= SMALL_FILE and _plays(path):
        return path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        clip = Clip(span.start_s, end_s, Path(folder) / "clip.mp4")
        try:
            if path.stat().st_size <= SMALL_FILE:
                cut_clips(path, [clip])
            else:
                with av.open(str(path)) as source:
                    encode_whole(source, clip, clip.path)
        except (av.FFmpegError, ValueError) as error:
            raise ExpStarError(f"{path}: the clip cannot be encoded for the page ({error}), expected a film that decodes; "
                               "convert it to H.264") from None
        return clip.path.read_bytes()


def _plays(path: Path) -> bool:
    """Whether browsers play a file as it is."""
    pictures, sounds = PLAYED.get(path.suffix.lower(), (set(), set()))
    with av.open(str(path)) as container:
        context = video_stream(container).codec_context
        return (context.name in pictures and context.pix_fmt in ("yuv420p", "yuvj420p")
                and all(sound.codec_context.name in sounds for sound in container.streams.audio))


def frames_at(span: Span, times_s: Sequence[float]) -> Frames:
    """Frames that stand on the screen at given times, small.

    Args:
        times_s: increasing, seconds from the file's first frame; as predictions keep them (`frame_times_s`).
    """
    frames = spread_frames(span, len(times_s))
    if len(frames.times_s) == len(times_s) and np.allclose(frames.times_s, times_s, atol=SAME_S, rtol=0):
        return frames  # as our sampler picks them: one pass
    each = [spread_frames(Span(span.path, max(t - SAME_S, 0), t + 3 * SAME_S), 1) for t in times_s]
    return Frames(np.concatenate([f.pixels for f in each]), np.concatenate([f.times_s for f in each]),
                  np.concatenate([f.indices for f in each]), span.start_s, span.end_s)


def spread_frames(span: Span, count: int) -> Frames:
    """`count` frames spread evenly over a clip, small."""
    info = probe(span.path)
    size = (THUMB_PX, max(round(info.width_px * THUMB_PX / info.height_px), 1))
    fps = count / (span.end_s - span.start_s)
    return sample_frames(span.path, span.start_s, span.end_s, fps=fps, max_frames=count, size_px=size)


def jpegs(frames: Frames) -> list[bytes]:
    """Each frame as a JPEG file."""
    return [_jpeg(pixels) for pixels in frames.pixels]


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=82)
    return file.getvalue()

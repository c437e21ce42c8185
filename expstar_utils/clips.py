"""Frames of a data set's clips: sampled anew, or read from where they were kept."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from expstar_utils.files import inside
from expstar_utils.media import Frames, outline, sample_frames
from expstar_utils.records import VirtualClip
from expstar_utils.sizes import FrameSize


def clip_path(clip: str | VirtualClip, root: Path) -> Path:
    """File of a sample's video. Raises ExpStarError when it is not below the data set's `root`."""
    return inside(root, clip.video if isinstance(clip, VirtualClip) else clip)


def clip_frames(clip: str | VirtualClip, root: Path, *, fps: float, max_frames: int,
                size_px: FrameSize = None, cache: Path | None = None) -> Frames:
    """Frames of a sample's video, given as a path or a virtual clip, both below the data set's `root`.

    Args:
        cache: folder where they are kept from the first time on (see `kept_frames`); None takes $EXPSTAR_FRAMES, and without it
            decodes them every time.
    """
    cache = cache or (Path(os.environ["EXPSTAR_FRAMES"]) if os.environ.get("EXPSTAR_FRAMES") else None)
    path, span = _stretch(clip, root)
    how = {"fps": fps, "max_frames": max_frames, "size_px": size_px}
    return sample_frames(path, *span, **how) if cache is None else kept_frames(cache, path, *span, **how)


def clip_outline(clip: str | VirtualClip, root: Path, *, fps: float, max_frames: int, size_px: FrameSize = None) -> Frames:
    """What `clip_frames` gives, grey: as many frames, as large (see `media.outline`)."""
    path, span = _stretch(clip, root)
    return outline(path, *span, fps=fps, max_frames=max_frames, size_px=size_px)


def _stretch(clip: str | VirtualClip, root: Path) -> tuple[Path, tuple[float, ...]]:
    return clip_path(clip, root), (clip.start, clip.end) if isinstance(clip, VirtualClip) else ()


def kept_frames(cache: Path, path: Path, *span: float, **how: Any) -> Frames:
    """`sample_frames`, kept as one uncompressed file in `cache`; a changed video, clip or size is another file.

    At the model's resolution a frame of 128 x 128 takes 49 kB. Nothing is removed: the folder may be deleted at any time.
    """
    state = Path(path).stat() if Path(path).is_file() else None
    asked = repr((str(Path(path).resolve()), state and (state.st_size, state.st_mtime_ns), span, sorted(how.items())))
    digest = hashlib.sha256(asked.encode()).hexdigest()
    kept = Path(cache) / digest[:2] / f"{digest}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(kept, allow_pickle=False) as arrays:
        return Frames(arrays["pixels"], arrays["times_s"], arrays["indices"], *map(float, arrays["span_s"]))
    frames = sample_frames(path, *span, **how)
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    with open(unfinished, "wb") as file:
        np.savez(file, pixels=frames.pixels, times_s=frames.times_s, indices=frames.indices,
                 span_s=[frames.start_s, frames.end_s])
    os.replace(unfinished, kept)
    return frames

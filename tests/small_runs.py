"""What tests of training and inference share: clips of noise, and a profile that trains a miniature in seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from expstar_utils.miniatures import noise_clip
from expstar_utils.profiles import Profile, load_profile

COMPILER = pytest.mark.skipif(not shutil.which("g++") and os.environ.get("CI") != "true",
                              reason="torch or DeepSpeed builds something with g++, which is missing")
TARGET = r".*(text_model|language_model).*\.(q_proj|v_proj|down_proj)"


def noise_clips(folder: Path, durations_s: Sequence[int]) -> Path:
    """The folder with clips `0.mp4`, `1.mp4`, ... of these lengths."""
    for seed, duration_s in enumerate(durations_s):
        noise_clip(folder / f"{seed}.mp4", duration_s, seed)
    return folder


def small_profile(base: Path, **changes: Any) -> Profile:
    """Profile for a miniature: unpacked rows in float32, frames as they are, a small adapter on a few layers."""
    return load_profile("tiny", **{"base": str(base), "dtype": "float32", "frame_size": (56, 56), "max_frames_sft": 3,
                                   "batch_size": 2, "packed": False, "augment": False, "save_steps": 1, "lora_r": 4,
                                   "lora_alpha": 8, "lora_target": TARGET, "warm_start": [], "warmup": 0.0,
                                   "compiled": False} | changes)

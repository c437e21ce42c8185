"""A long film to measure with: ten minutes of H.264 with sound, made once from the sample video."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "burning_a_gas.mp4"
LONG = Path(__file__).parents[1] / "runs" / "benchmarks" / "long.mp4"
DURATION_S, FPS, GROUP, WIDTH_PX, HEIGHT_PX, RATE_HZ = 588, 25, 250, 1280, 960, 48_000


def long_video() -> Path:
    """Path of the film: 588 s, 25 frames a second, 1280x960, a key frame every 250, B-frames, AAC sound."""
    if not LONG.is_file():
        LONG.parent.mkdir(parents=True, exist_ok=True)
        unfinished = LONG.with_suffix(".part.mp4")
        _write(unfinished)
        unfinished.replace(LONG)
    return LONG


def _write(path: Path) -> None:
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23", "g": str(GROUP), "bf": "2"})
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        sound = out.add_stream("aac", rate=RATE_HZ, layout="mono")
        frames = chain.from_iterable(_pictures() for _ in repeat(None))
        for number in tqdm(range(DURATION_S * FPS), desc="film", unit="frame"):
            frame = next(frames).reformat(WIDTH_PX, HEIGHT_PX, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(pictures.encode(frame))
            if number % FPS == 0:
                out.mux(sound.encode(_tone(number // FPS)))
        out.mux(pictures.encode())
        out.mux(sound.encode())


def _pictures():
    with av.open(str(SAMPLE)) as source:
        yield from source.decode(video=0)


def _tone(second: int) -> av.AudioFrame:
    """One second of a tone that rises from second to second."""
    wave = np.sin(2 * np.pi * (220 + second) * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)[None] * 0.3
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
    return frame

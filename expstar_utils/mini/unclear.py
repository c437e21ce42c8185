"""Films that show none of the experiments, for a model that should say so instead of guessing.

Clouds of colour (noise whose strength falls with its frequency, as in photographs), soft shapes that drift over them, and pieces
of real scenes shuffled like tiles. They carry no truth: nothing in them has a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from expstar_utils.mini.canvas import Canvas
from expstar_utils.mini.family import Family
from expstar_utils.mini.render import FPS, SIZE_PX, step_frames, write_video

FOLDER, FILMS, SECONDS, TILES = "unclear", 90, 3, 7


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Coloured noise with a 1/f spectrum, float [SIZE_PX, SIZE_PX, 3] about 0-255."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE_PX), np.fft.fftfreq(SIZE_PX)))[..., None]
    white = rng.normal(size=(SIZE_PX, SIZE_PX, 3))
    white = white.mean(-1, keepdims=True) * rng.uniform(0.3, 1.5) + white * rng.uniform(0.1, 1.0)
    spectrum = np.fft.fft2(white, axes=(0, 1)) / np.maximum(frequency, 1 / SIZE_PX) ** rng.uniform(0.8, 2.0)
    picture = np.fft.ifft2(spectrum, axes=(0, 1)).real
    picture = (picture - picture.mean()) / picture.std()
    return rng.uniform(60, 190) + rng.uniform(-35, 35, 3) + picture * rng.uniform(12, 55)


def shapes(rng: np.random.Generator, progress: float, drift: np.ndarray, kinds: np.ndarray, seed: int) -> np.ndarray:
    """Soft shapes on their way over the picture, RGBA float [SIZE_PX, SIZE_PX, 4]."""
    c = Canvas(SIZE_PX, progress * SECONDS, progress, seed)
    for (dx, dy), kind in zip(drift, kinds, strict=True):
        (x, y), (w, h), color = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.5, 2), tuple(rng.uniform(0, 1, 3))
        with c.at(x + dx * progress, y + dy * progress, 1.0, rng.uniform(0, 360)):
            if kind == 0:
                c.ellipse(0, 0, w / 2, h / 2, fill=color, alpha=rng.uniform(0.4, 1))
            elif kind == 1:
                c.rect(-w / 2, -h / 2, w, h, fill=color, alpha=rng.uniform(0.4, 1))
            else:
                c.line([tuple(p) for p in rng.uniform(-0.4, 0.4, (4, 2))], color, rng.uniform(0.005, 0.05))
    return c.pixels().astype(np.float32)


def film_frames(families: Sequence[Family], seed: int) -> Iterator[np.ndarray]:
    """Frames of one film, uint8 RGB [SIZE_PX, SIZE_PX, 3], FPS a second; every third film is made of tiles of a scene."""
    rng = np.random.default_rng([seed, 77])
    count, side, ground = SECONDS * FPS, SIZE_PX // TILES, clouds(rng)
    drift, kinds = rng.uniform(-0.4, 0.4, (rng.integers(2, 14), 2)), rng.integers(0, 3, 14)
    family = families[rng.integers(len(families))]
    order, pan = rng.permutation(TILES * TILES), rng.uniform(-1, 1, 2)
    scene = step_frames(family, family.variants[rng.integers(len(family.variants))], int(rng.integers(len(family.steps))), seed)
    for i in range(count):
        frame = np.roll(ground, tuple((pan * i).astype(int)), (0, 1))
        if seed % 3:
            layer = shapes(np.random.default_rng([seed, 78]), i / (count - 1), drift, kinds[:len(drift)], seed)
            alpha = layer[..., 3:] / 255
            frame = layer[..., :3] * alpha + frame * (1 - alpha)
        else:
            tiles = next(scene).reshape(TILES, side, TILES, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)[order]
            tiled = tiles.reshape(TILES, TILES, side, side, 3).swapaxes(1, 2).reshape(SIZE_PX, SIZE_PX, 3)
            frame = 0.8 * tiled + 0.2 * frame
        yield frame.clip(0, 255).astype(np.uint8)


def write_film(job: tuple[Path, Sequence[Family], int, int]) -> Path:
    """The film `unclear/<NN>.mp4` below a data set's folder, NN from 01; one that is there stays."""
    out, families, seed, number = job
    path = Path(out) / FOLDER / f"{number + 1:02d}.mp4"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        write_video(unfinished, [film_frames(families, seed * 1000 + number)])
        os.replace(unfinished, path)
    return path

"""From a variant to frames and a video: animated scenes, a moving camera, changing light."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.family import Family, Variant
from expstar_utils.mini.sprites import SPRITES

SIZE_PX, FPS = 224, 8
GRAIN = np.float32(2.5)  # of the picture, in grey levels
ENCODER = {"crf": "23", "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
WALLS = ["#e9edf0", "#dfe7e2", "#efe9dd", "#d9e2ec", "#e6dfe8", "#cfd8dc", "#f2f2ee", "#d5dccf"]
TABLES = ["#b98d5f", "#8d99a6", "#c9b79c", "#6f7f86", "#a67c52", "#d8d2c4"]


def resolve(value: Any, drawing: dict[str, Any], progress: float, time_s: float) -> Any:
    """Value of a scene parameter now: `$attribute[.key]`, an animation, or the literal itself.

    Animations: `{from, to, start, end}` (fractions of the clip, eased), `{keys: [v0, v1, ...]}` (equally spaced),
    `{swing: amplitude, about: middle, period_s: seconds}`. Numbers and colours both move.
    """
    if isinstance(value, str) and value.startswith("$"):
        name, _, key = value[1:].partition(".")
        found = drawing[name][key] if key else drawing[name]
        return resolve(found, drawing, progress, time_s)
    if isinstance(value, list):
        return [resolve(v, drawing, progress, time_s) for v in value]
    if not isinstance(value, dict):
        return value
    part = {k: resolve(v, drawing, progress, time_s) for k, v in value.items()}
    if "swing" in part:
        return part.get("about", 0.0) + part["swing"] * math.sin(2 * math.pi * time_s / part.get("period_s", 1.0))
    if "keys" in part:
        place = progress * (len(part["keys"]) - 1)
        i = min(int(place), len(part["keys"]) - 2)
        return _between(part["keys"][i], part["keys"][i + 1], place - i)
    if {"from", "to"} <= set(part):
        u = (progress - part.get("start", 0.0)) / max(part.get("end", 1.0) - part.get("start", 0.0), 1e-6)
        u = min(max(u, 0.0), 1.0)
        return _between(part["from"], part["to"], u * u * (3 - 2 * u))
    return part


def _between(a: Any, b: Any, u: float) -> Any:
    return mix(a, b, u) if isinstance(a, str | tuple) else a + (b - a) * u


def wanted(item: dict[str, Any], see: dict[str, str]) -> bool:
    """Whether an item's `if: {attribute: value or [values]}` fits the variant."""
    return all(see[k] in (v if isinstance(v, list) else [v]) for k, v in item.get("if", {}).items())


def draw_scene(c: Canvas, scene: list[dict[str, Any]], drawing: dict[str, Any], see: dict[str, str]) -> None:
    """Draw the items of a scene in order, back to front."""
    for item in (i for i in scene if wanted(i, see)):
        now = {k: resolve(v, drawing, c.progress, c.time_s) for k, v in item.items() if k != "if"}
        start, end = now.pop("show", (0.0, 1.0))
        x, y = now.pop("at", (0.5, 0.25))
        size, turn, name = now.pop("size", 0.3), now.pop("rotate", 0.0), now.pop("sprite")
        if start <= c.progress <= end:
            with c.at(x, y, size, turn):
                SPRITES[name](c, **now)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Wall and table with a soft light, uint8 [SIZE_PX, SIZE_PX, 3]."""
    wall, table = (np.array(mix(colors[rng.integers(len(colors))], "#ffffff", 0.25 * rng.random())) for colors in (WALLS, TABLES))
    edge = int(SIZE_PX * (1 - rng.uniform(0.2, 0.27)))
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] / SIZE_PX
    light = 1.04 - 0.16 * np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.0, 0.4))
    picture = np.where((np.arange(SIZE_PX) < edge)[:, None, None], wall, table) * light[..., None]
    return picture.clip(0, 1) * 255


def step_frames(family: Family, variant: Variant, number: int, seed: int, fps: int = FPS) -> Iterator[np.ndarray]:
    """Frames of one step's clip, uint8 RGB [SIZE_PX, SIZE_PX, 3], `fps` a second.

    Args:
        number: the step, counted from 0.
        seed: of the take: its room and light; with `number`, camera place and shake and the grain of the picture.
    """
    step, room = family.steps[number], np.random.default_rng([seed, 0])
    background, gain = _background(room), room.uniform(0.97, 1.03, 3) * room.uniform(0.92, 1.04)
    background, gain = (background * gain).astype(np.float32), gain.astype(np.float32)
    rng = np.random.default_rng([seed, 1 + number])
    zoom, dx, dy = rng.uniform(0.96, 1.06), *rng.uniform(-0.02, 0.02, 2)
    sway_hz, drift = rng.uniform(0.15, 0.4), rng.uniform(-0.02, 0.02, 2)
    count, drawing = round(step.seconds * fps), family.drawing(variant)
    for i in range(count):
        time_s, progress = i / fps, i / (count - 1)
        c = Canvas(SIZE_PX, time_s, progress, seed * 10 + number)
        shake = 0.006 * math.sin(2 * math.pi * sway_hz * time_s)
        with c.at(0.5 - 0.5 * zoom + dx + drift[0] * progress + shake, 0.5 - 0.5 * zoom + dy + drift[1] * progress, zoom):
            draw_scene(c, step.scene, drawing, variant.see)
        layer = c.pixels().astype(np.float32)  # float32 and in place: a quarter of the time goes into these five lines
        frame = layer[..., :3] * gain
        frame -= background
        frame *= layer[..., 3:] / np.float32(255)
        frame += background + GRAIN * rng.standard_normal((SIZE_PX, SIZE_PX, 1), np.float32)
        yield frame.clip(0, 255, out=frame).astype(np.uint8)


def write_video(path: Path, clips: Iterable[Iterable[np.ndarray]], fps: int = FPS) -> list[tuple[float, float]]:
    """Write clips one after the other into one H.264 video, `fps` frames a second; returns each clip's (start_s, end_s).

    One encoding thread, bit-exact muxing, and x264's `cpu-independent` (without it AVX-512 code gave other bytes in every
    run): the same frames give the same bytes, on any processor.
    """
    times, at = [], 0
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=fps, options=ENCODER)
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, fps)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for clip in clips:
            start = at
            for pixels in clip:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = at, Fraction(1, fps)
                out.mux(stream.encode(frame))
                at += 1
            times.append((start / fps, at / fps))
        out.mux(stream.encode())
    return times


def take_clips(family: Family, variant: Variant, seed: int, fps: int = FPS) -> Iterator[Iterator[np.ndarray]]:
    """Frames of all steps of a take, see `step_frames`."""
    return (step_frames(family, variant, number, seed, fps) for number in range(len(family.steps)))

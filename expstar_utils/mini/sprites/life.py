"""Food tests and the survey of a stream: mortar, rack, net, tray and the small animals in it."""

from __future__ import annotations

import math

import numpy as np

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite


@sprite
def food_mortar(c: Canvas, grind=0.0, turn=0.0, food="#d9b25f", water=0.0):
    """Mortar with a pestle. grind 0-1: lumps become paste; turn: where the pestle is, in turns; water 0-1."""
    c.poly([(-0.5, 0.42), (-0.44, 0.2), (-0.28, 0.06), (0.28, 0.06), (0.44, 0.2), (0.5, 0.42)], fill="#d5d9dc",
           edge="#555c62", width=0.02)
    c.rect(-0.24, 0, 0.48, 0.07, fill="#b8bdc2", edge="#555c62", width=0.02)
    c.ellipse(0, 0.42, 0.5, 0.17, fill="#f3f4f4", edge="#555c62", width=0.02)
    if water > 0.01:
        c.ellipse(0, 0.4, 0.42 * water, 0.13 * water, fill="#a9d4ee")
    if grind > 0.05:
        c.ellipse(0, 0.39, 0.36 * grind, 0.11 * grind, fill=mix(food, "#ffffff", 0.25), alpha=0.9)
    rng = c.rng(31)
    for _ in range(int(14 * (1 - 0.75 * grind))):
        x, y, r = 0.3 * rng.uniform(-1, 1), 0.39 + 0.07 * rng.uniform(-1, 1), 0.085 * (1 - 0.6 * grind)
        c.rect(x - r / 2, y - r / 2, r, r, fill=mix(food, "#000000", 0.3 * rng.random()), edge="#6b5320", width=0.008)
    x, y = 0.2 * math.cos(2 * math.pi * turn), 0.4 + 0.05 * math.sin(2 * math.pi * turn)
    c.line([(x, y + 0.02), (0.32 + 0.5 * x, 1.0)], "#555c62", 0.13)
    c.line([(x, y + 0.02), (0.32 + 0.5 * x, 1.0)], "#eceeee", 0.1)
    c.ellipse(x, y + 0.02, 0.1, 0.07, fill="#eceeee", edge="#555c62", width=0.015)


@sprite
def rack_board(c: Canvas, width=1.0, height=0.5, color="#a9713a"):
    """Wooden test-tube rack as a back board with two posts and a foot; draw the tubes over it."""
    c.rect(-width / 2, 0, width, 0.09, fill=color, edge="#5d3b18", width=0.015)
    for x in (-width / 2, width / 2 - 0.07):
        c.rect(x, 0.05, 0.07, height, fill=color, edge="#5d3b18", width=0.015)
    c.rect(-width / 2, height - 0.02, width, 0.09, fill=color, edge="#5d3b18", width=0.015)


STONES = ["#8d8a84", "#a59b8a", "#6f7378", "#b7aa8f", "#7d6a55"]


def _legs(c: Canvas, xs: list[float], reach: float, lean: float, color: str, swing: float) -> None:
    for i, x in enumerate(xs):
        for side in (-1, 1):
            step = swing * math.sin(7 * c.time_s + 2 * i + side)
            c.line([(x, 0.04 * side), (x + lean * (i - 1) + step, 0.6 * reach * side),
                    (x + 1.8 * lean * (i - 1) + step, reach * side)], color, 0.035)


def _nymph(c: Canvas, color: str, dark: str, tails: tuple[float, ...], gills: bool) -> None:
    sway = 0.05 * math.sin(5 * c.time_s)
    for turn in tails:
        c.line([(-0.2, 0), (-0.42, 0.6 * turn), (-0.62, turn + sway)], dark, 0.035)
    _legs(c, [0.06, 0.16, 0.26], 0.3, 0.1, dark, 0.03)
    if gills:
        for i in range(5):
            for side in (-1, 1):
                c.ellipse(-0.26 + 0.075 * i, (0.13 + 0.02 * math.sin(12 * c.time_s + i)) * side, 0.03, 0.06,
                          fill="#d8efa0", edge=dark, width=0.012)
    c.poly([(-0.34, 0.04), (-0.1, 0.12), (0.1, 0.13), (0.1, -0.13), (-0.1, -0.12), (-0.34, -0.04)], fill=color,
           edge=dark, width=0.025)
    for i in range(4):
        c.line([(-0.25 + 0.075 * i, 0.09), (-0.25 + 0.075 * i, -0.09)], dark, 0.022)
    c.ellipse(0.17, 0, 0.14, 0.15, fill=color, edge=dark, width=0.025)
    c.ellipse(0.36, 0, 0.1, 0.11, fill=color, edge=dark, width=0.025)
    for side in (-1, 1):
        c.line([(0.43, 0.05 * side), (0.6, 0.16 * side + sway)], dark, 0.025)
        c.circle(0.38, 0.07 * side, 0.03, fill="#111111")


def _shrimp(c: Canvas) -> None:
    beat = 0.03 * math.sin(9 * c.time_s)
    bend = [math.radians(200 - 22 * i) for i in range(10)]
    for i, a in enumerate(bend[1:8]):
        x, y = 0.34 * math.cos(a), 0.3 * math.sin(a) - 0.08
        c.line([(x, y), (0.55 * x + beat * (-1) ** i, y - 0.22)], "#8a3f10", 0.03)
    for i, a in enumerate(bend):
        c.circle(0.36 * math.cos(a), 0.32 * math.sin(a) - 0.08, 0.09 + 0.035 * math.sin(math.pi * i / 9), fill="#f58a2e",
                 edge="#8a3f10", width=0.022)
    c.circle(0.36, -0.06, 0.03, fill="#111111")
    c.line([(0.42, -0.06), (0.6, 0.06), (0.66, 0.2 + beat)], "#8a3f10", 0.025)
    c.line([(0.42, -0.1), (0.58, -0.16), (0.66, -0.1 + beat)], "#8a3f10", 0.025)


def _blackfly(c: Canvas) -> None:
    with c.at(-0.42, 0, 1, 8 * math.sin(3 * c.time_s)):
        c.poly([(0, 0.1), (0.12, 0.19), (0.3, 0.2), (0.46, 0.12), (0.7, 0.1), (0.78, 0.05), (0.78, -0.05), (0.7, -0.1),
                (0.46, -0.12), (0.3, -0.2), (0.12, -0.19), (0, -0.1)], fill="#2b2622", edge="#000000", width=0.02)
        for i in range(5):
            c.line([(0.14 + 0.12 * i, 0.15 - 0.02 * i), (0.14 + 0.12 * i, -0.15 + 0.02 * i)], "#6d6258", 0.02)
        for side in (-1, 1):
            for k in range(4):
                c.line([(0.76, 0.05 * side), (0.92 - 0.03 * k, (0.1 + 0.07 * k) * side)], "#2b2622", 0.02)


def _caddis(c: Canvas) -> None:
    out = 0.04 * math.sin(3 * c.time_s)
    _legs(c, [0.3 + out, 0.37 + out, 0.44 + out], 0.22, 0.06, "#2d1f10", 0.02)
    c.ellipse(0.36 + out, 0, 0.18, 0.08, fill="#caa45c", edge="#2d1f10", width=0.02)
    c.circle(0.53 + out, 0, 0.07, fill="#2d1f10")
    rng = c.rng(32)
    for i in range(9):
        for j in range(3):
            color = STONES[rng.integers(len(STONES))]
            c.ellipse(-0.46 + 0.09 * i, (0.11 + 0.006 * i) * (j - 1), 0.065, 0.07 + 0.004 * i, fill=color, edge="#3a3228",
                      width=0.018)


def _snail(c: Canvas) -> None:
    crawl = 0.03 * math.sin(3 * c.time_s)
    c.ellipse(0.08 + crawl, -0.3, 0.42, 0.09, fill="#8b8f6a", edge="#41442c", width=0.02)
    for turn in (0.0, 0.12):
        c.line([(0.42 + crawl, -0.26), (0.52 + turn + crawl, -0.08)], "#41442c", 0.03)
    c.circle(0, 0.03, 0.36, fill="#b5622a", edge="#54280c", width=0.03)
    a = np.linspace(0, 5.2 * math.pi, 60)
    r = 0.36 * a / a[-1]
    c.line(list(zip(r * np.cos(a - 1), 0.03 + r * np.sin(a - 1), strict=True)), "#54280c", 0.035)


def _bloodworm(c: Canvas) -> None:
    x = np.linspace(-0.5, 0.5, 40)
    y = 0.2 * np.sin(9 * x + 6 * c.time_s)
    points = list(zip(x, y, strict=True))
    c.line(points, "#6e0008", 0.15)
    c.line(points, "#e3141f", 0.11)
    for i in range(3, 38, 4):
        c.circle(*points[i], 0.025, fill="#ff8a86")
    c.circle(*points[-1], 0.06, fill="#4a0005")


@sprite
def stream_animal(c: Canvas, kind="stonefly"):
    """Small animal of fresh water seen from above, moving, origin at its centre, head to the right, 1 unit long.

    kind: stonefly, mayfly, shrimp, blackfly, caddis, snail or bloodworm.
    """
    if kind == "stonefly":
        _nymph(c, "#f7c91c", "#5c4300", (-0.2, 0.2), gills=False)
    elif kind == "mayfly":
        _nymph(c, "#7d9c1e", "#32400a", (-0.26, 0.0, 0.26), gills=True)
    else:
        {"shrimp": _shrimp, "blackfly": _blackfly, "caddis": _caddis, "snail": _snail, "bloodworm": _bloodworm}[kind](c)


@sprite
def stream_bed(c: Canvas, color="#bfe3f5", level=0.6, flow=1.0):
    """Full-frame side view of a stream under the open sky; level 0-1: water surface; flow: speed. Origin at the corner."""
    c.rect(-0.1, -0.1, 1.2, 1.2, fill="#eef4f7")
    c.rect(-0.1, level - 0.02, 1.2, 0.14, fill="#d8bd86")
    u = np.linspace(-0.1, 1.1, 40)
    top = level + 0.012 * np.sin(22 * u - 6 * flow * c.time_s)
    c.poly([*zip(u, top, strict=True), (1.1, -0.1), (-0.1, -0.1)], fill=color)
    for k in (0.25, 0.5, 0.75):
        c.wave(-0.1, 1.1, level * k + 0.1, 0.012, 4, mix(color, "#ffffff", 0.45), 0.012, phase=-flow * c.time_s + k)
    c.rect(-0.1, -0.1, 1.2, 0.14, fill="#9a7f58")
    rng = c.rng(33)
    for i in range(12):
        r = rng.uniform(0.05, 0.09)
        c.ellipse(-0.05 + 0.1 * i, 0.05 + 0.03 * rng.random(), r, 0.7 * r, fill=STONES[i % 5], edge="#45403a", width=0.008)


@sprite
def stream_drift(c: Canvas, length=0.4, amount=1.0):
    """Silt and small animals carried to the right from the origin over `length`; amount 0-1."""
    rng = c.rng(34)
    for _ in range(int(24 * amount)):
        u = (rng.random() + 0.7 * c.time_s) % 1.0
        c.circle(length * u, 0.16 * rng.uniform(-1, 1) * (0.4 + u), rng.uniform(0.008, 0.02), fill="#5b3d1c", alpha=0.9)


@sprite
def wader_boot(c: Canvas, color="#1f6b3a"):
    """Rubber boot on a leg, toe to the right, origin under the heel."""
    c.poly([(-0.12, 0.05), (-0.12, 0.75), (0.16, 0.75), (0.16, 0.27), (0.4, 0.2), (0.46, 0.05)], fill=color,
           edge="#0d2f19", width=0.025)
    c.rect(-0.14, 0, 0.62, 0.08, fill="#1c1c1c")
    c.rect(-0.13, 0.72, 0.31, 0.09, fill=mix(color, "#ffffff", 0.35), edge="#0d2f19", width=0.02)
    c.rect(-0.09, 0.8, 0.23, 0.9, fill="#34507a", edge="#1c2c45", width=0.02)


@sprite
def kick_net(c: Canvas, bag=0.45, color="#f4f1e4"):
    """Pond net, mouth to the left, its pole upwards; origin at the foot of the mouth; bag: length of the net."""
    c.poly([(0, 0), (0, 0.42), (bag, 0.3), (bag, 0.12)], fill=color, edge="#6c7a58", width=0.02, alpha=0.9)
    for k in (0.25, 0.5, 0.75):
        c.line([(bag * k, 0.06 * k + 0.03), (bag * k, 0.42 - 0.1 * k)], "#8fa07a", 0.01)
        c.line([(0, 0.42 * k), (bag, 0.12 + 0.18 * k)], "#8fa07a", 0.01)
    c.line([(0, 0), (0, 1.6)], "#b98a4a", 0.05)
    c.line([(0, 0), (0, 0.42)], "#2d5fb3", 0.06)


@sprite
def sorting_tray(c: Canvas, width=1.0, height=0.8, water="#e8f5fb"):
    """White tray with water seen from above, origin at its centre."""
    c.rect(-width / 2, -height / 2, width, height, fill="#ffffff", edge="#4b5a66", width=0.02)
    c.rect(-width / 2 + 0.06, -height / 2 + 0.06, width - 0.12, height - 0.12, fill=water, edge="#9db2c0", width=0.015)
    for k in range(3):
        c.wave(-width / 2 + 0.12, width / 2 - 0.12, height * (0.26 * k - 0.26), 0.01, 3, "#cfe4ef", 0.012,
               phase=0.4 * c.time_s + 0.3 * k)


@sprite
def pool_weed(c: Canvas, color="#2f8a3c", stems=6):
    """Water weed swaying, one unit wide and about 0.6 high, origin at the lower left."""
    for i in range(int(stems)):
        x, lean = (i + 0.5) / stems, 0.05 * math.sin(2 * c.time_s + i)
        c.line([(x, 0), (x + 0.4 * lean, 0.3), (x + lean, 0.6)], color, 0.025)
        for k in range(1, 5):
            c.ellipse(x + lean * k / 5 + 0.05 * (-1) ** k, 0.13 * k, 0.05, 0.022, fill=mix(color, "#b6e06a", 0.3))


@sprite
def hand_lens(c: Canvas, field="#eaf6fb"):
    """Big magnifying glass with its view, origin at the centre of the glass; draw what is seen over it."""
    c.line([(0.32, -0.32), (0.62, -0.62)], "#5a3a1c", 0.12)
    c.circle(0, 0, 0.46, fill=field, edge="#2e3338", width=0.06)
    c.arc(0, 0, 0.38, 110, 160, "#ffffff", 0.04)

"""Sending data: modems, the links between them, a receiver's screens."""

from __future__ import annotations

import math

import numpy as np

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GRID4 = [-0.75, -0.25, 0.25, 0.75]
PLACES = {
    2: [(-0.7, 0.0), (0.7, 0.0)],
    4: [(x, y) for x in (-0.6, 0.6) for y in (-0.6, 0.6)],
    8: [(0.8 * math.cos(k * math.pi / 4), 0.8 * math.sin(k * math.pi / 4)) for k in range(8)],
    16: [(x, y) for x in GRID4 for y in GRID4],
}


@sprite
def modem_box(c: Canvas, label="TX", power=0.0, color="#35506b"):
    """Modem with three lamps. power 0-1: they flicker; label: up to 3 letters."""
    c.rect(-0.5, 0, 1.0, 0.7, fill=color, edge="#1a2733", width=0.03)
    c.rect(-0.38, 0.36, 0.76, 0.26, fill="#f2f2ec")
    c.text(0, 0.49, label, 0.16)
    for k in range(3):
        lit = power > 0.5 and math.sin(c.time_s * (9 + 4 * k) + 2 * k) > -0.3
        c.circle(-0.25 + 0.25 * k, 0.18, 0.09, fill="#4dff6a" if lit else "#1e2a30", edge="#0d1418", width=0.02)


def _dish(c: Canvas, x: float, way: int) -> None:
    c.line([(x, 0), (x, 0.3)], "#4a5157", 0.05)
    c.line([(x - 0.1, 0), (x + 0.1, 0)], "#4a5157", 0.05)
    with c.at(x, 0.36, 1.0, 0 if way > 0 else 180):
        bowl = [(0.09 - 0.14 * math.cos(a), 0.24 * math.sin(a)) for a in np.linspace(-1.45, 1.45, 15)]
        c.poly(bowl, fill="#f6f8fa", edge="#2c3338", width=0.025)
        c.line([(-0.05, 0), (0.17, 0)], "#2c3338", 0.025)
        c.circle(0.18, 0, 0.035, fill="#d62020")


@sprite
def data_link(c: Canvas, kind="dish", flow=0.0):
    """Link from left (-0.5) to right (0.5). kind: dish, fibre or cable; flow 0-1: data run along it."""
    if kind == "dish":
        _dish(c, -0.36, 1)
        _dish(c, 0.36, -1)
        for k in range(4 if flow > 0.05 else 0):
            u = (k / 4 + 0.6 * c.time_s) % 1.0
            c.arc(-0.42 + 0.45 * u, 0.36, 0.2 + 0.04 * u, -38, 38, "#8e2fd0", 0.035, flow * (1 - abs(2 * u - 1) ** 3))
        return
    u = np.linspace(0, 1, 90)
    if kind == "fibre":
        turn = 4 * math.pi * np.clip((u - 0.2) / 0.6, 0, 1)
        xs, ys = -0.5 + u + 0.15 * np.sin(turn), 0.14 + 0.21 * (1 - np.cos(turn))
        points = list(zip(xs, ys, strict=True))
        c.line(points, "#e0a800", 0.055)
        c.line(points, "#fff3a6", 0.025)
        for k in range(7 if flow > 0.05 else 0):
            x, y = points[int(((k / 7 + 0.35 * c.time_s) % 1.0) * 89)]
            c.circle(x, y, 0.055, fill="#ff2d2d", alpha=0.45 * flow)
            c.circle(x, y, 0.032, fill="#ff2d2d", alpha=flow)
        return
    for phase, color in ((0.0, "#b4551d"), (0.5, "#6b2d0b")):
        c.wave(-0.5, 0.5, 0.26, 0.09, 3.5, color, 0.085, phase)
    for k in range(6 if flow > 0.05 else 0):
        x = -0.5 + (k / 6 + 0.35 * c.time_s) % 1.0
        c.rect(x - 0.03, 0.4, 0.07, 0.12 if k % 3 else 0.2, fill="#1560d4", alpha=flow)


def _bezel(c: Canvas) -> None:
    c.rect(-0.5, -0.5, 1.0, 1.0, fill="#aab3ba", edge="#3a3f44", width=0.02)
    c.rect(-0.45, -0.45, 0.9, 0.9, fill="#07121f")


@sprite
def constellation_screen(c: Canvas, dots=4, spread=0.0, shown=1.0, color="#ffe14a"):
    """Constellation view, origin at its centre. dots 2, 4, 8 or 16; spread 0 sharp to 1 clouds; shown 0-1 of the dots."""
    _bezel(c)
    c.line([(-0.44, 0), (0.44, 0)], "#3f6d94", 0.012)
    c.line([(0, -0.44), (0, 0.44)], "#3f6d94", 0.012)
    rng = np.random.default_rng([c.seed, int(4 * c.time_s)])
    places = PLACES[int(dots)]
    for k in np.random.default_rng(3).permutation(len(places))[:math.ceil(shown * len(places))]:
        x, y = 0.42 * places[k][0], 0.42 * places[k][1]
        if spread < 0.5:
            c.circle(x, y, 0.05, fill=mix(color, "#07121f", 0.6))
            c.circle(x, y, 0.034, fill=color)
        else:
            c.circle(x, y, 0.088, fill=color, alpha=0.33)
            for dx, dy in 0.04 * rng.normal(size=(9, 2)).clip(-2, 2):
                c.circle(x + dx, y + dy, 0.013, fill=color, alpha=0.9)


@sprite
def dot_zoom(c: Canvas, spread=0.0, amount=1.0, color="#ffe14a"):
    """One constellation dot seen close, origin at its centre. spread 0 sharp to 1 cloud; amount 0-1 of the hits."""
    _bezel(c)
    c.line([(-0.44, 0), (0.44, 0)], "#3f6d94", 0.016)
    c.line([(0, -0.44), (0, 0.44)], "#3f6d94", 0.016)
    c.circle(0, 0, 0.4, edge="#ff4d4d", width=0.014)
    sigma, rng = 0.025 + 0.135 * spread, c.rng(31)
    for dx, dy in sigma * rng.normal(size=(90, 2)).clip(-2.4, 2.4)[:int(90 * amount)]:
        c.circle(dx, dy, 0.022, fill=color, alpha=0.85)


@sprite
def carrier_screen(c: Canvas, power=1.0, color="#4dff6a"):
    """Oscilloscope with a carrier wave that runs to the left, origin at its centre; power 0-1: its height."""
    _bezel(c)
    for k in range(1, 6):
        c.line([(-0.45 + 0.15 * k, -0.45), (-0.45 + 0.15 * k, 0.45)], "#1d3a56", 0.008)
        c.line([(-0.45, -0.45 + 0.15 * k), (0.45, -0.45 + 0.15 * k)], "#1d3a56", 0.008)
    c.wave(-0.44, 0.44, 0, 0.3 * power, 4, color, 0.03, 0.55 * c.time_s)

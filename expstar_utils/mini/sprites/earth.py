"""Soil and water works: packed beds, waste pipes, pouring grains, the permeameter and its raised tank."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.path import Path

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GLASS = "#4f626e"
COARSE = {"chunks": 0.085, "beads": 0.055, "filings": 0.07, "gravel": 0.085, "sand": 0.04, "fine": 0.024, "mud": 0.05}


def _shapes(kind: str) -> np.ndarray:
    if kind == "filings":
        return np.array([(-1, -0.2), (1, -0.2), (1, 0.2), (-1, 0.2)])
    if kind == "chunks":
        return np.array([(-0.9, -0.6), (0.2, -0.95), (0.95, -0.2), (0.5, 0.85), (-0.6, 0.8)])
    if kind == "mud":
        return np.array([(-1, -0.15), (1, -0.15), (1, 0.15), (-1, 0.15)])
    return np.array([(math.cos(a), math.sin(a)) for a in np.arange(8) * math.pi / 4])


def _grains(c: Canvas, kind: str, places: np.ndarray, r: float, fill, edge=None, key: int = 61) -> None:
    """All grains of one colour as one path: quick. places: [n, 2]."""
    if not len(places):
        return
    unit, angles = _shapes(kind) * r, c.rng(key).uniform(0, 0.25 if kind == "mud" else math.pi, len(places))
    turn = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], -1).reshape(-1, 2, 2)
    points = unit @ turn.transpose(0, 2, 1) + places[:, None, :]
    points = np.concatenate([points, points[:, :1]], 1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, *[Path.LINETO] * (len(unit) - 1), Path.CLOSEPOLY], len(places))
    c.draw(Path(points, codes), fill, edge, 0.008, 1.0)


def _bed(c: Canvas, kind: str, color: str, half: float, low: float, high: float) -> None:
    """A bed of grains between two levels, the same places at every level (it fills up from below)."""
    if high - low < 0.01:
        return
    back = mix(color, "#000000", 0.3 if kind != "mud" else 0.08)
    c.rect(-half, low, 2 * half, high - low, fill=back)
    r = COARSE[kind]
    xs = np.arange(-half + r, half - 0.6 * r, 1.7 * r)
    ys = np.arange(low + r, low + 1.2, 1.7 * r)
    grid = np.array([(x, y) for y in ys for x in xs]) + c.rng(62).uniform(-0.3 * r, 0.3 * r, (len(xs) * len(ys), 2))
    grid = grid[grid[:, 1] < high - 0.5 * r]
    if kind == "mud":
        grid = grid[::3]
    tones = [mix(color, "#ffffff", 0.12), color, mix(color, "#000000", 0.1)]
    for i, tone in enumerate(tones):
        _grains(c, kind, grid[i::3], r * 0.92, tone, key=63 + i)


@sprite
def packed_column(c: Canvas, bed="#ffffff", kind="beads", packed=1.0, pool=0.0, water="#1f5fe0", front=0.0, drip=0.0,
                  out="#e8f4fb"):
    """Upright filter column, 1.15 high, tap below, origin at its outlet. kind: chunks, beads or filings.

    packed 0-1: height of the bed; pool 0-1: water above it; front 0-1: how far down the water has soaked the bed;
    drip 0 or 1: drops of colour `out` fall.
    """
    w, foot, tall = 0.25, 0.2, 0.6
    c.rect(-w, foot, 2 * w, 0.95, fill="#ffffff", alpha=0.4)
    _bed(c, kind, bed, w, foot, foot + tall * packed)
    if front > 0.01:
        c.rect(-w, foot + tall * (1 - front), 2 * w, tall * front, fill=water, alpha=0.3)
    if pool > 0.01:
        c.rect(-w, foot + tall, 2 * w, 0.32 * pool, fill=water)
    c.line([(-w - 0.04, 1.18), (-w, 1.14), (-w, foot), (-0.05, 0.12), (-0.05, 0)], GLASS, 0.035)
    c.line([(w + 0.04, 1.18), (w, 1.14), (w, foot), (0.05, 0.12), (0.05, 0)], GLASS, 0.035)
    c.rect(-0.17, 0.06, 0.34, 0.05, fill="#d97a1f")
    if drip > 0.5:
        for phase in (0.0, 0.5):
            fall = (1.6 * c.time_s + phase) % 1.0
            c.ellipse(0, -0.05 - 0.3 * fall, 0.045, 0.065, fill=out, edge=GLASS, width=0.012)


@sprite
def bed_stain(c: Canvas, color="#1f5fe0", depth=0.5):
    """Upper part of a packed_column's bed changed to another colour; same place and size; depth 0-1 of the bed."""
    if depth > 0.01:
        c.rect(-0.235, 0.8 - 0.6 * depth, 0.47, 0.6 * depth, fill=color, alpha=0.85)
        xs = np.linspace(-0.2, 0.2, 7)
        for x, more in zip(xs, c.rng(64).uniform(0, 0.06, 7), strict=True):
            c.rect(x - 0.035, 0.8 - 0.6 * depth - more, 0.07, more, fill=color, alpha=0.85)


@sprite
def waste_pipe(c: Canvas, water="#1f5fe0", flow=1.0, drop=0.5):
    """Thick pipe from the left, origin at its mouth; flow 0-1: water falls by `drop`."""
    if flow > 0.02:
        bend = [(0.16 * t, -drop * t * t) for t in np.linspace(0, 1, 9)]
        c.line(bend, mix(water, "#000000", 0.15), 0.04 + 0.12 * flow)
        c.line(bend, water, 0.01 + 0.12 * flow)
        for i in range(4):
            t = (i / 4 + 1.4 * c.time_s) % 1.0
            c.circle(0.16 * t, -drop * t * t, 0.022, fill="#ffffff", alpha=0.7)
    c.rect(-0.9, -0.12, 0.9, 0.24, fill="#858d94", edge="#3a4046", width=0.02)
    c.rect(-0.1, -0.16, 0.1, 0.32, fill="#6b737a", edge="#3a4046", width=0.02)


@sprite
def grain_scoop(c: Canvas, color="#ffffff", kind="beads", flow=1.0, drop=0.5, tilt=1.0):
    """Scoop held from the right, origin at its lip; flow 0 or 1: grains fall by `drop`; tilt 0-1."""
    r = max(0.8 * COARSE[kind], 0.03)
    if flow > 0.5:
        rng = c.rng(65)
        phase, xs = rng.random(16), rng.uniform(-0.07, 0.07, 16)
        ys = -drop * ((phase + 1.3 * c.time_s) % 1.0)
        _grains(c, kind, np.stack([xs, ys], -1), r, color, "#333333")
    with c.at(0, 0, 1.0, 30 * tilt):
        c.rect(0.45, 0.08, 0.5, 0.07, fill="#a86b32", edge="#4b2d12", width=0.015)
        c.poly([(0, 0.2), (0.02, 0.0), (0.5, 0.02), (0.5, 0.22)], fill="#aab3b9", edge="#3a4046", width=0.02)
        c.ellipse(0.24, 0.21, 0.23, 0.09, fill=color, edge="#333333", width=0.012)


@sprite
def tilted_jug(c: Canvas, water="#1f5fe0", fill=0.8, drop=0.4, pour=1.0):
    """Jug tipped to the left, origin at its lip; fill 0-1; pour 0 or 1: a stream falls by `drop`."""
    if pour > 0.5:
        c.line([(0, 0), (-0.05, -0.06), (-0.06, -drop)], mix(water, "#000000", 0.2), 0.1)
        c.line([(0, 0), (-0.05, -0.06), (-0.06, -drop)], water, 0.075)
    c.poly([(0, 0), (0.42, -0.36), (0.8, 0.05), (0.38, 0.42)], fill="#ffffff", alpha=0.5)
    if fill > 0.03:
        f = min(fill, 1.0)
        c.poly([(0.42 - 0.42 * f, -0.36 + 0.36 * f), (0.42, -0.36), (0.8, 0.05), (0.8 - 0.05 * f, 0.05 * f)], fill=water)
    c.line([(-0.03, 0.02), (0.42, -0.36), (0.8, 0.05), (0.36, 0.45)], GLASS, 0.035)


@sprite
def soil_cell(c: Canvas, soil="#e8b429", kind="sand", fill=1.0, wet=0.0, lid=1.0, water="#2f86e0"):
    """Glass soil cell, 1 wide and 1 high. kind: gravel, sand, fine or mud; fill 0-1; wet 0-1: depth of the water front
    from the top; lid 0 or 1: metal plates above and below."""
    c.rect(-0.45, 0.06, 0.9, 0.88, fill="#ffffff", alpha=0.4)
    _bed(c, kind, soil, 0.45, 0.06, 0.06 + 0.88 * fill)
    if wet > 0.01:
        y = 0.94 - 0.88 * wet
        c.rect(-0.45, y, 0.9, 0.88 * wet, fill="#163a6b", alpha=0.24)
        if wet < 0.99:
            c.wave(-0.44, 0.44, y, 0.02, 3, water, 0.05, phase=c.time_s)
    c.rect(-0.45, 0.03, 0.9, 0.92, edge=GLASS, width=0.035)
    c.rect(-0.52, -0.03, 1.04, 0.09, fill="#5b6268", edge="#22272b", width=0.015)
    if lid > 0.5:
        c.rect(-0.52, 0.93, 1.04, 0.09, fill="#5b6268", edge="#22272b", width=0.015)
        c.rect(-0.07, 1.0, 0.14, 0.1, fill="#c9a54a", edge="#5b4420", width=0.012)


@sprite
def head_blocks(c: Canvas, count=1, placed=1.0, color="#d8342c"):
    """Stack of 1-3 big blocks, each 1 wide and 0.55 high; placed 0-1: they slide in from the left one after another."""
    for i in range(int(count)):
        u = min(max(placed * count - i, 0.0), 1.0)
        if u > 0.02:
            x, y = -1.2 * (1 - u), 0.55 * i
            c.rect(x - 0.5, y, 1.0, 0.55, fill=mix(color, "#ffffff", 0.08 * (i % 2)), edge="#4a0f0c", width=0.035)
            c.line([(x - 0.35, y + 0.27), (x + 0.35, y + 0.27)], "#f2b0a8", 0.04)


@sprite
def seep_spout(c: Canvas, rate=1.0, water="#2f86e0", drop=0.5):
    """Outlet spout, origin at its mouth, pipe to the left. rate 0 dry, 0.2 single drops, 0.6 a thin thread, 1 a thick jet."""
    if rate > 0.85:
        c.line([(0.22 * t, -drop * t * t) for t in np.linspace(0, 1, 10)], mix(water, "#000000", 0.2), 0.16)
        c.line([(0.22 * t, -drop * t * t) for t in np.linspace(0, 1, 10)], water, 0.125)
        for i in range(4):
            t = (i / 4 + 1.8 * c.time_s) % 1.0
            c.circle(0.22 * t, -drop * t * t, 0.028, fill="#ffffff", alpha=0.8)
    elif rate > 0.4:
        xs = [0.03 + 0.012 * math.sin(9 * t - 8 * c.time_s) for t in np.linspace(0, 1, 12)]
        c.line(list(zip(xs, [-drop * t for t in np.linspace(0, 1, 12)], strict=True)), water, 0.042)
    elif rate > 0.02:
        fall = (1.1 * c.time_s) % 1.0
        c.ellipse(0.03, -0.06 - (drop - 0.06) * fall * fall, 0.05, 0.075, fill=water, edge="#174a86", width=0.012)
    c.rect(-0.5, -0.06, 0.5, 0.12, fill="#8b949b", edge="#3a4046", width=0.02)
    c.rect(-0.06, -0.1, 0.08, 0.16, fill="#8b949b", edge="#3a4046", width=0.02)

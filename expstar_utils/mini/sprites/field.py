"""Behaviour tests of small animals: arenas seen from above, the mouse and its track, cage, camera and clock."""

from __future__ import annotations

import math

import numpy as np

from expstar_utils.mini.canvas import Canvas, Point, mix
from expstar_utils.mini.sprites import sprite

FLOOR, WALL = "#cbb27c", "#39424c"
REST: dict[str, Point] = {"square": (-0.27, -0.27), "plus": (0.0, 0.0), "ring": (0.37, 0.0), "pool": (-0.2, -0.15)}


def _place(arena: str, path: str, u: float) -> Point:
    """Where the mouse is at the fraction u of its run, in arena units."""
    turn = 2 * math.pi * u
    if path == "still":
        return REST[arena]
    if arena == "square":
        if path == "open":
            return 0.29 * math.sin(2 * turn), 0.29 * math.sin(3 * turn)
        corner, along = divmod(6.4 * u + 0.5, 1.0)
        x, y = 0.39, 0.78 * along - 0.39
        quarter = math.pi / 2 * corner
        return x * math.cos(quarter) - y * math.sin(quarter), x * math.sin(quarter) + y * math.cos(quarter)
    if arena == "plus":
        far, near = 0.41 * math.sin(2 * turn), 0.025 * math.sin(5 * turn)
        return (far, near) if path == "open" else (near, far)
    if arena == "ring":
        a = 1.7 * turn if path == "open" else math.pi / 2 + 0.68 * math.sin(2 * turn)
        return 0.37 * math.cos(a), 0.37 * math.sin(a)
    if path == "open":
        v = min(u / 0.7, 1.0)
        return -0.42 + 0.64 * v, 0.2 * v + 0.2 * math.sin(2 * math.pi * v)
    return 0.41 * math.cos(1.7 * turn + 2), 0.41 * math.sin(1.7 * turn + 2)


def _arena(c: Canvas, arena: str) -> None:
    if arena == "square":
        c.rect(-0.5, -0.5, 1.0, 1.0, fill=WALL)
        c.rect(-0.46, -0.46, 0.92, 0.92, fill=FLOOR)
        c.rect(-0.22, -0.22, 0.44, 0.44, edge="#a58a4e", width=0.008)
    elif arena == "plus":
        c.rect(-0.5, -0.09, 1.0, 0.18, fill=FLOOR, edge="#8c7338", width=0.012)
        c.rect(-0.09, -0.5, 0.18, 1.0, fill=FLOOR)
        for s in (-1, 1):
            c.line([(-0.1, 0.1 * s), (-0.1, 0.49 * s), (0.1, 0.49 * s), (0.1, 0.1 * s)], WALL, 0.05)
    elif arena == "ring":
        a = np.linspace(0, 2 * math.pi, 60)
        for r, color in ((0.48, FLOOR), (0.26, "#eef2f4")):
            c.poly(list(zip(r * np.cos(a), r * np.sin(a), strict=True)), fill=color, edge="#8c7338", width=0.012)
        for start in (45, 225):
            for r in (0.26, 0.48):
                c.arc(0, 0, r, start, start + 90, WALL, 0.05)
    else:
        c.circle(0, 0, 0.5, fill="#e6eaec", edge="#6a747c", width=0.015)
        c.circle(0, 0, 0.46, fill="#3f9be0")
        for k in (-0.25, 0.0, 0.25):
            c.wave(-0.36, 0.36, k, 0.01, 4, "#7fc0f0", 0.012, phase=0.5 * c.time_s + k)
        c.circle(0.22, 0.2, 0.08, fill="#9fd0f3", edge="#5aa6df", width=0.01)


@sprite
def mouse_above(c: Canvas, coat="#222222", wiggle=1.0):
    """Mouse seen from above, origin at its middle, nose to the right, body 1 unit long; wiggle 0-1 of its tail."""
    sway = 0.16 * wiggle * math.sin(9 * c.time_s)
    edge = mix(coat, "#000000", 0.75)
    c.line([(-0.4, 0), (-0.7, sway), (-1.0, -0.5 * sway)], "#d98f8f", 0.08)
    c.ellipse(-0.1, 0, 0.42, 0.27, fill=coat, edge=edge, width=0.05)
    c.ellipse(0.35, 0, 0.25, 0.18, fill=coat, edge=edge, width=0.05)
    for side in (-1, 1):
        c.circle(0.24, 0.2 * side, 0.12, fill="#f2a9ab", edge=edge, width=0.035)
    c.circle(0.6, 0, 0.05, fill="#f07f86")


@sprite
def maze_run(c: Canvas, arena="square", path="open", run=0.0, trail=1.0, mouse=1.0, coat="#222222", lift=0.0,
             color="#e01f1f"):
    """Arena from above with a mouse and its track, origin at the centre, one unit wide.

    arena: square, plus, ring or pool; path: open, walls or still; run 0-1: how far the run has gone; trail and mouse:
    0 or 1; lift 0-1: the mouse is held above the floor; color: of the track.
    """
    _arena(c, arena)
    run = min(max(run, 0.0), 1.0)
    if trail > 0.5:
        if path == "still":
            pulse = 0.02 * math.sin(4 * c.time_s)
            c.circle(*REST[arena], 0.06 + pulse / 2, fill=color)
            c.circle(*REST[arena], 0.15 + pulse, edge=color, width=0.028)
        elif run > 0.01:
            c.line([_place(arena, path, u) for u in np.linspace(0, run, max(int(110 * run), 2))], color, 0.028)
    if mouse > 0.5:
        x, y = _place(arena, path, run)
        now, step = (run, 0.01) if run < 0.98 else (run - 0.02, 0.01)
        a, b = _place(arena, path, now), _place(arena, path, now + step)
        moved = math.hypot(b[0] - a[0], b[1] - a[1]) > 1e-4
        turn = math.degrees(math.atan2(b[1] - a[1], b[0] - a[0])) if moved else 35.0
        with c.at(x, y + 0.25 * lift, 0.2 * (1 + 0.5 * lift), turn):
            mouse_above(c, coat=coat, wiggle=1.0 if path != "still" else 0.0)


@sprite
def mouse_side(c: Canvas, coat="#222222", eye="#f04050", walk=0.0):
    """Mouse from the side, nose to the right, 1 unit long without the tail; walk 0-1: its legs step."""
    edge, step = mix(coat, "#000000", 0.75), 0.06 * walk * math.sin(12 * c.time_s)
    c.line([(-0.42, 0.14), (-0.7, 0.06), (-0.95, 0.16 + step)], "#d98f8f", 0.05)
    for x, s in ((-0.28, 1), (-0.12, -1), (0.14, 1), (0.26, -1)):
        c.line([(x, 0.12), (x + s * step, 0)], "#e8a0a0", 0.06)
    c.ellipse(-0.1, 0.24, 0.4, 0.22, fill=coat, edge=edge, width=0.03)
    c.poly([(0.16, 0.4), (0.34, 0.38), (0.54, 0.22), (0.5, 0.14), (0.2, 0.1)], fill=coat, edge=edge, width=0.03)
    c.ellipse(0.02, 0.24, 0.26, 0.19, fill=coat)
    c.circle(0.2, 0.42, 0.12, fill="#f2a9ab", edge=edge, width=0.03)
    c.circle(0.37, 0.28, 0.035, fill=eye)
    c.circle(0.54, 0.18, 0.035, fill="#f07f86")


@sprite
def home_cage(c: Canvas, width=1.0, height=0.5, bedding="#e3c58b"):
    """Open plastic cage with bedding."""
    c.rect(-width / 2, 0, width, height, fill="#dfeefa", alpha=0.55)
    rng = c.rng(41)
    c.rect(-width / 2, 0, width, 0.1, fill=bedding)
    for _ in range(26):
        x, y, shade = width * rng.uniform(-0.48, 0.48), 0.1 * rng.random() + 0.04, 0.5 * rng.random()
        c.circle(x, y, 0.03, fill=mix(bedding, "#7b5c26", shade))
    c.line([(-width / 2 - 0.04, height), (-width / 2, height), (-width / 2, 0), (width / 2, 0), (width / 2, height),
            (width / 2 + 0.04, height)], "#4d6f8c", 0.03)


@sprite
def handling_tunnel(c: Canvas, length=1.0, color="#9fd8ff"):
    """Clear handling tube lying, with a gloved hand on top; origin at its centre, draw it over the mouse."""
    c.rect(-length / 2, -0.24, length, 0.48, fill=color, edge="#3d7fb0", width=0.025, alpha=0.35)
    for x in (-length / 2, length / 2):
        c.ellipse(x, 0, 0.06, 0.24, edge="#3d7fb0", width=0.025)
    c.line([(0.05, 0.34), (0.3, 1.2)], "#2f62b8", 0.26)
    for k in range(4):
        c.line([(-0.2 + 0.13 * k, 0.4), (-0.22 + 0.13 * k, 0.14)], "#4b84e0", 0.12)


@sprite
def room_dark(c: Canvas, amount=0.0):
    """Darkness over the whole frame, origin at its corner; amount 0-1."""
    c.rect(-0.1, -0.1, 1.2, 1.2, fill="#0a1020", alpha=0.85 * amount)


@sprite
def floor_plain(c: Canvas, color="#dfe3e6"):
    """Floor seen from above, over the whole frame; origin at its corner."""
    c.rect(-0.1, -0.1, 1.2, 1.2, fill=color)


@sprite
def track_camera(c: Canvas, on=0.0):
    """Video camera looking down with its field of view; on 0-1: lamp and beam."""
    if on > 0.02:
        c.poly([(-0.1, 0), (0.1, 0), (0.75, -1.2), (-0.75, -1.2)], fill="#fff3a0", alpha=0.45 * on)
    c.rect(-0.3, 0.08, 0.6, 0.32, fill="#2b3036", edge="#111111", width=0.02)
    c.rect(-0.13, -0.04, 0.26, 0.14, fill="#555d66", edge="#111111", width=0.02)
    c.circle(0.2, 0.3, 0.05, fill=mix("#4a1010", "#ff2a2a", on))


@sprite
def stop_clock(c: Canvas, turns=0.0):
    """Stop clock, origin at its centre; turns: rounds of the hand."""
    c.rect(-0.07, 0.42, 0.14, 0.14, fill="#555c62")
    c.circle(0, 0, 0.45, fill="#ffffff", edge="#22282e", width=0.08)
    for i in range(12):
        a = math.radians(30 * i)
        c.line([(0.32 * math.cos(a), 0.32 * math.sin(a)), (0.38 * math.cos(a), 0.38 * math.sin(a))], "#333333", 0.03)
    a = math.radians(90 - 360 * turns)
    c.line([(0, 0), (0.32 * math.cos(a), 0.32 * math.sin(a))], "#d01f1f", 0.07)


@sprite
def track_screen(c: Canvas, width=1.0, height=0.86):
    """Computer screen on a foot; draw what it shows over it."""
    c.rect(-0.1, 0, 0.2, 0.14, fill="#3b4046")
    c.rect(-0.25, 0, 0.5, 0.04, fill="#3b4046")
    c.rect(-width / 2, 0.12, width, height, fill="#22262b", edge="#0c0e10", width=0.02)
    c.rect(-width / 2 + 0.04, 0.16, width - 0.08, height - 0.08, fill="#f4f7f9")

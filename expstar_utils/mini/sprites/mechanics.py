"""Trapped gas, pipe flow and colliding trolleys."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GLASS = "#5f7380"
TROLLEY, BUMPER = 0.24, 0.1   # widths of a trolley and of the bumper between two, in frames


@sprite
def piston_cylinder(c: Canvas, gas="#f6dcf2", level=0.55, blocks=0, lift=0.0, pins=0.0, speed=0.5):
    """Glass cylinder of gas. level 0.2-1: piston height; blocks 0-4 on it, lift 0-1 above it; pins 0-1: locked; speed 0-2."""
    w = 0.36
    c.rect(-w, 0, 2 * w, 1.15, fill="#ffffff", alpha=0.5)
    c.rect(-w, 0.02, 2 * w, level - 0.02, fill=gas)
    rng = c.rng(21)
    for _ in range(16):
        x, y, sx, sy = rng.random(), rng.random(), rng.uniform(0.3, 1), rng.uniform(0.3, 1)
        x, y = (abs((2 * (p + speed * v * c.time_s)) % 2 - 1) for p, v in ((x, sx), (y, sy)))
        c.circle(-w + 0.06 + (2 * w - 0.12) * x, 0.07 + (level - 0.12) * y, 0.028, fill="#7a1fa2")
    c.rect(-w, level, 2 * w, 0.11, fill="#3f464d", edge="#22262a", width=0.015)
    for i in range(int(blocks)):
        c.rect(-0.24, level + 0.12 + lift + 0.19 * i, 0.48, 0.17, fill="#f39c12", edge="#7a4a00", width=0.02)
    c.line([(-w, 1.15), (-w, 0), (w, 0), (w, 1.15)], GLASS, 0.035)
    if pins > 0.02:
        for side in (-1, 1):
            inner = w - 0.16 * pins + 0.2 * (1 - pins)
            c.line([(side * inner, level + 0.055), (side * (inner + 0.3), level + 0.055)], "#111111", 0.06)
            c.circle(side * (inner + 0.32), level + 0.055, 0.085, fill="#111111", edge="#dddddd", width=0.015)


@sprite
def bath_tank(c: Canvas, color="#d62828", alpha=0.92, height=0.6, ice=0.0, steam=0.0):
    """Wide open tank of a coloured liquid. alpha 0-1 of the liquid; height in units; ice and steam 0-1."""
    c.rect(-0.5, 0, 1.0, height, fill=color, alpha=alpha)
    c.wave(-0.49, 0.49, height, 0.012, 4, mix(color, "#ffffff", 0.5), 0.025, phase=0.6 * c.time_s)
    c.line([(-0.52, height + 0.1), (-0.52, 0), (0.52, 0), (0.52, height + 0.1)], GLASS, 0.04)
    for i in range(int(4 * ice)):
        x = (-0.42, 0.42, -0.3, 0.33)[i]
        with c.at(x, height - 0.03 + 0.01 * math.sin(2 * c.time_s + i), 1.0, 12 * i):
            c.rect(-0.08, -0.05, 0.16, 0.12, fill="#f4fbff", edge="#9cc4dd", width=0.012)
    rng = c.rng(22)
    for _ in range(int(10 * steam)):
        x, rise = rng.uniform(-0.48, 0.48), (rng.random() + 0.35 * c.time_s) % 1.0
        c.circle(x, height + 0.05 + 0.4 * rise, 0.05 + 0.04 * rise, fill="#ffffff", alpha=0.6 * (1 - rise))


@sprite
def pv_card(c: Canvas, dx=0.0, dy=0.0, color="#d62020"):
    """Card with pressure (up) and volume (right) axes; a thick path from its middle goes by dx, dy (-1 to 1)."""
    c.rect(-0.5, 0, 1.0, 1.0, fill="#fffef5", edge="#555555", width=0.02)
    c.line([(-0.36, 0.92), (-0.36, 0.14), (0.44, 0.14)], "#222222", 0.03)
    c.text(-0.22, 0.86, "p", 0.11)
    c.text(0.38, 0.26, "V", 0.11)
    x, y = 0.04 + 0.32 * dx, 0.54 + 0.32 * dy
    c.line([(0.04, 0.54), (x, y)], color, 0.07)
    c.circle(0.04, 0.54, 0.06, fill="#222222")
    if abs(dx) + abs(dy) > 0.1:
        with c.at(x, y, 1.0, math.degrees(math.atan2(dy, dx))):
            c.poly([(0.13, 0), (-0.05, 0.12), (-0.05, -0.12)], fill=color)


@sprite
def head_tank(c: Canvas, liquid="#cfeaf8", fill=0.8, supply=0.0):
    """Tall open tank; fill 0-1; supply 0 or 1: a stream fills it from a spout above."""
    c.rect(-0.5, 0, 1.0, 1.0, fill="#ffffff", alpha=0.35)
    c.rect(-0.5, 0, 1.0, 0.92 * fill, fill=liquid)
    c.wave(-0.49, 0.49, 0.92 * fill, 0.012, 3, mix(liquid, "#ffffff", 0.6), 0.03, phase=0.8 * c.time_s)
    if supply > 0.5:
        c.line([(-0.1, 0.92 * fill), (-0.1, 1.25)], mix(liquid, "#000000", 0.08), 0.16)
        c.rect(-0.24, 1.22, 0.28, 0.16, fill="#70777d")
    c.line([(-0.5, 1.0), (-0.5, 0), (0.5, 0), (0.5, 1.0)], GLASS, 0.05)


@sprite
def pipe_flow(c: Canvas, liquid="#cfeaf8", length=0.5, width=0.12, dye=0.0, wobble=0.0, speed=0.5, thread=0.03,
              color="#1a1ad6"):
    """Glass pipe from the origin to the right about y = 0. dye 0-1: reach of the dye thread; wobble 0 straight, 0.5 wavy,
    1 broken into eddies; speed 0-2 of the streaks; thread: width of the dye."""
    half = width / 2
    c.rect(0, -half, length, width, fill=liquid)
    rng = c.rng(23)
    for _ in range(8):
        x, y = length * ((rng.random() + speed * 0.5 * c.time_s) % 1.0), half * rng.uniform(-0.85, 0.85)
        c.line([(x, y), (min(x + 0.05 + 0.05 * speed, length), y)], "#ffffff", 0.012, 0.8)
    reach = length * dye
    if reach > 0.01:
        if wobble < 0.25:
            c.line([(0, 0), (reach, 0)], color, thread)
        elif wobble < 0.75:
            xs = [reach * i / 60 for i in range(61)]
            swing = [0.7 * half * min(x / (0.25 * length), 1) * math.sin(18 * x / length - 5 * c.time_s) for x in xs]
            c.line(list(zip(xs, swing, strict=True)), color, thread)
        else:
            start = min(reach, 0.12 * length)
            c.line([(0, 0), (start, 0)], color, thread)
            c.rect(start, -0.96 * half, reach - start, 1.92 * half, fill=color, alpha=0.3)
            for i in range(34):
                x = start + (length - start) * ((rng.random() + 0.25 * c.time_s) % 1.0)
                y, r = half * rng.uniform(-0.75, 0.75), min(half * 0.35, 0.05) * rng.uniform(0.7, 1.2)
                if x < reach:
                    turn = 360 * c.time_s * (1 if i % 2 else -1) + 77 * i
                    c.arc(x, y, r, turn, turn + 250, color, 0.6 * thread)
    c.line([(0, half), (length, half)], GLASS, 0.02)
    c.line([(0, -half), (length, -half)], GLASS, 0.02)


@sprite
def lever_tap(c: Canvas, opening=0.0, width=0.5):
    """Tap in a pipe of `width`, origin at its middle. opening 0-1: the lever turns from upright (shut) to along the pipe."""
    c.rect(-0.3, -width / 2 - 0.06, 0.6, width + 0.12, fill="#b08d57", edge="#5b4420", width=0.03)
    c.circle(0, 0, 0.3, fill="#cfa968", edge="#5b4420", width=0.03)
    with c.at(0, 0, 1.0, 90 - 90 * opening):
        c.rect(-0.12, -0.1, 1.15, 0.2, fill="#d01f1f", edge="#6b0d0d", width=0.03)


@sprite
def outflow(c: Canvas, liquid="#cfeaf8", strength=0.5, drop=0.4):
    """Jet leaving the origin to the right and falling by `drop`; strength 0-1: thicker and farther."""
    if strength < 0.02:
        return
    points = [((0.02 + 0.16 * strength) * t, -drop * t * t) for t in [i / 10 for i in range(11)]]
    wide = 0.02 + 0.05 * strength
    c.line(points, mix(liquid, "#335566", 0.35), wide + 0.012)
    c.line(points, liquid, wide)
    for i in range(3):
        t = (i / 3 + 1.5 * c.time_s) % 1.0
        c.circle((0.02 + 0.16 * strength) * t, -drop * t * t, wide * 0.3, fill="#ffffff", alpha=0.8)


@sprite
def dye_feed(c: Canvas, fill=1.0, drop=0.5, reach=0.3, color="#1a1ad6"):
    """Funnel of dye, origin at its outlet, with a thin tube down by `drop` and right by `reach`; fill 0-1."""
    c.line([(0, 0), (0, -drop), (reach, -drop)], "#333a40", 0.045)
    c.line([(0, 0), (0, -drop), (reach, -drop)], color, 0.022)
    half = 0.05 + 0.15 * fill
    c.poly([(-0.05, 0), (0.05, 0), (half, 0.32 * fill), (-half, 0.32 * fill)], fill=color)
    c.line([(-0.21, 0.34), (-0.05, 0), (0.05, 0), (0.21, 0.34)], GLASS, 0.025)


def _trolley(c: Canvas, x: float, color: str, blocks: float, lift: float = 0.0) -> None:
    for wheel in (-0.07, 0.07):
        c.circle(x + wheel, 0.03, 0.032, fill="#222222", edge="#aaaaaa", width=0.01)
    c.rect(x - TROLLEY / 2, 0.05, TROLLEY, 0.07, fill=color, edge="#222222", width=0.008)
    for i in range(int(blocks)):
        c.rect(x - 0.085, 0.123 + lift + 0.095 * i, 0.17, 0.088, fill=mix(color, "#ffffff", 0.15), edge="#222222", width=0.01)


@sprite
def trolley(c: Canvas, color="#d62828", blocks=1, lift=0.0):
    """Trolley 0.24 units wide carrying 0-4 blocks of its colour; lift: how far the blocks hover above it, units."""
    _trolley(c, 0.0, color, blocks, lift)


@sprite
def bumper(c: Canvas, kind="spring", squash=1.0):
    """Bumper 0.1 units long from the origin to the right: kind spring, tape (two pads) or ball; squash 0.4-1: its length."""
    n = BUMPER * squash
    if kind == "spring":
        c.line([(n * i / 8, 0.045 * (-1) ** i) for i in range(9)], "#c0169b", 0.016)
        c.line([(n, -0.05), (n, 0.05)], "#c0169b", 0.016)
    elif kind == "ball":
        c.ellipse(n / 2, 0, n / 2, BUMPER / 2 / max(squash, 0.4), fill="#ffd400", edge="#7a6400", width=0.012)
    else:
        c.rect(0, -0.06, 0.48 * n, 0.12, fill="#12a150", edge="#064d25", width=0.01)
        for i in range(4):
            c.line([(0.48 * n, -0.045 + 0.03 * i), (0.75 * n, -0.04 + 0.03 * i)], "#12a150", 0.012)


def after_collision(red: float, blue: float, bounce: float) -> tuple[float, float]:
    """Speeds of both trolleys after the red one hits the resting blue one, in units of its speed before.

    A trolley weighs as much as one of its blocks; bounce is the coefficient of restitution.
    """
    a, b = 1 + red, 1 + blue
    return (a - bounce * b) / (a + b), (a + bounce * a) / (a + b)


@sprite
def trolley_collision(c: Canvas, red=1, blue=1, kind="spring", bounce=1.0, meet=0.4, pace=0.6):
    """Red trolley meets the resting blue one at the moment `meet` (fraction of the clip), at (0.46, 0) with size 1.

    red, blue: blocks on each; bounce 0-1: coefficient of restitution; pace: frames a clip of the red one.
    """
    t = c.progress - meet
    red_after, blue_after = after_collision(red, blue, bounce)
    gap = TROLLEY + BUMPER
    x = 0.3 + pace * t * (red_after if t > 0 else 1)
    y = 0.3 + gap + pace * max(t, 0) * blue_after
    near = max(0.0, 1 - abs(t) / 0.06)
    _trolley(c, x, "#d62828", red)
    _trolley(c, y - 0.04 * near * (t < 0), "#1d4ed8", blue)
    if kind == "tape":
        with c.at(y - TROLLEY / 2, 0.085):
            c.rect(-0.5 * BUMPER, -0.06, 0.5 * BUMPER, 0.12, fill="#12a150", edge="#064d25", width=0.01)
    with c.at(x + TROLLEY / 2, 0.085):
        bumper(c, kind, 1 - 0.4 * near if kind != "tape" else 1)
    if near > 0.2:
        for i in range(7):
            a = math.pi * (0.1 + 0.8 * i / 6)
            c.line([(0.47 + 0.07 * math.cos(a), 0.2 + 0.07 * math.sin(a)), (0.47 + 0.13 * math.cos(a), 0.2 + 0.13 * math.sin(a))],
                   "#ff8c00", 0.014)


@sprite
def momentum_bars(c: Canvas, red=1, blue=1, bounce=1.0, grow=1.0):
    """Card with lying momentum bars: before (upper, red), after (lower, blue and red). blocks 0-3; bounce, grow 0-1."""
    c.rect(-0.5, 0, 1.0, 0.4, fill="#fffef5", edge="#555555", width=0.012)
    red_after, blue_after = after_collision(red, blue, bounce)
    unit, zero = 0.18, -0.28
    before, p_red, p_blue = unit * (1 + red), unit * (1 + red) * red_after, unit * (1 + blue) * blue_after
    c.rect(zero, 0.23, before, 0.12, fill="#d62828")
    c.rect(zero, 0.05, p_blue * grow, 0.12, fill="#1d4ed8")
    c.rect(zero + (p_blue * grow if p_red > 0 else 0), 0.05, p_red * grow, 0.12, fill="#d62828")
    c.line([(zero, 0.02), (zero, 0.38)], "#222222", 0.012)

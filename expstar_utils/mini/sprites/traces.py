"""Recording from living tissue: the tissue, its bath and electrodes, and the trace on the screen."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GLASS = "#5f7380"
CONTROL_RATE, CONTROL_HEIGHT, CONTROL_WIDTH = 3.0, 0.27, 0.032


def _spike(u: float, width: float) -> float:
    """Height at `u` screen widths after the foot of a spike: steep up, a top `width` long, steep down, undershoot."""
    rise, fall = 0.02, 0.03
    if 0 <= u < rise:
        return u / rise
    if u < 0:
        return 0.0
    if u < rise + width:
        return 1.0 - 0.12 * (u - rise) / width
    if u < rise + width + fall:
        return 0.88 - 1.06 * (u - rise - width) / fall
    return -0.18 * math.exp(-(u - rise - width - fall) / 0.03)


@sprite
def spike_trace(c: Canvas, height=1.0, width=1.0, rate=1.0, amount=0.0, color="#4dff6a", scroll=0.22, bare=0.0):
    """Screen with spikes running to the left, 1 wide and 0.8 high. height, width and rate (0-3 times normal) hold in full
    where amount is 1 and not at all where it is 0; scroll: screen widths a second; bare 1: without the case."""
    if bare < 0.5:
        c.rect(-0.53, -0.03, 1.06, 0.9, fill="#c3c9ce", edge="#33383d", width=0.02)
    c.rect(-0.48, 0.03, 0.96, 0.77, fill="#061410", edge="#111111", width=0.015)
    for k in range(1, 6):
        c.line([(-0.48 + 0.16 * k, 0.03), (-0.48 + 0.16 * k, 0.8)], "#17402f", 0.006)
    for k in range(1, 4):
        c.line([(-0.48, 0.03 + 0.1925 * k), (0.48, 0.03 + 0.1925 * k)], "#17402f", 0.006)
    tall, long, often = (1 + (v - 1) * amount for v in (height, width, rate))
    tall = max(tall, 0.0) * CONTROL_HEIGHT
    gap = 1 / max(CONTROL_RATE * often, 0.3)
    plateau = CONTROL_WIDTH * long - 0.02
    points = []
    for i in range(161):
        u = i / 160
        phase = (u + 0.3 * gap + scroll * c.time_s) % gap
        points.append((-0.47 + 0.94 * u, 0.17 + tall * _spike(phase, plateau)))
    c.line(points, mix(color, "#061410", 0.6), 0.045, 0.5)
    c.line(points, color, 0.024)


def _axon(c: Canvas, push: float, phase: float) -> None:
    c.line([(-0.5, 0.02), (-0.2, -0.02), (0.2, 0.02), (0.5, -0.02)], "#8f7a3a", 0.19)
    c.line([(-0.5, 0.02), (-0.2, -0.02), (0.2, 0.02), (0.5, -0.02)], "#f3e3a1", 0.15)
    c.line([(-0.5, 0.05), (-0.2, 0.01), (0.2, 0.05), (0.5, 0.01)], "#fff8dc", 0.03)
    if push > 0.05:
        c.ellipse(-0.5 + phase, 0.0, 0.09, 0.085, fill="#ff9a1f", alpha=0.9)


def _muscle(c: Canvas, push: float, phase: float) -> None:
    pull = 0.1 * push * max(0.0, math.sin(2 * math.pi * phase)) ** 2
    half, thick = 0.4 - pull, 0.15 + 0.7 * pull
    c.line([(-0.5, 0), (0.5, 0)], "#f4efe2", 0.05)
    c.poly([(half * math.cos(a), thick * math.sin(a) * abs(math.sin(a)) ** 0.5) for a in [i * math.pi / 18 for i in range(36)]],
           fill="#d9503f", edge="#7c221a", width=0.018)
    for y in (-0.5, 0.0, 0.5):
        c.line([(-0.7 * half, 0.4 * y * thick), (0, y * thick), (0.7 * half, 0.4 * y * thick)], "#f08d7d", 0.014)


def _heart(c: Canvas, push: float, phase: float) -> None:
    k = 1.0 - 0.14 * push * max(0.0, math.sin(2 * math.pi * phase)) ** 2
    points = []
    for i in range(40):
        a = i * math.pi / 20
        x, y = 16 * math.sin(a) ** 3, 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
        points.append((0.0165 * k * x, 0.0165 * k * y + 0.02))
    c.line([(-0.09, 0.14), (-0.12, 0.34)], "#b04a86", 0.07)
    c.line([(0.07, 0.14), (0.13, 0.34)], "#d93a3a", 0.07)
    c.poly(points, fill="#c81e3a", edge="#6d0d1d", width=0.02)
    c.ellipse(-0.12 * k, 0.1, 0.05, 0.035, fill="#f0838f")


@sprite
def living_tissue(c: Canvas, kind="axon", beat=1.0, pace=1.0, amount=0.0):
    """Tissue, origin at its centre, 1 long. kind: axon (a flash runs along it), muscle (twitches) or heart (beats); beat 0-2
    and pace 0-3 times normal, in full where amount is 1."""
    push, speed = 1 + (beat - 1) * amount, 1 + (pace - 1) * amount
    {"axon": _axon, "muscle": _muscle, "heart": _heart}[kind](c, push, (1.1 * speed * c.time_s) % 1.0)


@sprite
def saline_bath(c: Canvas, liquid="#bfe3f2", level=1.0, front=0.0):
    """Glass bath, 1 wide and 0.5 high. level 0-1: height of the liquid; front 1: only the pane in front of the tissue."""
    if front < 0.5:
        c.rect(-0.5, 0, 1.0, 0.42 * level, fill=liquid)
        c.wave(-0.49, 0.49, 0.42 * level, 0.01, 4, mix(liquid, "#ffffff", 0.6), 0.02, phase=0.7 * c.time_s)
    else:
        c.rect(-0.5, 0, 1.0, 0.42 * level, fill=liquid, alpha=0.3)
        c.line([(-0.52, 0.5), (-0.5, 0), (0.5, 0), (0.52, 0.5)], GLASS, 0.03)


@sprite
def hook_electrodes(c: Canvas, gap=0.4):
    """Two hooked silver wires hanging down, origin between their hooks; gap between them."""
    for way, color in ((-1, "#d23b2f"), (1, "#222831")):
        x = way * gap / 2
        c.line([(x - 0.05 * way, -0.03), (x, -0.06), (x, 0.32)], "#9fa8ae", 0.03)
        c.line([(x, 0.32), (x, 0.5), (x + 0.25 * way, 0.62)], color, 0.06)


@sprite
def saline_inflow(c: Canvas, flow=1.0, fall=0.5, color="#4fa8e0"):
    """Tap pipe from above, origin at its mouth; flow 0-1: a stream falling `fall` units."""
    c.line([(-0.4, 0.3), (0, 0.3), (0, 0)], "#7b858c", 0.11)
    c.rect(-0.08, -0.02, 0.16, 0.06, fill="#4b545b")
    if flow > 0.02:
        c.line([(0, -0.03), (0, -fall)], color, 0.09 * flow)
        for i in range(5):
            u = (1.7 * c.time_s + i / 5) % 1.0
            c.circle(0.02 * (-1) ** i, -0.03 - (fall - 0.03) * u, 0.025, fill="#ffffff", alpha=0.8)

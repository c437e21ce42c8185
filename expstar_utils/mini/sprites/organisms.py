"""Laboratory mice and what a disease-model test needs: scale, urine strip, syringe, food dish."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite


@sprite
def lab_mouse(c: Canvas, color="#2b2b2e", fat=0.0, walk=0.0, bite=0.0):
    """Mouse seen from the side, facing right, about 1.2 units long. fat 0-1: slim to round; walk, bite: 0 or 1."""
    edge = mix(color, "#000000", 0.45)
    belly = 0.15 + 0.15 * fat
    step = 0.035 * math.sin(14 * c.time_s) * walk
    nod = 0.03 * math.sin(20 * c.time_s) * bite
    breath = 0.008 * math.sin(6 * c.time_s)
    tail = [(-0.34, 0.14), (-0.48, 0.08), (-0.58, 0.12 + step), (-0.66, 0.24 + 2 * step)]
    c.line(tail, "#d99a93", 0.035)
    for x, s in ((-0.22, 1), (0.16, -1), (-0.1, -1), (0.24, 1)):
        c.line([(x, 0.1), (x + s * step, 0.02), (x + 0.06 + s * step, 0.02)], "#d99a93", 0.045)
    c.ellipse(-0.06, 0.05 + belly, 0.36 + 0.06 * fat, belly + breath, fill=color, edge=edge, width=0.02)
    hy = 0.2 + 0.07 * fat + nod
    c.poly([(0.2, hy + 0.13), (0.4, hy + 0.1), (0.56, hy - 0.04), (0.52, hy - 0.08), (0.24, hy - 0.12)], fill=color,
           edge=edge, width=0.02)
    c.circle(0.27, hy + 0.15, 0.095, fill=color, edge=edge, width=0.02)
    c.circle(0.27, hy + 0.15, 0.055, fill="#e5aaa3")
    c.circle(0.42, hy + 0.04, 0.028, fill="#c8324a" if sum(mix(color, color, 0)) > 2.6 else "#05050a", edge="#ffffff", width=0.01)
    c.circle(0.555, hy - 0.055, 0.03, fill="#e08a8a")
    for dy in (-0.07, 0.0):
        c.line([(0.52, hy - 0.06), (0.66, hy + dy - 0.03)], "#8a8a8a", 0.008)


@sprite
def mouse_scale(c: Canvas, load=0.0):
    """Laboratory scale with a pan on top (at height 0.75) and a large needle; load 0-1: needle left to right."""
    c.poly([(-0.5, 0), (0.5, 0), (0.42, 0.6), (-0.42, 0.6)], fill="#5b7fa6", edge="#26394d", width=0.02)
    c.rect(-0.06, 0.58, 0.12, 0.14, fill="#8c969e")
    c.rect(-0.62, 0.69, 1.24, 0.06, fill="#c9d1d6", edge="#4a5257", width=0.015)
    c.circle(0, 0.3, 0.27, fill="#fdfdf8", edge="#26394d", width=0.025)
    c.arc(0, 0.3, 0.2, 0, 60, "#d65a31", 0.05)
    c.arc(0, 0.3, 0.2, 120, 180, "#3a9d5d", 0.05)
    a = math.radians(160 - 140 * min(max(load, 0.0), 1.0))
    c.line([(0, 0.3), (0.22 * math.cos(a), 0.3 + 0.22 * math.sin(a))], "#111111", 0.045)
    c.circle(0, 0.3, 0.04, fill="#111111")


@sprite
def dip_strip(c: Canvas, pad="#f4d83a"):
    """Test strip hanging down, origin at its lower end; pad: colour of the large test pad there."""
    c.rect(-0.11, 0, 0.22, 1.0, fill="#fbfbfb", edge="#7c7c7c", width=0.02)
    c.rect(-0.11, 0.03, 0.22, 0.26, fill=pad, edge="#55521f", width=0.015)
    c.rect(-0.11, 0.8, 0.22, 0.2, fill="#4a78b8")


@sprite
def syringe(c: Canvas, push=0.0, liquid="#7fd0e8"):
    """Syringe pointing left, origin at the needle's tip. push 0-1: how much is injected."""
    c.line([(0, 0), (0.28, 0)], "#6b747a", 0.02)
    c.rect(0.28, -0.09, 0.5, 0.18, fill="#ffffff", edge="#4f6470", width=0.02)
    inner = 0.44 * (1 - min(max(push, 0.0), 1.0))
    c.rect(0.29, -0.075, inner + 0.01, 0.15, fill=liquid)
    c.rect(0.3 + inner, -0.08, 0.05, 0.16, fill="#33383c")
    c.line([(0.33 + inner, 0), (0.62 + inner, 0)], "#8c969e", 0.05)
    c.line([(0.62 + inner, -0.12), (0.62 + inner, 0.12)], "#555c61", 0.05)


@sprite
def food_dish(c: Canvas, pellets=1.0):
    """Dish with up to six large food pellets; pellets 0-1: the share that is left."""
    left = math.ceil(6 * min(max(pellets, 0.0), 1.0) - 1e-6)
    for i in range(left):
        row = 0 if i < 3 else (1 if i < 5 else 2)
        x = (-0.25 + 0.25 * i) if row == 0 else ((-0.125 + 0.25 * (i - 3)) if row == 1 else 0.0)
        c.ellipse(x, 0.27 + 0.17 * row, 0.14, 0.1, fill="#9a6a33", edge="#4c3216", width=0.02)
    c.ellipse(0, 0.23, 0.48, 0.05, fill="#274a6e" if left == 0 else "#3b6c9c")
    c.poly([(-0.48, 0.24), (0.48, 0.24), (0.36, 0), (-0.36, 0)], fill="#4d8ac4", edge="#274a6e", width=0.02)

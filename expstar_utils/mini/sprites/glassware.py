"""Glass, liquids, powders, flames and what happens in them."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GLASS = "#5f7380"


def _bubbles(c: Canvas, amount: float, half_width: float, bottom: float, top: float) -> None:
    rng = c.rng(11)
    for _ in range(int(22 * amount)):
        x, phase, speed, r = rng.uniform(-1, 1), rng.random(), rng.uniform(0.5, 1.1), rng.uniform(0.012, 0.03)
        y = bottom + (top - bottom) * ((phase + speed * c.time_s) % 1.0)
        c.circle(half_width * x, y, r, fill="#ffffff", edge="#9fb4c0", width=0.006, alpha=0.8)


def _grains(c: Canvas, color: str, amount: float, half_width: float, bottom: float, height: float) -> None:
    rng = c.rng(12)
    for _ in range(int(70 * amount)):
        x, y = half_width * rng.uniform(-1, 1), bottom + height * amount * rng.random()
        c.circle(x, y, 0.018, fill=mix(color, "#000000", 0.15 * rng.random()))


def _liquid(c: Canvas, w: float, fill: float, liquid: str, cloud: float, cloud_color: str) -> None:
    c.rect(-w, 0.03, 2 * w, 0.94 * fill, fill=mix(liquid, cloud_color, 0.85 * cloud), alpha=0.92)
    c.ellipse(0, 0.03 + 0.94 * fill, w, 0.025, fill=mix(liquid, "#ffffff", 0.35))


@sprite
def beaker(c: Canvas, liquid="#cfe8f7", fill=0.55, cloud=0.0, cloud_color="#f4f4f0", bubbles=0.0, solid="#ffffff",
           solid_amount=0.0, mist=0.0):
    """Beaker. fill, cloud (turbidity), bubbles, solid_amount (sediment), mist (droplets on the wall): 0-1."""
    w = 0.36
    c.rect(-w, 0, 2 * w, 1.0, fill="#ffffff", alpha=0.25)
    if fill > 0.01:
        _liquid(c, w, fill, liquid, cloud, cloud_color)
    if solid_amount > 0.01:
        c.rect(-w, 0.02, 2 * w, 0.22 * solid_amount, fill=solid)
        _grains(c, solid, solid_amount, w * 0.95, 0.03, 0.26)
    if bubbles > 0.01:
        _bubbles(c, bubbles, w * 0.85, 0.06, 0.05 + 0.9 * fill)
    if mist > 0.01:
        c.rect(-w, 0.02, 2 * w, 0.96, fill="#ffffff", alpha=0.45 * mist)
        rng = c.rng(13)
        for _ in range(int(60 * mist)):
            c.circle(w * rng.uniform(-0.95, 0.95), rng.uniform(0.05, 0.95), 0.02, fill="#6fb4e8", alpha=0.9)
    c.line([(-w - 0.04, 1.02), (-w, 0.98), (-w, 0.0), (w, 0.0), (w, 1.0), (w + 0.03, 1.02)], GLASS, 0.03)
    for mark in (0.25, 0.5, 0.75):
        c.line([(w - 0.12, mark), (w, mark)], GLASS, 0.012)


@sprite
def test_tube(c: Canvas, liquid="#cfe8f7", fill=0.5, cloud=0.0, cloud_color="#f4f4f0", bubbles=0.0, solid="#ffffff",
              solid_amount=0.0):
    """Test tube. fill, cloud, bubbles, solid_amount: 0-1."""
    w = 0.13
    c.rect(-w, 0.1, 2 * w, 0.9, fill="#ffffff", alpha=0.3)
    if fill > 0.01:
        color = mix(liquid, cloud_color, 0.85 * cloud)
        c.ellipse(0, w, w, w, fill=color)
        c.rect(-w, w, 2 * w, 0.85 * fill, fill=color)
    if solid_amount > 0.01:
        c.ellipse(0, w, w * 0.98, w * 0.95, fill=solid)
        c.rect(-w, w, 2 * w, 0.3 * solid_amount, fill=solid)
    if bubbles > 0.01:
        _bubbles(c, bubbles, w * 0.8, 0.08, 0.08 + 0.85 * fill)
    left = [(-w - 0.03, 1.0), (-w, 0.97), (-w, w)]
    bend = [(w * math.cos(a), w + w * math.sin(a)) for a in [math.pi + i * math.pi / 10 for i in range(11)]]
    c.line([*left, *bend, (w, w), (w, 0.97), (w + 0.03, 1.0)], GLASS, 0.025)


@sprite
def flask(c: Canvas, liquid="#cfe8f7", fill=0.5, cloud=0.0, cloud_color="#f4f4f0", bubbles=0.0):
    """Conical flask. fill, cloud, bubbles: 0-1."""
    def half(y: float) -> float:
        return 0.42 - 0.32 * min(y / 0.7, 1.0)
    top = 0.68 * fill
    if fill > 0.01:
        c.poly([(-half(0), 0), (half(0), 0), (half(top), top), (-half(top), top)],
               fill=mix(liquid, cloud_color, 0.85 * cloud))
    if bubbles > 0.01:
        _bubbles(c, bubbles, 0.22, 0.04, top)
    c.line([(-0.14, 1.0), (-0.1, 0.98), (-0.1, 0.7), (-0.42, 0), (0.42, 0), (0.1, 0.7), (0.1, 0.98), (0.14, 1.0)],
           GLASS, 0.03)


@sprite
def bottle(c: Canvas, color="#7a4a21", cap="#333333", label="", label_color="#ffffff"):
    """Reagent bottle; `label`: up to 5 Latin letters or digits."""
    c.poly([(-0.3, 0), (0.3, 0), (0.3, 0.6), (0.12, 0.75), (0.12, 0.85), (-0.12, 0.85), (-0.12, 0.75), (-0.3, 0.6)],
           fill=color, edge="#333333", width=0.02)
    c.rect(-0.15, 0.83, 0.3, 0.14, fill=cap)
    c.rect(-0.25, 0.15, 0.5, 0.32, fill=label_color)
    if label:
        c.text(0, 0.31, label, 0.14)


@sprite
def dropper(c: Canvas, liquid="#cfe8f7", drops=0.0, drop_fall=0.3):
    """Dropper pointing down, origin at its tip. drops 0 or 1: drops fall `drop_fall` units below the tip."""
    c.poly([(-0.02, 0), (0.02, 0), (0.06, 0.18), (0.06, 0.5), (-0.06, 0.5), (-0.06, 0.18)], fill=liquid, edge=GLASS,
           width=0.02)
    c.ellipse(0, 0.64, 0.1, 0.17, fill="#b5443a", edge="#7c2a22", width=0.02)
    if drops > 0.5:
        fall = (c.time_s * 1.6) % 1.0
        c.ellipse(0, -drop_fall * fall, 0.04, 0.055, fill=liquid, edge=GLASS, width=0.01)


@sprite
def flame(c: Canvas, color="#f5a623", core="#fff6c8", height=1.0, smoke=0.0):
    """Flame that flickers, origin at its foot. height in units; smoke 0-1 rises black from its tip."""
    if height <= 0.02:
        return
    sway = 0.06 * math.sin(9 * c.time_s) + 0.04 * math.sin(23 * c.time_s)
    h = height * (1 + 0.08 * math.sin(17 * c.time_s))
    def tongue(w: float, k: float) -> list[tuple[float, float]]:
        return [(-w * 0.5, 0), (-w, 0.28 * h * k), (-w * 0.6, 0.6 * h * k), (sway, h * k), (w * 0.6, 0.55 * h * k),
                (w, 0.25 * h * k), (w * 0.5, 0)]
    if smoke > 0.01:
        rng = c.rng(14)
        for _ in range(int(16 * smoke)):
            rise = (rng.random() + 0.5 * c.time_s) % 1.0
            c.circle(sway + rng.uniform(-0.2, 0.2) * (0.4 + rise), h + rise * 0.8, 0.05 + 0.09 * rise, fill="#6d6a67",
                     alpha=0.8 * (1 - rise))
    c.poly(tongue(0.24, 1.0), fill=color, alpha=0.85)
    c.poly(tongue(0.13, 0.62), fill=mix(color, core, 0.55), alpha=0.9)


@sprite
def burner(c: Canvas, lit=1.0, color="#4f8df5", height=0.6):
    """Bunsen burner with its flame (colour, height in units); lit 0 or 1."""
    c.poly([(-0.25, 0), (0.25, 0), (0.18, 0.1), (-0.18, 0.1)], fill="#44484c")
    c.rect(-0.07, 0.1, 0.14, 0.5, fill="#8a9096", edge="#44484c", width=0.015)
    if lit > 0.5:
        with c.at(0, 0.6, 0.8):
            flame(c, color=color, core="#dfefff", height=height / 0.8)


@sprite
def spirit_lamp(c: Canvas, lit=0.0, liquid="#d9f0ff", color="#5d8ef0", height=0.5, smoke=0.0):
    """Spirit lamp with a wick; lit 0 or 1, its flame's colour, height and smoke."""
    c.ellipse(0, 0.2, 0.38, 0.2, fill=liquid, edge=GLASS, width=0.025)
    c.rect(-0.12, 0.36, 0.24, 0.12, fill="#b0865a")
    c.rect(-0.04, 0.48, 0.08, 0.08, fill="#efe6d2")
    if lit > 0.5:
        with c.at(0, 0.54, 0.9):
            flame(c, color=color, height=height / 0.9, smoke=smoke)


@sprite
def gas_cylinder(c: Canvas, color="#8f979e", valve=0.0):
    """Steel gas cylinder with a side nozzle at (0.36, 0.92); valve: turns of the wheel (animate it)."""
    c.rect(-0.17, 0, 0.34, 0.72, fill=color, edge="#3d4348", width=0.02)
    c.ellipse(0, 0.72, 0.17, 0.1, fill=mix(color, "#ffffff", 0.2), edge="#3d4348", width=0.02)
    c.rect(-0.04, 0.8, 0.08, 0.14, fill="#c9a54a")
    c.line([(0, 0.9), (0.36, 0.92)], "#c9a54a", 0.05)
    with c.at(0, 0.98, 1.0, valve * 360):
        c.line([(-0.13, 0), (0.13, 0)], "#c0392b", 0.05)
        c.line([(0, -0.05), (0, 0.05)], "#c0392b", 0.05)


@sprite
def gas_jar(c: Canvas, gas="#eef3f5", nozzle=1.0):
    """Glass gas holder full of gas with a tap and a side nozzle at (0.4, 0.92)."""
    c.rect(-0.24, 0, 0.48, 0.7, fill=gas, edge=GLASS, width=0.03)
    c.poly([(-0.24, 0.7), (0.24, 0.7), (0.05, 0.85), (-0.05, 0.85)], fill=gas, edge=GLASS, width=0.03)
    c.line([(0, 0.83), (0, 0.92), (0.4, 0.92)], GLASS, 0.05)
    c.circle(0.12, 0.92, 0.06, fill="#2f6fb0")


@sprite
def match(c: Canvas, lit=1.0):
    """Match held from the right, origin at its head; lit 0 or 1."""
    c.line([(0, 0), (0.5, 0.12)], "#d9b26f", 0.05)
    c.circle(0, 0, 0.04, fill="#8e2f22")
    if lit > 0.5:
        with c.at(0, 0.02, 0.35):
            flame(c, color="#f7b733", height=1.0)


@sprite
def spatula(c: Canvas, powder="#ffffff", amount=1.0):
    """Spatula held from the right, origin under its tip; amount of powder on it 0-1."""
    c.line([(-0.12, 0), (0.1, 0), (0.7, 0.25)], "#9aa3a8", 0.04)
    if amount > 0.02:
        c.ellipse(0, 0.04, 0.13 * amount, 0.07 * amount, fill=powder, edge="#777777", width=0.008)


@sprite
def tubing(c: Canvas, to_x=0.5, to_y=0.0, color="#7c6f64", width=0.03):
    """Tube from the origin to (to_x, to_y), bending over the top."""
    c.line([(0, 0), (0.15 * to_x, 0.06), (0.85 * to_x, 0.06 + to_y), (to_x, to_y)], color, width)

"""Staining and looking at cells, and well plates for immunoassays."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

GLASS = "#5f7380"


@sprite
def gram_slide(c: Canvas, smear="#cfc6b4", smear_amount=1.0, pool="#5b2a9d", pool_amount=0.0):
    """Glass slide seen from above its edge, 1 wide. smear_amount 0-1: film of cells; pool_amount 0-1: liquid on it."""
    c.poly([(-0.5, 0), (0.5, 0), (0.42, 0.34), (-0.42, 0.34)], fill="#f4fbff", edge=GLASS, width=0.018)
    c.poly([(-0.5, 0), (0.5, 0), (0.5, -0.035), (-0.5, -0.035)], fill="#a9bdc8", edge=GLASS, width=0.01)
    c.poly([(-0.5, 0), (-0.33, 0), (-0.29, 0.34), (-0.42, 0.34)], fill="#b9c3c9")
    if smear_amount > 0.01:
        c.ellipse(0.08, 0.17, 0.25, 0.115, fill=smear, edge=mix(smear, "#000000", 0.25), width=0.012, alpha=smear_amount)
    if pool_amount > 0.01:
        grow = math.sqrt(pool_amount)
        c.ellipse(0.08, 0.17, 0.33 * grow, 0.15 * grow, fill=pool, edge=mix(pool, "#000000", 0.3), width=0.012, alpha=0.92)
        c.ellipse(-0.02, 0.22, 0.08 * grow, 0.03 * grow, fill="#ffffff", alpha=0.45)


@sprite
def slide_forceps(c: Canvas, color="#7d868d"):
    """Forceps reaching in from the left, origin at their tip."""
    c.line([(0, 0.03), (-0.3, 0.1), (-0.75, 0.06)], color, 0.035)
    c.line([(0, -0.02), (-0.3, -0.04), (-0.75, 0.04)], color, 0.035)


@sprite
def rinse_bottle(c: Canvas, liquid="#e6f3fb", flow=0.0, fall=0.4, stream="#bfe0f2"):
    """Wash bottle, origin at the tip of its spout, bottle to the left. flow 0-1: stream falling `fall` units."""
    if flow > 0.02:
        c.line([(0, 0), (0.06, -0.12), (0.09, -fall)], stream, 0.035 + 0.02 * flow)
        for i in range(4):
            u = (c.time_s * 2 + i / 4) % 1.0
            c.circle(0.02 + 0.08 * u, -fall * u, 0.025, fill="#ffffff", alpha=0.7)
    c.line([(0, 0), (-0.12, 0.16), (-0.45, 0.16), (-0.45, 0.0)], "#c9352b", 0.035)
    c.poly([(-0.68, -0.6), (-0.22, -0.6), (-0.22, -0.1), (-0.36, 0.03), (-0.54, 0.03), (-0.68, -0.1)], fill=liquid,
           edge=GLASS, width=0.025)


@sprite
def run_off(c: Canvas, color="#5b2a9d", amount=1.0, length=0.4):
    """Coloured liquid dripping down from the origin; amount 0-1: how many drops; length of their fall."""
    rng = c.rng(31)
    for _ in range(int(16 * amount)):
        x, phase = rng.uniform(-0.06, 0.06), rng.random()
        u = (phase + 1.4 * c.time_s) % 1.0
        c.ellipse(x, -length * u, 0.025, 0.045, fill=color, alpha=0.9)


def _groups(rng, arrangement: str) -> list[tuple[float, float, float]]:
    """Where groups of cells lie in the field (x, y, angle in radians), well apart."""
    spots = {"bunch": [(-0.19, 0.14), (0.19, 0.07), (-0.07, -0.22)],
             "chain": [(-0.05, 0.24), (0.03, 0.0), (-0.02, -0.25)],
             "pair": [(-0.2, 0.21), (0.17, 0.22), (0.02, 0.0), (-0.22, -0.16), (0.16, -0.24)],
             "single": [(-0.24, 0.24), (0.02, 0.31), (0.27, 0.2), (0.02, 0.06), (-0.32, -0.02), (0.31, -0.08), (-0.14, -0.2),
                        (0.12, -0.27)]}[arrangement]
    turn = {"chain": 0.25, "pair": 0.7}.get(arrangement, math.pi)
    return [(x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02), rng.uniform(-turn, turn)) for x, y in spots]


def _members(rng, shape: str, arrangement: str, angle: float) -> list[tuple[float, float, float]]:
    """Cells of one group (dx, dy, angle)."""
    step = 0.095 if shape == "round" else 0.175
    if arrangement == "bunch" and shape == "round":
        ring = [(0.095 * math.cos(k * math.pi / 3 + angle), 0.095 * math.sin(k * math.pi / 3 + angle)) for k in range(6)]
        outer = [(0.16 * math.cos(k * 2.1 + angle), 0.16 * math.sin(k * 2.1 + angle)) for k in range(3)]
        return [(dx, dy, 0.0) for dx, dy in [(0, 0), *ring, *outer]]
    if arrangement == "bunch":
        return [(0.055 * math.cos(2.4 * k), 0.046 * (k - 2.5), angle + rng.uniform(-0.8, 0.8)) for k in range(6)]
    if arrangement == "chain":
        count = 7 if shape == "round" else 4
        sway = 0.05 * rng.choice([-1, 1])
        return [((k - (count - 1) / 2) * step * math.cos(angle),
                 (k - (count - 1) / 2) * step * math.sin(angle) + sway * math.sin(k * (0.9 if shape == "round" else 1.4)),
                 angle) for k in range(count)]
    if arrangement == "pair":
        return [(s * 0.5 * step * math.cos(angle), s * 0.5 * step * math.sin(angle), angle) for s in (-1, 1)]
    return [(0.0, 0.0, angle)]


def _cell(c: Canvas, shape: str, x: float, y: float, angle: float, color, width: float, alpha: float) -> None:
    if shape == "round":
        c.circle(x, y, width, fill=color, alpha=alpha)
    else:
        dx, dy = 0.055 * math.cos(angle), 0.055 * math.sin(angle)
        c.line([(x - dx, y - dy), (x + dx, y + dy)], color, 1.5 * width, alpha)


@sprite
def cell_field(c: Canvas, color="#5b2a9d", shape="round", arrangement="bunch", focus=1.0, drift=0.0, mask=0.0):
    """Round microscope field, origin at its centre, radius 0.5. shape: round or rod; arrangement: bunch, chain, pair or
    single; focus 0-1; drift: shift of the slide, about -0.1 to 0.1; mask 1: black all around it."""
    if mask > 0.5:
        c.rect(-1.2, -1.2, 2.4, 2.4, fill="#0b0b0d")
    c.circle(0, 0, 0.5, fill="#fbf6e6", edge="#1a1a1d", width=0.03)
    rng = c.rng(32)
    blur = 1.0 - min(max(focus, 0.0), 1.0)
    for gx, gy, angle in _groups(rng, arrangement):
        for dx, dy, turn in _members(rng, shape, arrangement, angle):
            x, y = gx + dx + drift, gy + dy
            if math.hypot(x, y) > 0.44:
                continue
            if blur > 0.05:
                for k in (1.0 + 1.6 * blur, 1.0 + 0.8 * blur, 1.0):
                    _cell(c, shape, x, y, turn, color, 0.047 * k, 0.18 + 0.3 * (1 - blur))
            else:
                _cell(c, shape, x, y, turn, mix(color, "#000000", 0.45), 0.05, 1.0)
                _cell(c, shape, x, y, turn, color, 0.04, 1.0)


@sprite
def lens_microscope(c: Canvas, focus=0.0):
    """Light microscope; focus 0-1: the tube moves down towards the slide."""
    c.poly([(-0.35, 0), (0.35, 0), (0.3, 0.1), (-0.3, 0.1)], fill="#2f343a")
    c.line([(0.25, 0.08), (0.3, 0.5), (0.12, 0.8)], "#2f343a", 0.09)
    c.rect(-0.32, 0.3, 0.58, 0.05, fill="#50575e")
    c.rect(-0.26, 0.35, 0.3, 0.025, fill="#d9f0ff", edge=GLASS, width=0.008)
    c.circle(-0.1, 0.16, 0.07, fill="#ffe9a8", edge="#50575e", width=0.02)
    low = 0.09 * (1 - focus)
    c.poly([(-0.15, 0.42 + low), (-0.05, 0.42 + low), (-0.02, 0.55 + low), (-0.18, 0.55 + low)], fill="#aab3ba")
    c.rect(-0.2, 0.55 + low, 0.2, 0.3, fill="#eef1f3", edge="#50575e", width=0.02)
    c.rect(-0.15, 0.85 + low, 0.1, 0.12, fill="#2f343a")
    with c.at(0.31, 0.42, 1.0, 360 * focus):
        c.circle(0, 0, 0.08, fill="#8a9299", edge="#2f343a", width=0.02)
        c.line([(0, 0), (0.07, 0)], "#2f343a", 0.025)


@sprite
def fizz_drop(c: Canvas, amount=1.0, fizz=0.0, color="#bfe3f7"):
    """Flat dome of liquid about 0.7 wide; amount 0-1; fizz 0-1: white foam swelling out of it."""
    if amount <= 0.02:
        return
    w, h = 0.35 * math.sqrt(amount), 0.16 * amount
    c.ellipse(0, 0, w, h, fill=color, edge="#3f7fa5", width=0.02)
    c.ellipse(-0.1, 0.06, 0.08 * amount, 0.025, fill="#ffffff", alpha=0.8)
    if fizz > 0.02:
        rng = c.rng(33)
        for _ in range(int(44 * fizz)):
            x, phase, r = rng.uniform(-1, 1), rng.random(), rng.uniform(0.03, 0.065)
            u = (phase + 0.9 * c.time_s) % 1.0
            top = 0.5 * fizz * (1 - 0.6 * x * x)
            c.circle(0.34 * x, -0.05 + top * u, r, fill="#ffffff", edge="#7fa9c2", width=0.01, alpha=0.95)


WELLS = (-0.4, -0.2, 0.0, 0.2, 0.4)


@sprite
def well_strip(c: Canvas, color="#1f4fe0", base="#eef5f8", levels=(1.0, 0.75, 0.5, 0.25, 0.05), develop=0.0, fill=1.0,
               particles=0.0):
    """Strip of five glass wells, 1 wide and 0.5 high. levels: strength of the colour in each; develop 0-1: how far it has
    come; fill 0-1: height of the liquid; particles 0-1: grains of the sample, fewer from left to right."""
    rng = c.rng(34)
    c.rect(-0.53, 0.42, 1.06, 0.07, fill="#e3eaee", edge=GLASS, width=0.012)
    for i, x in enumerate(WELLS):
        shape = [(x - 0.085, 0.45), (x - 0.085, 0.07), (x - 0.05, 0.0), (x + 0.05, 0.0), (x + 0.085, 0.07), (x + 0.085, 0.45)]
        c.poly(shape, fill="#ffffff", alpha=0.55)
        if fill > 0.02:
            top = 0.07 + 0.3 * fill
            tint = mix(base, color, develop * levels[i])
            c.poly([(x - 0.085, top), (x - 0.085, 0.07), (x - 0.05, 0.0), (x + 0.05, 0.0), (x + 0.085, 0.07), (x + 0.085, top)],
                   fill=tint)
            c.ellipse(x, top, 0.085, 0.016, fill=mix(tint, "#ffffff", 0.4))
        for _ in range((12, 8, 5, 3, 1)[i]):
            dx, dy, phase = rng.uniform(-0.06, 0.06), rng.uniform(0.05, 0.32), 6 * rng.random()
            if particles > i / 5 + 0.01 and fill > 0.1:
                c.circle(x + dx, dy * fill + 0.012 * math.sin(3 * c.time_s + phase), 0.018, fill="#8a4b1e")
        c.line(shape, GLASS, 0.022)


@sprite
def five_pipette(c: Canvas, liquid="#cfe3ee", load=1.0, drops=0.0, drop_fall=0.3):
    """Pipette with five tips over the wells of `well_strip` of the same size, origin between the ends of its tips.
    load 0-1: liquid in the tips; drops 0 or 1: drops fall `drop_fall` units."""
    c.rect(-0.1, 0.4, 0.2, 0.5, fill="#3e57b0", edge="#26356f", width=0.02)
    c.rect(-0.5, 0.26, 1.0, 0.17, fill="#4b66c4", edge="#26356f", width=0.02)
    for x in WELLS:
        c.poly([(x - 0.012, 0), (x + 0.012, 0), (x + 0.05, 0.26), (x - 0.05, 0.26)], fill="#f4f7f8", edge=GLASS, width=0.012)
        if load > 0.02:
            w, y = 0.012 + 0.032 * load, 0.22 * load
            c.poly([(x - 0.011, 0.01), (x + 0.011, 0.01), (x + w, y), (x - w, y)], fill=liquid)
        if drops > 0.5:
            c.ellipse(x, -drop_fall * ((1.8 * c.time_s) % 1.0), 0.022, 0.032, fill=liquid, edge=GLASS, width=0.006)


@sprite
def absorbance_bars(c: Canvas, color="#1f4fe0", levels=(1.0, 0.75, 0.5, 0.25, 0.05), read=0.0):
    """Screen of a plate reader with five bars, 1.06 wide and 0.56 high; read 0-1: how far the reader has come."""
    c.rect(-0.56, -0.04, 1.12, 0.64, fill="#2b3036", edge="#15181b", width=0.02)
    c.rect(-0.52, 0, 1.04, 0.56, fill="#fbfcfd")
    c.line([(-0.5, 0.04), (0.5, 0.04)], "#15181b", 0.015)
    for i, x in enumerate(WELLS):
        part = min(max(5 * read - i, 0.0), 1.0)
        if part > 0.02:
            c.rect(x - 0.07, 0.04, 0.14, 0.03 + 0.45 * levels[i] * part, fill=color, edge="#15181b", width=0.01)


@sprite
def reader_beam(c: Canvas, length=0.5, color="#ffe66b"):
    """Lamp of a plate reader with its beam going down `length` units, origin at the lamp's lower edge."""
    c.poly([(-0.03, 0), (0.03, 0), (0.06, -length), (-0.06, -length)], fill=color, alpha=0.75)
    c.rect(-0.1, 0, 0.2, 0.1, fill="#2b3036", edge="#15181b", width=0.015)

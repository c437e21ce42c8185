"""Molecular laboratory: samples, PCR, gels, pipettes and chromatography columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite
from expstar_utils.mini.sprites.glassware import GLASS


@sprite
def cheek_swab(c: Canvas):
    """Cotton swab pointing down, origin at its tip."""
    c.line([(0, 0.15), (0, 1.0)], "#e9dcc0", 0.07)
    c.line([(0.03, 0.15), (0.03, 1.0)], "#b7a682", 0.012)
    c.ellipse(0, 0.15, 0.12, 0.19, fill="#ffffff", edge="#8f8f8f", width=0.025)
    c.ellipse(0, 0.08, 0.07, 0.08, fill="#f3c6c6")


@sprite
def blood_finger(c: Canvas, drop=1.0):
    """Fingertip pointing down with a large drop of blood, origin under it; drop 0-1: its size."""
    c.poly([(-0.16, 0.42), (-0.14, 0.3), (-0.07, 0.23), (0.07, 0.23), (0.14, 0.3), (0.16, 0.42), (0.18, 1.0), (-0.18, 1.0)],
           fill="#eeb894", edge="#a3714f", width=0.02)
    c.ellipse(0, 0.42, 0.1, 0.13, fill="#f8d9c8", edge="#a3714f", width=0.012)
    if drop > 0.02:
        c.ellipse(0, 0.13, 0.12 * drop, 0.15 * drop, fill="#c40f1c", edge="#7a0a12", width=0.02)


@sprite
def hair_root(c: Canvas):
    """Thick curly hair hanging down to its pale root bulb, origin at the bulb's lower end."""
    ys = [0.15 + 0.85 * i / 24 for i in range(25)]
    c.line([(0.12 * math.sin(9 * (y - 0.15)), y) for y in ys], "#3b2314", 0.05)
    c.ellipse(0, 0.13, 0.09, 0.14, fill="#f1dfb8", edge="#3b2314", width=0.025)


@sprite
def pea_leaf(c: Canvas, color="#3fa53a"):
    """Leaf with its stalk upwards, origin at the leaf's tip."""
    c.line([(0, 0.55), (0.03, 1.0)], mix(color, "#000000", 0.3), 0.04)
    for x, turn in ((-0.02, 50), (0.06, -50)):
        with c.at(x, 0.72, 1.0, turn):
            c.ellipse(0, 0.17, 0.09, 0.17, fill=mix(color, "#ffffff", 0.12), edge="#1f5c1c", width=0.02)
    c.poly([(0, 0), (0.16, 0.17), (0.2, 0.36), (0.1, 0.56), (0, 0.62), (-0.1, 0.56), (-0.2, 0.36), (-0.16, 0.17)],
           fill=color, edge="#1f5c1c", width=0.025)
    c.line([(0, 0.04), (0, 0.6)], "#1f5c1c", 0.02)
    for y in (0.2, 0.34):
        c.line([(-0.12, y + 0.08), (0, y), (0.12, y + 0.08)], "#1f5c1c", 0.012)


@sprite
def micro_tube(c: Canvas, liquid="#bfe3f5", fill=0.5, shake=0.0):
    """Microcentrifuge tube with an open lid, mouth 0.48 wide at height 1; fill 0-1; shake 0 or 1."""
    x0 = 0.03 * shake * math.sin(24 * c.time_s)

    def half(y: float) -> float:
        return 0.24 if y > 0.45 else 0.06 + 0.4 * y
    top = 0.02 + 0.9 * fill
    levels = sorted({0.0, *(y for y in (0.15, 0.3, 0.45) if y < top), top})
    if fill > 0.01:
        c.poly([(x0 - half(y), y) for y in levels] + [(x0 + half(y), y) for y in reversed(levels)], fill=liquid, alpha=0.92)
    c.line([(x0 - 0.3, 1.0), (x0 - 0.24, 1.0), (x0 - 0.24, 0.45), (x0 - 0.06, 0), (x0 + 0.06, 0), (x0 + 0.24, 0.45),
            (x0 + 0.24, 1.0), (x0 + 0.32, 1.0)], GLASS, 0.035)
    c.line([(x0 + 0.32, 1.0), (x0 + 0.4, 1.08)], GLASS, 0.03)
    with c.at(x0 + 0.4, 1.06, 1.0, 60):
        c.rect(0, -0.03, 0.44, 0.08, fill="#e3eef3", edge=GLASS, width=0.025)


@sprite
def dna_ladder(c: Canvas, color="#2c6fd1", other="#e0523a", opened=0.0):
    """Short double strand lying flat, 1 wide; opened 0-1: its two strands move apart."""
    gap = 0.1 + 0.16 * opened
    for i in range(9):
        x = -0.44 + 0.11 * i
        reach = gap if opened < 0.05 else 0.09
        c.line([(x, gap), (x, gap - reach)], color, 0.04)
        c.line([(x, -gap), (x, -gap + reach)], other, 0.04)
    c.line([(-0.5, gap), (0.5, gap)], color, 0.055)
    c.line([(-0.5, -gap), (0.5, -gap)], other, 0.055)


@sprite
def pcr_cycler(c: Canvas, heat=0.0, text="95"):
    """Thermal cycler with its block on top; heat 0-1 colours the block blue to red; text: temperature shown."""
    c.poly([(-0.5, 0), (0.5, 0), (0.44, 0.42), (-0.44, 0.42)], fill="#dfe3e6", edge="#4f575d", width=0.02)
    c.rect(-0.4, 0.4, 0.8, 0.12, fill=mix("#3c78d8", "#e23b22", heat), edge="#4f575d", width=0.015)
    for i in range(5):
        c.poly([(-0.32 + 0.16 * i - 0.06, 0.6), (-0.32 + 0.16 * i + 0.06, 0.6), (-0.32 + 0.16 * i, 0.44)], fill="#f6fafc",
               edge=GLASS, width=0.012)
    c.rect(-0.22, 0.08, 0.44, 0.24, fill="#10180f")
    c.text(0, 0.2, str(text), 0.15, "#5cf078")


@sprite
def micropipette(c: Canvas, liquid="#2b49c9", fill=1.0, press=0.0):
    """Micropipette pointing down, origin at its tip. fill 0-1: liquid in the tip; press 0-1: the plunger goes down."""
    c.poly([(-0.02, 0), (0.02, 0), (0.07, 0.36), (-0.07, 0.36)], fill="#f4f7f8", edge=GLASS, width=0.015)
    if fill > 0.02:
        y = 0.3 * fill
        w = 0.015 + 0.045 * fill
        c.poly([(-0.015, 0.01), (0.015, 0.01), (w, y), (-w, y)], fill=liquid)
    c.poly([(-0.05, 0.34), (0.05, 0.34), (0.09, 0.5), (0.1, 0.85), (-0.1, 0.85), (-0.09, 0.5)], fill="#4b5fa8", edge="#2a355f",
           width=0.02)
    c.rect(-0.04, 0.83, 0.08, 0.14 * (1 - 0.8 * press), fill="#b9bfc9")
    c.rect(-0.08, 0.83 + 0.14 * (1 - 0.8 * press), 0.16, 0.06, fill="#e2b43b")


@sprite
def gel_slab(c: Canvas, bands: Sequence[float] = (0.5,), run=1.0, glow=1.0, dye=0.0, back="#1a1030", band="#ff8a1f",
             dye_color="#2b49c9", marker=1.0, loaded=1.0):
    """Gel, 1 wide and 1.1 high: marker lane on the left, broad sample lane on the right, wells on top.

    bands: final heights 0-1 of the sample's bands; run 0-1: how far they have moved; glow, dye 0-1: how visible bands
    and the loading dye are; marker, loaded 0-1: whether each lane holds anything.
    """
    c.rect(-0.5, 0, 1.0, 1.1, fill=back, edge=mix(back, "#808080", 0.6), width=0.03)
    top = 0.94
    for x, w in ((-0.28, 0.2), (0.16, 0.5)):
        c.rect(x - w / 2, top + 0.02, w, 0.07, fill=mix(back, "#000000" if sum(mix(back, back, 0)) > 1.4 else "#ffffff", 0.28))
    if glow > 0.02:
        if marker > 0.5:
            for y in (0.12, 0.3, 0.5, 0.7, 0.84):
                c.rect(-0.37, top + (y - top) * run - 0.018, 0.18, 0.036, fill=band, alpha=0.6 * glow)
        if loaded > 0.5:
            for y in bands:
                here = top + (y - top) * run
                c.rect(-0.13, here - 0.075, 0.58, 0.15, fill=band, alpha=0.3 * glow)
                c.rect(-0.1, here - 0.05, 0.52, 0.1, fill=mix(band, "#ffffff", 0.15), alpha=glow)
    if dye > 0.02:
        front = top + 0.03 - 0.86 * run
        for x, w, there in ((-0.28, 0.18, marker), (0.16, 0.48, loaded)):
            if there > 0.02:
                c.rect(x - w / 2, front, w * min(there, 1.0), 0.09, fill=dye_color, alpha=dye)


@sprite
def gel_tank(c: Canvas, on=1.0, buffer="#bfe3f2"):
    """Electrophoresis tank around a gel that is 0.8 of its width: black electrode on top, red below, bubbles when on."""
    c.rect(-0.6, -0.1, 1.2, 1.2, fill=buffer, edge="#4f6470", width=0.035)
    for y, color, s in ((1.04, "#15161a", -1), (-0.04, "#d4202a", 1)):
        c.line([(-0.56, y), (0.56, y)], color, 0.055)
        if on > 0.5:
            rng = c.rng(31 + s)
            for _ in range(12):
                u = (rng.random() + 1.3 * c.time_s) % 1.0
                c.circle(rng.uniform(-0.5, 0.5), y + 0.08 * s * u, 0.02, fill="#ffffff", edge="#9fb4c0", width=0.006,
                         alpha=0.9 * (1 - 0.5 * u))


@sprite
def resin_column(c: Canvas, resin="#6fb7ee", load=0.0, load_color="#c9b98a", ring=-1.0, color="#3fbf3a", spread=0.12, drip=0.0,
                 drip_color="#dfe9ee"):
    """Upright chromatography column, 1.1 high, tap at the bottom, origin at its outlet.

    load 0-1: liquid above the resin and its colour; ring: height 0-1 of the coloured zone in the bed (< 0: none) and
    its half thickness `spread`; drip 0 or 1: drops fall from the outlet.
    """
    w, foot, bed = 0.23, 0.16, 0.5
    c.rect(-w, foot, 2 * w, 0.92, fill="#ffffff", alpha=0.35)
    c.rect(-w, foot, 2 * w, bed, fill=resin)
    rng = c.rng(33)
    for _ in range(34):
        c.circle(w * rng.uniform(-0.9, 0.9), foot + bed * rng.uniform(0.04, 0.96), 0.018, fill=mix(resin, "#ffffff", 0.45))
    if ring > -0.5:
        low, high = (foot + bed * min(max(ring + s * spread, 0.0), 1.0) for s in (-1, 1))
        if high - low > 0.005:
            c.rect(-w, low, 2 * w, high - low, fill=color)
    if load > 0.01:
        c.rect(-w, foot + bed, 2 * w, 0.4 * load, fill=load_color)
    c.line([(-w - 0.04, 1.08), (-w, 1.05), (-w, foot), (-0.04, 0.08), (-0.03, 0)], GLASS, 0.03)
    c.line([(w + 0.04, 1.08), (w, 1.05), (w, foot), (0.04, 0.08), (0.03, 0)], GLASS, 0.03)
    c.rect(-0.15, 0.05, 0.3, 0.045, fill="#c0392b")
    if drip > 0.5:
        fall = (c.time_s * 2.2) % 1.0
        c.ellipse(0, -0.04 - 0.16 * fall, 0.035, 0.05, fill=drip_color, edge=GLASS, width=0.01)

"""Lenses, curved mirrors, light rays and the images they make."""

from __future__ import annotations

from expstar_utils.mini.canvas import Canvas
from expstar_utils.mini.sprites import sprite
from expstar_utils.mini.sprites.glassware import flame

GLASS, METAL = "#39a9e8", "#3a3f44"


def _bow(x: float, bulge: float, half: float, turned: bool = False) -> list[tuple[float, float]]:
    """Points of a bow from bottom to top: at x + bulge in the middle, at x at its ends."""
    steps = [-1 + i / 6 for i in range(13)]
    points = [(x + bulge * (1 - t * t), half * t) for t in steps]
    return points[::-1] if turned else points


@sprite
def optic_element(c: Canvas, kind="convex_lens", post=0.25):
    """Lens or mirror on a post. kind: convex_lens, concave_lens; face left: concave_mirror, convex_mirror."""
    c.rect(-0.03, 0.04, 0.06, post + 0.02, fill=METAL)
    c.rect(-0.2, 0, 0.4, 0.06, fill=METAL)
    with c.at(0, post + 0.38):
        if kind == "convex_lens":
            c.poly(_bow(0, 0.17, 0.4) + _bow(0, -0.17, 0.4, True), fill=GLASS, edge="#0d4f78", width=0.025, alpha=0.85)
        elif kind == "concave_lens":
            c.poly(_bow(0.17, -0.12, 0.4) + _bow(-0.17, 0.12, 0.4, True), fill=GLASS, edge="#0d4f78", width=0.025,
                   alpha=0.85)
        else:
            x, bulge = (-0.12, 0.17) if kind == "concave_mirror" else (-0.02, -0.17)
            face = _bow(x, bulge, 0.4)
            back = [(u + 0.13, v) for u, v in face]
            c.poly(face + back[::-1], fill="#4a2f1b", edge="#1d120a", width=0.015)
            for (u, v) in face[1:-1:2]:
                c.line([(u + 0.02, v - 0.03), (u + 0.12, v + 0.05)], "#c9975f", 0.018)
            c.line(face, "#5f7f94", 0.1)
            c.line(face, "#c8f0ff", 0.07)


@sprite
def optic_rays(c: Canvas, kind="convex_lens", reach=1.0, color="#e01010", focus=0.32):
    """Five parallel rays from the left meet the element at the origin (its centre); reach 0-1: how far they have run.

    focus: focal length in units. Mirrors send the rays back to the left.
    """
    incoming, leaving = min(reach / 0.45, 1.0), max(reach - 0.45, 0.0) / 0.55
    mirror, gathers = kind.endswith("mirror"), kind in ("convex_lens", "concave_mirror")
    for k in range(5):
        y = 0.24 * (k - 2) / 2
        bow = 0.17 * (1 - (y / 0.4) ** 2)
        turn = {"concave_mirror": -0.15 + bow, "convex_mirror": -0.05 - bow}.get(kind, 0.0)
        c.line([(-0.6, y), (-0.6 + (0.6 + turn) * incoming, y)], color, 0.022)
        if incoming > 0.55:
            c.poly([(-0.42, y), (-0.49, y + 0.03), (-0.49, y - 0.03)], fill=color)
        if leaving > 0.01:
            slope = -y / (focus + turn) if gathers and mirror else -y / focus if gathers else y / (focus - turn)
            x = 0.6 * leaving
            c.line([(turn, y), (turn - x if mirror else x, y + slope * x)], "#f08a00" if mirror else color, 0.022)
    if gathers and leaving > 0.6:
        c.circle(-focus if mirror else focus, 0, 0.045, fill="#ffe23a", edge="#a01010", width=0.015)


@sprite
def optic_candle(c: Canvas, lit=1.0, color="#7b3fb5"):
    """Candle in a holder, burning when lit is 1; about 1 high."""
    c.rect(-0.24, 0, 0.48, 0.08, fill="#b8860b", edge="#5e4404", width=0.015)
    c.rect(-0.11, 0.08, 0.22, 0.46, fill=color, edge="#3a1a5c", width=0.015)
    c.line([(0, 0.54), (0, 0.61)], "#222222", 0.025)
    if lit > 0.5:
        with c.at(0, 0.56, 0.5):
            flame(c, color="#ff9a00", core="#fff27a", height=1.0)


@sprite
def optic_bench(c: Canvas, centre=0.6, near=0.2, length=1.0):
    """Long bench to the right of the origin with pegs at one (red) and two (blue) focal lengths left of `centre`."""
    c.rect(0, -0.06, length, 0.06, fill="#596067", edge="#2b2f33", width=0.008)
    for k, color in ((1, "#e01010"), (2, "#1f4fd8")):
        x = centre - k * near
        c.poly([(x - 0.035, -0.14), (x + 0.035, -0.14), (x, -0.005)], fill=color, edge="#222222", width=0.006)


@sprite
def image_view(c: Canvas, scale=1.0, way=1.0, sharp=1.0, back="#10233f"):
    """Round field with the image of the candle, origin at its centre, 1 across.

    scale: height of the image in units (0.2-0.9); way 1 upright, -1 upside down; sharp 0-1: the blur clears.
    """
    c.circle(0, 0, 0.5, fill=back, edge="#c7ccd1", width=0.04)
    blur = 1 - min(max(sharp, 0.0), 1.0)
    if blur > 0.02:
        for k in range(4):
            spread = 0.5 + 0.6 * scale
            c.ellipse(0, 0.1 * scale * way, (0.1 + 0.08 * k) * spread, (0.14 + 0.09 * k) * spread, fill="#ffb347",
                      alpha=0.28 * blur)
    if sharp > 0.35:
        middle = 0.5 * scale * way
        with c.at(0, -middle, scale, 0 if way > 0 else 180):
            optic_candle(c)

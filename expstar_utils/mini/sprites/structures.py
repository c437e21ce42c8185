"""Strength of materials and of structures: the tensile test, loaded beams."""

from __future__ import annotations

import math

import numpy as np

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

CURVES = {
    "straight": [(0, 0), (0.5, 0.92)],
    "arc": [(x, 0.9 * (1 - math.exp(-4.2 * x)) / (1 - math.exp(-3.8))) for x in np.linspace(0, 0.9, 30)],
    "dip": [(0, 0), (0.2, 0.9), (0.24, 0.88), (0.3, 0.5), (0.36, 0.46), (0.5, 0.5), (0.62, 0.6), (0.74, 0.7),
            (0.86, 0.76), (0.95, 0.74)],
}


@sprite
def tensile_bar(c: Canvas, color="#8f9ba6", neck=0.0, gap=0.0):
    """Test bar, upright, origin at its centre, 1 long. neck 0-1: how thin its waist; gap: how far the halves are apart."""
    ys = np.linspace(0, 0.32, 17)
    half = [0.115 * (1 - 0.8 * neck * math.exp(-((y / 0.09) ** 2))) for y in ys]
    outline = [*zip(half, ys, strict=True), (0.2, 0.38), (0.2, 0.5)]
    if gap < 0.005:
        right = [(x, -y) for x, y in reversed(outline)] + outline
        c.poly(right + [(-x, y) for x, y in reversed(right)], fill=color, edge="#1d2226", width=0.02)
    for way in (1, -1):
        points = [(x, way * (y + gap / 2)) for x, y in outline]
        points += [(-x, y) for x, y in reversed(points)]
        if gap >= 0.005:
            c.poly(points, fill=color, edge="#1d2226", width=0.02)
        shine = [(-0.45 * x, way * (y + gap / 2)) for x, y in outline[:17]]
        c.line(shine, mix(color, "#ffffff", 0.6), 0.025)


@sprite
def tensile_machine(c: Canvas, travel=0.0, shield=0.0):
    """Tensile tester, 1 wide and 1 high. travel 0-1: its crosshead rises by 0.12; shield 0-1: the screen comes down."""
    c.rect(-0.5, 0, 1.0, 0.12, fill="#1f6f78", edge="#0d3337", width=0.015)
    for x in (-0.42, 0.36):
        c.rect(x, 0.12, 0.06, 0.86, fill="#7fb6bb", edge="#0d3337", width=0.01)
    top = 0.78 + 0.12 * travel
    c.rect(-0.46, top, 0.92, 0.11, fill="#1f6f78", edge="#0d3337", width=0.015)
    for y in (0.12, top - 0.12):
        c.rect(-0.17, y, 0.34, 0.12, fill="#e08a1e", edge="#5c3607", width=0.015)
    if shield > 0.01:
        c.rect(-0.48, 0.98 - 0.84 * shield, 0.96, 0.84 * shield, fill="#7ec8ff", edge="#1c5f9c", width=0.02, alpha=0.35)


@sprite
def calipers(c: Canvas, opening=0.3):
    """Vernier calipers from above, origin between the jaws' tips; opening: distance of the jaws."""
    c.rect(-0.3, 0.3, 1.0, 0.13, fill="#dfe5ea", edge="#39424a", width=0.015)
    for x, way in ((-opening / 2, -1), (opening / 2, 1)):
        c.poly([(x, -0.12), (x, 0.43), (x + way * 0.15, 0.43), (x + way * 0.12, 0.1)], fill="#b9c3cb", edge="#39424a",
               width=0.015)
    for i in range(9):
        c.line([(0.24 + 0.05 * i, 0.43), (0.24 + 0.05 * i, 0.36)], "#39424a", 0.01)


@sprite
def stress_screen(c: Canvas, curve="arc", drawn=1.0, color="#d4002a"):
    """Load against stretch, origin at the centre. curve: dip, arc or straight; drawn 0-1; a star marks the break."""
    c.rect(-0.5, -0.5, 1.0, 1.0, fill="#4c565e", edge="#23292e", width=0.02)
    c.rect(-0.45, -0.45, 0.9, 0.9, fill="#fffdf2")
    for k in range(1, 6):
        c.line([(-0.45 + 0.15 * k, -0.45), (-0.45 + 0.15 * k, 0.45)], "#d7dccb", 0.008)
        c.line([(-0.45, -0.45 + 0.15 * k), (0.45, -0.45 + 0.15 * k)], "#d7dccb", 0.008)
    c.line([(-0.37, 0.42), (-0.37, -0.37), (0.42, -0.37)], "#222222", 0.025)
    points = np.array(CURVES[curve]) * (0.76, 0.76) + (-0.37, -0.37)
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, along[-1] * min(max(drawn, 0.0), 1.0), 50)
    xs, ys = (np.interp(at, along, points[:, k]) for k in (0, 1))
    c.line(list(zip(xs, ys, strict=True)), color, 0.045)
    if drawn > 0.99:
        for turn in range(0, 180, 45):
            a = math.radians(turn)
            dx, dy = 0.08 * math.cos(a), 0.08 * math.sin(a)
            c.line([(xs[-1] - dx, ys[-1] - dy), (xs[-1] + dx, ys[-1] + dy)], "#111111", 0.02)
    else:
        c.circle(xs[-1], ys[-1], 0.04, fill="#1b3fd1")


def _shape(kind: str, u: np.ndarray) -> np.ndarray:
    """Deflection, greatest value 1, of a beam from u = 0 (left) to 1."""
    if kind == "posts":
        return np.sin(math.pi * u)
    if kind == "walls":
        return 0.65 * (1 - np.cos(2 * math.pi * u)) / 2
    if kind == "wall":
        return 1.5 * (3 * u**2 - u**3) / 2
    return 0.8 * (3 * u**2 - 5 * u**3 + 2 * u**4) / 0.26


def _wall(c: Canvas, x: float) -> None:
    c.rect(x - 0.09, 0, 0.18, 0.62, fill="#6b625a", edge="#2d2824", width=0.015)
    for k in range(5):
        c.line([(x - 0.09, 0.02 + 0.12 * k), (x + 0.09, 0.12 + 0.12 * k)], "#b3a899", 0.014)


def _post(c: Canvas, x: float) -> None:
    c.rect(x - 0.07, 0, 0.14, 0.2, fill="#1f8f4d", edge="#0d4a26", width=0.012)
    c.poly([(x, 0.33), (x - 0.07, 0.2), (x + 0.07, 0.2)], fill="#2fbf6b", edge="#0d4a26", width=0.015)


@sprite
def loaded_beam(c: Canvas, support="posts", load=0, color="#d62020", lift=0.0, bend=0.0, rise=0.0):
    """Beam on its supports, 1 wide. support: posts, wall (left), walls or wall_post.

    load 0, 1, 2 blocks or 6 (a row), in their color; lift: their height above the beam, on ropes; bend 0-1; rise: the
    beam's own height above its supports.
    """
    for x in {"wall": [-0.43], "walls": [-0.43, 0.43], "wall_post": [-0.43]}.get(support, []):
        _wall(c, x)
    for x in {"posts": [-0.36, 0.36], "wall_post": [0.36]}.get(support, []):
        _post(c, x)
    u = np.linspace(0, 1, 41)
    down = 0.15 * bend * _shape(support, u)
    xs, ys = -0.36 + 0.72 * u, 0.36 - down + rise
    if support == "posts":
        xs = -0.42 + 0.84 * u
        ys = 0.36 - 0.15 * bend * _shape(support, (u * 0.84 - 0.06) / 0.72) + rise
    line = list(zip(xs, ys, strict=True))
    c.line(line, "#7a4b12", 0.075)
    c.line(line, "#e2a04a", 0.05)
    width = 0.12 if load == 6 else 0.16
    for place in {1: [0.5], 2: [1 / 3, 2 / 3], 6: [(k + 0.5) / 6 for k in range(6)]}.get(int(load), []):
        y = float(np.interp(-0.36 + 0.72 * place, xs, ys)) + 0.035 + lift
        x = -0.36 + 0.72 * place
        if lift > 0.01:
            c.line([(x, y + width), (x, 2)], "#444444", 0.012)
        c.rect(x - width / 2, y, width, width * (1 if load == 6 else 1.25), fill=color, edge="#1a1a1a", width=0.016)


@sprite
def bending_slice(c: Canvas, bend=0.0):
    """Piece of a beam seen close, origin at its centre; bend 0-1: its top shortens (purple), its bottom stretches (orange)."""
    def place(x: float, y: float) -> tuple[float, float]:
        """Where a point of the straight piece lies once it is bent."""
        if bend < 0.02:
            return x, y
        radius = 0.75 / bend
        return (radius - y) * math.sin(x / radius), radius - (radius - y) * math.cos(x / radius)
    rows, columns = np.linspace(-0.24, 0.24, 7), np.linspace(-0.42, 0.42, 22)
    for low, high in zip(rows[:-1], rows[1:], strict=True):
        y = (low + high) / 2
        color = mix("#f3e2b8", "#7a1fa2" if y > 0 else "#f07d00", abs(y) / 0.2 * (0.15 + 0.85 * bend))
        c.poly([place(x, low) for x in columns] + [place(x, high) for x in reversed(columns)], fill=color)
    for x in np.linspace(-0.42, 0.42, 8):
        c.line([place(x, -0.24), place(x, 0.24)], "#222222", 0.014)
    c.line([place(x, 0) for x in columns], "#111111", 0.025)


@sprite
def sag_gauge(c: Canvas, value=0.0):
    """Dial gauge on a rod, 1 high; value 0-1: needle turns once clockwise."""
    c.rect(-0.035, 0.5, 0.07, 0.5, fill="#8d979f", edge="#333333", width=0.015)
    c.circle(0, 0.38, 0.36, fill="#ffffff", edge="#20262b", width=0.05)
    for k in range(12):
        a = math.radians(30 * k)
        c.line([(0.27 * math.cos(a), 0.38 + 0.27 * math.sin(a)), (0.32 * math.cos(a), 0.38 + 0.32 * math.sin(a))],
               "#333333", 0.02)
    a = math.radians(90 - 360 * value)
    c.line([(0, 0.38), (0.27 * math.cos(a), 0.38 + 0.27 * math.sin(a))], "#d01f1f", 0.05)
    c.circle(0, 0.38, 0.05, fill="#20262b")

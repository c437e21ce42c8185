"""Vector drawing on a small square frame: matplotlib's Agg renderer behind a dozen short calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

Point = tuple[float, float]
Color = str | tuple[float, float, float]

rgb = lru_cache(maxsize=4096)(to_rgb)


def mix(a: Color, b: Color, t: float) -> tuple[float, float, float]:
    """Colour between `a` (t=0) and `b` (t=1)."""
    t = min(max(t, 0.0), 1.0)
    return tuple((1 - t) * x + t * y for x, y in zip(rgb(a), rgb(b), strict=True))


class Canvas:
    """A frame being drawn. Coordinates: x right and y up, the whole frame is [0, 1] x [0, 1].

    `time_s` is the time within the clip, `progress` the same as a fraction in [0, 1]. Inside `at(...)` the
    coordinates are local: the origin is the given point and 1 is the given scale. Line widths are local too.

    Args:
        size_px: side of the square frame, pixels.
        time_s: seconds since the clip began.
        progress: 0 at the first frame, 1 at the last.
        seed: fixes `rng`; the same for every frame of a clip.
    """

    def __init__(self, size_px: int, time_s: float = 0.0, progress: float = 0.0, seed: int = 0):
        self.size_px, self.time_s, self.progress, self.seed = size_px, time_s, progress, seed
        self._agg = RendererAgg(size_px, size_px, 72)
        self._now = Affine2D().scale(size_px)
        self._scale = 1.0

    def rng(self, key: int = 0) -> np.random.Generator:
        """Random numbers that are the same in every frame of the clip (grain positions, bubble phases)."""
        return np.random.default_rng([self.seed, key])

    @contextmanager
    def at(self, x: float, y: float, scale: float = 1.0, rotate_deg: float = 0.0) -> Iterator[None]:
        """Draw in local coordinates: origin at (x, y), lengths times `scale`, turned counter-clockwise."""
        before, scale_before = self._now, self._scale
        self._now = Affine2D().rotate_deg(rotate_deg).scale(scale).translate(x, y) + before
        self._scale = scale_before * scale
        try:
            yield
        finally:
            self._now, self._scale = before, scale_before

    def draw(self, path: Path, fill: Color | None, edge: Color | None, width: float, alpha: float) -> None:
        """Draw a matplotlib path; `width` in local units, `alpha` in [0, 1]."""
        gc = self._agg.new_gc()
        gc.set_alpha(min(max(alpha, 0.0), 1.0))
        gc.set_antialiased(True)
        gc.set_capstyle("round")
        gc.set_joinstyle("round")
        gc.set_linewidth(0.0 if edge is None else max(0.6, width * self._scale * self.size_px))
        gc.set_foreground(rgb(edge) if edge is not None else (0, 0, 0))
        self._agg.draw_path(gc, path, self._now, None if fill is None else rgb(fill))
        gc.restore()

    def poly(self, points: Sequence[Point], fill: Color | None = None, edge: Color | None = None,
             width: float = 0.01, alpha: float = 1.0) -> None:
        """Closed polygon."""
        self.draw(Path([*points, points[0]], closed=True), fill, edge, width, alpha)

    def rect(self, x: float, y: float, w: float, h: float, fill: Color | None = None, edge: Color | None = None,
             width: float = 0.01, alpha: float = 1.0) -> None:
        """Rectangle with its lower left corner at (x, y)."""
        self.poly([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], fill, edge, width, alpha)

    def line(self, points: Sequence[Point], color: Color = "#333333", width: float = 0.015, alpha: float = 1.0) -> None:
        """Open polyline."""
        self.draw(Path(points), None, color, width, alpha)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color | None = None, edge: Color | None = None,
                width: float = 0.01, alpha: float = 1.0) -> None:
        """Ellipse centred at (x, y) with half axes rx, ry."""
        unit = Path.unit_circle()
        self.draw(Path(unit.vertices * (rx, ry) + (x, y), unit.codes), fill, edge, width, alpha)

    def circle(self, x: float, y: float, r: float, fill: Color | None = None, edge: Color | None = None,
               width: float = 0.01, alpha: float = 1.0) -> None:
        """Circle centred at (x, y)."""
        self.ellipse(x, y, r, r, fill, edge, width, alpha)

    def arc(self, x: float, y: float, r: float, start_deg: float, end_deg: float, color: Color = "#333333",
            width: float = 0.015, alpha: float = 1.0) -> None:
        """Circular arc, counter-clockwise from `start_deg` (0 = right)."""
        angles = np.radians(np.linspace(start_deg, end_deg, 24))
        self.line(list(zip(x + r * np.cos(angles), y + r * np.sin(angles), strict=True)), color, width, alpha)

    def wave(self, x0: float, x1: float, y: float, height: float, cycles: float, color: Color = "#333333",
             width: float = 0.015, phase: float = 0.0, alpha: float = 1.0) -> None:
        """Sine wave from x0 to x1 about the level y; `phase` in cycles."""
        u = np.linspace(0, 1, 60)
        ys = y + height * np.sin(2 * math.pi * (cycles * u + phase))
        self.line(list(zip(x0 + (x1 - x0) * u, ys, strict=True)), color, width, alpha)

    def text(self, x: float, y: float, text: str, height: float = 0.08, color: Color = "#222222") -> None:
        """Text centred at (x, y); `height` of a capital letter in local units. Latin letters and digits only."""
        size_pt = height * self._scale * self.size_px / 0.7
        px, py = self._now.transform((x, y))
        gc = self._agg.new_gc()
        gc.set_foreground(rgb(color))
        font = FontProperties(family="DejaVu Sans", weight="bold", size=max(size_pt, 4))
        w, h, d = self._agg.get_text_width_height_descent(text, font, False)
        self._agg.draw_text(gc, px - w / 2, self.size_px - py + h / 2 - d / 2, text, font, 0, False)
        gc.restore()

    def pixels(self) -> np.ndarray:
        """What was drawn: uint8 [size_px, size_px, 4], RGBA, not premultiplied."""
        return np.asarray(self._agg.buffer_rgba()).copy()

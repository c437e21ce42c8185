"""Captions drawn onto pictures, plane by plane: what they do not cover stays as it was."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import av
import numpy as np
from PIL import Image, ImageDraw

from expstar_utils.publishing.fonts import Typeface
from expstar_utils.publishing.subtitles import Caption

GROUND = (12, 14, 18, 190)  # RGBA
COLOURS = {"narration": (255, 255, 255), "principle": (190, 225, 255), "safety": (255, 214, 120)}
WIDEST = 0.94  # of the picture's width
Planes = list[np.ndarray]  # Y [height, width], U and V [height/2, width/2]


def planes_of(flat: np.ndarray, width: int, height: int) -> Planes:
    """Planes of a yuv420p picture that lie one after another."""
    flat, size = flat.ravel(), width * height
    half = (height // 2, width // 2)
    return [flat[:size].reshape(height, width), *(flat[a:a + size // 4].reshape(half) for a in (size, size + size // 4))]


def upright(frame: av.VideoFrame, rotation: int, width: int, height: int) -> Planes:
    """Planes of a frame, uint8, turned and scaled as it is shown; `width` and `height` are even."""
    across = (height, width) if rotation % 180 else (width, height)
    planes = planes_of(frame.reformat(*across, "yuv420p", interpolation="BICUBIC").to_ndarray(), *across)
    return [np.rot90(plane, rotation // 90) for plane in planes]


class Pen:
    """Writes captions onto pictures of one size, both sides even.

    Raises:
        ExpStarError: no font has some of the captions' letters.
    """

    def __init__(self, captions: Sequence[Caption], width: int, height: int):
        self.captions, self.starts, self.width, self.height = captions, [c.start_ms for c in captions], width, height
        self.face = Typeface("".join(line for c in captions for line in c.lines)) if captions else None
        self.size_px = max(min(width // 27, height // 18), 8)
        self.strip = lru_cache(maxsize=4)(self._strip)

    def written(self, planes: Planes, time_s: float) -> av.VideoFrame:
        """A picture with the caption of its time."""
        time_ms = time_s * 1000 + 0.5
        place = bisect_right(self.starts, time_ms) - 1
        if place >= 0 and time_ms < self.captions[place].end_ms:
            planes = [plane.copy() for plane in planes]
            top, strip, alphas = self.strip(place)
            for plane, own, alpha, at in zip(planes, strip, alphas, (top, top // 2, top // 2)):
                under = plane[at:at + len(own)]
                under[:] = np.round(under + (own - under.astype(np.float32)) * alpha)
        flat = np.concatenate([plane.ravel() for plane in planes])
        return av.VideoFrame.from_ndarray(flat.reshape(self.height * 3 // 2, self.width), format="yuv420p")

    def _strip(self, place: int) -> tuple[int, Planes, Planes]:
        """Row where a caption begins, its planes, and how much of each of their pixels is the caption's (0 to 1)."""
        drawn = np.array(self.draw(self.captions[place]))
        height = len(drawn)
        colours = av.VideoFrame.from_ndarray(drawn[:, :, :3].copy(), format="rgb24").reformat(format="yuv420p").to_ndarray()
        alpha = drawn[:, :, 3].astype(np.float32) / 255
        half = alpha.reshape(height // 2, 2, -1, 2).mean((1, 3))
        top = max(self.height - height - self.height // 40, 0) // 2 * 2
        return top, planes_of(colours.astype(np.float32), self.width, height), [alpha, half, half]

    def draw(self, caption: Caption) -> Image.Image:
        """A caption on its dark ground, RGBA, as wide as the picture, of even height and no higher than it."""
        size = self.size_px
        while size > 6 and self._widest(caption, size) > WIDEST * self.width:
            size -= 1
        step, pad = round(1.35 * size), round(0.45 * size)
        height = min((len(caption.lines) * step + 2 * pad) // 2 * 2, self.height)
        middle, half = self.width / 2, min(self._widest(caption, size) / 2 + 2 * pad, self.width / 2 - 1)
        picture = Image.new("RGBA", (self.width, height), (0, 0, 0, 0))
        onto = ImageDraw.Draw(picture)
        onto.rounded_rectangle((middle - half, 0, middle + half, height - 1), pad, GROUND)
        for row, line in enumerate(caption.lines):
            place = middle - self.face.width_px(line, size) / 2, pad + round((row + 0.8) * step)
            self.face.draw(onto, place, line, size, (*COLOURS[caption.kind], 255))
        return picture

    def _widest(self, caption: Caption, size_px: int) -> float:
        return max(self.face.width_px(line, size_px) for line in caption.lines)

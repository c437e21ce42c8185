"""Frame sizes: a height and a width, or a limit of pixels from which they follow."""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class Pixels(BaseModel):
    """A limit for frames, which keep their film's proportions and are never enlarged.

    frame: most pixels of one frame. clip: most pixels of all frames of a clip together; None is as many as come. multiple: sides
    in pixels are multiples of it, and not less: 28 for Qwen2.5-VL (patches of 14, two by two become a token), 32 for Qwen3-VL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: int = Field(ge=1)
    clip: int | None = Field(None, ge=1)
    multiple: int = Field(28, ge=1)

    def a_frame(self, count: int) -> int:
        """Most pixels of each of `count` frames of a clip."""
        return self.frame if self.clip is None else min(self.frame, self.clip // count)


def _kind(given: Any) -> str:
    return "Pixels" if isinstance(given, dict | Pixels) else "tuple"


FrameSize = Annotated[Annotated[tuple[int, int], Tag("tuple")] | Annotated[Pixels, Tag("Pixels")], Discriminator(_kind)] | None


def scaled(size: FrameSize, height_px: int, width_px: int, count: int) -> tuple[int, int]:
    """Height and width that frames of a film get.

    Args:
        size: (height, width); or a limit, below which a side is the longest multiple that fits, and at least one; None is the
            film's own.
        height_px, width_px: of the film as it is shown. count: frames of the clip.
    """
    if not isinstance(size, Pixels):
        return size or (height_px, width_px)
    most, square = size.a_frame(count), size.multiple**2

    def side(own: int, other: int) -> int:
        fits = min(own // size.multiple, isqrt(most * own // (other * square)), most // square)
        return max(fits, 1) * size.multiple
    return side(height_px, width_px), side(width_px, height_px)

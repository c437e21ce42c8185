"""Fonts of this machine for captions that are drawn: one that has every character, else one after another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

from expstar_utils.records import ExpStarError

CHINESE = ("notosanscjk", "sourcehansans", "notosanssc", "pingfang", "msyh", "hiragino sans gb", "wqy-microhei", "wqy-zenhei",
           "droidsansfallback", "simhei", "stheiti", "arial unicode")  # how the files' names begin
LATIN = ("notosans-regular", "opensans-regular", "arial.", "liberationsans-regular", "helvetica", "dejavusans.")


@dataclass(frozen=True)
class Face:
    """One font of a file that may hold several."""

    path: Path
    index: int
    glyphs: frozenset[str]


def font_files() -> list[Path]:
    """Font files of this machine in an order that hangs on their names alone; at least the one that matplotlib brings along."""
    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    found = {Path(f) for f in font_manager.findSystemFonts()} | {own}
    return sorted((f for f in found if "emoji" not in f.name.lower()), key=lambda f: (f.name, str(f)))


@lru_cache(maxsize=512)
def _face(path: Path) -> Face | None:
    """The simplified Chinese one of a file's fonts, else its first; None for a file that is not readable as a font."""
    try:
        glyphs = frozenset(map(chr, FT2Font(path).get_charmap()))
        names = [ImageFont.truetype(path, 16).getname()[0]]
        with suppress(OSError):  # no further font in the file
            while len(names) < 16:
                names.append(ImageFont.truetype(path, 16, index=len(names)).getname()[0])
    except (OSError, RuntimeError):
        return None
    return Face(path, next((i for i, name in enumerate(names) if name.endswith(" SC")), 0), glyphs)


class Typeface:
    """Writes a text with the fonts that have its characters.

    Args:
        text: all that is going to be written.

    Raises:
        ExpStarError: no font has some of its letters.
    """

    def __init__(self, text: str, files: Iterable[Path] | None = None):
        needed = {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Mn")}
        wide = any(unicodedata.east_asian_width(c) in "WF" for c in needed)
        self.faces = _covering(needed, _in_order(font_files() if files is None else files, wide))

    def runs(self, text: str, size_px: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        """Stretches of a text with the font of each."""
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or self._place(text[end]) != self._place(text[start]):
                face = self.faces[self._place(text[start])]
                yield text[start:end], _font(face.path, face.index, size_px)
                start = end

    def _place(self, character: str) -> int:
        return next((i for i, face in enumerate(self.faces) if character in face.glyphs), 0)

    def width_px(self, text: str, size_px: int) -> float:
        """Width of a line."""
        return sum(font.getlength(run) for run, font in self.runs(text, size_px))

    def draw(self, onto: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size_px: int, fill: tuple) -> None:
        """Write a line from `place`, the left end of its base line."""
        x, y = place
        for run, font in self.runs(text, size_px):
            onto.text((x, y), run, fill=fill, font=font, anchor="ls")
            x += font.getlength(run)


@lru_cache(maxsize=64)
def _font(path: Path, index: int, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px, index=index, layout_engine=ImageFont.Layout.BASIC)


def _in_order(files: Iterable[Path], wide: bool) -> list[Path]:
    wished = (*CHINESE, *LATIN) if wide else (*LATIN, *CHINESE)
    def rank(path: Path) -> int:
        return next((i for i, name in enumerate(wished) if path.name.lower().startswith(name)), len(wished))
    return sorted(files, key=rank)


def _covering(needed: set[str], files: Sequence[Path]) -> list[Face]:
    faces = [face for face in map(_face, files) if face]
    if whole := next((face for face in faces if needed <= face.glyphs), None):
        return [whole]
    chosen = []
    for face in faces:
        if needed & face.glyphs:
            chosen.append(face)
            needed = needed - face.glyphs
    if letters := sorted(c for c in needed if unicodedata.category(c).startswith("L")):
        raise ExpStarError(f"font: found none with {''.join(letters[:8])}, expected one for every letter of the captions; "
                           "apt-get install fonts-noto-cjk (or any Chinese font), or ask for a track instead of burning")
    return chosen or faces[:1]

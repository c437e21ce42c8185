"""Characters that DejaVu lacks, Chinese ones above all: taken from a font of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from expstar_utils.figures import style
from expstar_utils.publishing.fonts import Typeface, font_files
from expstar_utils.records import ExpStarError

HEAVY = ("bold", "black", "light", "thin", "medium")


def add_fonts(texts: Iterable[str]) -> None:
    """Have the figures' style find every letter of some texts.

    Raises:
        ExpStarError: no font of this machine has one of them.
    """
    own = FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap()
    lacking = "".join(sorted({c for text in texts for c in text if c.isprintable() and ord(c) not in own}))
    if not lacking:
        return
    plain = [path for path in font_files() if not any(word in path.name.lower() for word in HEAVY)]
    try:
        typeface = Typeface(lacking, [path for path in plain if has_outlines_of_truetype(path)])
    except ExpStarError:
        typeface = Typeface(lacking, plain)
    for face in typeface.faces:
        font_manager.fontManager.addfont(face.path)
        family = font_manager.FontProperties(fname=face.path).get_name()
        if family not in (*style.RULES["font.family"], *style.FALLBACK):
            style.FALLBACK.append(family)
            style.width_pt.cache_clear()


def has_outlines_of_truetype(path: Path) -> bool:
    """Whether a font can be embedded in a PDF as Type 42; others can as well, but some readers complain."""
    with open(path, "rb") as file:
        kind = file.read(4)
        if kind == b"ttcf":
            file.seek(12)
            file.seek(int.from_bytes(file.read(4)))
            kind = file.read(4)
    return kind != b"OTTO"

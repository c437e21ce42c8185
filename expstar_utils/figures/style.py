"""One style for all figures: a column wide, colour-blind safe, fonts that matplotlib brings along, files equal to the byte."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from expstar_utils.differences import CJK
from expstar_utils.files import replacing, write_text
from expstar_utils.result_tables import latex_escaped

P, T = ParamSpec("P"), TypeVar("T")

COLUMN_IN, PAGE_IN, PT = 3.3, 7.0, 72  # width of a column and of a page of two; points an inch
TEXT_PT, TITLE_PT = 7, 8
DPI, WIDE_DPI = 200, 160  # of PNG
HINTED = 1.025  # a line of PNG is that much wider at most: its letters stand on whole pixels
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK, GREY = (  # Okabe and Ito 2008, without their yellow
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#767676")
# never told apart by colour alone: each line has a mark and a dash of its own
LINES = [{"color": color, "marker": marker, "linestyle": dash} for color, marker, dash in (
    (BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", "-."), (PINK, "D", ":"), (SKY, "v", "--"), (ORANGE, "P", "-."),
    (BLACK, "X", "-"), (GREY, "*", ":"))]
PUBLISHED = {"facecolor": "#d9d9d9", "edgecolor": "#404040", "hatch": "/////", "linewidth": 0.5}
OWN = {"facecolor": BLUE, "edgecolor": "#00304d", "linewidth": 0.5}
RULES = {
    "font.family": ["DejaVu Sans"], "font.size": TEXT_PT, "axes.titlesize": TITLE_PT, "axes.labelsize": TEXT_PT,
    "xtick.labelsize": TEXT_PT, "ytick.labelsize": TEXT_PT, "legend.fontsize": TEXT_PT, "figure.titlesize": TITLE_PT,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.axisbelow": True,
    "grid.linewidth": 0.4, "grid.color": "#d0d0d0", "lines.linewidth": 1.1, "lines.markersize": 3.5, "hatch.linewidth": 0.4,
    "hatch.color": "#404040", "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "legend.frameon": False, "legend.handlelength": 2.6, "legend.columnspacing": 1.2,
    "text.parse_math": False,  # a dollar in a title is a dollar
    "pdf.fonttype": 42, "svg.hashsalt": "expstar", "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03}
FILES = {"pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}, "png": {"metadata": {"Software": None}}}
_UNIT = re.compile(rf"([{CJK}][\u3001\u3002\uff01-\uff1f]*|[^\s{CJK}]+)(\s*)")  # what no line break divides
FALLBACK: list[str] = []  # families that have what DejaVu has not, see `glyphs.add_fonts`
_FIGURE = r"""\begin{%(kind)s}[t]
  \centering
  \includegraphics[width=\%(width)s]{%(name)s.pdf}
  \caption{%(caption)s}
  \label{fig:%(name)s}
\end{%(kind)s}
"""


@dataclass(frozen=True)
class Labels:
    """How our own numbers are named, wherever they stand beside published ones."""

    dataset: str = "ExpInstruct-Mini"
    model: str = "ExpStar-Tiny"

    @property
    def own(self) -> str:
        return f"{self.dataset} (ours)"


@dataclass(frozen=True)
class Drawing:
    """A figure that is done. name: of its files. wide: it takes both columns. tex: of a table; a figure includes its PDF."""

    name: str
    figure: Figure
    caption: str
    wide: bool = False
    tex: str = ""

    def latex(self) -> str:
        """The float, ready for `\\input`."""
        kind, width = ("figure*", "textwidth") if self.wide else ("figure", "columnwidth")
        return self.tex or _FIGURE % {"kind": kind, "width": width, "name": self.name, "caption": latex_escaped(self.caption)}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib with our rules and nobody's settings; as it was before, afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RULES | {"font.family": _families()})
        yield


def _families() -> list[str]:
    return [*RULES["font.family"], *FALLBACK]


def in_style(draw: Callable[P, T]) -> Callable[P, T]:
    """A function that draws, made to draw in our style."""
    @functools.wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> T:
        with styled():
            return draw(*args, **kwargs)
    return drawing


@in_style
def save(drawing: Drawing, folder: Path) -> dict[str, Path]:
    """Write a drawing as PDF, PNG and LaTeX; the same drawing gives the same bytes.

    Returns:
        `{pdf, png, tex}` -> path.

    Raises:
        ExpStarError: a file cannot be written; see `files.replacing`.
    """
    paths = {}
    for kind, how in FILES.items():
        content = io.BytesIO()
        drawing.figure.savefig(content, format=kind, dpi=WIDE_DPI if drawing.wide else DPI, **how)
        paths[kind] = Path(folder) / f"{drawing.name}.{kind}"
        with replacing(paths[kind]) as unfinished:
            unfinished.write_bytes(_opaque(content) if kind == "png" else content.getvalue())
    return paths | {"tex": write_text(Path(folder) / f"{drawing.name}.tex", drawing.latex())}


def _opaque(png: io.BytesIO) -> bytes:
    """A picture without its alpha channel, in which nothing is but white paper: an eighth smaller."""
    with Image.open(png) as picture:
        plain = io.BytesIO()
        picture.convert("RGB").save(plain, "png", optimize=True, dpi=picture.info["dpi"])
    return plain.getvalue()


def panels(height_in: float, rows: int = 1, columns: int = 1, width_in: float = COLUMN_IN,
           **how: Any) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, [rows, columns]; what is written around them is given room."""
    figure = Figure((width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def page(width_pt: float, height_pt: float) -> tuple[Figure, Axes]:
    """A figure that is one empty sheet, in points from its upper left corner."""
    figure = Figure((width_pt / PT, height_pt / PT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width_pt), ylim=(height_pt, 0))
    axes.axis("off")
    return figure, axes


@functools.lru_cache(maxsize=1 << 14)
def width_pt(text: str, size_pt: float = TEXT_PT, bold: bool = False) -> float:
    """Width of a line as it will be drawn."""
    prop = FontProperties(family=_families(), size=size_pt, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, prop, ismath=False)[0])


def plain(text: str) -> str:
    """Text on one line, without what cannot be printed."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def wrapped(text: str, limit_pt: float, size_pt: float = TEXT_PT, bold: bool = False) -> list[str]:
    """Lines of a text that are no wider than asked; a Chinese character may begin one, a word that is too long is cut."""
    lines, line, limit_pt = [], "", limit_pt / HINTED
    for word, blank in _UNIT.findall(plain(text)):
        while width_pt(word, size_pt, bold) > limit_pt and len(word) > 1:
            word, rest = _cut(word, limit_pt, size_pt, bold)
            lines, line, word = [*lines, *([line.rstrip()] if line else []), word], "", rest
        if line and width_pt((line + word), size_pt, bold) > limit_pt:
            lines, line = [*lines, line.rstrip()], ""
        line += word + blank
    return [*lines, line.rstrip()] if line.strip() else lines


def _cut(word: str, limit_pt: float, size_pt: float, bold: bool) -> tuple[str, str]:
    fits = next((n for n in range(len(word) - 1, 1, -1) if width_pt(word[:n], size_pt, bold) <= limit_pt), 1)
    return word[:fits], word[fits:]


def shortened(text: str, limit_pt: float, size_pt: float = TEXT_PT) -> str:
    """The beginning of a text that fits one line; dots say that there is more."""
    lines = wrapped(text, limit_pt, size_pt)
    if len(lines) < 2:
        return "".join(lines)
    return wrapped(text, limit_pt - width_pt("...", size_pt), size_pt)[0] + "..."


def folded(text: str, letters: int = 14) -> str:
    """A short label on two lines at most, broken at a blank."""
    return "\n".join(textwrap.wrap(text, letters, break_long_words=False)) if len(text) > letters else text

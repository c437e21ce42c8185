"""A table that knows whose numbers stand in it: as LaTeX (booktabs) and drawn, from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from expstar_utils.figures.style import PAGE_IN, PT, Drawing, in_style, page, plain, width_pt, wrapped
from expstar_utils.result_tables import latex_escaped

ROW_PT, GAP_PT, EDGE_PT = 10.5, 6, 3
OWN_GROUND = "#e3eff7"  # behind our own rows
NOTHING = "–"


class Bold(str):
    """A cell that is set in bold."""


@dataclass(frozen=True)
class Block:
    """Rows under a heading. own: the numbers are ours, not the paper's."""

    heading: str
    rows: Sequence[Sequence[str]]
    own: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    align: one of l, r for each column. notes: in the LaTeX file alone, as comments.
    """

    name: str
    caption: str
    columns: Sequence[str]
    blocks: Sequence[Block]
    align: str = ""
    wide: bool = True
    notes: Sequence[str] = field(default=())

    @property
    def sides(self) -> str:
        return self.align or "l" + "r" * (len(self.columns) - 1)

    def latex(self) -> str:
        """The float: a heading over each block, a heavy rule where published rows end and ours begin."""
        kind = "table*" if self.wide else "table"
        out = [f"% {plain(note)}" for note in self.notes]
        out += [rf"\begin{{{kind}}}[t]", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
                rf"\caption{{{latex_escaped(self.caption)}}}", rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{self.sides}}}", r"\toprule", _row(self.columns)]
        for number, block in enumerate(self.blocks):
            heavy = number and block.own and not self.blocks[number - 1].own
            face = "textbf" if block.own else "textit"
            out += [r"\midrule[\heavyrulewidth]" if heavy else r"\midrule",
                    rf"\multicolumn{{{len(self.columns)}}}{{l}}{{\{face}{{{latex_escaped(block.heading)}}}}} \\"]
            out += map(_row, block.rows)
        return "\n".join([*out, r"\bottomrule", r"\end{tabular}", rf"\end{{{kind}}}", ""])

    @in_style
    def drawing(self) -> Drawing:
        """The same as a picture; our own rows stand on a coloured ground."""
        rows = [self.columns, *(row for block in self.blocks for row in block.rows)]
        widths = [max(_width(row[i]) for row in rows) + GAP_PT for i in range(len(self.columns))]
        width = sum(widths) + 2 * EDGE_PT
        headings = max(width_pt(block.heading, bold=block.own) for block in self.blocks) + 2 * EDGE_PT + GAP_PT
        widths[0] += max(headings - width, 0)
        width = max(width, headings)
        note = wrapped(self.caption, width - 2 * EDGE_PT - 2)
        height = ROW_PT * (len(rows) + len(self.blocks) + len(note) + 1)
        figure, axes = page(width, height)
        y = self._draw_rows(axes, widths, width)
        for number, line in enumerate(note, 1):
            axes.text(EDGE_PT, y + 4 + ROW_PT * number, line, va="baseline", color="#404040")
        return Drawing(self.name, figure, self.caption, self.wide or width > PAGE_IN * PT / 2, self.latex())

    def _draw_rows(self, axes: Axes, widths: Sequence[float], width: float) -> float:
        y, own = ROW_PT, self.blocks[0].own
        _rule(axes, 2, width, 1.0)
        self._draw_row(axes, widths, y, [Bold(column) for column in self.columns])
        for block in self.blocks:
            _rule(axes, y + 3, width, 1.4 if block.own and not own else 0.5)
            ground = ROW_PT * (len(block.rows) + 1)
            if block.own:
                axes.add_patch(Rectangle((EDGE_PT, y + 3), width - 2 * EDGE_PT, ground, facecolor=OWN_GROUND, zorder=0))
            y, own = y + ROW_PT, block.own
            axes.text(EDGE_PT + 2, y, block.heading, va="baseline", weight="bold" if block.own else "normal", style="italic")
            for row in block.rows:
                y += ROW_PT
                self._draw_row(axes, widths, y, row)
        _rule(axes, y + 3, width, 1.0)
        return y

    def _draw_row(self, axes: Axes, widths: Sequence[float], y: float, cells: Sequence[str]) -> None:
        x = float(EDGE_PT)
        for cell, width, side in zip(cells, widths, self.sides, strict=True):
            at = x + GAP_PT / 2 if side == "l" else x + width - GAP_PT / 2
            axes.text(at, y, plain(cell), ha="left" if side == "l" else "right", va="baseline",
                      weight="bold" if isinstance(cell, Bold) else "normal")
            x += width


def shown(value: Any, decimals: int = 2) -> str:
    """A number as a cell; a dash where there is none."""
    if value is None or value != value:
        return NOTHING
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def _width(cell: str) -> float:
    return width_pt(plain(cell), bold=True)


def _row(cells: Sequence[str]) -> str:
    marked = (rf"\textbf{{{latex_escaped(cell)}}}" if isinstance(cell, Bold) else latex_escaped(cell) for cell in cells)
    return " & ".join(marked) + r" \\"


def _rule(axes: Axes, y: float, width: float, line_pt: float) -> None:
    axes.plot([EDGE_PT, width - EDGE_PT], [y, y], color="black", linewidth=line_pt, solid_capstyle="butt")

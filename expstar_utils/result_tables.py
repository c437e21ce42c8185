"""Tables of results as CSV and LaTeX: the same lines give the same bytes, and text in them stays text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expstar_utils.files import guarded, write_text

# a bracket or a star at the start of a row would be an option of the row end before it
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
          ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "*": "{*}"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]], decimals: int = 4) -> Path:
    """Write lines as CSV, columns in the order of their first appearance.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers have `decimals` places, what is missing
    or not a number is empty.

    Raises:
        ExpStarError: the file cannot be written.
    """
    columns = _columns(lines)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([guarded(column) for column in columns])
    writer.writerows([_cell(line.get(column), decimals) for column in columns] for line in lines)
    return write_text(path, text.getvalue())


def write_latex(path: Path, lines: Sequence[Mapping[str, Any]], decimals: int = 2, notes: Iterable[str] = (),
                rule_after: str = "") -> Path:
    """Write lines as a booktabs table, ready for `\\input`: text left, numbers right.

    Args:
        notes: written above it as comments, one a line. rule_after: a column; a rule stands where its value changes.

    Raises:
        ExpStarError: the file cannot be written.
    """
    columns = _columns(lines)
    sides = "".join("l" if any(isinstance(line.get(c), str) for line in lines) else "r" for c in columns)
    out = [*(f"% {' '.join(note.split())}" for note in notes), rf"\begin{{tabular}}{{{sides}}}", r"\toprule",
           _row(columns), r"\midrule"]
    for at, line in enumerate(lines):
        if at and rule_after and line.get(rule_after) != lines[at - 1].get(rule_after):
            out.append(r"\midrule")
        out.append(_row([_shown(line.get(column), decimals) for column in columns]))
    return write_text(path, "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""]))


def latex_escaped(text: str) -> str:
    """Text of one line that LaTeX sets as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _row(cells: Iterable[str]) -> str:
    return " & ".join(latex_escaped(cell) for cell in cells) + r" \\"


def _columns(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for line in lines for column in line))


def _shown(value: Any, decimals: int) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def _cell(value: Any, decimals: int) -> str:
    return guarded(value) if isinstance(value, str) else _shown(value, decimals)

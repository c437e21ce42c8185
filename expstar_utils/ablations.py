"""The paper's ablations as one table: a prediction file's name says what was taken away; every column with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expstar_utils.datasets import Case
from expstar_utils.evaluation import Report
from expstar_utils.metrics import fact_rows
from expstar_utils.prompts import parse
from expstar_utils.records import ExpStarError, Prediction
from expstar_utils.significance import Comparison, Tally, compare, interval

ROWS = {  # (knowledge, marks) of a file of notebook 05 -> row; "full" is what ships
    ("never", ()): "without the knowledge base",
    ("always", ()): "always looking up",
    ("adaptive", ("none",)): "without verdicts",
    ("adaptive", ("joint",)): "one verdict on all passages",
    ("adaptive", ("sft",)): "SFT alone",
    ("adaptive", ("dpo",)): "SFT and DPO",
    ("adaptive", ("blank",)): "grey frames",
    ("adaptive", ()): "full",
}
TEXT = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "BERTScore-F1")  # as the columns begin: BERTScore's names an unusual model
FACTS = {"substance": {"substance"}, "colour or quantity": {"colour", "quantity"}, "equation or law": {"equation", "law"},
         "hazard": {"hazard"}}


def row_of(stem: str) -> tuple[str, str] | None:
    """(row, split) of a prediction file of notebook 05 by its name without ending; None where it is no ablation.

    Rows with the references' history are none: they must not stand beside those with the model's own.
    """
    split, history, knowledge, *marks = [*stem.split("-"), "", ""][:max(len(stem.split("-")), 3)]
    row = ROWS.get((knowledge, tuple(marks)))
    return (row, split) if row and history == "free" else None


def tallies(predictions: Sequence[Prediction], cases: Mapping[str, Case], truths: Sequence[Mapping[str, Any]],
            report: Report) -> dict[str, Tally]:
    """Columns of the table for one prediction file, in percent.

    Args:
        cases: by id. truths: of each prediction's step. report: text metrics of the same predictions, in the same order.

    Returns:
        Text metrics (`TEXT`), right facts (`FACTS`), and of the safety notes: `safety missing` of the steps whose reference has
        one, `safety unneeded` of the others.
    """
    group = [cases[p.id].experiment for p in predictions]
    found = {column: Tally(*sums, group) for column, sums in report.sums.items() if column.startswith(TEXT)}
    for name, kinds in FACTS.items():
        rows = [row for row in fact_rows(predictions, truths) if row["kind"] in kinds]
        found[name] = Tally.mean([100.0 * row["right"] for row in rows], [cases[row["id"]].experiment for row in rows])
    notes = [(bool(parse(p.labels).commentary.safety), bool(parse(p.response).commentary.safety)) for p in predictions]
    missing = [100.0 * (not said) if wanted else np.nan for wanted, said in notes]
    unneeded = [np.nan if wanted else 100.0 * said for wanted, said in notes]
    return found | {"safety missing": Tally.mean(missing, group), "safety unneeded": Tally.mean(unneeded, group)}


def table(files: Mapping[str, Mapping[str, Tally]], seed: int = 0) -> list[dict[str, Any]]:
    """One line a file that is an ablation: `{split, row, stem, <column>: percent, "<column>_interval": [low, high]}`;
    a column of which the split has nothing is left out.

    Args:
        files: stem -> `tallies`.
    """
    order = list(ROWS.values())
    lines = []
    for stem, columns in files.items():
        if (found := row_of(stem)) is None:
            continue
        line: dict[str, Any] = {"split": found[1], "row": found[0], "stem": stem}
        for column, tally in columns.items():
            if not np.isnan(tally.value):
                line |= {column: tally.value, f"{column}_interval": list(interval(tally, seed=seed))}
        lines.append(line)
    return sorted(lines, key=lambda line: (line["split"], order.index(line["row"])))


def shown(lines: Sequence[Mapping[str, Any]], decimals: int = 1) -> list[dict[str, str]]:
    """The table to be read: `12.3 [10.1, 14.0]` a cell."""
    def cell(line: Mapping[str, Any], column: str) -> str:
        low, high = line[f"{column}_interval"]
        return f"{line[column]:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return [{"split": line["split"], "row": line["row"]} | {column: cell(line, column) for column in line
                                                           if f"{column}_interval" in line} for line in lines]


def side_by_side(first: Report, second: Report, cases: Mapping[str, Case], seed: int = 0) -> dict[str, Comparison]:
    """Text metrics of any two prediction files on the rows that both have, paired: column -> `Comparison` (first minus second).

    Args:
        cases: by id; rows of steps that are not known are experiments of their own.

    Raises:
        ExpStarError: no row is in both.
    """
    places = [{row["id"]: i for i, row in enumerate(report.rows)} for report in (first, second)]
    shared = [name for name in places[0] if name in places[1]]
    if not shared:
        raise ExpStarError(f"found no id of the first file in the second (first: {next(iter(places[0]), 'none')!r}), expected "
                           "files on the same rows; compare files of one split")
    group = [cases[name].experiment if name in cases else name for name in shared]

    def tally(report: Report, place: Mapping[str, int], column: str) -> Tally:
        """A column over the shared rows."""
        top, bottom = (values[[place[name] for name in shared]] for values in report.sums[column])
        return Tally(top, bottom, group)
    return {column: compare(tally(first, places[0], column), tally(second, places[1], column), seed=seed)
            for column in first.sums if column in second.sums}


def against_full(files: Mapping[str, Mapping[str, Tally]], seed: int = 0) -> dict[str, dict[str, Comparison]]:
    """Every ablation beside the full model on the same split, paired: stem -> column -> `Comparison` (ablation minus full).

    A column of which one of the two has other experiments, as in a file that is not finished, is left out.
    """
    full = {found[1]: columns for stem, columns in files.items() if (found := row_of(stem)) and found[0] == "full"}
    compared = {}
    for stem, columns in files.items():
        found = row_of(stem)
        if found and found[0] != "full" and found[1] in full:
            compared[stem] = {column: compare(tally, full[found[1]][column], seed=seed) for column, tally in columns.items()
                              if column in full[found[1]] and set(tally.group) == set(full[found[1]][column].group)
                              and not np.isnan(tally.value)}
    return compared

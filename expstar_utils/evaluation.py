"""The report of a set of predictions: the text metrics of all rows and of each group, every row scored once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from expstar_utils.evaluation_rows import TextPair
from expstar_utils.files import write_json, write_jsonl
from expstar_utils.prompts import SECTIONS, parse
from expstar_utils.records import ExpStarError, Problem
from expstar_utils.result_tables import write_csv, write_latex
from expstar_utils.text_metrics import Bleu, Cider, Meteor, RougeL, Scored


def _bertscore(predictions: Sequence[str], references: Sequence[str], model: str | None = None) -> Scored:
    from expstar_utils.bertscore import BertScore  # torch takes seconds to load
    return BertScore(predictions, references, model)


METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], Scored]] = {
    "bleu": Bleu, "meteor": Meteor, "rouge": RougeL, "cider": Cider, "bertscore": _bertscore}
GROUPS = ("data_type", "discipline", "subject")
ALL, SECTION = "all", "section"
LABELS = ("group", "name", "rows")
DECIMALS = {"json": 6, "csv": 4, "tex": 2}


@dataclass(frozen=True)
class Report:
    """Metrics of a set of predictions.

    lines: one a group, `{group, name, rows, <column>: percent}`; the first is `all`. rows: one a scored row, `{id, <column>}`,
    CIDEr with the IDF of all. signatures: column -> how it was computed. problems: rows left out, and notes. sums: see
    `Scored.sums`.
    """

    lines: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    signatures: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def overall(self) -> dict[str, float]:
        """Columns over all rows."""
        return {column: self.lines[0][column] for column in self.signatures}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file: numbers rounded; the rows are not part of it."""
        return {"lines": [_rounded(line) for line in self.lines], "signatures": self.signatures,
                "problems": [problem.model_dump() for problem in self.problems]}


def evaluate(pairs: Sequence[TextPair], metrics: Iterable[str] = tuple(METRICS), groups: Iterable[str] = GROUPS,
             sections: Iterable[str] = tuple(SECTIONS.values()), problems: Iterable[Problem] = (),
             bert_model: str | None = None) -> Report:
    """Score rows once and report all of them, each group, and each section of the text.

    A group's values are those of the metrics called for its rows alone. A section has the rows whose reference has it; a
    prediction without it scores zero there.

    Args:
        metrics: names out of `METRICS`. groups: fields of `TextPair`; rows without a value are in no group. sections: out of
            narration, principle, safety. problems: what reading found, to be reported too. bert_model: see `bertscore.BertScore`.

    Raises:
        ExpStarError: no rows, a metric that is not known, or data or weights of one that cannot be had.
    """
    problems = list(problems)
    if not pairs:
        raise ExpStarError(f"found no row to score, expected a reference and a prediction in at least one; "
                           f"{problems[0] if problems else 'check the file of predictions'}")
    chosen = _chosen(metrics, bert_model)
    scores = _scored(pairs, chosen)
    members = {(ALL, ALL): list(range(len(pairs)))} | _members(pairs, groups)
    lines = [_line(group, name, rows, scores) for (group, name), rows in members.items()]
    for section in sections:
        parts = [part for pair in pairs if (part := section_pair(pair, section)).reference]
        if parts:
            lines.append(_line(SECTION, section, range(len(parts)), _scored(parts, chosen)))
    columns = {column: values for score in scores for column, values in score.rows().items()}
    rows = [{"id": pair.id} | {column: float(values[i]) for column, values in columns.items()} for i, pair in enumerate(pairs)]
    signatures = {column: text for score in scores for column, text in score.signatures.items()}
    sums = {column: found for score in scores for column, found in score.sums().items()}
    return Report(lines, rows, signatures, problems + _cider_notes(lines), sums)


def section_pair(pair: TextPair, section: str) -> TextPair:
    """The pair's lines of one section, without tags and control strings."""
    said, wanted = ("\n".join(getattr(parse(text).commentary, section)) for text in (pair.prediction, pair.reference))
    return TextPair(pair.id, said, wanted, pair.data_type, pair.subject)


def overview(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """One line a report, as in the paper's main table: `{model, rows, <column>: percent}`."""
    return [{"model": name, "rows": report.lines[0]["rows"]} | report.overall for name, report in reports.items()]


def write_report(report: Report, folder: Path, name: str) -> dict[str, Path]:
    """Write `<name>.json`, `.csv`, `.tex` and `<name>_rows.jsonl`; the same report gives the same bytes.

    Returns:
        `{json, csv, tex, rows}` -> path.

    Raises:
        ExpStarError: a file cannot be written.
    """
    folder = Path(folder)
    notes = [f"{column}: {text}" for column, text in report.signatures.items()]
    return {"json": write_json(folder / f"{name}.json", report.to_dict()),
            "csv": write_csv(folder / f"{name}.csv", report.lines, DECIMALS["csv"]),
            "tex": write_latex(folder / f"{name}.tex", report.lines, DECIMALS["tex"], notes, rule_after="group"),
            "rows": write_jsonl(folder / f"{name}_rows.jsonl", (_rounded(row) for row in report.rows))}


def _chosen(metrics: Iterable[str], bert_model: str | None) -> list[Callable[[Sequence[str], Sequence[str]], Scored]]:
    names = list(metrics)
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise ExpStarError(f"metrics are {unknown or 'none'}, expected some of {sorted(METRICS)}; correct the parameters")
    made = METRICS | {"bertscore": partial(_bertscore, model=bert_model)}
    return [made[name] for name in names]


def _scored(pairs: Sequence[TextPair], metrics: Iterable[Callable[[Sequence[str], Sequence[str]], Scored]]) -> list[Scored]:
    predictions, references = ([getattr(pair, side) for pair in pairs] for side in ("prediction", "reference"))
    return [metric(predictions, references) for metric in metrics]


def _members(pairs: Sequence[TextPair], groups: Iterable[str]) -> dict[tuple[str, str], list[int]]:
    """Rows of each (group, name), groups in the given order, names in that of the alphabet."""
    found: dict[tuple[str, str], list[int]] = {}
    for group in groups:
        values = [getattr(pair, group) for pair in pairs]
        for name in sorted(set(values) - {""}):
            found[group, name] = [i for i, value in enumerate(values) if value == name]
    return found


def _line(group: str, name: str, rows: Sequence[int], scores: Iterable[Scored]) -> dict[str, Any]:
    line: dict[str, Any] = {"group": group, "name": name, "rows": len(rows)}
    for score in scores:
        line |= score.over(rows)
    return line


def _cider_notes(lines: Iterable[Mapping[str, Any]]) -> list[Problem]:
    alone = [f"{line['group']} {line['name']}" for line in lines if line["rows"] == 1 and "CIDEr" in line]
    return [Problem(file="report", field="CIDEr", found=f"0 for a single row ({', '.join(alone)})", severity="note",
                    expected="several rows in a group (the IDF of one text is zero)", todo="do not read it")] if alone else []


def _rounded(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, DECIMALS["json"]) if isinstance(value, float) else value for key, value in line.items()}

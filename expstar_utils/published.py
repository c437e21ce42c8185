"""The paper's numbers (`data/paper/tables.csv`), and a leaderboard in which its rows and ours stand apart."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expstar_utils.records import ExpStarError

TABLES = Path(__file__).parents[1] / "data" / "paper" / "tables.csv"
PUBLISHED = "ExpInstruct (published)"
GROUPS = {"Ours": "ExpStar as the paper reports it"}  # "Ours" is the authors' word there, not ours


def published(table: str, path: Path = TABLES) -> list[dict[str, str]]:
    """Rows of a published table, `{group, row, metric, value}`, every number with the digits that were printed.

    Raises:
        ExpStarError: the file cannot be read, or has no such table.
    """
    try:
        with open(path, encoding="utf8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["table"] == table]
    except (OSError, KeyError) as error:
        raise ExpStarError(f"{path}: cannot be read as published numbers ({error!r}); take it from the repository") from None
    if not rows:
        raise ExpStarError(f"{path}: found no table {table!r}, expected its rows; take the file from the repository")
    return rows


def own_columns(metrics: Sequence[str], names: Iterable[str]) -> list[str]:
    """Our columns for published metrics: the same names, but for BERTScore's, which says F1 and of which model."""
    known = list(dict.fromkeys(name for name in names if not name.endswith("_interval")))
    return [next((name for name in known if name.startswith(f"{metric}-F1")), metric) for metric in metrics]


def leaderboard(own: Sequence[Mapping[str, Any]], data: str) -> list[dict[str, Any]]:
    """The paper's main table and our own rows, percent, each half by its BLEU-4; they are of different data.

    Args:
        own: `{model, <column>: percent}` each, see `evaluation.overview`. data: what ours were measured on.

    Returns:
        `{data, kind, model, <metric>...}` a row, the published first; a metric that a row lacks is left out.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in published("main_results"):
        row = rows.setdefault((cell["group"], cell["row"]), {"data": PUBLISHED, "model": cell["row"],
                                                              "kind": GROUPS.get(cell["group"], cell["group"])})
        row[cell["metric"]] = float(cell["value"])
    metrics = list(dict.fromkeys(cell["metric"] for cell in published("main_results")))
    ours = []
    for line in own:
        named = dict(zip(metrics, own_columns(metrics, line), strict=True))
        ours.append({"data": data, "kind": "this run", "model": line["model"]}
                    | {metric: line[column] for metric, column in named.items() if column in line})
    return [*sorted(rows.values(), key=_rank), *sorted(ours, key=_rank)]


def _rank(row: Mapping[str, Any]) -> tuple[float, str]:
    return -row.get("BLEU-4", 0.0), row["model"]

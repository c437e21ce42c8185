"""Results beside each other: evaluations of several runs, and mean and spread where they differ in the seed of training alone."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from expstar_utils.ledger import EVALUATION, Row

PREDICTIONS, TRAINING = "5_predictions", "4_"
NUMBER = "metrics."
SHOWN = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "BERTScore-F1", "well_formed", "substance", "principle", "hazard", "gate_auc",
         "verdict_f1")  # as the columns begin


def over_seeds(rows: Sequence[Row], run: str) -> dict[str, dict[str, Any]]:
    """Mean and spread of a run's evaluations over the seeds that its weights, and those of its twins, were trained with.

    Twins are runs whose training, inference and evaluation have the same parameters but for the seed; of several with one seed
    the newest counts. Which training made the weights is told by their sha256.

    Args:
        rows: of the ledger. run: its name there.

    Returns:
        By file of predictions, for those with two seeds or more: `{seeds, mean, sd}`, the latter by metric; sd divides by n - 1.
    """
    groups: dict[Hashable, dict[int, Row]] = defaultdict(dict)
    mine = {}
    for row, (seed, alike) in _traced(rows):
        groups[alike][seed] = row
        if row["run"] == run:
            mine[row["name"]] = alike
    return {name: _spread(groups[alike]) for name, alike in mine.items() if len(groups[alike]) > 1}


def _traced(rows: Sequence[Row]) -> list[tuple[Row, tuple[int, Hashable]]]:
    """Evaluations whose training is known, oldest first: (row, (seed of training, what twins share))."""
    predicted = {(row["run"], row["name"]): row for row in rows if row["stage"] == PREDICTIONS and row["weights_sha256"]}
    trained = {row["weights_sha256"]: row for row in rows if row["stage"].startswith(TRAINING) and row["weights_sha256"]}
    found = []
    for row in sorted(evaluations(rows), key=lambda row: row["when"]):
        prediction = predicted.get((row["run"], row["name"]), {})
        training = trained.get(prediction.get("weights_sha256"))
        if training and training["seed"] is not None:
            alike = tuple(_seedless(each) for each in (row, prediction, training))
            found.append((row, (training["seed"], (row["name"], training["stage"], alike))))
    return found


def evaluations(rows: Sequence[Row]) -> list[Row]:
    """The rows that hold the scores of one file of predictions each."""
    return [row for row in rows if row["stage"] == EVALUATION and row["name"]]


def _seedless(row: Row) -> str:
    return json.dumps({key: value for key, value in json.loads(row["parameters"]).items() if key != "seed"}, sort_keys=True)


def _spread(by_seed: Mapping[int, Row]) -> dict[str, Any]:
    several = [_numbers(row) for row in by_seed.values()]
    values = {key: [row[key] for row in several] for key in several[0] if all(key in row for row in several)}
    return {"seeds": sorted(by_seed), "mean": {key: statistics.fmean(found) for key, found in values.items()},
            "sd": {key: statistics.stdev(found) for key, found in values.items()}}


def _numbers(row: Row) -> dict[str, float]:
    return {key.removeprefix(NUMBER): value for key, value in row.items() if key.startswith(NUMBER)}


def beside(rows: Sequence[Row], run: str) -> list[dict[str, Any]]:
    """A run's evaluations, and those of other runs with the same file's name and profile, as lines of a table.

    Returns:
        `{file, run, seed, <metric>}` by file, this run first; seed is that of training where known, else the evaluation's. Then,
        with several seeds, a line for mean and spread, `{run: "3 seeds", seed: "43, 44, 45", <metric>: "0.71 ± 0.02"}`.
    """
    seeds = {(row["run"], row["name"]): seed for row, (seed, _) in _traced(rows)}
    known, spread, lines = evaluations(rows), over_seeds(rows, run), []
    for own in [row for row in known if row["run"] == run]:
        others = [row for row in known if (row["name"], row["profile"]) == (own["name"], own["profile"]) and row["run"] != run]
        for row in [own, *others]:
            lines.append({"file": own["name"], "run": row["run"], "seed": str(seeds.get((row["run"], row["name"]), row["seed"]))}
                         | {key: f"{value:.3f}" for key, value in _numbers(row).items() if key.startswith(SHOWN)})
        if its := spread.get(own["name"]):
            cells = {key: f"{mean:.3f} ± {its['sd'][key]:.3f}" for key, mean in its["mean"].items() if key.startswith(SHOWN)}
            told = {"run": f"{len(its['seeds'])} seeds", "seed": ", ".join(map(str, its["seeds"]))}
            lines.append({"file": own["name"]} | told | cells)
    return lines

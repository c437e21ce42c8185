"""What figures are drawn from: the published numbers, and what a run left in its metrics and logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expstar_utils import ledger, seeds
from expstar_utils.datasets import Case
from expstar_utils.files import read_json, read_jsonl
from expstar_utils.records import ExpStarError, Record
from expstar_utils.runlog import read_metrics

STAGES = ("2_datasets", "3_index", "4_sft", "4_dpo", "6_metrics")
REWARD_BINS = 20
EVALUATED = ("reports", "curves", "text", "intervals", "gate_curve", "ablations")
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What can be drawn. source: where it comes from, in words. of_run: the run itself has some of it. problems: see `gather`."""

    numbers: Numbers
    source: str
    of_run: bool
    problems: list[str]


def find(run: Path, benchmarks: Path, kept: Path | None = None) -> Found:
    """The numbers of a run; where there is none, those that were kept when the figures were drawn last.

    Args:
        kept: file that holds what `gather` gave then, and `run`, its name.

    Raises:
        ExpStarError: `kept` is needed and not JSON.
    """
    numbers, problems = gather(run, benchmarks)
    if numbers.keys() - {"speed"}:
        return Found({"run": str(run)} | numbers, str(run), True, problems)
    if kept and kept.is_file():
        numbers = read_json(kept) | numbers
        return Found(numbers, f"{kept}, kept from {numbers.get('run', 'an earlier run')}", False, problems)
    return Found(numbers, f"the published numbers alone, for {run} holds none", False, problems)


def gather(run: Path, benchmarks: Path) -> tuple[Numbers, list[str]]:
    """Everything that can be drawn of a run.

    Returns:
        (numbers, problems). Keys, each there only where its stage is: `subjects` (clips by subject), `steps`, `seconds`
        (`{edges, counts}`), `statistics`, `recall`, `chance`, `training` (`{stage: [[step, loss]]}`), `dpo`
        (`[{step, loss, accuracy, margin}]`), `rewards` (`{component: {n, mean, counts}}`), those of `EVALUATED`, `seeds`
        (`seeds.over_seeds`), `code` (commit by stage), `speed`.
        Problems: a sentence for each file that is there and cannot be used.
    """
    numbers: Numbers = {}
    problems: list[str] = []
    readers: tuple[Callable[[Path], Numbers], ...] = (_cases, _statistics, _index, _training, _dpo, _rewards, _evaluated, _seeds,
                                                         _code)
    for read, folder in [*((reader, Path(run)) for reader in readers), (_speed, Path(benchmarks))]:
        try:
            numbers |= {key: value for key, value in read(folder).items() if value}
        except ExpStarError as error:
            problems.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{folder}: {read.__name__.strip('_')} have another form than today's notebooks give them "
                            f"({type(error).__name__}: {error}); run their notebook again")
    return numbers, problems


def _cases(run: Path) -> Numbers:
    path = run / "2_datasets" / "cases.jsonl"
    cases = [(c.subject, c.experiment, c.duration_s) for c in read_jsonl(path, Case)] if path.is_file() else []
    steps = Counter(Counter(experiment for _, experiment, _ in cases).values())
    seconds = [duration for _, _, duration in cases if duration is not None]
    width = 1 if max(seconds, default=0) < 20 else 5
    return {"subjects": dict(sorted(Counter(subject for subject, _, _ in cases).items())),
            "steps": histogram(list(steps.elements()), 1 if max(steps, default=0) < 12 else 2),
            "seconds": histogram(seconds, width)}


def histogram(values: Iterable[float], width: int) -> dict[str, list[int]]:
    """Counts in bins [edge, next edge) of a width, from the first value's to the last one's."""
    values = list(values)
    if not values:
        return {}
    first, last = (int(pick(values) // width) for pick in (min, max))
    edges = [width * n for n in range(first, last + 2)]
    return {"edges": edges, "counts": np.histogram(values, edges)[0].tolist()}


def _statistics(run: Path) -> Numbers:
    path = run / "2_datasets" / "metrics.json"
    return {"statistics": read_metrics(path).get("statistics")} if path.is_file() else {}


def _index(run: Path) -> Numbers:
    path = run / "3_index" / "metrics.json"
    return {key: read_metrics(path).get(key) for key in ("recall", "chance")} if path.is_file() else {}


def _training(run: Path) -> Numbers:
    top = run / "4_sft"
    known = read_metrics(top / "metrics.json") if (top / "metrics.json").is_file() else {}
    chosen = "choices_final_loss" in known or (top / "rows" / "log.jsonl").is_file()
    folders = {"captions": top / "captions", "rows": top / "rows"} | {"choices" if chosen else "rows": top}
    return {"training": {name: [[row["step"], round(row["loss"], 6)] for row in rows]
                         for name, folder in folders.items() if (rows := _log(folder / "log.jsonl", "loss"))}}


def _log(path: Path, *needed: str) -> list[dict[str, Any]]:
    rows = (row.to_dict() for row in read_jsonl(path, Record)) if path.is_file() else ()
    return [row for row in rows if {"step", *needed} <= row.keys()]


def _dpo(run: Path) -> Numbers:
    columns = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
    rows = _log(run / "4_dpo" / "log.jsonl", *columns)
    return {"dpo": [{"step": row["step"]} | {name: round(row[key], 6) for key, name in columns.items()} for row in rows]}


def _rewards(run: Path) -> Numbers:
    path = run / "4_dpo" / "rewards.jsonl"
    values: dict[str, list[float]] = {}
    for row in (row.to_dict() for row in read_jsonl(path, Record)) if path.is_file() else ():
        for name, value in {"reward": row["value"], **row["components"]}.items():
            values.setdefault(name, []).append(value)
    return {"rewards": {name: {"n": len(found), "mean": round(float(np.mean(found)), 4),
                               "counts": np.histogram(np.clip(found, 0, 1), REWARD_BINS, (0, 1))[0].tolist()}
                        for name, found in values.items()}}


def _evaluated(run: Path) -> Numbers:
    path = run / "6_metrics" / "metrics.json"
    return {key: read_metrics(path).get(key) for key in EVALUATED} if path.is_file() else {}


def _seeds(run: Path) -> Numbers:
    rows, _ = ledger.gather(ledger.home(run))
    return {"seeds": seeds.over_seeds(rows, ledger.name_of(run))}


def _code(run: Path) -> Numbers:
    paths = [path for path in sorted(run.glob("*/metrics.json")) if path.parent.name in STAGES]
    return {"code": {path.parent.name: read_json(path)["git_sha"] for path in paths}}


def _speed(folder: Path) -> Numbers:
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    return {"speed": [row for row in found if "ratio" in row]}

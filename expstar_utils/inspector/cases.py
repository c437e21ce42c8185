"""What is known of each case: the runs' predictions beside its reference, found by filters and search."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from expstar_utils.datasets import Case
from expstar_utils.files import read_jsonl
from expstar_utils.inspector.marks import FLAGS, SECTIONS, Mark, mark_of
from expstar_utils.metrics import load_truth
from expstar_utils.prompts import parse
from expstar_utils.records import ExpStarError, Prediction, Record
from expstar_utils.sharing import whole_files

R = TypeVar("R", bound=Record)
ORDERS = {"given": "in order", "agreement": "least agreement first", "confidence": "least sure first"}
NO_CLIP = ""  # of a case that only its prediction tells of


@dataclass(frozen=True, slots=True)
class Entry:
    """What lists and filters need of a case. text: what is searched, in lower case; the reference ends it."""

    id: str
    experiment: str
    subject: str
    title: str
    step: int
    text: str


class Rows(Generic[R]):
    """Rows of a JSONL file by id: looked through once, read from the disk when asked for."""

    def __init__(self, path: Path, kind: type[R]):
        self.path, self.kind = Path(path), kind
        self._starts: dict[str, int] = {}

    def scan(self) -> Iterator[R]:
        """Every row, in order; only where it stands is kept.

        Raises:
            ExpStarError: see `files.read_jsonl`.
        """
        for row, start in zip(read_jsonl(self.path, self.kind), _line_starts(self.path)):
            self._starts[row.id] = start
            yield row

    def __getitem__(self, case_id: str) -> R:
        """A row as it stands on the disk now.

        Raises:
            ExpStarError: the file was changed since it was looked through.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._starts[case_id])
                row = self.kind.model_validate_json(file.readline().decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError, ValidationError):
            row = None
        if row is None or row.id != case_id:
            raise ExpStarError(f"{self.path}: found something else where {case_id} stood, expected the file as it was indexed; "
                               "load the page again")
        return row


def _line_starts(path: Path) -> Iterator[int]:
    """Offsets in bytes of the lines of a file that hold something."""
    at = 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield at
            at += len(line)


@dataclass
class Run:
    """One file of predictions.

    label: how it is named on the page. marks: by case id. unlike: ids under which it holds another reference than the cases do.
    """

    label: str
    rows: Rows[Prediction]
    marks: dict[str, Mark] = field(default_factory=dict)
    unlike: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class View:
    """Everything about one case.

    predictions: by run label. facts: what was to be said, as truth rows have it. gold: ids of the passages that help; None where
    nothing is known. notes: what is odd about it, a sentence each.
    """

    case: Case
    predictions: dict[str, Prediction]
    facts: list[dict[str, Any]] = field(default_factory=list)
    gold: set[str] | None = None
    notes: tuple[str, ...] = ()


class Casebook:
    """Cases of runs, indexed once; texts are read when a case is looked at.

    Args:
        run_dirs: folders of runs; where ids are the same, the first one's cases stand for all. Labels of the first are the names
            of its prediction files, those of the others begin with the name of their folder.
        truth: truth rows of Mini; None leaves facts out.

    Raises:
        ExpStarError: there is nothing to look at. Everything else that is missing or bad stands in `problems`, a sentence each.
    """

    def __init__(self, run_dirs: Sequence[Path], truth: Path | None = None):
        self.entries: dict[str, Entry] = {}
        self.runs: dict[str, Run] = {}
        self.problems: list[str] = []
        self._cases: dict[str, Rows[Case]] = {}
        self._truth = self._read_truth(truth)
        for number, folder in enumerate(map(Path, run_dirs)):
            self._read_cases(folder)
            self._read_predictions(folder, f"{folder.name}/" if number else "")
        if not self.entries:
            raise ExpStarError(f"{', '.join(map(str, run_dirs))}: found neither cases nor predictions, expected a run; run "
                               "notebooks 02 and 05 first, or name another run_dir")

    def _read_truth(self, path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
        try:
            return load_truth(path) if path else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.problems.append(f"{path}: cannot be read as truth rows ({type(error).__name__}); no facts are checked")
            return {}

    def _read_cases(self, folder: Path) -> None:
        rows = Rows(folder / "2_datasets" / "cases.jsonl", Case)
        try:
            for case in rows.scan():
                if case.id not in self._cases:
                    self.entries[case.id], self._cases[case.id] = entry_of(case), rows
        except ExpStarError as error:
            self.problems.append(f"{error}; references are taken from the predictions, and what has no case shows no clip")

    def _read_predictions(self, folder: Path, prefix: str) -> None:
        paths = sorted(whole_files(folder / "5_predictions"), key=lambda path: path.stem)
        if not paths:
            self.problems.append(f"{folder / '5_predictions'}: found no predictions; run notebook 05")
        for path in paths:
            label = f"{prefix}{path.stem}"
            run = Run(label if label not in self.runs else (folder / path.stem).as_posix(), Rows(path, Prediction))
            try:
                for prediction in run.rows.scan():
                    self._index(run, prediction)
            except ExpStarError as error:
                self.problems.append(f"{error}; what stands before it is shown")
            if run.marks:
                self.runs[run.label] = run
            if run.unlike:
                self.problems.append(f"{run.label}: {len(run.unlike)} predictions hold another reference than the cases do; was "
                                     "it run on another data set?")

    def _index(self, run: Run, prediction: Prediction) -> None:
        entry = self.entries.get(prediction.id) or entry_of(case_of(prediction))
        facts = self._truth.get((entry.experiment, entry.step), {}).get("facts", [])
        try:
            run.marks[entry.id] = mark_of(prediction, facts)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            self.problems.append(f"{run.rows.path}: evaluation_data of {entry.id} cannot be used ({error}); it is left out")
            return
        self.entries[entry.id] = entry
        if not entry.text.endswith(prediction.labels.strip().casefold()):
            run.unlike.add(entry.id)

    def find(self, labels: Iterable[str] = (), *, subject: str = "", experiment: str = "", step: int | None = None,
             search: str = "", flags: Iterable[str] = (), order: str = "given") -> list[str]:
        """Ids of the cases that fit everything asked for.

        Args:
            labels: runs; cases that one of them predicted. None of them: all cases.
            search: words that all stand in the case or in what one of the runs wrote of it, in any case of letters.
            flags: keys of `FLAGS`; each holds for one of the runs. order: key of `ORDERS`.
        """
        runs, words, wanted = [self.runs[label] for label in labels], search.casefold().split(), set(flags)
        def fits(entry: Entry) -> bool:
            """Whether a case has the words, and for each flag a run that it holds for."""
            marks = [run.marks[entry.id] for run in runs if entry.id in run.marks]
            texts = [entry.text, *(mark.text for mark in marks)]
            return (bool(marks) or not runs) and wanted <= {flag for mark in marks for flag in mark.flags} and all(
                any(word in text for text in texts) for word in words)
        def least(case_id: str) -> float:
            """Least value of `order` over the chosen runs."""
            return min((getattr(run.marks[case_id], order) for run in runs if case_id in run.marks), default=math.inf)
        found = [e.id for e in self.entries.values() if subject in ("", e.subject) and experiment in ("", e.experiment)
                 and step in (None, e.step) and fits(e)]
        return found if order == "given" else sorted(found, key=least)

    def counts(self, case_ids: Iterable[str], labels: Iterable[str]) -> Counter[str]:
        """How many of some cases have each flag, in one of the runs at least."""
        marks = [self.runs[label].marks for label in labels]
        return Counter(flag for i in case_ids for flag in {flag for of in marks if i in of for flag in of[i].flags})

    def view(self, case_id: str, labels: Iterable[str] = ()) -> View:
        """Everything about a case and what some runs wrote of it, read from the disk.

        Raises:
            ExpStarError: a file was changed since it was indexed.
        """
        entry, chosen = self.entries[case_id], [self.runs[label] for label in labels]
        runs = [run for run in chosen if case_id in run.marks]
        if case_id in self._cases:
            case = self._cases[case_id][case_id]
        else:
            case = case_of(next(run.rows[case_id] for run in self.runs.values() if case_id in run.marks))
        truth = self._truth.get((entry.experiment, entry.step))
        notes = [f"{run.label} was given another reference for this case" for run in runs if case_id in run.unlike]
        if without := [run.label for run in chosen if case_id not in run.marks]:
            notes.append(f"Not predicted by {', '.join(without)}")
        return View(case, {run.label: run.rows[case_id] for run in runs}, truth["facts"] if truth else [],
                    set(truth["gold"]) if truth else None, tuple(notes))

    def summary(self) -> dict[str, dict[str, float]]:
        """`{run: {cases, agreement, <flag>}}`: number of cases, mean agreement, number of cases with each flag."""
        marks = {label: list(run.marks.values()) for label, run in self.runs.items()}
        return {label: {"cases": len(of), "agreement": sum(m.agreement for m in of) / len(of)}
                | {flag: sum(flag in m.flags for m in of) for flag in FLAGS} for label, of in marks.items()}


def entry_of(case: Case) -> Entry:
    """What is kept of a case."""
    text = "\n".join((case.id, case.title, case.experiment, case.summary, case.reference())).casefold().rstrip()
    return Entry(case.id, case.experiment, case.subject, case.title, case.step_number, text)


def case_of(prediction: Prediction) -> Case:
    """What a prediction alone tells of its case: the reference; no clip, no title."""
    subject, reference = prediction.id.rpartition("_")[0] or prediction.id, parse(prediction.labels).commentary
    notes = {kind: list(getattr(reference, kind)) for kind in SECTIONS}
    return Case(id=prediction.id, experiment=subject, subject=subject, title="", step_number=0, clip=NO_CLIP, summary="", **notes)

"""A data set as a whole: the side of each experiment, what stands on two sides, what comes twice, and its numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from expstar_utils.datasets import Case
from expstar_utils.files import guarded, inside
from expstar_utils.passages import length
from expstar_utils.records import DISCIPLINES, Problem, Sample

DISCIPLINE = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}


def side_of(experiment: str, seed: int = 42, test: float = 1 / 11, val: float = 1 / 22) -> str:
    """"train", "val" or "test", from the experiment's name alone: it stays where it is when others come or go.

    The published split is 10:1 by experiment with seed 42; its list was not released. Here a hash decides, so the shares hold on
    average, and a small data set may have an empty side.

    Args:
        test: share of all experiments, 0-1. val: share of all experiments, taken from those that would be trained on.
    """
    point = int.from_bytes(hashlib.sha256(f"{seed}\0{experiment}".encode()).digest()[:8]) / 2**64
    return "test" if point < test else "val" if point < test + val else "train"


def video_of(case: Case) -> str:
    """The file that a case's clip lies in."""
    return case.clip if isinstance(case.clip, str) else case.clip.video


def leaks(cases: Iterable[Case], root: Path | None = None) -> list[Problem]:
    """Experiments and videos that stand on two sides: what is tested would have been seen.

    Args:
        root: folder below which the clips lie; given, copies of a video under another name are found too.
    """
    placed = [(case.split, case.experiment, video_of(case), case.id) for case in cases]
    problems = _two_sided("experiment", [(split, experiment, case_id) for split, experiment, _, case_id in placed])
    problems += _two_sided("video", [(split, video, case_id) for split, _, video, case_id in placed])
    if root is not None:
        digests = _twins({video for _, _, video, _ in placed}, root)
        same = [(split, digests[video], video) for split, _, video, _ in placed if video in digests]
        problems += _two_sided("content of the video", same)
    return problems


def _two_sided(kind: str, placed: Sequence[tuple[str, str, str]]) -> list[Problem]:
    """A problem for every name that has cases on several sides.

    Args:
        placed: (side, the name that must stand on one side, what to call the case).
    """
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for side, name, where in placed:
        sides[name].setdefault(side, where)
    return [Problem(file=name, field=kind, found=" and ".join(f"{side} ({where})" for side, where in found.items()),
                    expected="one side", todo="put all of it on one side") for name, found in sides.items() if len(found) > 1]


def _twins(videos: Iterable[str], root: Path) -> dict[str, str]:
    """Video -> sha256 of its content, for those of equal size with another; files that are not there are left out."""
    by_size = defaultdict(list)
    for video in sorted(videos):
        path = inside(root, video)
        if path.is_file():
            by_size[path.stat().st_size].append((video, path))
    return {video: _digest(path) for same in by_size.values() if len(same) > 1 for video, path in same}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def merge(parts: Mapping[str, Sequence[Sample]]) -> tuple[list[Sample], list[Problem]]:
    """Rows of several data sets one after another, each row once.

    Args:
        parts: rows by the name of their file.

    Returns:
        (rows, problems): what came twice was left out; ids that stand for two clips are named and kept.
    """
    rows: dict[str, tuple[str, Sample]] = {}
    clips: dict[str, tuple[str, str]] = {}
    problems = []
    for name, row in ((name, row) for name, samples in parts.items() for row in samples):
        content = {key: value for key, value in row.to_dict().items() if key != "id"}
        first, same = rows.setdefault(repr(content), (name, row))
        if same is not row:
            problems.append(Problem(file=name, field=row.id, found=f"the row {same.id} of {first} again",
                                    expected="each row once", todo="nothing: it was left out"))
            continue
        first, clip = clips.setdefault(row.id, (name, repr(content["videos"])))
        if clip != repr(content["videos"]):
            problems.append(Problem(file=name, field=row.id, found=f"the id of another clip in {first}",
                                    expected="an id of its own", todo="build one of them again with another `first_id`"))
    return [row for _, row in rows.values()], problems


def table_of(cases: Iterable[Case]) -> pd.DataFrame:
    """One row a clip: discipline, subject, experiment, title, split, duration_s, words of each section, whether notes are there.

    answer: a digest of the notes, by which equal ones are told; empty where there are none.
    """
    return pd.DataFrame([{
        "discipline": DISCIPLINE.get(case.subject, "other"), "subject": case.subject, "experiment": case.experiment,
        "title": case.title, "split": case.split, "duration_s": case.duration_s, "step_words": length([case.summary]),
        "narration_words": length(case.narration), "principle_words": length(case.principle),
        "safety_words": length(case.safety), "has_principle": bool(case.principle), "has_safety": bool(case.safety),
        "answer": hashlib.sha256(case.notes().encode()).hexdigest()[:16] if case.needs_retrieval else "",
    } for case in cases])


def statistics(table: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """The numbers by which the paper describes its data set, for each value of a column of `table_of`, and for all of it.

    Returns:
        Columns: experiments, clips, hours, clip_s (mean), steps (mean of an experiment), step_words, narration_words (means),
        principle_words, safety_words (means where there are such), principle_rate, safety_rate (0-1).
    """
    # notebook 02 writes it as CSV: names are guarded
    groups = [] if by is None else list(table.groupby(by))
    return pd.DataFrame({guarded(str(name)): _numbers(rows) for name, rows in [*groups, ("all", table)]}).T


def _numbers(rows: pd.DataFrame) -> dict[str, float]:
    experiments = rows["experiment"].nunique()
    return {
        "experiments": experiments, "clips": len(rows),
        "hours": rows["duration_s"].sum() / 3600, "clip_s": rows["duration_s"].mean(),
        "steps": len(rows) / max(experiments, 1), "step_words": rows["step_words"].mean(),
        "narration_words": rows["narration_words"].mean(),
        "principle_words": rows.loc[rows["has_principle"], "principle_words"].mean(),
        "safety_words": rows.loc[rows["has_safety"], "safety_words"].mean(),
        "principle_rate": rows["has_principle"].mean(), "safety_rate": rows["has_safety"].mean()}

"""From pairs to cases (what is known of a step) and from cases to training rows: baseline, ExpStar, queries."""

from __future__ import annotations

import random
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from expstar_utils import prompts as tags
from expstar_utils.files import inside, read_record
from expstar_utils.prompts import Prompts, section
from expstar_utils.records import Message, Name, Pair, Passage, Record, RetrievalResult, Sample, VirtualClip, parse_time

Language = Literal["en", "zh"]
HistoryOf = Literal["summary", "narration"]


class Case(Record):
    """One step of an experiment, in one language: everything that a row or a prompt is made of.

    id: "<unit>_<n>". experiment: "<subject>/<unit>/<stem>" or "<subject>/<stem>", shared by its steps. clip: path or virtual
    clip below the data root. narration, principle, safety: the reference, a note a line.
    """

    id: str
    experiment: str
    subject: str
    title: str
    step_number: int
    clip: str | VirtualClip
    summary: str
    narration: list[str]
    principle: list[str] = []
    safety: list[str] = []
    split: Name = "train"
    duration_s: float | None = None

    @property
    def needs_retrieval(self) -> bool:
        return bool(self.principle or self.safety)

    @property
    def query(self) -> str:
        """Text query: title and narration."""
        return f"{self.title}. {' '.join(self.narration)}"

    def notes(self) -> str:
        """Principle and safety sections as tagged text."""
        return section(tags.PRINCIPLE, self.principle) + section(tags.SAFETY, self.safety)

    def reference(self) -> str:
        """The whole reference as tagged text, without control strings (the published `labels`)."""
        return section(tags.NARRATION, self.narration) + self.notes()


def case_from_pair(pair: Pair, experiment: str, case_id: str, language: Language = "en") -> Case:
    """A case from a published-format pair. Where the pair has no cut clip of its own, the clip is virtual."""
    spoken = "text_en" if language == "en" else "text"
    def notes(kind: str) -> list[str]:
        texts = [getattr(a, f"{kind}_{language}") for a in pair.annotations]
        return _lines(text for text in texts if text)
    virtual = pair.clip_video_path == pair.original_video
    clip = VirtualClip(video=pair.original_video, start=parse_time(pair.clip_start), end=parse_time(pair.clip_end))
    return Case.model_validate({
        "id": case_id, "experiment": experiment, "subject": pair.subject, "title": getattr(pair, f"title_{language}"),
        "step_number": pair.step_number, "clip": clip.model_dump() if virtual else pair.clip_video_path,
        "summary": getattr(pair, f"step_{language}"), "narration": _lines(getattr(a, spoken) for a in pair.annotations),
        "principle": notes("principle"), "safety": notes("safety"),
        "duration_s": round(clip.end - clip.start, 3)})


def _lines(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in text.splitlines() if line.strip()]


def _natural(path: Path) -> list:
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.as_posix())]


def load_cases(pairs_dir: Path, language: Language = "en", first_id: int = 1, path_prefix: str = "") -> list[Case]:
    """See `read_cases`."""
    return list(read_cases(pairs_dir, language, first_id, path_prefix))


def read_cases(pairs_dir: Path, language: Language = "en", first_id: int = 1, path_prefix: str = "") -> Iterator[Case]:
    """Cases of every pair below `pairs_dir`, `[<subject>/[<unit>/]]<experiment>/<experiment>_step_<i>.json`, in natural order.

    Args:
        first_id: number of the first case of each unit; where there are no units, of each subject.
        path_prefix: put before the clips' paths.
    """
    numbers: dict[str, int] = {}
    for path in sorted(Path(pairs_dir).rglob("*_step_*.json"), key=_natural):
        pair, experiment = read_record(inside(pairs_dir, path.relative_to(pairs_dir)), Pair), path.parent.relative_to(pairs_dir)
        unit = experiment.parent.name if len(experiment.parts) > 2 else pair.subject
        number = numbers.setdefault(unit, first_id)
        numbers[unit] += 1
        pair.original_video, pair.clip_video_path = path_prefix + pair.original_video, path_prefix + pair.clip_video_path
        yield case_from_pair(pair, experiment.as_posix(), f"{unit}_{number}", language)


def by_experiment(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Cases grouped by experiment, in the order of the experiments' names, steps in order."""
    return in_turn(sorted(cases, key=lambda c: c.experiment))


def in_turn(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Cases that come experiment by experiment, as `read_cases` gives them, grouped; steps in order. Holds one experiment."""
    for _, steps in groupby(cases, key=lambda c: c.experiment):
        yield sorted(steps, key=lambda c: c.step_number)


def previous_texts(steps: Sequence[Case], index: int, history: HistoryOf) -> list[str]:
    """Reference history of a step: one text for every step before it."""
    return [s.summary if history == "summary" else " ".join(s.narration) for s in steps[:index]]


def baseline_sample(case: Case, previous: Sequence[str], prompts: Prompts) -> Sample:
    """Published baseline row: system, user, assistant."""
    messages = [*prompts.prefix(case.subject, case.title, previous), Message(role="assistant", content=case.reference())]
    return sample_of(case, messages)


def preference_sample(case: Case, previous: Sequence[str], prompts: Prompts, rejected: str) -> Sample:
    """Published preference row: the baseline row, whose answer is the chosen one, and a `rejected` answer."""
    row = baseline_sample(case, previous, prompts).to_dict()
    return Sample.model_validate({key: row[key] for key in ("id", "messages", "videos")} | {"rejected_response": rejected})


def opening(case: Case, lookup: bool | None = None) -> str:
    """What an ExpStar row says first: narration, and whether to look something up (None: as the case needs it)."""
    asks = case.needs_retrieval if lookup is None else lookup
    return section(tags.NARRATION, case.narration) + (tags.RETRIEVAL if asks else tags.NO_RETRIEVAL)


def expstar_sample(case: Case, previous: Sequence[str], prompts: Prompts, passages: Sequence[Passage] | None = None,
                   relevant: bool = True, notes: bool = True) -> Sample:
    """Published ExpStar row: 3 messages ending in [No Retrieval], or 5 with passages and their verdict.

    Args:
        passages: shown in one turn, all relevant or all irrelevant; None shows the placeholder.
        relevant: the verdict that the row teaches. notes: whether the row goes on with principle and safety.
    """
    messages = [*prompts.prefix(case.subject, case.title, previous), Message(role="assistant", content=opening(case))]
    if case.needs_retrieval:
        texts = [prompts.placeholder_passage] if passages is None else [p.text for p in passages]
        verdict = tags.RELEVANT if relevant else tags.IRRELEVANT
        answer = f"{verdict}\n{case.notes()}".rstrip("\n") if notes else f"{verdict}\n"
        messages += [prompts.passages(texts), Message(role="assistant", content=answer)]
    return sample_of(case, messages)


def query_row(case: Case) -> dict[str, Any]:
    """What retrieval is asked for a case: `{id, query, video_path}`."""
    return {"id": case.id, "query": case.query, "video_path": case.clip if isinstance(case.clip, str) else case.clip.to_dict()}


def sample_of(case: Case, messages: list[Message]) -> Sample:
    """A row of the case's clip with these messages."""
    clip = case.clip if isinstance(case.clip, str) else case.clip.to_dict()
    return Sample.model_validate({"messages": [m.to_dict() for m in messages], "videos": [clip], "id": case.id})


def filled_samples(case: Case, previous: Sequence[str], prompts: Prompts, found: RetrievalResult | None, *,
                   max_relevant: int | None = None, max_irrelevant: int | None = None, joint: bool = False,
                   irrelevant_notes: bool = True) -> list[Sample]:
    """ExpStar rows of a case with the passages that retrieval found: one row a passage, best first.

    Args:
        found: graded documents; None leaves the placeholder row, no documents give one row that says so.
        max_relevant, max_irrelevant: at most so many rows of each; None takes all (published), `max_irrelevant=1` is
            the published `less`.
        joint: with two or more relevant passages, the first row shows the best two together.
        irrelevant_notes: whether rows with an irrelevant passage go on after their verdict (published); the row of a step for
            which nothing was found always does.
    """
    if not case.needs_retrieval or found is None:
        return [expstar_sample(case, previous, prompts)]
    if not found.documents:
        return [expstar_sample(case, previous, prompts, [], relevant=False)]
    good = [d for d in found.documents if d.helps]
    bad = [d for d in found.documents if not d.helps]
    shown = [[d] for d in good]
    if joint and len(good) > 1:
        shown = [good[:2], *shown]
    rows = [expstar_sample(case, previous, prompts, group, relevant=True) for group in shown[:max_relevant]]
    return rows + [expstar_sample(case, previous, prompts, [d], relevant=False, notes=irrelevant_notes)
                   for d in bad[:max_irrelevant]]


def training_samples(steps: Sequence[Case], prompts: Prompts, found: dict[str, RetrievalResult], history: HistoryOf, *,
                     history_dropout: float = 0.0, recalling: Container[str] = (), closed_book: float = 0.0, seed: int = 0,
                     **limits: Any) -> list[Sample]:
    """All ExpStar rows of one experiment.

    With the earlier narrations before it, a model can guess the next one without looking; both options work against that.

    Args:
        found: graded documents by case id. limits: see `filled_samples`.
        history_dropout: chance that a step's rows leave out the earlier steps; drawn by `seed` and case id.
        recalling: ids of steps that say again what earlier ones showed; these keep their earlier steps.
        closed_book: chance of one more row of a step, without earlier steps; where knowledge is needed it says that nothing
            was found.
    """
    rows = []
    for i, case in enumerate(steps):
        rng = random.Random(f"{seed} {case.id}")
        dropped = rng.random() < history_dropout and case.id not in recalling
        before = [] if dropped else previous_texts(steps, i, history)
        rows += filled_samples(case, before, prompts, found.get(case.id), **limits)
        if rng.random() < closed_book:
            rows.append(expstar_sample(case, [], prompts, [], relevant=False))
    return rows

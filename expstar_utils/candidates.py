"""Candidates for preference training: several sampled commentaries of every step, and the pairs of a good and a bad one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case, HistoryOf, by_experiment, previous_texts, sample_of
from expstar_utils.files import append_jsonl, read_jsonl, write_jsonl
from expstar_utils.inference import Commentator, Step
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.prompts import Prompts
from expstar_utils.records import ExpStarError, Message, Passage, Prediction, Record, Sample
from expstar_utils.rewards import Reward
from expstar_utils.sizes import FrameSize


class Candidate(Prediction):
    """One sampled commentary of a step. number: which of the step's."""

    number: int


class Scored(Record):
    """What a candidate earned, as it is kept; see `rewards.Reward`."""

    id: str
    number: int
    value: float
    components: dict[str, float]
    contradiction: str = ""


def sample_candidates(commentator: Commentator, cases: Sequence[Case], root: Path, out: Path, *, count: int, history: HistoryOf,
                      fps: float, max_frames: int, frame_size: FrameSize, group: int = 4) -> list[Candidate]:
    """`count` commentaries of every case, appended to `out` as they come; steps that have all of theirs are not done again.

    Earlier steps are the references', so that all candidates of a step answer one prompt, which is read once.

    Args:
        commentator: its settings say how freely to sample, from which seed. cases: whole experiments.
        group: steps side by side. What is drawn hangs on the seed and the steps of the group, whether a run was killed or not.

    Raises:
        ExpStarError: `out` holds candidates sampled with other settings, or of other steps.
    """
    steps = [(case, previous_texts(of_one, i, history)) for of_one in by_experiment(cases) for i, case in enumerate(of_one)]
    wanted = {"count": count, "group": group, **dataclasses.asdict(commentator.settings)}
    done = _kept(out, [case.id for case, _ in steps], wanted)
    settings = commentator.settings
    with tqdm(total=len(steps), initial=len(done) // count, desc="candidates", unit="step") as bar:
        for at in range(len(done) // count, len(steps), group):
            part = steps[at:at + group]
            digest = hashlib.sha256(f"{settings.seed} {[case.id for case, _ in part]}".encode()).digest()
            rows = []
            for case, previous in part:
                step = Step(case, previous, clip_frames(case.clip, root, fps=fps, max_frames=max_frames, size_px=frame_size))
                step.state = commentator.read(step)
                rows += [dataclasses.replace(step, passages=[], verdicts=[], relevance=[], chosen=[]) for _ in range(count)]
            commentator.settings = dataclasses.replace(settings, seed=int.from_bytes(digest[:4], "big"))
            try:
                predictions = commentator.comment(rows)
            finally:
                commentator.settings = settings
            for i, prediction in enumerate(predictions):
                data = prediction.evaluation_data | {"settings": wanted}
                candidate = Candidate.model_validate(prediction.to_dict() | {"evaluation_data": data, "number": i % count})
                append_jsonl(out, candidate)
                done.append(candidate)
            bar.update(len(part))
    return done


def _kept(out: Path, ids: Sequence[str], wanted: dict[str, Any]) -> list[Candidate]:
    """Candidates of whole groups that are there already; a group that a kill cut short is taken out of the file."""
    found = list(read_jsonl(out, Candidate)) if out.is_file() else []
    whole = len(found) // wanted["count"]
    if whole < len(ids):
        whole -= whole % wanted["group"]
    kept = found[:whole * wanted["count"]]
    if len(kept) < len(found):
        write_jsonl(out, kept)
    for i, candidate in enumerate(kept):
        if candidate.id != ids[i // wanted["count"]]:
            raise ExpStarError(f"{out}: holds candidates of {candidate.id}, expected {ids[i // wanted['count']]}; give another "
                               "run_dir, or remove the file to start again")
        settings = candidate.evaluation_data["settings"]
        if wrong := [key for key, value in wanted.items() if settings.get(key) != value]:
            raise ExpStarError(f"{out}: holds candidates sampled with {wrong[0]}={settings.get(wrong[0])!r}, expected "
                               f"{wrong[0]}={wanted[wrong[0]]!r}; give another run_dir, or remove the file to start again")
    return kept


def cards_of(passages: Sequence[Passage]) -> list[str]:
    """Texts of the hazard cards among a step's relevant passages."""
    return [p.text for p in passages if is_hazard_card(p) and p.helps]


def dialogue(candidate: Candidate, prompts: Prompts) -> list[Message]:
    """The turns behind the prompt as they were said: decision, passages, verdict and notes."""
    data = candidate.evaluation_data
    turns = [Message(role="assistant", content=data["rounds"][0]["content"])]
    for answer in data["rounds"][1:]:
        shown = prompts.passage_separator.join(data["relevant_passages"]) or prompts.no_passage
        turns += [Message(role="user", content=shown), Message(role="assistant", content=answer["content"])]
    return turns


def preference_samples(cases: Sequence[Case], candidates: Sequence[Candidate], scored: Sequence[Reward], prompts: Prompts,
                       history: HistoryOf, *, positive: float, margin: float, pairs: int,
                       rows: Literal["dialogue", "response"] = "dialogue") -> list[Sample]:
    """Preference rows: of each step's candidates every good one beside every bad one, the widest apart first.

    Args:
        scored: reward of each candidate. positive: reward from which on one is good. margin: by which a good one is better.
        pairs: at most so many a step. rows: "dialogue" keeps all turns; "response" the tagged text alone, as published.
    """
    of_step = defaultdict(dict)
    for candidate, reward in zip(candidates, scored, strict=True):  # a text that was sampled twice counts once
        of_step[candidate.id].setdefault(candidate.full_dialogue, (candidate, reward))
    made = []
    for steps in by_experiment(cases):
        for i, case in enumerate(steps):
            found = list(of_step[case.id].values())
            good = [x for x in found if x[1].value >= positive]
            bad = [x for x in found if x[1].value < positive]
            apart = [(a[1].value - b[1].value, a[0], b[0]) for a in good for b in bad if a[1].value - b[1].value >= margin]
            apart.sort(key=lambda pair: (-pair[0], pair[1].number, pair[2].number))
            prefix = prompts.prefix(case.subject, case.title, previous_texts(steps, i, history))
            made += [_row(case, prefix, chosen, rejected, prompts, rows) for _, chosen, rejected in apart[:pairs]]
    return made


def _row(case: Case, prefix: list[Message], chosen: Candidate, rejected: Candidate, prompts: Prompts, rows: str) -> Sample:
    if rows == "response":
        sample = sample_of(case, [*prefix, Message(role="assistant", content=chosen.response)])
        return sample.model_copy(update={"rejected_response": rejected.response})
    sample = sample_of(case, [*prefix, *dialogue(chosen, prompts)])
    return sample.model_copy(update={"rejected_response": rejected.response, "rejected_messages": dialogue(rejected, prompts)})

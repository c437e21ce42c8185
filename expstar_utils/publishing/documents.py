"""A video's whole commentary as one document: from predictions, from its JSON, beside its like in another language."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from expstar_utils.datasets import Case
from expstar_utils.files import read_record
from expstar_utils.prompts import parse
from expstar_utils.records import ExpStarError, Prediction, Record, VirtualClip, format_time

KINDS = ("narration", "principle", "safety")  # as they are read
LONGEST_S = 1e6  # of a video
TOLERANCE_S = 0.01  # by which two documents' times may differ


class Source(Record):
    """A passage that was judged, and whether the step was written from it."""

    id: str
    title: str
    relevance: float = Field(ge=0, le=1)
    used: bool


class Step(Record):
    """One step: seconds from the start of the video, notes by kind, passages."""

    step: int
    start_s: float = Field(ge=0, le=LONGEST_S)
    end_s: float = Field(ge=0, le=LONGEST_S)
    narration: list[str] = []
    principle: list[str] = []
    safety: list[str] = []
    passages: list[Source] = []


class Document(Record):
    """What `commentary.json` holds, as far as exporting needs it."""

    title: str
    video: str
    language: str = "en"
    steps: list[Step]


def document(title: str, video: str, cases: Sequence[Case], predictions: Sequence[Prediction]) -> dict:
    """Commentary of a video: `{title, video, language, steps: [{step, start_s, end_s, narration, principle, safety,
    retrieval_prob, read_again, passages: [{id, title, relevance, relevant, used}]}]}`. read_again: an earlier step and what it is
    taken to have shown, or None. Of the relevant passages, those used are written from.

    Raises:
        ExpStarError: a step is a file of its own, so that its place in the video is not known.
    """
    steps, language = [], "en"
    for case, prediction in zip(cases, predictions, strict=True):
        said, data = parse(prediction.response).commentary, prediction.evaluation_data
        clip, language = case.clip, data["settings"].get("language", "en")
        if not isinstance(clip, VirtualClip):
            raise ExpStarError(f"{case.id}: clip is the file {clip}, expected a stretch of the whole video; give start and end")
        threshold = data["settings"]["verdict_threshold"]
        judged = zip(data["passage_ids"], data["passage_titles"], data["relevance"], strict=True)
        steps.append({
            "step": case.step_number, "start_s": clip.start, "end_s": clip.end, "narration": list(said.narration),
            "principle": list(said.principle), "safety": list(said.safety), "retrieval_prob": data["retrieval_prob"],
            "retrieved": data["is_retrieval"], "read_again": data.get("read_again"),
            "faults": list(parse(prediction.full_dialogue).faults),
            "passages": [{"id": i, "title": t, "relevance": r, "relevant": r > threshold, "used": i in data["relevant_ids"]}
                         for i, t, r in judged]})
    return {"title": title, "video": video, "language": language, "steps": steps}


def read_document(path: Path) -> dict:
    """A `commentary.json`, perhaps edited by hand.

    Raises:
        ExpStarError: names the file and the field that is missing or wrong.
    """
    read = read_record(path, Document)
    for step in read.steps:
        if step.end_s < step.start_s:
            raise ExpStarError(f"{path}: step {step.step} ends at {step.end_s:g} s, expected an end after its start at "
                               f"{step.start_s:g} s; correct the times")
    return read.model_dump()


def language_of(doc: dict) -> str:
    """Language that a document's notes are in, "en" where it does not say."""
    return doc.get("language", "en")


def same_steps(docs: Sequence[dict]) -> None:
    """Raises ExpStarError unless all documents have the same steps at the same times and each its own language."""
    first, *others = docs
    for other in others:
        names = f"the {language_of(first)} and the {language_of(other)} document"
        if language_of(first) == language_of(other):
            raise ExpStarError(f"language: found {language_of(first)!r} in both documents, expected one in each of two; "
                               "export one of them, or correct its language")
        if len(first["steps"]) != len(other["steps"]):
            raise ExpStarError(f"steps: found {len(first['steps'])} and {len(other['steps'])} in {names}, expected the same "
                               "steps; comment one cut of the video in both languages")
        for one, same in zip(first["steps"], other["steps"]):
            times = [(s["step"], s["start_s"], s["end_s"]) for s in (one, same)]
            if any(abs(a - b) > TOLERANCE_S for a, b in zip(*times)):
                found = " and ".join(f"step {n} from {format_time(a)} to {format_time(b)}" for n, a, b in times)
                raise ExpStarError(f"steps: found {found} in {names}, expected the same steps; comment one cut of the video in "
                                   "both languages")


def clean(text: str) -> str:
    """Text of one line, without control characters and halves of characters, which no file takes."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs")).split())

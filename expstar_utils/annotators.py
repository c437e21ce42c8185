"""Steps and notes from what is said: by a chat model behind any OpenAI-compatible endpoint, or offline by rules and retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field

from expstar_utils.annotate import shot_changes, split_steps, topic_changes
from expstar_utils.chat import Chat, Usage, read_sentences
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.media import probe
from expstar_utils.records import AsrFile, ExpStarError, Passage, RawStep, StepsFile, Subtitle, format_time

SENTENCES = Path(__file__).parents[1] / "data" / "annotator.yaml"
NOTES = ("safety_zh", "safety_en", "principle_zh", "principle_en", "equation")


class Annotator(Protocol):
    """Finds the steps of a video in what is said in it, and notes on their principle and safety."""

    def annotate(self, title: str, said: AsrFile, video: Path) -> tuple[StepsFile, AsrFile]:
        """(steps, the same speech with step numbers and notes); raises ExpStarError in one sentence."""


def topics(lines: Sequence[Subtitle]) -> Sequence[float]:
    """How much the topic changes from line to line; unknown where a line has no English, which is what MiniLM reads."""
    from expstar_utils.encoders import encode_texts  # torch takes seconds to load, and most runs annotate nothing
    told = [line.text_en for line in lines]
    return topic_changes(encode_texts(told)) if all(told) else ()


class OfflineAnnotator:
    """Steps where the speaker pauses and picture or topic change; notes are passages of the knowledge base, marked by their id.

    Args:
        passages: what is known; None takes the embedded knowledge base. least: cosine of step and passage from which on a note is
            written, -1 to 1.
    """

    def __init__(self, passages: Sequence[Passage] | None = None, least: float = 0.55):
        from expstar_utils.retrieval import text_search
        self.passages, self.search = text_search(passages)
        self.least = least

    def annotate(self, title: str, said: AsrFile, video: Path) -> tuple[StepsFile, AsrFile]:
        """Steps told by the words spoken in them, without a summary; a note's passage is named in `note_sources`."""
        steps = split_steps(probe(video).duration_s, said.subtitles, shot_changes(video), topics=topics(said.subtitles))
        by_id, noted = {line.id: line for line in said.subtitles}, {}
        for step in steps:
            spoken = [by_id[i] for i in step.ASR_id]
            step.step_en = " ".join(line.text_en for line in spoken).strip()
            step.step_zh = "".join(line.text for line in spoken if line.text != line.text_en).strip()
            noted |= {line.id: {"step": step.step} for line in spoken}
            if step.step_en:
                noted[spoken[-1].id] |= self._notes(title, step.step_en)
        lines = [Subtitle.model_validate(noted.get(line.id, {}) | line.to_dict()) for line in said.subtitles]
        chinese = any(step.step_zh for step in steps)
        titles = {"title_zh": title if chinese else "", "title_en": "" if chinese else title}
        return StepsFile(summary="", **titles, steps=steps), AsrFile(subtitles=lines)

    def _notes(self, title: str, step: str) -> dict[str, str | list[str]]:
        from expstar_utils.searches import Query
        scores, places = self.search.scored([Query(title, step)], 40)
        near = [self.passages[i] for i, score in zip(places[0], scores[0], strict=True) if score >= self.least]
        cards = [p for p in near if is_hazard_card(p)]
        notes = {"safety_en": cards[:1], "principle_en": [p for p in near if p not in cards][:1]}
        found = {name: passages[0].text for name, passages in notes.items() if passages}
        return found | ({"note_sources": [p.id for passages in notes.values() for p in passages]} if found else {})


class DraftStep(BaseModel):
    """One step as the model answers it."""

    step_zh: str = Field(min_length=1)
    step_en: str = Field(min_length=1)
    ASR_id: list[int] = Field(min_length=1)


class DraftLine(BaseModel):
    """What the model adds to one line of speech."""

    id: int
    text_en: str = ""
    safety_zh: str = ""
    safety_en: str = ""
    principle_zh: str = ""
    principle_en: str = ""
    equation: str = ""


class Draft(BaseModel):
    """The model's whole answer for one video."""

    title_zh: str = Field(min_length=1)
    title_en: str = Field(min_length=1)
    summary: str
    steps: list[DraftStep] = Field(min_length=1)
    lines: list[DraftLine]


class ChatAnnotator:
    """Asks a chat model for steps and notes. One object serves several threads.

    Args:
        base_url, model, cache, more: see `chat.Chat`.
        sentences: YAML file with what the model is told.
    """

    def __init__(self, base_url: str, model: str, cache: Path, *, sentences: Path = SENTENCES, **more: Any):
        self.instruction, again = read_sentences(sentences)
        self.chat = Chat(base_url, model, cache, again, **more)

    @property
    def usage(self) -> Usage:
        """What the endpoint was asked for so far."""
        return self.chat.usage

    def annotate(self, title: str, said: AsrFile, video: Path | None = None) -> tuple[StepsFile, AsrFile]:
        """Steps of a video, and its speech with English text and notes; what a line has already is kept.

        Raises:
            ExpStarError: nothing was said, the endpoint does not answer, or it gives no usable answer.
        """
        if not said.subtitles:
            raise ExpStarError(f"{title}: found no speech, expected some to find steps in; write the step file by hand")
        lines = [{"id": s.id, "start": format_time(s.start_s), "end": format_time(s.end_s), "text": s.text}
                 for s in said.subtitles]
        ids = {s.id for s in said.subtitles}
        draft = self.chat.ask(title, self.instruction, {"title": title, "lines": lines}, Draft, lambda d: check_ids(d, ids))
        return files_of(draft, said.subtitles)


def check_ids(draft: Draft, ids: set[int]) -> None:
    """Raises ValueError for ids that are of no line, out of order or in two steps."""
    used = [n for step in draft.steps for n in step.ASR_id]
    if foreign := sorted({*used, *(line.id for line in draft.lines)} - ids):
        raise ValueError(f"ids {foreign[:8]} are of no line")
    if any(a >= b for a, b in pairwise(used)):
        raise ValueError("the ids of the steps are not in order, or one stands in two steps")


def files_of(draft: Draft, said: Sequence[Subtitle]) -> tuple[StepsFile, AsrFile]:
    """Raw step file and raw speech file of a checked answer; a step lasts from its first line to the end of its last."""
    by_id, added = {line.id: line for line in said}, {line.id: line for line in draft.lines}
    steps, step_of = [], {}
    for number, (step, later) in enumerate(zip(draft.steps, [*draft.steps[1:], None]), 1):
        step_of |= dict.fromkeys(step.ASR_id, number)
        first, last = by_id[step.ASR_id[0]], by_id[step.ASR_id[-1]]
        overlaps = later and by_id[later.ASR_id[0]].start_s < last.end_s
        times = {"startTime": first.startTime, "endTime": by_id[later.ASR_id[0]].startTime if overlaps else last.endTime}
        steps.append(RawStep.model_validate({"step": number} | step.model_dump() | times))
    lines = []
    for line in said:
        more = added.get(line.id, DraftLine(id=line.id))
        notes = {name: note for name in NOTES if not getattr(line, name) and (note := getattr(more, name).strip())}
        english = line.text_en or more.text_en
        number = {"step": step_of[line.id]} if line.id in step_of else {}
        lines.append(Subtitle.model_validate(line.to_dict() | {"text_en": english} | number | notes))
    return (StepsFile(summary=draft.summary, title_zh=draft.title_zh, title_en=draft.title_en, steps=steps),
            AsrFile(subtitles=lines))

"""Steps and notes from what is said: by a chat model behind any OpenAI-compatible endpoint, or offline by rules and retrieval."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import yaml
from openai import APIError, OpenAI
from pydantic import BaseModel, Field, ValidationError

from expstar_utils.annotate import shot_changes, split_steps, topic_changes
from expstar_utils.files import describe, read_json, write_json
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.media import probe
from expstar_utils.records import AsrFile, ExpStarError, RawStep, StepsFile, Subtitle, format_time
from expstar_utils.retrieval import Index, encode_texts

SENTENCES = Path(__file__).parents[1] / "data" / "annotator.yaml"
NOTES = ("safety_zh", "safety_en", "principle_zh", "principle_en", "equation")


class Annotator(Protocol):
    """Finds the steps of a video in what is said in it, and notes on their principle and safety."""

    def annotate(self, title: str, said: AsrFile, video: Path) -> tuple[StepsFile, AsrFile]:
        """(steps, the same speech with step numbers and notes); raises ExpStarError in one sentence."""


def topics(lines: Sequence[Subtitle]) -> Sequence[float]:
    """How much the topic changes from line to line; unknown where a line has no English, which is what MiniLM reads."""
    told = [line.text_en for line in lines]
    return topic_changes(encode_texts(told)) if all(told) else ()


class OfflineAnnotator:
    """Steps where the speaker pauses and picture or topic change; notes are passages of the knowledge base, marked by their id.

    Args:
        index: what is known. least: cosine of step and passage from which on a note is written, -1 to 1.
    """

    def __init__(self, index: Index, least: float = 0.55):
        self.index, self.least = index, least

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
                noted[spoken[-1].id] |= self._notes(f"{title}. {step.step_en}")
        lines = [Subtitle.model_validate(noted.get(line.id, {}) | line.to_dict()) for line in said.subtitles]
        chinese = any(step.step_zh for step in steps)
        titles = {"title_zh": title if chinese else "", "title_en": "" if chinese else title}
        return StepsFile(summary="", **titles, steps=steps), AsrFile(subtitles=lines)

    def _notes(self, query: str) -> dict[str, str | list[str]]:
        scores, places = self.index.search(encode_texts([query]), 40)
        near = [self.index.passages[i] for i, score in zip(places[0], scores[0], strict=True) if score >= self.least]
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


@dataclass
class Usage:
    """What the endpoint was asked for. answers: got; kept: taken from the disk instead. prices: currency per million tokens."""

    answers: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prices: tuple[float, float] = (0.0, 0.0)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def cost(self) -> float:
        return (self.prompt_tokens * self.prices[0] + self.completion_tokens * self.prices[1]) / 1e6

    def add(self, **counts: int) -> None:
        """Count; safe from several threads."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class ChatAnnotator:
    """Asks a chat model for steps and notes. One object serves several threads.

    Args:
        base_url: of the endpoint, such as "http://127.0.0.1:8000/v1". model: its name there.
        cache: folder where every usable answer is kept by the hash of what was asked.
        api_key: None takes the environment's OPENAI_API_KEY; a server of one's own needs none. timeout_s: of one request.
        retries: how often a request is repeated, with growing pauses, when the endpoint is down, slow or overloaded.
        attempts: how often an answer that cannot be used is asked for again, with what was wrong with it.
    """

    def __init__(self, base_url: str, model: str, cache: Path, *, api_key: str | None = None, timeout_s: float = 120.0,
                 retries: int = 5, attempts: int = 3, prices: tuple[float, float] = (0.0, 0.0), sentences: Path = SENTENCES):
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to start without any
        self.client = OpenAI(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=retries)
        self.base_url, self.model, self.cache, self.attempts = base_url, model, Path(cache), attempts
        said = yaml.safe_load(Path(sentences).read_text(encoding="utf8"))
        self.instruction, self.again = said["instruction"], said["again"]
        self.usage = Usage(prices=prices)

    def annotate(self, title: str, said: AsrFile, video: Path | None = None) -> tuple[StepsFile, AsrFile]:
        """Steps of a video, and its speech with English text and notes; what a line has already is kept.

        Raises:
            ExpStarError: nothing was said, the endpoint does not answer, or it gives no usable answer.
        """
        if not said.subtitles:
            raise ExpStarError(f"{title}: found no speech, expected some to find steps in; write the step file by hand")
        lines = [{"id": s.id, "start": format_time(s.start_s), "end": format_time(s.end_s), "text": s.text}
                 for s in said.subtitles]
        asked = json.dumps({"title": title, "lines": lines}, ensure_ascii=False)
        key = hashlib.sha256(f"{self.model}\0{self.instruction}\0{asked}".encode()).hexdigest()
        kept = self.cache / f"{key}.json"
        if kept.is_file():
            self.usage.add(kept=1)
            draft = Draft.model_validate(read_json(kept))
        else:
            draft = self._ask(title, asked, [s.id for s in said.subtitles])
            write_json(kept, draft.model_dump())
        return files_of(draft, said.subtitles)

    def _ask(self, title: str, asked: str, ids: Sequence[int]) -> Draft:
        messages = [{"role": "system", "content": self.instruction}, {"role": "user", "content": asked}]
        shape = {"type": "json_schema", "json_schema": {"name": "annotation", "schema": Draft.model_json_schema()}}
        fault = ""
        for _ in range(self.attempts):
            try:
                reply = self.client.chat.completions.create(model=self.model, messages=messages, response_format=shape)
            except APIError as error:
                raise ExpStarError(f"{title}: {self.base_url} gives no answer ({_short(error)}), expected a chat completion; "
                                   "start the server, or check address, key and model") from None
            text = (reply.choices[0].message.content if reply.choices else "") or ""
            if reply.usage:
                self.usage.add(prompt_tokens=reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
            try:
                draft = checked(text, ids)
                self.usage.add(answers=1)
                return draft
            except ValueError as error:
                fault = str(error)
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": self.again.format(fault=fault)}]
        raise ExpStarError(f"{title}: {self.model} gave no usable answer in {self.attempts} tries ({fault}), expected one JSON "
                           "object of steps and lines; try another model, or write the step file by hand")


def checked(text: str, ids: Sequence[int]) -> Draft:
    """The answer, wherever in the text its JSON stands.

    Raises:
        ValueError: no JSON object, a field that is wrong, or ids that are of no line, out of order or in two steps.
    """
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or end <= start:
        raise ValueError("no JSON object")
    try:
        draft = Draft.model_validate(json.loads(text[start:end]))
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON is broken: {error}") from None
    used = [n for step in draft.steps for n in step.ASR_id]
    if foreign := sorted({*used, *(line.id for line in draft.lines)} - set(ids)):
        raise ValueError(f"ids {foreign[:8]} are of no line")
    if any(a >= b for a, b in pairwise(used)):
        raise ValueError("the ids of the steps are not in order, or one stands in two steps")
    return draft


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


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]

"""Inference through any OpenAI-compatible server: many requests at once, retried, bounded, appended as they come, resumed by id.

The model sees the same frames as in process (our sampler's), as pictures with their times. Probabilities come from the server's
token log-probabilities where it gives them; where it does not, a decision is 0 or 1, as it was written.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from openai import APIError, AsyncOpenAI
from PIL import Image
from tqdm import tqdm

from expstar_utils import prompts as tags
from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case, by_experiment
from expstar_utils.files import append_jsonl
from expstar_utils.inference import Find, Settings, Step, choose, history_of, prediction_of, take_verdicts
from expstar_utils.media import Frames
from expstar_utils.predicted import read_predictions, settled
from expstar_utils.prompts import VIDEO, Prompts
from expstar_utils.records import ExpStarError, Message, Prediction, Problem
from expstar_utils.sizes import FrameSize

FramesAs = Literal["images", "video"]
VERDICT_TOKENS = 8
TOP_LOGPROBS = 10
USELESS = 3  # times that an answer which cannot be read is asked for again


@dataclass(frozen=True)
class Server:
    """An endpoint. model: its name there. concurrency: requests at once. timeout_s: of one request. retries: with growing pauses.

    frames: "video" sends one video of our frames and their times, as vLLM takes it, and gives the prompt that training saw;
    "images" sends pictures with their times, which every server takes. logprobs: ask for those of the tokens.
    """

    base_url: str
    model: str
    concurrency: int = 16
    timeout_s: float = 120.0
    retries: int = 5
    frames: FramesAs = "images"
    logprobs: bool = True


@dataclass(frozen=True)
class Reply:
    """What a server said. tokens: (text, {alternative: log-probability}) each, where it tells."""

    text: str
    tokens: tuple[tuple[str, dict[str, float]], ...] = ()
    prompt_tokens: int = 0


def data_uri(frame: np.ndarray) -> str:
    """A frame, uint8 RGB [height, width, 3], as a PNG in a data URI: nothing is lost on the way."""
    return f"data:image/png;base64,{_coded(frame)}"


def _coded(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def media_options(frames: Frames) -> dict[str, Any]:
    """What vLLM is told of a video of frames: take them all, at these times. The processor is told the same in process."""
    count = len(frames.times_s)
    return {"media_io_kwargs": {"video": {
        "num_frames": -1, "fps": float(frames.fps), "frames_indices": list(range(count)), "total_num_frames": count,
        "duration": float(frames.end_s - frames.start_s), "do_sample_frames": False}}}


def chat_messages(messages: Sequence[Message], frames: Frames, how: FramesAs = "images") -> list[dict[str, Any]]:
    """Messages as the chat API takes them; frames stand where `<video>` stands."""
    shown = []
    for message in messages:
        before, video, after = message.content.partition(VIDEO)
        if not video:
            shown.append({"role": message.role, "content": message.content})
            continue
        parts: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
        if how == "video":
            listed = ",".join(_coded(frame) for frame in frames.pixels)  # the name says JPEG, vLLM reads any picture
            parts.append({"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{listed}"}})
        else:
            for frame, time_s in zip(frames.pixels, frames.times_s - frames.start_s, strict=True):
                parts += [{"type": "text", "text": f"<{time_s:.1f} seconds>"},
                          {"type": "image_url", "image_url": {"url": data_uri(frame)}}]
        shown.append({"role": message.role, "content": [*parts, {"type": "text", "text": after}]})
    return shown


def decided(reply: Reply, yes: str, no: str) -> float | None:
    """Probability of `yes` over `no`, where one of them was written; None where neither was.

    Where they part ("[R" and "[N") the server's alternatives for that token are weighed; without any, it is 1 or 0.
    """
    places = [(reply.text.find(control), control) for control in (yes, no) if control in reply.text]
    if not places:
        return None
    start, written = min(places)
    common = len(os.path.commonprefix([yes, no]))
    at = 0
    for text, alternatives in reply.tokens:
        if at <= start + common < at + len(text):
            ahead = start - at  # characters of the token before the control string
            lead = text[:ahead] if ahead > 0 else ""
            said = {control: _weight(alternatives, lead, control[max(-ahead, 0):]) for control in (yes, no)}
            if sum(said.values()) > 0:
                return said[yes] / sum(said.values())
        at += len(text)
    return float(written == yes)


def _weight(alternatives: dict[str, float], lead: str, rest: str) -> float:
    """Probability of the alternatives that go on with `rest` behind `lead`."""
    wanted = lead + rest
    return sum(float(np.exp(logprob)) for text, logprob in alternatives.items()
               if len(text) > len(lead) and (wanted.startswith(text) or text.startswith(wanted)))


class ServedCommentator:
    """The adaptive method of `inference.Commentator`, by requests to a server; a context that holds the connection."""

    def __init__(self, server: Server, prompts: Prompts, find: Find | None, settings: Settings):
        self.server, self.prompts, self.find, self.settings = server, prompts, find, settings
        self._gate = asyncio.Semaphore(server.concurrency)
        self._client: AsyncOpenAI | None = None

    async def __aenter__(self) -> ServedCommentator:
        key = os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to start without any
        s = self.server
        self._client = AsyncOpenAI(base_url=s.base_url, api_key=key, timeout=s.timeout_s, max_retries=s.retries)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._client.close()

    async def comment(self, step: Step) -> Prediction:
        """Commentary of one step.

        Raises:
            ExpStarError: the server gave no usable answer.
        """
        settings, messages = self.settings, self.prompts.prefix(step.case.subject, step.case.title, step.previous,
                                                                self.settings.language)
        frames = step.frames.blanked() if settings.blank else step.frames
        first = await self.ask(messages, frames, settings.max_new_tokens)
        prob = decided(first, tags.RETRIEVAL, tags.NO_RETRIEVAL)
        step.prob = 0.0 if prob is None else prob  # a narration that ends without a decision asks for nothing
        step.narration = _before_controls(first.text)
        step.retrieve = settings.knowledge == "always" or step.prob > settings.tau
        if step.retrieve:
            opened = [*messages, Message(role="assistant", content=tags.quoted(step.narration) + tags.RETRIEVAL)]
            await self._judge(step, opened, frames)
            choose(step, settings)
            shown = self.prompts.passages([step.passages[i].text for i in step.chosen])
            answer = await self.ask([*opened, shown], frames, settings.max_new_tokens)
            step.answer = _without_verdict(answer.text)
        return prediction_of(step, self.prompts, settings)

    async def _judge(self, step: Step, opened: list[Message], frames: Frames) -> None:
        if self.settings.knowledge == "never" or self.find is None:
            return
        told = step.case.model_copy(update={"narration": tags.parse(step.narration).commentary.narration})
        step.passages = await asyncio.to_thread(self.find, told, frames.pixels, self.settings.passages)
        texts = [p.text for p in step.passages]
        turns = {"each": [[text] for text in texts], "joint": [texts] if texts else [], "none": []}[self.settings.verdicts]
        asked = [[*opened, self.prompts.passages(turn)] for turn in turns]
        replies = await asyncio.gather(*(self.ask(messages, frames, VERDICT_TOKENS) for messages in asked))
        take_verdicts(step, [decided(reply, tags.RELEVANT, tags.IRRELEVANT) or 0.0 for reply in replies], self.settings)

    async def ask(self, messages: Sequence[Message], frames: Frames, max_tokens: int) -> Reply:
        """One completion; an answer that cannot be read is asked for again.

        Raises:
            ExpStarError: no usable answer after all retries.
        """
        s, told = self.settings, {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.server.logprobs else {}
        sent, fault = chat_messages(messages, frames, self.server.frames), ""
        if self.server.frames == "video":
            told["extra_body"] = media_options(frames)
        for _ in range(USELESS):
            try:
                async with self._gate:
                    answer = await self._client.chat.completions.create(model=self.server.model, messages=sent, seed=s.seed,
                                                                       max_tokens=max_tokens, temperature=s.temperature, **told)
                return read_reply(answer)
            except (ValueError, AttributeError, TypeError) as error:  # no JSON, or not the shape of a completion
                fault = f"an answer that is no completion ({str(error)[:80]})"
            except APIError as error:
                fault = (str(error).splitlines() or [type(error).__name__])[0][:120]
                break
        raise ExpStarError(f"{self.server.base_url}: found {fault}, expected a chat completion of {self.server.model!r}; look at "
                           "the server's log, or lower `concurrency`")


def read_reply(answer: Any) -> Reply:
    """What a completion says.

    Raises:
        ValueError: it says nothing.
    """
    if not answer.choices or not isinstance(answer.choices[0].message.content, str):
        raise ValueError("no choice with a text")
    chosen = answer.choices[0]
    listed = chosen.logprobs.content if chosen.logprobs and chosen.logprobs.content else []
    tokens = tuple((t.token, {a.token: a.logprob for a in t.top_logprobs}) for t in listed)
    return Reply(chosen.message.content, tokens, answer.usage.prompt_tokens if answer.usage else 0)


def _before_controls(text: str) -> str:
    found = [text.find(control) for control in (tags.RETRIEVAL, tags.NO_RETRIEVAL) if control in text]
    return text[:min(found)] if found else text


def _without_verdict(text: str) -> str:
    for verdict in (tags.RELEVANT, tags.IRRELEVANT):
        if text.startswith(verdict):
            return text.removeprefix(verdict).lstrip("\n")
    return text


def infer_served(commentator: ServedCommentator, cases: Sequence[Case], root: Path, out: Path, *, fps: float, max_frames: int,
                 frame_size: FrameSize) -> tuple[list[Prediction], list[Problem]]:
    """Predictions of whole experiments, appended to `out` as they come; what is there already is not asked for again.

    Experiments go side by side, their steps one after the other. Where one cannot be had, the rest of its experiment is left out,
    since it would have no history; the others go on.

    Returns:
        (predictions in the order of `cases`, those that are there; a problem for every experiment that was left).
    """
    done = read_predictions(out, commentator.settings)
    problems: list[Problem] = []

    async def one(steps: list[Case], bar: tqdm) -> None:
        """All steps of one experiment, one after the other."""
        for index, case in enumerate(steps):
            if case.id in done:
                continue
            frames = await asyncio.to_thread(clip_frames, case.clip, root, fps=fps, max_frames=max_frames, size_px=frame_size)
            try:
                made = await commentator.comment(Step(case, history_of(steps, index, done, commentator.settings), frames))
            except ExpStarError as error:
                problems.append(Problem(file=case.id, field="answer", found=str(error), expected="a commentary",
                                        todo="run the notebook again: what is there is kept"))
                return
            done[made.id] = made
            append_jsonl(out, made)
            bar.update()

    async def run() -> None:
        """All experiments, side by side."""
        with tqdm(total=len(cases), initial=sum(c.id in done for c in cases), desc=out.stem, unit="step") as bar:
            async with commentator:
                await asyncio.gather(*(one(steps, bar) for steps in by_experiment(cases)))
    with ThreadPoolExecutor(1) as apart:  # a notebook's own thread has an event loop already
        apart.submit(asyncio.run, run()).result()
    return settled(out, done, cases, together=1), problems

"""Adaptive inference: narrate, decide whether to look something up, judge each passage, write from the relevant ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils import prompts as tags
from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case, previous_texts
from expstar_utils.decisions import Settings, retrieval_prob, with_ranks
from expstar_utils.decoding import Decoder, State
from expstar_utils.encoding import between_turns, encode_prefix, plain, text_ids
from expstar_utils.files import append_jsonl
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.media import Frames
from expstar_utils.models import quirks
from expstar_utils.predicted import gathered, settled, turns
from expstar_utils.prompts import Prompts
from expstar_utils.records import ExpStarError, Passage, Prediction
from expstar_utils.sizes import FrameSize

Doubt = Callable[[Case, list[str]], bool]
Find = Callable[[Case, np.ndarray, int], list[Passage]]


@dataclass
class Step:
    """One step on its way through the model. state: behind what was read so far; one that is given has read the prompt."""

    case: Case
    previous: list[str]
    frames: Frames
    state: State | None = None
    narration: str = ""
    unclear: bool = False  # the model said so, or what it said was doubted
    prob: float = 0.0
    retrieve: bool = False
    passages: list[Passage] = field(default_factory=list)
    verdicts: list[float] = field(default_factory=list)  # the model's, by themselves
    relevance: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)  # positions of the passages that the answer is written from
    earlier: Sequence[Prediction] = ()  # of the steps before it, where `previous` is what they narrated
    second: dict[str, Any] | None = None  # what would have been narrated next best, see `second_looks`
    read_again: dict[str, Any] | None = None  # an earlier step, and what `previous` says in place of what it said
    answer: str = ""


class Commentator:
    """A model ready to comment: reads each prefix once and branches from it.

    Args:
        find: the k best passages for a step, told by its narration so far and its frames (`retrieval.Retriever.for_step`,
            `frozen.finder`); None when there is no knowledge base.
        doubt: tells from a step and the lines narrated whether the picture was misread; then the step is said to be unclear, and
            the model goes on from there. None believes everything.
        decoder: how prompts are read (`decoding`).
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, prompts: Prompts, find: Find | None,
                 settings: Settings, doubt: Doubt | None = None, decoder: type[Decoder] = Decoder):
        found = quirks(model, processor)
        self.processor, self.prompts, self.find, self.settings, self.doubt = processor, prompts, find, settings, doubt
        self.decoder, self.turn_end = decoder(model, found.axes), found.turn_end
        self.longest = model.config.get_text_config().max_position_embeddings
        self.end = processor.tokenizer.convert_tokens_to_ids(found.turn_end)
        self.yes, self.no = text_ids(processor, tags.RETRIEVAL), text_ids(processor, tags.NO_RETRIEVAL)
        # a verdict ends its line in the training rows, and Qwen's tokenizer makes one token of "]" and the line end
        self.good, self.bad = text_ids(processor, f"{tags.RELEVANT}\n"), text_ids(processor, f"{tags.IRRELEVANT}\n")

    def comment(self, steps: Sequence[Step]) -> list[Prediction]:
        """Commentary of several independent steps, written side by side."""
        self._narrate(steps)
        for step in steps:
            self._decide(step)
        asking = [s for s in steps if s.retrieve]
        branches = [self._judge(step) for step in asking]
        self._answer(asking, branches)
        return [prediction_of(step, self.prompts, self.settings) for step in steps]

    def write(self, steps: Sequence[Step]) -> list[str]:
        """The notes on several steps, written from the `passages` that they have, behind their references' narrations."""
        for step in steps:
            told = self._told(step.case.narration)
            [step.state] = self.decoder.extend([self.read(step)], [told + self.yes + [self.end]])
            step.relevance = [1.0] * len(step.passages)
        self._answer(steps, [[] for _ in steps])
        return [step.answer for step in steps]

    def read(self, step: Step) -> State:
        """State of the model behind a step's prompt and frames."""
        frames = step.frames.blanked() if self.settings.blank else step.frames
        messages = self.prompts.prefix(step.case.subject, step.case.title, step.previous, self.settings.language)
        prompt = encode_prefix(self.processor, messages, frames)
        self._check_length(prompt.ids, step.case.id, "the prompt")
        return self.decoder.prefill(prompt)

    def _check_length(self, ids: Sequence[int], case_id: str, what: str) -> None:
        """Raises ExpStarError for a text that the model has no places for."""
        if len(ids) > self.longest:
            raise ExpStarError(f"{case_id}: {what} has {len(ids)} tokens, expected at most {self.longest}; shorten title, "
                               "earlier steps or passages")

    def _narrate(self, steps: Sequence[Step]) -> tuple[list[State], list[list[int]]]:
        """Narrate steps; returns the states behind their prompts, and the tokens of what was said there."""
        states, spoken = [step.state or self.read(step) for step in steps], []
        decoded, written = self._decode(states, turn=0)
        for step, prompt, state, tokens in zip(steps, states, decoded, written, strict=True):
            tokens, dropped = self._without_control(tokens)
            spoken.append(tokens)
            step.state, step.narration = prompt, self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
            lines, admitted = list(tags.parse(step.narration).commentary.narration), self.prompts.unclear_lines(step.case.title)
            doubted = bool(self.doubt and admitted and lines != admitted and self.doubt(step.case, lines))
            step.unclear = doubted or (bool(admitted) and lines == admitted)
            if doubted:
                step.narration = tags.section(tags.NARRATION, admitted)
                [step.state] = self.decoder.extend([prompt], [self._told(admitted)])
            elif tokens:  # the last token is read again, so that its successor's probabilities are fresh
                [step.state] = self.decoder.extend([state.cropped(dropped + 1)], [tokens[-1:]])
        return states, spoken

    def _told(self, narration: Sequence[str]) -> list[int]:
        """Tokens of a narration that is given."""
        return text_ids(self.processor, plain(self.processor, tags.section(tags.NARRATION, narration)))

    def _without_control(self, tokens: list[int]) -> tuple[list[int], int]:
        """Tokens before the first control string or second section, and how many were dropped."""
        for i in range(len(tokens)):
            if any(tokens[i:i + len(c)] == c for c in (self.yes, self.no)):
                return tokens[:i], len(tokens) - i
        return tokens, 0

    def _decode(self, states: list[State], turn: int) -> tuple[list[State], list[list[int]]]:
        s = self.settings  # every turn draws anew: with one seed, flat distributions would give the same tokens again
        return self.decoder.decode(states, s.max_new_tokens, self.end, s.temperature, 2 * s.seed + turn)

    def _decide(self, step: Step) -> None:
        [[yes, no]] = self.decoder.score([step.state], [self.yes, self.no])
        step.prob = retrieval_prob(yes, no)
        step.retrieve = {"always": True, "never": step.prob > self.settings.tau, "adaptive": step.prob > self.settings.tau}[
            self.settings.knowledge]

    def _judge(self, step: Step) -> list[State]:
        """Judge what was found; returns the state behind each passage, or behind all of them where they are judged together."""
        [step.state] = self.decoder.extend([step.state], [self.yes + [self.end]])
        if self.settings.knowledge == "never" or self.find is None:
            return []
        told = step.case.model_copy(update={"narration": tags.parse(step.narration).commentary.narration})
        frames = step.frames.blanked() if self.settings.blank else step.frames
        step.passages = self.find(told, frames.pixels, self.settings.passages)
        texts = [p.text for p in step.passages]
        turns = {"each": [[text] for text in texts], "joint": [texts] if texts else [], "none": []}[self.settings.verdicts]
        asked = [self._turn(turn) for turn in turns]
        for ids in asked:
            self._check_length(ids, step.case.id, "a turn with passages")
        branches, scores = self.decoder.judge([step.state] * len(turns), asked, [self.good, self.bad])
        take_verdicts(step, [retrieval_prob(*pair) for pair in scores], self.settings)
        return branches

    def _turn(self, texts: list[str]) -> list[int]:
        """Tokens of the turn that brings passages; the end of the assistant's turn was read already."""
        return between_turns(self.processor, self.prompts.passages(texts), self.turn_end)

    def _answer(self, steps: Sequence[Step], branches: Sequence[list[State]]) -> None:
        states = []
        for step, branch in zip(steps, branches, strict=True):
            choose(step, self.settings)
            together = self.settings.verdicts == "joint"
            if branch and (together or len(step.chosen) == 1) and step.chosen:
                state = branch[0 if together else step.chosen[0]]
            else:
                texts = [step.passages[i].text for i in step.chosen]
                [state] = self.decoder.extend([step.state], [self._turn(texts)])
            [state] = self.decoder.extend([state], [self.good if step.chosen else self.bad])
            states.append(state)
        if states:
            _, written = self._decode(states, turn=1)
            for step, tokens in zip(steps, written, strict=True):
                step.answer = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)


def take_verdicts(step: Step, probs: list[float], settings: Settings) -> None:
    """Note the verdicts on a step's passages, and how relevant each is then; one verdict, or none, holds for all of them."""
    step.verdicts = probs if settings.verdicts == "each" else (probs or [1.0]) * len(step.passages)
    step.relevance = with_ranks(step.verdicts, settings.rank_weight) if settings.verdicts == "each" else step.verdicts


def choose(step: Step, settings: Settings) -> None:
    """Note which of a step's judged passages its answer is written from: the most relevant ones above the threshold."""
    passed = [i for i, prob in enumerate(step.relevance) if prob > settings.verdict_threshold]
    # of a picture that is unclear, what its title's substance is dangerous by comes first
    passed.sort(key=lambda i: (not (step.unclear and is_hazard_card(step.passages[i])), -step.relevance[i]))
    step.chosen = passed if settings.verdicts == "joint" else passed[:settings.shown]


def prediction_of(step: Step, prompts: Prompts, settings: Settings) -> Prediction:
    """What is kept of a step that went through a model."""
    first = f"{step.narration}{tags.RETRIEVAL if step.retrieve else tags.NO_RETRIEVAL}"
    rounds = [{"role": "assistant", "content": first}]
    if step.retrieve:
        verdict = tags.RELEVANT if step.chosen else tags.IRRELEVANT
        rounds.append({"role": "assistant", "content": f"{verdict}\n{step.answer}"})
    relevant = [step.passages[i] for i in step.chosen]
    data = {
        "rounds": rounds, "gt": [{"role": "assistant", "content": step.case.reference()}], "is_retrieval": step.retrieve,
        "rag_passages": [prompts.passage.replace("{text}", p.text) for p in step.passages],
        "relevant_passages": [prompts.passage.replace("{text}", p.text) for p in relevant],
        "passage_ids": [p.id for p in step.passages], "relevant_ids": [p.id for p in relevant],
        "passage_titles": [p.title for p in step.passages],
        "relevance": [round(float(p), 4) for p in step.relevance], "retrieval_prob": round(step.prob, 4),
        "verdicts": [round(float(p), 4) for p in step.verdicts],
        "unclear": step.unclear,
        "frame_times_s": np.round(step.frames.times_s, 3).tolist(), "settings": asdict(settings),
    }
    if step.second is not None:
        data |= {"second": step.second, "read_again": step.read_again}
    return Prediction.model_validate({
        "id": step.case.id, "response": step.narration + step.answer, "evaluation_data": data,
        "full_dialogue": "\n".join(r["content"] for r in rounds), "labels": step.case.reference()})


def infer(commentator: Commentator, cases: Sequence[Case], root: Path, out: Path, *, fps: float, max_frames: int,
          frame_size: FrameSize, batch: int = 8) -> list[Prediction]:
    """Predictions of whole experiments, appended to `out` as they come; what is there already is not done again.

    Steps of one experiment follow each other (their history is fed forward); `batch` experiments go side by side.

    Raises:
        ExpStarError: `out` holds predictions made with other settings.
    """
    done = gathered(out, cases, commentator.settings, batch)
    with tqdm(total=len(cases), initial=sum(c.id in done for c in cases), desc=out.stem, unit="step") as bar:
        for turn in turns(cases, batch):
            asked = []
            for steps, index in ((steps, index) for steps, index in turn if steps[index].id not in done):
                frames = clip_frames(steps[index].clip, root, fps=fps, max_frames=max_frames, size_px=frame_size)
                earlier = [done[s.id] for s in steps[:index]] if commentator.settings.history == "free" else ()
                asked.append(Step(steps[index], history_of(steps, index, done, commentator.settings), frames, earlier=earlier))
            for prediction in commentator.comment(asked) if asked else []:
                done[prediction.id] = prediction
                append_jsonl(out, prediction)
                bar.update()
    return settled(out, done, cases, batch)


def history_of(steps: Sequence[Case], index: int, done: dict[str, Prediction], settings: Settings) -> list[str]:
    """Narrations of the steps before one: the references', or those that were predicted."""
    if settings.history == "teacher":
        return previous_texts(steps, index, "narration")
    return [" ".join(tags.parse(done[s.id].response).commentary.narration) for s in steps[:index]]

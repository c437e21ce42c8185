"""Rows of a wished shape for the benchmarks of the model: a prefix of P tokens with a clip in it, K branches of S tokens."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback

from benchmarks.timing import in_turn, options, report
from expstar_utils import models
from expstar_utils.efficiency import efficient
from expstar_utils.encoding import between_turns, encode_prefix, text_ids
from expstar_utils.media import Frames, sample_frames
from expstar_utils.models import quirks
from expstar_utils.profiles import Profile, load_profile
from expstar_utils.prompts import load_prompts
from expstar_utils.records import Message, Sample

CLIP = Path(__file__).parents[1] / "data" / "sample" / "burning_a_gas.mp4"
PROMPTS = load_prompts()
FILLER = " glow"
STEPS = 5


@dataclass(frozen=True)
class Shape:
    """prefix, branch: tokens. branches: how many share the prefix."""

    prefix: int
    branch: int
    branches: int

    @property
    def ceiling(self) -> float:
        """How much faster reading the prefix once can be, if time goes with tokens: K (P + S) / (P + K S)."""
        return self.branches * (self.prefix + self.branch) / (self.prefix + self.branches * self.branch)


PAPER = Shape(prefix=1024, branch=64, branches=8)  # 16:1, as at 4,096 tokens with passages of 100 words
MINI = Shape(prefix=243, branch=152, branches=6)  # means of ExpInstruct-Mini's rows with passages (`tiny`, notebook 04a)
SHAPES = {"paper": PAPER, "mini": MINI}


def shaped_options(text: str, runs: int) -> argparse.ArgumentParser:
    """Command line of these benchmarks: the model is ExpStar-Tiny, or any other that can be had."""
    parser = options(text, runs)
    parser.add_argument("--base", default=models.TINY)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--shape", choices=SHAPES, nargs="*", default=list(SHAPES))
    return parser


def run_shapes(name: str, text: str, measured: Callable[[Any, Shape, Callable[[str], None]], dict[str, Any]],
               runs: int = 3) -> None:
    """A benchmark's `main`: measure every shape, report the first one's ratio, and the others' beside it."""
    given = shaped_options(text, runs).parse_args()
    found = {shape: measured(given, SHAPES[shape], (lambda _: None) if given.json else print) for shape in given.shape}
    first, more = found[given.shape[0]], {}
    for shape, values in found.items():
        ratio = values["theirs"] / values["ours"]
        kept = {key: value for key, value in values.items() if key not in ("ours", "theirs")}
        if "ceiling" in values:
            kept["efficiency"] = round(ratio / values["ceiling"], 3)
        if values is not first:
            sides = {f"{side}_s": round(values[side], 4) for side in ("ours", "theirs")}
            kept = {**sides, "ratio": round(ratio, 2), **kept}
        more |= {key if values is first else f"{shape}_{key}": value for key, value in kept.items()}
    report(name, first, given.runs, base=given.base, shape=given.shape[0], **more)


class Clock(TrainerCallback):
    """Notes when each training step ends; `seconds` has those from one to the next, collating included."""

    def __init__(self):
        self.seconds, self._last = [], None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """A run starts: its first step, which sets up, is not counted."""
        self._last = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def steps_in_turn(trainers: dict[str, Any], runs: int, say: Callable[[str], None],
                  how: Callable[[str], dict[str, bool]] = lambda name: {"packed": name == "ours"}) -> dict[str, Any]:
    """Median seconds of one training step of "ours" and "theirs", and how far their losses are apart.

    `how` says how a side is run, see `efficient`. A run is STEPS steps; the first is not counted, nor what a trainer does
    before and behind them (checkpoints).
    """
    losses: dict[str, float] = {}
    clocks = {name: Clock() for name in trainers}

    def run(name: str) -> None:
        """STEPS training steps of a side; the loss of the first run is kept."""
        with efficient(trainers[name], **how(name)):
            losses.setdefault(name, trainers[name].train().training_loss)
    for name in trainers:  # once to warm up
        run(name)
        trainers[name].add_callback(clocks[name])
    in_turn({name: lambda name=name: run(name) for name in trainers}, runs, say)
    apart = round(abs(losses["ours"] / losses["theirs"] - 1), 5)
    return {**{name: statistics.median(clock.seconds) for name, clock in clocks.items()}, "loss_difference": apart}


def loaded(given: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model that was asked for, on the GPU where there is one."""
    torch.manual_seed(0)
    model, processor = models.load(given.base, dtype=models.fast_dtype(given.dtype))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def benchmark_profile(given: argparse.Namespace, **changes: Any) -> Profile:
    """`tiny`, for the model that was asked for."""
    return load_profile("tiny", **{"base": given.base, "dtype": given.dtype, "max_length": 32_000, "augment": False,
                                   "warm_start": [], "lora_target": r".*(text_model|language_model).*\.(q_proj|v_proj|down_proj)",
                                   "save_steps": 10_000} | changes)


def clip(profile: Profile) -> Frames:
    """Frames of the sample clip."""
    return sample_frames(CLIP, 0, 4, fps=profile.fps, max_frames=profile.max_frames_sft, size_px=profile.frame_size)


def _filled(count: Callable[[str], int], wanted: int) -> str:
    """Filler words with which `count` gives `wanted` tokens (one more or less where a word is two)."""
    words = max(wanted - count(""), 0)
    while words and count(FILLER * words) > wanted:
        words -= 1
    return FILLER * words


def prompt_of(processor: ProcessorMixin, frames: Frames, tokens: int) -> list[Message]:
    """System and user message that make a prefix of about so many tokens with the frames in it."""
    def messages(text: str) -> list[Message]:
        """Prompt with a text behind its request."""
        system, user = PROMPTS.prefix("chemistry", "Burning a Gas", [])
        return [system, Message(role="user", content=user.content + text)]
    return messages(_filled(lambda text: len(encode_prefix(processor, messages(text), frames).ids), tokens))


def branch_of(processor: ProcessorMixin, turn_end: str, number: int, tokens: int) -> list[Message]:
    """A turn with a passage and the verdict on it, of about so many tokens together."""
    answer = Message(role="assistant", content=f"[Relevant]\n<Principle>\nThe flame is hot ({number}).\n")
    said = len(text_ids(processor, answer.content + turn_end))

    def passage(text: str) -> Message:
        """Turn that brings a passage of this text."""
        return PROMPTS.passages([f"Passage {number}.{text}"])
    filler = _filled(lambda text: said + len(between_turns(processor, passage(text), turn_end)), tokens)
    return [passage(filler), answer]


def rows_of(model: PreTrainedModel, processor: ProcessorMixin, frames: Frames, shape: Shape,
            video: dict[str, Any] | None = None) -> list[Sample]:
    """ExpStar rows of one step, a passage each; `video` is the virtual clip that the frames are of."""
    end = quirks(model, processor).turn_end
    first = Message(role="assistant", content="<Narration>\nA gas burns.\n[Retrieval]")
    opened = len(text_ids(processor, first.content + end))
    prompt = prompt_of(processor, frames, shape.prefix - opened)
    rows = [[*prompt, first, *branch_of(processor, end, n, shape.branch)] for n in range(shape.branches)]
    return [Sample.model_validate({"messages": [m.to_dict() for m in row], "id": "chemistry_0",
                                   "videos": [video or {"video": CLIP.name, "start": 0, "end": 4}]}) for row in rows]


def pair_of(rows: list[Sample]) -> Sample:
    """A preference row of two answers of S tokens behind one prompt: what the two rows say behind their common first answer."""
    prompt = [Message(role="user", content="\n".join(m.content for m in rows[0].messages[1:3]))]
    chosen, rejected = (row.messages[3].content for row in rows)
    messages = [rows[0].messages[0], *prompt, Message(role="assistant", content=chosen)]
    return rows[0].model_copy(update={"messages": messages, "rejected_response": rejected})

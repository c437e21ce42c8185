"""From messages and frames to model inputs: one way for training, inference and scoring, so that they agree token by token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin
from transformers.video_utils import VideoMetadata

from expstar_utils.media import Frames
from expstar_utils.prompts import CONTROLS, IRRELEVANT, NO_RETRIEVAL, RELEVANT, RETRIEVAL, SECTIONS, VIDEO, quoted
from expstar_utils.records import ExpStarError, Message

IGNORED = -100


@dataclass
class Encoded:
    """One dialogue as tokens.

    ids, labels: lists of the same length; labels are IGNORED wherever nothing is trained. extras: what else the model
    takes for the frames (pixel values, grids, times), as the processor returned it, batch size 1.
    """

    ids: list[int]
    labels: list[int]
    extras: dict[str, Any]


def plain(processor: ProcessorMixin, text: str) -> str:
    """Text in which the tokenizer finds no special token: a blank stands behind the first sign of what would be one.

    Only templates open and end turns. Special tokens of a checkpoint that are our own tags stay.
    """
    tokens = {t.content for t in processor.tokenizer.added_tokens_decoder.values() if t.special and len(t.content) > 1}
    found = [t for t in tokens - {*SECTIONS, *CONTROLS} if t in text]
    broken = "|".join(f"{re.escape(t[0])}(?={re.escape(t[1:])})" for t in sorted(found))
    return re.sub(broken, r"\g<0> ", text) if found else text


def render(processor: ProcessorMixin, messages: Sequence[Message], generate: bool) -> str:
    """Chat text of messages; `<video>` in a message becomes the family's video placeholder.

    Args:
        generate: end with the opening of an assistant turn.
    """
    turns = []
    for message in messages:
        before, video, after = message.content.partition(VIDEO)
        parts = [{"type": "video"}] * bool(video) + [{"type": "text", "text": plain(processor, before + after)}]
        turns.append({"role": message.role, "content": parts})
    return processor.apply_chat_template(turns, chat_template=processor.chat_template, tokenize=False,
                                         add_generation_prompt=generate)


def encode_prefix(processor: ProcessorMixin, messages: Sequence[Message], frames: Frames, times: bool = True) -> Encoded:
    """Tokens of the prompt up to the opening of the first answer, with the frames in it.

    Args:
        times: keep what SmolVLM's processor says in words about frames and their times, 68 tokens for three of them.

    Raises:
        ExpStarError: the prompt holds no or several videos.
    """
    count = sum(m.content.count(VIDEO) for m in messages)
    if count != 1:
        raise ExpStarError(f"found {count} {VIDEO} in a prompt, expected one; correct the prompts file or the row")
    missing = max(getattr(processor.video_processor, "temporal_patch_size", 1) - len(frames.pixels), 0)
    pixels = np.concatenate([frames.pixels, *[frames.pixels[-1:]] * missing])  # Qwen3-VL refuses a clip of one frame
    metadata = VideoMetadata(total_num_frames=len(pixels), fps=float(frames.fps), duration=float(frames.end_s - frames.start_s),
                             frames_indices=list(range(len(pixels))))
    text = render(processor, messages, generate=True)
    inputs = processor(text=[text], videos=[pixels.transpose(0, 3, 1, 2)], video_metadata=[metadata], do_sample_frames=False,
                       return_tensors="pt")
    ids = inputs.pop("input_ids")[0].tolist()
    if not times and (pictures := [token for token in ids if token == processor.image_token_id]):
        before, _, after = text.partition(VIDEO)
        ids = text_ids(processor, before) + pictures + text_ids(processor, after)
    inputs.pop("attention_mask")
    return Encoded(ids, [IGNORED] * len(ids), dict(inputs))


def text_ids(processor: ProcessorMixin, text: str) -> list[int]:
    """Tokens of a piece of text on its own."""
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def between_turns(processor: ProcessorMixin, message: Message, turn_end: str) -> list[int]:
    """Tokens from the end of an assistant turn, over a user message, to the opening of the next answer."""
    marker = "\u2063"
    before = [Message(role="user", content="x"), Message(role="assistant", content=marker)]
    later = Message(role=message.role, content=message.content.replace(VIDEO, quoted(VIDEO)))  # the clip was shown before
    text = render(processor, [*before, later], generate=True)
    return text_ids(processor, text.split(marker, 1)[1].removeprefix(turn_end))


def encode_dialogue(processor: ProcessorMixin, messages: Sequence[Message], frames: Frames, turn_end: str,
                    times: bool = True) -> Encoded:
    """Tokens and labels of a training row: only assistant turns, with the token that ends them, are trained.

    Args:
        messages: system, user, assistant, then any number of (user, assistant).
        turn_end: the string that ends an assistant turn. times: see `encode_prefix`.
    """
    first = next(i for i, m in enumerate(messages) if m.role == "assistant")
    row = encode_prefix(processor, messages[:first], frames, times)
    ids, labels = encode_turns(processor, messages[first:], turn_end)
    return Encoded(row.ids + ids, row.labels + labels, row.extras)


def encode_turns(processor: ProcessorMixin, messages: Sequence[Message], turn_end: str) -> tuple[list[int], list[int]]:
    """Tokens and labels of turns that go on a dialogue; only what the assistant says itself is trained (see `Message`)."""
    ids: list[int] = []
    labels: list[int] = []
    end = text_ids(processor, turn_end)
    for message in messages:
        if message.role != "assistant":
            turn = between_turns(processor, message, turn_end)
            ids += turn
            labels += [IGNORED] * len(turn)
            continue
        text, (start, stop) = message.content, message.trained or (0, len(message.content))
        parts = [text_ids(processor, plain(processor, part)) for part in (text[:start], text[start:stop], text[stop:])]
        for part, trained in zip([*parts, end], (False, True, False, stop == len(text)), strict=True):
            ids += part
            labels += part if trained and message.weight else [IGNORED] * len(part)
    return ids, labels


def decision_tokens(processor: ProcessorMixin) -> list[tuple[list[int], int]]:
    """Token strings of the four control strings, each with the place of the first token that tells it from its opposite."""
    found = []
    for pair in ((RETRIEVAL, NO_RETRIEVAL), (RELEVANT, IRRELEVANT)):
        yes, no = (text_ids(processor, text) for text in pair)
        place = next(i for i, (a, b) in enumerate(zip(yes, no)) if a != b)
        found += [(ids[: place + 1], place) for ids in (yes, no)]
    return found


def weigh_decisions(labels: torch.Tensor, decisions: Sequence[tuple[list[int], int]], weight: float) -> torch.Tensor:
    """Weight of every trained token: `weight` where a control string is decided, 1 elsewhere.

    Args:
        labels: int [rows, length]. decisions: see `decision_tokens`.

    Returns:
        float32 [rows, length].
    """
    weights = torch.ones(labels.shape)
    for ids, place in decisions:
        windows = labels.cpu().unfold(1, len(ids), 1)
        rows, starts = (windows == torch.tensor(ids)).all(-1).nonzero(as_tuple=True)
        weights[rows, starts + place] = weight
    return weights.to(labels.device)


def pad_right(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Integer lists as one tensor [rows, longest], filled on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def merge_extras(rows: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    """The frames' tensors of several rows as one batch.

    Padded frames are zero (SmolVLM leaves those out); token types grow with the text (`lengths`, then the longest).
    """
    merged: dict[str, Any] = {}
    for key in rows[0]:
        values = [torch.as_tensor(row[key]) for row in rows]
        if key == "mm_token_type_ids":
            merged[key] = pad_right([v[0].tolist() + [0] * (n - v.shape[1]) for v, n in zip(values, lengths, strict=True)], 0)
        elif key in ("pixel_values", "pixel_attention_mask"):
            most = max(v.shape[1] for v in values)
            merged[key] = torch.cat([torch.cat([v, v.new_zeros(1, most - v.shape[1], *v.shape[2:])], 1) for v in values])
        else:
            merged[key] = torch.cat(values)
    return merged

"""Training rows that share clip, prompt and narration in one: what they share is read once, each passage is a branch of its own.

A branch sees what is shared and itself, at the positions that it would have in a row of its own, so that loss and gradients are
those of the unpacked rows. K rows of P shared and S own tokens cost P + KS instead of K(P + S).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils.encoding import Encoded, encode_dialogue, encode_turns
from expstar_utils.media import Frames
from expstar_utils.records import Sample


@dataclass(frozen=True)
class Layout:
    """How a packed row is made up, in tokens: what its rows share, then a branch for each of them (0 where it ends there)."""

    shared: int
    branches: tuple[int, ...]


def opening(sample: Sample) -> int:
    """How many messages end with the first answer."""
    return 1 + next(i for i, message in enumerate(sample.messages) if message.role == "assistant")


def shared_groups(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of neighbouring rows that share clip and messages up to the first answer."""
    def shared(i: int) -> str:
        return repr((samples[i].videos, [m.model_dump() for m in samples[i].messages[:opening(samples[i])]]))
    return [list(group) for _, group in groupby(range(len(samples)), key=shared)]


def encode_group(processor: ProcessorMixin, samples: Sequence[Sample], frames: Frames, turn_end: str,
                 times: bool = True) -> tuple[Encoded, Layout]:
    """One packed row of the samples of a group (`times`: see `encode_prefix`)."""
    first = opening(samples[0])
    row = encode_dialogue(processor, samples[0].messages[:first], frames, turn_end, times)
    shared, branches = len(row.ids), []
    for sample in samples:
        ids, labels = encode_turns(processor, sample.messages[first:], turn_end)
        row.ids += ids
        row.labels += labels
        branches.append(len(ids))
    return row, Layout(shared, tuple(branches))


def shares(layouts: Sequence[Layout], length: int) -> torch.Tensor:
    """How many unpacked rows each token stands for, float32 [rows, length]."""
    counts = torch.ones(len(layouts), length)
    for row, layout in enumerate(layouts):
        counts[row, :layout.shared] = len(layout.branches)
    return counts


def packed_positions(inner: PreTrainedModel, inputs: dict[str, Any], layouts: Sequence[Layout], axes: int) -> torch.Tensor:
    """Position ids at which every branch goes on from the shared part: int [rows, length], with mRoPE [3, rows, length].

    Args:
        inner: the model without its head. inputs: `input_ids`, `attention_mask` and what the model takes for the frames.
        axes: rows of position ids that the family takes.
    """
    ids = inputs["input_ids"]
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if axes == 1 else inner.get_rope_index(**inputs)[0]
    back = torch.zeros_like(ids)
    for row, layout in enumerate(layouts):
        at = layout.shared
        for size in layout.branches:
            back[row, at:at + size] = at - layout.shared
            at += size
    return positions - back

"""Causal attention in blocks of queries, for training on a CPU: half the work of a masked product, and fewer copies.

The stock kernel multiplies every query with every key and masks half of it away, and repeats keys and values for every query
head. Here a block of queries meets only the keys up to its end, and the query heads that share keys stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

NAME = "causal_blocks"
BLOCK = 128


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
                     block: int = BLOCK) -> torch.Tensor:
    """Attention of every position to itself and to those before it.

    Padding must stand on the right: padded positions then change nothing before them.

    Args:
        query: float [rows, heads, length, width]. key, value: float [rows, groups, length, width]; `groups` divides `heads`.
        scaling: factor of the products. block: queries a block.

    Returns:
        float [rows, heads, length, width].
    """
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    query = (query * scaling).view(rows, groups, heads // groups, length, width)
    keys, written = key.transpose(-1, -2), []
    for start in range(0, length, block):
        end = min(start + block, length)
        size = end - start
        scores = query[:, :, :, start:end].reshape(rows, groups, -1, width) @ keys[..., :end]
        scores = scores.view(rows, groups, heads // groups, size, end)
        later = torch.full((size, size), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
        own = scores[..., start:] + later
        shares = torch.cat([scores[..., :start], own], dim=-1).softmax(-1)
        mixed = shares.view(rows, groups, -1, end) @ value[:, :, :end]
        written.append(mixed.view(rows, groups, heads // groups, size, width))
    return torch.cat(written, dim=3).reshape(rows, heads, length, width)


def _forward(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
             scaling: float | None = None, dropout: float = 0.0, **_: Any) -> tuple[torch.Tensor, None]:
    if dropout or query.shape[2] != key.shape[2]:
        raise ValueError(f"{NAME} is for training without dropout and cache, found dropout {dropout}, {query.shape[2]} queries "
                         f"and {key.shape[2]} keys; use sdpa")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_attention(query, key, value, scaling).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


@contextmanager
def causal_blocks(model: PreTrainedModel, active: bool = True) -> Iterator[None]:
    """Let the language part of a model attend in blocks, and as before again at the end."""
    before = model.config.text_config._attn_implementation
    if active:
        model.set_attn_implementation({"text_config": NAME})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before})

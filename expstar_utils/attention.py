"""Causal attention in blocks of queries, for training: half the work of a masked product, fewer copies, and branches.

On a CPU the stock kernel multiplies every query with every key and masks half of it away, and repeats keys and values for every
query head. Here a block of queries meets only the keys up to its end, and the query heads that share keys stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from expstar_utils.packing import Layout

NAME = "causal_blocks"
BLOCK = 128


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
                     block: int = BLOCK) -> torch.Tensor:
    """Attention of every position to itself and to those before it.

    Padding must stand on the right: padded positions then change nothing before them.

    Args:
        query: float [rows, heads, queries, width], of the last positions. key, value: float [rows, groups, length, width];
            `groups` divides `heads`.
        scaling: factor of the products. block: queries a block, about.

    Returns:
        float [rows, heads, queries, width].
    """
    rows, heads, queries, width = query.shape
    groups, before = key.shape[1], key.shape[2] - queries
    query = (query * scaling).view(rows, groups, heads // groups, queries, width)
    keys, written = key.transpose(-1, -2), []
    block = -(-queries // max(round(queries / block), 1))  # evenly, so that no small block is left over
    for start in range(0, queries, block):
        size = min(block, queries - start)
        end = before + start + size
        scores = query[:, :, :, start:start + size].reshape(rows, groups, -1, width) @ keys[..., :end]
        scores = scores.view(rows, groups, heads // groups, size, end)
        later = torch.full((size, size), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
        scores = torch.cat([scores[..., :end - size], scores[..., end - size:] + later], dim=-1)
        mixed = scores.softmax(-1).view(rows, groups, -1, end) @ value[:, :, :end]
        written.append(mixed.view(rows, groups, heads // groups, size, width))
    return torch.cat(written, dim=3).reshape(rows, heads, queries, width)


def branched_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, layouts: Sequence[Layout],
                       block: int = BLOCK) -> torch.Tensor:
    """Causal attention of packed rows: a branch sees what is shared and itself, never its siblings.

    Args:
        query, key, value: as above, as many queries as keys. layouts: of every row; what stands behind it is padding.
    """
    written = []
    for row, layout in enumerate(layouts):
        q, k, v = (part[row:row + 1] for part in (query, key, value))
        parts = [causal_attention(*(x[:, :, :layout.shared] for x in (q, k, v)), scaling, block)]
        if any(layout.branches):
            parts.append(_branches(q, k, v, scaling, layout))
        parts.append(torch.zeros_like(q[:, :, layout.shared + sum(layout.branches):]))
        written.append(torch.cat(parts, dim=2))
    return torch.cat(written)


def _branches(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, layout: Layout) -> torch.Tensor:
    """Attention of one row's branches, side by side: each meets a copy of the shared keys, and its own.

    Returns:
        float [1, heads, sum of the branches, width].
    """
    sizes = [size for size in layout.branches if size]
    shared, end, longest, ragged = layout.shared, layout.shared + sum(sizes), max(sizes), min(sizes) < max(sizes)
    places = torch.arange(longest, device=query.device)
    inside = (places < torch.tensor(sizes, device=query.device)[:, None]).flatten()  # of all branches, filled up to the longest
    at = shared + inside.cumsum(0) - 1 if ragged else None  # what fills a branch up is its last token again: causality hides it

    def apart(x: torch.Tensor) -> torch.Tensor:
        """[1, any, branches, longest, width]."""
        return (x.index_select(2, at) if ragged else x[:, :, shared:end]).unflatten(2, (len(sizes), longest))

    def behind_shared(x: torch.Tensor) -> torch.Tensor:
        """[1, groups, branches, shared + longest, width]."""
        return torch.cat([x[:, :, None, :shared].expand(-1, -1, len(sizes), -1, -1), apart(x)], dim=3)
    groups, together = key.shape[1], query.shape[1] // key.shape[1]
    q = apart(query * scaling).unflatten(1, (groups, together)).transpose(2, 3).flatten(3, 4)
    later = torch.full((longest, shared + longest), float("-inf"), dtype=q.dtype, device=q.device).triu(shared + 1)
    scores = (q @ behind_shared(key).transpose(-1, -2)).unflatten(3, (together, longest)) + later
    mixed = scores.softmax(-1).flatten(3, 4) @ behind_shared(value)
    mixed = mixed.unflatten(3, (together, longest)).transpose(2, 3).flatten(1, 2).flatten(2, 3)
    return mixed[:, :, inside] if ragged else mixed


def _forward(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
             scaling: float | None = None, dropout: float = 0.0, layouts: Sequence[Layout] = (),
             **_: Any) -> tuple[torch.Tensor, None]:
    if dropout or query.shape[2] != key.shape[2]:
        raise ValueError(f"{NAME} is for training without dropout and cache, found dropout {dropout}, {query.shape[2]} queries "
                         f"and {key.shape[2]} keys; use sdpa")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = branched_attention(query, key, value, scaling, layouts) if layouts else causal_attention(query, key, value, scaling)
    return mixed.transpose(1, 2).contiguous(), None


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

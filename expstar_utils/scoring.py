"""Logits of the trained places alone, where TRL scores every position of every row: on a CPU that takes longer than the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from expstar_utils.packing import packed_positions


def logits_at(model: PreTrainedModel, reading: Mapping[str, Any], places: torch.Tensor, axes: int, bf16: bool) -> torch.Tensor:
    """Logits behind some places of a batch, float32 [n, vocabulary].

    Args:
        model: with its head, without adapter wrapper. reading: what it takes; packed rows bring their `layouts`.
        places: int [n], row * length + column. axes: rows of position ids that the family takes. bf16: products in bfloat16.
    """
    given = dict(reading)
    if "layouts" in given:
        inputs = {k: v for k, v in given.items() if k != "layouts"}
        given["position_ids"] = packed_positions(model.model, inputs, given["layouts"], axes)
    with torch.autocast(given["input_ids"].device.type, dtype=torch.bfloat16, enabled=bf16):
        features = model.model(**given, use_cache=False).last_hidden_state.flatten(0, 1)
        return model.get_output_embeddings()(features[places]).float()


def answer_readings(model: PreTrainedModel, answer: Callable[..., Any]) -> None:
    """Let a model's forward answer `reading=...` by `answer(reading, ...)`; all else goes to its own forward.

    It stays inside the forward because what wraps a model (DDP, ZeRO, FSDP) must be called as a whole to share gradients.
    """
    stock = model.forward

    def forward(*args: Any, reading: Mapping[str, Any] | None = None, **named: Any) -> Any:
        """What `answer` makes of a batch, or the stock outputs."""
        return stock(*args, **named) if reading is None else answer(reading, **named)
    model.forward = forward

"""Warm start of an untrained connector: visual tokens learn to point at the words of the narration, without the LM.

The connector's output is compared with the language model's own word embeddings, so that what reaches the first layer of
the LM looks like a bag of the right words. It takes seconds a step less than learning the same through all its layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils.datasets import Case
from expstar_utils.tower import to_pixels


def word_targets(cases: Sequence[Case], processor: ProcessorMixin) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that narrations use, and how much each case is about each of them.

    Returns:
        (int [words] token ids, float [cases, words] rows that sum to 1; rare words weigh more, as log(cases / uses)).
    """
    spoken = [set(processor.tokenizer(" " + " ".join(c.narration), add_special_tokens=False)["input_ids"]) for c in cases]
    uses = Counter(token for tokens in spoken for token in tokens)
    words = sorted(uses)
    place = {token: i for i, token in enumerate(words)}
    targets = torch.zeros(len(cases), len(words))
    for row, tokens in enumerate(spoken):
        for token in tokens:
            targets[row, place[token]] = np.log(len(cases) / uses[token])
    return torch.tensor(words), targets / targets.sum(1, keepdim=True).clamp(min=1e-6)


@torch.no_grad()
def tower_features(model: PreTrainedModel, frames: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Patch features of the frozen tower, bfloat16 [frames, patches, width] a clip."""
    tower, side = model.model.vision_model, int(model.config.vision_config.image_size // model.config.vision_config.patch_size)
    features = []
    for clip in tqdm(frames, desc="features", unit="clip"):
        mask = torch.ones(len(clip), side, side, dtype=torch.bool)
        pixels = to_pixels(clip).to(model.dtype)
        features.append(tower(pixel_values=pixels, patch_attention_mask=mask).last_hidden_state.to(torch.bfloat16))
    return features


def warm_connector(model: PreTrainedModel, features: Sequence[torch.Tensor], words: torch.Tensor, targets: torch.Tensor, *,
                   steps: int = 1500, batch: int = 64, lr: float = 1e-3, seed: int = 42) -> list[float]:
    """Train `model.model.connector` in place.

    Args:
        features: of every case's clip (`tower_features`). words, targets: see `word_targets`.

    Returns:
        Cross-entropy of every step, nats; its floor is the entropy of the targets.
    """
    torch.manual_seed(seed)
    connector = model.model.connector.float()
    table = model.get_input_embeddings().weight[words].detach().float()
    usual = table.norm(dim=1).mean()
    directions, scale = nn.functional.normalize(table - table.mean(0), dim=1), nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.AdamW([*connector.parameters(), scale], lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    rng, losses = np.random.default_rng(seed), []
    for _ in tqdm(range(steps), desc="connector", unit="step"):
        rows = rng.choice(len(features), min(batch, len(features)), replace=False)
        counts = [len(features[i]) for i in rows]
        tokens = connector(torch.cat([features[i] for i in rows]).float())
        logits = scale.exp() * nn.functional.normalize(tokens, dim=-1) @ directions.T
        per_clip = torch.stack([part.flatten(0, 1).log_softmax(-1).logsumexp(0) - np.log(part.shape[0] * part.shape[1])
                                for part in logits.split(counts)])
        drift = ((tokens.norm(dim=-1) / usual - 1) ** 2).mean()  # as long as a word's embedding
        loss = -(targets[rows] * per_clip).sum(1).mean()
        optimizer.zero_grad()
        (loss + drift).backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.model.connector.to(model.dtype)
    return losses

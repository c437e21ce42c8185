"""A connector that points: visual tokens learn to look like the words that tell their clip from its siblings.

The connector's output is compared with the language model's own word embeddings, so that what reaches the first layer looks like
a bag of the right words. No layer of the language model is involved, so a step takes milliseconds; it has to learn by captions
afterwards to read what it is shown (`LOG.md` has how much of it gets lost there).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils.augmentation import augment
from expstar_utils.datasets import Case, by_experiment
from expstar_utils.siblings import place_of, sights
from expstar_utils.tower import to_pixels
from expstar_utils.tower_training import pick_frames

TELLING, GIST = 0.5, 0.3  # weights beside the choice among siblings: see `_loss`


@dataclass(frozen=True)
class Targets:
    """What clips are about, in tokens.

    tokens: int [words], ids of all that narrations use. gist: float [cases, words], rows that sum to 1: how much a case is about
    each; rare words weigh more, as log(cases / uses). rivals: of each case the places in `tokens` of all words that tell steps
    at its place apart, but for those that an earlier step of its own told; shares: float, which of them it tells, sums to 1.
    Both are empty where a step shows nothing that tells.
    """

    tokens: torch.Tensor
    gist: torch.Tensor
    rivals: list[torch.Tensor]
    shares: list[torch.Tensor]

    def of(self, cases: slice) -> Targets:
        """Those of some of the cases."""
        return Targets(self.tokens, self.gist[cases], self.rivals[cases], self.shares[cases])


def word_targets(cases: Sequence[Case], processor: ProcessorMixin) -> Targets:
    """Targets of whole experiments; a word stands for its longest token."""
    def ids(text: str) -> list[int]:
        return processor.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    spoken = [set(ids(" ".join(case.narration))) for case in cases]
    uses = Counter(token for tokens in spoken for token in tokens)
    place = {token: i for i, token in enumerate(sorted(uses))}
    gist = torch.zeros(len(cases), len(place))
    for row, tokens in enumerate(spoken):
        for token in tokens:
            gist[row, place[token]] = math.log(len(cases) / uses[token])
    seen = sights(list(by_experiment(cases)))
    telling = defaultdict(set)
    for case in cases:
        telling[place_of(case)] |= seen[case.id][0]
    known = {word: [t for t in ids(word) if t in place] for word in set().union(*telling.values())}
    longest = {word: max(tokens, key=lambda t: len(processor.tokenizer.decode([t]))) for word, tokens in known.items() if tokens}
    stands = {word: place[token] for word, token in longest.items()}
    rivals, shares = [], []
    for case in cases:
        new, again = seen[case.id]
        told = {stands[word] for word in new if word in stands}
        asked = sorted({stands[word] for word in telling[place_of(case)] - again if word in stands}) if told else []
        rivals.append(torch.tensor(asked, dtype=torch.long))
        shares.append(torch.tensor([float(word in told) / len(told) for word in asked]))
    return Targets(torch.tensor(sorted(uses)), gist / gist.sum(1, keepdim=True).clamp(min=1e-6), rivals, shares)


@torch.no_grad()
def tower_features(model: PreTrainedModel, frames: Sequence[np.ndarray], count: int, views: int = 1, seed: int = 42,
                   ) -> torch.Tensor:
    """Patch features of the frozen tower, bfloat16 [views, clips, count, patches, width].

    Args:
        frames: of every clip, uint8 [n, height, width, 3]; more than `count`, so that views differ.
        views: the first is the middles of equal stretches, as inference sees a clip; the others are frames drawn from these
            stretches, shifted, zoomed and relit.
    """
    tower, side = model.model.vision_model, int(model.config.vision_config.image_size // model.config.vision_config.patch_size)
    batches = np.array_split(np.arange(len(frames)), max(1, len(frames) // 32))
    features = torch.zeros(views, len(frames), count, side * side, model.config.vision_config.hidden_size, dtype=torch.bfloat16)
    for view, rows in tqdm([(view, rows) for view in range(views) for rows in batches], desc="features", unit="batch"):
        rng = np.random.default_rng([seed, view, rows[0]]) if view else None
        pixels = to_pixels(pick_frames(frames, rows, count, rng))
        if view:
            pixels = augment(pixels, torch.Generator().manual_seed(int(rng.integers(2**31))))
        mask = torch.ones(len(rows) * count, side, side, dtype=torch.bool)
        states = tower(pixel_values=pixels.flatten(0, 1).to(tower.dtype), patch_attention_mask=mask).last_hidden_state
        features[view, rows] = states.to(torch.bfloat16).view(len(rows), count, side * side, -1)
    return features


def _likeness(connector: nn.Module, features: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Visual tokens float [clips, tokens, width], and their cosines with the words, float [clips, tokens, words]."""
    shown = features.flatten(0, 1).to(next(connector.parameters()).dtype)
    tokens = connector(shown).float().unflatten(0, features.shape[:2]).flatten(1, 2)
    return tokens, nn.functional.normalize(tokens, dim=-1) @ directions.T


def _directions(model: PreTrainedModel, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions of words from their middle, float [words, width], and how long a word's embedding is on average."""
    table = model.get_input_embeddings().weight[tokens].detach().float()
    return nn.functional.normalize(table - table.mean(0), dim=1), table.norm(dim=1).mean()


def warm_connector(model: PreTrainedModel, connector: nn.Module, features: torch.Tensor, targets: Targets, *, steps: int = 3600,
                   batch: int = 64, lr: float = 2.5e-4, seed: int = 42) -> list[float]:
    """Train the connector of `model` in place.

    Args:
        connector: the module itself, in any precision; it keeps it. features: see `tower_features`.

    Returns:
        The loss of every step, nats (see `_loss`).
    """
    torch.manual_seed(seed)
    kept, trained = next(connector.parameters()).dtype, connector.float().requires_grad_(True)
    directions, usual = _directions(model, targets.tokens)
    with torch.no_grad():
        length = _likeness(trained, features[0, :200], directions)[0].norm(dim=-1).mean()
        for weight in trained.parameters():
            weight.mul_(usual / length)
    scale = nn.Parameter(torch.tensor(3.0))
    groups = [{"params": trained.parameters(), "lr": lr}, {"params": [scale], "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [lr, 1e-3], total_steps=steps, pct_start=0.05)
    rng, losses = np.random.default_rng(seed), []
    for _ in tqdm(range(steps), desc="connector", unit="step"):
        rows = rng.choice(features.shape[1], min(batch, features.shape[1]), replace=False)
        tokens, likeness = _likeness(trained, features[rng.integers(len(features)), rows], directions)
        drift = ((tokens.norm(dim=-1) / usual - 1) ** 2).mean()  # as long as a word's embedding
        loss = _loss(scale.exp() * likeness, rows, targets) + drift
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    connector.to(kept).requires_grad_(False)
    return losses


def _loss(logits: torch.Tensor, rows: np.ndarray, targets: Targets) -> torch.Tensor:
    """How far tokens are from pointing at the right words: one of a clip's tokens is enough for a word.

    Three cross-entropies, nats: the telling words among those of the siblings; among all words (times TELLING); and all that the
    narration says among all words (times GIST).
    """
    among_all = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
    strongest = logits.logsumexp(1)
    told = [(i, row) for i, row in enumerate(rows) if len(targets.rivals[row])]
    pointing = [(targets.shares[row] * (strongest[i, targets.rivals[row]].log_softmax(0)
                                        + TELLING * among_all[i, targets.rivals[row]])).sum() for i, row in told]
    gist = (targets.gist[rows] * among_all).sum(1).mean()
    return -(torch.stack(pointing).mean() if pointing else 0.0) - GIST * gist


@torch.no_grad()
def pointed(model: PreTrainedModel, connector: nn.Module, features: torch.Tensor, targets: Targets) -> list[bool]:
    """Of each clip that shows something telling: whether its visual tokens point at those words before all of its siblings'.

    Args:
        features: of one view, [clips, frames, patches, width].
    """
    directions, _ = _directions(model, targets.tokens)
    right = []
    for row in (i for i, rivals in enumerate(targets.rivals) if len(rivals)):
        scores = 20 * _likeness(connector, features[row:row + 1], directions)[1][0].logsumexp(0)[targets.rivals[row]]
        told = (targets.shares[row] > 0).nonzero()[:, 0].tolist()
        right.append(sorted(scores.topk(len(told)).indices.tolist()) == told)
    return right

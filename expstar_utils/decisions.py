"""How the model's decisions are read: probabilities of control strings, what a passage's rank adds, thresholds and modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from expstar_utils.datasets import Language
from expstar_utils.profiles import Profile

Knowledge = Literal["adaptive", "always", "never"]
History = Literal["free", "teacher"]
Verdicts = Literal["each", "joint", "none"]


def retrieval_prob(logp_yes: float, logp_no: float) -> float:
    """Probability of asking for knowledge (or of a passage being relevant), from the two control strings.

    Args:
        logp_yes, logp_no: log-probability of each string after the same prefix, nats, summed over its tokens, <= 0.

    Returns:
        float in [0, 1], increasing in logp_yes and decreasing in logp_no.
    """
    margin = logp_yes - logp_no
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))


def with_ranks(verdicts: Sequence[float], weight: float) -> list[float]:
    """Probability that each found passage is relevant: the odds of its verdict times those of its rank, exp(-weight rank).

    The retriever puts the right passage before its sisters more often than not; a verdict that cannot tell two apart need not
    toss a coin. At weight 0 the verdicts count alone.

    Args:
        verdicts: probability of [Relevant] for each passage, best ranked first. weight: nats a rank, >= 0.
    """
    return [v / (v + (1 - v) * math.exp(weight * rank)) if v else 0.0 for rank, v in enumerate(verdicts)]


@dataclass(frozen=True)
class Settings:
    """How the model is used.

    tau: retrieve when the probability is above it. knowledge: adaptive, or always / never look up. passages: how many
    are judged. verdicts: on each passage in a branch of its own, one on all of them together, or none (the first ones count as
    relevant). shown: at most so many relevant ones are written from, or all where they were judged together.
    verdict_threshold: relevant above it. rank_weight: see `with_ranks`. second_look_nats: an earlier step is doubted where
    another word came nearer than this to being said (`second_looks`); 0 doubts none. history: "free" feeds the model's own
    narration forward, "teacher" the reference's. language: of what is written. blank: grey frames (ablation). weights: hash of
    the adapter, so that predictions of two are not mixed.
    """

    tau: float = 0.5
    knowledge: Knowledge = "adaptive"
    passages: int = 8
    shown: int = 2
    verdict_threshold: float = 0.5
    rank_weight: float = 0.0
    second_look_nats: float = 0.0
    verdicts: Verdicts = "each"
    history: History = "free"
    language: Language = "en"
    max_new_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0
    blank: bool = False
    weights: str = ""

    @classmethod
    def of(cls, profile: Profile, **more: Any) -> Settings:
        """A profile's settings; `more` are further ones, or win over its own."""
        names = ("tau", "verdict_threshold", "rank_weight", "second_look_nats", "passages", "shown", "max_new_tokens")
        return cls(**{name: getattr(profile, name) for name in names} | more)

"""Safety-aware reward of a commentary: its form, its safety notes, its science, and nothing that a hazard card contradicts.

Every component lies in 0 to 1 and is kept. What is not asked for is as wrong as what is missing: a safety note on a step whose
reference has none costs what a forgotten one does, so that general advice everywhere does not pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from expstar_utils.datasets import Case
from expstar_utils.differences import word_f1
from expstar_utils.encoders import encode_texts
from expstar_utils.equations import equations_agree
from expstar_utils.profiles import RewardWeights
from expstar_utils.prompts import parse

WORDS = Path(__file__).parents[1] / "data" / "hazard_words.yaml"
QUANTITY = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?(ppm|mg/m³|mg/m3|°C|%)")
Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Reward:
    """What a commentary earns. value: 0 to 1. components: see `rewards`. contradiction: words that play a danger down, or ""."""

    value: float
    components: dict[str, float]
    contradiction: str = ""


def rewards(written: Sequence[str], cases: Sequence[Case], cards: Sequence[Sequence[str]], weights: RewardWeights,
            encode: Encode = encode_texts) -> list[Reward]:
    """Reward of each commentary.

    Args:
        written: tagged texts, with or without control strings. cases: the step of each, with its reference.
        cards: texts of the hazard cards that hold for each step.
        encode: vectors of texts, float [n, d], each of length 1.

    Returns:
        Components, as far as they apply: `format` (well formed), `safety_present` (a note exactly where the reference has one),
        `safety`, `principle` and `narration` (agreement of the sections, see `agreements`; where one side has none: 0, where none
        has: left out, but for `narration`), `equation` (the reference's equations said: 1, with wrong numbers: 0.5; one that
        does not balance costs all). `value` is their mean by `weights`; it is 0 where a danger is played down.
    """
    said = [parse(text) for text in written]
    kinds = ("narration", "principle", "safety")
    sections = [[" ".join(getattr(source, kind)) for kind in kinds for source in (parsed.commentary, case)]
                for parsed, case in zip(said, cases, strict=True)]
    flat = [text for row in sections for text in row]
    agreed = agreements(flat[::2], flat[1::2], encode)
    found = []
    for i, (parsed, case) in enumerate(zip(said, cases, strict=True)):
        c = parsed.commentary
        parts = {"format": float(parsed.well_formed), "safety_present": float(bool(c.safety) == bool(case.safety))}
        parts |= {kind: agreed[3 * i + k] for k, kind in enumerate(kinds)
                  if kind == "narration" or getattr(c, kind) or getattr(case, kind)}
        if (equation := equations_agree("\n".join(c.principle), "\n".join(case.principle))) is not None:
            parts["equation"] = equation
        denial = contradiction("\n".join((*c.narration, *c.principle, *c.safety)), case.reference(), cards[i])
        found.append(Reward(0.0 if denial else _mean(parts, weights), parts, denial))
    return found


def _mean(parts: dict[str, float], weights: RewardWeights) -> float:
    counted = {name: getattr(weights, name) for name in parts}
    total = sum(counted.values())
    return sum(parts[name] * weight for name, weight in counted.items()) / total if total else 0.0


def agreements(texts: Sequence[str], references: Sequence[str], encode: Encode = encode_texts) -> list[float]:
    """How far texts agree with their references, 0 to 1: mean of the cosine of their vectors and the F1 of their words.

    Cosines alone hardly tell a blue flame from a green one. Two empty texts agree, an empty one agrees with no other.
    """
    distinct = list(dict.fromkeys([*texts, *references]))
    vectors = dict(zip(distinct, encode(distinct), strict=True)) if distinct else {}
    return [float(a == b) if not (a and b) else (max(float(vectors[a] @ vectors[b]), 0.0) + word_f1(a, b)) / 2
            for a, b in zip(texts, references, strict=True)]


def contradiction(text: str, reference: str, cards: Sequence[str]) -> str:
    """Words of a text that play down a danger which a card or the reference names, or a limit that stands in neither; "" if none.

    A figure is wrong when the cards give figures of that unit and it is none of them.
    """
    known = "\n".join((*cards, reference))
    for denied, warned in _hazard_words():
        if (found := denied.search(text)) and warned.search(known) and not denied.search(known):
            return found[0]
    given = QUANTITY.findall("\n".join(cards))
    right = {(float(n), unit) for n, unit in [*given, *QUANTITY.findall(reference)]}
    units = {unit for _, unit in given}
    wrong = (f"{n} {unit}" for n, unit in QUANTITY.findall(text) if unit in units and (float(n), unit) not in right)
    return next(wrong, "")


@lru_cache(maxsize=1)
def _hazard_words() -> list[tuple[re.Pattern, re.Pattern]]:
    """(words that deny it, words that warn of it) for every kind of danger."""
    kinds = yaml.safe_load(WORDS.read_text(encoding="utf8"))
    return [tuple(re.compile("|".join(kind[side]), re.IGNORECASE) for side in ("denied", "warned")) for kind in kinds.values()]

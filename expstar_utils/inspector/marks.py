"""What stands out in one prediction beside its reference: flags, agreement, confidence, and the metrics of this case alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from expstar_utils.datasets import Case
from expstar_utils.differences import agreement
from expstar_utils.equations import Equation, find_equations
from expstar_utils.metrics import fact_right
from expstar_utils.prompts import Commentary, parse
from expstar_utils.ratings import text_hash
from expstar_utils.records import Prediction

AGREES = 0.8  # share of common words below which a commentary differs from its reference
SURE = 0.15  # probability by which a decision lies away from its threshold, at least, where it is sure
FLAGS = {  # what a case can be looked for by
    "differs": "Differs from reference",
    "no_safety": "Safety missing",
    "equation": "Equation wrong",
    "unsure": "Low confidence",
    "fact": "Fact wrong",
    "form": "Badly formed",
}
MEANINGS = {  # of the flags, for the reader
    "differs": f"less than {AGREES:.0%} of the words are those of the reference",
    "no_safety": "the reference has a safety note, the commentary none",
    "equation": "an equation does not balance, is not the reference's, or is missing",
    "unsure": f"the decision to look something up, or a verdict, lay within {SURE:g} of its threshold",
    "fact": "something that the step shows or teaches is not said, or said wrongly",
    "form": "tags are missing, doubled or out of order",
}
SECTIONS = ("narration", "principle", "safety")


@dataclass(frozen=True, slots=True)
class Mark:
    """What lists and filters need of a prediction.

    agreement: with the reference, 0 to 1. confidence: see `confidence`. flags: of `FLAGS`. text: what is searched, in lower case.
    text_hash: of what was written, by which ratings know it.
    """

    agreement: float
    confidence: float
    flags: frozenset[str]
    text: str
    text_hash: str


@dataclass(frozen=True)
class Scores:
    """Metrics of one prediction alone.

    agreement: of each section that it or its reference has, 0 to 1. bleu: of the whole, 0 to 100, as notebook 06 counts it.
    facts: what was to be said, and whether it was. faults: of its form.
    """

    agreement: dict[str, float]
    bleu: float
    facts: dict[str, bool]
    faults: tuple[str, ...]


def mark_of(prediction: Prediction, facts: Sequence[dict[str, Any]] = ()) -> Mark:
    """What is kept of a prediction, judged by its own reference (`labels`).

    Args:
        facts: truth rows' facts of its step, see `metrics.load_truth`.
    """
    said, wanted = (parse(text).commentary for text in (prediction.response, prediction.labels))
    agrees, sure = agreement(section_text(said), section_text(wanted)), confidence(prediction)
    found = {
        "differs": agrees < AGREES,
        "no_safety": bool(wanted.safety) and not said.safety,
        "equation": equations_differ(section_text(said), section_text(wanted)),
        "unsure": sure < SURE,
        "fact": not all(fact_right(fact, prediction) for fact in facts),
        "form": not parse(prediction.full_dialogue).well_formed,
    }
    flags = frozenset(flag for flag, holds in found.items() if holds)
    return Mark(agrees, sure, flags, prediction.response.casefold(), text_hash(prediction.response))


def scores_of(prediction: Prediction, case: Case, facts: Sequence[dict[str, Any]] = ()) -> Scores:
    """Metrics of a prediction beside a case's reference."""
    import sacrebleu
    said = parse(prediction.response).commentary
    agrees = {kind: agreement(section_text(said, [kind]), section_text(case, [kind])) for kind in SECTIONS
              if getattr(said, kind) or getattr(case, kind)}
    bleu = sacrebleu.corpus_bleu([prediction.response], [[case.reference()]]).score
    right = {fact["en"]: fact_right(fact, prediction) for fact in facts}
    return Scores(agrees, bleu, right, parse(prediction.full_dialogue).faults)


def section_text(commentary: Commentary | Case, kinds: Sequence[str] = SECTIONS) -> str:
    """Sections as plain text, a note a line."""
    return "\n".join(line for kind in kinds for line in getattr(commentary, kind))


def confidence(prediction: Prediction) -> float:
    """Least distance of the gate's or a verdict's probability to its threshold, 0 to 1; infinite where none is recorded."""
    data = prediction.evaluation_data
    settings = data.get("settings") or {}
    gate, adaptive = data.get("retrieval_prob"), settings.get("knowledge", "adaptive") == "adaptive"
    decisions = [abs(gate - settings.get("tau", 0.5))] if adaptive and gate is not None else []
    decisions += [abs(prob - settings.get("verdict_threshold", 0.5)) for prob in data.get("relevance") or []]
    return min(decisions, default=math.inf)


def equations_differ(text: str, reference: str) -> bool:
    """Whether a text says an equation that does not balance or, beside a reference with equations, not the same ones."""
    said, wanted = ([e for line in side.splitlines() for e in _equations(line)] for side in (text, reference))
    if any(_balanced(equation) is False for equation in said):
        return True
    found = all(any(w.same(s) for s in said) for w in wanted)
    return bool(wanted) and not (found and all(any(s.same(w) for w in wanted) for s in said))


@lru_cache(maxsize=1 << 14)
def _equations(line: str) -> tuple[Equation, ...]:
    return tuple(find_equations(line))


@lru_cache(maxsize=1 << 14)
def _balanced(equation: Equation) -> bool | None:
    return equation.balanced  # reading formulas is slow, and the same ones come again and again

"""Siblings: the same step of other experiments under one title, and the words that tell a step from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from expstar_utils.datasets import Case

Place = tuple[str, str, int]  # subject, title, step number
COMMON = 0.7  # share of the siblings from which on a word does not tell them apart
WORD = re.compile(r"\d+[.,]\d+|\w+(?:-\w+)*")


def place_of(case: Case) -> Place:
    """What a step shares with its siblings."""
    return case.subject, case.title, case.step_number


def common_words(cases: Sequence[Case], words: Callable[[Case], set[str]]) -> dict[Place, set[str]]:
    """Words that do not tell a step from its siblings, by place: `COMMON` of them or more say them.

    Args:
        words: of a step, as they are compared.
    """
    siblings = Counter(place_of(case) for case in cases)
    said = Counter((place_of(case), word) for case in cases for word in words(case))
    found: dict[Place, set[str]] = {place: set() for place in siblings}
    for (place, word), count in said.items():
        if count >= COMMON * siblings[place]:
            found[place].add(word)
    return found


def sights(experiments: Sequence[Sequence[Case]]) -> dict[str, tuple[set[str], set[str]]]:
    """Telling words of every narration, by case id: (those that no earlier step of its experiment told, those one did).

    What the first say must be seen in the clip; what the second say may be out of sight by now.
    """
    words = {case.id: set(WORD.findall(" ".join(case.narration).lower())) for steps in experiments for case in steps}
    common = common_words([case for steps in experiments for case in steps], lambda case: words[case.id])
    found = {}
    for steps in experiments:
        before: set[str] = set()
        for case in steps:
            telling = words[case.id] - common[place_of(case)]
            found[case.id] = telling - before, telling & before
            before |= telling
    return found

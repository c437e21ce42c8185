"""Siblings: the same step of other experiments under one title, and the words that tell a step from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from expstar_utils.datasets import Case

Place = tuple[str, str, int]  # subject, title, step number
COMMON = 0.7  # share of the siblings from which on a word does not tell them apart
WORD = re.compile(r"\d+[.,]\d+|\w+(?:-\w+)*")


def place_of(case: Case) -> Place:
    """What a step shares with its siblings."""
    return case.subject, case.title, case.step_number


def sights(experiments: Sequence[Sequence[Case]]) -> dict[str, tuple[set[str], set[str]]]:
    """Telling words of every narration, by case id: (those that no earlier step of its experiment told, those one did).

    What the first say must be seen in the clip; what the second say may be out of sight by now.
    """
    words = {case.id: set(WORD.findall(" ".join(case.narration).lower())) for steps in experiments for case in steps}
    siblings = Counter(place_of(case) for steps in experiments for case in steps)
    said = Counter((place_of(case), word) for steps in experiments for case in steps for word in words[case.id])
    found = {}
    for steps in experiments:
        before: set[str] = set()
        for case in steps:
            place = place_of(case)
            telling = {word for word in words[case.id] if said[place, word] < COMMON * siblings[place]}
            found[case.id] = telling - before, telling & before
            before |= telling
    return found

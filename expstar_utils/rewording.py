"""Rewording: words that tell steps of one title apart are exchanged for others, everywhere alike."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from expstar_utils.datasets import Case
from expstar_utils.siblings import WORD, Place, common_words, place_of

EVERYDAY = 0.25  # share of all passages from which on a word is grammar rather than science


class Rewording:
    """The words that tell the experiments of one title apart at a step, and others to put in their place.

    Args:
        cases: steps to tell apart, by their narration and principle. passages: texts that show which words are everyday ones.
    """

    def __init__(self, cases: Sequence[Case], passages: Sequence[str]):
        counts = Counter(word for text in passages for word in set(_words(text)))
        everyday = {word for word, count in counts.items() if count > EVERYDAY * len(passages)}
        words = {case.id: set(_words("\n".join([*case.narration, *case.principle]))) - everyday for case in cases}
        common = common_words(cases, lambda case: words[case.id])
        self.telling: dict[Place, set[str]] = defaultdict(set)
        for case in cases:
            self.telling[place_of(case)] |= words[case.id] - common[place_of(case)]
        self.pools: dict[str, list[str]] = defaultdict(list)
        for word in sorted(set().union(*self.telling.values())):
            self.pools[_kind(word)].append(word)

    def draw(self, place: Place, texts: Sequence[str], share: float, rng: random.Random) -> dict[str, str]:
        """Telling word -> its substitute, for about `share` of the telling words in `texts`; no two get the same."""
        found = dict.fromkeys(word for text in texts for word in _words(text))
        taken, chosen = set(found), {}
        for word in found:
            if word in self.telling[place] and rng.random() < share:
                kind = _kind(word)
                new = _number_like(word, rng) if kind == "number" else rng.choice(self.pools[kind])
                if new not in taken:
                    chosen[word] = new
                    taken.add(new)
        return chosen


def reworded(text: str, substitutes: Mapping[str, str]) -> str:
    """A text with its words exchanged; a capital at the start of a word stays one."""
    def _exchange(match: re.Match) -> str:
        word = match[0]
        new = substitutes.get(_key(word), word)
        return new[:1].upper() + new[1:] if word[:1].isupper() and _kind(_key(word)) == "word" else new
    return WORD.sub(_exchange, text)


def _key(word: str) -> str:
    """Words without regard to a capital at their start; formulas, numbers and single letters as they are written."""
    return word.lower() if word[1:].replace("-", "").isalpha() and word[1:].islower() else word


def _words(text: str) -> list[str]:
    """Words as they are compared; a letter alone is an article, a unit or a symbol, and stays what it is."""
    return [_key(word) for word in WORD.findall(text) if len(word) > 1 or word.isdigit()]


def _kind(word: str) -> str:
    if re.fullmatch(r"[\d.,]+", word):
        return "number"
    return "word" if word.islower() and word.replace("-", "").isalpha() else "formula"


def _number_like(word: str, rng: random.Random) -> str:
    """A number with as many digits, and a nought in front where there was one."""
    digits = [c if not c.isdigit() or (i == 0 and c == "0") else str(rng.randint(i == 0, 9)) for i, c in enumerate(word)]
    return "".join(digits)

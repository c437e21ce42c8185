"""Phrases: what a note takes over word for word from its passage, and others to put in both.

A note says in a fixed sentence what its passage calls the thing and which law it gives. A data set has a dozen such notes a
title, and a model knows their phrases by heart: of a new passage it copies half a name. With a phrase of any other title in its
place, in note and passage alike, only copying is left. (So the thought; notes with such phrases were written better for it, those
of unseen variants not: `LOG.md`, 2026-11-30.)
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from difflib import SequenceMatcher
from typing import NamedTuple

from expstar_utils.datasets import Case
from expstar_utils.differences import WORD
from expstar_utils.records import Passage
from expstar_utils.rewording import Rewording, reworded
from expstar_utils.siblings import Place, common_words, place_of

OPENING, CLOSING = re.compile(r"[(\[+−-]"), re.compile(r"[)\]%°+]")  # marks that belong to a phrase at its start, at its end
NAME_WORDS = 4
NEW, TWO_IN_ONE = 0.5, 0.15  # shares of the substitutes
JOINTS = (", with ", ", and ", " together with ", ": ")


class Phrase(NamedTuple):
    """A stretch of a note, and how the passage spells it: other blanks, or another capital."""

    noted: str
    read: str


class Phrases:
    """Phrases of the cases' principles, and of the passages that they come from.

    Args:
        cases: steps with their notes. right: the passage of each, by case id. rewording: of those steps.
    """

    def __init__(self, cases: Sequence[Case], right: Mapping[str, Passage], rewording: Rewording):
        common = common_words(cases, lambda case: set(_keys("\n".join(case.principle))))
        self.of: dict[str, list[Phrase]] = {
            case.id: [phrase for line in case.principle for phrase in shared(line, right[case.id].text, common[place_of(case)])]
            for case in cases if case.id in right}
        self.rewording = rewording
        self.pools: dict[str, list[tuple[Place, str]]] = defaultdict(list)
        for case in cases:
            for phrase in self.of.get(case.id, []):
                if (entry := (place_of(case), phrase.noted)) not in self.pools[_kind(phrase.noted)]:
                    self.pools[_kind(phrase.noted)].append(entry)

    def draw(self, case: Case, share: float, rng: random.Random) -> list[tuple[Phrase, str]]:
        """Substitutes for about `share` of a case's phrases; half of them reworded, some of the longer ones two in one."""
        return [(phrase, self._substitute(_kind(phrase.noted), share, rng))
                for phrase in self.of.get(case.id, []) if rng.random() < share]

    def _substitute(self, kind: str, share: float, rng: random.Random) -> str:
        place, text = rng.choice(self.pools[kind])
        if rng.random() < NEW:
            text = reworded(text, self.rewording.draw(place, [text], share, rng))
        two = kind != "name" and rng.random() < TWO_IN_ONE
        return text + rng.choice(JOINTS) + self._substitute(kind, share, rng) if two else text


def shared(line: str, passage: str, common: Set[str] = frozenset()) -> list[Phrase]:
    """The stretches of a note's line that its passage holds too, in the order of the line.

    Args:
        common: words, in small letters, that do not tell; no phrase begins or ends with them, and each has some other.
    """
    mine, its = list(WORD.finditer(line)), list(WORD.finditer(passage))
    matcher = SequenceMatcher(None, [m[1].lower() for m in mine], [m[1].lower() for m in its], autojunk=False)
    def longest(start: int, end: int) -> list[tuple[int, int, int]]:
        a, b, size = matcher.find_longest_match(start, end, 0, len(its))
        return [*longest(start, a), (a, b, size), *longest(a + size, end)] if size else []
    phrases = []
    for a, b, size in longest(0, len(mine)):
        words = [m[1] for m in mine[a:a + size]]
        behind_hyphen = [line[m.start() - 1:m.start()] == "-" for m in mine[a:a + size]]
        first = next((i for i, word in enumerate(words) if _begins(word, common) and not behind_hyphen[i]), size)
        last = next((i for i in range(size - 1, first - 1, -1) if _ends(words[i], common)), first - 1)
        if any(_tells(word, common) for word in words[first:last + 1]):
            noted, read = (text[side[at + first].start():side[at + last].end(1)]
                           for text, side, at in ((line, mine, a), (passage, its, b)))
            phrases.append(Phrase(noted, read))
    return phrases


def exchanged(text: str, old: str, new: str) -> str:
    """The text with a phrase in another's place, wherever it stands by itself; at the start of a sentence with a capital."""
    def put(match: re.Match) -> str:
        return new[:1].upper() + new[1:] if match[0][:1].isupper() and not old[:1].isupper() else new
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", put, text, flags=re.IGNORECASE)


def _keys(text: str) -> list[str]:
    return [match[1].lower() for match in WORD.finditer(text)]


def _tells(word: str, common: Set[str]) -> bool:
    return word.lower() not in common and (len(word) > 1 or word.isdigit()) and word[0].isalnum()


def _begins(word: str, common: Set[str]) -> bool:
    return word.lower() not in common and (word[0].isalnum() or bool(OPENING.fullmatch(word)))


def _ends(word: str, common: Set[str]) -> bool:
    return word.lower() not in common and (word[0].isalnum() or bool(CLOSING.fullmatch(word)))


def _kind(phrase: str) -> str:
    """name, formula or clause: what reads alike."""
    if re.search(r"[=→]", phrase):
        return "formula"
    return "name" if len(_keys(phrase)) <= NAME_WORDS else "clause"

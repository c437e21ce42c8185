"""Word by word: where a text leaves its reference, and how much of it agrees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

CJK = r"\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"([{CJK}]|\d+(?:[.,]\d+)*|[^\W{CJK}]+|[^\w\s])(\s*)")  # a Chinese character is a word
RELATED = 0.3  # agreement below which two texts are shown as two: single words in common only litter the page
LONGEST = 600  # words of a text that are compared; a model that repeats itself must not hold up the page


@dataclass(frozen=True)
class Piece:
    """A stretch of text. kind: in both texts, only in the one that was written (added), or only in its reference (left out)."""

    kind: Literal["same", "added", "left_out"]
    text: str


def agreement(text: str, reference: str) -> float:
    """Share of the words of both texts that stand in both, in the same order; 0 to 1, two empty texts agree."""
    if text == reference:
        return 1.0
    written, wanted = words(text), words(reference)
    matched = sum(size for _, _, size in _matcher(written, wanted).get_matching_blocks())
    return 2 * matched / max(len(written) + len(wanted), 1)


def word_f1(text: str, reference: str) -> float:
    """F1 of the words that two texts share, each as often as it stands there; a Chinese character is a word."""
    a, b = (Counter(word for word, _ in words(t.lower()) if word[0].isalnum()) for t in (text, reference))
    shared = (a & b).total()
    return 2 * shared / max(a.total() + b.total(), 1)


def differences(text: str, reference: str) -> list[Piece]:
    """The text in pieces, with what it leaves out of its reference between them; blanks are kept, but do not count.

    Where less than `RELATED` agrees, the whole reference is left out, and the whole text added.
    """
    if agreement(text, reference) < RELATED:
        return [piece for piece in (Piece("left_out", reference), Piece("added", text)) if piece.text]
    return list(_joined(text, reference))


def crossings(text: str, other: str) -> list[tuple[int, int]]:
    """Places, (in text, in other), where two texts go on with the same word, and differ before and behind it.

    Counted in characters, up to the end of the word before.
    """
    begins, its_begins = ([match.start() for match in WORD.finditer(t)] for t in (text, other))
    shared = [block for block in _matcher(words(text), words(other)).get_matching_blocks() if block.size]
    places = [(len(text[:begins[m.b]].rstrip()), len(other[:its_begins[m.a]].rstrip())) for m in shared]
    return [(at, its_at) for at, its_at in places if text[:at] != other[:its_at] and text[at:] != other[its_at:]]


def words(text: str) -> list[tuple[str, str]]:
    """(word, the blanks behind it) of a text, in order."""
    return WORD.findall(text)


def _matcher(written: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> SequenceMatcher:
    sides = ([word for word, _ in side[:LONGEST]] for side in (wanted, written))
    return SequenceMatcher(None, *sides, autojunk=False)


def _joined(text: str, reference: str) -> Iterator[Piece]:
    written, wanted = words(text), words(reference)
    def piece(kind: Literal["same", "added", "left_out"], side: list[tuple[str, str]]) -> list[Piece]:
        return [Piece(kind, "".join(word + blank for word, blank in side))] if side else []
    for operation, a, b, c, d in _matcher(written, wanted).get_opcodes():
        if operation == "equal":
            yield from piece("same", written[c:d])
        else:
            yield from piece("left_out", wanted[a:b])
            yield from piece("added", written[c:d])
    yield from piece("left_out", wanted[LONGEST:])
    yield from piece("added", written[LONGEST:])

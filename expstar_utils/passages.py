"""From documents to passages: about a hundred words each, on sentence borders, clean, and none that says what another says."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from expstar_utils.records import Passage

WORDS, LEAST_WORDS, MOST_WORDS = 100, 8, 200  # of a passage: what is aimed at; fewer are dropped; a longer sentence is cut
BANDS, ROWS, SHINGLE = 5, 10, 3  # of the near-duplicate test, see `Novelty`
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
PIECE = re.compile(r"(?:[\u3400-\u9fff]|[^\s\u3400-\u9fff]{1,60})\s*")
SPACE = re.compile(r"[^\S\n]+")
MARKUP = re.compile(r"</?[A-Za-z!][^<>]*>|&(?:#\d+|#x[\da-fA-F]+|[A-Za-z]{2,8});")


@dataclass(frozen=True)
class Document:
    """Something to cut into passages: an id that stays, a title, its text, and how that falls into (heading, plain text).

    The text is taken apart when the document is cut: one that another shard takes costs nothing.
    """

    id: str
    title: str
    text: str
    parse: Callable[[str], Iterable[tuple[str, str]]]


def length(lines: Iterable[str]) -> int:
    """Words of a text; every Chinese character counts as one."""
    return sum(len(WORD.findall(line)) for line in lines)


def clean(text: str) -> str:
    """Text without markup, control and invisible characters; single spaces, and line ends where there were some."""
    if MARKUP.search(text):
        from bs4 import BeautifulSoup
        text = BeautifulSoup(text, "html.parser").get_text()
    text = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " * (c in "\t\r\x0b\x0c")
                   for c in unicodedata.normalize("NFC", text))
    return "\n".join(line for part in text.split("\n") if (line := SPACE.sub(" ", part).strip()))


def sentences(text: str, language: str = "en") -> list[str]:
    """Sentences of a clean text, line by line; one of more than MOST_WORDS is cut between its words."""
    from sentencex import segment
    return [piece for line in text.split("\n") for said in segment(language, line) if said.strip()
            for piece in _pieces(said.strip())]


def _pieces(sentence: str) -> Iterator[str]:
    """The sentence, or, if it is too long for a passage (a list, a text without full stops), stretches of it."""
    if length([sentence]) <= MOST_WORDS:
        yield sentence
        return
    words = PIECE.findall(sentence)
    yield from ("".join(words[at:at + WORDS]).strip() for at in range(0, len(words), WORDS))


def cut(document: Document, language: str = "en") -> Iterator[Passage]:
    """Passages of a document, in order. None crosses a section; a section is shared out evenly.

    An id is the document's and a digest of the text: it stays when other parts of the document change.
    """
    for heading, text in document.parse(document.text):
        spoken = sentences(clean(text), language)
        words = [length([sentence]) for sentence in spoken]
        count = max(round(sum(words) / WORDS), 1)
        parts: list[list[str]] = [[] for _ in range(count)]
        for sentence, own, until in zip(spoken, words, accumulate(words), strict=True):
            middle = (until - own / 2) / max(sum(words), 1)
            parts[min(int(middle * count), count - 1)].append(sentence)
        for part in parts:
            if length(part) >= LEAST_WORDS:
                said = " ".join(part)
                digest = hashlib.blake2b(f"{heading}\0{said}".encode(), digest_size=5).hexdigest()
                yield Passage(id=f"{document.id}-{digest}", title=clean(document.title), section=clean(heading), text=said)


class Novelty:
    """Tells near-duplicates: texts of which about nine in ten stretches of three words were seen before.

    MinHash of BANDS x ROWS values in locality-sensitive bands (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4): a
    text whose share of common stretches with an earlier one is 0.9 is found with probability 0.88, one with 0.5 with 0.005.
    Only the bands' digests are kept: BANDS integers a text.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def __call__(self, text: str) -> bool:
        """Whether a text is new; then it counts as seen from now on."""
        from rensa import RMinHash
        words = WORD.findall(text.lower())
        stretches = [" ".join(words[i:i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))]
        sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
        sketch.update(stretches)
        values = sketch.digest()
        bands = {int.from_bytes(hashlib.blake2b(repr((b, values[b * ROWS:(b + 1) * ROWS])).encode(), digest_size=8).digest())
                 for b in range(BANDS)}
        if bands & self._seen:
            return False
        self._seen |= bands
        return True


def new_ones(passages: Iterable[Passage], novelty: Novelty) -> Iterator[Passage]:
    """Those passages that say something new."""
    return (passage for passage in passages if novelty(passage.text))

"""Captions of a commentary: what is said when, in lines that fit the screen, no faster than people read.

A character counts 1, a Chinese one 2. A line holds LINE_UNITS, a caption two lines, a second SPEED_UNITS. A step's captions stay
in its own time and the silence behind it. Where that is too short for all of its notes, whole notes are left out, never parts:
half a safety note can say its opposite. Safety is kept first, as it cannot be seen, then narration, then principle. Or (`hold`)
the picture stands still at the step's end until all of them were read.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pysubs2

from expstar_utils.publishing.documents import KINDS, clean, language_of, same_steps

LINE_UNITS, LINES, SPEED_UNITS = 42, 2, 20
LEAST_MS = 1000  # a shorter caption is a flicker
KEPT_FIRST = ("safety", "narration", "principle")
SPOKEN_AS = {"en": {"principle": "Principle: ", "safety": "Safety: "}, "zh": {"principle": "原理：", "safety": "安全："}}
NOT_TAGS = str.maketrans("{}<>\\", "()＜＞/")  # players would swallow what stands between them
_WIDE = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\uffe0-\uffe6\U00020000-\U0003fffd"
_OPEN, _CLOSE = "〈《「『【〔（“‘", "、。〉》」』】〕）！，．：；？”’,.;:!?)%"
_PART = re.compile(rf"[{_OPEN}]*(?:[{_WIDE}]|[^\s{_WIDE}{_OPEN}]+|[{_OPEN}])[{_CLOSE}]*")


@dataclass(frozen=True)
class Note:
    """One note of a step with its label: its text in each language, and its captions, each of one or two lines."""

    step: int
    kind: str
    texts: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    need_ms: int


@dataclass(frozen=True)
class Caption:
    """One caption, [start_ms, end_ms) of the film that is shown."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    kind: str


@dataclass
class Plan:
    """What is shown when.

    captions: in order, none over another. spoken: (start_ms, note) for each note shown. holds: (place in the video, how much
    longer its last picture stands), both in ms. left_out: notes for which there was no time.
    """

    captions: list[Caption] = field(default_factory=list)
    spoken: list[tuple[int, Note]] = field(default_factory=list)
    holds: list[tuple[int, int]] = field(default_factory=list)
    left_out: list[Note] = field(default_factory=list)

    def shown_s(self, time_s: float) -> float:
        """When a moment of the video is shown, seconds; one at which the picture was held, after that."""
        return time_s + sum(wait for at, wait in self.holds if at / 1000 <= time_s + 1e-6) / 1000


def units(text: str) -> int:
    """Width of a text: Chinese characters 2, marks on another character 0, all others 1."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if character in "<>&":
        return 2  # see `readable`
    return 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")


def readable(text: str) -> str:
    """Text in which players see no tag, no entity and no time of a caption."""
    return re.sub(r":(?=\d\d[.,]\d\d)", "∶", re.sub(r"&(?=#?\w+;)", "＆", text.translate(NOT_TAGS)))


def wrap(text: str, width: int) -> list[str]:
    """Lines at most `width` units wide: broken at blanks and beside Chinese characters, but not before a closing mark."""
    edges, lines, start = [0, *accumulate(map(_width, text))], [], 0
    for part in _PART.finditer(text):
        if edges[part.end()] - edges[start] > width and part.start() > start:
            lines.append(text[start:part.start()].rstrip())
            start = part.start()
        while edges[part.end()] - edges[start] > width:  # longer than a line
            end = max(bisect_right(edges, edges[start] + width) - 1, start + 1)
            lines.append(text[start:end])
            start = end
    return [*lines, text[start:]] if text[start:] else lines


def balanced(text: str, count: int) -> list[str]:
    """At most `count` lines, as even as can be, where LINE_UNITS would do."""
    low, high = min(max(map(units, _PART.findall(text))), LINE_UNITS), LINE_UNITS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(wrap(text, middle)) <= count else (middle + 1, high)
    return wrap(text, low)


def captions_of(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """A note's captions: two lines of its one language, or a line of each of two; the shorter text's lines stay longer."""
    lines = [balanced(text, len(wrap(text, LINE_UNITS))) for text in texts if text]
    if len(lines) == 1:
        return [tuple(lines[0][i:i + LINES]) for i in range(0, len(lines[0]), LINES)]
    count = max(map(len, lines), default=0)
    return [tuple(own[i * len(own) // count] for own in lines) for i in range(count)]


def reading_ms(caption: Sequence[str], languages: int) -> int:
    """How long a caption must stand, ms; of two languages, a reader reads the one that takes longer."""
    read = max(map(units, caption)) if languages > 1 else sum(map(units, caption))
    return max(LEAST_MS, math.ceil(1000 * read / SPEED_UNITS))


def notes_of(steps: Sequence[dict], languages: Sequence[str], saying_ms: Callable[[str], int] | None = None) -> list[Note]:
    """Notes of a step, which `steps` holds in each language, as they are read.

    Args:
        saying_ms: how long the voice takes for a note of the first language; None when nothing is spoken.
    """
    notes = []
    for kind in KINDS:
        said = [[clean(text) for text in step[kind] if clean(text)] for step in steps]
        if len(set(map(len, said))) > 1:  # not one for one: all of them together
            said = [[("" if language == "zh" else " ").join(own)] for own, language in zip(said, languages)]
        for texts in zip(*said):
            labelled = tuple(SPOKEN_AS.get(language, SPOKEN_AS["en"]).get(kind, "") + text if text else ""
                             for text, language in zip(texts, languages))
            captions = tuple(captions_of(labelled))
            need = sum(reading_ms(c, sum(map(bool, labelled))) for c in captions)
            spoken = saying_ms(labelled[0]) if saying_ms and labelled[0] else 0
            notes.append(Note(steps[0]["step"], kind, labelled, captions, max(need, spoken)))
    return notes


def fitting(notes: Sequence[Note], room_ms: int) -> list[Note]:
    """Notes that can be read within `room_ms`: the first kinds of KEPT_FIRST before the others, in the order of reading."""
    kept, left = [], room_ms
    for place in sorted(range(len(notes)), key=lambda i: KEPT_FIRST.index(notes[i].kind)):
        if notes[place].need_ms <= left:
            kept.append(place)
            left -= notes[place].need_ms
    return [notes[i] for i in sorted(kept)]


def plan(docs: Sequence[dict], hold: bool = False, saying_ms: Callable[[str], int] | None = None) -> Plan:
    """Captions of a commentary in one language, or of the same steps in two.

    Raises:
        ExpStarError: the documents are not of the same steps.
    """
    same_steps(docs)
    made, last, waited = Plan(), 0, 0  # ms, of the video
    for steps, following in zip(zip(*(doc["steps"] for doc in docs)), [*docs[0]["steps"][1:], None]):
        notes = notes_of(steps, [language_of(doc) for doc in docs], saying_ms)
        start, end = max(round(1000 * steps[0]["start_s"]), last), round(1000 * steps[0]["end_s"])
        last = max(start, round(1000 * following["start_s"]) if following else end)
        shown = notes if hold else fitting(notes, last - start)
        made.left_out += [note for note in notes if not any(note is one for one in shown)]
        need = sum(note.need_ms for note in shown)
        _put(made, shown, start + waited, max(min(end, last) - start, need))
        if need > last - start:
            made.holds.append((last, need - (last - start)))
            waited += need - (last - start)
    return made


def _put(made: Plan, notes: Sequence[Note], at: int, length: int) -> None:
    """Spread notes over `length` ms from `at` on, each with its share of what it needs."""
    whole, before, start = sum(note.need_ms for note in notes), 0, at
    for note in notes:
        made.spoken.append((start, note))
        needs = [reading_ms(c, sum(map(bool, note.texts))) for c in note.captions]
        done = 0
        for lines, need in zip(note.captions, needs):
            done += need
            share = before + note.need_ms * done // sum(needs)
            end = at + length * share // whole
            made.captions.append(Caption(start, end, lines, note.kind))
            start = end
        before += note.need_ms


def subtitles(*docs: dict, made: Plan | None = None) -> pysubs2.SSAFile:
    """Subtitles of one document, or of two in different languages; nothing in them is a tag."""
    file = pysubs2.SSAFile()
    for caption in (made or plan(docs)).captions:
        text = r"\N".join(map(readable, caption.lines))
        file.append(pysubs2.SSAEvent(start=caption.start_ms, end=caption.end_ms, text=text))
    return file

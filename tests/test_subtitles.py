"""Captions: slow enough to read, short enough for the screen, none over another, and nothing is lost without being named."""

from __future__ import annotations

import itertools
import re

import pysubs2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expstar_utils.publishing.documents import KINDS, clean
from expstar_utils.publishing.subtitles import (
    LEAST_MS,
    LINE_UNITS,
    LINES,
    SPEED_UNITS,
    Plan,
    balanced,
    fitting,
    plan,
    readable,
    subtitles,
    units,
    wrap,
)
from expstar_utils.records import ExpStarError

NASTY = ["<script>alert(1)</script>", "a --> b", r"{\an8}up {\b1}bold", 'say "no" & \'yes\'', "&lt;b&gt; &amp;", "<b>x</b>",
         "\\N \\h", "WEBVTT", "NOTE x", "00:00:01.000 --> 00:00:02.000", "42", "STYLE",
         "-- >", "e\u0301\u0301a", "\u202eabc", "x" * 10_000,
         "长" * 10_000, "word " * 2000]


def doc(*steps: tuple, language: str = "en") -> dict:
    """Document of steps (start_s, end_s, narration, principle, safety)."""
    rows = [{"step": n, "start_s": a, "end_s": b, **dict(zip(KINDS, notes)), "passages": []}
            for n, (a, b, *notes) in enumerate(steps, 1)]
    return {"title": "t", "video": "a.mp4", "language": language, "steps": rows}


def one(*notes: str, length_s: float = 1000.0, **kinds: list[str]) -> dict:
    return doc((0.0, length_s, list(notes), kinds.get("principle", []), kinds.get("safety", [])))


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def check(made: Plan, languages: int = 1) -> None:
    """What every plan keeps to."""
    for caption in made.captions:
        length_s = (caption.end_ms - caption.start_ms) / 1000
        assert length_s * 1000 >= LEAST_MS
        assert 1 <= len(caption.lines) <= LINES
        assert all(line and units(line) <= LINE_UNITS for line in caption.lines)
        read = [sum(map(units, caption.lines))] if languages == 1 else [units(line) for line in caption.lines]
        assert all(count / length_s <= SPEED_UNITS for count in read)
    for before, after in itertools.pairwise(made.captions):
        assert before.end_ms <= after.start_ms


texts = st.text(st.sampled_from("abc XY.,-<>&{}\\一氧化碳。，（）→₂°\u0301"), min_size=1, max_size=150)
notes = st.lists(texts, max_size=3)


@st.composite
def documents(draw, language: str = "en") -> dict:
    rows, at = [], 0.0
    for _ in range(draw(st.integers(1, 4))):
        start = at + draw(st.sampled_from([0.0, 0.0, 0.7, 3.0, -0.4])) if rows else draw(st.floats(0, 5))
        at = max(start, 0) + draw(st.floats(0, 25))
        rows.append((max(start, 0.0), at, draw(notes), draw(notes), draw(notes)))
    return doc(*rows, language=language)


# What holds for every plan

@given(documents(), st.booleans())
def test_no_caption_is_too_fast_too_long_or_over_another(given_doc, hold):
    made = plan([given_doc], hold)
    check(made)
    assert not (hold and made.left_out)


@given(documents())
def test_captions_stay_between_their_steps_beginning_and_the_next_ones(given_doc):
    steps, made = given_doc["steps"], plan([given_doc])
    starts = [round(1000 * s["start_s"]) for s in steps]
    last = max(starts[-1], round(1000 * steps[-1]["end_s"]), *starts)
    for start, note in made.spoken:
        place = note.step - 1
        assert starts[place] <= start < (max(starts[:place + 2]) if place + 1 < len(starts) else last)
    assert all(c.end_ms <= last for c in made.captions)


@given(documents(), st.booleans())
def test_each_note_is_shown_whole_or_named_as_left_out(given_doc, hold):
    made = plan([given_doc], hold)
    wanted = sorted(clean(t) for s in given_doc["steps"] for kind in KINDS for t in s[kind] if clean(t))
    told = [*(note for _, note in made.spoken), *made.left_out]
    assert sorted(n.texts[0].removeprefix("Principle: ").removeprefix("Safety: ") if n.kind != "narration" else n.texts[0]
                  for n in told) == wanted
    shown = "".join(line for c in made.captions for line in c.lines)
    assert squeezed(shown) == squeezed("".join(note.texts[0] for _, note in made.spoken))


@given(documents())
def test_held_pictures_make_room_and_only_as_much_as_is_needed(given_doc):
    held, free = plan([given_doc], hold=True), plan([given_doc])
    assert bool(held.holds) == bool(free.left_out)
    times = [x / 10 for x in range(0, 600)]
    assert [held.shown_s(t) for t in times] == sorted(held.shown_s(t) for t in times)


@given(texts, st.integers(2, 60))
@example("a" * 300, 42)
@example("一" * 300, 42)
def test_wrapped_lines_fit_and_hold_every_character(text, width):
    text = clean(text)
    lines = wrap(text, width)
    assert all(units(line) <= width for line in lines)
    assert squeezed("".join(lines)) == squeezed(text)


def test_english_breaks_at_blanks_and_chinese_before_no_closing_mark():
    assert wrap("Open the tap slowly so that the gas flows", 14) == ["Open the tap", "slowly so that", "the gas flows"]
    assert wrap("一氧化碳有毒，小心。", 12) == ["一氧化碳有", "毒，小心。"]
    assert wrap("水（CO₂）呢", 7) == ["水", "（CO₂）", "呢"]
    assert balanced("Carbon monoxide", 3) == ["Carbon", "monoxide"], "no word is broken for evenness"
    text = "Hold a cold dry beaker over the bright blue flame."
    assert balanced(text, 2) == ["Hold a cold dry beaker over", "the bright blue flame."]


def test_a_chinese_character_counts_two_and_an_accent_nothing():
    assert [units(t) for t in ("abc", "一氧", "e\u0301", "→₂°", "（", "<&>")] == [3, 4, 1, 3, 2, 6]


# The policy

def test_captions_fill_their_step_each_as_long_as_its_text_needs():
    made = plan([doc((2.0, 12.0, ["a" * 20, "b" * 40], [], []))])
    assert [(c.start_ms, c.end_ms) for c in made.captions] == [(2000, 5333), (5333, 12000)]


def test_a_short_step_runs_on_into_the_silence_behind_it_but_not_into_the_next():
    quiet = plan([doc((0.0, 1.0, ["a" * 40], [], []), (3.0, 9.0, ["b"], [], []))])
    assert [(c.start_ms, c.end_ms) for c in quiet.captions] == [(0, 2000), (3000, 9000)]
    busy = plan([doc((0.0, 1.0, ["a" * 40], [], []), (1.0, 9.0, ["b"], [], []))])
    assert [c.start_ms for c in busy.captions] == [1000]
    assert [note.texts[0] for note in busy.left_out] == ["a" * 40]


def test_safety_is_kept_first_then_narration_and_all_are_read_in_order():
    step = (["n" * 40], ["p" * 20], ["s" * 32])  # with their labels 2 s, 1.55 s and 2 s
    kinds = [[c.kind for c in plan([doc((0.0, length_s, *step))]).captions] for length_s in (1.5, 2, 4, 5.6)]
    assert kinds == [[], ["safety"], ["narration", "safety"], ["narration", "principle", "safety"]]


def test_what_was_left_out_is_shown_when_the_picture_waits():
    step = (["n" * 40], ["p" * 20], ["s" * 32])
    made = plan([doc((0.0, 2.0, *step), (2.0, 4.0, ["x" * 20], [], []))], hold=True)
    assert made.holds == [(2000, 3550)]
    assert [c.kind for c in made.captions] == ["narration", "principle", "safety", "narration"]
    assert (made.captions[-1].start_ms, made.captions[-1].end_ms) == (5550, 7550)
    assert (made.shown_s(1.9), made.shown_s(2.0)) == (1.9, 5.55)


def test_a_spoken_note_stays_as_long_as_it_is_spoken():
    made = plan([one("abc", length_s=1)], hold=True, saying_ms=lambda text: 1000 * len(text))
    assert [(c.start_ms, c.end_ms) for c in made.captions] == [(0, 3000)]
    assert made.holds == [(1000, 2000)]


def test_fitting_takes_later_notes_where_an_earlier_one_is_too_long():
    made = plan([one("a" * 60, "b" * 20, length_s=1.5)])
    assert [c.lines for c in made.captions] == [("b" * 20,)]
    assert fitting(made.left_out, 10_000) == made.left_out


@pytest.mark.parametrize("notes", [[], [""], ["  \n "], ["\x00\x07"]])
def test_a_step_without_words_has_no_caption(notes):
    made = plan([one(*notes)])
    assert not made.captions
    assert not made.left_out
    assert len(subtitles(one(*notes))) == 0


# Two languages

EN = doc((0.0, 30.0, ["Hold a cold dry beaker over the bright blue flame of the gas.", "It stays dry."], [], ["Wear goggles."]))
ZH = doc((0.0, 30.0, ["在火焰上方罩一只冷而干燥的烧杯。", "内壁保持干燥。"], [], ["戴护目镜。"]), language="zh")


def test_two_languages_stand_in_two_lines_of_each_caption():
    made = plan([EN, ZH])
    check(made, languages=2)
    assert [c.lines for c in made.captions] == [
        ("Hold a cold dry beaker over the", "在火焰上方罩一只冷而干燥的烧杯。"),
        ("bright blue flame of the gas.", "在火焰上方罩一只冷而干燥的烧杯。"),
        ("It stays dry.", "内壁保持干燥。"), ("Safety: Wear goggles.", "安全：戴护目镜。")]


@given(documents("en"), st.data())
def test_two_languages_keep_to_the_same_rules(english, data):
    chinese = {**english, "language": "zh", "steps": [
        {**step, **{kind: data.draw(notes) for kind in KINDS}} for step in english["steps"]]}
    made = plan([english, chinese], hold=True)
    for c in made.captions:
        assert 1 <= len(c.lines) <= 2
        assert all(line and units(line) <= LINE_UNITS for line in c.lines)
        assert max(map(units, c.lines)) / (c.end_ms - c.start_ms) * 1000 <= SPEED_UNITS
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(made.captions))
    for place, own in enumerate((english, chinese)):
        wanted = "".join(clean(t) for s in own["steps"] for kind in KINDS for t in s[kind])
        told = "".join(note.texts[place] for _, note in made.spoken)
        assert squeezed(re.sub("Principle: |Safety: |原理：|安全：", "", told)) == squeezed(wanted)


@pytest.mark.parametrize(("other", "words"), [
    (doc(*[(0.0, 15.0, [], [], [])] * 2, language="zh"), ("1 and 2", "same steps")),
    (doc((0.0, 31.0, [], [], []), language="zh"), ("0:00:30", "0:00:31")),
    (EN, ("'en' in both", "correct its language"))])
def test_documents_that_do_not_match_are_refused_in_one_sentence(other, words):
    with pytest.raises(ExpStarError) as caught:
        subtitles(EN, other)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


# Files

@pytest.mark.parametrize("format_", ["srt", "vtt"])
@pytest.mark.parametrize("text", NASTY)
def test_what_is_no_text_to_players_reads_back_as_text(text, format_):
    noted = one(text, safety=[text], length_s=10_000)
    file = subtitles(noted)
    written = file.to_string(format_)
    assert written == subtitles(noted).to_string(format_), "same input, same bytes"
    back = list(pysubs2.SSAFile.from_string(written, format_=format_))
    assert [(e.start, e.end) for e in back] == [(e.start, e.end) for e in file]
    shown = squeezed("".join(e.plaintext for e in back))
    assert shown == squeezed(readable(clean(text) + f"Safety: {clean(text)}"))
    assert not re.search(r"[{}<>\\]", "".join(e.text.replace(r"\N", "") for e in back))
    assert not re.search(r"&#?\w+;", written), "no entity"

"""What people read: subtitles other programs read back, inside their steps; Markdown that shows text as it is."""

from __future__ import annotations

import itertools
import re

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils.datasets import Case
from expstar_utils.export import LINE_CHARACTERS, document, markdown, subtitles, write_commentary
from expstar_utils.files import read_json
from expstar_utils.records import Prediction, VirtualClip, format_time

STEPS = [(0.0, 4.25, ["The jar is opened.", "一氧化碳从导管排出" * 6], ["2CO + O2 → 2CO2"], ["Work in a fume hood."]),
         (4.25, 9.5, ["The gas burns with a pale blue flame that can hardly be seen in a bright room."], [], []),
         (12.0, 15.001, ["It is <50 °C & {safe}: a<b>c --> d \\N e"], [], ["Wear goggles."])]


def case(number: int, start_s: float, end_s: float) -> Case:
    return Case(id=f"chemistry_{number}", experiment="chemistry/a", subject="chemistry", title="t", step_number=number,
                clip=VirtualClip(video="a.mp4", start=start_s, end=end_s), summary="s", narration=["n"])


def prediction(number: int, narration, principle, safety, **data) -> Prediction:
    response = "".join(f"{tag}\n" + "".join(f"{line}\n" for line in lines) for tag, lines in
                       (("<Narration>", narration), ("<Principle>", principle), ("<Safety>", safety)) if lines)
    data = {"passage_ids": ["p1", "p2"], "passage_titles": ["Gas", "Ice"], "relevance": [0.9, 0.2], "relevant_ids": ["p1"],
            "settings": {"verdict_threshold": 0.5},
            "retrieval_prob": 0.75, "is_retrieval": True} | data
    return Prediction(id=f"chemistry_{number}", response=response, full_dialogue=response, evaluation_data=data)


def made(steps=STEPS, title="A gas burns", **data) -> dict:
    cases = [case(i, start_s, end_s) for i, (start_s, end_s, *_) in enumerate(steps, 1)]
    return document(title, "a.mp4", cases, [prediction(c.step_number, *step[2:], **data) for c, step in zip(cases, steps)])


def squeezed(text: str) -> str:
    return re.sub(r"\s|\\N", "", text)


# The document

def test_document_holds_what_was_said_and_where_it_comes_from():
    doc = made()
    first = doc["steps"][0]
    assert (first["step"], first["start_s"], first["end_s"], first["retrieved"]) == (1, 0.0, 4.25, True)
    assert (first["narration"], first["principle"], first["safety"]) == tuple(STEPS[0][2:])
    assert first["passages"] == [{"id": "p1", "title": "Gas", "relevance": 0.9, "relevant": True, "used": True},
                                 {"id": "p2", "title": "Ice", "relevance": 0.2, "relevant": False, "used": False}]


def test_prediction_too_few_is_an_error_not_a_shorter_page():
    with pytest.raises(ValueError, match="zip"):
        document("t", "a.mp4", [case(1, 0, 1), case(2, 1, 2)], [prediction(1, ["a"], [], [])])


# Subtitles

@pytest.mark.parametrize("suffix", ["srt", "vtt"])
def test_subtitles_read_back_with_every_note_inside_its_step(suffix, tmp_path):
    doc = made()
    write_commentary(tmp_path, doc)
    lines = list(pysubs2.load(str(tmp_path / f"commentary.{suffix}")))
    notes = [(step, note) for step in doc["steps"] for note in (
        *step["narration"], *(f"Principle: {x}" for x in step["principle"]), *(f"Safety: {x}" for x in step["safety"]))]
    assert len(lines) == len(notes)
    for line, (step, note) in zip(lines, notes):
        assert step["start_s"] * 1000 - 1 <= line.start < line.end <= step["end_s"] * 1000 + 1
        readable = note.translate(str.maketrans("<>{}\\", "＜＞()/"))
        assert squeezed(line.text) == squeezed(readable), "no word is lost, whatever stands between brackets"
        assert all(len(shown) <= LINE_CHARACTERS for shown in line.plaintext.split("\n"))
    for one, next_one in itertools.pairwise(lines):
        assert one.end <= next_one.start
    for step in doc["steps"]:
        own = [line for line, (owner, _) in zip(lines, notes) if owner is step]
        assert (own[0].start, own[-1].end) == (round(step["start_s"] * 1000), round(step["end_s"] * 1000))


@given(st.lists(st.text("abc 一<>&{}", min_size=1, max_size=80).filter(lambda s: s.strip()), min_size=1, max_size=6),
       st.floats(0, 1000), st.floats(1, 60))
def test_times_increase_and_longer_notes_stay_longer(notes, start_s, length_s):
    doc = {"steps": [{"narration": notes, "principle": [], "safety": [], "start_s": start_s, "end_s": start_s + length_s}]}
    lines = list(subtitles(doc))
    assert [line.start for line in lines] == sorted(line.start for line in lines)
    for one, next_one in itertools.pairwise(lines):
        assert one.end == next_one.start
    assert abs(lines[-1].end / 1000 - (start_s + length_s)) < 0.002
    longest = max(range(len(notes)), key=lambda i: len(notes[i]))
    assert lines[longest].duration >= max(line.duration for line in lines) - 1


def test_step_in_which_nothing_was_said_has_no_subtitle():
    assert len(subtitles(made([(0, 1, [], [], []), (1, 2, ["a"], [], [])]))) == 1


# Markdown

MARKUP = r"\`*_{}[]<>#|~&$"
UGLY = ["<script>alert(1)</script>", "![x](http://a.b/c.png)", "[click](javascript:x)", "**bold** _it_ `code`", "# heading",
        "- item", "+ item", "1. one", "23) two", "> quote", "| a | b |", "~~gone~~", "&lt;b&gt;", "$x^2$", "===", "---",
        "a\\*b", "\\"]


def unescaped(text: str) -> str:
    """Text as CommonMark shows it, where every markup character is escaped; fails where one is not."""
    assert not re.search(rf"(?<!\\)(?:\\\\)*[{re.escape(MARKUP[1:])}]", text), text
    assert not re.match(r"[-+=]|\d+[.)]", text), text
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


@pytest.mark.parametrize("ugly", UGLY)
def test_markdown_shows_texts_of_models_and_data_as_they_are(ugly):
    page = markdown(made([(0, 1, [ugly], [ugly], [ugly])], title=ugly, passage_titles=[ugly, "Ice"], passage_ids=[ugly, "p2"],
                         relevant_ids=[ugly]))
    blocks = [block for block in page.split("\n") if block]
    assert unescaped(blocks[0].removeprefix("# ")) == ugly
    assert blocks[1].startswith("## Step 1 (")
    assert unescaped(blocks[2]) == ugly
    assert unescaped(blocks[3].removeprefix("> **Principle.** ")) == ugly
    assert unescaped(blocks[4].removeprefix("> **Safety.** ")) == ugly
    assert unescaped(blocks[5].removeprefix("Sources: ")) == f"{ugly} ({ugly}, relevance 0.90)"


def test_title_cannot_begin_a_new_block():
    assert markdown({"title": "a\n\n# b\n<b>", "steps": []}) == "# a \\# b \\<b\\>\n"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60).map(lambda s: " ".join(s.split())))
def test_markdown_title_reads_back(title):
    first = markdown({"title": title, "steps": []})
    assert first.count("\n") == 1
    assert unescaped(first[2:-1]) == title


def test_page_names_steps_times_and_only_the_passages_that_were_used():
    page = markdown(made())
    for number, (start_s, end_s, *_) in enumerate(STEPS, 1):
        assert f"## Step {number} ({format_time(round(start_s))} to {format_time(round(end_s))})" in page
    assert "Gas (p1, relevance 0.90)" in page
    assert "Ice" not in page
    assert "Sources" not in markdown(made(relevant_ids=[]))


def test_four_files_are_written_and_the_json_is_the_document(tmp_path):
    doc = made()
    paths = write_commentary(tmp_path / "out 'x'", doc)
    assert [p.name for p in paths] == ["commentary.json", "commentary.md", "commentary.srt", "commentary.vtt"]
    assert read_json(paths[0]) == doc
    assert paths[1].read_text(encoding="utf8") == markdown(doc)
    before = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in write_commentary(tmp_path / "out 'x'", doc)] == before
    assert len(pysubs2.load(str(paths[2]))) == len(subtitles(doc))

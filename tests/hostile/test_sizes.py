"""Fields of megabytes, a hundred thousand rows of one id, nesting and numbers without end: a result or a sentence, soon."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest
from hostile_data import answer, one_sentence
from pydantic import BaseModel

from expstar_utils import corpus, files, frozen, knowledge
from expstar_utils.chat import found_in
from expstar_utils.datasets import Case, case_from_pair
from expstar_utils.evaluation_rows import read_pairs
from expstar_utils.export import markdown
from expstar_utils.inspector.cases import Casebook
from expstar_utils.pairs import read_items
from expstar_utils.publishing.page import page
from expstar_utils.publishing.subtitles import subtitles
from expstar_utils.records import (
    AsrFile,
    Pair,
    Prediction,
    RawStep,
    Record,
    RetrievalResult,
    Sample,
    Subtitle,
    VirtualClip,
    parse_time,
)
from expstar_utils.sources import documents

MANY, MEGABYTES = 100_000, 10
DEEP = "[" * MANY + "]" * MANY
DEEP_OBJECT = '{"a":' * MANY + "1" + "}" * MANY
LONG_NUMBER = "9" * 10_000
HUGE = "x" * (MEGABYTES << 20)
KINDS = (AsrFile, Case, Pair, Prediction, RetrievalResult, Sample, VirtualClip)


@pytest.fixture(autouse=True)
def bounds():
    """No test may take longer than twenty seconds of this process or two GiB more than there was."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20


# Nesting and numbers


@pytest.fixture(
    params=[DEEP, DEEP_OBJECT, LONG_NUMBER, f'{{"id": {LONG_NUMBER}}}', f'{{"id": {DEEP}}}', "-" + LONG_NUMBER],
    ids=["list", "object", "number", "field", "deep", "minus"],
)
def text(request):
    return request.param


def test_json_files_are_refused_in_a_sentence(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text + "\n")
    one_sentence(lambda: files.read_json(path), "a.json")
    for kind in KINDS:
        one_sentence(lambda kind=kind: files.read_record(path, kind), "a.json")
        one_sentence(lambda kind=kind: list(files.read_jsonl(path, kind)), "a.json, line 1")


def test_a_torn_line_of_any_kind_is_dropped(text, tmp_path):
    """A last line without its end is what a killed writer leaves."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + text)
    assert len(list(files.read_jsonl(path, Record))) == 1
    files.append_jsonl(path, {"b": 2})
    assert [row.to_dict() for row in files.read_jsonl(path, Record)] == [{"a": 1}, {"b": 2}]


def test_raw_files_rows_notes_and_answers_go_on(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    items, problems = read_items(path, "steps", RawStep, "a.json")
    assert not items
    assert len(problems) == 1
    rows = tmp_path / "a.jsonl"
    rows.write_text(text + '\n{"id": "1", "title": "t", "text": "x y z"}\n')
    reported = []
    assert [d.id for d in documents(rows, reported.append)] == ["1"]
    assert reported
    rows.write_text(text + '\n{"id": "1", "response": "x", "labels": "x"}\n')
    scored = answer(lambda: read_pairs(rows))
    assert text.startswith("[") if scored is None else [p.id for p in scored[0]] == ["1"]  # a file that begins so is one list
    with pytest.raises(ValueError, match="."):
        found_in(f'{{"a": {text}}}', BaseModel)
    run = tmp_path / "run"
    rows = files.write_jsonl(
        run / "5_predictions" / "m.jsonl", [{"id": "a_1", "response": "x", "full_dialogue": "x", "labels": "x"}]
    )
    with open(rows, "a") as file:
        file.write(text + "\n")
    book = Casebook([run])
    assert list(book.entries) == ["a_1"]
    assert any("m.jsonl, line 2" in p for p in book.problems)


@pytest.mark.parametrize("depth", [20, 100, 240, 400, 900])
def test_nesting_that_is_read_can_be_written(depth, tmp_path):
    """Either a file is refused when it is read, or what was read can be written again."""
    path = tmp_path / "a.json"
    path.write_text(f'{{"id": "1", "response": "", "full_dialogue": "", "evaluation_data": {{"a": {"[" * depth}{"]" * depth}}}}}')
    read = answer(lambda: files.read_record(path, Prediction))
    if read is None:
        assert depth > 100
        return
    assert files.read_json(files.write_json(tmp_path / "b.json", read)) == files.read_json(path)


def test_times_without_end_are_refused():
    for value in (
        "9" * 400,
        "9" * 400 + ":00:00",
        LONG_NUMBER + ":1:1",
        10**400,
        10**5000,
        1e308 * 10,
        float("nan"),
        "1e999",
        "-1",
        "1:" * 50_000,
    ):
        with pytest.raises(ValueError, match="."):
            parse_time(value)


@pytest.mark.parametrize(
    "value", ["1e999", "NaN", "-Infinity", "9" * 400, "9" * 4000], ids=["inf", "nan", "minus", "long", "longer"]
)
def test_a_virtual_clip_lies_at_a_finite_time(value, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'{{"video": "x.mp4", "start": {value}, "end": 1}}')
    one_sentence(lambda: files.read_record(path, VirtualClip), "a.json", "start is")


# Fields


def test_a_fault_in_a_huge_field_is_told_in_a_line(tmp_path):
    for wrong in (HUGE, ["x"] * MANY, {str(i): i for i in range(MANY)}):
        path = files.write_json(tmp_path / "a.json", {"video": wrong, "start": wrong, "end": wrong})
        one_sentence(lambda path=path: files.read_record(path, VirtualClip), "a.json")


def test_huge_texts_survive_or_are_refused(tmp_path):
    """They are only read, split and escaped: linear work."""
    line = Subtitle(id=1, startTime=0, endTime=1, text_en=HUGE)
    pair = Pair(
        title_en=HUGE,
        original_video="a.mp4",
        clip_start=0,
        clip_end=1,
        step_number=1,
        clip_video_path="a.mp4",
        subject="chemistry",
        annotations=[line],
    )
    path = files.write_json(tmp_path / "pair.json", pair)
    case = case_from_pair(files.read_record(path, Pair), "chemistry/x", "x_1")
    assert len(case.query) > 2 * len(HUGE)
    passages = files.write_jsonl(tmp_path / "kb" / "a.jsonl", [{"id": "1", "text": HUGE}])
    one_sentence(lambda: knowledge.load_knowledge(passages.parent), "shards")
    assert len(corpus.table_of([case])) == 1


@pytest.mark.parametrize(
    "text", ["x" * (1 << 18), "x " * (1 << 17), "盐" * (1 << 17), "<" * (1 << 18)], ids=["word", "words", "chinese", "tags"]
)
def test_a_note_of_a_quarter_of_a_megabyte_is_written(text, tmp_path):
    """A hundred pages in one note: linear work."""
    step = {"step": 1, "start_s": 0.0, "end_s": 30.0, "narration": [text], "principle": [], "safety": [], "passages": []}
    doc = {"title": "x", "video": "gone.mp4", "language": "en", "steps": [step]}
    assert len(markdown(doc)) > len(text) // 2
    assert len(page([doc], tmp_path)) > len(text) // 2
    assert not len(subtitles(doc))  # no time to read it


# Rows


@pytest.fixture(scope="module")
def same(tmp_path_factory) -> Path:
    """A hundred thousand rows of one id."""
    path = tmp_path_factory.mktemp("same") / "a.jsonl"
    row = {
        "id": "1",
        "response": "x",
        "labels": "x",
        "text": "x",
        "query": "q",
        "video_path": "a.mp4",
        "is_rag": True,
        "documents": [],
    }
    path.write_text((json.dumps(row) + "\n") * MANY)
    return path


def test_one_id_a_hundred_thousand_times(same):
    pairs, problems = read_pairs(same)
    assert len(pairs) == 1
    assert len(problems) == MANY - 1
    one_sentence(lambda: knowledge.load_knowledge(same.parent), "stands twice")
    one_sentence(lambda: frozen.thaw(same), "stands twice")


def test_one_row_a_hundred_thousand_times_is_merged():
    row = Sample(id="1", messages=[], videos=["a.mp4"])
    rows, problems = corpus.merge({"a": [row] + [row.model_copy() for _ in range(MANY // 4)]})
    assert len(rows) == 1
    assert len(problems) == MANY // 4


def test_one_subtitle_a_hundred_thousand_times(tmp_path):
    line = {"id": 1, "startTime": 0, "endTime": 1, "text": "x"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"subtitles": [line] * MANY}))
    lines, problems = read_items(path, "subtitles", Subtitle, "a.json")
    assert len(lines) == MANY
    assert not problems

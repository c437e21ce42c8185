"""What is known of each case: joined from whatever is there, found by fault and by word, shown as text and nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspected_run import SCRIPT, case, prediction, three_steps, write_run

from expstar_utils.differences import agreement, crossings, differences
from expstar_utils.inspector import footage, panels
from expstar_utils.inspector.cases import Casebook
from expstar_utils.inspector.footage import frames_at, jpegs, shown_clip, span_of
from expstar_utils.inspector.marks import FLAGS, equations_differ, mark_of
from expstar_utils.media import probe, sample_frames
from expstar_utils.miniatures import noise_clip
from expstar_utils.records import ExpStarError, Prediction, VirtualClip

TEXTS = st.lists(st.sampled_from(["the", "flame", "is", "blue", "绿", "色", ",", "2.5", "\n"]), max_size=12).map(" ".join)
SHOWN_TAGS = {"div", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "span", "br", "ins", "del", "details", "summary",
              "ul", "li", "i", "b"}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return three_steps(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="module")
def book(steps):
    return Casebook([steps])


# Joining

def test_a_case_comes_with_its_reference_and_what_every_run_wrote(book):
    assert list(book.runs) == ["bad", "good"]
    view = book.view("chemistry_2", ["good", "bad"])
    assert view.case.narration == ["Heat the salt.", "Watch flame 2."]
    assert list(view.predictions) == ["good", "bad"]
    assert SCRIPT in view.predictions["bad"].response
    assert (view.facts, view.gold, view.notes, book.problems) == ([], None, (), [])


@pytest.mark.parametrize(("flag", "said"), [
    ("no_safety", {"safety": []}), ("differs", {"narration": ["Quite another thing is done here, with glass and lamp."]}),
    ("equation", {"principle": ["H2 + O2 → H2O releases heat."]}),
    ("equation", {"principle": ["2CO + O2 → 2CO2 releases heat."]}),
    ("unsure", {"prob": 0.6}), ("unsure", {"prob": 0.2, "tau": 0.1})])
def test_a_flag_is_raised_by_its_fault_alone(flag, said):
    assert mark_of(prediction(case(1))).flags == set()
    assert mark_of(prediction(case(1), **said)).flags == {flag}


def test_a_verdict_near_its_threshold_and_bad_form_are_flagged():
    close = prediction(case(1)).model_copy(deep=True)
    close.evaluation_data["relevance"][0] = 0.71
    assert mark_of(close).flags == {"unsure"}
    formless = prediction(case(1)).model_copy(update={"full_dialogue": "no tag"})
    assert mark_of(formless).flags == {"form"}


def test_facts_are_checked_where_the_truth_is_known(tmp_path, steps):
    fact = {"name": "number", "kind": "quantity", "section": "narration", "en": "flame 2", "others": ["flame 1"]}
    row = {"experiment": "chemistry/01-Flames", "step": 2, "facts": [fact], "gold": ["salt"]}
    truth = tmp_path / "truth.jsonl"
    truth.write_text(json.dumps(row) + "\n", encoding="utf8")
    known = Casebook([steps], truth)
    assert known.find(["bad", "good"], flags=["fact"]) == ["chemistry_2"]
    assert known.find(["good"], flags=["fact"]) == []
    view = known.view("chemistry_2", ["bad"])
    assert (view.facts, view.gold) == ([fact], {"salt"})
    shown = panels.commentary(view, {"bad": known.runs["bad"].marks["chemistry_2"]})
    assert "0 of 1; missed: flame 2" in shown
    assert Casebook([steps], tmp_path / "none.jsonl").problems[0].endswith("no facts are checked")


@pytest.mark.parametrize(("text", "reference", "differ"), [
    ("2H2 + O2 → 2H2O", "O2 + 2H2 → 2H2O", False), ("", "", False), ("H2 + O2 → H2O", "", True), ("2H2 + O2 → 2H2O", "", False),
    ("", "2H2 + O2 → 2H2O", True), ("2H2 + O2 → 2H2O; 2CO + O2 → 2CO2", "2H2 + O2 → 2H2O", True)])
def test_equations_differ(text, reference, differ):
    assert equations_differ(text, reference) is differ


# Finding

@pytest.mark.parametrize(("search", "found"), [
    ("", [1, 2, 3]), ("FLAME tests", [1, 2]), ("本生灯", [3]), ("window.taken", [2]), ("watch 3", [3]), ("chemistry_2", [2]),
    ("nowhere", []), ("goggles zebra", [])])
def test_search_finds_all_words_in_case_and_commentary(book, search, found):
    assert book.find(["bad"], search=search) == [f"chemistry_{n}" for n in found]


def test_filters_hold_together_and_order_puts_the_worst_first(book):
    assert book.find(["bad"], flags=["no_safety"]) == ["chemistry_1"]
    assert book.find(["bad"], flags=["no_safety", "unsure"]) == []
    assert book.find(["bad"], step=3, subject="chemistry", experiment="chemistry/01-Flames") == ["chemistry_3"]
    assert book.find(["bad"], subject="optics") == []
    assert book.find(["bad"], order="confidence")[0] == "chemistry_2"
    ordered = [book.runs["bad"].marks[i].agreement for i in book.find(["bad"], order="agreement")]
    assert ordered == sorted(ordered)
    assert book.counts(book.find(["bad", "good"]), ["bad", "good"])["no_safety"] == 1
    assert book.summary()["good"] == {"cases": 3, "agreement": 1.0} | dict.fromkeys(FLAGS, 0)


def test_without_a_run_all_cases_are_there_and_with_one_those_it_predicted(tmp_path):
    run = write_run(tmp_path / "run", [case(1), case(2)], {"one": [prediction(case(1))]})
    book = Casebook([run])
    assert book.find() == ["chemistry_1", "chemistry_2"]
    assert book.find(["one"]) == ["chemistry_1"]


def test_runs_of_several_folders_stand_side_by_side(tmp_path):
    folders = [write_run(tmp_path / name, [case(1)], {"test": [prediction(case(1))]}) for name in ("a", "b/x", "c/x")]
    book = Casebook(folders)
    assert list(book.runs) == ["test", "x/test", f"{folders[2].as_posix()}/test"]
    assert len(book.view("chemistry_1", book.runs).predictions) == 3


# What is missing or bad

def test_a_run_without_predictions_shows_its_cases(tmp_path):
    book = Casebook([write_run(tmp_path / "run", [case(1)], {})])
    assert book.find() == ["chemistry_1"]
    assert "run notebook 05" in book.problems[0]
    assert "No run that is chosen predicted this case." in panels.commentary(book.view("chemistry_1"), {})


def test_predictions_without_cases_bring_their_reference_along(tmp_path):
    book = Casebook([write_run(tmp_path / "run", [], {"one": [prediction(case(1), safety=[])]})])
    assert "cases.jsonl: no such file" in book.problems[0]
    view = book.view("chemistry_1", ["one"])
    assert (view.case.safety, view.case.subject, view.case.title) == (["Wear goggles."], "chemistry", "")
    assert book.find(["one"], flags=["no_safety"]) == ["chemistry_1"]
    with pytest.raises(ExpStarError, match="no clip for this id"):
        span_of(view.case.clip, tmp_path)


def test_nothing_at_all_is_an_error_in_a_sentence(tmp_path):
    with pytest.raises(ExpStarError, match=r"found neither cases nor predictions.*run notebooks 02 and 05"):
        Casebook([tmp_path / "no run"])
    assert not (tmp_path / "no run").exists()


def test_torn_bad_and_odd_rows_are_named_and_the_others_shown(tmp_path):
    odd = prediction(case(2)).model_copy(deep=True)
    odd.evaluation_data["relevance"] = ["high"]
    run = write_run(tmp_path / "run", [case(1), case(2)], {"torn": [prediction(case(1))], "bad": [prediction(case(1))],
                                                           "odd": [odd, prediction(case(1))]})
    for name, rest in (("torn", '{"id": "chem'), ("bad", '{"id": 3}\n')):
        with open(run / "5_predictions" / f"{name}.jsonl", "a", encoding="utf8") as file:
            file.write(rest)
    book = Casebook([run])
    assert list(book.runs) == ["bad", "odd", "torn"]
    assert all(list(of.marks) == ["chemistry_1"] for of in book.runs.values())
    assert len(book.problems) == 2
    assert "bad.jsonl, line 2: id is 3" in book.problems[0]
    assert "evaluation_data of chemistry_2 cannot be used" in book.problems[1]
    view = book.view("chemistry_2", book.runs)
    assert (view.predictions, view.notes) == ({}, ("Not predicted by bad, odd, torn",))


def test_published_predictions_that_tell_less_are_shown_too(tmp_path):
    made = prediction(case(1))
    data = {key: made.evaluation_data[key] for key in ("is_retrieval", "rag_passages", "relevant_passages")}
    told = Prediction(id=made.id, response=made.response, full_dialogue=made.response, labels=made.labels, evaluation_data=data)
    book = Casebook([write_run(tmp_path / "run", [case(1)], {"told": [told]})])
    view = book.view("chemistry_1", ["told"])
    assert book.runs["told"].marks["chemistry_1"].flags == set()
    assert [row["used"] for row in panels.passages_of(view.predictions["told"]).values()] == [True, False]
    assert panels.passages(view).count("● used") == 1
    assert panels.seen_by(view) == {}


def test_a_reference_of_another_data_set_is_noticed(tmp_path):
    run = write_run(tmp_path / "run", [case(1)], {"one": [prediction(case(1, safety=["Wear gloves."]))]})
    book = Casebook([run])
    assert "1 predictions hold another reference" in book.problems[0]
    assert book.view("chemistry_1", ["one"]).notes == ("one was given another reference for this case",)


def test_a_file_that_changed_meanwhile_is_noticed(tmp_path):
    run = write_run(tmp_path / "run", [case(1), case(2)], {"one": [prediction(case(1)), prediction(case(2))]})
    book = Casebook([run])
    write_run(run, [], {"one": [prediction(case(2)), prediction(case(1))]})
    with pytest.raises(ExpStarError, match="load the page again"):
        book.view("chemistry_1", ["one"])


# Differences

@given(TEXTS, TEXTS)
def test_differences_hold_both_texts_and_agreement_is_symmetric(text, reference):
    def plain(*kinds: str) -> str:
        return "".join("".join(p.text for p in differences(text, reference) if p.kind in kinds).split())
    assert plain("same", "added") == "".join(text.split())
    assert plain("same", "left_out") == "".join(reference.split())
    assert 0 <= agreement(text, reference) <= 1
    assert agreement(text, text) == 1


@given(TEXTS, TEXTS)
def test_texts_cross_where_both_go_on_alike(text, other):
    for at, its_at in crossings(text, other):
        joined = other[:its_at] + text[at:]
        assert joined != other
        assert text[:at] != other[:its_at]
        assert text[at:].split()[0] == other[its_at:].split()[0]


def test_where_texts_cross():
    text, other = "Two mice, all slim, run.", "Six mice, all round, run."
    assert [(text[:at], other[:its_at]) for at, its_at in crossings(text, other)] == [("Two", "Six")]
    assert crossings(text, "Two mice, all round, run.") == []
    assert crossings(text, text) == crossings(text, "") == crossings("", text) == []


def test_words_that_differ_are_marked_by_more_than_colour():
    marked = panels.marked("The flame is green.", "The flame is deep blue.")
    assert marked == "The flame is <del>deep blue</del><ins>green</ins>."
    assert panels.marked("A lens.", "The flame is deep blue.") == "<ins>A lens.</ins>"
    assert panels.marked("", "The flame is deep blue.") == "<del>The flame is deep blue.</del>"
    style = Path(panels.__file__).with_name("inspector.css").read_text(encoding="utf8")
    assert re.search(r"ins \{[^}]*text-decoration: underline", style)
    assert re.search(r"del \{[^}]*text-decoration: line-through", style)


def test_a_model_that_repeats_itself_does_not_hold_up_the_page():
    text = "the flame the salt " * 2000
    assert panels.marked(text, "the salt the flame " * 200).count("flame") >= 2000


# Text is text

class Tags(HTMLParser):
    """Names and attributes of all tags."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_whatever_a_text_holds_it_is_shown_as_text(tmp_path):
    names = dict.fromkeys(("title", "summary", "subject", "experiment"), SCRIPT)
    evil = case(1, **names, narration=[SCRIPT], safety=[f"a{SCRIPT}"])
    made = prediction(evil, narration=["</td>" + SCRIPT], principle=[]).model_copy(update={"full_dialogue": SCRIPT})
    made.evaluation_data.update({"passage_ids": [SCRIPT, "b"], "passage_titles": [SCRIPT, "'\""], "relevant_ids": [SCRIPT],
                                 "rag_passages": [SCRIPT, "\ud83d"]})
    made.evaluation_data["settings"]["knowledge"] = SCRIPT
    view = panels.View(evil, {SCRIPT: made}, [{"en": SCRIPT, "section": "safety", "others": []}], {SCRIPT}, (SCRIPT,))
    page = panels.heading(view) + panels.commentary(view, {SCRIPT: mark_of(made)}) + panels.passages(view)
    page += panels.problems([SCRIPT]) + panels.message(SCRIPT)
    seen = Tags(page)
    assert seen.tags <= SHOWN_TAGS
    assert seen.attributes <= {"class", "scope", "style", "open"}
    assert page.count("&lt;script&gt;") > 10
    page.encode("utf8")


# Films

def test_a_clip_is_cut_out_and_made_playable(steps, tmp_path):
    span = span_of(case(2).clip, steps.parent / "films")
    assert probe(span.path).duration_s == 4
    path = tmp_path / "shown.mp4"
    for small in (footage.SMALL_FILE, 0):  # copied or encoded from its own part, the clip is the same
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(footage, "SMALL_FILE", small)
            path.write_bytes(shown_clip(span))
        assert probe(path).duration_s == pytest.approx(2, abs=0.05)
        with av.open(str(path)) as film:
            assert film.streams.video[0].codec_context.name == "h264"
        first, shown = sample_frames(span.path, 2, 2.2, max_frames=1).pixels, sample_frames(path, 0, 0.2, max_frames=1).pixels
        assert np.abs(first.astype(int) - shown).mean() < 12


def test_of_a_long_clip_the_beginning_is_shown(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(footage, "LONGEST_S", 1.0)
    path = tmp_path / "shown.mp4"
    path.write_bytes(shown_clip(span_of("film.mp4", steps.parent / "films")))
    assert probe(path).duration_s == pytest.approx(1, abs=0.05)


def test_a_file_that_browsers_play_is_taken_as_it_is(steps, tmp_path):
    path = tmp_path / "played.mp4"
    path.write_bytes(shown_clip(span_of(case(1).clip, steps.parent / "films")))
    assert shown_clip(span_of("played.mp4", tmp_path)) == path.read_bytes()


@pytest.mark.parametrize("times", [[2.5, 3.5], [2.1, 3.9], [3.0]])
def test_frames_are_those_on_the_screen_at_their_times(steps, times):
    span = span_of(case(2).clip, steps.parent / "films")
    found = frames_at(span, times)
    wanted = [sample_frames(span.path, t, t + 1e-3, max_frames=1, size_px=found.pixels.shape[1:3]).pixels[0] for t in times]
    assert np.array_equal(found.pixels, np.stack(wanted))
    assert all(picture.startswith(b"\xff\xd8") for picture in jpegs(found))


@pytest.mark.parametrize("clip", ["../secret.mp4", "/etc/passwd", "nul\0.mp4",
                                  VirtualClip(video="../secret.mp4", start=0, end=1)])
def test_a_clip_outside_the_data_root_is_refused(tmp_path, clip):
    noise_clip(tmp_path / "secret.mp4", 1)
    with pytest.raises(ExpStarError, match="expected one inside the data set"):
        span_of(clip, tmp_path / "films")

"""From pairs to cases to rows: what the published demo holds comes out as published, and each row counts."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from expstar_utils.datasets import (
    Case,
    baseline_sample,
    by_experiment,
    case_from_pair,
    expstar_sample,
    filled_samples,
    load_cases,
    preference_sample,
    previous_texts,
    training_samples,
)
from expstar_utils.files import dump_line, read_jsonl, write_json
from expstar_utils.prompts import Prompts, load_prompts, parse
from expstar_utils.records import ExpStarError, Pair, Passage, RetrievalResult, Sample, VirtualClip

DEMO = Path(__file__).parents[2] / "shared" / "expstar_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the published demo is not at {DEMO}")
PROMPTS = load_prompts()
CASE = Case(id="optics_1", experiment="optics/a", subject="optics", title="A lens", step_number=1, clip="a.mp4", summary="Look.",
            narration=["The lens is lifted."], principle=["Light bends."], safety=["Do not look at the sun."])
QUIET = CASE.model_copy(update={"principle": [], "safety": []})


def found(*grades: int | None) -> RetrievalResult:
    documents = [Passage(id=str(i), text=f"passage {i}", relevant=grade) for i, grade in enumerate(grades)]
    return RetrievalResult(id=CASE.id, query=CASE.query, video_path="a.mp4", is_rag=True, documents=documents)


def shown(row: Sample) -> tuple[str, list[str]]:
    """Verdict of a row and the passages in its fourth message."""
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user", "assistant"]
    return row.messages[4].content.split("\n")[0], [w for w in row.messages[3].content.split("<paragraph>") if w]


def pair(**changed) -> Pair:
    lines = [{"id": 1, "startTime": "0:00:01", "endTime": "0:00:02", "text": "举起透镜。", "text_en": "The lens is lifted.",
              "principle_en": "Light bends.\nGlass slows it.", "principle_zh": "光线弯折。", "safety_en": None},
             {"id": 2, "startTime": "0:00:02", "endTime": "0:00:03", "text": "", "text_en": ""}]
    return Pair.model_validate({"title_zh": "透镜", "title_en": "A lens", "original_video": "v.mp4", "clip_start": "0:00:01.500",
                                "clip_end": "0:00:04", "step_zh": "看", "step_en": "Look.", "step_number": 2,
                                "clip_video_path": "clips/v_step_2.mp4", "subject": "optics", "annotations": lines} | changed)


# Cases

def test_case_takes_its_texts_from_the_language_asked_for():
    english, chinese = (case_from_pair(pair(), "optics/a", "optics_1", language) for language in ("en", "zh"))
    assert (english.title, english.summary, english.narration) == ("A lens", "Look.", ["The lens is lifted."])
    assert (english.principle, english.safety) == (["Light bends.", "Glass slows it."], [])
    assert (chinese.title, chinese.narration, chinese.principle) == ("透镜", ["举起透镜。"], ["光线弯折。"])


def test_clip_is_virtual_only_where_nobody_cut_it():
    assert case_from_pair(pair(), "a", "1").clip == "clips/v_step_2.mp4"
    virtual = case_from_pair(pair(clip_video_path="v.mp4"), "a", "1")
    assert virtual.clip == VirtualClip(video="v.mp4", start=1.5, end=4.0)
    assert expstar_sample(virtual, [], PROMPTS).to_dict()["videos"] == [{"video": "v.mp4", "start": 1.5, "end": 4.0}]


def test_reference_reads_back_as_the_case():
    said = parse(CASE.reference())
    assert said.well_formed
    assert [list(said.commentary.narration), list(said.commentary.principle), list(said.commentary.safety)] == [
        CASE.narration, CASE.principle, CASE.safety]


def test_cases_come_in_natural_order_with_a_count_of_their_own_in_each_subject(tmp_path):
    for subject, step in (("optics", 10), ("optics", 2), ("biology", 1)):
        folder = tmp_path / subject / "01-'x' 一"
        write_json(folder / f"01-x_step_{step}.json", pair(subject=subject, step_number=step))
    cases = load_cases(tmp_path, first_id=5, path_prefix="/data/")
    assert [(c.id, c.step_number) for c in cases] == [("biology_5", 1), ("optics_5", 2), ("optics_6", 10)]
    assert [(c.clip, c.duration_s) for c in cases] == [("/data/clips/v_step_2.mp4", 2.5)] * 3
    assert [[c.id for c in steps] for steps in by_experiment(reversed(cases))] == [["biology_5"], ["optics_5", "optics_6"]]


def test_where_there_are_units_each_has_its_own_count(tmp_path):
    for subject, unit in (("optics", "op_1"), ("optics", "op_2"), ("biology", "bi_1")):
        write_json(tmp_path / subject / unit / "01-x" / "01-x_step_1.json", pair(subject=subject, step_number=1))
    cases = load_cases(tmp_path, first_id=7)
    assert [(c.id, c.experiment) for c in cases] == [("bi_1_7", "biology/bi_1/01-x"), ("op_1_7", "optics/op_1/01-x"),
                                                     ("op_2_7", "optics/op_2/01-x")]


def test_bad_pair_is_named(tmp_path):
    path = write_json(tmp_path / "optics" / "a" / "a_step_1.json", pair().to_dict() | {"step_number": "first"})
    with pytest.raises(ExpStarError, match=r"a_step_1\.json: step_number is 'first'"):
        load_cases(tmp_path)
    assert path.is_file()


# The published demo

@pytest.fixture(scope="module")
def demo() -> list[Case]:
    return load_cases(DEMO / "2pair-data", first_id=271)


@needs_demo
def test_demo_cases_have_the_published_notes(demo):
    assert [c.step_number for c in demo] == [1, 2, 3, 4, 5]
    assert [(len(c.narration), len(c.principle), len(c.safety)) for c in demo] == [(2, 1, 1), (2, 0, 2), (2, 1, 1), (3, 1, 0),
                                                                                  (4, 0, 0)]
    assert [c.needs_retrieval for c in demo] == [True, True, True, True, False]
    assert demo[0].principle == ["2CO + O2 → 2CO2"]
    assert demo[4].narration[1] == "Producing carbon dioxide"
    assert {c.experiment for c in demo} == {"step-02-一氧化碳的燃烧"}


def demo_prompts(rows: list[Sample], cases: list[Case]) -> Prompts:
    """The demo's own prompt sentences, taken out of its rows."""
    system, first, second = rows[0].messages[0].content, rows[0].messages[1].content, rows[1].messages[1].content
    history = second.removeprefix(first).replace(f"- Step 1: {cases[0].summary}\n", "{steps}").replace("Step 2", "Step {number}")
    request = first.replace(cases[0].title, "{title}").replace("chemistry", "{subject}")
    own = {"subjects": {}, "system": {"default": system.replace("chemistry", "{subject}")}, "request": {"default": request},
           "history": history, "history_line": "- Step {number}: {text}\n", "passage": "<paragraph>{text}</paragraph>"}
    return Prompts.model_validate(PROMPTS.model_dump() | own)


@pytest.fixture
def published(tmp_path) -> tuple[list[Case], Path, Path]:
    """The demo's cases where its pairs lie in their unit, and its two files of rows."""
    shutil.copytree(DEMO / "2pair-data" / "step-02-一氧化碳的燃烧", tmp_path / "chemistry" / "ch_67" / "02-一氧化碳的燃烧")
    [baseline], [expstar] = ((DEMO / kind).glob("*.jsonl") for kind in ("3baseline_dataset", "4Expstar_dataset"))
    return load_cases(tmp_path, first_id=271), baseline, expstar


@needs_demo
def test_with_the_demo_s_prompts_its_rows_come_out_byte_for_byte(published):
    cases, baseline, expstar = published
    prompts = demo_prompts(list(read_jsonl(baseline, Sample)), cases)
    before = [previous_texts(cases, i, "summary") for i in range(3)]
    ours = [baseline_sample(case, texts, prompts) for case, texts in zip(cases, before)]
    assert "".join(dump_line(row) + "\n" for row in ours) == baseline.read_text(encoding="utf8")
    documents = defaultdict(list)
    for number, row in enumerate(read_jsonl(expstar, Sample)):
        text = row.messages[3].content.removeprefix("<paragraph>").removesuffix("</paragraph>")
        grade = 4 if row.messages[4].content.startswith("[Relevant]") else 2
        documents[row.id].append(Passage(id=str(number), text=text, relevant=grade))
    results = {case.id: RetrievalResult(id=case.id, query="", video_path="", is_rag=True, documents=documents[case.id])
               for case in cases[:3]}
    rows = [row for case, texts in zip(cases, before) for row in filled_samples(case, texts, prompts, results[case.id])]
    assert "".join(dump_line(row) + "\n" for row in rows) == expstar.read_text(encoding="utf8")


@needs_demo
def test_preference_rows_have_the_demo_s_shape(demo):
    [source] = (DEMO / "5Expstar_rl_dataset").glob("*.jsonl")
    row = preference_sample(demo[0], [], PROMPTS, "<Narration>\nSomething else.\n")
    for theirs in read_jsonl(source, Sample):
        assert list(row.to_dict()) == list(theirs.to_dict())
        assert [m.role for m in row.messages] == [m.role for m in theirs.messages]
    assert row.messages == baseline_sample(demo[0], [], PROMPTS).messages


# Rows

def test_step_without_notes_makes_three_messages_and_decides_against_retrieval():
    row = expstar_sample(QUIET, [], PROMPTS, [Passage(id="1", text="x")])
    assert [m.role for m in row.messages] == ["system", "user", "assistant"]
    assert row.messages[2].content == "<Narration>\nThe lens is lifted.\n[No Retrieval]"


@pytest.mark.parametrize(("relevant", "verdict"), [(True, "[Relevant]"), (False, "[Irrelevant]")])
def test_step_with_notes_makes_five_messages_with_the_verdict_first(relevant, verdict):
    row = expstar_sample(CASE, [], PROMPTS, [Passage(id="1", text="a </b>"), Passage(id="2", text="c")], relevant=relevant)
    assert row.messages[2].content.endswith("\n[Retrieval]")
    assert row.messages[3].content == "<paragraph>a </b></paragraph>\n<paragraph>c</paragraph>"
    assert row.messages[4].content == f"{verdict}\n<Principle>\nLight bends.\n<Safety>\nDo not look at the sun."
    assert (row.id, row.videos) == (CASE.id, ["a.mp4"])


def test_row_reads_back_as_the_case():
    row = expstar_sample(CASE, [], PROMPTS)
    said = parse("\n".join(m.content for m in row.messages if m.role == "assistant"))
    assert said.well_formed
    assert said.commentary.retrieve is True
    assert said.commentary.verdicts == (True,)
    assert list(said.commentary.safety) == CASE.safety


def test_without_passages_the_placeholder_stands():
    for row in (expstar_sample(CASE, [], PROMPTS), *filled_samples(CASE, [], PROMPTS, None)):
        assert shown(row) == ("[Relevant]", [f"{PROMPTS.placeholder_passage}</paragraph>"])


@pytest.mark.parametrize(("limits", "relevant", "irrelevant"), [
    ({}, 3, 4), ({"max_irrelevant": 1}, 3, 1), ({"max_relevant": 1}, 1, 4), ({"max_relevant": 0, "max_irrelevant": 2}, 0, 2),
    ({"max_relevant": 9, "max_irrelevant": 9}, 3, 4), ({"joint": True}, 4, 4),
    ({"joint": True, "max_relevant": 1, "max_irrelevant": 1}, 1, 1)])
def test_one_row_a_passage_within_the_limits(limits, relevant, irrelevant):
    rows = filled_samples(CASE, [], PROMPTS, found(1, 3, 5, None, 2, 4, 2), **limits)
    verdicts = [shown(row)[0] for row in rows]
    assert verdicts == ["[Relevant]"] * relevant + ["[Irrelevant]"] * irrelevant


def test_grade_three_is_the_first_that_is_relevant_and_ungraded_is_not():
    rows = filled_samples(CASE, [], PROMPTS, found(2, 3, None))
    assert [shown(row) for row in rows] == [
        ("[Relevant]", ["passage 1</paragraph>"]), ("[Irrelevant]", ["passage 0</paragraph>"]),
        ("[Irrelevant]", ["passage 2</paragraph>"])]


def test_joint_row_comes_first_with_the_best_two_and_only_where_there_are_two():
    rows = filled_samples(CASE, [], PROMPTS, found(5, 1, 4, 3), joint=True)
    assert [len(shown(row)[1]) for row in rows] == [2, 1, 1, 1, 1]
    assert ["passage 0" in rows[0].messages[3].content, "passage 2" in rows[0].messages[3].content] == [True, True]
    alone = filled_samples(CASE, [], PROMPTS, found(5, 1), joint=True)
    assert [len(shown(row)[1]) for row in alone] == [1, 1]


def test_step_for_which_nothing_was_found_keeps_a_row_that_says_so():
    [row] = filled_samples(CASE, [], PROMPTS, found())
    assert row.messages[3].content == PROMPTS.passages([]).content
    assert row.messages[4].content.startswith("[Irrelevant]\n<Principle>")


def test_step_without_notes_keeps_its_one_row_whatever_was_found():
    for result in (None, found(), found(5, 1)):
        assert filled_samples(QUIET, [], PROMPTS, result, max_relevant=1) == [expstar_sample(QUIET, [], PROMPTS)]


# History

def test_history_is_the_summaries_or_the_narrations_of_the_steps_before():
    steps = [CASE.model_copy(update={"step_number": n, "summary": f"S{n}", "narration": [f"N{n}a.", f"N{n}b."]})
             for n in (1, 2, 3)]
    assert previous_texts(steps, 0, "summary") == []
    assert previous_texts(steps, 2, "summary") == ["S1", "S2"]
    assert previous_texts(steps, 2, "narration") == ["N1a. N1b.", "N2a. N2b."]
    asked = baseline_sample(steps[2], previous_texts(steps, 2, "summary"), PROMPTS).messages[1].content
    assert "- Step 1: S1\n- Step 2: S2\n" in asked
    assert "Step 3" in asked
    assert "S3" not in asked


@needs_demo
def test_demo_steps_see_those_before_them_and_no_other(demo):
    for index, case in enumerate(demo):
        asked = baseline_sample(case, previous_texts(demo, index, "summary"), PROMPTS).messages[1].content
        assert [other.summary in asked for other in demo] == [i < index for i in range(len(demo))]


# Against guessing from the earlier steps

STEPS = [CASE.model_copy(update={"id": f"optics_{n}", "step_number": n, "narration": [f"N{n}."]}) for n in range(1, 30)]
FOUND = {s.id: found(5, 1) for s in STEPS}
LIMITS = {"max_relevant": 1, "max_irrelevant": 1}


def sees_history(row: Sample) -> bool:
    return "N1." in row.messages[1].content


def test_irrelevant_rows_can_end_with_their_verdict():
    found = FOUND[STEPS[1].id]
    whole = filled_samples(STEPS[1], [], PROMPTS, found)
    short = filled_samples(STEPS[1], [], PROMPTS, found, irrelevant_notes=False)
    assert [row.messages[:4] for row in whole] == [row.messages[:4] for row in short]
    answers = [row.messages[4].content for row in short]
    assert {a for a in answers if a.startswith("[Irrelevant]")} == {"[Irrelevant]\n"}
    assert [a for a in answers if a.startswith("[Relevant]")] == [
        row.messages[4].content for row in whole if row.messages[4].content.startswith("[Relevant]")]
    [nothing] = filled_samples(STEPS[1], [], PROMPTS, found.model_copy(update={"documents": []}), irrelevant_notes=False)
    assert nothing.messages[4].content != "[Irrelevant]\n"


def test_rows_keep_their_history_unless_told_otherwise():
    rows = training_samples(STEPS, PROMPTS, FOUND, "narration", **LIMITS)
    assert len(rows) == 2 * len(STEPS)
    assert all(sees_history(row) for row in rows[2:])


def test_history_dropout_leaves_out_a_share_of_the_histories_and_repeats_by_seed():
    once, again, other = (training_samples(STEPS, PROMPTS, FOUND, "narration", history_dropout=0.5, seed=s, **LIMITS)
                          for s in (1, 1, 2))
    assert once == again != other
    assert 0.25 < sum(map(sees_history, once)) / len(once) < 0.75
    for row, full in zip(once, training_samples(STEPS, PROMPTS, FOUND, "narration", **LIMITS), strict=True):
        assert row.messages[2:] == full.messages[2:]


def test_steps_that_tell_again_keep_their_history_whatever_the_dropout():
    kept = {STEPS[2].id, STEPS[3].id}
    rows = training_samples(STEPS, PROMPTS, FOUND, "narration", history_dropout=1.0, recalling=kept, **LIMITS)
    assert {row.id for row in rows if sees_history(row)} == kept


def test_closed_book_rows_have_neither_history_nor_passage():
    steps = [QUIET, *STEPS[1:3], QUIET.model_copy(update={"id": "optics_9", "step_number": 9, "narration": ["N9."]})]
    rows = training_samples(steps, PROMPTS, FOUND, "narration", closed_book=1.0, **LIMITS)
    assert [row.id for row in rows] == [*["optics_1"] * 2, *["optics_2"] * 3, *["optics_3"] * 3, *["optics_9"] * 2]
    for bare in (rows[4], rows[7]):
        assert shown(bare) == ("[Irrelevant]", [PROMPTS.no_passage])
        assert "In previous steps" not in bare.messages[1].content
    assert rows[9].messages[2] == rows[8].messages[2]
    assert rows[9].messages[1] != rows[8].messages[1]

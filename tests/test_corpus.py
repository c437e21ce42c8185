"""A data set as a whole: sides that stay, leaks and doubles that are named, numbers that add up."""

import pandas as pd
import pytest

from expstar_utils.corpus import leaks, length, merge, side_of, statistics, table_of
from expstar_utils.datasets import Case
from expstar_utils.records import Sample

NAMES = [f"chemistry/ch_{n // 10}/{n:02d}-name" for n in range(3000)]


def case(number, experiment="chemistry/a", split="train", clip="a.mp4", **changes):
    return Case.model_validate({"id": f"chemistry_{number}", "experiment": experiment, "subject": "chemistry", "title": "T",
                                "step_number": number, "clip": clip, "summary": "Light it now", "narration": ["The gas burns."],
                                "split": split, "duration_s": 6.0} | changes)


def row(number, text="Answer.", **changes):
    return Sample.model_validate({"messages": [{"role": "user", "content": "<video>"}, {"role": "assistant", "content": text}],
                                  "videos": [f"{number}.mp4"], "id": f"u_{number}"} | changes)


# Sides

def test_sides_have_their_shares():
    counts = pd.Series([side_of(name) for name in NAMES]).value_counts(normalize=True)
    assert counts["test"] == pytest.approx(1 / 11, abs=0.02)
    assert counts["val"] == pytest.approx(1 / 22, abs=0.015)


def test_an_experiment_keeps_its_side_and_another_seed_moves_some():
    sides = [side_of(name) for name in NAMES]
    assert sides == [side_of(name) for name in NAMES]
    assert [side_of(name, test=1 / 11, val=0.2) == "test" for name in NAMES] == [side == "test" for side in sides]
    moved = sum(side_of(name, seed=7) != side for name, side in zip(NAMES, sides, strict=True))
    assert 0.1 < moved / len(NAMES) < 0.4


@pytest.mark.parametrize(("test", "val", "expected"), [(0, 0, {"train"}), (1, 0, {"test"}), (0, 1, {"val"})])
def test_shares_of_nothing_and_all(test, val, expected):
    assert {side_of(name, test=test, val=val) for name in NAMES} == expected


# Leaks

def test_what_stands_on_one_side_is_no_leak(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    assert leaks([case(1), case(2), case(3, "chemistry/b", "test", "b.mp4")], tmp_path) == []


def test_experiment_and_video_on_two_sides_are_named():
    [problem] = leaks([case(1), case(2, split="test", clip="b.mp4")])
    assert (problem.file, problem.field) == ("chemistry/a", "experiment")
    assert problem.found == "train (chemistry_1) and test (chemistry_2)"
    clip = {"video": "a.mp4", "start": 3, "end": 5}
    [problem] = leaks([case(1), case(2, "chemistry/b", "val", clip)])
    assert (problem.file, problem.field) == ("a.mp4", "video")


def test_a_copy_under_another_name_is_found_by_its_content(tmp_path):
    for name, content in {"a.mp4": b"same", "b.mp4": b"same", "c.mp4": b"also", "d.mp4": b"longer"}.items():
        (tmp_path / name).write_bytes(content)
    cases = [case(n, f"chemistry/{name}", split, f"{name}.mp4")
             for n, (name, split) in enumerate({"a": "train", "b": "test", "c": "test", "d": "test", "gone": "test"}.items())]
    assert leaks(cases) == []
    [problem] = leaks(cases, tmp_path)
    assert problem.field == "content of the video"
    assert problem.found == "train (a.mp4) and test (b.mp4)"


def test_clips_of_one_video_may_stand_beside_each_other():
    clips = [{"video": "a.mp4", "start": start, "end": start + 2} for start in (0, 2)]
    assert leaks([case(n, clip=clip) for n, clip in enumerate(clips)]) == []
    assert len(leaks([case(n, clip=clip) for n, clip in enumerate(clips)] + [case(9, "chemistry/b", "test", clips[0])])) == 1


# Merging

def test_rows_follow_each_other_and_each_comes_once():
    rows, problems = merge({"one.jsonl": [row(1), row(2)], "two.jsonl": [row(3), row(1), row(2, id="other")]})
    assert [r.id for r in rows] == ["u_1", "u_2", "u_3"]
    assert [(p.file, p.field) for p in problems] == [("two.jsonl", "u_1"), ("two.jsonl", "other")]
    assert "u_1 of one.jsonl again" in problems[0].found


def test_several_rows_of_one_step_are_no_doubles():
    rows, problems = merge({"one.jsonl": [row(1, "A."), row(1, "B.")]})
    assert (len(rows), problems) == (2, [])


def test_one_id_for_two_clips_is_named_and_both_stay():
    rows, [problem] = merge({"one.jsonl": [row(1)], "two.jsonl": [row(2, id="u_1")]})
    assert len(rows) == 2
    assert (problem.file, problem.field, problem.found) == ("two.jsonl", "u_1", "the id of another clip in one.jsonl")


# Numbers

@pytest.mark.parametrize(("text", "expected"), [("2CO + O2 → 2CO2", 3), ("一氧化碳的燃烧", 7), ("加入NaOH溶液。", 5), ("", 0),
                                                ("It's 2.5 g", 5)])
def test_length_counts_words_and_chinese_characters(text, expected):
    assert length([text]) == expected


def test_statistics_add_up():
    cases = [case(1, principle=["One two three."]), case(2), case(3, "chemistry/b", clip="b.mp4", safety=["Care."]),
             case(4, "optics/c", "test", "c.mp4", subject="optics", duration_s=2.0, principle=["One."], safety=["Take care."])]
    numbers = statistics(table_of(cases), "subject")
    assert list(numbers.index) == ["chemistry", "optics", "all"]
    assert numbers.loc["chemistry", ["experiments", "clips", "steps"]].tolist() == [2, 3, 1.5]
    assert numbers.loc["all", "clips"] == 4
    assert numbers.loc["all", "hours"] == pytest.approx(20 / 3600)
    assert numbers.loc["all", "clip_s"] == pytest.approx(5.0)
    assert numbers.loc["chemistry", "principle_rate"] == pytest.approx(1 / 3)
    assert numbers.loc["chemistry", "principle_words"] == 3  # of the clips that have one
    assert numbers.loc["all", "safety_words"] == 1.5
    assert list(statistics(table_of(cases)).index) == ["all"]

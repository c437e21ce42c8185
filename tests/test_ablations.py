"""The ablation table: names say what was taken away, values are those of the metrics, comparisons are paired."""

from __future__ import annotations

import numpy as np
import pytest

from expstar_utils import ablations
from expstar_utils.datasets import Case
from expstar_utils.evaluation import evaluate
from expstar_utils.evaluation_rows import TextPair
from expstar_utils.metrics import report
from expstar_utils.prompts import Commentary, build
from expstar_utils.records import ExpStarError, Prediction


@pytest.mark.parametrize(("stem", "expected"), [
    ("test-free-adaptive", ("full", "test")), ("test_unseen-free-never", ("without the knowledge base", "test_unseen")),
    ("val-free-always", ("always looking up", "val")), ("test-free-adaptive-none", ("without verdicts", "test")),
    ("test-free-adaptive-sft", ("SFT alone", "test")), ("test-teacher-adaptive", None), ("test-free-adaptive-zh", None),
    ("test-free-never-none", None), ("test-free-adaptive-gpt-4o", None), ("notes", None), ("", None)])
def test_a_name_says_what_was_taken_away(stem, expected):
    assert ablations.row_of(stem) == expected


def step(number: int, right: bool, safety: bool, said: bool) -> tuple[Prediction, Case, dict]:
    """A step of experiment number // 2 whose narration names its salt, rightly or not."""
    wanted = Commentary(narration=(f"Sodium glows in flame {number}.",), safety=("It is hot.",) if safety else ())
    written = Commentary(narration=(f"{'Sodium' if right else 'Copper'} glows in flame {number}.",),
                         safety=("It is hot.",) if said else ())
    prediction = Prediction(id=str(number), response=build(written), full_dialogue=build(written), labels=build(wanted),
                            evaluation_data={"retrieval_prob": 0.5, "is_retrieval": said})
    case = Case.model_validate({"id": str(number), "experiment": f"e{number // 2}", "subject": "chemistry", "title": "A flame",
                                "step_number": 1, "clip": "a.mp4", "summary": "s", "narration": list(wanted.narration)})
    fact = {"name": "salt", "kind": "substance", "section": "narration", "en": "Sodium", "zh": "", "others": ["Copper"]}
    return prediction, case, {"subject": "chemistry", "facts": [fact], "gold": []}


def tallied(rights, safeties=(True, False), says=(True, True)):
    steps = [step(i, right, safeties[i % 2], says[i % 2]) for i, right in enumerate(rights)]
    predictions, cases, truths = zip(*steps, strict=True)
    texts = evaluate([TextPair(p.id, p.response, p.labels) for p in predictions], metrics=["bleu", "rouge", "cider"])
    return ablations.tallies(predictions, {c.id: c for c in cases}, truths, texts), predictions, truths, texts


def test_values_are_those_of_the_metrics():
    columns, predictions, truths, texts = tallied([True, False, True, True, False, True, True, True])
    for column in ("BLEU-4", "ROUGE-L", "CIDEr"):
        assert columns[column].value == pytest.approx(texts.overall[column])
    plain = report(predictions, truths)
    assert columns["substance"].value == pytest.approx(100 * plain["substance"]) == 75
    assert columns["safety missing"].value == 100 * plain["safety_missing"] == 0
    assert columns["safety unneeded"].value == 100 * plain["safety_unneeded"] == 100
    assert np.isnan(columns["hazard"].value)


def test_the_table_has_the_papers_rows_with_their_intervals():
    files = {"test-free-never": tallied([False] * 8)[0], "test-free-adaptive": tallied([True] * 6 + [False] * 2)[0],
             "test-teacher-adaptive": tallied([True] * 8)[0]}
    lines = ablations.table(files)
    assert [line["row"] for line in lines] == ["without the knowledge base", "full"]
    low, high = lines[1]["substance_interval"]
    assert low < lines[1]["substance"] == 75 < high
    [first, second] = ablations.shown(lines)
    assert first["substance"] == "0.0 [0.0, 0.0]"
    assert "hazard" not in second
    assert ablations.table(files) == ablations.table(files)


def test_an_ablation_is_compared_with_the_full_model_of_its_split():
    files = {"test-free-never": tallied([False] * 20)[0], "test-free-adaptive": tallied([True] * 20)[0],
             "val-free-never": tallied([False] * 8)[0]}
    [(stem, columns)] = ablations.against_full(files).items()
    assert stem == "test-free-never"
    assert columns["substance"].difference == -100
    assert columns["substance"].p < 0.01
    assert columns["safety missing"].p == 1


def test_a_file_that_is_not_finished_is_compared_with_nothing():
    files = {"test-free-never": tallied([False] * 6)[0], "test-free-adaptive": tallied([True] * 20)[0]}
    assert ablations.against_full(files) == {"test-free-never": {}}


def scored(words, ids="abcdefgh"):
    pairs = [TextPair(i, word, "the flame is green and hot") for i, word in zip(ids, words, strict=False)]
    return evaluate(pairs, metrics=["bleu", "rouge"])


def test_any_two_files_are_compared_on_the_rows_that_both_have():
    good, bad = scored(["the flame is green and hot"] * 8), scored(["the flame is red"] * 6, "hgfedc")
    found = ablations.side_by_side(good, bad, {})
    assert found["ROUGE-L"].difference == pytest.approx(100 - good_against("the flame is red"))
    assert found["ROUGE-L"].low > 0
    assert found["BLEU-1"].p < 0.05
    with pytest.raises(ExpStarError, match="found no id of the first file in the second"):
        ablations.side_by_side(good, scored(["x"], "z"), {})


def good_against(text):
    return scored([text]).overall["ROUGE-L"]

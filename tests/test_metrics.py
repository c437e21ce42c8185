"""First metrics: facts are found as whole words and not beside their rivals; scores equal those worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils.metrics import (
    auc,
    best_tau,
    calibration_error,
    equation_shares,
    f1_scores,
    fact_right,
    fact_rows,
    gate_curve,
    judged,
    load_truth,
    normalize,
    rate,
    repetition,
    report,
    says,
    threshold_curve,
)
from expstar_utils.mini.build import facts, fill
from expstar_utils.mini.family import load_family
from expstar_utils.prompts import Commentary, build
from expstar_utils.records import ExpStarError, Prediction

MINI = Path(__file__).parents[1] / "data" / "mini"
words = st.text("abc1", min_size=1, max_size=4)


def written(response: Commentary, labels: Commentary | None = None, **data) -> Prediction:
    text = build(response)
    return Prediction(id=data.pop("id", "1"), response=text, full_dialogue=data.pop("full_dialogue", text),
                      labels=build(labels or Commentary()), evaluation_data=data)


def fact(en: str, *others: str, section: str = "narration", kind: str = "substance") -> dict:
    return {"name": "x", "kind": kind, "section": section, "en": en, "zh": "", "others": list(others)}


# What a text says

@pytest.mark.parametrize(("text", "phrase"), [
    ("Methane burns.", "methane"), ("Pure ETHANE, then.", "ethane"), ("2CO + O₂ → 2CO₂", "2CO+O2→2CO2"),
    ("2CO+O2 →2CO2", "2CO + O2 → 2CO2"), ("a pale\n blue  flame", "pale blue flame"), ("weighs 5 g.", "5 g"),
    ("weighs 2.5 g, so", "2.5 g"), ("the genotype +/+, Alu", "+/+, Alu"), ("(CO)", "CO"),
    ("CO2 + Ca(OH)2 → CaCO3↓ + H2O", "CO2+Ca(OH)2→CaCO3↓+H2O"), ("a red-hot wire", "red")])
def test_phrase_stands_in_the_text(text, phrase):
    assert says(text, phrase)


@pytest.mark.parametrize(("text", "phrase"), [
    ("Methane burns.", "ethane"), ("ethanes", "ethane"), ("weighs 2.5 g", "5 g"), ("weighs 2,5 g", "5 g"), ("weighs 5.2 g", "5"),
    ("15 V", "5 V"), ("CO2", "CO"), ("bluegreen flame", "blue"), ("", "blue"), ("blue, pale", "pale blue"), ("a.c", "abc")])
def test_phrase_does_not_stand_in_the_text(text, phrase):
    assert not says(text, phrase)


@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=3))
def test_says_is_the_same_as_finding_the_words_in_a_row(text, phrase):
    runs = [text[i:i + len(phrase)] for i in range(len(text))]
    assert says(" ".join(text), " ".join(phrase)) == (phrase in runs)


@given(st.text(max_size=30))
def test_normalizing_twice_changes_nothing_more(text):
    once = normalize(text)
    assert normalize(once) == once


# Facts

def test_fact_is_right_in_its_own_section_only():
    said = written(Commentary(("Methane burns.",), (), ("Ventilate well.",)))
    assert fact_right(fact("methane"), said)
    assert not fact_right(fact("methane", section="safety"), said)
    assert not fact_right(fact("ethane"), said)
    assert not fact_right(fact("methane"), written(Commentary()))


def test_naming_a_rival_beside_the_fact_is_wrong():
    said = written(Commentary(("Methane or ethane or propane burns.",)))
    assert not fact_right(fact("methane", "ethane"), said)
    assert fact_right(fact("methane", "butane"), said)


def test_rival_that_the_reference_names_too_is_allowed():
    said = written(Commentary(("Ethane burns as methane did.",)), Commentary(("Ethane, unlike methane, burns.",)))
    assert fact_right(fact("ethane", "methane", "propane"), said)


def test_rival_that_is_part_of_the_fact_is_no_rival_and_one_that_holds_it_is():
    assert fact_right(fact("pale blue flame", "blue flame"), written(Commentary(("A pale blue flame.",))))
    assert not fact_right(fact("blue flame", "pale blue flame"), written(Commentary(("A pale blue flame.",))))


FAMILIES = sorted(MINI.glob("*.yaml"))


@pytest.mark.parametrize("path", FAMILIES, ids=lambda p: p.stem)
def test_reference_has_all_its_own_facts_right_and_that_of_another_variant_has_not(path):
    """The metric gives 1 to the truth, and less to the truth of each other variant."""
    family = load_family(path)
    texts = {}
    for variant in family.variants:
        english = family.words(variant, "en")
        texts[variant.id] = [Commentary(tuple(fill(s.narration.en, english)), tuple(fill(s.principle.en, english)),
                                        tuple(fill(s.safety.en, english))) for s in family.steps]
    for variant in family.variants:
        asked = [facts(family, variant, step) for step in family.steps]
        for other in family.variants:
            right = [fact_right(f, written(texts[other.id][i], texts[variant.id][i])) for i, fs in enumerate(asked) for f in fs]
            assert all(right) == (other is variant), f"{variant.id} read as {other.id}"


def test_rows_and_rates_count_facts():
    predictions = [written(Commentary(("Methane burns.",)), id="a"), written(Commentary(("It is blue.",)), id="b")]
    truths = [{"subject": "chemistry", "facts": [fact("methane"), fact("propane")]},
              {"subject": "optics", "facts": [fact("blue", kind="colour")]}]
    rows = fact_rows(predictions, truths)
    assert [(row["id"], row["subject"], row["kind"], row["right"]) for row in rows] == [
        ("a", "chemistry", "substance", True), ("a", "chemistry", "substance", False), ("b", "optics", "colour", True)]
    assert rate(rows) == pytest.approx(2 / 3)
    assert rate(rows, kind="substance") == 0.5
    assert rate(rows, kind={"substance", "colour"}, subject="optics") == 1.0
    assert math.isnan(rate(rows, kind="law"))
    with pytest.raises(ValueError, match="zip"):
        fact_rows(predictions, truths[:1])


# The gate and the verdicts

def test_auc_of_hand_made_scores():
    assert auc([0.9, 0.8, 0.2], [True, True, False]) == 1.0
    assert auc([0.1, 0.8], [True, False]) == 0.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(auc([0.5, 0.6], [True, True]))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=2, max_size=12).filter(
    lambda rows: len({label for _, label in rows}) == 2))
def test_auc_is_the_chance_that_a_positive_scores_above_a_negative(rows):
    positive, negative = ([s for s, label in rows if label is wanted] for wanted in (True, False))
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert auc(*zip(*rows)) == pytest.approx(wins / len(positive) / len(negative))


def verdicts(relevance: list[float], **data) -> Prediction:
    ids = [f"p{i}" for i in range(len(relevance))]
    return written(Commentary(("a",)), passage_ids=ids, relevance=relevance, **data)


def test_verdicts_of_hand_made_predictions():
    predictions = [verdicts([0.9, 0.8, 0.1]), verdicts([0.4, 0.5]), written(Commentary(("a",)))]
    truths = [{"gold": ["p0", "p2"]}, {"gold": ["p0"]}, {"gold": ["p9"]}]
    probabilities, labels = judged(predictions, truths)
    assert (probabilities, labels) == ([0.9, 0.8, 0.1, 0.4, 0.5], [True, False, True, True, False])
    assert f1_scores(probabilities, labels) == pytest.approx(
        {"threshold": 0.5, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5})
    assert f1_scores(probabilities, labels, threshold=0.3)["recall"] == pytest.approx(2 / 3)
    assert f1_scores(*judged([], [])) == {"threshold": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_threshold_curve_holds_the_scores_and_the_rate_at_each_threshold():
    probabilities, labels = [0.9, 0.8, 0.1, 0.4], [True, False, False, True]
    curve = threshold_curve(probabilities, labels, points=3)
    assert [row["threshold"] for row in curve] == [0.25, 0.5, 0.75]
    assert [row["rate"] for row in curve] == [0.75, 0.5, 0.5]
    for row in curve:
        assert {k: v for k, v in row.items() if k != "rate"} == f1_scores(probabilities, labels, row["threshold"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_recall_falls_as_the_threshold_rises_and_perfect_verdicts_score_one(relevance, gold):
    truth = [{"gold": [f"p{i}" for i in gold]}]
    recalls = [f1_scores(*judged([verdicts(relevance)], truth), threshold)["recall"] for threshold in (-0.1, 0.3, 0.6, 1.0)]
    assert recalls == sorted(recalls, reverse=True)
    perfect = f1_scores(*judged([verdicts([float(i in gold) for i in range(6)])], truth))
    assert perfect["f1"] == pytest.approx(1.0 if gold else 0.0)


def test_report_of_two_hand_made_steps():
    common = {"is_retrieval": True}
    first = verdicts([0.9, 0.1], retrieval_prob=0.8, relevant_ids=["p0"], id="a", **common)
    second = verdicts([0.9], retrieval_prob=0.3, relevant_ids=["p0"], id="b", full_dialogue="no tags at all", is_retrieval=False)
    truths = [{"subject": "chemistry", "gold": ["p0"], "facts": [fact("a")]},
              {"subject": "chemistry", "gold": [], "facts": [fact("b", kind="colour")]}]
    found = report([first, second], truths)
    wanted = {"steps": 2, "well_formed": 0.5, "substance": 1.0, "colour_quantity": 0.0, "seen": 0.0, "gate_auc": 1.0,
              "retrieval_rate": 0.5, "verdict_precision": 0.5, "verdict_recall": 1.0, "gold_cited": 1.0}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)


def test_truth_is_found_by_experiment_and_step(tmp_path):
    rows = [{"experiment": "a/一", "step": 1, "n": 1}, {"experiment": "a/一", "step": 2, "n": 2}]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
    assert {key: row["n"] for key, row in load_truth(tmp_path / "truth.jsonl").items()} == {("a/一", 1): 1, ("a/一", 2): 2}


def step(prob: float, answer: str, safety: bool = False, **settings) -> Prediction:
    """A step that says "A flame." and, when it looks something up, one note more; its reference has the note "It is hot."."""
    said = Commentary(narration=("A flame.",), safety=(answer,) if answer else ())
    wanted = Commentary(narration=("A flame.",), safety=("It is hot.",) if safety else ())
    rounds = [{"role": "assistant", "content": "<Narration>\nA flame.\n[Retrieval]"}]
    return written(said, wanted, retrieval_prob=prob, rounds=rounds, settings={"knowledge": "always"} | settings)


def test_gate_curve_weighs_what_is_found_against_what_is_disturbed():
    steps = [step(0.9, "It is hot.", safety=True), step(0.6, "It is hot.", safety=True), step(0.2, "Wear gloves and goggles.")]
    curve = {point["tau"]: point for point in gate_curve(steps)}
    assert [curve[t]["rate"] for t in (0.1, 0.5, 0.7, 0.95)] == [1, pytest.approx(2 / 3), pytest.approx(1 / 3), 0]
    assert curve[0.5]["quality"] == 1
    assert curve[0.1]["quality"] < 1 > curve[0.7]["quality"] > curve[0.95]["quality"]
    assert 0.2 <= best_tau(list(curve.values())) < 0.6
    assert best_tau(list(curve.values())) == pytest.approx(0.4, abs=0.02)


def test_gate_curve_needs_predictions_that_always_look_up():
    with pytest.raises(ExpStarError, match="found predictions made with knowledge='adaptive', expected 'always'"):
        gate_curve([step(0.9, "", knowledge="adaptive")])


def test_report_counts_safety_notes_that_are_missing_and_that_nobody_needs():
    steps = [step(0.9, "It is hot.", safety=True), step(0.9, "", safety=True), step(0.9, "Mind the gap."), step(0.9, ""),
             step(0.9, "")]
    for one in steps:
        one.evaluation_data["is_retrieval"] = True
    found = report(steps, [{"gold": [], "facts": [], "subject": "optics"}] * 5)
    assert found["safety_missing"] == 0.5
    assert found["safety_unneeded"] == pytest.approx(1 / 3)


def test_calibration_error_of_hand_made_probabilities():
    assert calibration_error([1.0, 1.0, 0.0], [True, True, False]) == 0
    assert calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)
    assert calibration_error([0.9, 0.9], [True, False]) == pytest.approx(0.4)
    assert math.isnan(calibration_error([], []))


def test_repetition_is_the_share_of_word_sequences_that_came_before():
    assert repetition("a b c d") == repetition("") == repetition("a b") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("Glow glow glow glow glow glow") == pytest.approx(2 / 3)


def test_equations_are_weighed_by_their_atoms():
    def pair(said: str, wanted: str) -> Prediction:
        return written(Commentary(principle=(said,) if said else ()), Commentary(principle=(wanted,) if wanted else ()))
    right, wrong, none = "2CO + O2 → 2CO2", "CO + O2 → CO2", "It glows."
    assert equation_shares([pair(right, right), pair(wrong, right), pair(none, right), pair(none, none)]) == {
        "equations_balanced": 0.5, "equations_right": pytest.approx(1 / 3)}
    assert math.isnan(equation_shares([pair(none, none)])["equations_balanced"])


def test_citation_precision_counts_passages_that_were_written_from():
    steps = [step(0.9, "It is hot.", safety=True), step(0.9, "It is hot.", safety=True)]
    for one, cited in zip(steps, (["a", "b"], ["c"]), strict=True):
        one.evaluation_data |= {"is_retrieval": True, "relevant_ids": cited}
    assert report(steps, [{"gold": ["a"], "facts": [], "subject": "optics"}] * 2)["citation_precision"] == pytest.approx(1 / 3)

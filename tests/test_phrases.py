"""Phrases: what a note shares with its passage is found whole, and exchanged in both alike."""

import random

import pytest

from expstar_utils.datasets import Case
from expstar_utils.phrases import Phrase, Phrases, exchanged, shared
from expstar_utils.records import Passage
from expstar_utils.rewording import Rewording

FOODS = {"milk powder": "lactose (about 50 %) together with casein", "banana": "starch → glucose has only just begun",
         "bread": "baked gluten and starch, with a little maltose", "sugar": "C12H22O11 + H2O → 2C6H12O6"}
COMMON = {"the", "food", "is", "of"}


def case_of(number, food):
    return Case.model_validate({
        "id": f"biology_{number}", "experiment": f"biology/{number}", "subject": "biology", "title": "Food tests",
        "step_number": 1, "clip": f"{number}.mp4", "summary": "s", "narration": ["It turns blue."],
        "principle": [f"The food is {food}: {FOODS[food]}."], "safety": []})


@pytest.fixture(scope="module")
def known():
    cases = [case_of(n, food) for n, food in enumerate(FOODS)]
    right = {c.id: Passage(id=food, text=f"A spoon of {food} was mixed. In short, {FOODS[food]} and more; so much for {food}.")
             for c, food in zip(cases, FOODS, strict=True)}
    return cases, right, Phrases(cases, right, Rewording(cases, ["The food is a spoon of it, mixed in short."] * 20))


@pytest.mark.parametrize(("line", "passage", "found"), [
    ("The food is milk powder: lactose (about 50 %).", "Milk powder holds lactose (about 50 %) of the food.",
     [("milk powder", "Milk powder"), ("lactose (about 50 %)", "lactose (about 50 %)")]),
    ("The food is banana.", "Unlike the food of bats, BANANA is.", [("banana", "BANANA")]),
    ("The food is V = 2 L.", "Here V =  2 L is the food.", [("V = 2 L", "V =  2 L")]),
    ("The food is bread, of course.", "No word of it.", []),
    ("The food is Gram-positive cocci.", "It is gram-positive cocci.", [("Gram-positive cocci", "gram-positive cocci")]),
    ("The food is well-known rice.", "It is known rice.", [("rice", "rice")]),
    ("", "The food", []),
])
def test_a_note_shares_phrases_with_its_passage(line, passage, found):
    assert shared(line, passage, COMMON) == [Phrase(*spellings) for spellings in found]


def test_phrases_begin_and_end_with_words_that_tell(known):
    cases, _, phrases = known
    assert {tuple(p.noted for p in phrases.of[c.id]) for c in cases} == set(FOODS.items())
    assert sorted(text for _, text in phrases.pools["name"]) == sorted(FOODS.keys())
    assert {text for _, text in phrases.pools["formula"]} == {FOODS["banana"], FOODS["sugar"]}
    assert {text for _, text in phrases.pools["clause"]} == {FOODS["milk powder"], FOODS["bread"]}


def test_substitutes_are_of_the_same_kind_and_some_are_new(known):
    cases, _, phrases = known
    drawn = [pair for seed in range(200) for pair in phrases.draw(cases[0], 0.5, random.Random(seed))]
    assert 150 < len(drawn) < 250, "two phrases, half of them"
    names = {new for phrase, new in drawn if phrase.noted == "milk powder"}
    assert names & set(FOODS)
    assert names - set(FOODS), "some are reworded"
    clauses = {new for phrase, new in drawn if phrase.noted != "milk powder"}
    assert any(" together with " in new and "baked" in new for new in clauses)
    assert any(len(new) > 60 for new in clauses), "some are two in one"
    assert phrases.draw(cases[0], 1.0, random.Random(5)) == phrases.draw(cases[0], 1.0, random.Random(5))
    assert phrases.draw(cases[0].model_copy(update={"id": "another"}), 1.0, random.Random(5)) == []


@pytest.mark.parametrize(("text", "old", "new", "then"), [
    ("Fine sand is fine; refined sand is finer.", "fine", "coarse", "Coarse sand is coarse; refined sand is finer."),
    ("x + (a) and (a)", "(a)", r"\1", r"x + \1 and \1"),
    ("pH = 7, then pH = 70", "pH = 7", "V", "V, then pH = 70"),
    ("NaCl and nacl", "NaCl", "salt", "salt and salt"),
])
def test_a_phrase_is_exchanged_where_it_stands_by_itself(text, old, new, then):
    assert exchanged(text, old, new) == then

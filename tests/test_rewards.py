"""The safety-aware reward: what it pays for, what it takes away, and what does not pay."""

from __future__ import annotations

import pytest

from expstar_utils.datasets import Case
from expstar_utils.differences import word_f1
from expstar_utils.equations import equations_agree
from expstar_utils.profiles import RewardWeights
from expstar_utils.rewards import agreements, contradiction, rewards

BURNING = Case(id="c_1", experiment="chemistry/1", subject="chemistry", title="Burning a Gas", step_number=2, clip="a.mp4",
               summary="", narration=["The gas burns with a blue flame."],
               principle=["2CO + O2 → 2CO2", "Carbon monoxide burns in air."],
               safety=["Carbon monoxide is toxic and binds to haemoglobin: burn what is left in a fume cupboard."])
FILLING = Case(id="c_2", experiment="chemistry/1", subject="chemistry", title="Burning a Gas", step_number=1, clip="b.mp4",
               summary="", narration=["The flask is filled with water."])
CARD = ("Hazard card for carbon monoxide (CAS 630-08-0). Between 12.5 and 74 % in air it forms a flammable or explosive "
        "mixture. The exposure limit for an eight-hour day is 25 ppm: do not breathe it.")
GENERIC = "<Safety>\nAlways wear gloves and goggles and be careful.\n"


def value(text, case=BURNING, cards=(CARD,), **weights):
    [found] = rewards([text], [case], [cards], RewardWeights(**weights))
    return found


def test_the_reference_earns_all_there_is():
    for case in (BURNING, FILLING):
        found = value(case.reference(), case)
        assert found.value == pytest.approx(1, abs=1e-5)
        assert all(part == pytest.approx(1, abs=1e-5) for part in found.components.values())
    assert set(value(FILLING.reference(), FILLING).components) == {"format", "safety_present", "narration"}
    assert set(value(BURNING.reference()).components) == set(RewardWeights.model_fields)


@pytest.mark.parametrize("worse", [
    BURNING.reference().replace("blue", "green"),
    BURNING.reference().replace("2CO + O2 → 2CO2", "CO + O2 → CO2"),
    BURNING.reference().replace("2CO + O2 → 2CO2", "2H2 + O2 → 2H2O"),
    BURNING.reference().split("<Safety>")[0],
    BURNING.reference().split("<Principle>")[0],
    BURNING.reference().split("<Safety>")[0] + GENERIC,
    BURNING.reference().replace("<Narration>\n", ""),
    BURNING.reference().replace("<Principle>", "<Safety>"),
    "", "words and no tag"])
def test_every_slip_costs(worse):
    assert value(worse).value < value(BURNING.reference()).value - 0.005


def test_general_advice_everywhere_does_not_pay():
    plain, chatty = FILLING.reference(), FILLING.reference() + GENERIC
    assert value(chatty, FILLING).components["safety_present"] == 0
    assert value(chatty, FILLING).value < value(plain, FILLING).value - 0.2
    own, advice = BURNING.reference(), BURNING.reference().split("<Safety>")[0] + GENERIC
    both = BURNING.reference() + GENERIC.removeprefix("<Safety>\n")
    assert value(own).value > value(both).value > value(advice).value
    steps, everywhere = [BURNING, FILLING], [advice, chatty]
    honest = rewards([c.reference() for c in steps], steps, [[CARD], [CARD]], RewardWeights())
    hacked = rewards(everywhere, steps, [[CARD], [CARD]], RewardWeights())
    forgot = rewards([own.split("<Safety>")[0], plain], steps, [[CARD], [CARD]], RewardWeights())
    total = [sum(r.value for r in found) for found in (honest, hacked, forgot)]
    assert total[0] > max(total[1:]) + 0.2
    assert total[1] <= total[2] + 0.15  # as bad as forgetting it


@pytest.mark.parametrize("said", ["Carbon monoxide is not toxic.", "The gas is harmless.", "It is safe to breathe.",
                                  "Carbon monoxide is not flammable.", "No ventilation is needed.", "It cannot explode.",
                                  "The exposure limit is 400 ppm.", "一氧化碳无毒。", "不需要通风。"])
def test_a_danger_played_down_earns_nothing(said):
    text = BURNING.reference() + f"{said}\n"
    found = value(text)
    assert found.value == 0
    assert found.contradiction
    assert found.components["format"] == 1  # the components are kept


@pytest.mark.parametrize("said", ["The exposure limit is 25 ppm.", "Do not breathe it: it is not harmless to anyone near.",
                                  "Keep it away from flames.", "It is heated to 300 °C.", "Between 12.5 and 74 % it explodes."])
def test_what_the_card_says_is_no_contradiction(said):
    assert contradiction(said, BURNING.reference(), [CARD]) == ("harmless" if "harmless" in said else "")


def test_without_a_warning_nothing_is_played_down():
    assert contradiction("Water is harmless and not flammable.", FILLING.reference(), []) == ""
    assert contradiction("It is harmless.", "<Safety>\nThe dye is harmless.\n", ["It is toxic in grams."]) == ""


def test_weights_say_what_counts():
    worse = BURNING.reference().replace("blue", "green")
    assert value(worse, narration=0).value == pytest.approx(1, abs=1e-5)
    assert value(worse, format=0, safety_present=0, safety=0, principle=0, equation=0).value == pytest.approx(
        value(worse).components["narration"])
    assert value(worse, **dict.fromkeys(RewardWeights.model_fields, 0)).value == 0


@pytest.mark.parametrize(("said", "wanted", "expected"), [
    ("2CO + O2 → 2CO2", "2CO + O2 → 2CO2", 1), ("4CO + 2O2 → 4CO2", "2CO + O2 → 2CO2", 1), ("CO burns", "CO burns", None),
    ("CO burns", "2CO + O2 → 2CO2", 0), ("CO + O2 → CO2", "2CO + O2 → 2CO2", 0), ("2H2 + O2 → 2H2O", "CO burns", 0),
    ("N2 + O2 → 2NO", "N2 + O2 → 2NO; 2NO + O2 → 2NO2", 0.5), ("H2O2 + Cl2 → O2 + 2HCl", "O2 + 2HCl → H2O2 + Cl2", 0)])
def test_equations_agree_as_far_as_they_are_the_same(said, wanted, expected):
    assert equations_agree(said, wanted) == expected


def test_agreement_is_symmetric_and_knows_empty_texts():
    texts = ["the flame is blue", "the flame is green", "", "火焰是蓝色的"]
    for a in texts:
        for b in texts:
            [one], [other] = agreements([a], [b]), agreements([b], [a])
            assert one == pytest.approx(other)
            assert 0 <= one <= 1 + 1e-6
            assert (one > 0.999) == (a == b)
    assert agreements([], []) == []


def test_word_f1_counts_words_numbers_and_characters():
    assert word_f1("a b b", "b b c") == pytest.approx(2 / 3)
    assert word_f1("2.5 g", "25 g") == pytest.approx(1 / 2)
    assert word_f1("蓝色火焰", "绿色火焰") == pytest.approx(3 / 4)

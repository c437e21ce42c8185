"""What tells a step from its siblings, and whether it is seen first or told again."""

import pytest

from expstar_utils.datasets import Case
from expstar_utils.siblings import place_of, sights


def experiment(number, *lines):
    return [Case.model_validate({"id": f"{number}-{step}", "experiment": f"chemistry/{number}", "subject": "chemistry",
                                 "title": "Flames", "step_number": step, "clip": "c.mp4", "summary": "s", "narration": [line]})
            for step, line in enumerate(lines, 1)]


@pytest.fixture
def found():
    colours = ["red", "green", "blue", "red"]
    return sights([experiment(n, f"The flame is {c}.", f"Over the {c} flame, bead {n} melts.", "Put it out.")
                   for n, c in enumerate(colours)])


def test_telling_words_are_seen_first_and_told_again_later(found):
    assert found["1-1"] == ({"green"}, set())
    assert found["1-2"] == ({"1"}, {"green"})
    assert found["0-2"] == ({"0"}, {"red"})


def test_where_all_say_the_same_nothing_tells(found):
    assert found["2-3"] == (set(), set())
    assert sights([experiment(0, "The flame is red.")])["0-1"] == (set(), set())


def test_a_word_tells_if_enough_siblings_lack_it():
    colours = ["red", "red", "red", "red", "blue"]
    found = sights([experiment(n, f"It is {c}.") for n, c in enumerate(colours)])
    assert found["0-1"] == (set(), set())
    assert found["4-1"] == ({"blue"}, set())


def test_siblings_share_subject_title_and_step():
    first, second = experiment(1, "a", "b"), experiment(2, "c", "d")
    assert place_of(first[0]) == place_of(second[0]) != place_of(first[1])

"""Passages: about a hundred words on sentence borders, nothing lost on the way, clean, and each says something new."""

import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expstar_utils.passages import LEAST_WORDS, MOST_WORDS, WORDS, Document, Novelty, clean, cut, length, new_ones, sentences

TEXT = ("A convex lens gathers light. Its focal length is approx. 12.5 cm, as Dr. Smith measured. Nearer objects give a larger "
        "image! Why is that so? The rays meet farther away. ")


def document(*sections, name="optics/lens"):
    return Document(name, "Lenses", "", lambda _: sections)


def test_passages_have_about_a_hundred_words_and_hold_every_sentence_once():
    text = " ".join(f"Sentence {n} is about the lens and its light number {n}." for n in range(200))
    passages = list(cut(document(("Rays", text))))
    assert len(passages) == round(length([text]) / WORDS)
    assert all(0.8 * WORDS < length([p.text]) < 1.2 * WORDS for p in passages)
    assert " ".join(p.text for p in passages) == text
    assert all(p.text.endswith(".") for p in passages)
    assert {(p.title, p.section) for p in passages} == {("Lenses", "Rays")}
    assert len({p.id for p in passages}) == len(passages)


def test_no_passage_crosses_a_section_and_short_rests_are_dropped():
    passages = list(cut(document(("Rays", TEXT), ("Also", "Too short."), ("Eyes", TEXT.replace("lens", "eye")))))
    assert [p.section for p in passages] == ["Rays", "Eyes"]
    assert length(["Too short."]) < LEAST_WORDS


def test_ids_stay_when_another_part_changes():
    before = {p.section: p.id for p in cut(document(("Rays", TEXT), ("Eyes", TEXT)))}
    after = {p.section: p.id for p in cut(document(("New", TEXT), ("Rays", TEXT), ("Eyes", TEXT + "One more sentence.")))}
    assert before["Rays"] == after["Rays"]
    assert before["Eyes"] != after["Eyes"]
    assert all(re.fullmatch(r"optics/lens-[0-9a-f]{10}", name) for name in after.values())


def test_sentences_end_where_they_should():
    assert sentences("It weighs 3.5 kg. Heat it, e.g. with a flame. It burns! Is it CO2? Yes.") == [
        "It weighs 3.5 kg.", "Heat it, e.g. with a flame.", "It burns!", "Is it CO2?", "Yes."]
    assert sentences("加热铜片。它变黑了！为什么？", "zh") == ["加热铜片。", "它变黑了！", "为什么？"]


@pytest.mark.parametrize("text", ["word " * 1000, "铜" * 1000, "a b " * 10 + "y" * 5000, "word " * 200_000])
def test_a_text_without_full_stops_is_cut_all_the_same(text):
    passages = list(cut(document(("", text))))
    assert passages
    assert all(length([p.text]) <= MOST_WORDS for p in passages)
    assert max(len(p.text) for p in passages) <= 61 * MOST_WORDS
    assert "".join(p.text for p in passages).replace(" ", "") == text.replace(" ", "")


def test_a_megabyte_without_a_word_is_no_passage():
    assert list(cut(document(("", "x" * 1_000_000)))) == []


@given(st.text(max_size=300))
@example("a\x00b\u200bc\ufefd <b>bold</b> &amp; <script>x</script> 5 < 6 > 4")
@settings(deadline=None)
def test_clean_text_has_no_control_characters_and_stays_clean(text):
    once = clean(text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\ufeff]", once)
    assert not re.search(r"^ | $|  ", once, re.MULTILINE)


def test_markup_goes_and_inequalities_stay():
    assert clean("<p>Heat <b>2&nbsp;g</b> of NaCl &amp; water</p>") == "Heat 2 g of NaCl & water"
    assert clean("if p < 0.05 and q > 3") == "if p < 0.05 and q > 3"
    assert clean("one\r\n\ttwo\x0bthree\n\n\nfour") == "one\ntwo three\nfour"


def changed(words, share, rng):
    """The words with a share of them exchanged for others."""
    return [f"other{rng.randrange(10_000)}" if rng.random() < share else word for word in words]


def test_copies_are_told_from_texts_of_their_own():
    rng, novelty = random.Random(0), Novelty()
    texts = [[f"w{rng.randrange(3000)}" for _ in range(100)] for _ in range(200)]
    assert all(novelty(" ".join(words)) for words in texts)
    assert not any(novelty(" ".join(words).upper() + ".") for words in texts)
    near = sum(not novelty(" ".join(changed(words, 0.01, rng))) for words in texts)
    far = sum(not novelty(" ".join(changed(words, 0.3, rng))) for words in texts)
    assert near > 160
    assert far < 4


def test_a_text_is_kept_once_and_in_order():
    passages = list(cut(document(("A", TEXT), ("B", TEXT.replace("lens", "mirror").replace("light", "rays")), ("C", TEXT))))
    assert [p.section for p in new_ones(passages, Novelty())] == ["A", "B"]

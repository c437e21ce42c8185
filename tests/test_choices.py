"""Choice rows: words are exchanged everywhere alike, the right passage stands beside sisters, narrations are not trained."""

import random
import re

import pytest

from expstar_utils import models
from expstar_utils.batches import VideoCollator
from expstar_utils.choices import choice_samples, with_earlier
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.encoding import IGNORED
from expstar_utils.packing import shared_groups
from expstar_utils.prompts import IRRELEVANT, RELEVANT, load_prompts, parse
from expstar_utils.records import Passage, RetrievalResult
from expstar_utils.rewording import Rewording, reworded

FLAMES = {"sodium": ("yellow", "589"), "copper": ("green", "2.5"), "lithium": ("crimson", "671"),
          "barium": ("apple-green", "0.55")}
PLACE = ("chemistry", "Flame tests", 1)
FILLER = "The salt glows in the flame and gives"


def text_of(salt):
    colour, number = FLAMES[salt]
    return f"{salt.capitalize()} salts give a {colour} flame. {FILLER} a line at {number} nm: Na2CO3."


def case_of(number, salt):
    colour, length = FLAMES[salt]
    return Case.model_validate({
        "id": f"chemistry_{number}", "experiment": f"chemistry/{number}", "subject": "chemistry", "title": "Flame tests",
        "step_number": 1, "clip": f"{number}.mp4", "summary": "s", "narration": [f"The flame is {colour}."],
        "principle": [f"The salt is {salt}: its line lies at {length} nm."], "safety": ["Hot wire burns."]})


def found_for(case, salt):
    documents = [{"id": other, "text": text_of(other), "relevant": 5 if other == salt else 2} for other in FLAMES]
    documents.append({"id": "far", "text": f"{FILLER} nothing of note.", "relevant": 1})
    return RetrievalResult.model_validate({"id": case.id, "query": case.query, "video_path": "0.mp4", "is_rag": True,
                                           "documents": documents})


@pytest.fixture(scope="module")
def drawn():
    cases = [case_of(n, salt) for n, salt in enumerate(FLAMES)]
    found = {c.id: found_for(c, salt) for c, salt in zip(cases, FLAMES, strict=True)}
    return cases, choice_samples(cases, load_prompts(), found, "narration", rounds=12, sisters=2, seed=3)


def test_words_of_a_mapping_are_exchanged_and_no_others():
    text = "Sodium salts: yellow, yellow-green, 2.5 g, 25 g; NA2 and Na2."
    assert reworded(text, {"sodium": "quartz", "yellow": "left", "2.5": "8.1", "Na2": "K2"}) == (
        "Quartz salts: left, yellow-green, 8.1 g, 25 g; NA2 and K2.")
    assert reworded(text, {}) == text


def test_what_tells_is_found_and_grammar_stays():
    rewording = Rewording([case_of(n, salt) for n, salt in enumerate(FLAMES)], [text_of(s) for s in FLAMES] + [FILLER] * 4)
    assert {"yellow", "sodium", "589", "apple-green", "0.55"} <= rewording.telling[PLACE]
    assert not {"the", "flame", "is", "salt", "nm"} & rewording.telling[PLACE]
    chosen = rewording.draw(PLACE, [text_of("copper"), text_of("sodium")], 1.0, random.Random(0))
    assert len(set(chosen.values())) == len(chosen)
    assert not set(chosen) & set(chosen.values())
    assert [c if not c.isdigit() else "9" for c in chosen.get("2.5", "9.9")] == ["9", ".", "9"]


def test_rows_show_the_right_passage_beside_sisters(drawn):
    cases, rounds = drawn
    assert len(rounds) == 12
    for rows in rounds:
        groups = shared_groups(rows)
        assert [len(g) for g in groups] == [3] * len(cases)
        for group in groups:
            verdicts = [rows[i].messages[-1].content.splitlines()[0] for i in group]
            assert verdicts == [RELEVANT, IRRELEVANT, IRRELEVANT]
            assert not any("nothing of note" in rows[i].messages[3].content for i in group)
    beside = {tuple(r.messages[3].content for r in rows[1:3]) for rows in rounds}
    assert len(beside) > 6  # not the same sisters every round


def test_narration_passage_and_notes_still_agree_after_an_exchange(drawn):
    cases, rounds = drawn
    originals = {case.id: case for case in cases}
    exchanged = 0
    for row in (rows[i] for rows in rounds for i in range(0, len(rows), 3)):
        narration = parse(row.messages[2].content).commentary.narration[0]
        passage, notes = row.messages[3].content, parse(row.messages[4].content).commentary
        colour = narration.removeprefix("The flame is ").removesuffix(".")
        salt, line = notes.principle[0].removeprefix("The salt is ").removesuffix(" nm.").split(": its line lies at ")
        assert colour in passage
        assert f"at {line} nm" in passage
        assert passage.lower().startswith(f"<paragraph>{salt} salts")
        changed = (narration, *notes.principle) != (*originals[row.id].narration, *originals[row.id].principle)
        assert not (changed and row.messages[2].weight)  # what the clip does not show is not trained
        exchanged += changed
    assert 0.4 < exchanged / (12 * len(cases)) < 0.8


def test_a_step_that_tells_again_stands_behind_what_was_told():
    cases, found = [], {}
    for number, salt in enumerate(FLAMES):
        first = case_of(number, salt).model_copy(update={"principle": [], "safety": []})
        second = case_of(number, salt).model_copy(update={"id": f"again_{number}", "step_number": 2,
                                                          "narration": [f"It was {FLAMES[salt][0]}."]})
        cases += [first, second]
        found[second.id] = found_for(second, salt)
    rounds = choice_samples(cases, load_prompts(), found, "narration", rounds=12, sisters=1, seed=5)
    natural = [row for rows in rounds for row in rows if row.messages[2].weight]
    assert len(natural) > 20
    for row in natural:
        colour = FLAMES[list(FLAMES)[int(row.id[-1])]][0]
        assert f"The flame is {colour}." in row.messages[1].content
    exchanged = [row for rows in rounds for row in rows if not row.messages[2].weight]
    assert 0.3 < sum("The flame is" in row.messages[1].content for row in exchanged) / len(exchanged) < 0.7


def test_without_narration_the_rest_is_trained_as_before():
    cases = [case_of(n, salt) for n, salt in enumerate(FLAMES)]
    found = {c.id: found_for(c, salt) for c, salt in zip(cases, FLAMES, strict=True)}
    told, silent = (choice_samples(cases, load_prompts(), found, "narration", rounds=4, sisters=2, narrated=narrated, seed=2)
                    for narrated in (True, False))
    assert {row.messages[2].weight for rows in told for row in rows} == {0, 1}
    assert {row.messages[2].weight for rows in silent for row in rows} == {0}
    said, said_silent = ([[m.content for m in row.messages] for rows in of_all for row in rows] for of_all in (told, silent))
    assert said == said_silent
    earlier = [expstar_sample(case, [], load_prompts(), [Passage(id="p", text=text)]) for case in cases for text in "ab"]
    earlier.append(expstar_sample(cases[0].model_copy(update={"id": "x", "principle": [], "safety": []}), [], load_prompts()))
    before = [row.model_copy(deep=True) for row in earlier]
    again = [row for row in with_earlier(silent[:1], earlier, 9.0, narrated=False) if row not in silent[0]]
    assert earlier == before
    assert {row.id for row in again} == {case.id for case in cases}
    assert {row.messages[2].weight for row in again} == {0}
    assert {row.messages[4].weight for row in again} == {1}


def test_same_seed_same_rows_and_another_others():
    cases = [case_of(n, salt) for n, salt in enumerate(FLAMES)]
    found = {c.id: found_for(c, salt) for c, salt in zip(cases, FLAMES, strict=True)}
    def rows(seed):
        return choice_samples(cases, load_prompts(), found, "narration", rounds=2, sisters=2, seed=seed)
    assert rows(1) == rows(1) != rows(2)


def test_steps_without_sisters_are_left_out_and_none_is_no_error():
    case = case_of(0, "sodium")
    result = found_for(case, "sodium")
    result.documents = [d for d in result.documents if d.relevant != 2]
    assert choice_samples([case], load_prompts(), {case.id: result}, "narration", rounds=2, sisters=3) == [[], []]


def test_a_passage_that_another_step_needs_is_no_sister():
    """Step 2 needs a passage of its own whatever the salt: it must not be taught as irrelevant to step 1."""
    cases = [case_of(n, salt) for n, salt in enumerate(FLAMES)]
    later = [c.model_copy(update={"id": f"chemistry_{n + 10}", "step_number": 2}) for n, c in enumerate(cases)]
    found = {c.id: found_for(c, salt) for c, salt in zip(cases, FLAMES, strict=True)}
    care = {"id": "care", "text": "Mind the hot wire."}
    for case in cases:
        found[case.id].documents.insert(0, Passage.model_validate(care | {"relevant": 2}))
    for case, salt in zip(later, FLAMES, strict=True):
        found[case.id] = found_for(case, salt)
        found[case.id].documents = [d.model_copy(update={"relevant": min(d.relevant, 2)}) for d in found[case.id].documents]
        found[case.id].documents.insert(0, Passage.model_validate(care | {"relevant": 5}))
    rows = [r for of_round in choice_samples([*cases, *later], load_prompts(), found, "narration", rounds=5, sisters=3)
            for r in of_round]
    assert {r.id for r in rows} == {c.id for c in cases}
    assert not any("hot wire" in r.messages[3].content for r in rows)


def test_an_answer_of_weight_0_is_read_and_not_trained(base, root, drawn):
    from small_runs import small_profile
    _, rounds = drawn
    model, processor = models.load(str(base))
    exchanged = next(r for rows in rounds for r in rows if not r.messages[2].weight).model_copy(update={"videos": ["0.mp4"]})
    row = VideoCollator(processor, [exchanged], root, small_profile(base), models.quirks(model, processor).turn_end).encode(0)
    trained = processor.tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert "The flame is" in processor.tokenizer.decode(row.ids)
    assert "The flame is" not in trained
    assert trained.startswith((RELEVANT, IRRELEVANT))


def test_every_round_brings_whole_steps_of_earlier_training(drawn):
    _, rounds = drawn
    rows = [expstar_sample(case_of(n, "sodium"), [], load_prompts(), [Passage(id="p", text=t)]) for n in range(6) for t in "abc"]
    mixed = with_earlier(rounds[:2], rows, 0.5, seed=1)
    assert [len(g) for g in shared_groups([r for r in mixed if r in rows])] == [3] * 4
    assert [r for r in mixed if r not in rows] == [*rounds[0], *rounds[1]]
    assert with_earlier(rounds[:2], rows, 0.5, seed=2) != mixed
    assert with_earlier(rounds[:1], rows, 0, seed=1) == rounds[0]


def test_a_phrased_row_takes_other_phrases_over_in_note_and_passage_alike(drawn):
    cases, _ = drawn
    found = {c.id: found_for(c, salt) for c, salt in zip(cases, FLAMES, strict=True)}
    def salts(phrased):
        rows = [row for of_round in choice_samples(cases, load_prompts(), found, "narration", rounds=30, sisters=2, natural=0.0,
                                                   share=1.0, phrased=phrased, seed=5)
                for row in of_round if len(row.messages) > 3 and RELEVANT in row.messages[-1].content]
        taken_over = [re.search(r"The salt is (.*): its line lies at (.*) nm", row.messages[-1].content).groups() for row in rows]
        assert len(rows) == 30 * len(FLAMES)
        assert all(part.lower() in row.messages[-2].content.lower() for row, parts in zip(rows, taken_over) for part in parts)
        return [salt for salt, _ in taken_over]
    assert not any(salt[0].isdigit() for salt in salts(0.0)), "a word gives way to a word"
    assert sum(salt[0].isdigit() for salt in salts(1.0)) > 20, "a name to what the other lines hold, a number too"

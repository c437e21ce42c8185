"""Second looks: what would have been said next best, the histories that follow from it, and when one of them is taken."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import noise_clips
from test_inference import CASES, PASSAGES, SHORT, Script, assert_same, fixed

from expstar_utils import inference, quickstart
from expstar_utils.encoding import text_ids
from expstar_utils.inference import Commentator, Step, infer
from expstar_utils.inspector import panels
from expstar_utils.media import sample_frames
from expstar_utils.prompts import load_prompts
from expstar_utils.publishing.documents import document
from expstar_utils.records import Prediction, VirtualClip
from expstar_utils.second_looks import LookingAgain, corrected, other_histories, support


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4, 5, 6])


def told(said, second=None, nats=1.0):
    """An earlier step's prediction: what it said, and what it would have said next best."""
    data = {} if second is None else {"second": {"narration": [second], "nats": nats}}
    return Prediction.model_validate({"id": said, "response": f"<Narration>\n{said}\n", "evaluation_data": data, "labels": "",
                                      "full_dialogue": ""})


# Other histories

@pytest.mark.parametrize(("text", "wrong", "right", "expected"), [
    ("The pale blue flame is gone.", "It has a pale blue flame.", "It has a green flame.", "The green flame is gone."),
    ("A blueish dye.", "It is blue.", "It is green.", "A blueish dye."),
    ("Three blocks, not one.", "It has 3 blocks.", "It has 4 blocks.", "Three blocks, not one."),
    ("The cup fizzes.", "The cup fizzes.", "The cup fizzes.", "The cup fizzes."),
    (r"It costs \1 (a+b).", "The sign is a+b here.", r"The sign is \g<0> here.", r"It costs \1 (\g<0>)."),
    ("", "It is blue.", "It is green.", ""),
])
def test_what_was_wrong_is_exchanged_wherever_it_is_said_again(text, wrong, right, expected):
    assert corrected(text, wrong, right) == expected


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_stops_the_exchange(text, wrong, right):
    assert isinstance(corrected(text, wrong, right), str)
    assert corrected(text, wrong, wrong) == text


EARLIER = [told("The flame is blue.", "The flame is green.", 2.0), told("The blue flame lifts."),
           told("The glass stays dry.", "The glass mists over.", 0.5), told("The end.", "The end.", 0.1)]
SAID = [prediction.id for prediction in EARLIER]


def test_the_nearest_second_comes_first_and_is_said_along():
    (nats, place, first), (other_nats, other_place, second) = other_histories(SAID, EARLIER, 2.5)
    assert [(nats, place), (other_nats, other_place)] == [(0.5, 2), (2.0, 0)]
    assert first == ["The flame is blue.", "The blue flame lifts.", "The glass mists over.", "The end."]
    assert second == ["The flame is green.", "The green flame lifts.", "The glass stays dry.", "The end."]
    assert other_histories(SAID, EARLIER, 2.0) == [(0.5, 2, first)]
    assert other_histories(SAID, EARLIER, 0) == other_histories(SAID, [], 3) == []
    assert other_histories(["A.", "B."], [told("A."), told("B.", "")], 3) == []


# When one of them is taken

class Believing(Script):
    """A script whose second best begins behind the first token, and whose verdict is yes where a word was read."""

    def __init__(self, processor, texts, believed):
        super().__init__(processor, texts)
        self.believed, self.asked = believed, []

    def runners_up(self, states, written):
        assert all(written)
        return [(1, text_ids(self.processor, "It")[0], 0.25)] * len(states)

    def judge(self, states, suffixes, continuations):
        behind = self.extend(states, suffixes)
        read = [self.processor.tokenizer.decode(state.ids) for state in behind]
        self.asked += read
        return behind, [[-0.1, -2.0] if self.believed in text else [-2.0, -0.1] for text in read]


LOOKING = dataclasses.replace(SHORT, passages=1, second_look_nats=2.5, max_new_tokens=24)
NOTE = "<Principle>\nIt is so."


def look(smolvlm, root, believed, texts, settings=LOOKING, kind=LookingAgain, earlier=EARLIER):
    commentator = kind(*smolvlm, load_prompts(), fixed(PASSAGES), settings)
    commentator.decoder = Believing(smolvlm[1], texts, believed)
    asked = Step(CASES[0], list(SAID), sample_frames(root / "0.mp4", size_px=(32, 32)), earlier=earlier)
    [prediction] = commentator.comment([asked])
    return commentator.decoder, prediction


def test_the_history_is_taken_that_a_passage_fits(smolvlm, root):
    said = ["<Narration>\nBlue and dry.\n", " remains unclear.\n", "<Narration>\nBlue mist.\n", "<Narration>\nGreen.\n", NOTE]
    decoder, made = look(smolvlm, root, "green flame", said)
    assert [[word in read for word in ("mists", "green flame")] for read in decoder.asked] == [
        [False, False], [True, False], [False, True]]
    assert made.response == "<Narration>\nGreen.\n" + NOTE
    data = made.evaluation_data
    assert (data["relevant_ids"], data["relevance"]) == (["p0"], [0.8699])
    assert data["read_again"] == {"step": 1, "narration": "The flame is green."}
    case = CASES[0].model_copy(update={"clip": VirtualClip(video="v.mp4", start=0, end=1)})
    assert "step 1 read again" in panels._read_again(made)
    assert "(step 1 is taken to show: The flame is green.)" in quickstart.show(document("Flames", "v.mp4", [case], [made]))
    assert data["second"]["nats"] == 0.25


@pytest.mark.parametrize(("relevance", "expected"), [
    ([], -9.21), ([0.0], -9.21), ([1.0, 0.5], 9.21), ([0.5], 0.0), ([0.1, 0.9], math.log(9)), ([1 - 1e-9], 9.21)])
def test_the_best_passage_speaks_for_a_history(relevance, expected):
    assert support(relevance) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("nats", "taken"), [(3.5, True), (4.0, False)])  # verdicts of 0.13 and 0.87 are 3.8 nats apart
def test_a_word_that_was_far_needs_a_passage_that_speaks_for_it(smolvlm, root, nats, taken):
    said = ["<Narration>\nBlue and dry.\n", " remains unclear.\n", "<Narration>\nGreen.\n", NOTE]
    earlier = [told("The flame is blue.", "The flame is green.", nats), *(told(p.id) for p in EARLIER[1:])]
    _, made = look(smolvlm, root, "green flame", said, dataclasses.replace(LOOKING, second_look_nats=9.0), earlier=earlier)
    assert bool(made.evaluation_data["read_again"]) == taken


def test_what_fits_best_first_stays_as_it_was_seen(smolvlm, root):
    said = ["<Narration>\nBlue and dry.\n", " remains unclear.\n", *["<Narration>\nOther.\n"] * 2, NOTE]
    decoder, made = look(smolvlm, root, "end", said)  # which all histories say
    assert len(decoder.asked) == 3
    assert (made.evaluation_data["read_again"], made.response) == (None, "<Narration>\nBlue and dry.\n" + NOTE)


@pytest.mark.parametrize(("changes", "earlier", "tried"), [
    ({}, EARLIER, 3), ({"second_look_nats": 1.0}, EARLIER, 2), ({"second_look_nats": 0.0}, EARLIER, 1), ({}, (), 1),
    ({"knowledge": "never", "tau": 0.5}, EARLIER, 0)])
def test_what_fits_nowhere_stays_as_it_was_seen(smolvlm, root, changes, earlier, tried):
    said = ["<Narration>\nBlue and dry.\n", " remains unclear.\n", *["<Narration>\nOther.\n"] * max(tried - 1, 0), NOTE]
    decoder, made = look(smolvlm, root, "nothing of the kind", said, dataclasses.replace(LOOKING, **changes), earlier=earlier)
    assert len(decoder.asked) == tried
    assert made.response == "<Narration>\nBlue and dry.\n" + NOTE
    assert (made.evaluation_data["read_again"], made.evaluation_data["relevant_ids"]) == (None, [])


def test_the_second_best_goes_on_from_the_other_word(smolvlm, root):
    said = ["<Narration>\nBlue and dry.\n", " glows\n[Retrieval] and more", "<Narration>\nX.\n", "<Narration>\nX.\n", NOTE]
    _, made = look(smolvlm, root, "nothing", said)
    begun = smolvlm[1].tokenizer.decode([text_ids(smolvlm[1], said[0])[0], text_ids(smolvlm[1], "It")[0]])
    assert "".join(made.evaluation_data["second"]["narration"]) in f"{begun} glows".replace("<Narration>", "").strip()


# Whole runs

def run(smolvlm, root, out, kind=LookingAgain, **changes):
    settings = dataclasses.replace(SHORT, second_look_nats=100.0, **changes)
    commentator = kind(*smolvlm, load_prompts(), fixed(PASSAGES), settings)
    return infer(commentator, CASES, root, out, fps=1, max_frames=4, frame_size=(32, 32), batch=2)


def test_a_killed_run_looks_again_as_the_whole_one_does(smolvlm, root, tmp_path, monkeypatch):
    whole, append, written = run(smolvlm, root, tmp_path / "whole.jsonl"), inference.append_jsonl, []
    assert all("second" in made.evaluation_data for made in whole)
    def killed(path, row):
        if len(written) == 2:
            raise KeyboardInterrupt
        append(path, row)
        written.append(row)
    monkeypatch.setattr(inference, "append_jsonl", killed)
    with pytest.raises(KeyboardInterrupt):
        run(smolvlm, root, tmp_path / "killed.jsonl")
    monkeypatch.setattr(inference, "append_jsonl", append)
    for mine, its in zip(run(smolvlm, root, tmp_path / "killed.jsonl"), whole, strict=True):
        assert_same(mine, its)


def test_the_references_history_is_not_doubted(smolvlm, root, tmp_path):
    looked = run(smolvlm, root, tmp_path / "again.jsonl", history="teacher")
    stock = run(smolvlm, root, tmp_path / "stock.jsonl", Commentator, history="teacher")
    assert [p.response for p in looked] == [p.response for p in stock]
    assert {p.evaluation_data["read_again"] for p in looked} == {None}

"""Adaptive inference: the gate, isolated verdicts, what a prediction records, and runs that go on where they stopped."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import noise_clips

from expstar_utils import inference, models
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.encoding import encode_dialogue, encode_prefix, text_ids
from expstar_utils.inference import Commentator, Settings, Step, infer, retrieval_prob
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import MINIATURES
from expstar_utils.prompts import IRRELEVANT, NO_RETRIEVAL, RELEVANT, RETRIEVAL, load_prompts, parse
from expstar_utils.records import ExpStarError, Message, Passage
from expstar_utils.rereading import RereadingDecoder

PASSAGES = [Passage(id=f"p{i}", title=t, text=f"{t} burns with {t} light and should be kept under oil.")
            for i, t in enumerate(("Sodium", "Copper", "Lithium", "Potassium and its friends"))]
SHORT = Settings(passages=3, max_new_tokens=8, knowledge="always")
logps = st.floats(-1e4, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4, 5, 6])


def case(number=0, experiment="chemistry/a", step=1):
    return Case.model_validate({"id": f"chemistry_{number}", "experiment": experiment, "subject": "chemistry", "title": "Flames",
                                "step_number": step, "clip": f"{number}.mp4", "summary": "s", "narration": ["It glows."],
                                "principle": ["Na emits light."]})


CASES = [case(0), case(1, step=2), case(2, "chemistry/b"), case(3, "chemistry/b", step=2)]


def step(root, number=0):
    return Step(case(number), [], sample_frames(root / f"{number}.mp4", size_px=(32, 32)))


def fixed(passages):
    return lambda case, clip, k: list(passages)[:k]


def ask(loaded, root, passages=PASSAGES, **changes):
    """One step and its prediction, with changed settings."""
    asked = step(root)
    settings = Settings(**(vars(SHORT) | changes))
    [prediction] = Commentator(*loaded, load_prompts(), fixed(passages), settings).comment([asked])
    return asked, prediction


def logit(probs):
    return torch.logit(torch.tensor(probs, dtype=torch.float64))


def run(loaded, root, out, settings=SHORT, retriever=None):
    commentator = Commentator(*loaded, load_prompts(), retriever or fixed(PASSAGES), settings)
    return infer(commentator, CASES, root, out, fps=1, max_frames=4, frame_size=(32, 32), batch=2)


# The gate

@given(logps, logps)
def test_gate_is_a_probability_and_symmetric(yes, no):
    prob = retrieval_prob(yes, no)
    assert 0 <= prob <= 1
    assert prob + retrieval_prob(no, yes) == pytest.approx(1)
    assert (prob > 0.5) == (yes > no) or yes == pytest.approx(no)


@given(logps, logps, logps)
def test_gate_is_monotone_in_both_arguments(first, second, other):
    low, high = sorted((first, second))
    assert retrieval_prob(low, other) <= retrieval_prob(high, other)
    assert retrieval_prob(other, low) >= retrieval_prob(other, high)


def test_gate_at_known_values():
    assert retrieval_prob(-1.0, -1.0) == 0.5
    assert retrieval_prob(torch.tensor(0.99).log().item(), torch.tensor(0.01).log().item()) == pytest.approx(0.99)
    assert retrieval_prob(-1e4, 0) == 0
    assert retrieval_prob(0, -1e4) == 1


@pytest.mark.parametrize(("tau", "asks"), [(0.0, True), (0.86, True), (0.88, False), (1.0, False)])
def test_threshold_cuts_at_the_probability(smolvlm, root, tau, asks):
    commentator = Commentator(*smolvlm, load_prompts(), fixed(PASSAGES), Settings(tau=tau))
    commentator.decoder = Script(smolvlm[1], ["<Narration>\nA.\n", "<Principle>\nB."])
    [prediction] = commentator.comment([step(root)])
    assert prediction.evaluation_data["retrieval_prob"] == round(retrieval_prob(-0.1, -2.0), 4) == 0.8699
    assert prediction.evaluation_data["is_retrieval"] is asks
    assert bool(prediction.evaluation_data["passage_ids"]) is asks
    assert prediction.evaluation_data["rounds"][0]["content"] == f"<Narration>\nA.\n{RETRIEVAL if asks else NO_RETRIEVAL}"


# Pictures that were misread

def test_a_narration_that_is_doubted_becomes_the_admission_and_the_model_goes_on_from_there(smolvlm, root):
    asked, doubts = step(root), []
    def doubt(case, lines):
        doubts.append(lines)
        return True
    [prediction] = Commentator(*smolvlm, load_prompts(), fixed(PASSAGES), SHORT, doubt).comment([asked])
    admitted = [line.replace("{title}", "Flames") for line in load_prompts().unclear]
    assert list(parse(prediction.evaluation_data["rounds"][0]["content"]).commentary.narration) == admitted
    assert len(doubts) == 1
    assert prediction.evaluation_data["unclear"] is True
    other, believed = ask(smolvlm, root)
    assert believed.evaluation_data["unclear"] is False
    assert abs(logit(asked.prob) - logit(other.prob)) > 1e-3


def test_what_the_model_admits_itself_is_not_doubted(smolvlm, root):
    said = "".join(f"{line}\n" for line in load_prompts().unclear_lines("Flames"))
    def doubt(case, lines):
        pytest.fail("asked")
    commentator = Commentator(*smolvlm, load_prompts(), fixed(PASSAGES), Settings(tau=1.0), doubt)
    commentator.decoder = Script(smolvlm[1], [f"<Narration>\n{said}"])
    [prediction] = commentator.comment([step(root)])
    assert prediction.evaluation_data["unclear"] is True


def test_of_an_unclear_picture_the_hazard_card_comes_first(smolvlm, root):
    passages = [*PASSAGES[:2], Passage(id="hazard-1", text=PASSAGES[2].text)]
    for doubt, first in ((lambda case, lines: True, True), (None, False)):
        asked = step(root)
        settings = Settings(**(vars(SHORT) | {"verdict_threshold": 0.0, "shown": 3}))
        [prediction] = Commentator(*smolvlm, load_prompts(), fixed(passages), settings, doubt).comment([asked])
        best = max(range(3), key=lambda i: asked.relevance[i])
        assert prediction.evaluation_data["relevant_ids"][0] == ("hazard-1" if first else passages[best].id)


# Verdicts and answers

@pytest.mark.parametrize("changed", range(3))
def test_a_verdict_sees_its_own_passage_only(smolvlm, root, changed):
    other = list(PASSAGES)
    other[changed] = Passage(id="new", text="Bees dance.")
    moved = (logit(ask(smolvlm, root)[0].relevance) - logit(ask(smolvlm, root, passages=other)[0].relevance)).abs()
    assert [i for i in range(3) if moved[i] > 1e-3] == [changed]


def test_answer_is_written_from_the_most_relevant(smolvlm, root):
    asked, prediction = ask(smolvlm, root, verdict_threshold=0.0, shown=2)
    data, best = prediction.evaluation_data, sorted(range(3), key=lambda i: -asked.relevance[i])[:2]
    assert data["passage_ids"] == ["p0", "p1", "p2"]
    assert data["relevance"] == [round(p, 4) for p in asked.relevance]
    assert data["relevant_ids"] == [f"p{i}" for i in best]
    assert data["relevant_passages"] == [f"<paragraph>{PASSAGES[i].text}</paragraph>" for i in best]
    assert data["rounds"][0]["content"].endswith(RETRIEVAL)
    assert data["rounds"][1]["content"].startswith(f"{RELEVANT}\n")


def test_threshold_of_verdicts_cuts_at_the_probability(smolvlm, root):
    scores = ask(smolvlm, root)[0].relevance
    _, second, best = sorted(scores)
    _, prediction = ask(smolvlm, root, verdict_threshold=(second + best) / 2)
    assert prediction.evaluation_data["relevant_ids"] == [f"p{scores.index(best)}"]


@pytest.mark.parametrize("passages", [PASSAGES, []])
def test_nothing_relevant_is_said_and_answered_without(smolvlm, root, passages):
    _, prediction = ask(smolvlm, root, passages=passages, verdict_threshold=1.0)
    data = prediction.evaluation_data
    assert data["rounds"][1]["content"].startswith(f"{IRRELEVANT}\n")
    assert data["relevant_ids"] == []
    assert data["passage_ids"] == [p.id for p in passages[:3]]
    _, same = ask(smolvlm, root, passages=[Passage(id="x", text="Bees dance.")], verdict_threshold=1.0)
    assert prediction.response == same.response  # irrelevant passages have no say in the answer


def test_never_looks_nothing_up(smolvlm, root):
    def forbidden(query, frames, k):
        raise AssertionError("looked up")
    settings = Settings(knowledge="never", tau=0.0, max_new_tokens=8)
    [prediction] = Commentator(*smolvlm, load_prompts(), forbidden, settings).comment([step(root)])
    assert prediction.evaluation_data["is_retrieval"]
    assert prediction.evaluation_data["passage_ids"] == []
    assert prediction.evaluation_data["rounds"][1]["content"].startswith(IRRELEVANT)


def test_blank_frames_reach_model_and_retriever(smolvlm, root):
    seen = []
    def retriever(case, clip, k):
        seen.append(clip)
        return PASSAGES[:k]
    asked = step(root)
    [blank] = Commentator(*smolvlm, load_prompts(), retriever, Settings(**(vars(SHORT) | {"blank": True}))).comment([asked])
    assert {int(seen[0].min()), int(seen[0].max())} == {127}
    assert abs(logit(asked.prob) - logit(ask(smolvlm, root)[0].prob)) > 1e-3
    assert blank.evaluation_data["settings"]["blank"] is True


def test_steps_side_by_side_are_each_alone(smolvlm, root):
    commentator = Commentator(*smolvlm, load_prompts(), fixed(PASSAGES), SHORT)
    together = commentator.comment([step(root, n) for n in range(3)])
    for number, prediction in enumerate(together):
        [alone] = commentator.comment([step(root, number)])
        assert_same(alone, prediction)


def assert_same(one, other):
    """Equal but for the last digit of probabilities, which depends on what stood beside a row."""
    one, other = one.to_dict(), other.to_dict()
    for key in ("relevance", "retrieval_prob"):
        mine, its = one["evaluation_data"].pop(key), other["evaluation_data"].pop(key)
        assert mine == pytest.approx(its, abs=2e-4)
    assert one == other


def test_untagged_output_is_recorded_with_its_faults(smolvlm, root):
    _, babble = ask(smolvlm, root)
    assert parse(babble.response).faults
    commentator = Commentator(*smolvlm, load_prompts(), fixed(PASSAGES), SHORT)
    commentator.decoder = Script(smolvlm[1], ["The gas burns. ", "It is hot."])
    [prediction] = commentator.comment([step(root)])
    assert prediction.response == "The gas burns. It is hot."
    assert parse(prediction.response).faults == ("text before any tag: 'The gas burns. It is hot.'", "no section tag at all")
    assert prediction.evaluation_data["frame_times_s"] == [0.5, 1.5, 2.5]


# What the model reads

class Read:
    """A state that only remembers its tokens; cropped, it knows no probabilities until it is extended."""

    def __init__(self, ids, fresh=True):
        self.ids, self.fresh = ids, fresh

    def cropped(self, dropped):
        return Read(self.ids[: len(self.ids) - dropped], fresh=dropped == 0)


class Script:
    """Stands in for the decoder: writes the given texts one after the other and prefers the first of two strings."""

    def __init__(self, processor, texts):
        self.processor, self.texts, self.last = processor, list(texts), []

    def prefill(self, prefix):
        return Read(prefix.ids)

    def extend(self, states, suffixes):
        return [Read(s.ids + list(t)) for s, t in zip(states, suffixes)]

    def score(self, states, continuations):
        assert all(s.fresh for s in states), "scored behind a state with stale probabilities"
        return [[-0.1, -2.0]] * len(states)

    def judge(self, states, suffixes, continuations):
        behind = self.extend(states, suffixes)
        return behind, self.score(behind, continuations)

    def decode(self, states, *_):
        assert all(s.fresh for s in states), "decoded behind a state with stale probabilities"
        written = [text_ids(self.processor, self.texts.pop(0)) for _ in states]
        self.last = [Read(s.ids + w) for s, w in zip(states, written)]
        return self.last, written


@pytest.fixture(scope="module", params=MINIATURES)
def family(request, tmp_path_factory):
    return models.load(str(MINIATURES[request.param](tmp_path_factory.mktemp(request.param))))


@pytest.mark.parametrize(("shown", "threshold"), [(1, 0.5), (2, 0.5), (2, 1.0)])
def test_the_model_reads_what_training_rows_hold(family, root, shown, threshold):
    model, processor = family
    settings = Settings(passages=3, shown=shown, verdict_threshold=threshold)
    commentator = Commentator(model, processor, load_prompts(), fixed(PASSAGES), settings)
    narration, answer = "<Narration>\nSalt glows (yellow).\n", "<Principle>\nNa emits light.\n<Safety>\nGoggles!"
    commentator.decoder = Script(processor, [narration + RETRIEVAL, answer])
    asked = step(root)
    [prediction] = commentator.comment([asked])
    used = [p.text for p in PASSAGES[:shown]] if threshold < 1 else []
    verdict = RELEVANT if used else IRRELEVANT
    assert prediction.response == narration + answer
    messages = [*load_prompts().prefix("chemistry", "Flames", []), Message(role="assistant", content=narration + RETRIEVAL),
                load_prompts().passages(used), Message(role="assistant", content=f"{verdict}\n{answer}")]
    row = encode_dialogue(processor, messages, asked.frames, commentator.turn_end)
    assert commentator.decoder.last[0].ids + [commentator.end] == row.ids


def test_notes_alone_are_written_behind_what_training_rows_hold(family, root):
    model, processor = family
    commentator = Commentator(model, processor, load_prompts(), None, Settings())
    commentator.decoder = Script(processor, ["<Principle>\nNa emits light.", "<Principle>\nTwo."])
    asked = step(root)
    asked.passages = PASSAGES[:1]
    assert commentator.write([asked, Step(case(1), [], asked.frames, passages=PASSAGES[1:2])]) == [
        "<Principle>\nNa emits light.", "<Principle>\nTwo."]
    row = encode_dialogue(processor, expstar_sample(case(), [], load_prompts(), PASSAGES[:1]).messages, asked.frames,
                          commentator.turn_end)
    assert commentator.decoder.last[0].ids + [commentator.end] == row.ids


@pytest.mark.parametrize("written", ["", RETRIEVAL, f"{NO_RETRIEVAL} and more", "<Narration>\nA.\n",
                                     f"<Narration>\nA.\n{NO_RETRIEVAL}"])
def test_the_decision_is_made_behind_the_narration(family, root, written):
    model, processor = family
    commentator = Commentator(model, processor, load_prompts(), None, Settings())
    commentator.decoder = Script(processor, [written, "<Principle>\nB."])
    asked = step(root)
    commentator.comment([asked])
    prefix = encode_prefix(processor, load_prompts().prefix("chemistry", "Flames", []), asked.frames).ids
    assert asked.narration == written.partition("[")[0]
    assert asked.state.ids == prefix + text_ids(processor, asked.narration) + text_ids(processor, RETRIEVAL) + [commentator.end]


def test_a_placeholder_that_a_model_wrote_does_no_harm(smolvlm, root, tmp_path):
    commentator = Commentator(*smolvlm, load_prompts(), None, Settings(knowledge="never", tau=1.0))
    commentator.decoder = Script(smolvlm[1], ["<Narration>\nSalt <image><video>glows.\n"] * 2)
    predictions = infer(commentator, CASES[:2], root, tmp_path / "p.jsonl", fps=1, max_frames=4, frame_size=(32, 32))
    assert [p.response for p in predictions] == ["<Narration>\nSalt glows.\n"] * 2


# Whole runs

def test_history_is_the_models_own_or_the_references(smolvlm, root, tmp_path):
    for history, shown in (("free", "- Step 1: Salt.\n"), ("teacher", "- Step 1: It glows.\n")):
        commentator = Commentator(*smolvlm, load_prompts(), None, Settings(knowledge="never", tau=1.0, history=history))
        commentator.decoder = Script(smolvlm[1], ["<Narration>\nSalt.\n"] * 2)
        infer(commentator, CASES[:2], root, tmp_path / f"{history}.jsonl", fps=1, max_frames=4, frame_size=(32, 32))
        assert shown in smolvlm[1].tokenizer.decode(commentator.decoder.last[0].ids)


@pytest.mark.parametrize("survived", [1, 3])
def test_a_killed_run_goes_on_where_it_stopped(smolvlm, root, tmp_path, monkeypatch, survived):
    whole = run(smolvlm, root, tmp_path / "whole.jsonl")
    out, append = tmp_path / "killed.jsonl", inference.append_jsonl
    written = []
    def killed(path, row):
        if len(written) == survived:
            raise KeyboardInterrupt
        append(path, row)
        written.append(row.id)
    monkeypatch.setattr(inference, "append_jsonl", killed)
    with pytest.raises(KeyboardInterrupt):
        run(smolvlm, root, out)
    monkeypatch.setattr(inference, "append_jsonl", append)
    out.write_text(out.read_text() + '{"id": "chemi')  # a line that the kill tore
    calls = []
    def counting(case, clip, k):
        calls.append(case.id)
        return PASSAGES[:k]
    for mine, its in zip(run(smolvlm, root, out, retriever=counting), whole, strict=True):
        assert_same(mine, its)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(calls) == len(CASES) - survived // 2 * 2  # two go side by side, and are done again together


def test_predictions_of_other_settings_are_refused(smolvlm, root, tmp_path):
    out = tmp_path / "p.jsonl"
    run(smolvlm, root, out, Settings(knowledge="never", max_new_tokens=2))
    same = {"knowledge": "never", "max_new_tokens": 2}
    for name, value in (("history", "teacher"), ("blank", True), ("tau", 0.7), ("knowledge", "always"), ("seed", 1)):
        other = Settings(**(same | {name: value}))
        with pytest.raises(ExpStarError, match=rf"p\.jsonl: holds predictions made with {name}=.*give another run_dir"):
            run(smolvlm, root, out, other)


# How passages are judged

def judged(loaded, root, threshold=0.0, **changes):
    """One step, its prediction and how many passages were judged apart, whatever the model says."""
    commentator = Commentator(*loaded, load_prompts(), fixed(PASSAGES), Settings(**(vars(SHORT) | {
        "verdict_threshold": threshold, "shown": 2} | changes)))
    asked, sizes, stock = step(root), [], commentator.decoder.judge
    commentator.decoder.judge = lambda states, *more: sizes.append(len(states)) or stock(states, *more)
    [prediction] = commentator.comment([asked])
    return asked, prediction, max(sizes)


def test_joint_verdict_is_one_on_all_passages(smolvlm, root):
    asked, prediction, branches = judged(smolvlm, root, verdicts="joint")
    assert branches == 1
    assert asked.relevance == [asked.relevance[0]] * 3
    assert asked.chosen == [0, 1, 2]  # and the answer is written from all of them
    assert prediction.evaluation_data["relevant_ids"] == [p.id for p in PASSAGES[:3]]
    refused, prediction, _ = judged(smolvlm, root, verdicts="joint", threshold=1.0)
    assert refused.chosen == []
    assert IRRELEVANT in prediction.full_dialogue


def test_without_verdicts_the_first_passages_are_written_from(smolvlm, root):
    asked, prediction, branches = judged(smolvlm, root, verdicts="none")
    assert branches == 0
    assert asked.relevance == [1.0] * 3
    assert asked.chosen == [0, 1]
    assert RELEVANT in prediction.full_dialogue
    each, *_ = judged(smolvlm, root)
    assert len(set(each.relevance)) == 3


@pytest.mark.parametrize("verdicts", ["each", "joint", "none"])
def test_no_passage_found_is_no_fault_in_any_mode(smolvlm, root, verdicts):
    asked, prediction = ask(smolvlm, root, passages=[], verdicts=verdicts)
    assert asked.chosen == asked.relevance == []
    assert IRRELEVANT in prediction.full_dialogue


@pytest.mark.parametrize("verdicts", ["each", "joint", "none"])
@pytest.mark.parametrize("family", MINIATURES)
def test_reading_the_prompt_once_or_every_time_gives_the_same_tokens(tmp_path, root, family, verdicts):
    loaded = models.load(str(MINIATURES[family](tmp_path / family)))
    settings = Settings(**(vars(SHORT) | {"verdicts": verdicts, "verdict_threshold": 0.2, "shown": 2}))
    once, again = (Commentator(*loaded, load_prompts(), fixed(PASSAGES), settings, **more).comment([step(root), step(root, 1)])
                   for more in ({}, {"decoder": RereadingDecoder}))
    assert [p.full_dialogue for p in once] == [p.full_dialogue for p in again]
    for a, b in zip(once, again, strict=True):
        assert a.evaluation_data["relevance"] == pytest.approx(b.evaluation_data["relevance"], abs=1e-3)


def test_language_changes_the_system_message_alone():
    english, chinese = (load_prompts().prefix("chemistry", "Flames", [], language) for language in ("en", "zh"))
    assert english == load_prompts().prefix("chemistry", "Flames", [])
    assert chinese[0].content == english[0].content + " Write in Chinese, under the same English tags."
    assert chinese[1] == english[1]


def test_a_rank_weighs_where_verdicts_cannot_tell():
    """At weight 0 verdicts stand; with it, of two alike the better ranked wins, and a clear verdict still beats a rank."""
    from expstar_utils.decisions import with_ranks
    assert with_ranks([0.3, 0.9, 0.0, 1.0], 0.0) == pytest.approx([0.3, 0.9, 0.0, 1.0])
    first, second, third = with_ranks([0.9, 0.9001, 0.999], 0.6)
    assert first == pytest.approx(0.9)
    assert third > first > second
    odds = 0.9001 / (1 - 0.9001) * math.exp(-0.6)
    assert second == pytest.approx(odds / (1 + odds))
    assert with_ranks([], 1.0) == []

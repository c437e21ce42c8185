"""Candidates and pairs: sampled repeatably, resumed, told apart by their rewards, written as the published rows are."""

from __future__ import annotations

import pytest
from small_runs import noise_clips

from expstar_utils.candidates import Candidate, cards_of, dialogue, preference_samples, sample_candidates
from expstar_utils.datasets import Case
from expstar_utils.files import read_jsonl
from expstar_utils.inference import Commentator, Settings
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Passage, Sample
from expstar_utils.rewards import Reward

PASSAGES = [Passage(id=f"p{i}", title=t, text=f"{t} burns.") for i, t in enumerate(("Sodium", "Copper"))]
HOT = Settings(passages=2, max_new_tokens=8, knowledge="always", temperature=2.0, history="teacher", seed=7)
PROMPTS = load_prompts()


def case(number, experiment, step):
    return Case.model_validate({"id": f"chemistry_{number}", "experiment": experiment, "subject": "chemistry", "title": "Flames",
                                "step_number": step, "clip": f"{number}.mp4", "summary": "s",
                                "narration": [f"Salt {number} glows."],
                                "principle": ["Na emits light."]})


CASES = [case(0, "chemistry/a", 1), case(1, "chemistry/a", 2), case(2, "chemistry/b", 1)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4, 5])


def sample(loaded, root, out, cases=CASES, count=3, group=2, settings=HOT):
    commentator = Commentator(*loaded, PROMPTS, lambda case, clip, k: PASSAGES[:k], settings)
    found = sample_candidates(commentator, cases, root, out, count=count, history="narration", fps=1, max_frames=3,
                              frame_size=(32, 32), group=group)
    assert commentator.settings == settings
    return found


def test_every_step_gets_its_candidates_and_they_differ(smolvlm, root, tmp_path):
    found = sample(smolvlm, root, tmp_path / "c.jsonl")
    assert [(c.id, c.number) for c in found] == [(case.id, n) for case in CASES for n in range(3)]
    assert list(read_jsonl(tmp_path / "c.jsonl", Candidate)) == found
    for case in CASES:
        assert len({c.full_dialogue for c in found if c.id == case.id}) > 1
    again = sample(smolvlm, root, tmp_path / "again.jsonl")
    assert again == found
    other = sample(smolvlm, root, tmp_path / "other.jsonl", settings=Settings(**(vars(HOT) | {"seed": 8})))
    assert [c.full_dialogue for c in other] != [c.full_dialogue for c in found]


def test_candidates_answer_the_prompt_with_the_references_history(smolvlm, root, tmp_path):
    found = sample(smolvlm, root, tmp_path / "c.jsonl")
    rows = preference_samples(CASES, found, [Reward(float(c.number == 0), {}) for c in found], PROMPTS, "narration",
                              positive=0.5, margin=0.1, pairs=9)
    second = next(row for row in rows if row.id == "chemistry_1")
    assert "Step 1: Salt 0 glows." in second.messages[1].content


@pytest.mark.parametrize("lines", [0, 1, 5, 6, 7, 9])
def test_a_killed_run_ends_like_one_that_was_not(smolvlm, root, tmp_path, lines):
    whole = tmp_path / "whole.jsonl"
    sample(smolvlm, root, whole)
    cut = tmp_path / "cut.jsonl"
    text = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(text[:lines]) + (text[lines][:40] if lines < 9 else b""))
    sample(smolvlm, root, cut)
    assert cut.read_bytes() == whole.read_bytes()


def test_candidates_of_other_settings_or_steps_are_refused(smolvlm, root, tmp_path):
    sample(smolvlm, root, tmp_path / "c.jsonl")
    with pytest.raises(ExpStarError, match=r"sampled with temperature=2\.0, expected temperature=1\.0"):
        sample(smolvlm, root, tmp_path / "c.jsonl", settings=Settings(**(vars(HOT) | {"temperature": 1.0})))
    with pytest.raises(ExpStarError, match=r"holds candidates of chemistry_0, expected chemistry_2"):
        sample(smolvlm, root, tmp_path / "c.jsonl", cases=CASES[2:])


def candidate(number, text, step=0, retrieve=False):
    rounds = [{"role": "assistant", "content": f"<Narration>\n{text}\n[{'' if retrieve else 'No '}Retrieval]"}]
    rounds += [{"role": "assistant", "content": "[Relevant]\n<Safety>\nWear goggles.\n"}] if retrieve else []
    data = {"rounds": rounds, "relevant_passages": ["<paragraph>Copper burns.</paragraph>"] if retrieve else []}
    response = f"<Narration>\n{text}\n" + ("<Safety>\nWear goggles.\n" if retrieve else "")
    return Candidate(id=f"chemistry_{step}", number=number, response=response, full_dialogue=text, evaluation_data=data)


def rows_of(candidates, values, **changes):
    given = {"positive": 0.8, "margin": 0.1, "pairs": 2} | changes
    return preference_samples(CASES, candidates, [Reward(v, {}) for v in values], PROMPTS, "narration", **given)


def test_pairs_are_good_ones_beside_bad_ones_the_widest_first():
    found = [candidate(0, "a"), candidate(1, "b"), candidate(2, "c"), candidate(3, "d")]
    rows = rows_of(found, [0.9, 0.2, 1.0, 0.75], pairs=9)
    assert [(r.messages[2].content.split("\n")[1], r.rejected_response.split("\n")[1]) for r in rows] == [
        ("c", "b"), ("a", "b"), ("c", "d"), ("a", "d")]
    assert len(rows_of(found, [0.9, 0.2, 1.0, 0.75])) == 2
    assert len(rows_of(found, [0.9, 0.2, 1.0, 0.75], pairs=9, margin=0.2)) == 3
    assert rows_of(found, [0.9, 0.9, 1.0, 0.9]) == rows_of(found, [0.1, 0.2, 0.3, 0.1]) == []


def test_a_text_sampled_twice_counts_once_and_steps_do_not_mix():
    found = [candidate(0, "a"), candidate(1, "a"), candidate(2, "b"), candidate(0, "c", step=1)]
    rows = rows_of(found, [1, 1, 0, 0], pairs=9)
    assert [(r.id, r.rejected_response) for r in rows] == [("chemistry_0", "<Narration>\nb\n")]


def test_a_row_keeps_the_dialogue_or_is_written_as_published():
    found = [candidate(0, "a", retrieve=True), candidate(1, "b")]
    [row] = rows_of(found, [1, 0])
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert row.messages[3].content == "<paragraph>Copper burns.</paragraph>"
    assert row.messages[2:] == dialogue(found[0], PROMPTS)
    assert row.rejected_messages == dialogue(found[1], PROMPTS)
    [plain] = rows_of(found, [1, 0], rows="response")
    assert list(plain.to_dict()) == ["messages", "videos", "id", "rejected_response"]
    assert plain.messages[2].content == "<Narration>\na\n<Safety>\nWear goggles.\n"
    assert Sample.model_validate(row.to_dict()).to_dict() == row.to_dict()


def test_cards_are_the_relevant_hazard_cards():
    found = [Passage(id="hazard-1", text="a", relevant=5), Passage(id="hazard-2", text="b", relevant=1), Passage(id="x", text="c",
             relevant=5)]
    assert cards_of(found) == ["a"]

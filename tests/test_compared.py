"""Comparison models: their rows, their examples, one turn in process and through a server, published numbers beside."""

from __future__ import annotations

import pytest
import torch
from endpoint import completion
from small_runs import noise_clips

from expstar_utils import models
from expstar_utils.compared import draw_examples, find_row, load_rows, published, with_examples
from expstar_utils.datasets import Case
from expstar_utils.inference import Settings, Step
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import miniature_smolvlm
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError
from expstar_utils.served import Server, infer_served
from expstar_utils.single_turn import ServedSingleTurn, SingleTurn

PROMPTS = load_prompts()


def case(number, notes=True, **more):
    return Case.model_validate({"id": f"chemistry_{number}", "experiment": f"chemistry/{number // 2}", "subject": "chemistry",
                                "title": f"Title {number // 2}", "step_number": 1 + number % 2, "clip": f"{number}.mp4",
                                "summary": "s", "narration": [f"Thing {number} glows."],
                                "principle": ["It emits {light}."] if notes else []} | more)


TRAIN = [case(n, notes=n % 2 == 1) for n in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4])


def test_every_row_of_the_papers_table_can_be_run_and_has_its_numbers():
    rows = load_rows()
    assert {row.style for row in rows.values()} == {"few-shot", "fine-tuned"}
    for row in rows.values():
        assert (row.shots > 0) == (row.style == "few-shot")
        assert {"BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "BERTScore"} <= published(row.published).keys()
    assert len(rows) == 14
    assert published("GPT-4o")["BLEU-1"] == 15.10
    assert published("no such model") == {}


@pytest.mark.parametrize(("text", "message"), [
    ("- {name: a, id: b, style: zero-shot, frames: 1}", "row 1: style is"), ("- {name: a, id: b, style: few-shot}", "frames"),
    ("- {name: a, id: b, style: few-shot, frames: 1, fps: 2}", "fps"), ("- {name: [", "cannot be read")])
def test_a_wrong_row_is_named(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ExpStarError, match=message):
        load_rows(tmp_path / "m.yaml")
    with pytest.raises(ExpStarError, match="model 'gpt-9' is not known, expected one of"):
        find_row("gpt-9")


def test_examples_are_of_different_experiments_and_repeatable():
    drawn = draw_examples(TRAIN, 4, seed=1)
    assert drawn == draw_examples(TRAIN, 4, seed=1)
    assert any(draw_examples(TRAIN, 4, seed=s) != drawn for s in range(2, 6))
    assert len({c.experiment for c in drawn}) == 4
    assert [c.needs_retrieval for c in drawn] == [True, False, True, False]
    assert len(draw_examples(TRAIN, 99, seed=1)) == 6  # no experiment twice
    assert draw_examples([], 3, seed=1) == draw_examples(TRAIN, 0, seed=1) == []


def test_examples_stand_before_the_request_and_change_nothing_else():
    shown = with_examples(PROMPTS, TRAIN[:2])
    [system, user] = shown.prefix("chemistry", "Flames {subject}", [])
    [plain_system, plain] = PROMPTS.prefix("chemistry", "Flames {subject}", [])
    assert system == plain_system
    assert user.content.endswith(plain.content)
    for c in TRAIN[:2]:
        assert c.title in user.content
        assert c.reference() in user.content
    assert user.content.count("<video>") == 1
    assert with_examples(PROMPTS, []) is PROMPTS
    with pytest.raises(ExpStarError, match="has no `example`"):
        with_examples(PROMPTS.model_copy(update={"example": ""}), TRAIN[:1])


def test_a_model_in_process_answers_in_one_turn(tmp_path, root):
    torch.set_num_threads(1)
    loaded = models.load(str(miniature_smolvlm(tmp_path / "base")))
    steps = [Step(case(n), [], sample_frames(root / f"{n}.mp4", size_px=(32, 32))) for n in range(2)]
    made = SingleTurn(*loaded, PROMPTS, None, Settings(max_new_tokens=8)).comment(steps)
    for prediction, step in zip(made, steps, strict=True):
        assert prediction.full_dialogue == prediction.response == prediction.evaluation_data["rounds"][0]["content"]
        assert prediction.evaluation_data["passage_ids"] == prediction.evaluation_data["relevance"] == []
        assert prediction.labels == step.case.reference()
    assert made[0].response


def test_a_served_model_answers_in_one_turn_behind_its_examples(endpoint, root, tmp_path):
    text = "<Narration>\nIt glows.\n<Principle>\nIt emits.\n"
    url, asked = endpoint(completion(text))
    served = ServedSingleTurn(Server(url, "gpt-4o"), with_examples(PROMPTS, TRAIN[2:4]), None, Settings())
    how = {"fps": 1, "max_frames": 2, "frame_size": (32, 32)}
    made, problems = infer_served(served, [case(0), case(1)], root, tmp_path / "p.jsonl", **how)
    assert problems == []
    assert len(asked) == 2
    assert [p.response for p in made] == [text, text]
    assert all(a["model"] == "gpt-4o" for a in asked)
    said = asked[1]["messages"][1]["content"]
    assert "Thing 2 glows." in said[0]["text"]
    assert "Step 1: It glows." in said[-1]["text"]

"""The first training stage: rows of a clip alone, words that tell, a connector that moves gently, an adapter trained further."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_profile

from expstar_utils import captions, models, training
from expstar_utils.batches import VideoCollator
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.encoding import IGNORED, text_ids
from expstar_utils.files import read_jsonl
from expstar_utils.prompts import load_prompts
from expstar_utils.records import Record

CONNECTOR = {"smolvlm": ["connector"], "qwen2_5_vl": ["merger"]}
COLOURS = ["yellow", "crimson", "lilac", "green"]


def cases(count=4, step=1):
    return [Case.model_validate({"id": f"chemistry_{n}", "experiment": f"chemistry/{n}", "subject": "chemistry",
                                 "title": "Flames", "step_number": step, "clip": f"{n}.mp4", "summary": "s",
                                 "narration": ["We heat a salt.", f"The flame turns {COLOURS[n]}."],
                                 "principle": ["It emits."] if n % 2 else []}) for n in range(count)]


def words(processor, text):
    return set(text_ids(processor, text))


def train(base, root, folder, rows, model=None, **changes):
    profile = small_profile(base, warm_start=CONNECTOR[base.name]).model_copy(update=changes)
    loaded, processor = models.load(str(base))
    telling = captions.telling_tokens(cases(), processor)
    return training.train_sft(loaded if model is None else model, processor, rows, root, profile, folder, str(base), max_steps=3,
                              telling=telling)


def test_a_caption_holds_nothing_but_the_clip():
    silent, asking = map(captions.caption_sample, cases()[:2])
    assert [m.role for m in silent.messages] == ["user", "assistant"]
    assert silent.messages[0].content == "<video>\n"
    assert silent.messages[1].content == "<Narration>\nWe heat a salt.\nThe flame turns yellow.\n[No Retrieval]"
    assert asking.messages[1].content.endswith("[Retrieval]")
    assert (silent.videos, silent.id) == (["0.mp4"], "chemistry_0")


def test_words_tell_where_siblings_differ(base):
    _, processor = models.load(str(base))
    telling = captions.telling_tokens(cases(), processor)
    assert list(telling) == [f"chemistry_{n}" for n in range(4)]
    for colour, tokens in zip(COLOURS, telling.values()):
        assert tokens
        assert tokens <= words(processor, f"\nThe flame turns {colour}.")
        assert not tokens & words(processor, "\nWe heat a salt.")
    alone = captions.telling_tokens(cases(1), processor)
    assert alone == {"chemistry_0": set()}
    steps = captions.telling_tokens([case for n in (1, 2) for case in cases(1, step=n)], processor)
    assert steps == {"chemistry_0": set()}


@pytest.mark.parametrize("packed", [False, True])
def test_words_that_tell_count_more(base, root, tmp_path, packed):
    model, processor = models.load(str(base))
    telling, rows = captions.telling_tokens(cases(), processor), [captions.caption_sample(case) for case in cases()]
    profile = small_profile(base)
    collate = VideoCollator(processor, rows, root, profile, models.quirks(model, processor).turn_end)
    batch = collate([{"row": n} for n in range(4)])
    labels = batch.pop("labels")[:, 1:]
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(model(**batch).logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED,
                                                   reduction="none")
    heavy = torch.tensor([[int(t) in telling[row.id] for t in its] for row, its in zip(rows, labels)])
    assert 0 < heavy.sum() < (labels != IGNORED).sum()
    expected = ((1 + 4 * heavy) * losses).sum() / (labels != IGNORED).sum()
    changes = {"batch_size": 4, "sft_lr": 1e-12, "decision_weight": 1.0, "telling_weight": 5.0, "packed": packed}
    profile = small_profile(base, **changes)
    training.train_sft(model, processor, rows, root, profile, tmp_path, str(base), max_steps=5, telling=telling)
    [line] = read_jsonl(tmp_path / "log.jsonl", Record)
    assert line.loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("rate", [0.0, 1e-5])
def test_the_connector_moves_gently_or_not_at_all(base, root, tmp_path, rate):
    before = models.load(str(base))[0].state_dict()
    rows = [captions.caption_sample(case) for case in cases()]
    adapter = train(base, root, tmp_path, rows, sft_lr=1e-2, warm_start_lr=rate)
    saved = load_file(adapter / "adapter_model.safetensors")
    carried = {name.split("base_model.model.")[1]: tensor for name, tensor in saved.items() if "lora_" not in name}
    assert carried
    moved = max(float((tensor.float() - before[name].float()).abs().max()) for name, tensor in carried.items())
    rounding = max(float(tensor.abs().max()) for tensor in carried.values()) / 256
    assert moved <= 3 * rate * 1.2 + rounding


def test_the_connector_does_move(base, root, tmp_path):
    rows = [captions.caption_sample(case) for case in cases()]
    still, moved = (load_file(train(base, root, tmp_path / str(rate), rows, warm_start_lr=rate) / "adapter_model.safetensors")
                    for rate in (0.0, 1e-2))
    changed = [n for n in still if "lora_" not in n and not torch.equal(still[n], moved[n])]
    assert changed


def test_the_second_stage_goes_on_from_the_first(base, root, tmp_path):
    first = train(base, root, tmp_path / "captions", [captions.caption_sample(case) for case in cases()])
    rows = [expstar_sample(case, [], load_prompts(), [], relevant=False) for case in cases()]
    kept, _ = models.load(str(base), first, merge=False)
    second = train(base, root, tmp_path / "sft", rows, kept, sft_lr=1e-12, packed=True)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    assert any(bool(t.any()) for n, t in before.items() if "lora_B" in n)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=1e-2)
    kept, _ = models.load(str(base), first, merge=False)
    third = train(base, root, tmp_path / "further", rows, kept, sft_lr=1e-2, packed=True)
    further = load_file(third / "adapter_model.safetensors")
    assert all(not torch.equal(t, further[n]) for n, t in before.items() if "lora_B" in n)


def test_for_captions_changes_only_what_captions_need(base):
    profile = small_profile(base, packed=True, decision_weight=10, accumulation=4, caption_epochs=2, caption_batch=5,
                            caption_lr=0.01, caption_connector_lr=0.002, telling_weight=3)
    stage = profile.for_captions()
    assert (stage.sft_epochs, stage.batch_size, stage.sft_lr, stage.warm_start_lr) == (2, 5, 0.01, 0.002)
    assert (stage.packed, stage.decision_weight, stage.accumulation, stage.telling_weight) == (False, 1.0, 1, 3)

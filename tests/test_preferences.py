"""DPO on video pairs: TRL's own loss, packed as apart, the reference left as it was, one adapter at the end, runs that resume."""

import math

import pytest
import torch
from safetensors.torch import load_file
from small_runs import COMPILER, small_profile

from expstar_utils import models, preferences, scoring, training
from expstar_utils.batches import VideoCollator
from expstar_utils.encoding import IGNORED, encode_dialogue
from expstar_utils.files import read_json, read_jsonl
from expstar_utils.preferences import PairCollator, same_when_packed, score_pairs, train_dpo, turns_of
from expstar_utils.profiles import Preferences
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Message, Record, Sample

ANSWERS = [("<Narration>\nIt glows yellow.\n[Retrieval]", "[Relevant]\n<Principle>\nNa emits light.\n"),
           ("<Narration>\nIt glows green, and the bead cools slowly.\n[No Retrieval]", None),
           ("<Narration>\nNothing.\n[Retrieval]", "[Irrelevant]\n<Safety>\nWear goggles.\n")]


def turns(number):
    first, second = ANSWERS[number]
    more = [Message(role="user", content=f"<paragraph>Passage {number}.</paragraph>"),
            Message(role="assistant", content=second or "")]
    return [Message(role="assistant", content=first), *(more if second else [])]


def pairs(count=4, **changes):
    """Preference rows: of one answer and of several turns, chosen and rejected of different lengths."""
    rows = []
    for n in range(count):
        prefix = load_prompts().prefix("chemistry", f"Flame {n}", ["Before."] * (n % 2))
        row = {"messages": [m.to_dict() for m in (*prefix, *turns(n % 3))], "videos": [f"{n}.mp4"], "id": f"chemistry_{n}",
               "rejected_response": ANSWERS[(n + 1) % 3][0]}
        if n % 2:
            row["rejected_messages"] = [m.to_dict() for m in turns((n + 1) % 3)]
        rows.append(Sample.model_validate(row | changes))
    return rows


def profile(base, **changes):
    given = {"lr": 1e-3, "lora_r": 2, "lora_alpha": 4, "max_frames": 3} | changes.pop("dpo", {})
    return small_profile(base, **{"dpo": Preferences(**given).model_dump(), "warmup": 0.0} | changes)


@pytest.fixture(scope="module")
def tuned(base, root, tmp_path_factory):
    """Folder of an SFT adapter of the miniature."""
    model, processor = models.load(str(base))
    torch.manual_seed(1)
    rows = [s.model_copy(update={"rejected_response": None}) for s in pairs()]
    setting = small_profile(base, sft_lr=1e-2)
    return training.train_sft(model, processor, rows, root, setting, tmp_path_factory.mktemp("sft"), str(base), max_steps=3)


def dpo(base, root, tuned, folder, steps=4, rows=None, **changes):
    setting = profile(base, **changes)
    model, processor = models.load(str(base), tuned, merge=not setting.dpo.further)
    adapter = train_dpo(model, processor, rows or pairs(), root, setting, folder, str(base), tuned, max_steps=steps)
    return list(read_jsonl(folder / "log.jsonl", Record)), adapter


def collator(base, root, tuned, rows=None):
    model, processor = models.load(str(base), tuned)
    setting = profile(base).for_dpo()
    return model, VideoCollator(processor, rows or pairs(), root, setting, models.quirks(model, processor).turn_end)


def scores(model, collate, packed, rows):
    batch = PairCollator(collate, packed)([{"row": row} for row in rows])
    with preferences.causal_blocks(model, active=packed):
        return model(**{k: batch[k] for k in ("reading", "sources", "targets")})


def test_a_published_row_has_one_answer_on_each_side():
    published = pairs(1)[0]
    prompt, (chosen, rejected) = turns_of(published)
    assert [m.role for m in prompt] == ["system", "user"]
    assert len(chosen) == 3
    assert [m.content for m in rejected] == [published.rejected_response]
    assert [m.role for m in turns_of(pairs(2)[1])[1][1]] == ["assistant", "user", "assistant"]


@pytest.mark.parametrize("packed", [True, False])
def test_trained_tokens_are_those_of_the_dialogues(base, root, tuned, packed):
    _, collate = collator(base, root, tuned)
    batch = PairCollator(collate, packed)([{"row": n} for n in range(4)])
    ids = batch["reading"]["input_ids"]
    assert len(ids) == (4 if packed else 8)
    assert batch["ids"] == [f"chemistry_{n}" for n in range(4)]
    for side in range(2):
        for n, sample in enumerate(collate.samples):
            prompt, sides = turns_of(sample)
            whole = encode_dialogue(collate.processor, [*prompt, *sides[side]], collate.frames(sample), collate.turn_end)
            wanted = [label for label in whole.labels if label != IGNORED]
            row = side * 4 + n
            targets = [t for t in batch["targets"][row].tolist() if t != IGNORED]
            assert targets == wanted
            assert batch["completion_mask"][row].sum() == len(wanted)
            assert batch["input_ids"][row][batch["completion_mask"][row].bool()].tolist() == wanted
            behind = [whole.ids[i - 1] for i, label in enumerate(whole.labels) if label != IGNORED]
            assert ids.flatten()[batch["sources"][row][:len(wanted)]].tolist() == behind


def test_scores_are_those_of_the_stock_head(base, root, tuned):
    model, collate = collator(base, root, tuned)
    batch = PairCollator(collate, False)([{"row": n} for n in range(4)])
    reading = batch["reading"]
    with torch.no_grad():
        logits = model(**reading).logits.log_softmax(-1)
        score_pairs(model, models.quirks(model, collate.processor).axes, bf16=False)
        found = scores(model, collate, False, range(4))
    flat, said = logits.flatten(0, 1), batch["targets"] != IGNORED
    expected = flat[batch["sources"][said], batch["targets"][said]]
    torch.testing.assert_close(found.log_probs[said], expected, atol=1e-4, rtol=1e-4)
    assert (found.log_probs[~said] == 0).all()
    assert model(**reading).logits.shape[:2] == reading["input_ids"].shape  # anything else is answered as before


def test_packed_pairs_have_the_scores_and_gradients_of_pairs_apart(base, root, tuned):
    found = {}
    for packed in (True, False):
        model, collate = collator(base, root, tuned)
        score_pairs(model, models.quirks(model, collate.processor).axes, bf16=False)
        model.requires_grad_(True)
        logps = scores(model, collate, packed, range(4)).log_probs.sum(1)
        chosen, rejected = logps.chunk(2)
        (-torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()).backward()
        trained = torch.cat([p.grad.flatten() for n, p in model.named_parameters() if p.grad is not None and "vision" not in n
                             and "visual" not in n])
        found[packed] = logps.detach(), trained
    (packed, apart) = found[True], found[False]
    torch.testing.assert_close(packed[0], apart[0], rtol=1e-4, atol=1e-4)
    assert apart[1].norm() > 1e-3
    assert (packed[1] - apart[1]).norm() < 1e-4 * apart[1].norm()


@pytest.mark.parametrize("packed", [True, False])
def test_the_first_loss_is_that_of_a_coin_and_falls(base, root, tuned, tmp_path, packed):
    log, _ = dpo(base, root, tuned, tmp_path, steps=8, packed=packed)
    assert log[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1].loss < log[0].loss
    assert getattr(log[-1], "rewards/margins") > 0
    assert 0 <= getattr(log[-1], "rewards/accuracies") <= 1


def test_packed_training_is_the_training_of_pairs_apart(base, root, tuned, tmp_path):
    losses = [[line.loss for line in dpo(base, root, tuned, tmp_path / str(packed), steps=6, packed=packed)[0]]
              for packed in (True, False)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_one_adapter_holds_both(base, root, tuned, tmp_path, monkeypatch):
    kept = {}
    stacking = preferences.save_stacked

    def keep(below, model, *given):
        kept["model"] = model
        return stacking(below, model, *given)
    monkeypatch.setattr(preferences, "save_stacked", keep)
    _, adapter = dpo(base, root, tuned, tmp_path, steps=6, dpo={"lr": 3e-2})
    assert read_json(adapter / "base.json") == {"base": str(base)}
    _, collate = collator(base, root, tuned)
    reading = PairCollator(collate, False)([{"row": 0}])["reading"]
    with torch.no_grad():
        trained = kept["model"].eval()(**reading).logits
        both = models.load(str(base), adapter)[0](**reading).logits
        before = models.load(str(base), tuned)[0](**reading).logits
    assert (trained - before).abs().max() > 0.05
    assert (trained - both).abs().max() < 0.1 * (trained - before).abs().max()  # what rounding to bfloat16 leaves


def test_the_adapter_of_sft_trained_further_keeps_its_shape_and_its_reference(base, root, tuned, tmp_path):
    log, adapter = dpo(base, root, tuned, tmp_path, steps=8, dpo={"further": True, "lr": 3e-3})
    assert log[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1].loss < log[0].loss
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (tuned, adapter))
    assert {name: tensor.shape for name, tensor in before.items()} == {name: tensor.shape for name, tensor in after.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_" in name}
    assert sorted(path.name for path in adapter.iterdir() if path.is_dir()) == []


def test_an_adapter_of_other_modules_is_refused(base, root, tuned, tmp_path):
    with pytest.raises(ExpStarError, match="another set of adapted modules"):
        dpo(base, root, tuned, tmp_path, steps=1, lora_target=r".*(text_model|language_model).*\.(q_proj|v_proj)")


@pytest.mark.parametrize(("further", "compiled"), [(False, False), (True, False), pytest.param(False, True, marks=COMPILER),
                                                   pytest.param(True, True, marks=COMPILER)])
def test_a_killed_run_ends_like_one_that_was_not(base, root, tuned, tmp_path, further, compiled):
    setting = {"dpo": {"further": further}, "compiled": compiled}
    whole, adapter = dpo(base, root, tuned, tmp_path / "whole", **setting)

    class Killed(Exception):
        pass

    class Kill(training.LossLog):
        def on_save(self, args, state, control, **_):
            if state.global_step == 2:
                raise Killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preferences, "LossLog", Kill)
        with pytest.raises(Killed):
            dpo(base, root, tuned, tmp_path / "killed", **setting)
    log, resumed = dpo(base, root, tuned, tmp_path / "killed", **setting)
    assert [line.loss for line in log] == pytest.approx([line.loss for line in whole], rel=1e-5)
    assert (resumed / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()


def test_a_packing_that_is_wrong_is_found_and_left(base, root, tuned, tmp_path, monkeypatch, capsys):
    model, collate = collator(base, root, tuned)
    axes = models.quirks(model, collate.processor).axes
    score_pairs(model, axes, bf16=False)
    assert same_when_packed(model, collate, [0], preferences.SAME)
    right = scoring.packed_positions
    monkeypatch.setattr(scoring, "packed_positions", lambda *given: right(*given) * 2)
    assert not same_when_packed(model, collate, [0], preferences.SAME)
    log, _ = dpo(base, root, tuned, tmp_path, steps=2, packed=True)
    assert "training goes on unpacked" in capsys.readouterr().out
    assert log[0].loss == pytest.approx(math.log(2), abs=1e-4)


def test_a_loss_that_is_no_number_names_the_rows(base, root, tuned, tmp_path):
    model, processor = models.load(str(base), tuned)
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = float("nan")
    with pytest.raises(ExpStarError, match=r"the loss is nan in rows \['chemistry_\d', 'chemistry_\d'\]"):
        train_dpo(model, processor, pairs(), root, profile(base), tmp_path, str(base), tuned, max_steps=1)


def test_rows_that_are_too_long_or_without_a_clip_are_listed_and_an_empty_set_is_refused(base, root, tuned, tmp_path):
    rows = pairs(3)
    rows[1].messages[-1].content = "It glows. " * 500
    rows[2].videos = ["nowhere.mp4"]
    log, _ = dpo(base, root, tuned, tmp_path, steps=1, rows=rows, max_length=900)
    assert [(problem["file"], problem["field"]) for problem in read_json(tmp_path / "problems.json")] == [
        ("chemistry_1", "length"), ("chemistry_2", "row")]
    assert len(log) == 1
    with pytest.raises(ExpStarError, match="found no preference row"):
        dpo(base, root, tuned, tmp_path / "none", steps=1, max_length=16)

"""Training with TRL: its loss is ours, adapters load back where they belong, and a killed run ends like one that was not."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import COMPILER, small_profile

from expstar_utils import models
from expstar_utils.adapters import is_trained
from expstar_utils.batches import LengthBatches, VideoCollator
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.encoding import IGNORED, decision_tokens, encode_prefix, weigh_decisions
from expstar_utils.files import read_json, read_jsonl
from expstar_utils.media import sample_frames
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Passage, Record
from expstar_utils.training import last_whole_checkpoint, train_sft

WHOLE = {"smolvlm": ["connector"], "qwen2_5_vl": [], "qwen3_vl": []}


def samples(count):
    rows = []
    for n in range(count):
        case = Case.model_validate({"id": f"chemistry_{n}", "experiment": f"chemistry/{n}", "subject": "chemistry",
                                    "title": f"Flame {n}", "step_number": 1, "clip": f"{n}.mp4", "summary": "s",
                                    "narration": [f"Salt {n} glows."], "principle": ["It emits."] if n % 2 else []})
        passages = [Passage(id="p", text="Sodium burns yellow. " * n)]
        rows.append(expstar_sample(case, [], load_prompts(), passages, relevant=n % 4 == 1))
    return rows


def profile(base, **changes):
    return small_profile(base, **{"warm_start": WHOLE[base.name]} | changes)


def train(base, root, folder, count, steps, **changes):
    model, processor = models.load(str(base))
    adapter = train_sft(model, processor, samples(count), root, profile(base, **changes), folder, str(base), max_steps=steps)
    return model, processor, adapter


def collator(base, root, count):
    model, processor = models.load(str(base))
    return model, VideoCollator(processor, samples(count), root, profile(base), models.quirks(model, processor).turn_end)


def logits(model, processor, root):
    prefix = encode_prefix(processor, samples(1)[0].messages[:2], sample_frames(root / "2.mp4", size_px=(56, 56)))
    ids = torch.tensor([prefix.ids])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **prefix.extras).logits[0, -1]


def test_an_empty_folder_is_no_begun_training(tmp_path):
    for name in ("adapter", "checkpoints/checkpoint-3"):
        (tmp_path / name).mkdir(parents=True)
    assert not is_trained(tmp_path)
    assert last_whole_checkpoint(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints/checkpoint-3/trainer_state.json").touch()
    assert last_whole_checkpoint(tmp_path / "checkpoints") == str(tmp_path / "checkpoints/checkpoint-3")
    assert not is_trained(tmp_path)
    (tmp_path / "adapter/base.json").touch()
    assert is_trained(tmp_path)


def test_adapter_loads_back_on_its_own_base_only(base, root, tmp_path):
    _, processor, adapter = train(base, root, tmp_path / "run", count=4, steps=3)
    assert read_json(adapter / "base.json") == {"base": str(base)}
    trained = {name.split("base_model.model.")[1] for name in load_file(adapter / "adapter_model.safetensors")}
    assert all("text_model" in n or "language_model" in n or n.startswith("model.connector") for n in trained)
    assert any("connector" in n for n in trained) == bool(WHOLE[base.name])
    plain, _ = models.load(str(base))
    adapted, _ = models.load(str(base), adapter)
    assert not torch.allclose(logits(plain, processor, root), logits(adapted, processor, root), atol=1e-2)
    other = base.parent / f"{base.name}-other"
    other.symlink_to(base)
    with pytest.raises(ExpStarError, match=f"made for base '{base}', found base '{other}'; use the profile"):
        models.load(str(other), adapter)
    other.unlink()
    with pytest.raises(ExpStarError, match=r"no adapter there, expected adapter_config\.json"):
        models.load(str(base), tmp_path)


def test_warm_started_modules_go_with_the_adapter_as_they_were(base, root, tmp_path):
    before, _ = models.load(str(base))
    _, _, adapter = train(base, root, tmp_path, count=4, steps=3, sft_lr=1e-2)
    saved = load_file(adapter / "adapter_model.safetensors")
    carried = {name.split("base_model.model.")[1]: tensor for name, tensor in saved.items() if "lora_" not in name}
    assert bool(carried) == bool(WHOLE[base.name])
    for name, tensor in carried.items():
        assert torch.equal(tensor, before.state_dict()[name].to(torch.bfloat16)), name


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_trl_trains_on_the_loss_of_our_labels(base, root, tmp_path, weight):
    model, collate = collator(base, root, 4)
    batch = collate([{"row": n} for n in range(4)])
    labels, _ = batch.pop("labels")[:, 1:], batch.pop("ids")
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(model(**batch).logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED,
                                                   reduction="none")
    weights = weigh_decisions(labels, decision_tokens(collate.processor), weight)
    expected = (weights * losses).sum() / (labels != IGNORED).sum()
    train(base, root, tmp_path, count=4, steps=5, batch_size=4, sft_lr=1e-12, decision_weight=weight)
    [line] = read_jsonl(tmp_path / "log.jsonl", Record)
    assert line.step == 5
    assert line.loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("rows", "batch"), [(1, 2), (7, 2), (500, 2), (503, 4)])
def test_batches_are_alike_in_length_and_in_no_order(rows, batch):
    lengths = [(37 * i) % 400 + 100 for i in range(rows)]
    sampler = LengthBatches(lengths, batch, pool=10)
    first, again = list(sampler), list(sampler)
    assert sorted(first) == list(range(rows))
    assert first == again
    sampler.set_epoch(1)
    if rows < 500:
        return
    assert list(sampler) != first
    groups = [[lengths[i] for i in first[at:at + batch]] for at in range(0, rows - batch + 1, batch)]
    spread, middle = [max(g) - min(g) for g in groups], [sum(g) / batch for g in groups]
    assert sum(spread) / len(spread) < 40
    pairs = list(zip(middle, middle[1:], strict=False))
    assert 0.4 < sum(a > b for a, b in pairs) / len(pairs) < 0.6


@pytest.mark.parametrize(("torn", "compiled"), [(False, False), (True, False), pytest.param(False, True, marks=COMPILER)])
def test_a_killed_run_ends_like_one_that_was_not(base, root, tmp_path, monkeypatch, torn, compiled):
    _, _, straight = train(base, root, tmp_path / "straight", count=6, steps=5, compiled=compiled)
    collate, calls = VideoCollator.__call__, []
    def killed(self, rows):
        calls.append(rows)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return collate(self, rows)
    monkeypatch.setattr(VideoCollator, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        train(base, root, tmp_path / "run", count=6, steps=5, compiled=compiled)
    seen = []
    monkeypatch.setattr(VideoCollator, "__call__", lambda self, rows: seen.append(rows) or collate(self, rows))
    [checkpoint] = (tmp_path / "run" / "checkpoints").glob("checkpoint-*")
    done = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 1 <= done < 5
    if torn:  # killed while the next checkpoint was being written
        half = checkpoint.with_name("checkpoint-9")
        half.mkdir()
        (half / "adapter_config.json").write_text((checkpoint / "adapter_config.json").read_text())
    _, _, resumed = train(base, root, tmp_path / "run", count=6, steps=5, compiled=compiled)
    assert len(seen) <= 5 - done + 1  # only the steps that were left, and one batch fetched ahead
    expected, found = (load_file(folder / "adapter_model.safetensors") for folder in (straight, resumed))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_over_long_rows_are_listed_and_left_out(base, root, tmp_path, monkeypatch):
    _, collate = collator(base, root, 6)
    lengths = [len(collate.encode(n).ids) for n in range(6)]
    limit = sorted(lengths)[-3]
    over = [n for n in range(6) if lengths[n] > limit]
    assert len(over) == 2
    seen, original = [], VideoCollator.__call__
    monkeypatch.setattr(VideoCollator, "__call__", lambda self, rows: seen.extend(rows) or original(self, rows))
    train(base, root, tmp_path, count=6, steps=4, max_length=limit)
    problems = read_json(tmp_path / "problems.json")
    assert [p["file"] for p in problems] == [f"chemistry_{n}" for n in over]
    assert [p["found"] for p in problems] == [f"{lengths[n]} tokens" for n in over]
    assert {row["row"] for row in seen} == set(range(6)) - set(over)


def test_a_loss_that_is_no_number_names_the_rows(base, root, tmp_path):
    model, processor = models.load(str(base))
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = float("nan")
    with pytest.raises(ExpStarError, match=r"the loss is nan in rows \['chemistry_\d', 'chemistry_\d'\], expected a number"):
        train_sft(model, processor, samples(4), root, profile(base), tmp_path, str(base), max_steps=1)


def test_rows_whose_clip_cannot_be_read_are_listed_and_the_rest_goes_on(base, root, tmp_path, monkeypatch, capsys):
    model, processor = models.load(str(base))
    rows, whole = samples(4), (root / "3.mp4").read_bytes()
    (root / "torn.mp4").write_bytes(whole[:len(whole) // 2])
    for row, clips in zip(rows, ([], ["torn.mp4"], ["nowhere.mp4"]), strict=False):
        row.videos = clips
    seen, original = [], VideoCollator.__call__
    monkeypatch.setattr(VideoCollator, "__call__", lambda self, rows: seen.extend(rows) or original(self, rows))
    train_sft(model, processor, rows, root, profile(base), tmp_path, str(base), max_steps=1)
    problems = read_json(tmp_path / "problems.json")
    assert [problem["file"] for problem in problems] == ["chemistry_0", "chemistry_1", "chemistry_2"]
    for problem, why in zip(problems, ("row chemistry_0: found no clip", "torn.mp4", "nowhere.mp4"), strict=True):
        assert why in problem["found"]
    assert {row["row"] for row in seen} == {3}
    assert "3 of 4 rows are left out; " in capsys.readouterr().out
    with pytest.raises(ExpStarError, match=r"found no row to train on, .*problems.json tells of every row"):
        train_sft(model, processor, rows[:3], root, profile(base), tmp_path / "none", str(base))


def test_an_empty_data_set_is_refused(base, root, tmp_path):
    model, processor = models.load(str(base))
    with pytest.raises(ExpStarError, match="found no row to train on"):
        train_sft(model, processor, [], root, profile(base), tmp_path, str(base))

"""The frozen tower's cache: the same outputs and the same training, without asking the tower again; anything else goes to it."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_profile
from test_packing import ragged

from expstar_utils import models, training
from expstar_utils.encoding import encode_prefix
from expstar_utils.features import remember_features
from expstar_utils.files import read_jsonl
from expstar_utils.media import sample_frames
from expstar_utils.profiles import load_profile
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Record


def tower_of(model, processor):
    return getattr(model.model, models.quirks(model, processor).tower)


def counted(tower, calls):
    """The tower, with its calls noted."""
    stock = tower.forward

    def forward(*args, **named):
        calls.append(1)
        return stock(*args, **named)
    tower.forward = forward


def answers(model, processor, root, numbers):
    """Logits behind prompts with one of the clips each."""
    prompt = load_prompts().prefix("chemistry", "A flame", [])
    found = []
    for number in numbers:
        frames = sample_frames(root / f"{number}.mp4", fps=1.0, max_frames=3, size_px=(56, 56))
        read = encode_prefix(processor, prompt, frames)
        extras = {key: torch.as_tensor(value) for key, value in read.extras.items()}
        with torch.no_grad():
            found.append(model(input_ids=torch.tensor([read.ids]), **extras).logits[0, -1])
    return torch.stack(found)


def test_outputs_are_the_towers_and_outlive_the_process(base, root, tmp_path):
    expected = answers(*models.load(str(base)), root, [0, 1, 0, 1, 2])
    for again in (False, True):  # a second model finds the files of the first
        model, processor = models.load(str(base))
        for p in model.parameters():
            p.requires_grad_(False)
        calls = []
        counted(tower_of(model, processor), calls)
        remember_features(tower_of(model, processor), tmp_path, limit_gib=1)
        assert torch.equal(answers(model, processor, root, [0, 1, 0, 1, 2]), expected)
        assert len(calls) == (1 if again else 3)  # the first of a process shows what kind of outputs there are
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_other_weights_have_other_files(base, root, tmp_path):
    for change in (0.0, 0.5):
        model, processor = models.load(str(base))
        tower = tower_of(model, processor)
        for p in model.parameters():
            p.requires_grad_(False)
        next(tower.parameters()).add_(change)
        expected = answers(model, processor, root, [0, 0])
        remember_features(tower, tmp_path, limit_gib=1)
        assert torch.equal(answers(model, processor, root, [0, 0]), expected)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_full_folder_takes_no_more(base, root, tmp_path):
    model, processor = models.load(str(base))
    for p in model.parameters():
        p.requires_grad_(False)
    remember_features(tower_of(model, processor), tmp_path, limit_gib=1e-9)
    answers(model, processor, root, [0, 1])
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_trained_tower_is_refused(base):
    model, processor = models.load(str(base))
    with pytest.raises(ExpStarError, match="found a vision tower that is trained .* expected a frozen one"):
        remember_features(tower_of(model, processor), base, limit_gib=1)
    with pytest.raises(ExpStarError, match="feature_cache_gib is 1.0 with augment or caption_tower, expected 0"):
        load_profile("tiny", feature_cache_gib=1.0)


@pytest.mark.parametrize("packed", [True, False])
def test_training_is_the_same_and_asks_once_a_clip(base, root, tmp_path, monkeypatch, packed):
    monkeypatch.setattr(training, "cache_folder", lambda: tmp_path)
    losses, calls = {}, []
    for cache in (0.0, 1.0):
        model, processor = models.load(str(base))
        counted(tower_of(model, processor), calls)
        calls.clear()
        setting = small_profile(base, packed=packed, batch_size=1, sft_epochs=5, feature_cache_gib=cache, caption_tower=False,
                                max_length=4000)
        training.train_sft(model, processor, ragged()[:4], root, setting, tmp_path / str(cache), str(base))
        losses[cache] = [row.loss for row in read_jsonl(tmp_path / str(cache) / "log.jsonl", Record)]
        if cache:
            assert len(calls) <= 2  # of one row alone, and of the check of packing, which takes all rows at once
    assert losses[0.0]
    assert losses[1.0] == pytest.approx(losses[0.0], rel=1e-5)

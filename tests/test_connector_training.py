"""The connector's own training: what it is taught to point at, and that it points at it in clips that it has not seen."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_profile
from torch import nn

from expstar_utils import connector_training, models
from expstar_utils.adapters import save_adapter, with_connector
from expstar_utils.datasets import Case
from expstar_utils.encoding import text_ids

COLOURS, SIDES = ["yellow", "crimson", "green"], ["left", "right"]


def experiments():
    """Every colour with every side: the first step shows the colour, the second the side and says the colour again."""
    def step(name, number, line):
        return Case.model_validate({"id": f"{name}_{number}", "experiment": name, "subject": "chemistry", "title": "Flames",
                                    "step_number": number, "clip": "0.mp4", "summary": "s", "narration": [line]})
    pairs = [(colour, side) for colour in COLOURS for side in SIDES]
    return [step(colour + side, number, line) for colour, side in pairs
            for number, line in enumerate([f"The flame burns {colour}.", f"The {colour} flame bends {side}."], 1)]


@pytest.fixture(scope="module")
def tiny(smolvlm):
    return smolvlm


def told(targets, row, processor):
    return {processor.tokenizer.decode([int(targets.tokens[place])]).strip()
            for place, share in zip(targets.rivals[row], targets.shares[row], strict=True) if share}


def test_a_step_is_asked_for_what_it_shows_first(tiny):
    processor, cases = tiny[1], experiments()
    targets = connector_training.word_targets(cases, processor)
    for row, case in enumerate(cases):
        pieces = set(text_ids(processor, " yellow crimson green left right"))
        assert {int(targets.tokens[place]) for place in targets.rivals[row]} <= pieces
        assert targets.shares[row].sum() == pytest.approx(1)
        [said] = told(targets, row, processor)
        colour, side = next(c for c in COLOURS if c in case.id), next(s for s in SIDES if s in case.id.split("_")[0][3:])
        assert said in (colour if case.step_number == 1 else side)
    assert targets.gist.sum(1).numpy() == pytest.approx(1)
    some = targets.of(slice(2, 5))
    assert (len(some.gist), len(some.rivals), len(some.shares)) == (3, 3, 3)


def test_a_step_that_shows_nothing_new_is_asked_for_nothing(tiny):
    again = [case.model_copy(update={"narration": ["It was " + case.narration[0].split()[-1]]}) if case.step_number == 2 else case
             for case in experiments() if "left" in case.id]
    said = [case.model_copy(update={"narration": [f"It was {again[i - 1].narration[0].split()[-1]}"]}) if i % 2 else case
            for i, case in enumerate(again)]
    targets = connector_training.word_targets(said, tiny[1])
    assert [len(rivals) > 0 for rivals in targets.rivals] == [True, False] * 3


def seen(cases, rng, views=1):
    """Made-up features: a colour lights the first patch, a side the second, amid noise; float [views, cases, 1, 3, 16]."""
    features = torch.from_numpy(rng.normal(size=(views, len(cases), 1, 3, 16))).float() * 0.3
    for row, case in enumerate(cases):
        colour, side = next(i for i, c in enumerate(COLOURS) if c in case.id), int("right" in case.id)
        features[:, row, 0, *((0, colour) if case.step_number == 1 else (1, 3 + side))] += 3
    return features


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_tokens_point_at_what_was_seen_in_pairs_that_never_met(tiny, precision):
    model, processor = tiny
    cases = experiments()
    held_out = [case for case in cases if case.id.startswith(("yellowleft", "greenright"))]
    taught = 8 * [case for case in cases if case not in held_out]
    torch.manual_seed(0)
    connector = nn.Linear(16, model.get_input_embeddings().weight.shape[1], bias=False).to(precision)
    rng = np.random.default_rng(0)
    targets = connector_training.word_targets([*taught, *held_out], processor)
    features = seen([*taught, *held_out], rng, views=2)
    known, unknown = targets.of(slice(len(taught))), targets.of(slice(len(taught), None))
    before = connector_training.pointed(model, connector, features[0, len(taught):], unknown)
    losses = connector_training.warm_connector(model, connector, features[:, :len(taught)], known, steps=200, lr=1e-2)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert not all(before)
    assert connector_training.pointed(model, connector, features[0, len(taught):], unknown) == [True] * len(held_out)
    grey = connector_training.pointed(model, connector, torch.zeros_like(features[0, len(taught):]), unknown)
    assert not all(grey)
    assert connector.weight.dtype == precision
    assert not connector.weight.requires_grad


def test_visual_tokens_are_as_long_as_words(tiny):
    model, processor = tiny
    cases = experiments()
    table = model.get_input_embeddings().weight
    connector = nn.Linear(16, table.shape[1], bias=False)
    with torch.no_grad():
        connector.weight.mul_(100)
    features, targets = seen(cases, np.random.default_rng(0)), connector_training.word_targets(cases, processor)
    connector_training.warm_connector(model, connector, features, targets, steps=2)
    usual = table[targets.tokens].norm(dim=1).mean()
    with torch.no_grad():
        assert connector(features).norm(dim=-1).mean() == pytest.approx(float(usual), rel=0.1)


def test_the_first_view_is_what_inference_sees_and_the_others_are_never_the_same(tiny):
    model, _ = tiny
    side = model.config.vision_config.image_size
    clips = [np.random.default_rng(i).integers(0, 255, (n, side, side, 3), np.uint8) for i, n in enumerate((6, 3, 8))]
    features = connector_training.tower_features(model, clips, 3, views=3, seed=1)
    patches = (side // model.config.vision_config.patch_size) ** 2
    assert features.shape == (3, 3, 3, patches, model.config.vision_config.hidden_size)
    middles = [clips[0][[1, 3, 5]], clips[1], clips[2][[1, 4, 6]]]
    alone = connector_training.tower_features(model, middles, 3)
    torch.testing.assert_close(features[0], alone[0], rtol=0.02, atol=0.02)
    assert not torch.equal(features[1], features[2])
    assert torch.equal(features, connector_training.tower_features(model, clips, 3, views=3, seed=1))
    assert not torch.equal(features[1], connector_training.tower_features(model, clips, 3, views=2, seed=2)[1])


def test_a_connector_goes_with_an_adapter_new_or_old(smolvlm, tmp_path):
    base = smolvlm[0].config._name_or_path
    profile = small_profile(base, warm_start=["connector"])
    def bent(model, folder):
        whole, connector = with_connector(model, profile)
        with torch.no_grad():
            connector.modality_projection.proj.weight.add_(1)
        return load_file(save_adapter(whole, folder, base) / "adapter_model.safetensors")
    untaught = models.load(base)[0].model.connector.modality_projection.proj.weight
    first = bent(models.load(base)[0], tmp_path / "first")
    second = bent(models.load(base, tmp_path / "first", merge=False)[0], tmp_path / "second")
    [name] = [name for name in first if "connector" in name]
    torch.testing.assert_close(first[name].float(), untaught.float() + 1, rtol=0.01, atol=0.01)
    torch.testing.assert_close(second[name].float(), untaught.float() + 2, rtol=0.01, atol=0.01)
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items() if "lora" in key)
    loaded = models.load(base, tmp_path / "second")[0].model.connector.modality_projection.proj.weight
    torch.testing.assert_close(loaded.float(), second[name].float(), rtol=0.01, atol=0.01)

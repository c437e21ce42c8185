"""The tower on loan: it goes into an adapter and comes back as it was, and a kill between leaves nothing wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from expstar_utils import lent_tower
from expstar_utils.lent_tower import PREFIX, lend, take_back


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({f"{PREFIX}connector.weight": torch.ones(2, 2), f"{PREFIX}text_model.lora_A": torch.zeros(3)},
              folder / lent_tower.WEIGHTS)
    (folder / lent_tower.CONFIG).write_text(json.dumps({"r": 16, "modules_to_save": ["connector"]}))
    return folder


@pytest.fixture
def tower(tmp_path):
    path = tmp_path / "tower.safetensors"
    save_file({"vision_model.patch": torch.arange(4.0), "projection.weight": torch.full((2,), 7.0)}, path)
    return path


def config(folder):
    return json.loads((folder / lent_tower.CONFIG).read_text())


def test_it_goes_along_and_comes_back(adapter, tower, tmp_path):
    lent = lend(adapter, tower, tmp_path / "lent")
    assert config(lent) == {"r": 16, "modules_to_save": ["connector", "vision_model"]}
    weights = load_file(lent / lent_tower.WEIGHTS)
    weights[f"{PREFIX}vision_model.patch"] += 1  # it learns
    save_file(weights, lent / lent_tower.WEIGHTS)
    back = load_file(take_back(lent, tower, tmp_path / "new.safetensors"))
    assert back["vision_model.patch"].tolist() == [1, 2, 3, 4]
    assert back["projection.weight"].tolist() == [7, 7]
    assert config(lent) == config(adapter)
    assert load_file(lent / lent_tower.WEIGHTS).keys() == load_file(adapter / lent_tower.WEIGHTS).keys()


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_kill_while_it_comes_back_costs_nothing(adapter, tower, tmp_path, monkeypatch, moment):
    lent, target = lend(adapter, tower, tmp_path / "lent"), tmp_path / "new.safetensors"
    calls, write = [], lent_tower.write_json
    def killed(real):
        def call(*arguments, **more):
            calls.append(1)
            if len(calls) == moment:
                raise KeyboardInterrupt
            return real(*arguments, **more)
        return call
    monkeypatch.setattr(lent_tower, "save_file", killed(save_file))
    monkeypatch.setattr(lent_tower, "write_json", killed(write))
    with pytest.raises(KeyboardInterrupt):
        take_back(lent, tower, target)
    monkeypatch.setattr(lent_tower, "save_file", save_file)
    monkeypatch.setattr(lent_tower, "write_json", write)
    for _ in range(2):
        assert load_file(take_back(lent, tower, target))["vision_model.patch"].tolist() == [0, 1, 2, 3]
        assert config(lent) == config(adapter)

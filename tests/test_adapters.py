"""Adapters as one: the mean of weights along one training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from expstar_utils.adapters import WEIGHTS, average
from expstar_utils.files import write_json
from expstar_utils.records import ExpStarError


def adapter(folder: Path, fill: float, rank: int = 2) -> Path:
    folder.mkdir(parents=True)
    tensors = {"q.lora_A.weight": torch.full((rank, 3), fill), "q.lora_B.weight": torch.full((3, rank), -fill)}
    save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, folder / WEIGHTS)
    write_json(folder / "base.json", {"base": "expstar-tiny"})
    return folder


def filled(folder: Path) -> list[float]:
    return [tensor.unique().item() for _, tensor in sorted(load_file(folder / WEIGHTS).items())]


def test_every_tensor_is_the_mean_by_shares(tmp_path):
    parts = {adapter(tmp_path / "start", 1.0): 0.25, adapter(tmp_path / "last", 3.0): 0.75}
    made = average(parts, tmp_path / "mean")
    assert filled(made) == [2.5, -2.5]
    assert (made / "base.json").is_file()
    assert {tensor.dtype for tensor in load_file(made / WEIGHTS).values()} == {torch.bfloat16}


def test_a_mean_may_take_the_place_of_its_last_part(tmp_path):
    start, last = adapter(tmp_path / "start", 0.0), adapter(tmp_path / "last", 2.0)
    average({start: 0.5, last: 0.5}, last)
    assert filled(last) == [1.0, -1.0]
    assert filled(start) == [0.0, 0.0]
    assert sorted(path.name for path in last.iterdir()) == [WEIGHTS, "base.json"]


def test_adapters_of_another_rank_are_refused_by_name(tmp_path):
    start, last = adapter(tmp_path / "start", 1.0, rank=4), adapter(tmp_path / "last", 2.0)
    told = r"start: found q.lora_A.weight of shape \[4, 3\], expected \[2, 3\] as in .*last; average"
    with pytest.raises(ExpStarError, match=told):
        average({start: 0.5, last: 0.5}, last)
    assert filled(last) == [2.0, -2.0]

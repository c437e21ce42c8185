"""The vision tower on loan to an adapter: it is trained along with the captions, and then stands for itself again.

An adapter carries what it trained as a whole (`modules_to_save`). The tower belongs to the base, and the retriever uses it too;
so it goes into the adapter for that stage alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from expstar_utils.files import read_json, replacing, write_json
from expstar_utils.profiles import TOWER

PREFIX = "base_model.model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def lend(adapter: Path, tower: Path, folder: Path) -> Path:
    """A copy of an adapter that takes the tower's weights along, as the next stage trains them; returns `folder`."""
    ours = {name: tensor for name, tensor in load_file(tower).items() if name.startswith(f"{TOWER}.")}
    seen = {f"{PREFIX}{name}": tensor.to(torch.bfloat16) for name, tensor in ours.items()}
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    _write(folder, load_file(adapter / WEIGHTS) | seen, add=[TOWER])
    return folder


def take_back(adapter: Path, tower: Path, target: Path) -> Path:
    """Move the tower's weights out of an adapter into a file of their own, beside the norm and projection of `tower`.

    Done before, and killed at any moment, it comes to the same. Returns `target`.
    """
    weights = load_file(adapter / WEIGHTS)
    seen = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items() if name.startswith(f"{PREFIX}{TOWER}.")}
    if seen:
        with replacing(target) as unfinished:
            save_file(load_file(tower) | seen, unfinished)
    _write(adapter, {name: tensor for name, tensor in weights.items() if name.removeprefix(PREFIX) not in seen}, drop=[TOWER])
    return target


def _write(adapter: Path, weights: dict[str, torch.Tensor], add: list[str] | None = None, drop: list[str] | None = None) -> None:
    config = read_json(adapter / CONFIG)
    kept = [name for name in config["modules_to_save"] or [] if name not in (drop or [])]
    with replacing(adapter / WEIGHTS) as unfinished:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, unfinished)
    write_json(adapter / CONFIG, config | {"modules_to_save": kept + (add or [])})

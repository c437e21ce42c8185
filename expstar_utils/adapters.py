"""LoRA adapters: which modules they change, how they are written, and several of them as one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from expstar_utils.files import explained, write_json
from expstar_utils.profiles import Profile
from expstar_utils.records import ExpStarError

WEIGHTS = "adapter_model.safetensors"


def lora(profile: Profile, model: PreTrainedModel) -> LoraConfig:
    """LoRA on all linear layers of the language model; modules of `warm_start` go with the adapter; all else is frozen."""
    return LoraConfig(r=profile.lora_r, lora_alpha=profile.lora_alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
                      target_modules=profile.lora_target, modules_to_save=profile.warm_start or None)


def with_connector(model: PreTrainedModel, profile: Profile) -> tuple[PeftModel, nn.Module]:
    """A model with its adapter, a new one where it has none, and the connector that goes with the adapter as a whole."""
    whole = model if isinstance(model, PeftModel) else get_peft_model(model, lora(profile, model))
    return whole, whole.get_base_model().model.connector.modules_to_save["default"]


def prepare_warm_started(model: PreTrainedModel, trained: bool) -> None:
    """Keep what the warm start taught: those modules go with the adapter and are trained gently, in float32, or not at all.

    A connector with thousands of inputs does not survive the adapter's learning rate. After 150 steps at 1e-3 its outputs were
    thirty times as long as a word's embedding, and grey frames made no difference any more.
    """
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.requires_grad_(trained)
            if trained:
                parameter.data = parameter.data.float()


def save_adapter(model: PeftModel, folder: Path, base: str, state: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Write the adapter in bfloat16, with the name of its base.

    Args:
        state: the model's weights where it does not hold them itself (see `training.gathered`).
    """
    model.peft_config["default"].base_model_name_or_path = base
    mine = {name: tensor.to(torch.bfloat16) for name, tensor in (state or model.state_dict()).items()
            if "lora_" in name or "modules_to_save" in name}
    with explained(folder):
        model.save_pretrained(str(folder), state_dict=mine, save_embedding_layers=False, selected_adapters=["default"])
    write_json(folder / "base.json", {"base": base})
    return folder


def is_trained(folder: Path) -> bool:
    """Whether a stage's adapter is there as a whole: `base.json` comes last."""
    return (folder / "adapter" / "base.json").is_file()


def save_stacked(below: Path, model: PeftModel, folder: Path, base: str,
                 state: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Write one adapter for `base` that holds the adapter `below` and the one that `model` was trained with on top of it.

    B1 A1 s1 + B2 A2 s2 is one product of matrices of rank r1 + r2, so that nothing is approximated but for the rounding to
    bfloat16. Modules that go with `below` as a whole are taken over.

    Args:
        state: as in `save_adapter`.

    Raises:
        ExpStarError: the two adapt other modules.
    """
    first = LoraConfig.from_pretrained(str(below))
    second = model.peft_config["default"]
    lower = load_file(Path(below) / WEIGHTS)
    upper = get_peft_model_state_dict(model, state_dict=state)
    adapted = [{key for key in tensors if ".lora_" in key} for tensors in (lower, upper)]
    if adapted[0] != adapted[1]:
        odd = sorted(adapted[0] ^ adapted[1])[0]
        raise ExpStarError(f"{below}: found another set of adapted modules ({odd}), expected those of the profile; use the "
                           "profile it was trained with")
    stacked = dict(lower)
    for key in adapted[0]:
        is_b = ".lora_B." in key
        scaled = [t.float().cpu() * (c.lora_alpha / c.r if is_b else 1) for t, c in ((lower[key], first), (upper[key], second))]
        stacked[key] = torch.cat(scaled, dim=1 if is_b else 0)
    rank = first.r + second.r
    first.r = first.lora_alpha = rank
    first.base_model_name_or_path, first.inference_mode = base, True
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.to(torch.bfloat16).contiguous() for key, tensor in stacked.items()}, folder / WEIGHTS)
        first.save_pretrained(str(folder))
    write_json(folder / "base.json", {"base": base})
    return folder


def average(shares: Mapping[Path, float], folder: Path) -> Path:
    """Write the mean of adapters that were trained one from the other (WiSE-FT, Wortsman et al. 2022), in bfloat16.

    LoRA's two matrices are averaged each for itself, not their product.

    Args:
        shares: folder of an adapter -> its weight, two or more, of sum 1. The last gives the other files.
        folder: where the mean goes; may be one of them.

    Raises:
        ExpStarError: they adapt other modules, or at another rank.
    """
    *others, last = shares
    read = {one: load_file(Path(one) / WEIGHTS) for one in shares}
    wanted = {key: tensor.shape for key, tensor in read[last].items()}
    for one in others:
        found = {key: tensor.shape for key, tensor in read[one].items()}
        if found != wanted:
            odd = min(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
            raise ExpStarError(f"{one}: found {odd} of shape {_shape(found.get(odd))}, expected {_shape(wanted.get(odd))} as in "
                               f"{last}; average adapters of one profile")
    mean = {key: sum(share * read[one][key].float() for one, share in shares.items()).to(torch.bfloat16) for key in wanted}
    with explained(folder):
        if folder != last:
            shutil.copytree(last, folder, dirs_exist_ok=True)
        save_file(mean, folder / f".{WEIGHTS}.part", metadata={"format": "pt"})
        (folder / f".{WEIGHTS}.part").replace(folder / WEIGHTS)
    return folder


def _shape(found: torch.Size | None) -> str:
    return "none" if found is None else str(list(found))

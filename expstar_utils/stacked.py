"""Two LoRA adapters, one trained on top of the other, as one adapter that does what both do."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from expstar_utils.files import write_json
from expstar_utils.records import ExpStarError

WEIGHTS = "adapter_model.safetensors"


def save_stacked(below: Path, model: PeftModel, folder: Path, base: str) -> Path:
    """Write one adapter for `base` that holds the adapter `below` and the one that `model` was trained with on top of it.

    B1 A1 s1 + B2 A2 s2 is one product of matrices of rank r1 + r2, so that nothing is approximated but for the rounding to
    bfloat16. Modules that go with `below` as a whole are taken over.

    Raises:
        ExpStarError: the two adapt other modules.
    """
    first = LoraConfig.from_pretrained(str(below))
    second = model.peft_config["default"]
    lower = load_file(Path(below) / WEIGHTS)
    upper = get_peft_model_state_dict(model)
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
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.to(torch.bfloat16).contiguous() for key, tensor in stacked.items()}, folder / WEIGHTS)
    first.save_pretrained(str(folder))
    write_json(folder / "base.json", {"base": base})
    return folder

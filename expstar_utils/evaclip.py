"""EVA-CLIP-8B: the paper's retriever, which open_clip does not have; parameters are named as in the published checkpoint.

Architecture and names: Sun et al., EVA-CLIP-18B, arXiv 2402.04252, and what `BAAI/EVA-CLIP-8B` holds. Written anew; the text side
is transformers' CLIP, and a folder with that checkpoint's `config.json` and weights loads strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from transformers.activations import ACT2FN

from expstar_utils.files import read_json
from expstar_utils.records import ExpStarError

TEXT_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
              "vocab_size", "hidden_act", "layer_norm_eps")
UNKNOWN = ("use_rope", "use_swiglu_mlp", "use_sub_ln")  # of other models of the family


class _Attention(nn.Module):
    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        width, self.heads = c["hidden_size"], c["num_attention_heads"]
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=c.get(f"{x}_bias", True)) for x in "qkv")
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [rows, tokens, width] -> the same."""
        query, key, value = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                             for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        width, wide = c["hidden_size"], c["intermediate_size"]
        self.fc1, self.fc2 = nn.Linear(width, wide), nn.Linear(wide, width)
        self.activation = ACT2FN[c.get("hidden_act", "gelu")]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [rows, tokens, width] -> the same."""
        return self.fc2(self.activation(self.fc1(x)))


def _norm(c: Mapping[str, Any]) -> nn.Module:
    kind = nn.RMSNorm if c.get("use_rms_norm") else nn.LayerNorm
    return kind(c["hidden_size"], eps=c.get("layer_norm_eps", 1e-6))


class _Block(nn.Module):
    """Normalises before attention and MLP, or what comes out of them (`post_layernorm`)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.self_attn, self.mlp, self.layer_norm1, self.layer_norm2 = _Attention(c), _Mlp(c), _norm(c), _norm(c)
        self.after = bool(c.get("post_layernorm"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [rows, tokens, width] -> the same."""
        for norm, part in ((self.layer_norm1, self.self_attn), (self.layer_norm2, self.mlp)):
            x = x + (norm(part(x)) if self.after else part(norm(x)))
        return x


class _Vision(nn.Module):
    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        width, patch = c["hidden_size"], c["patch_size"]
        self.embeddings, self.encoder = nn.Module(), nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.randn(width))
        self.embeddings.patch_embedding = nn.Conv2d(3, width, patch, patch)
        self.embeddings.position_embedding = nn.Embedding((c["image_size"] // patch) ** 2 + 1, width)
        self.encoder.layers = nn.ModuleList(_Block(c) for _ in range(c["num_hidden_layers"]))
        self.post_layernorm = _norm(c)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float [frames, 3, side, side] -> float [frames, width], the class token's state."""
        patches = self.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.embeddings.class_embedding.expand(len(patches), 1, -1)
        states = torch.cat([first, patches], 1) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers:
            states = layer(states)
        return self.post_layernorm(states[:, 0])


class EvaClip(nn.Module):
    """Both encoders.

    Args:
        config: as `config.json` of the checkpoint: `vision_config`, `text_config`, `projection_dim`.
    """

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        vision, text = config["vision_config"], config["text_config"]
        if wrong := [name for name in UNKNOWN if vision.get(name)]:
            raise ExpStarError(f"EVA-CLIP with {wrong[0]} is not known, expected one like EVA-CLIP-8B; take another checkpoint")
        sizes = {name: text[name] for name in TEXT_SIZES if name in text}
        reading = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, projection_dim=config["projection_dim"], eos_token_id=2))
        self.text_model, self.text_projection = reading.text_model, reading.text_projection
        self.vision_model = _Vision(vision)
        self.visual_projection = nn.Linear(vision["hidden_size"], config["projection_dim"])
        self.logit_scale = nn.Parameter(torch.tensor(config.get("logit_scale_init_value", 2.6592)))

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """int [texts, tokens] -> float [texts, dimensions], read where the text ends (its highest token)."""
        states = self.text_model(input_ids=ids).last_hidden_state
        return self.text_projection(states[torch.arange(len(ids), device=ids.device), ids.argmax(-1)])

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """float [frames, 3, side, side] -> float [frames, dimensions]."""
        return self.visual_projection(self.vision_model(pixels))


def load_evaclip(folder: Path, dtype: torch.dtype = torch.float32) -> EvaClip:
    """The model in a checkpoint's folder; every name and shape must fit.

    Raises:
        ExpStarError: no such folder, no weights in it, or some of another architecture; names the first that does not fit.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not (folder / "config.json").is_file() or not files:
        raise ExpStarError(f"{folder}: no EVA-CLIP checkpoint there, expected config.json and *.safetensors or "
                           "pytorch_model*.bin; download `BAAI/EVA-CLIP-8B` and give its folder")
    with torch.device("meta"):
        model = EvaClip(read_json(folder / "config.json"))
    state: dict[str, torch.Tensor] = {}
    for file in files:
        part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        state |= {name: tensor.to(dtype) for name, tensor in part.items() if not name.endswith("position_ids")}
    must_fit(model, state, folder)
    model.load_state_dict(state, assign=True)
    reading = model.text_model.embeddings  # its positions are in no checkpoint
    reading.register_buffer("position_ids", torch.arange(reading.position_embedding.num_embeddings)[None], persistent=False)
    return model.eval()


def must_fit(model: nn.Module, state: Mapping[str, torch.Tensor], source: Path) -> None:
    """Raises ExpStarError unless names and shapes of a checkpoint are those of the model; names the first that is not."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wrong := [name for name in [*wanted, *found] if wanted.get(name) != found.get(name)]:
        raise ExpStarError(f"{source}: {wrong[0]} is {found.get(wrong[0], 'nothing')}, expected "
                           f"{wanted.get(wrong[0], 'nothing')}; this is no checkpoint of the architecture that was asked for")

"""ViCLIP: a CLIP whose picture encoder reads eight frames at once; parameters are named as in the published checkpoints.

Architecture and names: Wang et al., InternVid, ICLR 2024, and the code released with it (OpenGVLab/InternVideo). Written anew; a
checkpoint such as `ViClip-InternVid-10M-FLT.pth` loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from expstar_utils.evaclip import must_fit
from expstar_utils.records import ExpStarError

VOCABULARY = 49_408  # of CLIP's tokens
TEMPERATURE = 0.01


@dataclass(frozen=True)
class ViclipConfig:
    """Sizes; the defaults are those of the published L/14 model."""

    frame_px: int = 224
    patch_px: int = 14
    frames: int = 8
    width: int = 1024
    layers: int = 24
    heads: int = 16
    dimensions: int = 768
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    tokens: int = 32


class _QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    """A pre-norm attention block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        wide, back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for name, layer in (("c_fc", wide), ("gelu", _QuickGELU()), ("c_proj", back)):
            self.mlp.add_module(name, layer)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """float [rows, tokens, width] -> the same; mask: float [tokens, tokens], added to the scores."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """float [rows, tokens, width] -> the same, block after block."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Vision(nn.Module):
    def __init__(self, c: ViclipConfig):
        super().__init__()
        self.conv1 = nn.Conv3d(3, c.width, (1, c.patch_px, c.patch_px), (1, c.patch_px, c.patch_px), bias=False)
        self.class_embedding = nn.Parameter(torch.randn(c.width) * c.width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn((c.frame_px // c.patch_px) ** 2 + 1, c.width) * c.width**-0.5)
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, c.frames, c.width))
        self.ln_pre, self.ln_post = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.transformer = _Transformer(c.width, c.layers, c.heads)
        self.proj = nn.Parameter(torch.randn(c.width, c.dimensions) * c.width**-0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float [clips, 3, frames, h, w] -> float [clips, dimensions]."""
        patches = self.conv1(pixels).flatten(3).permute(0, 3, 2, 1)  # clips, places, frames, width
        patches = patches + self.positional_embedding[1:, None] + self.temporal_positional_embedding[:, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(patches), 1, -1)
        states = self.transformer(self.ln_pre(torch.cat([first, patches.flatten(1, 2)], 1)))
        return self.ln_post(states[:, 0]) @ self.proj


class _Text(nn.Module):
    def __init__(self, c: ViclipConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, c.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(c.tokens, c.text_width) * 0.01)
        self.transformer = _Transformer(c.text_width, c.text_layers, c.text_heads)
        self.ln_final = nn.LayerNorm(c.text_width)
        self.text_projection = nn.Parameter(torch.randn(c.text_width, c.dimensions) * c.text_width**-0.5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int [texts, tokens] -> float [texts, dimensions], read where the text ends (its highest token)."""
        states = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((ids.shape[1],) * 2, float("-inf"), dtype=states.dtype, device=ids.device).triu(1)
        states = self.ln_final(self.transformer(states, mask))
        return states[torch.arange(len(ids), device=ids.device), ids.argmax(-1)] @ self.text_projection


class Viclip(nn.Module):
    """Both encoders, with the temperature that the checkpoint holds."""

    def __init__(self, config: ViclipConfig = ViclipConfig()):  # noqa: B008  (frozen)
        super().__init__()
        self.config = config
        self.vision_encoder, self.text_encoder = _Vision(config), _Text(config)
        self.temp = nn.Parameter(torch.tensor(TEMPERATURE))


def load_viclip(checkpoint: Path, config: ViclipConfig = ViclipConfig()) -> Viclip:  # noqa: B008  (frozen)
    """The model with a published checkpoint's weights; every name and shape must fit.

    Raises:
        ExpStarError: no such file, not a checkpoint, or one of another architecture; names the first parameter that does not fit.
    """
    if not Path(checkpoint).is_file():
        raise ExpStarError(f"{checkpoint}: no such file, expected a ViCLIP checkpoint (*.pth); give the path of one")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zipfile's
        raise ExpStarError(f"{checkpoint}: cannot be read ({str(error).splitlines()[0][:100]}), expected a ViCLIP checkpoint of "
                           "tensors alone; download it again") from None
    model, state = Viclip(config), state.get("model", state)
    must_fit(model, state, checkpoint)
    model.load_state_dict(state)
    return model.eval()

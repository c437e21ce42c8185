"""The vision tower: frames become vectors in MiniLM's space, and the same weights are the eyes of ExpStar-Tiny."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from expstar_utils.files import replacing
from expstar_utils.models import FRAME_PX, trained_tower, vision_config

DIMENSIONS = 384  # of MiniLM's space


class Tower(nn.Module):
    """SigLIP-shaped ViT whose pooled output lies in the text encoder's space.

    Its `vision_model` is, weight for weight, the vision tower of ExpStar-Tiny.
    """

    def __init__(self) -> None:
        super().__init__()
        config = vision_config()
        self.vision_model = SmolVLMVisionTransformer._from_config(config)
        self.norm = nn.BatchNorm1d(config.hidden_size)  # a clip differs little from its sister: centre before projecting
        self.projection = nn.Linear(config.hidden_size, DIMENSIONS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Clip embeddings.

        Args:
            pixels: float [clips, frames, 3, 128, 128], values -1..1.

        Returns:
            float [clips, 384], each of length 1.
        """
        clips, frames = pixels.shape[:2]
        flat = pixels.flatten(0, 1)
        side = FRAME_PX // self.vision_model.config.patch_size
        mask = torch.ones(len(flat), side, side, dtype=torch.bool)
        states = self.vision_model(pixel_values=flat, patch_attention_mask=mask).last_hidden_state
        pooled = states.float().mean(1).view(clips, frames, -1).mean(1)
        return nn.functional.normalize(self.projection(self.norm(pooled)), dim=-1)


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """uint8 [..., frames, 128, 128, 3] -> float [..., frames, 3, 128, 128] in -1..1, as the LMM's processor makes them."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1


def save_tower(tower: Tower, path: Path) -> Path:
    """Write the tower's weights (bf16 safetensors)."""
    with replacing(path) as unfinished:
        save_file({k: v.to(torch.bfloat16).contiguous() for k, v in tower.state_dict().items()}, unfinished)
    return path


def load_tower(path: Path | None = None) -> Tower:
    """The trained tower (default: the shipped one), in float32 and ready to encode."""
    tower = Tower()
    tower.load_state_dict({k: v.float() for k, v in load_file(trained_tower(path)).items()})
    return tower.eval()


@torch.inference_mode()
def encode_clips(tower: Tower, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings of clips (uint8 [frames, 128, 128, 3] each, any number of frames), float32 [n, 384], length 1."""
    vectors = [tower(to_pixels(frames)[None]).numpy() for frames in clips]
    return np.concatenate([np.zeros((0, DIMENSIONS), np.float32), *vectors])

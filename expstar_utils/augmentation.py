"""Training frames that are never twice the same: shifted, zoomed and relit, so that no clip is known by its room and light."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from expstar_utils.media import Frames


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, zoom and relight clips (float [clips, frames, 3, h, w] in -1..1); all frames of a clip alike.

    Nothing is mirrored: what goes left must not go right.
    """
    clips, frames = pixels.shape[:2]
    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(clips, generator=generator) * (high - low) + low
    zoom, theta = uniform(0.85, 1.1), torch.zeros(clips, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    grid = nn.functional.affine_grid(theta.repeat_interleave(frames, 0), [clips * frames, 3, *pixels.shape[-2:]],
                                     align_corners=False)
    moved = nn.functional.grid_sample(pixels.flatten(0, 1), grid, padding_mode="reflection", align_corners=False)
    light = uniform(0.85, 1.15)[:, None, None, None, None]
    tint = 1 + 0.06 * (torch.rand(clips, 1, 3, 1, 1, generator=generator) - 0.5)
    noise = 0.03 * torch.randn(pixels.shape, generator=generator)
    return (((moved.view_as(pixels) + 1) * light * tint - 1) + noise).clamp(-1, 1)


def augmented(frames: Frames, seed: int) -> Frames:
    """A clip's frames, augmented; the same seed gives the same pixels."""
    pixels = torch.from_numpy(frames.pixels).movedim(-1, -3)[None].float() / 127.5 - 1
    changed = augment(pixels, torch.Generator().manual_seed(seed))[0]
    return dataclasses.replace(frames, pixels=((changed + 1) * 127.5).round().byte().movedim(-3, -1).contiguous().numpy())

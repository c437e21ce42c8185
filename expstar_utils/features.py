"""What a frozen vision tower sees in a clip, kept on disk: the same frames go through it once, for all epochs, runs and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from expstar_utils.files import replacing
from expstar_utils.records import ExpStarError

GIB = 2**30


def remember_features(tower: nn.Module, folder: Path, limit_gib: float) -> None:
    """Let a tower's forward keep its outputs in a folder and take them from there.

    The names of the files hang on the tower's weights and on every value that goes in, so that another tower, another size or
    other frames are never mistaken. What goes into one call is kept as one: it pays where batches are of one row (or packed).

    Args:
        limit_gib: size of the folder from which on nothing is added to it.

    Raises:
        ExpStarError: the tower is trained.
    """
    if trained := [name for name, p in tower.named_parameters() if p.requires_grad]:
        raise ExpStarError(f"feature_cache_gib: found a vision tower that is trained ({trained[0]}), expected a frozen one; set "
                           "it to 0, or freeze the tower")
    stock, mark = tower.forward, _digest([p for _, p in sorted(tower.state_dict().items())])
    spec = None
    room = limit_gib * GIB - sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))

    def forward(*args: Any, **named: Any) -> Any:
        """The outputs that are there, or the tower's."""
        nonlocal spec, room
        given, how = tree_flatten((args, named))
        path = Path(folder) / f"{_digest([mark, str(how), *given])}.safetensors"
        if spec is not None and path.is_file():
            device = next(tower.parameters()).device
            kept = load_file(path, device=str(device))
            return tree_unflatten([kept.get(str(i)) for i in range(spec.num_leaves)], spec)
        with torch.no_grad():
            outputs = stock(*args, **named)
        leaves, spec = tree_flatten(outputs)  # what kind of outputs it gives is learned from the first of a process
        tensors = {str(i): leaf.detach().contiguous().clone() for i, leaf in enumerate(leaves) if torch.is_tensor(leaf)}
        size = sum(t.nbytes for t in tensors.values())
        if size <= room and not path.is_file() and len(tensors) == sum(leaf is not None for leaf in leaves):
            with replacing(path) as unfinished:
                save_file(tensors, unfinished)
            room -= size
        return outputs
    tower.forward = forward


def _digest(values: Sequence[Any]) -> str:
    """sha256 over tensors (kind, shape and bytes) and whatever else goes in."""
    digest = hashlib.sha256()
    for value in values:
        if torch.is_tensor(value):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()

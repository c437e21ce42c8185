"""LiT-style training of the vision tower: clips are pulled toward the frozen text embeddings of their narration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from expstar_utils.augmentation import augment
from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case
from expstar_utils.encoders import encode_texts
from expstar_utils.files import append_jsonl, replacing
from expstar_utils.models import FRAME_PX
from expstar_utils.tower import Tower, load_tower, to_pixels


@dataclass(frozen=True)
class TowerTraining:
    """Knobs of the training: steps of `batch` clips with `frames` frames each; lr peaks after `warmup` steps."""

    steps: int
    batch: int = 32
    frames: int = 2
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 50
    seed: int = 42


def load_frames(cases: Sequence[Case], root: Path, fps: float = 2.0, max_frames: int = 8) -> list[np.ndarray]:
    """Frames of every case at the tower's size, uint8 [n, 128, 128, 3] each."""
    size = (FRAME_PX, FRAME_PX)
    return [clip_frames(c.clip, root, fps=fps, max_frames=max_frames, size_px=size).pixels
            for c in tqdm(cases, desc="frames", unit="clip")]


def line_targets(cases: Sequence[Case]) -> tuple[np.ndarray, torch.Tensor]:
    """The bank of all narration lines and which of them belong to which case.

    Returns:
        (float32 [lines, 384] embeddings, float [cases, lines] rows that sum to 1).
    """
    bank = sorted({line for case in cases for line in case.narration})
    place = {line: i for i, line in enumerate(bank)}
    targets = torch.zeros(len(cases), len(bank))
    for row, case in enumerate(cases):
        for line in case.narration:
            targets[row, place[line]] = 1 / len(case.narration)
    return encode_texts(bank), targets


def pick_frames(frames: Sequence[np.ndarray], rows: np.ndarray, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """`count` frames of each row's clip, in order, one of each of as many equal stretches: drawn from it, or its middle."""
    picked = []
    for row in rows:
        n, edges = len(frames[row]), np.linspace(0, len(frames[row]), count + 1)
        times = [rng.uniform(a, b) if rng else (a + b) / 2 for a, b in zip(edges, edges[1:])]
        picked.append(frames[row][[min(int(time), n - 1) for time in times]])
    return np.stack(picked)


def train_tower(tower: Tower, frames: list[np.ndarray], bank: np.ndarray, targets: torch.Tensor, knobs: TowerTraining,
                folder: Path) -> list[dict[str, float]]:
    """Train a tower; killed at any moment it resumes from its last checkpoint in `folder`.

    Every clip is compared with every narration line of the data set (cross-entropy over the whole bank), so sister lines
    that differ in one colour are always among the negatives.

    Returns:
        The log: `{step, loss, lr}` a row (also in `folder/log.jsonl`).
    """
    torch.manual_seed(knobs.seed)
    lines, log_scale = torch.from_numpy(bank), nn.Parameter(torch.tensor(math.log(50.0)))
    optimizer = torch.optim.AdamW([*tower.parameters(), log_scale], lr=knobs.lr, weight_decay=knobs.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / knobs.warmup, 0.5 * (
        1 + math.cos(math.pi * min(s / knobs.steps, 1.0)))))
    checkpoint, log = folder / "checkpoint.pt", []
    first = _resume(checkpoint, tower, log_scale, optimizer, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    for step in tqdm(range(first, knobs.steps), initial=first, total=knobs.steps, desc="tower", unit="step"):
        rng, generator = np.random.default_rng([knobs.seed, step]), torch.Generator().manual_seed(knobs.seed * 1_000_003 + step)
        rows = rng.choice(len(frames), min(knobs.batch, len(frames)), replace=False)
        pixels = augment(to_pixels(pick_frames(frames, rows, knobs.frames, rng)), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time of float32 on processors with bf16 units
            vectors = tower(pixels)
        logits = log_scale.exp().clamp(max=200) * vectors.float() @ lines.T
        loss = nn.functional.cross_entropy(logits, targets[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        log.append({"step": step, "loss": round(loss.item(), 4), "lr": schedule.get_last_lr()[0]})
        append_jsonl(folder / "log.jsonl", log[-1])
        if (step + 1) % 100 == 0 or step + 1 == knobs.steps:
            _save(checkpoint, tower, log_scale, optimizer, schedule, step + 1)
    return log


def refit(source: Path, cases: Sequence[Case], frames: list[np.ndarray], knobs: TowerTraining, folder: Path) -> Tower:
    """Fit norm and projection of a tower whose patches were trained with captions, so that clips lie among the texts again.

    Args:
        source: the tower's file. cases, frames: of training. folder: of log and checkpoint.
    """
    tower = load_tower(source).train()
    tower.vision_model.requires_grad_(False)
    bank, targets = line_targets(cases)
    train_tower(tower, frames, bank, targets, knobs, folder)
    return tower.eval()


def _save(path: Path, tower: Tower, log_scale: nn.Parameter, optimizer, schedule, step: int) -> None:
    state = {"tower": tower.state_dict(), "log_scale": log_scale.data, "optimizer": optimizer.state_dict(),
             "schedule": schedule.state_dict(), "step": step}
    with replacing(path) as unfinished:
        torch.save(state, unfinished)


def _resume(path: Path, tower: Tower, log_scale: nn.Parameter, optimizer, schedule) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    tower.load_state_dict(state["tower"])
    log_scale.data.copy_(state["log_scale"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["step"]


@torch.inference_mode()
def line_accuracy(vectors: np.ndarray, cases: Sequence[Case], bank_cases: Sequence[Case]) -> float:
    """Share of narration lines that a clip's embedding ranks first among their rivals.

    A line's rivals are the lines at the same place of the same step of the same family in `bank_cases`: sister variants.
    Lines without a rival do not count.
    """
    rivals: dict[tuple, set[str]] = {}
    for case in [*cases, *bank_cases]:
        for i, line in enumerate(case.narration):
            rivals.setdefault((case.subject, case.step_number, i), set()).add(line)
    keys = {key: sorted(lines) for key, lines in rivals.items() if len(lines) > 1}
    embedded = {key: encode_texts(lines) for key, lines in keys.items()}
    right = [keys[key][int(np.argmax(embedded[key] @ vector))] == line
             for vector, case in zip(vectors, cases, strict=True) for i, line in enumerate(case.narration)
             if (key := (case.subject, case.step_number, i)) in keys]
    return float(np.mean(right)) if right else float("nan")

"""Supervised fine-tuning with TRL and PEFT on video rows: weighted tokens, warm-started modules, resumable runs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from expstar_utils import trackers
from expstar_utils.adapters import lora, prepare_warm_started, save_adapter
from expstar_utils.batches import LengthBatches, VideoCollator, counted_once, left_out, row_lengths
from expstar_utils.efficiency import efficient
from expstar_utils.encoding import IGNORED, decision_tokens, weigh_decisions
from expstar_utils.features import remember_features
from expstar_utils.files import append_jsonl, write_jsonl
from expstar_utils.models import fast_dtype, quirks
from expstar_utils.packing import shared_groups, shares
from expstar_utils.profiles import Profile
from expstar_utils.records import ExpStarError, Sample
from expstar_utils.scoring import answer_readings, logits_at
from expstar_utils.weights import cache_folder

SAME = 1e-3  # relative difference up to which packed rows count as right, in float32
ROUNDED = 0.1  # and in 16 bits,
ROUNDED_NATS = 0.05  # where losses so near each other always do: of rows known by heart, rounding is a large part


class VideoSFTTrainer(SFTTrainer):
    """TRL's trainer with weighted decisions; on a CPU it scores the trained tokens alone, where TRL scores every position.

    `decision_weight`: how many tokens a control string's deciding token counts for. It is one token in sixty, and all that the
    gate and the verdicts learn from. `decisions`: see `decision_tokens`. `warm_start_lr`: learning rate of the modules that go
    with the adapter as a whole.
    """

    decision_weight: float = 1.0
    decisions: Sequence[tuple[list[int], int]] = ()
    warm_start_lr: float = 0.0

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The stock optimiser, with a learning rate of their own for the warm-started modules."""
        optimizer = super().create_optimizer(*args, **kwargs)
        whole = {id(p) for n, p in self.model.named_parameters() if "modules_to_save" in n and p.requires_grad}
        for group in list(optimizer.param_groups):
            if mine := [p for p in group["params"] if id(p) in whole]:
                group["params"] = [p for p in group["params"] if id(p) not in whole]
                optimizer.add_param_group({**group, "params": mine, "lr": self.warm_start_lr})
        return optimizer

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return LengthBatches(rows["length"], self.args.train_batch_size * self.args.gradient_accumulation_steps
                             * self.args.world_size, self.args.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: torch.Tensor | None = None) -> Any:
        """Sum of the trained tokens' weighted negative log-likelihoods over their number, nats.

        Raises:
            ExpStarError: it is no number; names the rows.
        """
        ids = inputs.pop("ids", [])
        loss = self._loss(model, inputs, return_outputs, num_items_in_batch)
        check_finite(loss[0] if return_outputs else loss, ids)
        return loss

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: torch.Tensor | None) -> Any:
        stock = return_outputs or self._is_stock(inputs)
        # the Trainer divides by the accumulated batches where it believes that the model did not; Qwen2.5-VL says so of itself
        self.loss_is_scaled_for_ga = None if stock else num_items_in_batch is not None
        if stock:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets, reading = inputs["labels"][:, 1:], {k: v for k, v in inputs.items() if k not in ("labels", "weights")}
        trained = targets != IGNORED
        rows, columns = trained.nonzero(as_tuple=True)
        logits = model(reading=reading, places=rows * inputs["labels"].shape[1] + columns)
        losses = torch.nn.functional.cross_entropy(logits, targets[trained], reduction="none")
        counts = _counts(inputs)[:, 1:][trained]
        weights = weigh_decisions(targets, self.decisions, self.decision_weight)[trained] * counts
        if "weights" in inputs:
            weights = weights * inputs["weights"][:, 1:][trained]
        if num_items_in_batch is None:
            return (weights * losses).sum() / counts.sum()
        shared = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1  # gradients are averaged
        return shared * (weights * losses).sum() / num_items_in_batch

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        if not batch_samples or self._is_stock(batch_samples[0]):
            return super()._get_num_items_in_batch(batch_samples, device)
        number = sum(_counts(b)[:, 1:][b["labels"][:, 1:] != IGNORED].sum() for b in batch_samples).to(device)
        return self.accelerator.gather(number).sum() if self.args.average_tokens_across_devices else number

    def _is_stock(self, inputs: dict[str, Any]) -> bool:
        """Whether TRL's own loss is what is asked for, and the device one that it is made for."""
        return self.accelerator.device.type != "cpu" and self.decision_weight == 1 and not {"layouts", "weights"} & set(inputs)


def _counts(batch: dict[str, Any]) -> torch.Tensor:
    """How many rows each token of a batch stands for, float32 [rows, length]."""
    labels = batch["labels"]
    return shares(batch["layouts"], labels.shape[1]).to(labels.device) if "layouts" in batch else torch.ones_like(labels).float()


class LossLog(TrainerCallback):
    """Appends `{step, loss, lr}` to a JSONL file while training runs, and with DPO `rewards/*` (margins, accuracies)."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        """Drop what a killed run logged after the checkpoint that training goes on from."""
        if self.path.is_file() and state.is_world_process_zero:
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf8").splitlines() if line.endswith("}")]
            write_jsonl(self.path, [line for line in lines if line["step"] <= state.global_step])

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        """Append what the trainer logs of a step's loss; its other messages are passed over."""
        if logs and "loss" in logs and state.is_world_process_zero:
            rewards = {key: float(value) for key, value in logs.items() if key.startswith("rewards/")}
            append_jsonl(self.path, {"step": state.global_step, "loss": float(logs["loss"]), "lr": logs.get("learning_rate"),
                                     **rewards})


class DatedBySteps(TrainerCallback):
    """Dates checkpoints by their steps: the trainer keeps the one with the latest date, and the clock may have gone back."""

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        """Date those that are there."""
        for folder in Path(args.output_dir).glob("checkpoint-*") if state.is_world_process_zero else ():
            step = int(folder.name.split("-")[-1])
            os.utime(folder, (step, step))

    on_save = on_train_begin


def check_finite(loss: torch.Tensor, ids: Sequence[str]) -> None:
    """Raises ExpStarError when a loss is no number; names the rows of its batch."""
    if not torch.isfinite(loss):
        raise ExpStarError(f"the loss is {float(loss.detach())} in rows {list(ids)}, expected a number; look at these rows, or "
                           "lower the learning rate")


def train_sft(model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], root: Path, profile: Profile,
              folder: Path, base: str, seed: int = 42, max_steps: int = -1,
              telling: Mapping[str, set[int]] | None = None) -> Path:
    """Train a LoRA adapter on ExpStar rows; a killed run resumes from its last checkpoint in `folder`.

    Args:
        model: without an adapter, or with one that is trained further (`models.load(..., merge=False)`).
        root: folder below which the rows' clips lie.
        base: name written into the adapter as its base.
        telling: see `VideoCollator`.
        max_steps: stop after so many optimiser steps; -1 runs the profile's epochs.

    Returns:
        Folder of the adapter (`folder/adapter`). Rows over `profile.max_length`, and those whose clip cannot be read, are left
        out and listed in `folder/problems.json`.
    """
    trainer = sft_trainer(model, processor, samples, root, profile, folder, base, seed, max_steps, telling)
    with efficient(trainer, trainer.data_collator.groups is not None, profile.compiled):
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder / "checkpoints"))
    state = gathered(trainer)
    if trainer.is_world_process_zero():
        save_adapter(trainer.model, folder / "adapter", base, state)
    trainer.accelerator.wait_for_everyone()
    return folder / "adapter"


def sft_trainer(model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], root: Path, profile: Profile,
                folder: Path, base: str, seed: int = 42, max_steps: int = -1,
                telling: Mapping[str, set[int]] | None = None) -> VideoSFTTrainer:
    """The trainer of `train_sft`, ready to start; packed rows are checked on the first of them, and left where they go wrong.

    Raises:
        ExpStarError: no row is left.
    """
    set_seed(seed)  # TRL makes the adapter before it sows
    family = quirks(model, processor)
    collator = VideoCollator(processor, samples, root, profile, family.turn_end)
    groups = shared_groups(samples) if profile.packed else [[i] for i in range(len(samples))]
    lengths = counted_once(folder / "checkpoints" / "lengths.json", collator, lambda: row_lengths(collator))
    totals = [length if isinstance(length, str) else sum(length) for length in lengths]
    without = left_out(samples, totals, profile.max_length, folder / "problems.json")
    groups = [kept for group in groups if (kept := [i for i in group if i not in without])]
    if not groups:
        raise ExpStarError(f"{folder}: found no row to train on, expected one of at most {profile.max_length} tokens; build the "
                           f"data set with notebook 02, or raise max_length ({folder / 'problems.json'} tells of every row)")
    collator.groups, collator.telling = groups if profile.packed else None, telling
    rows = {"row": list(range(len(groups))) if profile.packed else [i for [i] in groups],
            "length": [lengths[group[0]][0] + sum(lengths[i][1] for i in group) for group in groups]}
    args = SFTConfig(**common_arguments(profile, folder, seed, max_steps), logging_steps=5,
                     dataset_kwargs={"skip_prepare_dataset": True})
    model.name_or_path = base
    adapter = None if isinstance(model, PeftModel) else lora(profile, model)
    trainer = VideoSFTTrainer(model=model, args=args, train_dataset=Dataset.from_dict(rows), data_collator=collator,
                              processing_class=processor, peft_config=adapter,
                              callbacks=[LossLog(folder / "log.jsonl"), DatedBySteps()])
    trainer.decision_weight, trainer.decisions = profile.decision_weight, decision_tokens(processor)
    trainer.warm_start_lr = profile.warm_start_lr
    answer_trained(trainer.model.get_base_model(), family.axes, args.bf16)
    keep_features(trainer.model.get_base_model(), family.tower, profile.feature_cache_gib)
    prepare_warm_started(trainer.model, trained=profile.warm_start_lr > 0)
    if profile.packed and not _same_when_packed(trainer, collator):
        print("packed rows have another loss than the same rows apart with this model; training goes on unpacked")
        collator.groups = None
        trainer.train_dataset = Dataset.from_dict({"row": [i for group in groups for i in group],
                                                   "length": [totals[i] for group in groups for i in group]})
    return trainer


def answer_trained(model: PreTrainedModel, axes: int, bf16: bool) -> None:
    """Let a base model answer a batch with the logits behind its trained places; see `scoring`."""
    answer_readings(model, lambda reading, places, **_: logits_at(model, reading, places, axes, bf16))


def _same_when_packed(trainer: VideoSFTTrainer, collator: VideoCollator) -> bool:
    """Whether the first packed row of several branches has the loss of its rows apart."""
    number = max(range(len(collator.groups)), key=lambda i: min(len(collator.groups[i]), 2))
    plain = dataclasses.replace(collator, profile=collator.profile.model_copy(update={"augment": False}))
    apart, packed = dataclasses.replace(plain, groups=None), plain
    batches = [(packed, [number]), (apart, collator.groups[number])]
    losses = []
    for collate, rows in batches:
        batch = trainer._prepare_inputs(collate([{"row": row} for row in rows]))
        with torch.no_grad(), efficient(trainer, packed=collate is packed):
            losses.append(float(trainer.compute_loss(trainer.model, batch)))
    return alike(*losses, trainer.args.bf16)


def alike(packed: float, apart: float, rounded: bool) -> bool:
    """Whether two losses, nats a token, are the same but for rounding, in float32 or in 16 bits (`rounded`)."""
    return abs(packed - apart) <= (max(ROUNDED * apart, ROUNDED_NATS) if rounded else SAME * apart)


def common_arguments(profile: Profile, folder: Path, seed: int, max_steps: int) -> dict[str, Any]:
    """What SFT and DPO tell TRL alike."""
    return {"output_dir": str(folder / "checkpoints"), "num_train_epochs": profile.sft_epochs, "max_steps": max_steps,
            "per_device_train_batch_size": profile.batch_size, "gradient_accumulation_steps": profile.accumulation,
            "learning_rate": profile.sft_lr, "warmup_steps": profile.warmup, "lr_scheduler_type": "cosine", "max_grad_norm": 1.0,
            "bf16": fast_dtype(profile.dtype) == torch.bfloat16, "use_cpu": not torch.cuda.is_available(), "max_length": None,
            "activation_checkpointing": profile.gradient_checkpointing,
            "activation_checkpointing_kwargs": {"use_reentrant": False}, "remove_unused_columns": False,
            "save_steps": profile.save_steps, "save_total_limit": 1, "seed": seed, "data_seed": seed,
            "dataloader_pin_memory": False} | trackers.arguments(profile.tracker, folder)


def last_whole_checkpoint(folder: Path) -> str | None:
    """Newest checkpoint that was written to its end: `trainer_state.json` comes last, and a kill may leave it out."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[-1]))) if whole else None


def keep_features(model: PreTrainedModel, tower: str, limit_gib: float) -> None:
    """Let a model's frozen vision tower keep what it sees, below the cache folder; see `features`."""
    if limit_gib:
        remember_features(getattr(model.model, tower), cache_folder() / "features", limit_gib)


def gathered(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """All weights of a trained model where each process holds a part of them (every one must ask), else None."""
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled else None

"""Supervised fine-tuning with TRL and PEFT on video rows: our collator, exact label masks, resumable runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
from trl import SFTConfig, SFTTrainer

from expstar_utils.encoding import IGNORED, Encoded, encode_dialogue, merge_extras, pad_right
from expstar_utils.media import Frames, clip_frames
from expstar_utils.models import quirks
from expstar_utils.profiles import Profile
from expstar_utils.records import Sample, append_jsonl, write_json


@dataclass
class VideoCollator:
    """Rows of a dataset (`{"row": position in samples}`) -> one padded batch.

    Frames are sampled once a clip by the project's one sampler and kept in memory. Rows are never cut.
    """

    processor: ProcessorMixin
    samples: Sequence[Sample]
    root: Path
    profile: Profile
    turn_end: str

    def __post_init__(self) -> None:
        self._frames: dict[str, Frames] = {}

    def frames(self, sample: Sample) -> Frames:
        """Frames of a row's clip."""
        clip = sample.videos[0]
        key = str(clip)
        if key not in self._frames:
            self._frames[key] = clip_frames(clip, self.root, fps=self.profile.fps, max_frames=self.profile.max_frames_sft,
                                            size_px=self.profile.frame_size)
        return self._frames[key]

    def encode(self, row: int) -> Encoded:
        """Tokens, labels and frames of one row."""
        sample = self.samples[row]
        return encode_dialogue(self.processor, sample.messages, self.frames(sample), self.turn_end)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        encoded = [self.encode(row["row"]) for row in rows]
        ids = pad_right([e.ids for e in encoded], self.processor.tokenizer.pad_token_id)
        labels = pad_right([e.labels for e in encoded], IGNORED)
        mask = pad_right([[1] * len(e.ids) for e in encoded], 0)
        extras = merge_extras([e.extras for e in encoded], [len(e.ids) for e in encoded])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **extras}


class LossLog(TrainerCallback):
    """Appends `{step, loss, lr}` to a JSONL file while training runs."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        if logs and "loss" in logs:
            append_jsonl(self.path, {"step": state.global_step, "loss": float(logs["loss"]), "lr": logs.get("learning_rate")})


def over_long(collator: VideoCollator, limit: int) -> list[str]:
    """Ids of rows longer than `limit` tokens: reported, left out by the caller, never cut."""
    return [s.id for i, s in enumerate(collator.samples) if len(collator.encode(i).ids) > limit]


def train_sft(model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], root: Path, profile: Profile,
              folder: Path, base: str, seed: int = 42, max_steps: int = -1) -> Path:
    """Train a LoRA adapter on ExpStar rows; a killed run resumes from its last checkpoint in `folder`.

    Args:
        root: folder below which the rows' clips lie.
        base: name written into the adapter as its base.
        max_steps: stop after so many optimiser steps; -1 runs the profile's epochs.

    Returns:
        Folder of the adapter (`folder/adapter`).
    """
    collator = VideoCollator(processor, samples, root, profile, quirks(model, processor).turn_end)
    args = SFTConfig(
        output_dir=str(folder / "checkpoints"), num_train_epochs=profile.sft_epochs, max_steps=max_steps,
        per_device_train_batch_size=profile.batch_size, gradient_accumulation_steps=profile.accumulation,
        learning_rate=profile.sft_lr, warmup_steps=profile.warmup, lr_scheduler_type="cosine", bf16=profile.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(), gradient_checkpointing=profile.gradient_checkpointing, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False, logging_steps=5, save_steps=50,
        save_total_limit=1, report_to="none", seed=seed, data_seed=seed, dataloader_pin_memory=False, max_grad_norm=1.0)
    model.name_or_path = base
    trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_dict({"row": list(range(len(samples)))}),
                         data_collator=collator, processing_class=processor, peft_config=lora(profile, model),
                         callbacks=[LossLog(folder / "log.jsonl")])
    resumable = any((folder / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resumable or None)
    return save_adapter(trainer.model, folder / "adapter", base)


def lora(profile: Profile, model: PreTrainedModel) -> LoraConfig:
    """LoRA on all linear layers of the language model; vision tower frozen, an untrained connector trained whole."""
    return LoraConfig(r=profile.lora_r, lora_alpha=profile.lora_alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
                      target_modules=profile.lora_target, modules_to_save=profile.train_whole or None)


def save_adapter(model: PreTrainedModel, folder: Path, base: str) -> Path:
    """Write the adapter in bf16, with the name of its base."""
    model.peft_config["default"].base_model_name_or_path = base
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    write_json(folder / "base.json", {"base": base})
    return folder

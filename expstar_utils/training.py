"""Supervised fine-tuning with TRL and PEFT on video rows: our collator, exact label masks, resumable runs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
from trl import SFTConfig, SFTTrainer

from expstar_utils.attention import causal_blocks
from expstar_utils.encoding import (
    IGNORED,
    Encoded,
    decision_tokens,
    merge_extras,
    pad_right,
    weigh_decisions,
)
from expstar_utils.files import append_jsonl, write_json, write_jsonl
from expstar_utils.media import Frames, clip_frames
from expstar_utils.models import quirks
from expstar_utils.packing import Layout, encode_group, packed_positions, shared_groups, shares
from expstar_utils.profiles import Profile
from expstar_utils.records import Problem, Sample


@dataclass
class VideoCollator:
    """Rows of a dataset (`{"row": position in groups}`) -> one padded batch.

    Frames are sampled once a clip by the project's one sampler and kept in memory. Rows are never cut.
    groups: positions in samples of what is packed into one row; as long as it is not set, every sample is a row of its own.
    telling: token ids by sample id that count for the profile's `telling_weight` each (`captions.telling_tokens`).
    """

    processor: ProcessorMixin
    samples: Sequence[Sample]
    root: Path
    profile: Profile
    turn_end: str
    groups: list[list[int]] | None = None
    telling: Mapping[str, set[int]] | None = None

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

    def encode(self, position: int) -> Encoded:
        """Tokens, labels and frames of one sample."""
        return self.encode_group([position])[0]

    def encode_group(self, group: Sequence[int]) -> tuple[Encoded, Layout]:
        """Tokens, labels and frames of samples that share all but their branches."""
        samples = [self.samples[i] for i in group]
        return encode_group(self.processor, samples, self.frames(samples[0]), self.turn_end)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        groups = [[row["row"]] if self.groups is None else self.groups[row["row"]] for row in rows]
        encoded, layouts = zip(*map(self.encode_group, groups), strict=True)
        ids = pad_right([e.ids for e in encoded], self.processor.tokenizer.pad_token_id)
        labels = pad_right([e.labels for e in encoded], IGNORED)
        mask = pad_right([[1] * len(e.ids) for e in encoded], 0)
        extras = merge_extras([e.extras for e in encoded], [len(e.ids) for e in encoded])
        if self.groups is not None:
            extras["layouts"] = list(layouts)
        if self.telling is not None:
            telling = [self.telling[self.samples[group[0]].id] for group in groups]
            weights = [[self.profile.telling_weight if t in its else 1.0 for t in e.labels]
                       for its, e in zip(telling, encoded, strict=True)]
            extras["weights"] = pad_right(weights, 1.0)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **extras}


class LengthBatches(Sampler):
    """Row positions in an order whose batches hold rows of like length and follow each other by chance.

    The stock sampler sorts each fifty batches by length. Long rows are those that look something up, so that order teaches the
    gate yes for a while and then no for a while, and it never settles.

    Args:
        lengths: of every row. batch: rows an optimiser step. pool: batches whose rows are sorted together.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int = 42, pool: int = 50):
        self.lengths, self.batch, self.seed, self.pool, self.epoch = list(lengths), batch, seed, pool, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        order = rng.sample(range(len(self)), len(self))
        size = self.pool * self.batch
        ranked = [i for at in range(0, len(self), size) for i in sorted(order[at:at + size], key=self.lengths.__getitem__)]
        batches = [ranked[at:at + self.batch] for at in range(0, len(self), self.batch)]
        whole, rest = batches[:len(self) // self.batch], batches[len(self) // self.batch:]
        rng.shuffle(whole)
        yield from (i for group in whole + rest for i in group)

    def set_epoch(self, epoch: int) -> None:
        """Another order for every epoch, the same one for a resumed run."""
        self.epoch = epoch


class VideoSFTTrainer(SFTTrainer):
    """TRL's trainer with weighted decisions; on a CPU it scores the trained tokens alone, where TRL scores every position.

    `decision_weight`: how many tokens a control string's deciding token counts for. It is one token in sixty, and all that the
    gate and the verdicts learn from. `decisions`: see `decision_tokens`. `axes`: rows of position ids that the family takes.
    `warm_start_lr`: learning rate of the modules that go with the adapter as a whole.
    """

    decision_weight: float = 1.0
    axes: int = 1
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
        return LengthBatches(rows["length"], self.args.train_batch_size * self.args.gradient_accumulation_steps, self.args.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: torch.Tensor | None = None) -> Any:
        """Sum of the trained tokens' weighted negative log-likelihoods over their number, nats."""
        plain = self.decision_weight == 1 and not {"layouts", "weights"} & set(inputs)
        if return_outputs or (self.accelerator.device.type != "cpu" and plain):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets, given = inputs["labels"][:, 1:], {k: v for k, v in inputs.items() if k not in ("labels", "weights")}
        trained = targets != IGNORED
        logits = self._trained_logits(model, given, trained).float()
        losses = torch.nn.functional.cross_entropy(logits, targets[trained], reduction="none")
        counts = _counts(inputs)[:, 1:][trained]
        weights = weigh_decisions(targets, self.decisions, self.decision_weight)[trained] * counts
        if "weights" in inputs:
            weights = weights * inputs["weights"][:, 1:][trained]
        return (weights * losses).sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        if not batch_samples or "layouts" not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)
        number = sum(_counts(b)[:, 1:][b["labels"][:, 1:] != IGNORED].sum() for b in batch_samples).to(device)
        return self.accelerator.gather(number).sum() if self.args.average_tokens_across_devices else number

    def _trained_logits(self, model: Any, given: dict[str, Any], trained: torch.Tensor) -> torch.Tensor:
        inner = self.accelerator.unwrap_model(model).get_base_model()
        if "layouts" in given:
            inputs = {k: v for k, v in given.items() if k != "layouts"}
            given["position_ids"] = packed_positions(inner.model, inputs, given["layouts"], self.axes)
        if self.accelerator.device.type != "cpu":  # what wraps the model there (DDP, ZeRO) must be called as a whole
            return model(**given, use_cache=False).logits[:, :-1][trained]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            features = inner.model(**given, use_cache=False).last_hidden_state
            return inner.lm_head(features[:, :-1][trained])


def _counts(batch: dict[str, Any]) -> torch.Tensor:
    """How many rows each token of a batch stands for, float32 [rows, length]."""
    labels = batch["labels"]
    return shares(batch["layouts"], labels.shape[1]).to(labels.device) if "layouts" in batch else torch.ones_like(labels).float()


class LossLog(TrainerCallback):
    """Appends `{step, loss, lr}` to a JSONL file while training runs."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        """Drop what a killed run logged after the checkpoint that training goes on from."""
        if self.path.is_file():
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf8").splitlines() if line.endswith("}")]
            write_jsonl(self.path, [line for line in lines if line["step"] <= state.global_step])

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        if logs and "loss" in logs:
            append_jsonl(self.path, {"step": state.global_step, "loss": float(logs["loss"]), "lr": logs.get("learning_rate")})


def row_lengths(collator: VideoCollator, groups: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Length of every sample in tokens: (up to the end of its first answer, behind it).

    Args:
        groups: positions of the samples, those together that can be read together.
    """
    lengths = [(0, 0)] * len(collator.samples)
    for group in tqdm(groups, desc="lengths", unit="row"):
        layout = collator.encode_group(group)[1]
        for position, branch in zip(group, layout.branches, strict=True):
            lengths[position] = layout.shared, branch
    return lengths


def over_long(samples: Sequence[Sample], lengths: Sequence[int], limit: int, problems: Path) -> list[int]:
    """Positions of rows longer than `limit` tokens; they are listed in `problems` and left out, never cut."""
    found = [i for i, n in enumerate(lengths) if n > limit]
    advice = "raise max_length or shorten the passage; the row was left out"
    listed = [Problem(file=samples[i].id, field="length", found=f"{lengths[i]} tokens", expected=f"at most {limit}", todo=advice)
              for i in found]
    write_json(problems, [p.model_dump() for p in listed])
    return found


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
        Folder of the adapter (`folder/adapter`). Rows over `profile.max_length` are listed in `folder/problems.json`.
    """
    family = quirks(model, processor)
    collator = VideoCollator(processor, samples, root, profile, family.turn_end)
    groups = shared_groups(samples) if profile.packed else [[i] for i in range(len(samples))]
    lengths = row_lengths(collator, groups)
    left_out = set(over_long(samples, list(map(sum, lengths)), profile.max_length, folder / "problems.json"))
    groups = [kept for group in groups if (kept := [i for i in group if i not in left_out])]
    collator.groups, collator.telling = groups if profile.packed else None, telling
    rows = {"row": list(range(len(groups))) if profile.packed else [i for [i] in groups],
            "length": [lengths[group[0]][0] + sum(lengths[i][1] for i in group) for group in groups]}
    args = SFTConfig(
        output_dir=str(folder / "checkpoints"), num_train_epochs=profile.sft_epochs, max_steps=max_steps,
        per_device_train_batch_size=profile.batch_size, gradient_accumulation_steps=profile.accumulation,
        learning_rate=profile.sft_lr, warmup_steps=profile.warmup, lr_scheduler_type="cosine", bf16=profile.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(), gradient_checkpointing=profile.gradient_checkpointing, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False, report_to="none", logging_steps=5,
        save_steps=profile.save_steps, save_total_limit=1, seed=seed, data_seed=seed,
        dataloader_pin_memory=False, max_grad_norm=1.0)
    model.name_or_path = base
    adapter = None if isinstance(model, PeftModel) else lora(profile, model)
    trainer = VideoSFTTrainer(model=model, args=args, train_dataset=Dataset.from_dict(rows),
                         data_collator=collator, processing_class=processor, peft_config=adapter,
                         callbacks=[LossLog(folder / "log.jsonl")])
    trainer.decision_weight, trainer.decisions, trainer.axes = profile.decision_weight, decision_tokens(processor), family.axes
    trainer.warm_start_lr = profile.warm_start_lr
    prepare_warm_started(trainer.model, trained=profile.warm_start_lr > 0)
    # casts to and fro under autocast cost a twelfth of a step, the stock attention a fifth of one on a CPU
    blocks = causal_blocks(model, active=args.use_cpu or profile.packed)
    with disable_input_dtype_casting(trainer.model, active=args.bf16), blocks:
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder / "checkpoints"))
    return save_adapter(trainer.model, folder / "adapter", base)


def last_whole_checkpoint(folder: Path) -> str | None:
    """Newest checkpoint that was written to its end: `trainer_state.json` comes last, and a kill may leave it out."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[-1]))) if whole else None


def lora(profile: Profile, model: PreTrainedModel) -> LoraConfig:
    """LoRA on all linear layers of the language model; vision tower frozen; warm-started modules go with the adapter."""
    return LoraConfig(r=profile.lora_r, lora_alpha=profile.lora_alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
                      target_modules=profile.lora_target, modules_to_save=profile.warm_start or None)


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


def save_adapter(model: PreTrainedModel, folder: Path, base: str) -> Path:
    """Write the adapter in bf16, with the name of its base."""
    model.peft_config["default"].base_model_name_or_path = base
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "modules_to_save" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    write_json(folder / "base.json", {"base": base})
    return folder

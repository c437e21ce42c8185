"""Direct preference optimisation on video rows with TRL and PEFT: pairs behind one prompt, alone or packed into one row.

The reference is the model as it was tuned: with the new adapter switched off, or, where SFT's own is trained further
(`dpo.further`), with a copy of that one; no second model. A pair shares everything but its
two answers. Packed, clip and prompt are read once and each answer is a branch of its own (see `packing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from expstar_utils.adapters import lora, prepare_warm_started, save_adapter, save_stacked
from expstar_utils.attention import causal_blocks
from expstar_utils.batches import VideoCollator, counted_once, left_out
from expstar_utils.efficiency import efficient
from expstar_utils.encoding import IGNORED, encode_prefix, encode_turns, merge_extras, pad_right
from expstar_utils.media import Frames
from expstar_utils.models import quirks
from expstar_utils.packing import Layout
from expstar_utils.profiles import Profile
from expstar_utils.records import ExpStarError, Message, Sample
from expstar_utils.scoring import answer_readings, logits_at
from expstar_utils.training import (
    ROUNDED,
    SAME,
    DatedBySteps,
    LossLog,
    check_finite,
    common_arguments,
    gathered,
    keep_features,
    last_whole_checkpoint,
)


def turns_of(sample: Sample) -> tuple[list[Message], list[list[Message]]]:
    """(prompt, (chosen turns, rejected turns)) of a preference row.

    `rejected_messages` holds the rejected turns where there are several; else `rejected_response` is the only one.
    """
    first = next(i for i, message in enumerate(sample.messages) if message.role == "assistant")
    rejected = sample.rejected_messages or [Message(role="assistant", content=sample.rejected_response or "")]
    return sample.messages[:first], [sample.messages[first:], rejected]


@dataclass
class PairCollator:
    """Preference rows (`{"row": position}`) -> one batch of B pairs.

    Returns:
        reading: model inputs; B packed rows with their `layouts`, or 2B rows, all chosen ones first. sources: int [2B, n], the
        place (row * length + column) behind which a trained token is said. targets: int [2B, n], that token, or IGNORED.
        ids: of the samples. What TRL's loss looks at: `input_ids` and `completion_mask` [2B, n + 1], the trained tokens
        behind one that is not; `attention_mask` of what is read.
    """

    rows: VideoCollator
    packed: bool

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [self.rows.samples[row["row"]] for row in rows]
        read = [self._packed(sample) if self.packed else self._apart(sample) for sample in pairs]
        parts = [part for of_pair in zip(*(r["rows"] for r in read), strict=True) for part in of_pair]
        ids = pad_right([p["ids"] for p in parts], self.rows.processor.tokenizer.pad_token_id)
        mask = pad_right([[1] * len(p["ids"]) for p in parts], 0)
        reading = {"input_ids": ids, "attention_mask": mask,
                   **merge_extras([p["extras"] for p in parts], [len(p["ids"]) for p in parts])}
        if self.packed:
            reading["layouts"] = [r["layout"] for r in read]
        sources, targets = [], []
        for side in range(2):
            for number, r in enumerate(read):
                row, pairs_of_side = (number if self.packed else side * len(read) + number), r["trained"][side]
                sources.append([row * ids.shape[1] + source for source, _ in pairs_of_side])
                targets.append([target for _, target in pairs_of_side])
        found = pad_right(targets, IGNORED)
        front = torch.zeros(len(found), 1, dtype=torch.long)
        return {"reading": reading, "sources": pad_right(sources, 0), "targets": found, "ids": [s.id for s in pairs],
                "input_ids": torch.cat([front, found.clamp(min=0)], 1), "attention_mask": mask,
                "completion_mask": torch.cat([front, (found != IGNORED).long()], 1)}

    def _encoded(self, sample: Sample, frames: Frames) -> tuple[Any, list[tuple[list[int], list[int]]]]:
        prompt, sides = turns_of(sample)
        prefix = encode_prefix(self.rows.processor, prompt, frames)
        return prefix, [encode_turns(self.rows.processor, turns, self.rows.turn_end) for turns in sides]

    def lengths(self) -> list[int | str]:
        """Tokens of the longer of every pair's two dialogues, or why its clip cannot be read."""
        return [self._length(sample) for sample in tqdm(self.rows.samples, desc="lengths", unit="pair")]

    def _length(self, sample: Sample) -> int | str:
        try:
            prefix, sides = self._encoded(sample, self.rows.outline(sample))
        except ExpStarError as error:
            return str(error)
        return len(prefix.ids) + max(len(ids) for ids, _ in sides)

    def _apart(self, sample: Sample) -> dict[str, Any]:
        prefix, sides = self._encoded(sample, self.rows.frames(sample))
        return {"rows": [{"ids": prefix.ids + ids, "extras": prefix.extras} for ids, _ in sides],
                "trained": [_trained(labels, len(prefix.ids), len(prefix.ids)) for _, labels in sides]}

    def _packed(self, sample: Sample) -> dict[str, Any]:
        prefix, sides = self._encoded(sample, self.rows.frames(sample))
        shared, (chosen, rejected) = len(prefix.ids), (ids for ids, _ in sides)
        starts = shared, shared + len(chosen)
        return {"rows": [{"ids": prefix.ids + chosen + rejected, "extras": prefix.extras}],
                "layout": Layout(shared, (len(chosen), len(rejected))),
                "trained": [_trained(labels, start, shared) for start, (_, labels) in zip(starts, sides, strict=True)]}


def _trained(labels: Sequence[int], start: int, shared: int) -> list[tuple[int, int]]:
    """(place it is said behind, token) of every trained token of a branch at `start`; its first stands behind what is shared."""
    return [(start + i - 1 if i else shared - 1, label) for i, label in enumerate(labels) if label != IGNORED]


def score_pairs(model: PreTrainedModel, axes: int, bf16: bool) -> None:
    """Let a base model answer `PairCollator`'s batches as TRL's fused head does, for the trained tokens alone; see `scoring`."""

    def answer(reading: Mapping[str, Any], sources: torch.Tensor, targets: torch.Tensor, **_: Any) -> FusedCausalLMOutput:
        """TRL's outputs for a batch of pairs."""
        said = targets != IGNORED
        logits = logits_at(model, reading, sources[said], axes, bf16)
        logprobs = logits.log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)

        def spread(values: torch.Tensor) -> torch.Tensor:
            """Values of the trained tokens at their places, 0 elsewhere: [2B, n]."""
            return torch.zeros(said.shape, dtype=values.dtype, device=values.device).masked_scatter(said, values)
        chosen = logprobs.gather(-1, targets[said][:, None])[:, 0]
        return FusedCausalLMOutput(log_probs=spread(chosen), entropy=spread(entropy.detach()),
                                   mean_logits=spread(logits.detach().mean(-1)),
                                   is_top1=spread(logits.argmax(-1) == targets[said]))
    answer_readings(model, answer)


class VideoDPOTrainer(DPOTrainer):
    """TRL's trainer on `PairCollator`'s batches; stops at a loss that is no number and names the rows."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        ids = inputs.pop("ids")
        loss = super()._compute_loss(model, inputs, return_outputs)
        check_finite(loss[0] if return_outputs else loss, ids)
        return loss


def same_when_packed(model: PreTrainedModel, collator: VideoCollator, rows: Sequence[int], tolerance: float) -> bool:
    """Whether pairs have the same log-probabilities packed and apart, to a relative `tolerance` of the largest."""
    found = []
    for packed in (True, False):
        batch = PairCollator(collator, packed)([{"row": row} for row in rows])
        given = {k: batch[k] for k in ("reading", "sources", "targets")}
        with torch.no_grad(), causal_blocks(model, active=packed):
            found.append(model(**_on(given, model.device)).log_probs.sum(1))
    return bool((found[0] - found[1]).abs().max() <= tolerance * found[1].abs().max())


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {k: _on(v, device) for k, v in value.items()}
    return value.to(device) if torch.is_tensor(value) else value


def train_dpo(model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], root: Path, profile: Profile,
              folder: Path, base: str, tuned: Path, seed: int = 42, max_steps: int = -1) -> Path:
    """Train on preference rows; a killed run resumes from its last checkpoint in `folder`.

    Args:
        model: the base with the adapter `tuned`, folded in (`models.load(base, tuned)`) or, with `dpo.further`, kept apart
            (`merge=False`): where training starts, and the reference.
        root: folder below which the rows' clips lie. profile: numbers of `profile.dpo`, and `packed`.
        base: name written into the adapter as its base. max_steps: stop after so many optimiser steps; -1 runs all epochs.

    Returns:
        Folder of one adapter for `base` that holds `tuned` and what was learned here (`folder/adapter`). Rows over
        `profile.max_length`, and those whose clip cannot be read, are left out and listed in `folder/problems.json`; losses,
        margins and accuracies are in `folder/log.jsonl`.

    Raises:
        ExpStarError: no row is left, a loss that is no number, memory that does not suffice.
    """
    trainer = dpo_trainer(model, processor, samples, root, profile, folder, base, seed, max_steps)
    with efficient(trainer, trainer.data_collator.packed, profile.compiled):
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder / "checkpoints"))
    state = gathered(trainer)
    if trainer.is_world_process_zero():
        if profile.dpo.further:
            save_adapter(trainer.model, folder / "adapter", base, state)
        else:
            save_stacked(tuned, trainer.model, folder / "adapter", base, state)
    trainer.accelerator.wait_for_everyone()
    return folder / "adapter"


def dpo_trainer(model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], root: Path, profile: Profile,
                folder: Path, base: str, seed: int = 42, max_steps: int = -1) -> VideoDPOTrainer:
    """The trainer of `train_dpo`, ready to start; packed pairs are checked on the first of them, and left where they go wrong."""
    set_seed(seed)  # TRL makes the adapter before it sows
    family, settings = quirks(model, processor), profile.for_dpo()
    rows = VideoCollator(processor, samples, root, settings, family.turn_end)
    lengths = counted_once(folder / "checkpoints" / "lengths.json", rows, PairCollator(rows, False).lengths)
    without = left_out(samples, lengths, profile.max_length, folder / "problems.json")
    kept = [i for i in range(len(samples)) if i not in without]
    if not kept:
        raise ExpStarError(f"{folder}: found no preference row, expected one; sample more candidates, or lower `dpo.positive` "
                           f"({folder / 'problems.json'} tells of rows that were left out)")
    args = DPOConfig(**common_arguments(settings, folder, seed, max_steps), beta=profile.dpo.beta, logging_steps=1)
    model.name_or_path = base
    if profile.dpo.further:
        prepare_warm_started(model, trained=False)
    trainer = VideoDPOTrainer(model=model, args=args, processing_class=processor,
                              peft_config=None if profile.dpo.further else lora(settings, model),
                              train_dataset=Dataset.from_dict({"row": kept, "images": [[] for _ in kept]}),
                              data_collator=PairCollator(rows, profile.packed),
                              callbacks=[LossLog(folder / "log.jsonl"), DatedBySteps()])
    score_pairs(trainer.model.get_base_model(), family.axes, args.bf16)
    keep_features(trainer.model.get_base_model(), family.tower, profile.feature_cache_gib)
    if profile.packed and not same_when_packed(trainer.model, rows, kept[:1], ROUNDED if args.bf16 else SAME):
        print("packed pairs do not score as they do apart with this model; training goes on unpacked")
        trainer.data_collator = PairCollator(rows, packed=False)
    return trainer

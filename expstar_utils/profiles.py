"""A profile: every number of one scale of the experiment, from a YAML file in `notebooks/profiles/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from expstar_utils.files import describe, read_named
from expstar_utils.records import ExpStarError
from expstar_utils.sizes import FrameSize, Pixels

TOWER = "vision_model"  # name of the vision tower in ExpStar-Tiny
FOLDER = Path(__file__).parents[1] / "notebooks" / "profiles"


class RetrieverPart(BaseModel):
    """One search of a retriever; several of them are fused by rank (`hybrid`).

    name: bm25, or an encoder of `encoders.ENCODERS`. options: that encoder's. query: what is asked with, of title, narration and
    clip; those that read only leave the clip out. weight: of its ranks in the fusion. text, video: weights of what is read and
    of what is seen in one query vector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["bm25", "text", "lit", "clip", "eva_clip", "viclip"]
    options: dict[str, Any] = {}
    query: tuple[Literal["title", "narration", "clip"], ...] = Field(("title", "narration", "clip"), min_length=1)
    weight: float = Field(1.0, gt=0)
    text: float = Field(0.3, gt=0)
    video: float = Field(0.7, gt=0)

    @model_validator(mode="after")
    def _can_read(self) -> RetrieverPart:
        if self.name in ("bm25", "text") and set(self.query) == {"clip"}:
            raise ValueError(f"{self.name} reads, found a query of clips alone, expected title or narration in it")
        return self


class Resources(BaseModel):
    """What one job of a stage asks a scheduler for: cores, GPUs, GiB of memory, minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    mem_gib: int = Field(8, ge=1)
    minutes: int = Field(60, ge=1)


class RewardWeights(BaseModel):
    """How much each component of a reward counts; see `rewards.rewards`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: float = Field(1.0, ge=0)
    safety_present: float = Field(1.0, ge=0)
    safety: float = Field(1.0, ge=0)
    principle: float = Field(1.0, ge=0)
    equation: float = Field(1.0, ge=0)
    narration: float = Field(1.0, ge=0)


class Preferences(BaseModel):
    """Candidates, rewards and DPO.

    candidates, temperature: how many commentaries of a step are sampled, and how freely. positive: reward from which on one is
    good. margin: by how much a good one must be better than a bad one. pairs: at most so many a step. rows: a pair's texts are
    whole dialogues with decision, passages and verdict, or the tagged text alone, in one answer, as published. further:
    train the adapter of SFT on, which keeps its size; else a second one of `lora_r` and `lora_alpha`, written together with it.
    lr, epochs, max_frames: of the training; beta: strength of the pull toward the reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(4, ge=2)
    temperature: float = Field(1.0, gt=0)
    positive: float = Field(0.8, ge=0, le=1)
    margin: float = Field(0.1, ge=0, le=1)
    pairs: int = Field(2, ge=1)
    rows: Literal["dialogue", "response"] = "dialogue"
    further: bool = False
    lora_r: int = Field(4, ge=1)
    lora_alpha: int = Field(16, ge=1)
    lr: float = Field(1e-6, gt=0)
    epochs: float = Field(1.0, gt=0)
    max_frames: int = Field(32, ge=1)
    beta: float = Field(0.1, gt=0)
    weights: RewardWeights = RewardWeights()


class Profile(BaseModel):
    """Settings of one scale; frozen, unknown keys are errors. Sizes in pixels, lengths in tokens.

    caption_*, choice_*, told_*: of notebook 04a's stages. caption_times: whether captions keep what the processor says of times;
    frame_times is that of the stage at hand and is left alone (prompts of inference have the times).
    compiled: whether torch compiles layers for training, see `efficiency`. attention: implementation by transformers' name.
    feature_cache_gib: how much of what the frozen vision tower sees is kept on disk, for all runs together; 0 keeps none.
    processes: that train side by side, one a device, each with batch_size rows; machines: that they run on, as many on each;
    accelerate: how they share the work, a file of `notebooks/profiles/accelerate/`. resources: by number of the notebook, such as
    04a; what a scheduler is asked for. tracker: where 04a and 04b show their curves besides `log.jsonl`, see `trackers`.
    second_look_nats: how near another word must come for an earlier step to be doubted, see `second_looks`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base: str
    dtype: Literal["float32", "bfloat16", "float16"]
    fps: float = Field(gt=0)
    max_frames_sft: int = Field(ge=1)
    max_frames_infer: int = Field(ge=1)
    frame_size: FrameSize = None
    max_length: int = Field(ge=16)
    batch_size: int = Field(ge=1)
    accumulation: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    compiled: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    feature_cache_gib: float = Field(0.0, ge=0)
    processes: int = Field(1, ge=1)
    machines: int = Field(1, ge=1)
    accelerate: Literal["ddp", "zero2", "fsdp"] = "ddp"
    tracker: Literal["", "tensorboard", "trackio", "wandb"] = ""
    packed: bool = False
    augment: bool = False
    caption_epochs: float = Field(0.0, ge=0)
    caption_batch: int = Field(8, ge=1)
    caption_lr: float = Field(1e-3, gt=0)
    caption_connector_lr: float = Field(1e-4, ge=0)
    caption_tower: bool = False
    caption_prompted: float = Field(0.0, ge=0, le=1)
    caption_plain: float = Field(1.0, ge=0, le=1)
    caption_crossed: float = Field(0.0, ge=0, le=1)
    caption_times: bool = True
    frame_times: bool = True
    telling_weight: float = Field(1.0, gt=0)
    sft_epochs: float = Field(gt=0)
    sft_lr: float = Field(gt=0)
    warmup: float = Field(ge=0)
    choice_rounds: int = Field(0, ge=0)
    choice_sisters: int = Field(3, ge=1)
    choice_replay: float = Field(0.25, ge=0, le=1)
    choice_captions: float = Field(0.0, ge=0)
    choice_lr: float = Field(5e-4, gt=0)
    told_rounds: int = Field(0, ge=0)
    unclear_share: float = Field(0.0, ge=0, le=1)
    decision_weight: float = Field(1.0, gt=0)
    save_steps: int = Field(50, ge=1)
    lora_r: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)
    lora_target: str
    warm_start: list[str] = []
    warm_start_lr: float = Field(0.0, ge=0)
    max_relevant: int | None = Field(None, ge=0)
    max_irrelevant: int | None = Field(None, ge=0)
    joint: bool = False
    irrelevant_notes: bool = True
    history_dropout: float = Field(0.0, ge=0, le=1)
    closed_book: float = Field(0.0, ge=0, le=1)
    history: Literal["summary", "narration"] = "summary"
    knowledge_base: str = ""
    retrievers: tuple[RetrieverPart, ...] = Field((RetrieverPart(name="lit"),), min_length=1)
    compared: tuple[RetrieverPart, ...] = ()
    diversity: float = Field(0.0, ge=0, le=1)
    index_kind: Literal["flat", "hnsw", "ivf_sq", "ivf_pq"] | None = None
    index_recall: float = Field(0.95, gt=0, le=1)
    passages: int = Field(8, ge=1)
    tau: float = Field(0.5, ge=0, le=1)
    verdict_threshold: float = Field(0.5, ge=0, le=1)
    rank_weight: float = Field(0.0, ge=0)
    second_look_nats: float = Field(0.0, ge=0)
    doubt: int = Field(0, ge=0)
    shown: int = Field(2, ge=1)
    max_new_tokens: int = Field(ge=1)
    dpo: Preferences = Preferences()
    resources: dict[Literal["01", "02", "03", "04a", "04b", "05", "06", "07"], Resources] = {}

    @model_validator(mode="after")
    def _frames_have_room(self) -> Profile:
        count = max(self.max_frames_sft, self.max_frames_infer, self.dpo.max_frames)
        if isinstance(self.frame_size, Pixels) and self.frame_size.a_frame(count) < self.frame_size.multiple**2:
            raise ValueError(f"frame_size leaves {self.frame_size.a_frame(count)} pixels for each of {count} frames, expected at "
                             f"least {self.frame_size.multiple**2}; raise it, or take fewer frames")
        return self

    @model_validator(mode="after")
    def _machines_have_alike(self) -> Profile:
        if self.processes % self.machines:
            raise ValueError(f"processes {self.processes} do not share out evenly among machines {self.machines}, expected a "
                             "multiple of them")
        return self

    @model_validator(mode="after")
    def _frames_stay_the_same(self) -> Profile:
        if self.feature_cache_gib and (self.augment or self.caption_tower):
            raise ValueError(f"feature_cache_gib is {self.feature_cache_gib} with augment or caption_tower, expected 0; what is "
                             "seen is another thing every time then")
        return self

    def for_captions(self) -> Profile:
        """The same profile for notebook 04a's first stage, whose rows are captions, drawn anew for every epoch."""
        return self.model_copy(update={"sft_epochs": 1.0, "batch_size": self.caption_batch, "packed": False,
                                       "sft_lr": self.caption_lr, "warm_start_lr": self.caption_connector_lr,
                                       "warm_start": [*self.warm_start, *([TOWER] if self.caption_tower else [])],
                                       "frame_times": self.caption_times, "decision_weight": 1.0, "accumulation": 1})

    def for_dpo(self) -> Profile:
        """The same profile for notebook 04b's training."""
        return self.model_copy(update={"sft_epochs": self.dpo.epochs, "sft_lr": self.dpo.lr,
                                       "max_frames_sft": self.dpo.max_frames, "lora_r": self.dpo.lora_r,
                                       "lora_alpha": self.dpo.lora_alpha, "warm_start": [], "augment": False})

    def for_choices(self) -> Profile:
        """The same profile for notebook 04a's last stage, whose rounds are drawn before: one epoch goes through them all."""
        return self.model_copy(update={"sft_epochs": 1.0, "sft_lr": self.choice_lr})


def load_profile(name: str, **overrides: Any) -> Profile:
    """Profile by name or by path of a YAML file.

    Args:
        overrides: values that win over the file's (a notebook's own parameters); None leaves the file's.

    Raises:
        ExpStarError: no such profile, an unknown key, or a value out of range; names the key.
    """
    path, values = read_named("profile", name, FOLDER)
    try:
        return Profile.model_validate(values | {k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        raise ExpStarError(f"profile {path.name}: {describe(error)}") from None

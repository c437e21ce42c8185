"""The paper's setting on this GPU: SFT and DPO steps, packed and apart, and inference, of a Qwen2.5-VL-7B with random weights.

    python -m benchmarks.gpu_paper [--size 7b|miniature] [--steps 3]

Weights do not change how long a step takes, so none are fetched. Sequences are the paper's: clips at 1 frame a second, 64
frames in SFT and 32 in DPO, 4,096 tokens, 8 passages, LoRA of rank 16 (SFT) and 4 (DPO), bfloat16, gradient checkpointing.
MFU counts the products that the method needs (forward, gradients of activations; no second forward of checkpointing, no
gradients of frozen weights) against the card's dense bfloat16 peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from benchmarks.shaped import Shape, pair_of, rows_of
from benchmarks.timing import RESULTS
from expstar_utils import models
from expstar_utils.decoding import Decoder
from expstar_utils.efficiency import efficient
from expstar_utils.encoding import between_turns, encode_prefix, text_ids
from expstar_utils.files import write_json
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import miniature_qwen2_5_vl, noise_clip
from expstar_utils.models import quirks
from expstar_utils.preferences import dpo_trainer
from expstar_utils.profiles import Profile, load_profile
from expstar_utils.prompts import IRRELEVANT, RELEVANT
from expstar_utils.rereading import RereadingDecoder
from expstar_utils.training import sft_trainer

TEXT_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152_064, "max_position_embeddings": 32_768, "initializer_range": 0.02,
           "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
VISION_7B = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
             "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "initializer_range": 0.02}
PEAK_TFLOPS = {"A100": 312, "H100": 989, "H200": 989}  # dense bfloat16, from NVIDIA's data sheets
SIZES = {"7b": (Shape(3840, 256, 8), (224, 364), 64, 32), "miniature": (Shape(600, 64, 3), (56, 56), 8, 4)}


def random_7b(folder: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen2.5-VL-7B's shape with random weights, made on the device itself; its processor has a tokenizer of our texts."""
    from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration
    small = miniature_qwen2_5_vl(folder)
    processor, config = AutoProcessor.from_pretrained(small), AutoConfig.from_pretrained(small)
    processor.video_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 224 * 364}
    for part, sizes in ((config.text_config, TEXT_7B), (config.vision_config, VISION_7B)):
        for name, value in sizes.items():
            setattr(part, name, value)
    config.text_config.layer_types = ["full_attention"] * config.text_config.num_hidden_layers
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return Qwen2_5_VLForConditionalGeneration(config).eval(), processor
    finally:
        torch.set_default_dtype(default)


def made(size: str, folder: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a size, on the GPU where there is one."""
    if size == "7b":
        return random_7b(folder)
    model, processor = models.load(str(miniature_qwen2_5_vl(folder)))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def profile_of(size: str, **changes: Any) -> Profile:
    """The `paper` profile at this benchmark's frames; the miniature in float32."""
    _, frame_size, sft_frames, dpo_frames = SIZES[size]
    paper = load_profile("paper", frame_size=frame_size, max_frames_sft=sft_frames, max_length=32_000,
                         dtype="bfloat16" if size == "7b" else "float32", **changes)
    return paper.model_copy(update={"dpo": paper.dpo.model_copy(update={"max_frames": dpo_frames})})


def products(model: PreTrainedModel, tokens: int, attended: int, passes: int) -> float:
    """Floating point operations of the language model.

    Args:
        tokens: read. attended: pairs of a query and a key that it sees. passes: 1 for a forward, 2 with gradients of activations.
    """
    text = model.config.get_text_config()
    layers = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and "visual" not in n and "lora_" not in n)
    return passes * (2.0 * layers * tokens + 4.0 * text.num_hidden_layers * text.hidden_size * attended)


def attended_pairs(prefix: int, branch: int, branches: int, packed: bool) -> int:
    """Query-key pairs of the rows of a shape."""
    alone, own = prefix * (prefix + 1) // 2, branch * prefix + branch * (branch + 1) // 2
    return alone + branches * own if packed else branches * (alone + own)


def timed(work: Callable[[], Any], steps: int) -> tuple[float, float]:
    """(median seconds of `steps` runs behind one to warm up, peak memory in GiB on the GPU or 0)."""
    seconds = []
    for number in range(steps + 1):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number:
            seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return statistics.median(seconds), peak


class Paper:
    """One model and the rows of the paper's shape."""

    def __init__(self, size: str, steps: int, folder: Path):
        self.size, self.steps, self.folder = size, steps, folder
        shape, _, frames, _ = SIZES[size]
        self.shape, self.video = shape, {"video": "clip.mp4", "start": 0, "end": frames}
        noise_clip(folder / "clip.mp4", frames, side_px=448 if size == "7b" else 56, fps=1)

    def row(self, name: str, seconds: float, peak_gib: float, tokens: int, flops: float, **more: Any) -> dict[str, Any]:
        """One line of the table."""
        card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        peak = next((value for key, value in PEAK_TFLOPS.items() if key in card), None)
        mfu = round(flops / seconds / (peak * 1e12), 3) if peak else None
        found = {"what": name, "seconds": round(seconds, 3), "tokens_per_s": round(tokens / seconds), "mfu": mfu,
                 "peak_memory_gib": round(peak_gib, 1)} | more
        print(json.dumps(found), flush=True)
        return found

    def training(self, kind: str, packed: bool) -> dict[str, Any]:
        """One optimiser step over all rows of a step of an experiment (SFT) or over a pair (DPO)."""
        model, processor = made(self.size, self.folder / "base")
        shape = self.shape if kind == "sft" else Shape(self.shape.prefix // 2, self.shape.branch, 2)
        profile = profile_of(self.size, packed=packed, accumulation=1 if packed or kind == "dpo" else shape.branches)
        taken = profile if kind == "sft" else profile.for_dpo()
        frames = sample_frames(self.folder / "clip.mp4", 0, self.video["end"], fps=taken.fps, max_frames=taken.max_frames_sft,
                               size_px=taken.frame_size)
        rows = rows_of(model, processor, frames, shape, self.video)
        rows = rows if kind == "sft" else [pair_of(rows)]
        trainer = {"sft": sft_trainer, "dpo": dpo_trainer}[kind](model, processor, rows, self.folder, profile,
                                                                 self.folder / f"{kind}-{packed}", "base", max_steps=1)
        with efficient(trainer, packed):
            seconds, peak = timed(trainer.train, self.steps)
        tokens = shape.prefix + shape.branches * shape.branch if packed else shape.branches * (shape.prefix + shape.branch)
        pairs = attended_pairs(shape.prefix, shape.branch, shape.branches, packed)
        flops = products(model, tokens, pairs, passes=2 if kind == "sft" else 3)  # DPO reads all of it once more as reference
        name = f"{kind} step, {'packed' if packed else 'apart'}"
        return self.row(name, seconds, peak, tokens, flops, rows=shape.branches)

    def inference(self, reread: bool) -> dict[str, Any]:
        """Verdicts on all passages of a step."""
        model, processor = made(self.size, self.folder / "base")
        family, shape = quirks(model, processor), Shape(self.shape.prefix // 2, self.shape.branch, self.shape.branches)
        frames = sample_frames(self.folder / "clip.mp4", 0, self.video["end"], fps=1, size_px=SIZES[self.size][1],
                               max_frames=SIZES[self.size][3])
        rows = rows_of(model, processor, frames, shape, self.video)
        decoder = (RereadingDecoder if reread else Decoder)(model, family.axes)
        prefix = encode_prefix(processor, rows[0].messages[:2], frames)
        opened = text_ids(processor, rows[0].messages[2].content + family.turn_end)
        turns = [between_turns(processor, row.messages[3], family.turn_end) for row in rows]
        verdicts = [text_ids(processor, f"{word}\n") for word in (RELEVANT, IRRELEVANT)]

        def judge() -> None:
            """Read the prefix and judge every passage."""
            [state] = decoder.extend([decoder.prefill(prefix)], [opened])
            decoder.judge([state] * len(turns), turns, verdicts)
        seconds, peak = timed(judge, self.steps)
        read = shape.branches * (shape.prefix + shape.branch) if reread else shape.prefix + shape.branches * shape.branch
        flops = products(model, read, attended_pairs(shape.prefix, shape.branch, shape.branches, not reread), passes=1)
        return self.row(f"verdicts, {'prompt read every time' if reread else 'prefix read once'}", seconds, peak, read, flops,
                        passages=shape.branches)

    def generation(self, side_by_side: int = 8, length: int = 64) -> dict[str, Any]:
        """Greedy decoding of several narrations side by side; tokens a second are those written."""
        model, processor = made(self.size, self.folder / "base")
        decoder = Decoder(model, quirks(model, processor).axes)
        frames = sample_frames(self.folder / "clip.mp4", 0, self.video["end"], fps=1, size_px=SIZES[self.size][1],
                               max_frames=SIZES[self.size][3])
        rows = rows_of(model, processor, frames, Shape(self.shape.prefix // 2, self.shape.branch, 1), self.video)
        states = [decoder.prefill(encode_prefix(processor, rows[0].messages[:2], frames))] * side_by_side
        seconds, peak = timed(lambda: decoder.decode(states, length, end=-1), self.steps)
        return self.row(f"generation, {side_by_side} side by side", seconds, peak, side_by_side * length,
                        products(model, side_by_side * length, side_by_side * length * self.shape.prefix // 2, passes=1))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure everything that was asked for; a part that fails is named and the others go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    found, failed = [], []
    with tempfile.TemporaryDirectory() as scratch:
        paper = Paper(given.size, given.steps, Path(scratch))
        parts = {"sft packed": lambda: paper.training("sft", True), "sft apart": lambda: paper.training("sft", False),
                 "dpo packed": lambda: paper.training("dpo", True), "dpo apart": lambda: paper.training("dpo", False),
                 "verdicts": lambda: paper.inference(False), "verdicts, reread": lambda: paper.inference(True),
                 "generation": paper.generation}
        for name, part in parts.items():
            try:
                found.append(part())
            except Exception as error:  # on a rented card the rest must still be measured
                failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
                print(failed[-1], flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            write_json(given.out / f"gpu_paper_{given.size}.json", {"name": "gpu_paper", "device": card, "size": given.size,
                                                                   "steps": given.steps, "rows": found, "failed": failed})
    return found


if __name__ == "__main__":
    main()

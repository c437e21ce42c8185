"""Miniatures of the model families for tests: real classes, a few hundred thousand random weights, a tokenizer of our texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from expstar_utils.models import CHAT_TEMPLATE, ROOT, smolvlm_processor
from expstar_utils.prompts import CONTROLS, SECTIONS

TEXTS = ("prompts.yaml", "knowledge_base/*.jsonl")
TEXT_LIMIT = 20_000  # characters of each file that the tokenizer is trained on
MERGED_TOKENS = 700
HIDDEN, LAYERS, HEADS, FRAME_PX = 64, 3, 4, 32
SPREAD = 0.15  # of the random weights: wide enough for positions, masks and frames to move every logit
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
                "<|video_pad|>")
SMOLVLM_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<fake_token_around_image>",
                   "<global-img>", "<end_of_utterance>")
QWEN_CHAT_TEMPLATE = CHAT_TEMPLATE
for _kind in ("image", "video"):
    QWEN_CHAT_TEMPLATE = QWEN_CHAT_TEMPLATE.replace(f"<{_kind}>", f"<|vision_start|><|{_kind}_pad|><|vision_end|>")


def own_texts() -> list[str]:
    """Texts of this project that tokenizers are trained on, always in the same order."""
    paths = [path for pattern in TEXTS for path in sorted((ROOT / "data").glob(pattern))]
    tagged = "".join(f"{tag}\n" for tag in [*SECTIONS, *CONTROLS])
    return [path.read_text(encoding="utf8")[:TEXT_LIMIT] for path in paths] + [tagged * 100]


def byte_level_bpe(split: Any, special: tuple[str, ...]) -> Tokenizer:
    """Byte-level BPE trained on the project's texts.

    Args:
        split: the family's own way to cut text into words; it decides which tokens may cross a line end.
        special: special tokens, which take the lowest ids.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=MERGED_TOKENS, special_tokens=list(special), show_progress=False,
                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(own_texts(), trainer)
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer that cuts as Qwen2 does ("]" and the line end after it are one token) and has its special tokens."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return _fast(byte_level_bpe(split, QWEN_SPECIAL), "<|im_end|>", QWEN_CHAT_TEMPLATE,
                 {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"})


def smolvlm_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer that cuts as SmolLM2 does and has SmolVLM's special tokens."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _fast(byte_level_bpe(split, SMOLVLM_SPECIAL), "<|im_end|>", CHAT_TEMPLATE,
                 {"image_token": "<image>", "video_token": "<video>", "fake_image_token": "<fake_token_around_image>",
                  "global_image_token": "<global-img>", "end_of_utterance_token": "<|im_end|>"})


def _fast(tokenizer: Tokenizer, end: str, template: str, named: dict[str, str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token="<|endoftext|>", chat_template=template,
                                   extra_special_tokens=named)


def text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Settings that both families' language models share."""
    return {"vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2, "max_position_embeddings": 4096,
            "initializer_range": SPREAD, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}


def miniature_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random Qwen2.5-VL with its processor; each pair of frames of 56 x 56 px becomes 2 x 2 tokens.

    Args:
        folder: where to, made when missing; `models.load(str(folder))` reads it.

    Returns:
        folder.
    """
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {"window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2, "depth": 2}
    tokenizer = qwen_tokenizer()
    processor = Qwen2_5_VLProcessor(image_processor=Qwen2VLImageProcessor(size=size), tokenizer=tokenizer,
                                    video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
                                    chat_template=tokenizer.chat_template)
    config = _qwen_config(Qwen2_5_VLConfig, tokenizer, {"rope_parameters": rotary}, vision)
    return _write(Qwen2_5_VLForConditionalGeneration, config, processor, folder, seed)


def miniature_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random Qwen3-VL with its processor; each pair of frames of 64 x 64 px becomes 2 x 2 tokens behind its time.

    Args:
        folder: where to, made when missing; `models.load(str(folder))` reads it.

    Returns:
        folder.
    """
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )
    size = {"shortest_edge": 64 * 64, "longest_edge": 96 * 96 * 64}
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    vision = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "depth": 3}
    tokenizer = qwen_tokenizer()
    template = tokenizer.chat_template.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    processor = Qwen3VLProcessor(image_processor=Qwen2VLImageProcessor(size=size, patch_size=16), tokenizer=tokenizer,
                                 video_processor=Qwen3VLVideoProcessor(size=size, cap_pixels_per_frame=False),
                                 chat_template=template)
    config = _qwen_config(Qwen3VLConfig, tokenizer, {"rope_parameters": rotary, "head_dim": HIDDEN // HEADS}, vision)
    return _write(Qwen3VLForConditionalGeneration, config, processor, folder, seed)


def _qwen_config(kind: Any, tokenizer: PreTrainedTokenizerFast, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    """Config of a Qwen VL family: what its members share at this size, and `text` and `vision` of its own."""
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in (
        ("image", "<|image_pad|>"), ("video", "<|video_pad|>"), ("vision_start", "<|vision_start|>"),
        ("vision_end", "<|vision_end|>"))}
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN, "initializer_range": SPREAD}
    return kind(text_config=text_settings(tokenizer) | text, vision_config=shared | vision, tie_word_embeddings=True, **ids)


def miniature_smolvlm(folder: Path, seed: int = 0) -> Path:
    """Write a random SmolVLM with its processor; each frame becomes 4 tokens.

    Args:
        folder: where to, made when missing; `models.load(str(folder))` reads it.

    Returns:
        folder.
    """
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
    tokenizer = smolvlm_tokenizer()
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": FRAME_PX, "patch_size": 8, "initializer_range": SPREAD}
    config = SmolVLMConfig(text_config=text_settings(tokenizer) | {"model_type": "llama"}, vision_config=vision, scale_factor=2,
                           image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
                           pad_token_id=tokenizer.pad_token_id)
    processor = smolvlm_processor(tokenizer, FRAME_PX, (FRAME_PX // 8) ** 2 // 2**2, max_frames=64)
    return _write(SmolVLMForConditionalGeneration, config, processor, folder, seed)


def _write(kind: type[PreTrainedModel], config: Any, processor: ProcessorMixin, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


MINIATURES: dict[str, Callable[[Path], Path]] = {"qwen2_5_vl": miniature_qwen2_5_vl, "qwen3_vl": miniature_qwen3_vl,
                                                "smolvlm": miniature_smolvlm}


def noise_clip(path: Path, duration_s: int, seed: int = 0, side_px: int = 56, fps: int = 4) -> Path:
    """Write a silent clip of coloured noise, so that no two frames and no two seeds look alike to a miniature."""
    noise = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width = stream.height = side_px
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
        for _ in range(duration_s * fps):
            blocks = noise.integers(0, 256, (7, 7, 3), dtype=np.uint8).repeat(side_px // 7, 0).repeat(side_px // 7, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blocks, format="rgb24")))
        container.mux(stream.encode(None))
    return path

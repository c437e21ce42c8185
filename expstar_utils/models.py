"""Models and processors: one call for every family, a run's trained weights, and the assembly of ExpStar-Tiny."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from expstar_utils import weights
from expstar_utils.files import read_json
from expstar_utils.locks import remove_unused
from expstar_utils.profiles import Profile
from expstar_utils.records import ExpStarError

TINY = "expstar-tiny"
TINY_TEXT = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "data" / "models" / "expstar-tiny"
TRAINED = {"sft": "4_sft", "dpo": "4_dpo", "baseline": "4_sft_baseline"}  # stage of a run that trains an adapter, by its name
FRAME_PX, PATCH_PX, SCALE = 128, 16, 4
UNUSED_S = 3 * 86400.0  # after which an assembled model leaves the cache
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'video' %}<video>{% elif part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Quirks:
    """What differs between model families.

    turn_end: the string that ends an assistant turn in its chat template. pixels_key: name of the processor's video
    output. axes: how many rows of position ids the model takes (Qwen's mRoPE has 3, others 1). tower: name of the vision
    tower inside the model without its head.
    """

    turn_end: str
    pixels_key: str
    axes: int
    tower: str


FAMILIES = {
    "smolvlm": Quirks("<end_of_utterance>", "pixel_values", 1, "vision_model"),
    "qwen2_5_vl": Quirks("<|im_end|>", "pixel_values_videos", 3, "visual"),
    "qwen3_vl": Quirks("<|im_end|>", "pixel_values_videos", 3, "visual"),
}


def quirks(model: PreTrainedModel, processor: ProcessorMixin) -> Quirks:
    """Quirks of a loaded model's family; a processor that speaks ChatML ends its turns with `<|im_end|>`.

    Raises:
        ExpStarError: the family is not in the table.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ExpStarError(f"model family {kind!r} is not known, expected one of {sorted(FAMILIES)}; add a row to FAMILIES")
    found = FAMILIES[kind]
    chatml = "<|im_end|>" in (processor.chat_template or "")
    return dataclasses.replace(found, turn_end="<|im_end|>") if chatml else found


def fast_dtype(name: str) -> torch.dtype:
    """A profile's precision, as torch knows it; float32 in place of 16 bits on a CPU without instructions for them.

    There (AVX2 and older) a product of matrices takes a hundred times as long in bfloat16 as in float32.
    """
    wanted, cpu = getattr(torch, name), torch.ops.mkldnn
    fast = {torch.bfloat16: cpu._is_mkldnn_bf16_supported, torch.float16: cpu._is_mkldnn_fp16_supported}
    return wanted if torch.cuda.is_available() or wanted not in fast or fast[wanted]() else torch.float32


def load(base: str, adapter: Path | None = None, dtype: torch.dtype = torch.float32, revision: str | None = None,
         tower: Path | None = None, merge: bool = True,
         attention: str | None = None) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of `base`, with a PEFT adapter on top when one is given.

    Args:
        base: "expstar-tiny", a folder, or the hub id of any AutoModelForImageTextToText checkpoint.
        adapter: folder with a PEFT adapter made for that base.
        dtype: of the weights.
        tower: the vision tower to assemble ExpStar-Tiny with; None takes the shipped one.
        attention: implementation by transformers' name ("sdpa", "eager", "flash_attention_2"); None leaves the choice to it.
        merge: fold the adapter into the weights (to generate); False keeps it apart (to train it further).

    Raises:
        ExpStarError: no weights found (says what would help), or the adapter was made for another base.
    """
    folder = assembled_tiny(tower) if base == TINY else weights.find(base, revision)
    if not any(Path(folder).glob("*.safetensors")):
        raise ExpStarError(f"{folder}: no *.safetensors there, expected weights in that format (others can hold code); "
                           "convert them")
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    how = {"attn_implementation": attention, "trust_remote_code": False, "use_safetensors": True}
    if adapter is None:
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **how).eval(), processor
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32 if merge else dtype, **how)
    model = attach_adapter(model, Path(adapter), base, trainable=not merge)
    if merge:  # in float32, then rounded once: half the multiplications of an adapter kept apart
        model = model.merge_and_unload().to(dtype)
    return model.eval(), processor


def load_tuned(profile: Profile, adapter: Path | None, tower: Path | None = None,
               merge: bool = True) -> tuple[PreTrainedModel, ProcessorMixin]:
    """`load` with a profile's base, precision (see `fast_dtype`) and attention."""
    return load(profile.base, adapter, fast_dtype(profile.dtype), tower=tower, merge=merge, attention=profile.attention)


def attach_adapter(model: PreTrainedModel, adapter: Path, base: str, trainable: bool = False) -> PreTrainedModel:
    """The model with a trained adapter, `trainable` further or not.

    Raises:
        ExpStarError: it is not there, is not LoRA in safetensors, or its `base_model_name_or_path` is not `base`.
    """
    from peft import PeftModel
    if not (adapter / "adapter_config.json").is_file():
        raise ExpStarError(f"{adapter}: no adapter there, expected adapter_config.json; train one with notebook 04a")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ExpStarError(f"{adapter}: no adapter_model.safetensors there, expected weights in that format (others can hold "
                           "code); convert them, or train one with notebook 04a")
    said = read_json(adapter / "adapter_config.json")
    if not isinstance(said, dict) or said.get("peft_type") != "LORA" or said.get("megatron_config"):
        raise ExpStarError(f"{adapter}: adapter_config.json is not of a LoRA adapter (`peft_type` LORA, no `megatron_config`); "
                           "train one with notebook 04a")
    made_for = said.get("base_model_name_or_path")
    if made_for != base:
        raise ExpStarError(f"{adapter}: made for base {made_for!r}, found base {base!r}; use the profile it was trained with")
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)


def tuned_adapter(run: Path, given: str = "") -> Path:
    """Folder of the adapter to use for a run.

    Args:
        given: a folder; "sft" or "dpo" for what notebook 04a or 04b trained in this run, "baseline" for 04a on baseline rows; ""
            for the later of the first two that is there; where neither is, the shipped one.

    Raises:
        ExpStarError: "dpo" or "baseline" was asked for and is not there.
    """
    if given and given not in TRAINED:
        return Path(given)
    trained = [run / TRAINED[name] / "adapter" for name in ([given] if given else ("dpo", "sft"))]
    if found := [folder for folder in trained if (folder / "base.json").is_file()]:
        return found[0]
    if given in ("dpo", "baseline"):
        notebook = "04b" if given == "dpo" else "04a"
        raise ExpStarError(f"{trained[0]}: no adapter there, expected that of notebook {notebook}; run it first, or choose sft")
    return SHIPPED / "adapter"


def tuned_tower(run: Path) -> Path | None:
    """The vision tower of a run, trained with captions (notebook 04a) or as 03 left it; None stands for the shipped one."""
    found = [path for stage in ("4_sft", "3_index") if (path := run / stage / "tower.safetensors").is_file()]
    return found[0] if found else None


def vision_config() -> Any:
    """SigLIP-shaped ViT of ExpStar-Tiny: 128 px frames, 16 px patches, 4.8M parameters."""
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
    return SmolVLMVisionConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4,
                               image_size=FRAME_PX, patch_size=PATCH_PX)


def tiny_tokenizer() -> Any:
    """SmolLM2's tokenizer with the picture placeholders that SmolVLM's processor needs (no control tokens)."""
    from transformers import AutoTokenizer
    folder = weights.find(TINY_TEXT)
    source = {"gguf_file": "model.gguf"} if (folder / "model.gguf").is_file() else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    tokenizer.pad_token = "<|endoftext|>"
    names = {"image_token": "<image>", "video_token": "<video>", "fake_image_token": "<fake_token_around_image>",
             "global_image_token": "<global-img>", "end_of_utterance_token": "<|im_end|>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(names.values())[:4]})
    for attribute, token in names.items():
        setattr(tokenizer, attribute, token)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def smolvlm_processor(tokenizer: Any, frame_px: int, image_seq_len: int, max_frames: int) -> ProcessorMixin:
    """SmolVLM's processor for square frames of one size, without splitting."""
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor
    size = {"longest_edge": frame_px}
    images = SmolVLMImageProcessor(size=size, max_image_size=size, do_image_splitting=False)
    videos = SmolVLMVideoProcessor(size=size, max_image_size=size, do_sample_frames=False,
                                   video_sampling={"max_frames": max_frames, "fps": 1, "video_size": size})
    return SmolVLMProcessor(image_processor=images, tokenizer=tokenizer, video_processor=videos,
                            image_seq_len=image_seq_len, chat_template=tokenizer.chat_template)


def trained_tower(path: Path | None = None) -> Path:
    """File of the trained vision tower; None names the shipped one.

    Raises:
        ExpStarError: it is not there.
    """
    path = path or SHIPPED / "tower.safetensors"
    if not path.is_file():
        raise ExpStarError(f"{path}: no such file, expected the trained vision tower; `make reproduce` trains it and "
                           "`make ship` puts it in its place")
    return path


def assembled_tiny(tower_file: Path | None = None) -> Path:
    """Folder of the assembled ExpStar-Tiny base; built once for each tower and kept in the cache until nobody used it for days.

    Args:
        tower_file: safetensors of the trained tower (notebook 03); None takes the shipped one.
    """
    tower_file = trained_tower(tower_file)
    recipe = tower_file.read_bytes() + CHAT_TEMPLATE.encode() + b"assembly 1"
    target = weights.cache_folder() / f"expstar-tiny-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            model, processor = assemble_tiny(load_file(tower_file))
            model.save_pretrained(Path(scratch) / "model")
            processor.save_pretrained(Path(scratch) / "model")
            try:
                os.replace(Path(scratch) / "model", target)
            except OSError:  # another process was first; a folder cannot take the place of one that is not empty
                if not target.is_dir():
                    raise
        others = (folder for folder in target.parent.glob("expstar-tiny-*") if folder != target)
        remove_unused(others, UNUSED_S)  # every trained tower makes one of half a gigabyte
    with suppress(OSError):  # of a cache that cannot be written to
        os.utime(target)
    return target


def assemble_tiny(tower: dict[str, torch.Tensor], seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """SmolVLM made of SmolLM2-135M, the tower's weights and an untrained connector (seeded).

    Args:
        tower: tensors named `vision_model.*`; others are ignored.
    """
    from transformers import AutoModelForCausalLM, SmolVLMConfig, SmolVLMForConditionalGeneration
    tokenizer = tiny_tokenizer()
    folder = weights.find(TINY_TEXT)
    if (folder / "model.gguf").is_file():
        from transformers import GgufConfig
        text = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32,
                                                    quantization_config=GgufConfig(dequantize=True))
    else:
        text = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    average = text.get_input_embeddings().weight.data[:49152].mean(0)
    text.get_input_embeddings().weight.data[49152:] = average
    text.config.pad_token_id = tokenizer.pad_token_id
    if hasattr(text.config, "quantization_config"):
        del text.config.quantization_config
    torch.manual_seed(seed)
    config = SmolVLMConfig(text_config=text.config.to_dict(), vision_config=vision_config().to_dict(), scale_factor=SCALE,
                           image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True)
    model = SmolVLMForConditionalGeneration(config)
    model.model.text_model.load_state_dict(text.model.state_dict())
    model.model.vision_model.load_state_dict(
        {k.removeprefix("vision_model."): v.float() for k, v in tower.items() if k.startswith("vision_model.")})
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokens_per_frame = (FRAME_PX // PATCH_PX) ** 2 // SCALE**2
    return model, smolvlm_processor(tokenizer, FRAME_PX, tokens_per_frame, max_frames=6)

"""Encoders of texts and clips behind one small protocol: MiniLM and its like, our tower, CLIP, EVA-CLIP, ViCLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from expstar_utils import weights
from expstar_utils.evaclip import load_evaclip
from expstar_utils.files import read_json
from expstar_utils.models import fast_dtype
from expstar_utils.records import ExpStarError
from expstar_utils.tower import Tower, encode_clips, load_tower
from expstar_utils.viclip import Viclip, ViclipConfig, load_viclip

EVA_CLIP_8B = "EVA-CLIP-8B"
TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 16 if not torch.cuda.is_available() else 128
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(Protocol):
    """Texts and clips as vectors, float32 [n, dimensions], each of length 1, whatever stood beside them in a batch.

    name: says model and preprocessing of texts; an index remembers it. sees: whether clips can be encoded, in the texts' space.
    """

    name: str
    dimensions: int
    sees: bool

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts; those too long for the model are cut at their end."""

    def encode_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors of clips, uint8 RGB [frames, height, width, 3] each, any number of frames and any size."""


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def _in_batches(items: Sequence[Any], encode: Callable[[list[Any]], np.ndarray], dimensions: int, batch: int = BATCH,
                size: Callable[[Any], int] = len) -> np.ndarray:
    """Vectors of items, in their order, encoded with others of like size (padding is what costs)."""
    order = sorted(range(len(items)), key=lambda i: -size(items[i]))
    vectors = np.zeros((len(items), dimensions), np.float32)
    for at in range(0, len(order), batch):
        rows = order[at:at + batch]
        vectors[rows] = encode([items[i] for i in rows])
    return vectors


@lru_cache(maxsize=2)
def _sentence_model(model: str, dtype: torch.dtype) -> Any:
    """A sentence-transformers model, shared by the encoders that use it.

    In bfloat16 the products alone are rounded (autocast): 0.982 of the embedded base's 496 titles find the same eight passages as
    in float32, as fast as with everything in bfloat16, where 0.960 do (`benchmarks.encode_kb`).
    """
    from sentence_transformers import SentenceTransformer
    device, mixed = "cuda" if torch.cuda.is_available() else "cpu", dtype == torch.bfloat16
    made = SentenceTransformer(str(weights.find(model)), device=device, model_kwargs={"dtype": torch.float32 if mixed else dtype})
    if mixed:
        made.encode = torch.autocast(device, dtype)(made.encode)
    return made


class TextEncoder:
    """Any sentence-transformers model: MiniLM (embedded), Contriever, BGE. Sees nothing."""

    sees = False

    def __init__(self, model: str = TEXT_ENCODER, dtype: str = "float32"):
        self._model = _sentence_model(model, fast_dtype(dtype))
        self.name, self.dimensions = f"text:{model}:{dtype}", self._model.get_embedding_dimension()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder`."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        vectors = self._model.encode(list(texts), batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)
        return _unit(vectors)

    def encode_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Refused: there is no eye."""
        raise ExpStarError(f"{self.name} encodes texts alone, found clips; choose `lit`, `clip`, `eva_clip` or `viclip` for them")


def encode_texts(texts: Sequence[str]) -> np.ndarray:
    """MiniLM's vectors of texts, float32 [n, 384], each of length 1: the embedded text encoder, loaded once."""
    return TextEncoder().encode_texts(texts)


class LitEncoder(TextEncoder):
    """Our tower, trained into MiniLM's space: the embedded retriever."""

    sees = True

    def __init__(self, tower: Path | str | None = None, dtype: str = "float32"):
        super().__init__(TEXT_ENCODER, dtype)
        self._tower: Tower = load_tower(Path(tower) if tower else None)  # texts do not pass it: the name stays that of the texts

    def encode_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """See `Encoder`; frames must be 128 x 128."""
        return encode_clips(self._tower, clips)


class ClipEncoder:
    """Any open_clip model, EVA-CLIP among them; a clip is the mean or the maximum of its frames' vectors.

    Args:
        model: open_clip's tag (`ViT-L-14`, `EVA02-E-14-plus`, `hf-hub:...`, `local-dir:...`).
        pretrained: its weights: open_clip's tag, a file, or "" for none (random ones, for tests).
        pool: "mean" or "max" over the frames.
    """

    sees = True

    def __init__(self, model: str = "ViT-B-32", pretrained: str = "", pool: str = "mean", dtype: str = "float32"):
        if pool not in ("mean", "max"):
            raise ExpStarError(f"pool is {pool!r}, expected 'mean' or 'max'; correct the profile")
        self._dtype, self._pool = fast_dtype(dtype), pool
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model, self._preprocess, self._tokens = self._loaded(model, pretrained)
        self._model.eval()
        self.name = f"clip:{model}:{pretrained}:{pool}:{dtype}"
        self.dimensions = self.encode_texts(["x"]).shape[1]

    def _loaded(self, model: str, pretrained: str) -> tuple[nn.Module, Callable, Callable]:
        """(model, frame -> pixels, texts -> tokens)."""
        import open_clip
        precision = {torch.bfloat16: "pure_bf16", torch.float16: "pure_fp16"}.get(self._dtype, "fp32")
        try:
            made = open_clip.create_model_and_transforms(model, pretrained or None, precision=precision, device=self._device)
            return made[0], made[2], open_clip.get_tokenizer(model)
        except (RuntimeError, FileNotFoundError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:120]
            raise ExpStarError(f"open_clip model {model!r} with weights {pretrained!r} cannot be had ({reason}); put the file "
                               "there, connect once so that it is fetched, or choose `lit`") from None

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder`."""
        parts = [_unit(self._model.encode_text(self._tokens(list(texts[at:at + BATCH])).to(self._device)))
                 for at in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimensions), np.float32)

    @torch.inference_mode()
    def encode_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """See `Encoder`."""
        return _in_batches(clips, self._encode_frames, self.dimensions, batch=8)

    def _encode_frames(self, clips: list[np.ndarray]) -> np.ndarray:
        from PIL import Image
        pixels = torch.stack([self._preprocess(Image.fromarray(frame)) for clip in clips for frame in clip])
        frames = nn.functional.normalize(self._model.encode_image(pixels.to(self._device, self._dtype)).float(), dim=-1)
        pooled = [part.mean(0) if self._pool == "mean" else part.amax(0) for part in frames.split([len(clip) for clip in clips])]
        return _unit(torch.stack(pooled))


class EvaClipEncoder(ClipEncoder):
    """open_clip's EVA models by their tags, and EVA-CLIP-8B, which it does not have, by the folder of its checkpoint.

    Args:
        model: open_clip's tag, or "EVA-CLIP-8B"; then `pretrained` is the folder of `BAAI/EVA-CLIP-8B`.
    """

    def _loaded(self, model: str, pretrained: str) -> tuple[nn.Module, Callable, Callable]:
        if model != EVA_CLIP_8B:
            return super()._loaded(model, pretrained)
        import open_clip
        made = load_evaclip(Path(pretrained), self._dtype).to(self._device)
        side = read_json(Path(pretrained) / "config.json")["vision_config"]["image_size"]
        tokens = open_clip.SimpleTokenizer(context_length=made.text_model.config.max_position_embeddings)
        return made, open_clip.image_transform(side, is_train=False), tokens


class ViclipEncoder:
    """ViCLIP: eight frames spread over the clip, 224 x 224, in ImageNet's colours.

    Args:
        checkpoint: the published *.pth; None makes random weights (for tests), then `config` gives the sizes.
    """

    sees = True

    def __init__(self, checkpoint: Path | str | None = None, config: ViclipConfig | None = None, dtype: str = "float32"):
        import open_clip
        config = config or ViclipConfig()
        self._model = (load_viclip(Path(checkpoint), config) if checkpoint else Viclip(config)).eval()
        self._dtype, self._device = fast_dtype(dtype), "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device, self._dtype)
        self._tokens = open_clip.SimpleTokenizer(context_length=config.tokens)
        self.name, self.dimensions = f"viclip:{checkpoint and Path(checkpoint).name}:{dtype}", config.dimensions

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder`."""
        def encode(part: list[str]) -> np.ndarray:
            return _unit(self._model.text_encoder(self._tokens(part).to(self._device)))
        return _in_batches(texts, encode, self.dimensions)

    @torch.inference_mode()
    def encode_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """See `Encoder`."""
        def encode(part: list[np.ndarray]) -> np.ndarray:
            pixels = torch.stack([self.pixels(clip) for clip in part]).to(self._device, self._dtype)
            return _unit(self._model.vision_encoder(pixels))
        return _in_batches(clips, encode, self.dimensions, batch=8)

    def pixels(self, clip: np.ndarray) -> torch.Tensor:
        """uint8 [frames, h, w, 3] -> float [3, frames, side, side] as the published code makes them: frames spread, scaled."""
        config = self._model.config
        rows = np.linspace(0, len(clip) - 1, config.frames).round().astype(int)
        frames = torch.from_numpy(clip[rows]).movedim(-1, 1).float() / 255
        frames = nn.functional.interpolate(frames, (config.frame_px, config.frame_px), mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return ((frames - mean) / std).movedim(1, 0)


ENCODERS: dict[str, Callable[..., Encoder]] = {
    "text": TextEncoder, "lit": LitEncoder, "clip": ClipEncoder, "eva_clip": EvaClipEncoder, "viclip": ViclipEncoder}


def load_encoder(name: str, **options: Any) -> Encoder:
    """Encoder by its name in a profile, with that class's options.

    Raises:
        ExpStarError: no such name or option, or its weights or its package cannot be had.
    """
    if name not in ENCODERS:
        raise ExpStarError(f"retriever {name!r} is not known, expected one of {sorted(ENCODERS)}; correct the profile")
    try:
        return ENCODERS[name](**options)
    except ImportError as error:
        raise ExpStarError(f"retriever {name!r} needs the package {error.name!r}; pip install -e '.[clip]'") from None
    except TypeError as error:
        raise ExpStarError(f"retriever {name!r}: {error}; correct its options in the profile") from None

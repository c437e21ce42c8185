"""Clips and passages in one space: MiniLM for text, the trained tower for frames, and an exact index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import bm25s
import faiss
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from expstar_utils import weights
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.models import FRAME_PX, trained_tower, vision_config
from expstar_utils.ranking import fused, hits
from expstar_utils.records import Passage, RetrievalResult

TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSIONS = 384
RANK_OFFSET = 9  # of the fused rankings; smaller than usual: the first few decide


@lru_cache(maxsize=2)
def _text_model(name: str):
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(weights.find(name)), device="cpu")


def encode_texts(texts: Sequence[str], name: str = TEXT_ENCODER, progress: bool = False) -> np.ndarray:
    """Embeddings of texts, float32 [n, 384], each of length 1."""
    if not texts:
        return np.zeros((0, DIMENSIONS), np.float32)
    return _text_model(name).encode(list(texts), normalize_embeddings=True, batch_size=32, show_progress_bar=progress)


class Tower(nn.Module):
    """SigLIP-shaped ViT whose pooled output lies in the text encoder's space.

    Its `vision_model` is, weight for weight, the vision tower of ExpStar-Tiny.
    """

    def __init__(self) -> None:
        super().__init__()
        config = vision_config()
        self.vision_model = SmolVLMVisionTransformer._from_config(config)
        self.norm = nn.BatchNorm1d(config.hidden_size)  # a clip differs little from its sister: centre before projecting
        self.projection = nn.Linear(config.hidden_size, DIMENSIONS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Clip embeddings.

        Args:
            pixels: float [clips, frames, 3, 128, 128], values -1..1.

        Returns:
            float [clips, 384], each of length 1.
        """
        clips, frames = pixels.shape[:2]
        flat = pixels.flatten(0, 1)
        side = FRAME_PX // self.vision_model.config.patch_size
        mask = torch.ones(len(flat), side, side, dtype=torch.bool)
        states = self.vision_model(pixel_values=flat, patch_attention_mask=mask).last_hidden_state
        pooled = states.float().mean(1).view(clips, frames, -1).mean(1)
        return nn.functional.normalize(self.projection(self.norm(pooled)), dim=-1)


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """uint8 [..., frames, 128, 128, 3] -> float [..., frames, 3, 128, 128] in -1..1, as the LMM's processor makes them."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1


def save_tower(tower: Tower, path: Path) -> Path:
    """Write the tower's weights (bf16 safetensors)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in tower.state_dict().items()}, path)
    return path


def load_tower(path: Path | None = None) -> Tower:
    """The trained tower (default: the shipped one), in float32 and ready to encode."""
    tower = Tower()
    tower.load_state_dict({k: v.float() for k, v in load_file(trained_tower(path)).items()})
    return tower.eval()


@torch.inference_mode()
def encode_clips(tower: Tower, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings of clips (uint8 [frames, 128, 128, 3] each, any number of frames), float32 [n, 384], length 1."""
    vectors = [tower(to_pixels(frames)[None]).numpy() for frames in clips]
    return np.concatenate([np.zeros((0, DIMENSIONS), np.float32), *vectors])


def fuse(text: np.ndarray, video: np.ndarray | None, text_weight: float = 0.3, video_weight: float = 0.7) -> np.ndarray:
    """Query vectors from text and video in one space, float32 [n, 384], length 1 (paper: text 0.3, video 0.7)."""
    mixed = text if video is None else text_weight * text + video_weight * video
    return (mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)).astype(np.float32)


def _words(texts: Sequence[str]) -> list[list[str]]:
    return bm25s.tokenize(list(texts), stopwords=None, show_progress=False, return_ids=False)


def content_hash(passages: Sequence[Passage]) -> str:
    """sha256 of ids, titles and texts: says which knowledge base a frozen result came from."""
    content = "\x00".join(f"{p.id}\x01{p.title}\x01{p.text}" for p in passages)
    return hashlib.sha256(f"{TEXT_ENCODER}\x00{content}".encode()).hexdigest()


class Index:
    """Exact inner-product search over passages.

    Args:
        passages: what can be found.
        vectors: float32 [n, 384] of length 1; None encodes title and text of the passages.
    """

    def __init__(self, passages: Sequence[Passage], vectors: np.ndarray | None = None):
        self.passages = list(passages)
        self.vectors = encode_texts([f"{p.title}. {p.text}" for p in passages]) if vectors is None else vectors
        self._flat = faiss.IndexFlatIP(DIMENSIONS)
        self._flat.add(np.ascontiguousarray(self.vectors, np.float32))
        self._lexical = bm25s.BM25()
        self._lexical.index(_words([f"{p.title}. {p.text}" for p in passages]), show_progress=False)

    @classmethod
    def cached(cls, passages: Sequence[Passage]) -> Index:
        """Index over passages whose vectors are kept in the cache folder by content: encoded once a machine."""
        digest = content_hash(passages)[:16]
        path = weights.cache_folder() / f"index-{digest}.npy"
        if path.is_file():
            return cls(passages, np.load(path, allow_pickle=False))
        index = cls(passages)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with open(unfinished, "wb") as file:
            np.save(file, index.vectors)
        os.replace(unfinished, path)
        return index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float [n, k] and passage positions int [n, k], best first; k is capped at the number of passages."""
        return self._flat.search(np.ascontiguousarray(queries, np.float32), min(k, len(self.passages)))

    def hybrid(self, texts: Sequence[str], queries: np.ndarray, k: int, lexical_weight: float = 0.8) -> np.ndarray:
        """Passage positions int [n, k], best first, by weighted reciprocal-rank fusion of BM25 and vector search.

        Sister passages differ in a word or two that vectors hardly tell apart; BM25 sees the words, vectors the picture.

        Args:
            texts: what BM25 searches. queries: what the vectors are compared with, float [n, 384].
            lexical_weight: of BM25, 0-1; the vectors have the rest. Source of the fusion: Cormack et al., SIGIR 2009.
        """
        k, everything = min(k, len(self.passages)), len(self.passages)
        _, by_vector = self.search(queries, everything)
        weights, rows = [lexical_weight, 1 - lexical_weight], []
        for words, near in zip(_words(texts), by_vector.tolist(), strict=True):
            by_words = np.argsort(-self._lexical.get_scores(words), kind="stable").tolist()
            rows.append(fused([by_words, near], weights, RANK_OFFSET)[:k])
        return np.array(rows, np.int64).reshape(len(texts), k)

    def without(self, ids: set[str]) -> Index:
        """The same index without some passages (those held out from training)."""
        keep = [i for i, p in enumerate(self.passages) if p.id not in ids]
        return Index([self.passages[i] for i in keep], self.vectors[keep])


def retrieve(index: Index, query_ids: Sequence[str], queries: Sequence[str], clips: Sequence, places: np.ndarray,
             grades: Sequence[dict[str, int]] | None = None) -> list[RetrievalResult]:
    """What was found for every query, in the published retrieval format.

    Args:
        clips: path or virtual clip of each query. places: positions of the passages found, int [n, k], best first.
        grades: for each query passage id -> relevance 1-5; ids that are not there get 1; None leaves documents ungraded.
    """
    results = []
    for i, row in enumerate(places):
        documents = [index.passages[j].to_dict() for j in row]
        if grades is not None:
            documents = [d | {"relevant": grades[i].get(d["id"], 1)} for d in documents]
        clip = clips[i] if isinstance(clips[i], str) else clips[i].to_dict()
        results.append(RetrievalResult.model_validate(
            {"id": query_ids[i], "query": queries[i], "video_path": clip, "is_rag": True, "documents": documents}))
    return results


def make_retriever(tower: Tower | None, index: Index, text_weight: float, video_weight: float, lexical_weight: float):
    """Function (text query, words, frames, k) -> passages, best first: words, and the vectors of text and clip together.

    Args:
        tower: video encoder; None leaves the clip out of the query.
    """
    def find(query: str, words: str, frames, k: int) -> list[Passage]:
        """The k best passages for one clip and what was narrated."""
        text = encode_texts([query])
        video = encode_clips(tower, [frames.pixels]) if tower is not None else None
        places = index.hybrid([words], fuse(text, video, text_weight, video_weight), k, lexical_weight)
        return [index.passages[i] for i in places[0]]
    return find


def guess_subject(index: Index, title: str) -> str:
    """Subject whose passages lie nearest to a title (passage ids begin with their subject)."""
    _, places = index.search(encode_texts([title]), 9)
    subjects = [index.passages[i].id.split("-")[0] for i in places[0] if not is_hazard_card(index.passages[i])]
    return max(subjects, key=subjects.count) if subjects else "science"


def recall_at(results: Sequence[RetrievalResult], gold: Sequence[set[str]], k: int) -> float:
    """Share of queries with at least one gold passage among the first k (queries without gold are left out)."""
    found = hits([[d.id for d in r.documents] for r in results], gold, k)
    return float(found.mean()) if len(found) else float("nan")

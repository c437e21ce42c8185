"""One search over passages: by words, or by vectors of what is read and seen, added where they share a space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import bm25s
import numpy as np

from expstar_utils.datasets import Case
from expstar_utils.encoders import Encoder
from expstar_utils.files import replacing
from expstar_utils.nearest import Nearest
from expstar_utils.profiles import RetrieverPart
from expstar_utils.records import ExpStarError, Passage, Problem


@dataclass(frozen=True)
class Query:
    """What is known of a step when it asks: title, narration, and frames of its clip (uint8 RGB [frames, height, width, 3])."""

    title: str = ""
    narration: str = ""
    clip: np.ndarray | None = None

    @classmethod
    def of(cls, case: Case, clip: np.ndarray | None = None) -> Query:
        """The query of a case and its clip."""
        return cls(case.title, " ".join(case.narration), clip)

    def text(self, fields: Sequence[str]) -> str:
        """Title, narration, or both; the title where nothing of that is there."""
        said = {"title": self.title, "narration": self.narration}
        return ". ".join(said[name] for name in ("title", "narration") if name in fields and said[name]) or self.title


class LazyQueries(Sequence[Query]):
    """Queries of cases whose clips are read when they are asked for; one that cannot be read is left out of its query.

    Args:
        frames: a case's clip, uint8 RGB [frames, height, width, 3].
    """

    def __init__(self, cases: Sequence[Case], frames: Callable[[Case], np.ndarray]):
        self._cases, self._frames = cases, frames

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, position: int) -> Query:
        return Query.of(self._cases[position], read_clip(self._cases[position], self._frames, lambda _: None))


class Search(Protocol):
    """One way to find passages; `about` says in a few words what is searched."""

    about: str

    def rank(self, queries: Sequence[Query], k: int) -> np.ndarray:
        """Positions of passages int [q, k], best first; -1 where there are no more."""


def best_first(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest of one row of scores; equal ones in their order."""
    k = min(k, len(scores))
    top = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else np.arange(len(scores))
    return top[np.lexsort((top, -scores[top]))]


class WordSearch:
    """BM25 over titles and texts (`bm25s`), asked with title and narration as the profile says."""

    def __init__(self, passages: Sequence[Passage], part: RetrieverPart, folder: Path | None = None):
        self.part, self.about = part, f"BM25 of {len(passages)} passages"
        if folder is not None and (folder / "params.index.json").is_file():
            self._index = bm25s.BM25.load(str(folder), mmap=True)
            return
        self._index = bm25s.BM25()
        self._index.index(_words([f"{p.title}. {p.text}" for p in passages]), show_progress=False)
        if folder is not None:
            with replacing(folder) as unfinished:
                self._index.save(str(unfinished))

    def rank(self, queries: Sequence[Query], k: int) -> np.ndarray:
        """See `Search`."""
        texts = _words([query.text(self.part.query) for query in queries])
        return np.array([best_first(self._index.get_scores(words), k) for words in texts], np.int64).reshape(len(queries), -1)


def _words(texts: Sequence[str]) -> list[list[str]]:
    return bm25s.tokenize(list(texts), stopwords=None, show_progress=False, return_ids=False)


def encode_queries(encoder: Encoder, part: RetrieverPart, queries: Sequence[Query]) -> np.ndarray:
    """Vectors of queries, float32 [q, d], each of length 1; zeros where a clip alone is asked with and there is none."""
    mixed = np.zeros((len(queries), encoder.dimensions), np.float32)
    seen = [i for i, q in enumerate(queries) if q.clip is not None] if encoder.sees and "clip" in part.query else []
    if set(part.query) - {"clip"} and queries:
        mixed += part.text * encoder.encode_texts([q.text(part.query) for q in queries])
    if seen:
        mixed[seen] += part.video * encoder.encode_clips([queries[i].clip for i in seen])
    return mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-9)


class VectorSearch:
    """Nearest vectors of one encoder; a clip and a text that share its space are added with the part's weights."""

    def __init__(self, encoder: Encoder, nearest: Nearest, part: RetrieverPart):
        self.encoder, self.nearest, self.part = encoder, nearest, part
        self.about = f"{nearest.manifest.kind}, {nearest.manifest.count} vectors of {encoder.dimensions}, {encoder.name}"

    def encode(self, queries: Sequence[Query]) -> np.ndarray:
        """See `encode_queries`."""
        return encode_queries(self.encoder, self.part, queries)

    def scored(self, queries: Sequence[Query], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines float32 [q, k] and positions of passages int64 [q, k], best first; -1 for a query without a vector."""
        asked = self.encode(queries)
        scores, rows = self.nearest.search(asked, k)
        return scores, np.where(asked.any(1, keepdims=True), rows, -1)

    def rank(self, queries: Sequence[Query], k: int) -> np.ndarray:
        """See `Search`."""
        return self.scored(queries, k)[1]


def read_clip(case: Case, frames: Callable[[Case], np.ndarray], report: Callable[[Problem], None]) -> np.ndarray | None:
    """A case's clip; None, and a problem reported, where it cannot be read."""
    try:
        return frames(case)
    except ExpStarError as error:
        report(Problem(file=case.id, field="clip", found=f"unreadable ({error})", expected="a clip to ask with",
                       todo="mend it and retrieve again; it was asked with words alone"))
        return None

"""Nearest vectors among hundreds or millions: all compared where they are few, a tuned FAISS index where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from expstar_utils.files import read_json, replacing, write_json
from expstar_utils.records import ExpStarError

KINDS = ("flat", "hnsw", "ivf_sq", "ivf_pq")
FEW, MANY = 50_000, 5_000_000  # vectors up to which all are compared; from which on they are stored as product codes
LINKS, BUILD_DEPTH = 32, 80  # of HNSW: neighbours of a vector, candidates while building
TRAIN_PER_CELL = 40  # vectors for each of IVF's cells, of which its k-means learns
RESCORED = 8  # coarse candidates for each result of a compressed index, whose exact score decides
SECTION = 100_000  # vectors in memory at a time
MANIFEST, ANN = "manifest.json", "index.faiss"


@dataclass(frozen=True)
class Manifest:
    """What an index is of: encoder (model and preprocessing, see `encoders.Encoder`), passages by hash, and how it was tuned.

    effort: IVF's cells that are looked through (nprobe) or HNSW's candidates (efSearch); 0 where nothing is to be tuned.
    recall: share of the exact nearest `k` that the tuning's queries got back.
    """

    encoder: str
    passages_sha256: str
    count: int
    dimensions: int
    kind: str
    effort: int = 0
    recall: float = 1.0


def kind_for(count: int) -> str:
    """Kind of index for so many vectors: exact up to FEW, HNSW while there is memory for it, compressed cells beyond."""
    return "flat" if count <= FEW else "hnsw" if count <= MANY // 5 else "ivf_sq" if count <= MANY else "ivf_pq"


def check_vectors(vectors: np.ndarray, name: str, ids: Sequence[str] | None = None) -> None:
    """Raises ExpStarError for the first vector that holds NaN or infinity or is not of length 1; `ids` names its passage."""
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 0.02))
    if len(wrong):
        of = f"vector {wrong[0]}" + (f" of {ids[wrong[0]]!r}" if ids else "")
        raise ExpStarError(f"{name}: {of} has length {lengths[wrong[0]]:g}, expected 1; encode that passage again")


def sections(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, float32 rows) of a large array on disk, some in memory at a time."""
    for at in range(0, len(vectors), SECTION):
        yield at, np.ascontiguousarray(vectors[at:at + SECTION], np.float32)


def exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 [q, k] and rows int64 [q, k] by comparing everything, best first; vectors may lie on disk.

    On a GPU in half precision, and the exact scores of RESCORED times as many decide.
    """
    k = min(k, len(vectors))
    if torch.cuda.is_available():
        return rescored(vectors, queries, exact_torch(vectors, queries, min(RESCORED * k, len(vectors)), "cuda"), k)
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for at, part in sections(vectors):
        scores, rows = faiss.knn(np.ascontiguousarray(queries, np.float32), part, min(k, len(part)), faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows + at)
    heap.finalize()
    return heap.D, heap.I


def exact_torch(vectors: np.ndarray, queries: np.ndarray, k: int, device: str) -> np.ndarray:
    """Rows int64 [q, k] of the nearest, best first, compared in float16 on a device, a section at a time."""
    asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(device, torch.float16)
    best = torch.full((len(queries), k), -torch.inf, device=device)
    rows = torch.full((len(queries), k), -1, device=device)
    for at in range(0, len(vectors), SECTION):
        part = torch.from_numpy(np.array(vectors[at:at + SECTION], np.float16)).to(device)
        scores, found = (asked @ part.T).float().topk(min(k, len(part)), dim=1)
        best, order = torch.cat([best, scores], 1).topk(k, dim=1)
        rows = torch.cat([rows, found + at], 1).gather(1, order)
    return rows.cpu().numpy()


def rescored(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k of every query's candidates int [q, m] by their exact vectors; missing candidates are -1."""
    scores = np.full(rows.shape, -np.inf, np.float32)
    for i, (query, its) in enumerate(zip(queries, rows, strict=True)):
        there = its >= 0
        scores[i, there] = vectors[its[there]].astype(np.float32) @ query
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _empty(kind: str, dimensions: int, count: int) -> faiss.Index:
    cells = int(2 ** np.round(np.log2(max(4 * np.sqrt(count), 4))))
    codes = next(m for m in (dimensions // 8, dimensions // 4, dimensions // 2, dimensions) if m and dimensions % m == 0)
    factory = {"flat": "Flat", "hnsw": f"HNSW{LINKS},Flat", "ivf_sq": f"IVF{cells}_HNSW{LINKS},SQ8",
               "ivf_pq": f"IVF{cells}_HNSW{LINKS},PQ{codes}"}
    index = faiss.index_factory(dimensions, factory[kind], faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = BUILD_DEPTH
    return index


def build(vectors: np.ndarray, folder: Path, encoder: str, passages_sha256: str, kind: str | None = None,
          queries: np.ndarray | None = None, target: float = 0.95, k: int = 8, seed: int = 42) -> Manifest:
    """Build the index of an array of vectors and tune it; written whole or not at all.

    Args:
        vectors: float16 or float32 [n, d] of length 1; may lie on disk (`np.load(..., mmap_mode="r")`).
        kind: one of KINDS; None chooses by their number.
        queries: float32 [q, d], held out and of the kind that will be asked (clips, where clips ask): texts lie elsewhere.
        target: recall of the exact k nearest that is tuned for, 0-1.

    Raises:
        ExpStarError: no vectors, vectors that are not of length 1, an unknown kind, a full disk.
    """
    if not len(vectors):
        raise ExpStarError(f"{folder}: no vectors to index, expected some; build the knowledge base first")
    kind = kind or kind_for(len(vectors))
    if kind not in KINDS:
        raise ExpStarError(f"index kind {kind!r} is not known, expected one of {KINDS}; correct the profile")
    index = _empty(kind, vectors.shape[1], len(vectors))
    if not index.is_trained:
        if hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus():  # k-means is what takes long
            cells = faiss.extract_index_ivf(index)
            cells.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(cells.d))
        wanted = min(len(vectors), TRAIN_PER_CELL * faiss.extract_index_ivf(index).nlist)
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False))
        index.train(np.ascontiguousarray(vectors[rows], np.float32))
    for at, part in sections(vectors):
        check_vectors(part, f"{folder}, from {at}")
        index.add(part)
    found = Nearest(index, vectors, Manifest(encoder, passages_sha256, len(vectors), vectors.shape[1], kind))
    manifest = found.tune(queries, target, k) if queries is not None and kind != "flat" else found.manifest
    with replacing(Path(folder) / ANN) as unfinished:
        try:
            faiss.write_index(index, str(unfinished))
        except RuntimeError as error:
            raise ExpStarError(f"{folder}: the index cannot be written ({str(error).splitlines()[0][:80]}); free space or choose "
                               "another folder") from error
    write_json(Path(folder) / MANIFEST, asdict(manifest))
    return manifest


def _differing(manifest: Manifest, vectors: np.ndarray, encoder: str, passages_sha256: str) -> list[tuple[str, Any]]:
    """What an index should be of and is not: (name, expected value)."""
    wanted = {"encoder": encoder, "passages_sha256": passages_sha256, "count": len(vectors), "dimensions": vectors.shape[1]}
    return [(name, value) for name, value in wanted.items() if getattr(manifest, name) != value]


def is_of(folder: Path, vectors: np.ndarray, encoder: str, passages_sha256: str) -> bool:
    """Whether there is an index in a folder, of these vectors, this encoder and these passages."""
    path = Path(folder) / MANIFEST
    return path.is_file() and not _differing(Manifest(**read_json(path)), vectors, encoder, passages_sha256)


def in_memory(vectors: np.ndarray, encoder: str, passages_sha256: str) -> Nearest:
    """Exact search over vectors that are few enough to stay in memory; nothing is written."""
    check_vectors(vectors, encoder)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return Nearest(index, vectors, Manifest(encoder, passages_sha256, len(vectors), vectors.shape[1], "flat"))


class Nearest:
    """An index that answers; compressed ones are asked for more than is wanted, and the exact vectors decide."""

    def __init__(self, index: faiss.Index, vectors: np.ndarray, manifest: Manifest):
        self.index, self.vectors, self.manifest = index, vectors, manifest
        self.exert(manifest.effort)

    @classmethod
    def opened(cls, folder: Path, vectors: np.ndarray, encoder: str, passages_sha256: str) -> Nearest:
        """The index in a folder, if it is of this encoder and these passages.

        Raises:
            ExpStarError: none there, cut short, or of another model, other passages, other vectors; says which.
        """
        manifest = Manifest(**read_json(Path(folder) / MANIFEST))
        if wrong := _differing(manifest, vectors, encoder, passages_sha256):
            name, value = wrong[0]
            raise ExpStarError(f"{folder}: {name} is {getattr(manifest, name)!r}, expected {value!r}; build the index anew")
        try:
            index = faiss.read_index(str(Path(folder) / ANN), faiss.IO_FLAG_MMAP if manifest.kind.startswith("ivf") else 0)
        except RuntimeError as error:
            raise ExpStarError(f"{folder}: {ANN} cannot be read ({str(error).splitlines()[-1][:80]}), expected an index; build "
                               "it anew") from None
        if (index.ntotal, index.d) != (manifest.count, manifest.dimensions):
            raise ExpStarError(f"{folder}: {ANN} holds {index.ntotal} vectors of {index.d}, expected {manifest.count} of "
                               f"{manifest.dimensions}; build it anew")
        return cls(index, vectors, manifest)

    def exert(self, effort: int) -> None:
        """Set how much is looked through: nprobe or efSearch."""
        if effort and self.manifest.kind == "hnsw":
            self.index.hnsw.efSearch = effort
        elif effort and self.manifest.kind.startswith("ivf"):
            faiss.extract_index_ivf(self.index).nprobe = effort

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [q, k] and rows int64 [q, k], best first; k is capped at the number of vectors."""
        queries, k = np.ascontiguousarray(queries, np.float32), min(k, len(self.vectors))
        if self.manifest.kind == "flat" and torch.cuda.is_available():
            return exact(self.vectors, queries, k)
        if not self.manifest.kind.startswith("ivf"):
            return self.index.search(queries, k)
        _, rows = self.index.search(queries, min(RESCORED * k, len(self.vectors)))
        return rescored(self.vectors, queries, rows, k)

    def recall(self, queries: np.ndarray, truth: np.ndarray) -> float:
        """Share of the exact nearest rows, int [q, k], that come back."""
        _, rows = self.search(queries, truth.shape[1])
        return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows.tolist(), truth.tolist(), strict=True)]))

    def tune(self, queries: np.ndarray, target: float, k: int) -> Manifest:
        """Take the smallest effort, of powers of 2, that reaches the target on these queries."""
        _, truth = exact(self.vectors, queries, min(k, len(self.vectors)))
        most = faiss.extract_index_ivf(self.index).nlist if self.manifest.kind.startswith("ivf") else 4096
        least = k if self.manifest.kind == "hnsw" else 1
        for effort in (2**i for i in range(int(np.log2(most)) + 1) if 2**i >= least):
            self.exert(effort)
            if (reached := self.recall(queries, truth)) >= target:
                break
        known: dict[str, Any] = asdict(self.manifest) | {"effort": effort, "recall": round(reached, 4)}
        self.manifest = Manifest(**known)
        return self.manifest

"""The nearest 8 of a million vectors of 512: ours an index tuned to a recall, theirs exact comparison with all of them.

The vectors lie in clusters of low dimension, as real embeddings do; the queries come from the other modality: around the same
clusters, but spread wider and shifted aside. The index is tuned on other queries than those that it is measured on.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from benchmarks.timing import in_turn, options, report
from expstar_utils import nearest

COUNT, DIMENSIONS, CLUSTERS, INNER = 1_000_000, 512, 20_000, 48
QUERIES, K, TARGET = 1000, 8, 0.96


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def corpus(path: Path, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(vectors on disk [count, DIMENSIONS], queries [2 QUERIES, DIMENSIONS])."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(INNER, DIMENSIONS)).astype(np.float32) / np.sqrt(INNER)
    centres = rng.normal(size=(CLUSTERS, INNER)).astype(np.float32)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, DIMENSIONS))
    for at in range(0, count, 50_000):
        n = min(50_000, count - at)
        inner = centres[rng.integers(0, CLUSTERS, n)] + 0.5 * rng.normal(size=(n, INNER)).astype(np.float32)
        vectors[at:at + n] = unit(inner @ spread + 0.15 * rng.normal(size=(n, DIMENSIONS)).astype(np.float32))
    aside = 0.5 * rng.normal(size=DIMENSIONS)
    inner = centres[rng.integers(0, CLUSTERS, 2 * QUERIES)] + 0.8 * rng.normal(size=(2 * QUERIES, INNER))
    return vectors, unit(inner @ spread + 0.25 * rng.normal(size=(2 * QUERIES, DIMENSIONS)) + aside)


def main() -> None:
    """Build, tune, run both and report."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--kind", choices=nearest.KINDS, default="hnsw")
    given = parser.parse_args()
    say = (lambda _: None) if given.json else print
    with tempfile.TemporaryDirectory() as folder:
        vectors, queries = corpus(Path(folder) / "vectors.npy", given.count)
        tuning, asked = queries[:QUERIES], queries[QUERIES:]
        started = time.perf_counter()
        made = nearest.build(vectors, Path(folder) / "index", "made up", "", given.kind, tuning, TARGET, K)
        build_s = time.perf_counter() - started
        size = (Path(folder) / "index" / nearest.ANN).stat().st_size
        found = nearest.Nearest.opened(Path(folder) / "index", vectors, "made up", "")
        say(f"built in {build_s:.0f} s, effort {made.effort}, recall while tuning {made.recall}")
        flat = faiss.IndexFlatIP(DIMENSIONS)
        for _, part in nearest.sections(vectors):
            flat.add(part)
        truth = flat.search(asked, K)[1]
        recall = found.recall(asked, truth)
        medians = in_turn({"ours": lambda: found.search(asked, K), "theirs": lambda: flat.search(asked, K)}, given.runs, say)
        report("search", medians, given.runs, vectors=given.count, kind=made.kind, effort=made.effort,
               recall_at_8=round(recall, 4), build_s=round(build_s, 1), bytes_a_vector=round(size / given.count, 1),
               peak_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2))


if __name__ == "__main__":
    main()

"""Nearest vectors: exact where all are compared, near it after tuning, refused where they belong to something else."""

import numpy as np
import pytest
import torch

from expstar_utils import nearest
from expstar_utils.nearest import KINDS, Nearest, build, exact, exact_torch, kind_for, rescored
from expstar_utils.records import ExpStarError

COUNT, DIMENSIONS = 3000, 32


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus():
    """(vectors in clusters, queries from beside them), as texts and clips lie."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, DIMENSIONS))
    vectors = unit(centres[rng.integers(0, 60, COUNT)] + 0.5 * rng.normal(size=(COUNT, DIMENSIONS)))
    aside = 0.5 * rng.normal(size=DIMENSIONS)
    queries = unit(centres[rng.integers(0, 60, 200)] + 0.6 * rng.normal(size=(200, DIMENSIONS)) + aside)
    return vectors, queries


def brute(vectors, queries, k):
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def test_exact_search_is_that_of_a_matrix_product_in_sections_from_disk(corpus, tmp_path, monkeypatch):
    vectors, queries = corpus
    monkeypatch.setattr(nearest, "SECTION", 700)
    np.save(tmp_path / "vectors.npy", vectors)
    scores, rows = exact(np.load(tmp_path / "vectors.npy", mmap_mode="r"), queries, 8)
    np.testing.assert_array_equal(rows, brute(vectors, queries, 8))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)


def test_half_precision_on_a_device_finds_the_exact_ones_among_a_few_more(corpus, monkeypatch):
    vectors, queries = corpus
    monkeypatch.setattr(nearest, "SECTION", 700)
    candidates = exact_torch(vectors, queries, 16, "cpu")
    scores, rows = rescored(vectors, queries, candidates, 8)
    np.testing.assert_array_equal(rows, brute(vectors, queries, 8))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_searches_exactly(corpus):
    vectors, queries = corpus
    np.testing.assert_array_equal(exact(vectors, queries, 8)[1], brute(vectors, queries, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_tuned_to_its_target_and_opens_again(corpus, tmp_path, kind):
    vectors, queries = corpus
    made = build(vectors, tmp_path, "minilm", "abc", kind, queries[:100], target=0.95)
    assert made.recall >= 0.95
    assert (made.effort == 0) == (kind == "flat")
    found = Nearest.opened(tmp_path, vectors, "minilm", "abc")
    assert found.manifest == made
    truth = brute(vectors, queries[100:], 8)
    assert found.recall(queries[100:], truth) >= 0.9
    scores, rows = found.search(queries[100:], 8)
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores, np.take_along_axis(queries[100:] @ vectors.T, rows, 1), atol=1e-5)


def test_more_effort_is_taken_for_a_higher_target(corpus, tmp_path):
    vectors, queries = corpus
    efforts = [build(vectors, tmp_path / str(target), "m", "a", "ivf_sq", queries, target).effort for target in (0.5, 0.99)]
    assert efforts[0] < efforts[1]


def test_codes_alone_would_do_worse_than_the_exact_vectors_that_decide(corpus, tmp_path):
    vectors, queries = corpus
    build(vectors, tmp_path, "m", "a", "ivf_pq", queries, target=1.0)
    found, truth = Nearest.opened(tmp_path, vectors, "m", "a"), brute(vectors, queries, 8)
    _, coarse = found.index.search(queries, 8)
    by_codes = np.mean([len(set(a) & set(b)) / 8 for a, b in zip(coarse.tolist(), truth.tolist())])
    assert found.recall(queries, truth) > by_codes + 0.02


def test_the_same_seed_gives_the_same_bytes(corpus, tmp_path):
    vectors, queries = corpus
    files = []
    for name in ("one", "two"):
        build(vectors, tmp_path / name, "m", "a", "ivf_sq", queries)
        files.append((tmp_path / name / nearest.ANN).read_bytes())
    assert files[0] == files[1]


def test_kind_follows_the_number():
    assert [kind_for(n) for n in (300, 50_000, 50_001, 1_000_000, 4_000_000, 30_000_000)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf_sq", "ivf_pq"]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_there_are_gives_all_of_them(tmp_path, kind):
    vectors = unit(np.random.default_rng(0).normal(size=(300, 16)))
    build(vectors, tmp_path, "m", "a", kind, vectors[:20], target=1.0)
    scores, rows = Nearest.opened(tmp_path, vectors, "m", "a").search(vectors[:3], 1000)
    assert scores.shape == rows.shape == (3, 300)
    assert rows[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("change", "said"), [
    ({"encoder": "clip"}, "encoder is 'minilm', expected 'clip'"), ({"passages": "other"}, "passages_sha256 is 'abc'"),
    ({"vectors": slice(0, 100)}, "count is 3000, expected 100")])
def test_an_index_of_something_else_is_refused(corpus, tmp_path, change, said):
    vectors, _ = corpus
    build(vectors, tmp_path, "minilm", "abc")
    rows = change.get("vectors", slice(None))
    with pytest.raises(ExpStarError, match=said):
        Nearest.opened(tmp_path, vectors[rows], change.get("encoder", "minilm"), change.get("passages", "abc"))


def test_a_damaged_index_is_named(corpus, tmp_path):
    vectors, _ = corpus
    build(vectors, tmp_path, "m", "a")
    (tmp_path / nearest.ANN).write_bytes(b"no index at all")
    with pytest.raises(ExpStarError, match=r"index\.faiss cannot be read"):
        Nearest.opened(tmp_path, vectors, "m", "a")
    build(vectors[:500], tmp_path / "other", "m", "a")
    (tmp_path / "other" / nearest.ANN).replace(tmp_path / nearest.ANN)
    with pytest.raises(ExpStarError, match="holds 500 vectors of 32, expected 3000"):
        Nearest.opened(tmp_path, vectors, "m", "a")
    (tmp_path / nearest.MANIFEST).unlink()
    with pytest.raises(ExpStarError, match=r"manifest\.json: no such file"):
        Nearest.opened(tmp_path, vectors, "m", "a")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 3.0])
def test_vectors_that_are_no_unit_vectors_are_refused(corpus, tmp_path, bad):
    vectors = corpus[0].copy()
    vectors[17] *= bad
    with pytest.raises(ExpStarError, match="vector 17 has length"):
        build(vectors, tmp_path, "m", "a")
    assert not (tmp_path / nearest.ANN).exists()


@pytest.mark.parametrize(("vectors", "kind", "said"), [
    (np.zeros((0, 8), np.float32), None, "no vectors"), (unit(np.eye(8) + 0.1), "annoy", "index kind 'annoy'")])
def test_nothing_and_unknown_kinds_are_refused(tmp_path, vectors, kind, said):
    with pytest.raises(ExpStarError, match=said):
        build(vectors, tmp_path, "m", "a", kind)

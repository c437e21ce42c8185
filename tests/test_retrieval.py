"""Retrieval: words and vectors find what they should, one space is added, ranks are fused, and sisters make room for others."""

import numpy as np
import pytest

from expstar_utils import retrieval
from expstar_utils.datasets import Case
from expstar_utils.nearest import in_memory
from expstar_utils.profiles import RetrieverPart, load_profile
from expstar_utils.records import ExpStarError, Passage
from expstar_utils.retrieval import Retriever, open_retriever
from expstar_utils.searches import LazyQueries, Query, VectorSearch, WordSearch, best_first

PASSAGES = [Passage(id=f"{name}-1", title=title, text=text) for name, title, text in (
    ("optics", "Convex lens", "A convex lens brings parallel light together in its focus."),
    ("chemistry", "Copper", "Copper salts turn a flame green."),
    ("chemistry", "Sodium", "Sodium salts turn a flame yellow."),
    ("civil", "Concrete", "Concrete grows strong as cement takes up water."))]


class Axes:
    """An encoder of three axes: each word below has its own; a clip of brightness n lies on axis n."""

    name, dimensions, sees = "axes", 4, True
    words = ("lens", "copper", "sodium", "concrete")

    def encode_texts(self, texts):
        rows = np.array([[1e-3 + (word in text.lower()) for word in self.words] for text in texts], np.float32)
        return rows.reshape(-1, 4) / np.linalg.norm(rows.reshape(-1, 4), axis=1, keepdims=True)

    def encode_clips(self, clips):
        return np.eye(4, dtype=np.float32)[[int(clip.max()) for clip in clips]].reshape(-1, 4)


def vectors(**part):
    encoder = Axes()
    return VectorSearch(encoder, in_memory(encoder.encode_texts([p.text for p in PASSAGES]), "axes", ""), RetrieverPart(**(
        {"name": "lit"} | part)))


def clip(axis):
    return np.full((2, 8, 8, 3), axis, np.uint8)


def case(number, narration, video="v.mp4"):
    return Case.model_validate({"id": f"c{number}", "experiment": "e", "subject": "chemistry", "title": "A flame",
                                "step_number": 1, "clip": video, "summary": "", "narration": narration})


# Queries

@pytest.mark.parametrize(("fields", "said"), [
    (("title",), "A flame"), (("narration",), "It is green."), (("title", "narration", "clip"), "A flame. It is green.")])
def test_a_query_says_what_it_is_asked_for(fields, said):
    assert Query("A flame", "It is green.").text(fields) == said


def test_where_nothing_was_narrated_the_title_asks():
    assert Query("A flame", "").text(("narration",)) == "A flame"


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_the_best_come_first_and_equal_ones_in_their_order(k):
    scores = np.array([0.2, 0.9, 0.5, 0.9, 0.1])
    assert best_first(scores, k).tolist() == [1, 3, 2, 0, 4][:k]


# One search

def test_words_find_the_passage_that_holds_them():
    search = WordSearch(PASSAGES, RetrieverPart(name="bm25", query=("narration",)))
    assert search.rank([Query("Concrete", "The sodium burns yellow."), Query("Concrete", "")], 2)[:, 0].tolist() == [2, 3]


def test_saved_words_find_the_same(tmp_path):
    part, asked = RetrieverPart(name="bm25"), [Query("Copper", "A green flame."), Query("", "cement")]
    made = WordSearch(PASSAGES, part, tmp_path / "bm25").rank(asked, 4)
    np.testing.assert_array_equal(WordSearch([], part, tmp_path / "bm25").rank(asked, 4), made)


@pytest.mark.parametrize(("query", "first"), [(("title",), 0), (("clip",), 3), (("title", "clip"), 3)])
def test_a_part_asks_with_what_it_names(query, first):
    assert vectors(query=query).rank([Query("A lens", "", clip(3))], 1).tolist() == [[first]]


def test_text_and_clip_of_one_space_are_added_with_their_weights():
    asked = Query("copper", "", clip(2))
    mixed = vectors(text=0.6, video=0.4).encode([asked])[0]
    expected = 0.6 * Axes().encode_texts(["copper"])[0] + 0.4 * np.eye(4)[2]
    np.testing.assert_allclose(mixed, expected / np.linalg.norm(expected), atol=1e-6)
    assert vectors(text=0.4, video=0.6).rank([asked], 2).tolist() == [[2, 1]]
    assert vectors(text=0.6, video=0.4).rank([asked], 2).tolist() == [[1, 2]]


def test_a_query_without_a_clip_is_asked_with_its_words_and_finds_nothing_where_clips_alone_ask():
    assert vectors().rank([Query("copper"), Query("copper", "", clip(0))], 1).tolist() == [[1], [0]]
    assert vectors(query=("clip",)).rank([Query("copper"), Query("copper", "", clip(0))], 2).tolist() == [[-1, -1], [0, 1]]


# Several together

def test_rankings_that_share_no_space_are_fused_by_rank():
    words = WordSearch(PASSAGES, RetrieverPart(name="bm25", query=("narration",)))
    asked = [Query("A flame", "The sodium burns.", clip(1))]
    for weight, first in ((0.9, 2), (0.1, 1)):
        both = Retriever(PASSAGES, [(words, weight), (vectors(query=("clip",)), 1 - weight)])
        assert both.rank(asked, 4)[0][0] == first
        assert sorted(both.rank(asked, 4)[0]) == [0, 1, 2, 3]


def test_what_is_held_back_is_not_found_and_more_than_there_are_gives_all():
    retriever = Retriever(PASSAGES, [(vectors(), 1.0)])
    assert retriever.rank([Query("copper")], 2, without=frozenset({1}))[0][0] != 1
    assert sorted(retriever.rank([Query("copper")], 99, without=frozenset({1, 2}))[0]) == [0, 3]
    assert [p.id for p in retriever.find(Query("a lens"), 99)][0] == "optics-1"


def test_sisters_make_room_for_another_passage():
    rng = np.random.default_rng(0)
    base = np.eye(12, dtype=np.float32)
    sisters = base[0] + 0.05 * rng.normal(size=(9, 12)).astype(np.float32)
    other = 0.75 * base[0] + 0.9 * base[1]
    made = np.concatenate([sisters, other[None]])
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    passages = [Passage(id=str(n), text="t") for n in range(10)]

    class Fixed(Axes):
        dimensions = 12

        def encode_texts(self, texts):
            return np.repeat(base[:1], len(texts), 0)
    search = VectorSearch(Fixed(), in_memory(made, "fixed", ""), RetrieverPart(name="text"))
    plain, diverse = (Retriever(passages, [(search, 1.0)], diversity).rank([Query("x")], 10)[0] for diversity in (0.0, 0.2))
    assert plain.index(9) == 9
    assert diverse.index(9) < 8
    assert diverse[0] == plain[0]
    assert sorted(diverse) == sorted(plain)


# Whole results

def test_a_clip_that_cannot_be_read_is_listed_and_asked_with_words():
    def frames(asked):
        if asked.id == "c1":
            raise ExpStarError("v.mp4: no video")
        return clip(3)
    problems, cases = [], [case(0, ["x"]), case(1, ["The copper salt."])]
    found = retrieval.retrieve({"all": Retriever(PASSAGES, [(vectors(), 1.0)])}, cases, frames, 2, problems.append)["all"]
    assert [(p.file, p.field) for p in problems] == [("c1", "clip")]
    assert [r.documents[0].id for r in found] == ["civil-1", "chemistry-1"]
    assert [r.query for r in found] == ["A flame. x", "A flame. The copper salt."]
    assert found[0].documents[0].relevant is None
    assert LazyQueries(cases, frames)[1].clip is None
    assert len(list(LazyQueries(cases, frames))) == 2


def test_clips_are_read_once_for_all_retrievers(monkeypatch):
    monkeypatch.setattr(retrieval, "SOME", 2)
    read = []
    def frames(asked):
        read.append(asked.id)
        return clip(0)
    cases = [case(n, ["x"]) for n in range(5)]
    retrievers = {"a": Retriever(PASSAGES, [(vectors(), 1.0)]), "b": Retriever(PASSAGES, [(vectors(query=("clip",)), 1.0)])}
    found = retrieval.retrieve(retrievers, cases, frames, 1, print)
    assert read == [c.id for c in cases]
    assert [r.id for r in found["a"]] == [r.id for r in found["b"]] == read


# What profiles name

def test_the_embedded_base_is_found_by_the_profile_of_the_laptop():
    retriever = open_retriever(load_profile("tiny"))
    found = retriever.find(Query("Testing a Metal Salt in the Flame", "The flame turns lilac.", None), 8)
    assert any("potassium" in p.text for p in found)
    assert len({p.id for p in found}) == 8
    assert [search.about.split()[0] for search, _ in retriever.searches] == ["BM25", "flat,"]


def test_vectors_of_the_embedded_base_are_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path))
    first = retrieval.passage_vectors(PASSAGES, Axes())
    monkeypatch.setattr(Axes, "encode_texts", None)
    np.testing.assert_array_equal(retrieval.passage_vectors(PASSAGES, Axes()), first)
    with pytest.raises(TypeError):
        retrieval.passage_vectors(PASSAGES[:2], Axes())


@pytest.mark.parametrize(("part", "said"), [
    ({"name": "clip", "options": {"model": "ViT-B-32"}}, "retriever 'clip' has no `pretrained`"),
    ({"name": "viclip"}, "retriever 'viclip' has no `checkpoint`"),
    ({"name": "viclip", "options": {"checkpoint": "absent.pth"}}, r"absent\.pth: no such file")])
def test_no_retriever_runs_on_weights_that_are_not_there(part, said):
    with pytest.raises(ExpStarError, match=said):
        open_retriever(load_profile("tiny"), parts=[RetrieverPart(**part)])


def test_subject_of_a_title_is_that_of_the_nearest_passages():
    assert retrieval.guess_subject("Finding the Focal Length of a Lens") == "optics"

"""Grades 1 to 5: what is known wins, a chat model is held to the passages that it was given, scores keep their order."""

import json

import numpy as np
import pytest
from endpoint import completion
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils.grading import (
    ChatGrader,
    KnownGrader,
    ScoreGrader,
    agreement,
    cosine_score,
    cross_encoder_score,
    fitted,
    fitted_edges,
    graded,
)
from expstar_utils.records import ExpStarError, Passage, RetrievalResult

PASSAGES = [Passage(id=f"p{n}", title=f"T{n}", text=f"The flame of salt {n} is coloured.") for n in range(5)]


def result(query_id="q1", passages=PASSAGES, grades=None):
    documents = [p.to_dict() | {"relevant": g} for p, g in zip(passages, grades or [None] * len(passages))]
    return RetrievalResult.model_validate({"id": query_id, "query": "Which salt?", "video_path": "v.mp4", "is_rag": True,
                                           "documents": documents})


def grades_of(results):
    return [[d.relevant for d in r.documents] for r in results]


def test_what_is_known_wins():
    grader = KnownGrader({"q1": {"p0"}, "q2": {"p4"}}, {"q1": {"p0", "p1"}})
    assert grades_of(graded([result(), result("q2")], grader)) == [[5, 2, 1, 1, 1], [1, 1, 1, 1, 5]]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_a_higher_score_never_gets_a_lower_grade(scores):
    passages = [Passage(id=str(n), text="t") for n in range(len(scores))]
    grades = ScoreGrader(lambda query, texts: np.array(scores), [-0.5, 0.0, 0.3, 0.6]).grade("q", "?", passages)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(np.array(grades)[order]) >= 0).all()
    assert set(grades) <= {1, 2, 3, 4, 5}
    assert [g >= 4 for g in grades] == [s >= 0.3 for s in scores]


def test_edges_give_every_grade_its_known_share():
    rng = np.random.default_rng(0)
    scores, known = rng.normal(size=2000), rng.choice([1, 2, 5], 2000, p=[0.6, 0.3, 0.1])
    grades = np.searchsorted(fitted_edges(scores, known), scores, side="right") + 1
    for grade in (1, 2, 3, 4, 5):
        assert (grades == grade).mean() == pytest.approx((known == grade).mean(), abs=0.01)


@pytest.mark.parametrize("edges", [[0.1, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1], []])
def test_edges_that_are_none_are_refused(edges):
    with pytest.raises(ExpStarError, match="expected 4 rising numbers"):
        ScoreGrader(lambda query, texts: np.zeros(len(texts)), edges)


def test_cosine_is_that_of_the_encoder():
    vectors = {"q": [1, 0], "a": [0.6, 0.8], "b": [0, 1]}
    score = cosine_score(lambda texts: np.array([vectors[text] for text in texts], np.float32))
    np.testing.assert_allclose(score("q", ["a", "b"]), [0.6, 0.0], atol=1e-6)


def test_a_cross_encoder_of_the_true_class_scores_pairs(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "flame", "salt", "lens"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(tmp_path)
    BertForSequenceClassification(BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                             intermediate_size=16, num_labels=1)).save_pretrained(tmp_path)
    score = cross_encoder_score(str(tmp_path))
    together = score("flame", ["salt", "lens lens", "flame"])
    assert together.shape == (3,)
    np.testing.assert_allclose(together, np.concatenate([score("flame", [t]) for t in ("salt", "lens lens", "flame")]), atol=1e-5)
    with pytest.raises(ExpStarError, match="no weights for 'no/such-model'"):
        cross_encoder_score("no/such-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExpStarError, match="cross-encoder .*empty': .*empty cannot be read"):
        cross_encoder_score(str(tmp_path / "empty"))


# A chat model

def answer_to(messages, change=lambda grades: grades):
    ids = [p["id"] for p in json.loads(messages[1]["content"])["passages"]]
    return completion(json.dumps({"grades": change([{"id": i, "grade": 1 + n % 5} for n, i in enumerate(ids)])}))


def test_a_chat_model_grades_twenty_at_a_time_and_is_asked_once(endpoint, tmp_path):
    url, asked = endpoint(answer_to)
    many = [Passage(id=f"x{n}", text=f"text {n}") for n in range(45)]
    grader = ChatGrader(url, "m", tmp_path, api_key="none")
    [[*grades]] = grades_of(graded([result(passages=many)], grader))
    assert grades == [1 + n % 20 % 5 for n in range(45)]
    assert [len(json.loads(a["messages"][1]["content"])["passages"]) for a in asked] == [20, 20, 5]
    assert grades_of(graded([result(passages=many)], ChatGrader(url, "m", tmp_path, api_key="none"))) == [grades]
    assert len(asked) == 3


@pytest.mark.parametrize("change", [
    lambda grades: grades[1:], lambda grades: [*grades, {"id": "other", "grade": 3}], lambda grades: [*grades[:-1], grades[0]],
    lambda grades: [{"id": g["id"], "grade": 6} for g in grades], lambda grades: []])
def test_grades_of_other_passages_or_of_too_few_are_asked_for_again(endpoint, tmp_path, change):
    url, asked = endpoint(lambda messages: answer_to(messages, change), answer_to)
    assert ChatGrader(url, "m", tmp_path, api_key="none").grade("q", "?", PASSAGES) == [1, 2, 3, 4, 5]
    assert "cannot be used" in asked[1]["messages"][-1]["content"]


def test_several_queries_are_graded_side_by_side_in_their_order(endpoint, tmp_path):
    url, _ = endpoint(answer_to)
    results = [result(f"q{n}", PASSAGES[:1 + n % 5]) for n in range(12)]
    found = graded(results, ChatGrader(url, "m", tmp_path, api_key="none"), workers=4)
    assert [r.id for r in found] == [r.id for r in results]
    assert grades_of(found) == [list(range(1, 2 + n % 5)) for n in range(12)]


# Agreement

def test_agreement_of_graders():
    one = [result("q1", grades=[5, 2, 1, 1, 1])]
    assert agreement(one, one) == {"exact": 1.0, "relevant": 1.0, "kappa": 1.0, "passages": 5}
    near, far = ([result("q1", grades=grades)] for grades in ([4, 2, 1, 1, 2], [1, 1, 5, 2, 1]))
    assert agreement(one, near)["exact"] == pytest.approx(0.6)
    assert agreement(one, near)["relevant"] == 1.0
    assert agreement(one, near)["kappa"] > 0.8 > 0 > agreement(one, far)["kappa"]
    with pytest.raises(ExpStarError, match="no passage in common"):
        agreement(one, [result("q2", grades=[1, 1, 1, 1, 1])])


def test_a_score_is_fitted_to_grades_that_are_known():
    calls = []
    def score(query, texts):
        calls.append(query)
        return np.array([float(text.split()[4]) for text in texts])  # the salt's number
    known = [result(f"q{n}", grades=[1, 1, 2, 2, 5]) for n in range(3)]
    grader = fitted(score, known)
    assert grades_of(graded(known, grader)) == grades_of(known)
    assert len(calls) == 6


def test_a_passage_is_encoded_once_for_all_queries():
    encoded = []
    def encode(texts):
        encoded.extend(texts)
        return np.eye(8)[[len(text) % 8 for text in texts]]
    score = cosine_score(encode)
    first, second = score("a", ["bb", "ccc", "bb"]), score("dd", ["ccc", "bb"])
    assert encoded == ["a", "bb", "ccc", "dd"]
    assert first.tolist() == [0, 0, 0]
    assert second.tolist() == [0, 1]

"""How relevant a passage is for a step, from 1 to 5: because it is known, by a chat model's judgement, or by a model's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, Field
from sklearn.metrics import cohen_kappa_score

from expstar_utils import weights
from expstar_utils.chat import Chat, read_sentences
from expstar_utils.encoders import encode_texts
from expstar_utils.records import RELEVANT_GRADE, ExpStarError, Passage, RetrievalResult

SENTENCES = Path(__file__).parents[1] / "data" / "grader.yaml"
GRADES = range(1, 6)
EXACT, SISTER, OTHER = 5, 2, 1  # of what is known: what a step needs, what another variant of it needs, anything else
COSINE_EDGES = (0.41, 0.62, 0.62, 0.62)  # fitted on Mini's `train`, where no passage is known to deserve 3 or 4 (notebook 03)
KEPT_PASSAGES = 50_000  # whose vectors a cosine grader keeps
AT_ONCE = 20  # passages in one question to a chat model


class Grader(Protocol):
    """Grades passages for one query."""

    def grade(self, query_id: str, query: str, passages: Sequence[Passage]) -> list[int]:
        """One grade, 1 to 5, for each passage."""


class KnownGrader:
    """What a data set with known truth says.

    Args:
        needed: by query id, the passages that it needs. sisters: by query id, those that its other variants need.
    """

    def __init__(self, needed: Mapping[str, set[str]], sisters: Mapping[str, set[str]]):
        self.needed, self.sisters = needed, sisters

    def grade(self, query_id: str, query: str, passages: Sequence[Passage]) -> list[int]:
        """See `Grader`."""
        return [EXACT if p.id in self.needed[query_id] else SISTER if p.id in self.sisters.get(query_id, ()) else OTHER
                for p in passages]


class ScoreGrader:
    """Grades from a score that grows with relevance: a cosine, a cross-encoder's logit.

    Args:
        score: (query, texts) -> float [texts]. edges: four rising scores; a grade is one more than the edges that are reached.
    """

    def __init__(self, score: Callable[[str, list[str]], np.ndarray], edges: Sequence[float]):
        if len(edges) != len(GRADES) - 1 or list(edges) != sorted(edges):
            raise ExpStarError(f"edges are {list(edges)}, expected {len(GRADES) - 1} rising numbers; correct the profile")
        self.score, self.edges = score, np.asarray(edges)

    def grade(self, query_id: str, query: str, passages: Sequence[Passage]) -> list[int]:
        """See `Grader`."""
        scores = self.score(query, [p.text for p in passages]) if passages else np.zeros(0)
        return (np.searchsorted(self.edges, scores, side="right") + 1).tolist()


def fitted(score: Callable[[str, list[str]], np.ndarray], known: Sequence[RetrievalResult]) -> ScoreGrader:
    """Grader by a score whose edges fit results that were graded in a way to be trusted."""
    scores = [value for r in known if r.documents for value in score(r.query, [d.text for d in r.documents])]
    return ScoreGrader(score, fitted_edges(scores, [d.relevant for r in known for d in r.documents]))


def fitted_edges(scores: Sequence[float], grades: Sequence[int]) -> list[float]:
    """Edges for `ScoreGrader` after which each grade is as frequent as it is known to be."""
    shares = [np.mean(np.asarray(grades) < grade) for grade in GRADES[1:]]
    return [float(np.quantile(scores, share)) + 1e-9 for share in shares]


def cosine_score(encode: Callable[[Sequence[str]], np.ndarray]) -> Callable[[str, list[str]], np.ndarray]:
    """Score for `ScoreGrader`: cosine of query and passage, by an encoder's `encode_texts`; passages seen before are kept."""
    kept: dict[str, np.ndarray] = {}

    def score(query: str, texts: list[str]) -> np.ndarray:
        """Cosines of a query and texts, float [texts]."""
        if len(kept) > KEPT_PASSAGES:
            kept.clear()
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        vectors = encode([query, *new])
        kept.update(zip(new, vectors[1:], strict=True))
        return np.stack([kept[text] for text in texts]) @ vectors[0]
    return score


class CosineGrader(ScoreGrader):
    """Grades from MiniLM's cosine of query and passage; its edges fit Mini's known grades (`fitted_edges`, notebook 03)."""

    def __init__(self, edges: Sequence[float] = COSINE_EDGES):
        super().__init__(cosine_score(encode_texts), edges)


def cross_encoder_score(model: str) -> Callable[[str, list[str]], np.ndarray]:
    """Score for `ScoreGrader`: what a sentence-transformers cross-encoder says of the pair.

    Args:
        model: name or folder, such as "cross-encoder/ms-marco-MiniLM-L6-v2".

    Raises:
        ExpStarError: no source has the weights, or what is there is no cross-encoder.
    """
    from sentence_transformers import CrossEncoder
    folder = weights.find(model)
    try:
        encoder = CrossEncoder(str(folder))
    except (OSError, ValueError) as error:
        raise ExpStarError(f"cross-encoder {model!r}: {folder} cannot be read ({str(error).splitlines()[0][:100]}); name "
                           "another, or grade by cosine") from None

    def score(query: str, texts: list[str]) -> np.ndarray:
        """What the cross-encoder says of a query with each text, float [texts]."""
        return np.asarray(encoder.predict([(query, text) for text in texts], show_progress_bar=False), np.float32)
    return score


class CrossEncoderGrader(ScoreGrader):
    """Grades from a cross-encoder's score, a probability of 0 to 1 in equal steps unless `edges` say otherwise."""

    def __init__(self, model: str, edges: Sequence[float] = (0.2, 0.4, 0.6, 0.8)):
        super().__init__(cross_encoder_score(model), edges)


class GradedPassage(BaseModel):
    """One grade as the model answers it."""

    id: str
    grade: int = Field(ge=1, le=5)


class Grading(BaseModel):
    """The model's whole answer for one query."""

    grades: list[GradedPassage]


class ChatGrader:
    """Asks a chat model, twenty passages at a time; every usable answer is kept (`chat.Chat`)."""

    def __init__(self, base_url: str, model: str, cache: Path, *, sentences: Path = SENTENCES, **more):
        self.instruction, again = read_sentences(sentences)
        self.chat = Chat(base_url, model, cache, again, **more)

    def grade(self, query_id: str, query: str, passages: Sequence[Passage]) -> list[int]:
        """See `Grader`; raises ExpStarError when the endpoint gives no usable answer."""
        found: dict[str, int] = {}
        for at in range(0, len(passages), AT_ONCE):
            part = passages[at:at + AT_ONCE]
            ids = [p.id for p in part]

            def complete(answer: Grading, ids: list[str] = ids) -> None:
                """Raises ValueError unless every passage has one grade."""
                given = [g.id for g in answer.grades]
                if sorted(given) != sorted(ids):
                    wrong = sorted(set(given) ^ set(ids))[:4] or "one of them twice"
                    raise ValueError(f"every passage needs one grade and no other has any; see {wrong}")
            asked = {"step": query, "passages": [{"id": p.id, "title": p.title, "text": p.text} for p in part]}
            answer = self.chat.ask(query_id, self.instruction, asked, Grading, complete)
            found |= {g.id: g.grade for g in answer.grades}
        return [found[p.id] for p in passages]


def graded(results: Sequence[RetrievalResult], grader: Grader, workers: int = 1) -> list[RetrievalResult]:
    """The same results with the grader's grades; several at a time where it waits for a server."""
    def one(result: RetrievalResult) -> RetrievalResult:
        """One result with the grader's grades."""
        grades = grader.grade(result.id, result.query, result.documents)
        documents = [d.model_copy(update={"relevant": g}) for d, g in zip(result.documents, grades, strict=True)]
        return result.model_copy(update={"documents": documents})
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, results))


def agreement(one: Sequence[RetrievalResult], other: Sequence[RetrievalResult]) -> dict[str, float]:
    """How far two graders agree on the same passages.

    Returns:
        exact: share of equal grades. relevant: share on the same side of RELEVANT_GRADE. kappa: Cohen's, weighted by the squared
        distance (Cohen, Psychological Bulletin 1968); 1 is full agreement, 0 is chance. passages: how many were compared.
    """
    grades = [{(r.id, d.id): d.relevant for r in results for d in r.documents} for results in (one, other)]
    both = sorted(grades[0].keys() & grades[1].keys())
    if not both:
        raise ExpStarError("the two results have no passage in common, expected results of the same queries; retrieve them once")
    a, b = (np.array([g[key] for key in both]) for g in grades)
    return {"exact": float((a == b).mean()), "relevant": float(((a >= RELEVANT_GRADE) == (b >= RELEVANT_GRADE)).mean()),
            "kappa": float(cohen_kappa_score(a, b, weights="quadratic", labels=list(GRADES))), "passages": len(both)}

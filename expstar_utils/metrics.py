"""What is true of predictions: form, facts (Mini's truth is known), equations, the gate, the verdicts, safety, citations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expstar_utils.differences import word_f1, words
from expstar_utils.equations import equations_agree, find_equations
from expstar_utils.prompts import RETRIEVAL, parse
from expstar_utils.records import ExpStarError, Prediction


def load_truth(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Truth rows of Mini by (experiment, step)."""
    rows = (json.loads(line) for line in Path(path).read_text(encoding="utf8").splitlines())
    return {(row["experiment"], row["step"]): row for row in rows}


def normalize(text: str) -> str:
    """Lower case, one blank between words, subscripts as digits, no blank around equation signs."""
    text = text.lower().translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))
    return re.sub(r"(?<=[\w)\]↑↓]) ?([→=+⇌]) ?(?=[\w(\[])", r"\1", re.sub(r"\s+", " ", text)).strip()


def says(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as whole words and numbers (no "ethane" in "methane", no "5 g" in "2.5 g")."""
    return re.search(rf"(?<!\w)(?<!\d[.,]){re.escape(normalize(phrase))}(?!\w)(?![.,]\d)", normalize(text)) is not None


def fact_right(fact: dict[str, Any], prediction: Prediction) -> bool:
    """Whether a prediction says a fact in its section, and none of its rivals that the reference does not say too."""
    written = "\n".join(getattr(parse(prediction.response).commentary, fact["section"]))
    reference = "\n".join(getattr(parse(prediction.labels).commentary, fact["section"]))
    if not says(written, fact["en"]):
        return False
    inside = [o for o in fact["others"] if says(fact["en"], o)]
    return not any(says(written, o) and not says(reference, o) for o in fact["others"] if o not in inside)


def fact_rows(predictions: Sequence[Prediction], truths: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a fact: `{id, subject, name, kind, section, right}`."""
    return [{"id": p.id, "subject": t["subject"], "name": f["name"], "kind": f["kind"], "section": f["section"],
             "right": fact_right(f, p)} for p, t in zip(predictions, truths, strict=True) for f in t["facts"]]


def rate(rows: Sequence[dict[str, Any]], **wanted: Any) -> float:
    """Share of right facts among the rows whose fields have the wanted values (a set means any of them)."""
    def fits(row: dict[str, Any]) -> bool:
        return all(row[k] in v if isinstance(v, set) else row[k] == v for k, v in wanted.items())
    return share([row["right"] for row in rows if fits(row)])


def share(values: Sequence[float]) -> float:
    """Mean of values, the share of true ones; NaN where there is none to ask."""
    return float(np.mean(values)) if values else float("nan")


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve: chance that a positive scores above a negative (ties count half)."""
    from sklearn.metrics import roc_auc_score
    return float(roc_auc_score(labels, scores)) if len(set(labels)) == 2 else float("nan")


def judged(predictions: Sequence[Prediction], truths: Sequence[dict[str, Any]]) -> tuple[list[float], list[bool]]:
    """Probability and truth of every verdict, a passage an entry; gold passages are the positives."""
    rows = [(prob, pid in t["gold"]) for p, t in zip(predictions, truths, strict=True)
            for pid, prob in zip(p.evaluation_data.get("passage_ids", []), p.evaluation_data.get("relevance", []), strict=True)]
    return [prob for prob, _ in rows], [true for _, true in rows]


def f1_scores(probabilities: Sequence[float], labels: Sequence[bool], threshold: float = 0.5) -> dict[str, float]:
    """Precision, recall and F1 of saying yes above `threshold`."""
    said = [p > threshold for p in probabilities]
    hit = sum(a and b for a, b in zip(said, labels, strict=True))
    precision, recall = hit / max(sum(said), 1), hit / max(sum(labels), 1)
    return {"threshold": threshold, "precision": precision, "recall": recall,
            "f1": 2 * precision * recall / max(precision + recall, 1e-9)}


def threshold_curve(probabilities: Sequence[float], labels: Sequence[bool], points: int = 19) -> list[dict[str, float]]:
    """`f1_scores` and the share of yes at evenly spaced thresholds: how a threshold is chosen on val."""
    return [f1_scores(probabilities, labels, t) | {"rate": float(np.mean(np.asarray(probabilities) > t))}
            for t in np.linspace(0, 1, points + 2)[1:-1].round(4).tolist()]


def gate_curve(predictions: Sequence[Prediction], points: int = 99) -> list[dict[str, float]]:
    """How often a gate at each threshold looks something up, and how good the commentary is then.

    Args:
        predictions: made with `knowledge="always"`; a step whose probability lies at or below the threshold counts with its
            narration alone, which was written before the decision.

    Returns:
        `{tau, rate, quality}` by rising tau: share of steps that look something up; mean F1 of words with the reference.
    """
    if used := {p.evaluation_data.get("settings", {}).get("knowledge") for p in predictions} - {"always"}:
        raise ExpStarError(f"gate curve: found predictions made with knowledge={sorted(map(str, used))[0]!r}, expected 'always'; "
                           "run notebook 05 on val with it")
    probs = np.array([p.evaluation_data["retrieval_prob"] for p in predictions])
    whole = np.array([word_f1(p.response, p.labels) for p in predictions])
    alone = np.array([word_f1(p.evaluation_data["rounds"][0]["content"].replace(RETRIEVAL, ""), p.labels) for p in predictions])
    taus = np.linspace(0, 1, points + 2)[1:-1].round(4)
    return [{"tau": float(t), "rate": float((probs > t).mean()), "quality": float(np.where(probs > t, whole, alone).mean())}
            for t in taus]


def best_tau(curve: Sequence[dict[str, float]], within: float = 1e-3) -> float:
    """The middle of the thresholds whose quality is the best there is, to `within`."""
    best = max(point["quality"] for point in curve)
    good = [point["tau"] for point in curve if point["quality"] >= best - within]
    return good[len(good) // 2]


def calibration_error(probabilities: Sequence[float], labels: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: distance of probabilities to the share of positives in their bin, 0 to 1 (Guo et al. 2017)."""
    probs, true = np.asarray(probabilities, float), np.asarray(labels, float)
    if not len(probs):
        return float("nan")
    place = np.minimum((probs * bins).astype(int), bins - 1)
    return float(sum(abs(probs[place == b].sum() - true[place == b].sum()) for b in range(bins)) / len(probs))


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams of words that stood in it before, 0 to 1."""
    found = [word.lower() for word, _ in words(text)]
    grams = [tuple(found[i:i + n]) for i in range(len(found) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def equation_shares(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Of the equations that are written, those that balance (chempy); of the references' equations, those that are written."""
    written = [equation for p in predictions for equation in find_equations(p.response)]
    known = [balanced for equation in written if (balanced := equation.balanced) is not None]
    agreed = [right for p in predictions if find_equations(p.labels)
              and (right := equations_agree(p.response, p.labels)) is not None]
    return {"equations_balanced": share(known), "equations_right": share([right == 1 for right in agreed])}


def report(predictions: Sequence[Prediction], truths: Sequence[dict[str, Any]]) -> dict[str, float]:
    """All first metrics of one prediction file."""
    import sacrebleu
    rows = fact_rows(predictions, truths)
    eyes = {"colour", "quantity", "shape", "outcome"}
    needs = [bool(t["gold"]) for t in truths]
    thresholds = {p.evaluation_data.get("settings", {}).get("verdict_threshold", 0.5) for p in predictions}
    verdicts = f1_scores(*judged(predictions, truths), max(thresholds, default=0.5))
    relevant = [set(p.evaluation_data.get("relevant_ids", [])) for p in predictions]
    noted = [(bool(parse(p.labels).commentary.safety), bool(parse(p.response).commentary.safety)) for p in predictions]
    cited = [bool(r & set(t["gold"])) for r, t in zip(relevant, truths, strict=True) if t["gold"]]
    return {
        "steps": len(predictions),
        "well_formed": float(np.mean([parse(p.full_dialogue).well_formed for p in predictions])),
        "substance": rate(rows, kind="substance"),
        "colour_quantity": rate(rows, kind={"colour", "quantity"}),
        "seen": rate(rows, kind=eyes, section="narration"),
        "principle": rate(rows, kind={"equation", "law"}, section="principle"),
        "hazard": rate(rows, kind="hazard", section="safety"),
        "safety_missing": share([not said for wanted, said in noted if wanted]),
        "safety_unneeded": share([said for wanted, said in noted if not wanted]),
        "gate_auc": auc([p.evaluation_data["retrieval_prob"] for p in predictions], needs),
        "retrieval_rate": float(np.mean([p.evaluation_data["is_retrieval"] for p in predictions])),
        "verdict_f1": verdicts["f1"], "verdict_precision": verdicts["precision"], "verdict_recall": verdicts["recall"],
        "gold_cited": share(cited),
        "citation_precision": share([i in t["gold"] for r, t in zip(relevant, truths, strict=True) for i in r]),
        "gate_ece": calibration_error([p.evaluation_data["retrieval_prob"] for p in predictions], needs),
        **equation_shares(predictions),
        "words": share([len(words(p.response)) for p in predictions]),
        "repetition": share([repetition(p.response) for p in predictions]),
        "bleu": sacrebleu.corpus_bleu([p.response for p in predictions], [[p.labels for p in predictions]]).score,
    }


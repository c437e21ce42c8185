"""The report of 700 rows, all and each of 7 subjects: ours scores every row once, theirs calls every metric anew for each group.

Theirs are the libraries as the published script calls them: sacreBLEU, NLTK, rouge-score, pycocoevalcap, and bert-score with 15
rows a batch, on the texts as ours prepares them (Chinese characters apart). The model of BERTScore and WordNet are loaded
beforehand on both sides; the bootstrap of ROUGE in the published script is left out, for it has no seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.made_up import SUBJECTS, pairs
from benchmarks.timing import in_turn, options, report
from expstar_utils import bertscore, weights, wordnet
from expstar_utils.encoders import TEXT_ENCODER
from expstar_utils.evaluation import evaluate
from expstar_utils.text_metrics import bare_words, spaced, words

BATCH = 15


def published(hyps: Sequence[str], refs: Sequence[str], bert_scorer: object) -> dict[str, float]:
    """One call of each metric, percent."""
    from nltk.translate.meteor_score import meteor_score
    from pycocoevalcap.cider.cider import Cider
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU
    apart = [spaced(h) for h in hyps], [[spaced(r) for r in refs]]
    precisions = BLEU(smooth_method="none").corpus_score(*apart).precisions
    rouge = RougeScorer(["rougeL"], tokenizer=Apart())
    found = {f"BLEU-{n}": p for n, p in enumerate(precisions, 1)} | {"sacreBLEU": BLEU().corpus_score(*apart).score}
    found["METEOR"] = 100 * np.mean([meteor_score([words(r)], words(h)) for h, r in zip(hyps, refs)])
    found["ROUGE-L"] = 100 * np.mean([rouge.score(r, h)["rougeL"].fmeasure for h, r in zip(hyps, refs)])
    texts = [{i: [" ".join(bare_words(t))] for i, t in enumerate(side)} for side in (refs, hyps)]
    found["CIDEr"] = 100 * Cider().compute_score(*texts)[0]
    scores = torch.stack(bert_scorer.score(list(hyps), list(refs)), 1).double().mean(0) * 100
    return found | {f"BERTScore-{c}": float(v) for c, v in zip(("P", "R", "F1"), scores)}


class Apart:
    """rouge-score's tokenizer, a Chinese character a token."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens of a text."""
        from rouge_score.tokenize import tokenize
        known = {f"han{ord(c)}": c for c in text if c > "\u2fff" and c.isalpha()}
        return tokenize("".join(f" han{ord(c)} " if f"han{ord(c)}" in known else c for c in text), None)


def scorer() -> object:
    """bert-score on MiniLM, which can be given empty texts again."""
    from bert_score import BERTScorer
    made = BERTScorer(model_type=str(weights.find(TEXT_ENCODER)), num_layers=6, batch_size=BATCH, device="cpu")
    tokenizer = made._tokenizer  # transformers 5 no longer has what it asks for then
    tokenizer.build_inputs_with_special_tokens = lambda ids: [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    return made


def differences(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> dict[str, float]:
    """Largest difference over all groups, percent: of the BERTScore columns and of the others.

    Raises:
        AssertionError: one is too large.
    """
    found = {"BERTScore": 0.0, "others": 0.0}
    for name, values in theirs.items():
        mine = {column.split(" ")[0]: value for column, value in ours[name].items()}  # the model's name stands behind a blank
        for column, value in values.items():
            kind = "BERTScore" if column.startswith("BERTScore") else "others"
            found[kind] = max(found[kind], abs(mine[column] - value))
    assert found["BERTScore"] <= 1e-4, found
    assert found["others"] <= 1e-6, found
    return found


def main() -> None:
    """Run both, compare every value of every group and report."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--rows", type=int, default=700)
    given = parser.parse_args()
    say = (lambda _: None) if given.json else print
    rows, bert = pairs(given.rows, length=60), scorer()
    bertscore.load_token_encoder(TEXT_ENCODER, None)
    wordnet.reader()
    kept: dict[str, dict[str, dict[str, float]]] = {}

    def ours() -> None:
        words.cache_clear()
        made = evaluate(rows, groups=("subject",), sections=(), bert_model=TEXT_ENCODER)
        kept["ours"] = {line["name"]: line for line in made.lines}

    def theirs() -> None:
        words.cache_clear()
        groups = {"all": rows} | {s: [row for row in rows if row.subject == s] for s in SUBJECTS}
        kept["theirs"] = {name: published([r.prediction for r in part], [r.reference for r in part], bert)
                          for name, part in groups.items()}
    medians = in_turn({"ours": ours, "theirs": theirs}, given.runs, say)
    largest = differences(kept["ours"], kept["theirs"])
    report("metrics", medians, given.runs, rows=len(rows), groups=len(kept["theirs"]), model=TEXT_ENCODER, theirs_batch=BATCH,
           threads=torch.get_num_threads(),
           mean_words=round(float(np.mean([len(r.reference.split()) for r in rows])), 1),
           largest_difference={k: float(f"{v:.2g}") for k, v in largest.items()})


if __name__ == "__main__":
    main()

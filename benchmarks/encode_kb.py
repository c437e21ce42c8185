"""Vectors of a knowledge base: ours in batches of like length and bf16, theirs one text a call in float32, as published.

`mean_cosine` compares the vectors, `same_top8` the passages that Mini-like queries (the passages' own titles) find with both.
"""

from __future__ import annotations

import numpy as np

from benchmarks.timing import in_turn, options, report
from expstar_utils.encoders import TextEncoder
from expstar_utils.knowledge import load_knowledge


def main() -> None:
    """Run both and report."""
    given = options(__doc__, runs=3).parse_args()
    passages = load_knowledge()
    texts = [f"{p.title}. {p.text}" for p in passages]
    fast, plain = TextEncoder(dtype="bfloat16"), TextEncoder()

    def theirs() -> np.ndarray:
        return np.concatenate([plain.encode_texts([text]) for text in texts])
    ours, reference = fast.encode_texts(texts), theirs()
    queries = plain.encode_texts([p.title for p in passages])
    tops = [np.argsort(-queries @ vectors.T, axis=1, kind="stable")[:, :8] for vectors in (ours, reference)]
    same = float(np.mean([set(a) == set(b) for a, b in zip(*(top.tolist() for top in tops))]))
    medians = in_turn({"ours": lambda: fast.encode_texts(texts), "theirs": theirs}, given.runs,
                      (lambda _: None) if given.json else print)
    report("encode_kb", medians, given.runs, passages=len(texts), mean_cosine=round(float((ours * reference).sum(1).mean()), 6),
           same_top8=round(same, 4))


if __name__ == "__main__":
    main()

"""BLEU, METEOR, ROUGE-L and CIDEr of texts with one reference each: counted once a row, then for any group of rows.

Every value is in percent, as the paper's tables are. A metric is made from the texts of all rows; `over` gives its columns for a
group of them, equal to calling the library anew on the group's texts alone. A Chinese (or kana) character is a word throughout.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from expstar_utils import wordnet

ORDERS = 4  # n-grams of 1 to 4 words, in BLEU and in CIDEr
STEMMED_LETTERS = 100
SIGMA = 6.0  # CIDEr-D: how fast a difference of length costs
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_ALONE = re.compile(f"([{_HAN}\u3000-\u303f\uff00-\uff65])")
_ROUGE_WORD = re.compile(f"[a-z0-9]+|[{_HAN}]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")


class Scored(Protocol):
    """Scores of rows. signatures: column -> how it was computed, as sacreBLEU writes it."""

    signatures: dict[str, str]

    def over(self, rows: Sequence[int]) -> dict[str, float]:
        """Columns of a group of rows, at least one, percent."""

    def rows(self) -> dict[str, np.ndarray]:
        """Columns row by row, float [rows], percent."""

    def sums(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Columns as ratios of sums over rows: (numerators, denominators), float [rows] each; what intervals are made from."""


class RowMeans:
    """Scores of which a group has the mean. values: column -> float [rows] in 0 to 1."""

    def __init__(self, values: dict[str, np.ndarray], signature: str):
        self._values = {column: 100 * np.asarray(found, float) for column, found in values.items()}
        self.signatures = dict.fromkeys(values, signature)

    def over(self, rows: Sequence[int]) -> dict[str, float]:
        """See `Scored`."""
        return {column: float(found[list(rows)].mean()) for column, found in self._values.items()}

    def rows(self) -> dict[str, np.ndarray]:
        """See `Scored`."""
        return self._values

    def sums(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See `Scored`."""
        return means_as_sums(self._values)


def means_as_sums(values: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means over rows as ratios of sums; see `Scored.sums`."""
    return {column: (found, np.ones(len(found))) for column, found in values.items()}


# Words

def spaced(text: str) -> str:
    """Text with a blank around every Chinese character and full-width sign; any other text is unchanged."""
    return _ALONE.sub(r" \1 ", text)


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """Words and signs of a text by NLTK's Treebank rules, line by line and sentence by sentence; case is kept."""
    from nltk.tokenize import NLTKWordTokenizer
    tokenizer, sentences = NLTKWordTokenizer(), _SENTENCE_END.split(spaced(text))
    # one blank between words: the tokenizer takes quadratic time over long runs of them
    return tuple(word for sentence in sentences if sentence.strip() for word in tokenizer.tokenize(" ".join(sentence.split())))


def bare_words(text: str) -> tuple[str, ...]:
    """`words` in lower case, without signs: what COCO's tokenizer leaves, but for its Java."""
    return tuple(word.lower() for word in words(text) if any(c.isalnum() for c in word))


# BLEU

class Bleu:
    """Precisions of 1- to 4-grams as the paper's BLEU-1 to BLEU-4 (no brevity penalty, not cumulative), and sacreBLEU's score."""

    def __init__(self, predictions: Sequence[str], references: Sequence[str]):
        from sacrebleu.metrics import BLEU
        bleu = BLEU(effective_order=True)
        found = [bleu.sentence_score(spaced(p), [spaced(r)]) for p, r in zip(predictions, references, strict=True)]
        self._counts = np.array([[f.sys_len, f.ref_len, *f.counts, *f.totals] for f in found], int).reshape(-1, 2 + 2 * ORDERS)
        common = f"nrefs:1|case:mixed|tok:13a|han:char|version:sacrebleu.{version('sacrebleu')}"
        self.signatures = {f"BLEU-{n}": f"{n}-gram precision|smooth:none|{common}" for n in range(1, ORDERS + 1)}
        self.signatures["sacreBLEU"] = f"cumulative|eff:no|smooth:exp|{common}"

    def over(self, rows: Sequence[int]) -> dict[str, float]:
        """See `Scored`."""
        return self._score(self._counts[list(rows)].sum(0))

    def rows(self) -> dict[str, np.ndarray]:
        """See `Scored`; short rows have no 4-grams, so many are 0."""
        each = [self._score(counts) for counts in self._counts]
        return {column: np.array([scores[column] for scores in each]) for column in self.signatures}

    def sums(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See `Scored`; sacreBLEU's score, with its penalty for short texts, is no ratio of sums."""
        right, all_of_them = (self._counts[:, at:at + ORDERS].astype(float) for at in (2, 2 + ORDERS))
        return {f"BLEU-{n + 1}": (100 * right[:, n], all_of_them[:, n]) for n in range(ORDERS)}

    def _score(self, counts: np.ndarray) -> dict[str, float]:
        from sacrebleu.metrics import BLEU
        [written, wanted], right, all_of_them = counts[:2], counts[2:2 + ORDERS], counts[2 + ORDERS:]
        precisions = 100 * right / np.maximum(all_of_them, 1)
        whole = BLEU.compute_bleu(right.tolist(), all_of_them.tolist(), int(written), int(wanted), smooth_method="exp")
        return {f"BLEU-{n}": float(p) for n, p in enumerate(precisions, 1)} | {"sacreBLEU": whole.score}


# METEOR

class _Remembering:
    """Porter's stemmer and WordNet as NLTK's METEOR asks for them; a word that was asked for before costs nothing.

    A word of more than `STEMMED_LETTERS` is its own stem: the stemmer takes quadratic time, and a run of y breaks it.
    """

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer
        stem = PorterStemmer().stem
        self.stem: Callable[[str], str] = lru_cache(maxsize=1 << 16)(
            lambda word: stem(word) if len(word) <= STEMMED_LETTERS else word)
        self.synsets: Callable[[str], Any] = lru_cache(maxsize=1 << 16)(wordnet.reader().synsets)


class Meteor(RowMeans):
    """NLTK's METEOR (Banerjee and Lavie 2005): exact words, then stems, then WordNet's synonyms.

    Raises:
        ExpStarError: there is no WordNet and it cannot be had.
    """

    def __init__(self, predictions: Sequence[str], references: Sequence[str]):
        from nltk.translate.meteor_score import meteor_score
        known = _Remembering()
        found = [meteor_score([words(r)], words(p), stemmer=known, wordnet=known)
                 for p, r in zip(predictions, references, strict=True)]
        super().__init__({"METEOR": np.array(found)}, (
            "nrefs:1|case:lower|tok:treebank,by line and sentence|han:char|stem:porter|alpha:0.9|beta:3|gamma:0.5|"
            f"synonyms:wordnet.{wordnet.reader().get_version()}|version:nltk.{version('nltk')}"))


# ROUGE-L

def common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, exact, by whole rows of bits (Hyyrö 2004): quick for 20,000 words too."""
    b, a = sorted((a, b), key=len)
    places: dict[str, int] = {}
    for at, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << at
    every = open_places = (1 << len(b)) - 1
    for word in a:
        hits = open_places & places.get(word, 0)
        open_places = ((open_places + hits) | (open_places - hits)) & every
    return len(b) - open_places.bit_count()


class RougeL(RowMeans):
    """F1 of the longest common subsequence, as rouge-score's `rougeL` without its stemmer; no bootstrap, the plain mean."""

    def __init__(self, predictions: Sequence[str], references: Sequence[str]):
        found = []
        for prediction, reference in zip(predictions, references, strict=True):
            a, b = (_ROUGE_WORD.findall(text.lower()) for text in (prediction, reference))
            found.append(2 * common_length(a, b) / max(len(a) + len(b), 1))
        super().__init__({"ROUGE-L": np.array(found)},
                         f"F1|nrefs:1|case:lower|tok:a-z0-9|han:char|stem:no|as:rouge-score|version:expstar.{version('expstar-utils')}")


# CIDEr

class Cider:
    """CIDEr-D as pycocoevalcap computes it: ten times the mean cosine of TF-IDF n-grams; in percent, so that 1000 is the most.

    A group's IDF comes from its own references, as when the library is called for the group alone; of one row it is zero, and
    so is its CIDEr. `rows` takes the IDF of all. Source: Vedantam, Zitnick and Parikh 2015, section 3 and appendix.
    """

    def __init__(self, predictions: Sequence[str], references: Sequence[str]):
        written, wanted = ([_ngrams(bare_words(text)) for text in texts] for texts in (predictions, references))
        terms: dict[tuple[str, ...], int] = {}
        for counts in (*written, *wanted):
            for term in counts:
                terms.setdefault(term, len(terms))
        shared = [{t: min(n, r[t]) * r[t] for t, n in w.items() if t in r} for w, r in zip(written, wanted, strict=True)]
        self._shared, self._written, self._wanted = (_matrix(rows, terms) for rows in (
            shared, _squared(written), _squared(wanted)))
        self._order = np.array([len(term) - 1 for term in terms], int)
        longer = np.array([_bigrams(w) - _bigrams(r) for w, r in zip(written, wanted, strict=True)], float)
        self._length_penalty = np.exp(-longer ** 2 / (2 * SIGMA ** 2))
        self.signatures = {"CIDEr": (
            f"CIDEr-D|nrefs:1|n:{ORDERS}|sigma:{SIGMA:g}|idf:references of the group|case:lower|tok:treebank,no signs|han:char|"
            f"as:pycocoevalcap|version:expstar.{version('expstar-utils')}")}

    def over(self, rows: Sequence[int]) -> dict[str, float]:
        """See `Scored`."""
        return {"CIDEr": float(self._of(np.asarray(rows)).mean())}

    def rows(self) -> dict[str, np.ndarray]:
        """See `Scored`."""
        return {"CIDEr": self._of(np.arange(self._shared.shape[0]))}

    def sums(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See `Scored`; the IDF of all rows is taken as given."""
        return means_as_sums(self.rows())

    def _of(self, rows: np.ndarray) -> np.ndarray:
        shared, written, wanted = (matrix[rows] for matrix in (self._shared, self._written, self._wanted))
        documents = np.bincount(wanted.indices, minlength=len(self._order))
        idf = np.log(float(len(rows))) - np.log(np.maximum(documents, 1.0))
        weights = np.zeros((len(self._order), ORDERS))
        weights[np.arange(len(self._order)), self._order] = idf ** 2
        lengths = np.sqrt(written @ weights) * np.sqrt(wanted @ weights)
        cosines = np.divide(shared @ weights, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return 1000 * cosines.mean(1) * self._length_penalty[rows]


def _ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at:at + n]) for n in range(1, ORDERS + 1) for at in range(len(tokens) - n + 1))


def _bigrams(counts: Counter[tuple[str, ...]]) -> int:
    return sum(count for term, count in counts.items() if len(term) == 2)  # the length by which the library compares


def _squared(rows: Sequence[Counter[tuple[str, ...]]]) -> list[dict[tuple[str, ...], int]]:
    return [{term: count * count for term, count in counts.items()} for counts in rows]


def _matrix(rows: Sequence[dict[tuple[str, ...], int]], terms: dict[tuple[str, ...], int]) -> csr_matrix:
    """Sparse float [rows, terms]."""
    starts = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.array([terms[term] for row in rows for term in row], int)
    values = np.array([value for row in rows for value in row.values()], float)
    return csr_matrix((values, columns, starts), shape=(len(rows), len(terms)))

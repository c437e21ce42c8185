"""From a step to passages: the searches that a profile names, over its knowledge base, their rankings fused into one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from expstar_utils import weights
from expstar_utils.datasets import Case
from expstar_utils.encoders import Encoder, load_encoder
from expstar_utils.files import replacing
from expstar_utils.knowledge import FOLDER, is_hazard_card, load_knowledge
from expstar_utils.nearest import FEW, Nearest, build, check_vectors, in_memory, is_of
from expstar_utils.profiles import Profile, RetrieverPart
from expstar_utils.ranking import fused_scores
from expstar_utils.records import ExpStarError, Passage, Problem, RetrievalResult
from expstar_utils.searches import Query, Search, VectorSearch, WordSearch, encode_queries, read_clip
from expstar_utils.shards import StoredPassages
from expstar_utils.vectors import index_folder, is_encoded, is_merged, merge, merged

RANK_OFFSET = 9  # of the fused rankings; smaller than usual: the first few decide
SOME = 64  # queries whose clips are in memory at a time
DEPTH = 200  # ranks of each search that a fusion reads
POOL, ALIKE = 60, 0.65  # of `diversity`: how many of the best are reordered, and the cosine from which two passages are alike


class Retriever:
    """Passages by one search, or by several whose rankings are fused (`hybrid`).

    Args:
        passages: what can be found, by position. searches: each with the weight of its ranks.
        diversity: share of its score that a passage loses for every better one that is like it, 0 to 1: eight sisters of one
            passage leave no room for another (after Carbonell and Goldstein, SIGIR 1998). Likeness is the first encoder's.
    """

    def __init__(self, passages: Sequence[Passage], searches: Sequence[tuple[Search, float]], diversity: float = 0.0):
        self.passages, self.searches, self.diversity = passages, list(searches), diversity
        self._vectors = next((s.nearest.vectors for s, _ in searches if isinstance(s, VectorSearch)), None)

    def rank(self, queries: Sequence[Query], k: int, without: frozenset[int] = frozenset()) -> list[list[int]]:
        """Positions of at most k passages for every query, best first, leaving some out (those held back from training)."""
        depth = min(max(DEPTH, k) + len(without), len(self.passages))
        columns = [search.rank(queries, depth) for search, _ in self.searches]
        rankings = []
        for rows in zip(*columns, strict=True):
            kept = [[int(i) for i in row if i >= 0 and i not in without] for row in rows]
            rankings.append(self._diverse(fused_scores(kept, [weight for _, weight in self.searches], RANK_OFFSET))[:k])
        return rankings

    def _diverse(self, scored: dict[int, float]) -> list[int]:
        """The best reordered: a passage waits behind others for each of its likes before it."""
        if not scored or not self.diversity or self._vectors is None:
            return list(scored)
        pool, scores = list(scored)[:POOL], np.array(list(scored.values())[:POOL])
        vectors = self._vectors[pool].astype(np.float32)
        alike, chosen = vectors @ vectors.T > ALIKE, []
        for _ in pool:
            best = int(np.argmax(scores))
            chosen.append(pool[best])
            scores[alike[best]] *= 1 - self.diversity
            scores[best] = -1.0
        return chosen + list(scored)[POOL:]

    def find(self, query: Query, k: int) -> list[Passage]:
        """At most k passages for one query, best first."""
        return [self.passages[i] for i in self.rank([query], k)[0]]

    def for_step(self, case: Case, clip: np.ndarray, k: int) -> list[Passage]:
        """At most k passages for a step and its clip, uint8 RGB [frames, height, width, 3], best first."""
        return self.find(Query.of(case, clip), k)


def retrieve(retrievers: Mapping[str, Retriever], cases: Sequence[Case], frames: Callable[[Case], np.ndarray], k: int,
             report: Callable[[Problem], None], without: frozenset[int] = frozenset()) -> dict[str, list[RetrievalResult]]:
    """What each retriever finds for every case, ungraded, in the published format; clips are read once, some at a time.

    Args:
        frames: a case's clip, uint8 RGB [frames, height, width, 3]. without: positions of passages that are left out.
        report: is told of a clip that cannot be read; its case is asked with words alone.
    """
    found: dict[str, list[RetrievalResult]] = {name: [] for name in retrievers}
    for at in tqdm(range(0, len(cases), SOME), desc="search", unit=f"{SOME} steps"):
        some = cases[at:at + SOME]
        queries = [Query.of(case, read_clip(case, frames, report)) for case in some]
        for name, retriever in retrievers.items():
            found[name] += [_result(case, [retriever.passages[i] for i in row])
                            for case, row in zip(some, retriever.rank(queries, k, without), strict=True)]
    return found


def _result(case: Case, passages: Sequence[Passage]) -> RetrievalResult:
    return RetrievalResult.model_validate({
        "id": case.id, "query": case.query, "video_path": case.clip if isinstance(case.clip, str) else case.clip.to_dict(),
        "is_rag": True, "documents": [passage.to_dict() for passage in passages]})


# Opening what a profile names

def open_knowledge(folder: str | Path = "") -> Sequence[Passage]:
    """Passages of a folder: JSONL files, read whole, or shards (`shards.build`), read where they are asked for; "": ours."""
    folder = Path(folder or FOLDER)
    return StoredPassages(folder) if any(folder.glob("shard-*")) else load_knowledge(folder)


def open_retriever(setting: Profile, tower: Path | None = None, parts: Sequence[RetrieverPart] | None = None,
                   tuning: Sequence[Query] | None = None) -> Retriever:
    """The retriever of a profile over its knowledge base.

    Args:
        tower: weights of `lit`'s tower; None takes the shipped ones.
        parts: other searches than the profile's, to compare them as they are, without `diversity`.
        tuning: held-out queries, with clips where clips will be asked with; a large base's index is tuned on them as it is built,
            when what shards encoded was joined. None builds and joins nothing.

    Raises:
        ExpStarError: no knowledge base, no weights, or the vectors of a large base were not made yet.
    """
    passages = open_knowledge(setting.knowledge_base)
    searches: list[tuple[Search, float]] = []
    for part in parts or setting.retrievers:
        if part.name == "bm25":
            folder = passages.folder / f"bm25-{passages.sha256[:12]}" if isinstance(passages, StoredPassages) else None
            searches.append((WordSearch(passages, part, folder), part.weight))
        else:
            encoder = part_encoder(part, tower)
            searches.append((VectorSearch(encoder, _opened(passages, encoder, part, setting, tuning), part), part.weight))
    return Retriever(passages, searches, 0.0 if parts else setting.diversity)


def part_encoder(part: RetrieverPart, tower: Path | None = None) -> Encoder:
    """The encoder that a part names, with its weights; loaded once for parts that differ in their queries alone."""
    options = dict(part.options)
    needs = {"clip": "pretrained", "eva_clip": "pretrained", "viclip": "checkpoint"}.get(part.name)
    if needs and not options.get(needs):
        raise ExpStarError(f"retriever {part.name!r} has no `{needs}` in its options, expected name or path of its weights; add "
                           "it to the profile")
    if part.name == "lit" and tower is not None:
        options.setdefault("tower", str(tower))
    changed = Path(options["tower"]).stat().st_mtime_ns if "tower" in options else 0
    return _encoder(part.name, json.dumps(options, sort_keys=True), changed)


@lru_cache(maxsize=3)
def _encoder(name: str, options: str, changed: int) -> Encoder:
    return load_encoder(name, **json.loads(options))


def _opened(passages: Sequence[Passage], encoder: Encoder, part: RetrieverPart, setting: Profile,
            tuning: Sequence[Query] | None) -> Nearest:
    """Few passages are compared one by one, encoded here and now; of more, the index that was built over their stored vectors.

    Vectors that are stored are taken for few passages too; what shards encoded is joined where an index is tuned.
    """
    few, there = len(passages) <= FEW and setting.index_kind in (None, "flat"), is_merged if tuning is None else is_encoded
    if not isinstance(passages, StoredPassages) or (few and not there(passages, encoder)):
        return in_memory(passage_vectors(passages, encoder), encoder.name, content_hash(passages))
    vectors = (merged if tuning is None else merge)(passages, encoder)
    folder = index_folder(passages.folder, encoder)
    if few:
        return in_memory(vectors, encoder.name, passages.sha256)
    if tuning and not is_of(folder, vectors, encoder.name, passages.sha256):
        asked = encode_queries(encoder, part, list(tuning))
        build(vectors, folder, encoder.name, passages.sha256, setting.index_kind, asked, setting.index_recall)
    return Nearest.opened(folder, vectors, encoder.name, passages.sha256)


def content_hash(passages: Sequence[Passage]) -> str:
    """sha256 of ids, titles and texts: says which knowledge base a frozen result came from."""
    if isinstance(passages, StoredPassages):
        return passages.sha256
    content = "\x00".join(f"{p.id}\x01{p.title}\x01{p.text}" for p in passages)
    return hashlib.sha256(content.encode()).hexdigest()


def passage_vectors(passages: Sequence[Passage], encoder: Encoder) -> np.ndarray:
    """Vectors of passages in memory, float32 [n, d], kept in the cache folder by encoder and content: made once a machine."""
    digest = hashlib.sha256(f"{encoder.name}\x00{content_hash(passages)}".encode()).hexdigest()[:16]
    path = weights.cache_folder() / f"passages-{digest}.npy"
    if not path.is_file():
        vectors = encoder.encode_texts([f"{p.title}. {p.text}" for p in passages])
        check_vectors(vectors, str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished, open(unfinished, "wb") as file:
            np.save(file, vectors)
    return np.load(path, allow_pickle=False)


def text_search(passages: Sequence[Passage] | None = None) -> tuple[Sequence[Passage], VectorSearch]:
    """(passages, search by MiniLM's vectors of title and narration); None takes the embedded knowledge base."""
    passages, part = passages or load_knowledge(), RetrieverPart(name="text")
    encoder = part_encoder(part)
    return passages, VectorSearch(encoder, in_memory(passage_vectors(passages, encoder), encoder.name, ""), part)


def subjects_near(text: str, k: int = 9) -> list[str]:
    """Subjects of the k passages of the embedded base that lie nearest to a text, best first (their ids begin with them)."""
    passages, search = text_search()
    near = [passages[i] for i in search.rank([Query(text)], k)[0]]
    return [p.id.split("-")[0] for p in near if not is_hazard_card(p)]


def guess_subject(title: str) -> str:
    """Subject of a title: that of most of the nearest passages."""
    subjects = subjects_near(title)
    return max(subjects, key=subjects.count) if subjects else "science"

"""Retrieval results that stay as they were found: a hash beside each file, and a refusal where query and case differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expstar_utils.datasets import Case
from expstar_utils.files import read_json, read_jsonl, write_json, write_jsonl
from expstar_utils.records import ExpStarError, Passage, RetrievalResult


def hash_file(path: Path) -> Path:
    """Where the hash of a results file lies."""
    return Path(path).with_suffix(".hash.json")


def freeze(path: Path, results: Sequence[RetrievalResult], **about: str) -> Path:
    """Write results as JSONL, with their hash and what they came from (index, encoder, grader) beside them."""
    write_jsonl(path, results)
    write_json(hash_file(path), {"results_sha256": _digest(path)} | about)
    return Path(path)


def thaw(path: Path, queries: Mapping[str, str] | None = None) -> dict[str, RetrievalResult]:
    """Results by id, unchanged since they were frozen and found for these queries.

    Published results come without a hash; their queries are compared all the same.

    Args:
        path: a JSONL file, or a folder of such. queries: what is asked for each id; None compares nothing.

    Raises:
        ExpStarError: a file was changed since, an id stands twice, or a result was found for another query; names the first.
    """
    found: dict[str, RetrievalResult] = {}
    for file in sorted(Path(path).glob("*.jsonl")) if Path(path).is_dir() else [Path(path)]:
        if hash_file(file).is_file() and read_json(hash_file(file)).get("results_sha256") != _digest(file):
            raise ExpStarError(f"{file}: was changed since it was frozen, expected the bytes that {hash_file(file).name} names; "
                               "retrieve again")
        for result in read_jsonl(file, RetrievalResult):
            if result.id in found:
                raise ExpStarError(f"{file}: {result.id} stands twice, expected one result a query; leave one of them out")
            asked = None if queries is None else queries.get(result.id, result.query)
            if asked is not None and asked != result.query:
                raise ExpStarError(f"{file}: {result.id} was found for {result.query[:60]!r}, expected {asked[:60]!r}; retrieve "
                                   "again for these cases")
            found[result.id] = result
    return found


def finder(found: Mapping[str, RetrievalResult]) -> Callable[[Case, Any, int], list[Passage]]:
    """Function (case, clip, k) -> passages that gives what was found before, whatever is narrated now; else nothing."""
    def find(case: Case, clip: Any, k: int) -> list[Passage]:
        """The first k passages of a case's result."""
        return found[case.id].documents[:k] if case.id in found else []
    return find


def _digest(path: Path) -> str:
    if not Path(path).is_file():
        raise ExpStarError(f"{path}: no such file, expected retrieval results; run notebook 03 first")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A large knowledge base, built shard by shard: a source's documents become Parquet parts of passages, and a killed run goes on.

    python -m expstar_utils.shards enwiki.xml.bz2 --out runs/wikipedia --shard 0 --num-shards 8
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from expstar_utils.files import read_json, replacing, write_json
from expstar_utils.passages import WORDS, Document, Novelty, cut, new_ones
from expstar_utils.records import ExpStarError, Passage, Problem
from expstar_utils.sharing import check_shard
from expstar_utils.sources import documents

PART_PASSAGES, GROUP_PASSAGES = 20_000, 1000  # in a file; in a group of rows that is read together
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "title", "section", "text")])
DONE = "done.json"


@dataclass
class Shard:
    """One shard's folder: parts that are whole, and what they were made from.

    recipe: source, language, shares; parts of another recipe are refused.
    """

    folder: Path
    recipe: dict[str, Any]
    novelty: Novelty = field(default_factory=Novelty)
    rows: list[Passage] = field(default_factory=list)

    def begin(self) -> int:
        """How many documents the parts on disk hold; their passages count as seen."""
        read = 0
        for path in self.parts():
            told = metadata(path)
            if json.loads(told.get("recipe", "{}")) != self.recipe:
                raise ExpStarError(f"{path}: found a part that was made from something else, expected {self.recipe}; choose "
                                   "another `out` or remove the folder")
            read = int(told["documents"])
            for text in parquet.read_table(path, columns=["text"])["text"].to_pylist():
                self.novelty(text)
        return read

    def parts(self) -> list[Path]:
        """Finished parts, in order."""
        return sorted(self.folder.glob("part-*.parquet"))

    def write(self, documents_read: int) -> None:
        """Put the waiting passages into the next part, under a temporary name that is then changed."""
        path = self.folder / f"part-{len(self.parts()):05d}.parquet"
        columns = {name: [getattr(row, name) for row in self.rows] for name in SCHEMA.names}
        content = hashlib.sha256(json.dumps(columns, ensure_ascii=False).encode()).hexdigest()
        told = {"recipe": json.dumps(self.recipe), "documents": str(documents_read), "content_sha256": content}
        with replacing(path) as unfinished:
            parquet.write_table(pa.table(columns, SCHEMA.with_metadata(told)), unfinished, compression="zstd",
                                row_group_size=GROUP_PASSAGES)
        self.rows = []


def shard_name(shard: int, num_shards: int) -> str:
    """Folder of a shard."""
    return f"shard-{shard:03d}-of-{num_shards:03d}"


def build(source: Path, out: Path, language: str = "en", shard: int = 0, num_shards: int = 1) -> dict[str, Any]:
    """Cut a source's documents into passages below `out/<shard>`; killed at any moment, it goes on and ends with the same bytes.

    A document belongs to the shard that a checksum of its id names, so shards need not know of each other. Near-duplicates are
    left out within a shard. What could not be used is listed in `problems.json` beside the parts.

    Args:
        source: see `sources.documents`. language: of its sentences, ISO 639-1.
        shard, num_shards: which share of the documents, 0 <= shard < num_shards.

    Returns:
        The summary that `done.json` holds: documents, passages, problems, recipe.

    Raises:
        ExpStarError: no such source, a shard that is none, parts of another source, a full disk.
    """
    check_shard(shard, num_shards)
    size = Path(source).stat().st_size if Path(source).is_file() else None
    recipe = {"source": Path(source).name, "size": size, "language": language, "shard": [shard, num_shards], "words": WORDS}
    state = Shard(Path(out) / shard_name(shard, num_shards), recipe)
    if (state.folder / DONE).is_file() and (done := read_json(state.folder / DONE))["recipe"] == recipe:
        return done
    problems: list[Problem] = []
    known, number = state.begin(), 0
    mine = (d for d in documents(source, problems.append) if zlib.crc32(d.id.encode()) % num_shards == shard)
    for number, document in enumerate(mine, 1):
        if number > known:
            state.rows += new_ones(_passages(document, language, problems), state.novelty)
        if len(state.rows) >= PART_PASSAGES:
            state.write(number)
    if state.rows:
        state.write(number)
    write_json(state.folder / "problems.json", [p.model_dump() for p in problems])
    count = sum(parquet.read_metadata(path).num_rows for path in state.parts())
    done = {"documents": number, "passages": count, "problems": len(problems), "recipe": recipe}
    write_json(state.folder / DONE, done)
    return done


def _passages(document: Document, language: str, problems: list[Problem]) -> list[Passage]:
    try:
        return list(cut(document, language))
    except (RecursionError, ValueError) as error:
        problems.append(Problem(file=document.id, field="text", found=f"text that cannot be taken apart ({error})",
                                expected="an article", todo="nothing: it was left out"))
        return []


def metadata(path: Path) -> dict[str, str]:
    """What a part says of itself: recipe, documents read so far, content_sha256."""
    return {k.decode(): v.decode() for k, v in (parquet.read_schema(path).metadata or {}).items()}


class StoredPassages(Sequence[Passage]):
    """Passages of all shards below a folder, in order; they stay on disk, and a thousand around each one asked for are kept.

    Args:
        folder: with `shard-*/part-*.parquet`, as `build` leaves it.

    Raises:
        ExpStarError: no passages there, a file that is none, a shard that was not built to its end or is missing.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.parts = sorted(self.folder.glob("shard-*/part-*.parquet"))
        try:
            counts, told = [parquet.read_metadata(p).num_rows for p in self.parts], [metadata(p) for p in self.parts]
        except (pa.ArrowInvalid, OSError) as error:
            raise ExpStarError(f"{folder}: a part cannot be read ({str(error).splitlines()[0][:90]}); build its shard "
                               "again") from None
        self._check_shards()
        self.ends = list(accumulate(counts))
        self.sha256 = hashlib.sha256("".join(t["content_sha256"] for t in told).encode()).hexdigest()

    def _check_shards(self) -> None:
        there = sorted(p.name for p in self.folder.glob("shard-*") if (p / DONE).is_file())
        count = int(there[0].rsplit("-", 1)[1]) if there else 1
        wanted = [shard_name(i, count) for i in range(count)]
        if there != wanted or not self.parts:
            missing = sorted(set(wanted) - set(there)) or ["passages in its parts"]
            raise ExpStarError(f"{self.folder}: {missing[0]} is not there as a whole, expected {len(wanted)} finished shards of "
                               "one build; run `python -m expstar_utils.shards` for it")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, position: int) -> Passage:
        if not 0 <= position < len(self):
            raise IndexError(position)
        part = bisect_right(self.ends, position)
        row = position - (self.ends[part - 1] if part else 0)
        return Passage(**_group(str(self.parts[part]), row // GROUP_PASSAGES)[row % GROUP_PASSAGES])

    def __iter__(self) -> Iterator[Passage]:
        for path in self.parts:
            for batch in parquet.ParquetFile(path).iter_batches(GROUP_PASSAGES):
                yield from (Passage(**row) for row in batch.to_pylist())


@lru_cache(maxsize=64)
def _group(path: str, number: int) -> list[dict[str, Any]]:
    return parquet.ParquetFile(path).read_row_group(number).to_pylist()


def main() -> None:
    """Build one shard from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="*.xml, *.parquet, *.jsonl (also .bz2, .gz, .xz), or a folder of notes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--language", default="en")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--num-shards", type=int, default=1)
    given = parser.parse_args()
    try:
        print(json.dumps(build(given.source, given.out, given.language, given.shard, given.num_shards)))
    except ModuleNotFoundError as error:
        raise SystemExit(f"building a knowledge base needs the package {error.name!r}; pip install -e '.[knowledge]'") from None
    except ExpStarError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()

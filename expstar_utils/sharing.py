"""A job's share of a stage: every n-th unit of its work, and how the files of a share are told from those of the whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from expstar_utils.records import ExpStarError

T = TypeVar("T")
_MARK = re.compile(r"(?:^|\.)shard-\d+-of-\d+(?=\.|$)")


def check_shard(shard: int, num_shards: int) -> None:
    """Raises ExpStarError for a shard that is none: `shard` counts from 0."""
    if not 0 <= shard < num_shards:
        raise ExpStarError(f"shard is {shard} of {num_shards}, expected 0 to {num_shards - 1}; correct it")


def share(units: Sequence[T], shard: int, num_shards: int) -> list[T]:
    """Every num_shards-th unit, from number `shard` on: none where there are fewer units than that.

    Raises:
        ExpStarError: a shard that is none.
    """
    check_shard(shard, num_shards)
    return list(units[shard::num_shards])


def shard_mark(shard: int, num_shards: int) -> str:
    """What stands before the ending in the name of a shard's file, such as "shard-0-of-4."; "" for the whole."""
    return f"shard-{shard}-of-{num_shards}." if num_shards > 1 else ""


def is_shard(path: Path) -> bool:
    """Whether a file is a shard's, by its name."""
    return bool(_MARK.search(Path(path).name))


def whole_files(folder: Path, pattern: str = "*.jsonl") -> list[Path]:
    """Files of a folder that match a pattern, sorted, without those of shards."""
    return sorted(path for path in Path(folder).glob(pattern) if not is_shard(path))


def shard_files(whole: Path) -> list[Path]:
    """The files in which shards left their share of a file, sorted: `<name>.shard-<i>-of-<n><suffix>` beside `<name><suffix>`."""
    whole = Path(whole)
    return sorted(path for path in whole.parent.glob(f"*{whole.suffix}")
                  if is_shard(path) and _MARK.sub("", path.name) == whole.name)

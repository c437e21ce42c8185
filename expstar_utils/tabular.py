"""Training rows as a table: Hugging Face data sets and Parquet files, and back without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value
from pyarrow.parquet import ParquetWriter

from expstar_utils.files import replacing
from expstar_utils.records import Sample

ROWS_AT_ONCE = 500
FEATURES = Features({
    "id": Value("string"),
    "messages": List({"role": Value("string"), "content": Value("string")}),
    "videos": List({"video": Value("string"), "start": Value("float64"), "end": Value("float64")}),
    "rejected_response": Value("string"),
    "more": Value("string"),  # JSON of the keys that no format names, and of the order of all
})


def to_dataset(samples: Sequence[Sample]) -> Dataset:
    """Rows as a Hugging Face data set with `FEATURES`; a clip that is a file has no start and no end."""
    rows = [_flat(sample) for sample in samples]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)


def to_splits(parts: Mapping[str, Sequence[Sample]]) -> DatasetDict:
    """Rows by split as a `DatasetDict`, ready for `save_to_disk` or a hub."""
    return DatasetDict({split: to_dataset(samples) for split, samples in parts.items()})


def from_dataset(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """The rows of a table made by `to_dataset`, as they were."""
    return [_nested(row) for row in rows]


def write_parquet(path: Path, samples: Iterable[Sample]) -> Path:
    """Write a Parquet file, some rows at a time, under a temporary name and rename it.

    Raises:
        ExpStarError: the file cannot be written; what was there before is unchanged.
    """
    rest = iter(samples)
    with replacing(path) as unfinished, ParquetWriter(str(unfinished), FEATURES.arrow_schema) as writer:
        while rows := list(islice(rest, ROWS_AT_ONCE)):
            writer.write_table(to_dataset(rows).with_format("arrow")[:])
    return path


def read_parquet(path: Path) -> list[Sample]:
    """Rows of a Parquet file written by `write_parquet`."""
    return from_dataset(Dataset.from_parquet(str(path)))


def _flat(sample: Sample) -> dict[str, Any]:
    row = sample.to_dict()
    videos = [{"video": v, "start": None, "end": None} if isinstance(v, str) else {k: v[k] for k in ("video", "start", "end")}
              for v in row["videos"]]
    messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    rest = {"keys": list(row), "row": {k: v for k, v in row.items() if k not in FEATURES},
            "videos": [None if isinstance(v, str) else _kept(v, ("video",)) for v in row["videos"]],
            "messages": [_kept(m, ("role", "content")) for m in row["messages"]]}
    return {"id": row["id"], "messages": messages, "videos": videos, "rejected_response": row.get("rejected_response"),
            "more": json.dumps(rest, ensure_ascii=False)}


def _kept(item: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """What a table's columns do not hold exactly: other keys, and whether a time was written 5 or 5.0."""
    return {"keys": list(item)} | {k: v for k, v in item.items() if k not in known}


def _nested(flat: Mapping[str, Any]) -> Sample:
    rest = json.loads(flat["more"])
    videos = [v["video"] if more is None else _restored(v | more, more["keys"]) for v, more in zip(flat["videos"], rest["videos"],
                                                                                                strict=True)]
    messages = [_restored(m | more, more["keys"]) for m, more in zip(flat["messages"], rest["messages"], strict=True)]
    whole = dict(flat) | rest["row"] | {"videos": videos, "messages": messages}
    return Sample.model_validate(_restored(whole, rest["keys"]))


def _restored(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys}

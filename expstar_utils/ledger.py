"""The ledger: one table of what every stage of every run came to, gathered from the metrics files, which stay the truth.

    python -m expstar_utils.ledger [RUNS] [--run NAME] [--stage 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import pyarrow as pa
from pyarrow import parquet
from pydantic import Field

from expstar_utils.files import read_record, replacing
from expstar_utils.records import ExpStarError, Record
from expstar_utils.runlog import EARLIER

FILE, RUNS = "ledger.parquet", "runs"
EVALUATION = "6_metrics"
MADE = ("adapter_sha256", "tower_sha256")  # weights that a stage made, among its metrics
COLUMNS = pa.schema([
    ("run", pa.string()), ("stage", pa.string()), ("name", pa.string()), ("profile", pa.string()), ("seed", pa.int64()),
    ("smoke", pa.bool_()), ("git_sha", pa.string()), ("dirty", pa.bool_()), ("data_sha256", pa.string()),
    ("weights_sha256", pa.string()), ("wall_s", pa.float64()), ("total_s", pa.float64()), ("peak_memory_mib", pa.float64()),
    ("when", pa.timestamp("us", "UTC")), ("parameters", pa.string()), ("metrics", pa.string()), ("file", pa.string())])
Row = dict[str, Any]


class Parameters(Record):
    """What the ledger has a column for, of a notebook's parameters."""

    profile: str = ""
    seed: int | None = Field(None, ge=-2**63, lt=2**63)
    smoke: bool | None = None


class Result(Record):
    """A metrics file, as `runlog.Stage.finish` writes it; files of earlier versions lack some of it."""

    stage: str
    parameters: Parameters
    metrics: dict[str, Any]
    git_sha: str = ""
    hashes: dict[str, str] = {}
    wall_s: float | None = None
    total_s: float | None = None
    peak_memory_mib: float | None = None


def home(run: Path) -> Path:
    """The folder whose ledger a run stands in: the nearest one above it that is called `runs`, else the run alone."""
    run = Path(os.path.abspath(run))
    return next((path for path in run.parents if path.name == RUNS), run)


def name_of(run: Path) -> str:
    """How a run is called in the ledger of its `home`."""
    run = Path(os.path.abspath(run))
    return run.relative_to(home(run)).as_posix() if home(run) != run else run.name


def gather(runs: Path) -> tuple[list[Row], list[str]]:
    """Rows of all metrics files below a folder; links to other folders and files are not followed, so that each counts once.

    Returns:
        (rows, problems), rows by run, stage and name. Keys: those of `COLUMNS`, and `metrics.<name>` for every number among the
        metrics. An evaluation has a row more for each file it scored, with that one's numbers; its seconds and memory stand
        in the first alone. Problems: a sentence for each file that is there and cannot be used.
    """
    rows, problems = [], []
    for path in _files(Path(runs)):
        try:
            rows += _rows(Path(runs), path)
        except ExpStarError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}), expected metrics; check the path")
    return sorted(rows, key=lambda row: (row["run"], row["stage"], row["name"], row["file"])), problems


def rebuild(runs: Path) -> tuple[list[Row], list[str]]:
    """`gather`, written to `<runs>/ledger.parquet`; the same files give the same bytes. A folder that takes none is a problem."""
    rows, problems = gather(runs)
    try:
        write(Path(runs) / FILE, rows)
    except ExpStarError as error:
        problems.append(str(error))
    return rows, problems


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write a ledger as Parquet.

    Raises:
        ExpStarError: the file cannot be written; what was there before is untouched.
    """
    numbers = sorted({key for row in rows for key in row} - set(COLUMNS.names))
    schema = pa.schema([*COLUMNS, *((name, pa.float64()) for name in numbers)])
    with replacing(path) as unfinished:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema), str(unfinished))
    return Path(path)


def _files(runs: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(runs):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != EARLIER)
        for name in sorted(names):
            path = Path(folder) / name
            if (name == "metrics.json" or name.endswith(".metrics.json") and not name.startswith(".")) and not path.is_symlink():
                yield path


def _rows(runs: Path, path: Path) -> list[Row]:
    result, place = read_record(path, Result), path.relative_to(runs)
    folders, stem = [_text(part) for part in place.parent.parts], _text(path.name.removesuffix("metrics.json").removesuffix("."))
    at = max((i for i, part in enumerate(folders) if part == result.stage), default=len(folders) - 1)
    given, made = result.parameters, next((result.metrics[key] for key in MADE if result.metrics.get(key)), None)
    sha = result.git_sha.removesuffix("-dirty")
    row = {"run": "/".join(folders[:max(at, 0)]) or _text(runs.resolve().name), "stage": folders[at] if folders else result.stage,
           "name": "/".join([*folders[at + 1:], *filter(None, [stem])]), "profile": _text(given.profile), "seed": given.seed,
           "smoke": given.smoke, "git_sha": _text(sha), "dirty": sha != result.git_sha,
           "data_sha256": _hash(result.hashes.get("data") or result.metrics.get("data_sha256")),
           "weights_sha256": _hash(made or result.hashes.get("weights")), "wall_s": result.wall_s, "total_s": result.total_s,
           "peak_memory_mib": result.peak_memory_mib,
           "when": datetime.fromtimestamp(path.stat().st_mtime_ns // 1000 / 1e6, UTC), "parameters": _json(given.to_dict()),
           "file": _text(place.as_posix())}
    if row["stage"] != EVALUATION:
        return [row | _measured(result.metrics)]
    scored = _scored(result.metrics)
    rest = {key: value for key, value in result.metrics.items() if key not in ("reports", "text")}
    unmeasured = dict.fromkeys(("wall_s", "total_s", "peak_memory_mib"))
    return [row | _measured(rest), *(row | unmeasured | {"name": _text(name)} | _measured(its) for name, its in scored.items())]


def _scored(metrics: Mapping[str, Any]) -> dict[str, Row]:
    """Numbers of every file of predictions that notebook 06 scored: what is true, and the text metrics of all its rows."""
    found: dict[str, Row] = {}
    for name, report in _mapping(metrics.get("reports")).items():
        found[name] = dict(_mapping(report))
    for name, text in _mapping(metrics.get("text")).items():
        lines = _mapping(text).get("lines")
        line = _mapping(lines[0]) if isinstance(lines, list) and lines else {}
        found[name] = found.get(name, {}) | {key: value for key, value in line.items() if key not in ("group", "name")}
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _measured(metrics: Mapping[str, Any]) -> Row:
    numbers = {f"metrics.{_text(key)}": float(value) for key, value in metrics.items() if _is_number(value)}
    return {"metrics": _json(metrics)} | numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < 1e300


def _hash(value: Any) -> str | None:
    return _text(value) if isinstance(value, str) else None


def _json(value: Any) -> str:
    return _text(json.dumps(value, ensure_ascii=False))


def _text(value: str) -> str:
    """Text that can be written: names of files and JSON may hold halves of characters."""
    return value.encode("utf8", "replace").decode("utf8")


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """Rows as lines of text, newest last, cut to a width in letters; None cuts nothing."""
    heads = ["run", "stage", "name", "profile", "seed", "code", "data", "weights", "s", "MiB", "when (UTC)", "metrics"]
    lines = [heads, *map(_cells, sorted(rows, key=lambda row: row["when"]))]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    padded = ([cell + " " * (most - _width(cell)) for cell, most in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(_cut("  ".join(line).rstrip(), width) for line in padded)


def _cells(row: Row) -> list[str]:
    numbers = " ".join(f"{key.removeprefix('metrics.')}={value:.4g}" for key, value in row.items() if key.startswith("metrics."))
    hashes = [(row[key] or "")[:7] for key in ("data_sha256", "weights_sha256")]
    cells = [row["run"], row["stage"], row["name"], row["profile"], row["seed"], row["git_sha"][:7] + "*" * row["dirty"], *hashes,
             _rounded(row["wall_s"]), _rounded(row["peak_memory_mib"]), f"{row['when']:%Y-%m-%d %H:%M}", numbers]
    return [_printable("" if cell is None else str(cell)) for cell in cells]


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _width(text: str) -> int:
    return sum(1 + (east_asian_width(letter) in "WF") for letter in text)


def _cut(text: str, width: int | None) -> str:
    if width is None or _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def _plain(row: Row) -> Row:
    """A row as JSON can say it."""
    numbers = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
    return numbers | {"when": row["when"].isoformat(), "parameters": json.loads(row["parameters"])}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the ledger anew and print it, newest last; what cannot be read is said, and makes the status 1."""
    parser = argparse.ArgumentParser(prog="python -m expstar_utils.ledger", description=main.__doc__)
    parser.add_argument("runs", nargs="?", type=Path, default=Path(RUNS), metavar="RUNS")
    parser.add_argument("--run", help="rows of this run alone")
    parser.add_argument("--stage", help="rows of stages that begin with this, such as 5")
    parser.add_argument("--json", action="store_true", help="a JSON array")
    given = parser.parse_args(argv)
    if not given.runs.is_dir():
        print(f"{given.runs}: no such folder, expected one of runs; check the path", file=sys.stderr)
        return 2
    rows, problems = rebuild(given.runs)
    rows = [row for row in rows if given.run in (None, row["run"]) and row["stage"].startswith(given.stage or "")]
    if given.json:
        print(json.dumps([_plain(row) for row in sorted(rows, key=lambda row: row["when"])], ensure_ascii=False))
    else:
        print(table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

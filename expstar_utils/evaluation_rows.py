"""References and predictions out of the published files, row by row; a row that cannot be scored is named with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expstar_utils.records import DISCIPLINES, ExpStarError, Problem
from expstar_utils.sharing import whole_files

# the keys of the published set that are no subjects of the paper's 21
PUBLISHED_SUBJECTS = {"physics": "Science", "kid": "Science", "electronic": "Engineering", "material": "Engineering"}
DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects} | PUBLISHED_SUBJECTS
PREDICTION, REFERENCE = ("response", "pred.feedback"), ("labels", "gt.feedback")
_MISSING = object()


@dataclass(frozen=True)
class TextPair:
    """One reference and what was written for it; data_type and subject are empty where no file says them."""

    id: str
    prediction: str
    reference: str
    data_type: str = ""
    subject: str = ""

    @property
    def discipline(self) -> str:
        """Discipline of the subject; empty where it has none."""
        return DISCIPLINE_OF.get(self.subject, "")


def prediction_files(path: Path) -> list[Path]:
    """The file itself, or the JSON and JSONL files right below a folder, by name; those of shards are left out.

    Raises:
        ExpStarError: no such file, or a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = [p for p in whole_files(path, "*") if p.suffix.lower() in (".json", ".jsonl") and not p.name.startswith(".")]
    if not found:
        raise ExpStarError(f"{path}: found no .json or .jsonl file, expected predictions; name the folder that notebook 05 wrote")
    return found


def read_pairs(predictions: Path, references: Path | None = None,
               subjects: Mapping[str, str] | None = None) -> tuple[list[TextPair], list[Problem]]:
    """Rows that can be scored, in the order of the files, and the rows that cannot.

    A row is `{id?, response, labels}` or `{gt: {feedback}, pred: {feedback}, data_type?}`, both in one file if need be. An
    empty prediction stays: it scores zero. Of rows with one id the first counts.

    Args:
        predictions: JSON list, JSONL, or a folder of such files that make one set (one by one: `prediction_files`).
        references: the same for references that stand apart; rows meet by id.
        subjects: id -> subject, for files that do not say it.

    Raises:
        ExpStarError: a file is missing or is neither JSON nor JSONL.
    """
    problems: list[Problem] = []
    wanted = _by_id(references, problems) if references else None
    pairs: list[TextPair] = []
    seen: set[str] = set()
    for place, row in _rows(predictions, problems):
        name = _id(row, place)
        if name in seen:
            problems.append(_bad(place, "id", f"{name!r}, which stands further up", "one row an id", "the first row counts"))
            continue
        seen.add(name)
        values = [_text(place, row, PREDICTION, problems), _reference(place, row, name, wanted, problems)]
        if None not in values:
            pairs.append(_pair(name, *values, row, subjects or {}))
    unused = [name for name in wanted or {} if name not in seen]
    problems += [_bad(str(references), "id", f"{name!r} without a prediction", "a prediction for every reference",
                      "write one, or drop the reference") for name in unused]
    return pairs, problems


def _pair(name: str, prediction: str, reference: str, row: Mapping[str, Any], subjects: Mapping[str, str]) -> TextPair:
    data_type = "" if row.get("data_type") is None else str(row["data_type"])
    subject = subjects.get(name) or row.get("subject") or (data_type if data_type in DISCIPLINE_OF else "")
    return TextPair(_whole(name), prediction, reference, _whole(data_type), _whole(str(subject)))


def _whole(text: str) -> str:
    """Text with half characters, which neither tokenizers nor files take, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bad(place: str, field: str, found: str, expected: str, todo: str) -> Problem:
    return Problem(file=place, field=field, found=found, expected=expected, todo=todo)


# Files

def _rows(path: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every JSON object in a file or folder."""
    for file in prediction_files(path):
        for place, value in _values(file, problems):
            if isinstance(value, dict):
                yield place, value
            else:
                problems.append(_bad(place, "row", type(value).__name__, "a JSON object", "the row was left out, correct it"))


def _values(path: Path, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    text = _read(path)
    is_list = text.lstrip().startswith("[")
    whole = _loaded(text) if is_list or path.suffix.lower() == ".json" else _MISSING
    if isinstance(whole, list | dict):
        yield from ((f"{path}, row {n}", v) for n, v in enumerate(whole if is_list else [whole], 1))
        return
    values = [(f"{path}, line {n}", _loaded(line)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if values and (is_list or all(value is _MISSING for _, value in values)):
        raise ExpStarError(f"{path}: found text that is not JSON, expected a JSON list or one JSON object a line; name a file of "
                           "predictions")
    for place, value in values:
        if value is _MISSING:
            problems.append(_bad(place, "line", "not JSON", "one JSON object", "the line was left out (is it cut off?)"))
        else:
            yield place, value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file; give a file of predictions, or run the notebook that writes it") from None
    except OSError as error:
        raise ExpStarError(f"{path}: cannot be read ({error.strerror}), expected JSON or JSONL; check the path") from None
    except UnicodeDecodeError as error:
        raise ExpStarError(f"{path}: found bytes that are not UTF-8 ({error.reason}), expected JSON or JSONL in UTF-8; "
                           "save it so") from None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _MISSING


# Fields

def _id(row: Mapping[str, Any], place: str) -> str:
    """The row's id, its place when it has none: then nothing else can have it."""
    return str(row["id"]) if isinstance(row.get("id"), str | int) and row["id"] != "" else place


def _field(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """(name, value) of the first of the dotted names that the row has."""
    for name in names:
        value: Any = row
        for part in name.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            return name, value
    return " or ".join(names), _MISSING


def _text(place: str, row: Mapping[str, Any], names: Sequence[str], problems: list[Problem]) -> str | None:
    """The text under one of the names; None when it cannot be scored, which is a problem."""
    field, value = _field(row, names)
    if isinstance(value, str) and (value.strip() or names == PREDICTION):
        return _whole(value)
    if value is _MISSING or value is None:
        found = "missing"
    elif isinstance(value, str):
        found = "empty"
    else:
        found = "NaN" if isinstance(value, float) and math.isnan(value) else f"of type {type(value).__name__}"
    problems.append(_bad(place, field, found, "a text", "the row was left out, fill it in or drop it"))
    return None


def _reference(place: str, row: Mapping[str, Any], name: str, wanted: Mapping[str, str | None] | None,
               problems: list[Problem]) -> str | None:
    if wanted is None:
        return _text(place, row, REFERENCE, problems)
    if name not in wanted:
        found = "missing" if name == place else f"{name!r} without a reference"
        problems.append(_bad(place, "id", found, "an id that a reference has", "the row was left out, add the reference"))
    return wanted.get(name)


def _by_id(path: Path, problems: list[Problem]) -> dict[str, str | None]:
    """Reference of each id; None where it cannot be scored, which was said."""
    found: dict[str, str | None] = {}
    for place, row in _rows(path, problems):
        name = _id(row, place)
        if name == place:
            problems.append(_bad(place, "id", "missing", "an id that a prediction has", "the reference was left out"))
        elif name in found:
            problems.append(_bad(place, "id", f"{name!r}, which stands further up", "one row an id", "the first row counts"))
        else:
            found[name] = _text(place, row, REFERENCE, problems)
    return found

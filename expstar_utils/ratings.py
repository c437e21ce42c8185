"""Human ratings of commentaries: one JSONL file a rater, and how far the raters agree."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from expstar_utils.files import append_jsonl, read_jsonl
from expstar_utils.records import ExpStarError, Record

FOLDER = "8_ratings"  # below a run
ASPECTS = ("correctness", "clarity", "safety")
SCALE = (1, 2, 3, 4, 5)
LONGEST_NAME = 200  # bytes; file systems take 255
Score = int | None
Unit = tuple[str, str, str]


class Rating(Record):
    """What one rater says of one commentary; a later row about the same commentary replaces an earlier one.

    id: the case. run: label of the prediction file. text: `text_hash` of what was rated. Scores 1 (bad) to 5 (good), None for
    not given. at: when, ISO 8601, UTC.
    """

    id: str
    run: str
    text: str
    rater: str
    correctness: Score = Field(None, ge=1, le=5)
    clarity: Score = Field(None, ge=1, le=5)
    safety: Score = Field(None, ge=1, le=5)
    note: str = ""
    at: str = ""

    @property
    def unit(self) -> Unit:
        """What was rated: case, run, and the text itself, so that a prediction made anew is rated anew."""
        return self.id, self.run, self.text

    @property
    def empty(self) -> bool:
        """Whether nothing is said in it: all was taken back."""
        return not self.note.strip() and all(getattr(self, aspect) is None for aspect in ASPECTS)


def text_hash(response: str) -> str:
    """Twelve hex digits of a commentary's sha256."""
    return hashlib.sha256(response.encode("utf8", "surrogatepass")).hexdigest()[:12]


def rater_file(folder: Path, rater: str) -> Path:
    """File of a rater below `folder`: letters of any script stay, every other character is written as its bytes in hex.

    Case and blanks around the name do not count; two other names never share a file.

    Raises:
        ExpStarError: no name, or one that makes no file name.
    """
    name = unicodedata.normalize("NFC", clean(rater)).casefold()
    safe = re.sub(r"[^\w-]", lambda m: "".join(f"%{byte:02x}" for byte in m[0].encode("utf8")), name)
    if not name or len(safe.encode("utf8")) > LONGEST_NAME:
        raise ExpStarError(f"rater: found {rater[:80]!r}, expected a name of 1 to {LONGEST_NAME} bytes; give a name or initials")
    return Path(folder) / f"{safe}.jsonl"


def clean(name: str) -> str:
    """A name with single blanks and nothing in it that no file can hold (half a character pair)."""
    return " ".join(name.encode("utf8", "replace").decode("utf8").split())


class RatingBook:
    """Ratings of one rater: everything said before is there, every change is on disk at once.

    Raises:
        ExpStarError: see `rater_file`, `files.read_jsonl`.
    """

    def __init__(self, folder: Path, rater: str):
        self.rater, self.path = clean(rater), rater_file(folder, rater)
        self._latest: dict[Unit, Rating] = {}
        self._size = -1
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if another window wrote to it."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size != self._size:
            rows = read_jsonl(self.path, Rating) if size else ()
            self._latest, self._size = {row.unit: row for row in rows}, size

    def get(self, case_id: str, run: str, response: str) -> Rating | None:
        """What the rater said of a commentary; None when nothing."""
        rating = self._latest.get((case_id, run, text_hash(response)))
        return None if rating is None or rating.empty else rating

    @property
    def ratings(self) -> list[Rating]:
        """Everything the rater said, the latest of each commentary."""
        return [rating for rating in self._latest.values() if not rating.empty]

    def save(self, case_id: str, run: str, response: str, **said: Any) -> Rating:
        """Append a rating; what is the same as before is not written again.

        Args:
            said: `correctness`, `clarity`, `safety` (1 to 5 or None), `note`; what is left out stays as it was.
        """
        self.refresh()
        if "note" in said:
            said["note"] = said["note"].encode("utf8", "replace").decode("utf8")
        unit = (case_id, run, text_hash(response))
        before = self._latest.get(unit) or Rating(id=case_id, run=run, text=unit[2], rater=self.rater)
        rating = Rating.model_validate(before.model_dump() | said)
        if rating.model_dump() != before.model_dump():
            rating = rating.model_copy(update={"at": datetime.now(UTC).isoformat(timespec="seconds")})
            append_jsonl(self.path, rating.model_dump())
            self._latest[unit], self._size = rating, self.path.stat().st_size
        return rating


def read_ratings(folder: Path) -> tuple[list[Rating], list[str]]:
    """The latest rating of every rater and commentary in `folder`, without those taken back; and a sentence for each bad file.

    Of a bad file, what stands before the bad line counts.
    """
    found, problems = [], []
    for path in sorted(Path(folder).glob("*.jsonl")):
        latest: dict[Unit, Rating] = {}
        try:
            for row in read_jsonl(path, Rating):
                latest[row.unit] = row
        except ExpStarError as error:
            problems.append(f"{error}; what stands before it counts")
        found += [rating for rating in latest.values() if not rating.empty]
    return found, problems


def agreement(ratings: Iterable[Rating]) -> dict[str, dict[str, float | int | None]]:
    """Of each aspect, how far the raters agree.

    Returns:
        `{aspect: {ratings, raters, shared, mean, alpha}}`. shared: commentaries with two or more raters. mean: of all scores.
        alpha: Krippendorff's, ordinal (1: as one, 0: as by chance), None where it is not defined: nothing shared, or one and the
        same score everywhere.
    """
    rows = list(ratings)
    return {aspect: _agreement([(_rater(r), r.unit, score) for r in rows if (score := getattr(r, aspect)) is not None])
            for aspect in ASPECTS}


def _rater(rating: Rating) -> str:
    return rater_file(Path(), rating.rater).name  # one file, one rater


def _agreement(scores: list[tuple[str, Unit, int]]) -> dict[str, float | int | None]:
    raters, units = ({key: i for i, key in enumerate(dict.fromkeys(row[k] for row in scores))} for k in (0, 1))
    table = np.full((len(raters), len(units)), np.nan)
    for rater, unit, score in scores:
        table[raters[rater], units[unit]] = score
    shared = int(((~np.isnan(table)).sum(0) > 1).sum())
    return {"ratings": len(scores), "raters": len(raters), "shared": shared,
            "mean": float(np.nanmean(table)) if scores else None, "alpha": _alpha(table) if shared else None}


def _alpha(table: np.ndarray) -> float | None:
    import krippendorff
    with np.errstate(invalid="ignore"):
        value = float(krippendorff.alpha(table, level_of_measurement="ordinal", value_domain=list(SCALE)))
    return None if math.isnan(value) else value


def scores_by_run(ratings: Iterable[Rating]) -> dict[str, dict[str, float | int | None]]:
    """`{run: {commentaries, correctness, clarity, safety}}`: how many were rated, and the mean of each aspect's scores."""
    grouped: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        grouped[rating.run].append(rating)
    def mean(rows: list[Rating], aspect: str) -> float | None:
        given = [score for row in rows if (score := getattr(row, aspect)) is not None]
        return sum(given) / len(given) if given else None
    return {run: {"commentaries": len({r.unit for r in rows})} | {aspect: mean(rows, aspect) for aspect in ASPECTS}
            for run, rows in sorted(grouped.items())}

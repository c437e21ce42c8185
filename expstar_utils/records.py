"""The file formats: what every stage reads and writes, atomically, and how bad input is reported."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, field_validator, model_serializer, model_validator

DISCIPLINES = {
    "Science": ("chemistry", "electromagnetics", "thermodynamics", "dynamics", "biology", "ecology", "optics"),
    "Healthcare": ("disease_models", "molecular_genetics", "protein_biochemistry", "animal_behavior", "cell_microscopy",
                   "neurophysiology", "immuno_engineering"),
    "Engineering": ("telematics", "material_engineering", "environics", "geotechnics", "thermofluids",
                    "electrical_engineering", "civil"),
}
SUBJECTS = tuple(s for subjects in DISCIPLINES.values() for s in subjects)
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)$")


class ExpStarError(Exception):
    """Something is wrong with the input; the message is one sentence meant for the user."""


def parse_time(value: str | float | int) -> float:
    """Seconds from `H:MM:SS`, `H:MM:SS.mmm`, `MM:SS` or plain seconds.

    Returns:
        float >= 0.

    Raises:
        ValueError: not a finite, non-negative time.
    """
    text = str(value).strip().replace(",", ".")
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = int(match[1] or 0), int(match[2]), float(match[3])
        return 3600 * hours + 60 * minutes + seconds
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"found {value!r}, expected a time as H:MM:SS or seconds") from None
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"found {value!r}, expected a time of zero or more seconds")
    return seconds


def format_time(seconds: float) -> str:
    """`H:MM:SS`, with milliseconds only where there are some: 16.0 -> "0:00:16", 16.25 -> "0:00:16.250"."""
    ms = round(seconds * 1000)
    clock = f"{ms // 3_600_000}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}"
    return clock if ms % 1000 == 0 else f"{clock}.{ms % 1000:03d}"


class Record(BaseModel):
    """A row of a file: keeps unknown keys and the order of keys, so that reading and writing changes nothing."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    _keys: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _remember_key_order(cls, value: Any, handler: Any) -> Self:
        record = handler(value)
        if isinstance(value, dict):
            record._keys = tuple(value)
        return record

    @model_serializer(mode="wrap")
    def _in_key_order(self, handler: Any) -> dict[str, Any]:
        data = handler(self)
        return {key: data[key] for key in self._keys if key in data} | data

    def to_dict(self) -> dict[str, Any]:
        """Plain data as it stood in the file: keys in their order, none added."""
        return self.model_dump(exclude_unset=True)


class _Timed(Record):
    startTime: str | float
    endTime: str | float

    @field_validator("startTime", "endTime")
    @classmethod
    def _is_time(cls, value: str | float) -> str | float:
        parse_time(value)
        return value

    @property
    def start_s(self) -> float:
        return parse_time(self.startTime)

    @property
    def end_s(self) -> float:
        return parse_time(self.endTime)


class Subtitle(_Timed):
    """One line of speech, with the notes that an annotator attached to it."""

    id: int
    text: str = ""
    text_en: str = ""
    step: int | None = None
    safety_zh: str | None = None
    safety_en: str | None = None
    principle_zh: str | None = None
    principle_en: str | None = None
    equation: str | None = None


class AsrFile(Record):
    """Raw speech file of one video."""

    subtitles: list[Subtitle]


class RawStep(_Timed):
    """One step of the raw step file."""

    step: int
    step_zh: str = ""
    step_en: str = ""
    ASR_id: list[int] = []


class StepsFile(Record):
    """Raw step file of one video."""

    summary: str = ""
    title_zh: str | None = None
    title_en: str | None = None
    steps: list[RawStep]


class Pair(Record):
    """One step's clip with its texts and annotations (`<NN>-<title>_step_<i>.json`)."""

    title_zh: str = ""
    title_en: str = ""
    original_video: str
    clip_start: str | float
    clip_end: str | float
    step_zh: str = ""
    step_en: str = ""
    step_number: int
    clip_video_path: str
    subject: str
    annotations: list[Subtitle]


class VirtualClip(Record):
    """A stretch of a video file that nobody cut out: seconds from `start` to `end`."""

    video: str
    start: float
    end: float


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sample(Record):
    """A training or test row: 3 messages (baseline) or 5 (ExpStar); `rejected_response` makes it a preference row."""

    messages: list[Message]
    videos: list[str | VirtualClip]
    id: str
    rejected_response: str | None = None


class Passage(Record):
    """A passage of the knowledge base; `relevant` is its grade (1-5) in a retrieval result."""

    id: str
    title: str = ""
    section: str = ""
    text: str
    relevant: int | None = None


class RetrievalResult(Record):
    """What was found for one query."""

    id: str
    query: str
    video_path: str | VirtualClip
    is_rag: bool
    documents: list[Passage]


class Prediction(Record):
    """What the model wrote for one row, and how it came to it."""

    id: str
    response: str
    full_dialogue: str
    labels: str = ""
    evaluation_data: dict[str, Any] = {}


class EvaluationRow(Record):
    """Reference and prediction side by side."""

    gt: dict[str, str]
    pred: dict[str, str]
    data_type: str | None = None


class Problem(BaseModel):
    """One bad item: where, what was found, what was expected, what to do."""

    file: str
    field: str
    found: str
    expected: str
    todo: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field} is {self.found}, expected {self.expected}; {self.todo}"


R = TypeVar("R", bound=Record)


def write_text(path: Path, text: str) -> Path:
    """Write a text file under a temporary name and rename it: readers see the old file or the new one, whole.

    Raises:
        ExpStarError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf8", newline="", dir=path.parent, prefix=f".{path.name[:40]}.",
                                         delete=False) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise ExpStarError(f"{path}: cannot be written ({error.strerror}); free space or choose another run_dir, "
                           "what was there before is unchanged") from error
    return path


def write_json(path: Path, data: Any, indent: int | None = 2) -> Path:
    """Write JSON atomically; records are written as they were read."""
    plain = data.to_dict() if isinstance(data, Record) else data
    return write_text(path, json.dumps(plain, ensure_ascii=False, indent=indent, default=str))


def dump_line(row: Record | dict) -> str:
    """One JSONL line without its line end."""
    return json.dumps(row.to_dict() if isinstance(row, Record) else row, ensure_ascii=False)


def write_jsonl(path: Path, rows: Iterable[Record | dict]) -> Path:
    """Write JSONL atomically."""
    return write_text(path, "".join(dump_line(row) + "\n" for row in rows))


def append_jsonl(path: Path, row: Record | dict) -> None:
    """Append one whole line; a torn last line of a killed writer is dropped first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(dump_line(row).encode("utf8") + b"\n")
        file.flush()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ExpStarError: missing, not UTF-8 or not JSON; names the file and the place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file; run the notebook that writes it first") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ExpStarError(f"{path}: found text that is not JSON ({error}), expected one JSON value") from None


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record from a JSON file; see `read_json`. A wrong field is named in the error."""
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise ExpStarError(f"{path}: {describe(error)}") from None


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Records of a JSONL file, one by one. A torn last line (no line end, no JSON) is left out.

    Raises:
        ExpStarError: names file, line and field of the first bad line.
    """
    try:
        file = open(path, encoding="utf-8-sig")  # noqa: SIM115  (closed below; opening fails before the first row)
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file; run the notebook that writes it first") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate(json.loads(line))
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    return
                raise ExpStarError(f"{path}, line {number}: found text that is not JSON ({error})") from None
            except ValidationError as error:
                raise ExpStarError(f"{path}, line {number}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """First fault of a pydantic error as `field is X, expected Y`."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"]) or "value"
    found = repr(fault["input"])
    return f"{field} is {found[:80]}, expected: {fault['msg'].removeprefix('Value error, ')}"


def inside(root: Path, path: str | Path) -> Path:
    """`path` under `root`, refused when it leaves it.

    Raises:
        ExpStarError: the path points outside the data set.
    """
    root = Path(root).resolve()
    full = (root / path).resolve()
    if not full.is_relative_to(root):
        raise ExpStarError(f"{path}: found a path outside {root}, expected one inside the data set; correct it")
    return full

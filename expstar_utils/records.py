"""The file formats: what every stage reads and writes, and how bad input is reported."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, model_serializer, model_validator

DISCIPLINES = {
    "Science": ("chemistry", "electromagnetics", "thermodynamics", "dynamics", "biology", "ecology", "optics"),
    "Healthcare": ("disease_models", "molecular_genetics", "protein_biochemistry", "animal_behavior", "cell_microscopy",
                   "neurophysiology", "immuno_engineering"),
    "Engineering": ("telematics", "material_engineering", "environics", "geotechnics", "thermofluids",
                    "electrical_engineering", "civil"),
}
SUBJECTS = tuple(s for subjects in DISCIPLINES.values() for s in subjects)
RELEVANT_GRADE = 3  # from which grade on a passage counts as relevant (paper)
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
    try:
        match = _CLOCK.fullmatch(text)
        seconds = 3600 * float(match[1] or 0) + 60 * int(match[2]) + float(match[3]) if match else float(text)
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


def _checked_time(value: str | int | float) -> str | int | float:
    parse_time(value)
    return value


Time = Annotated[str | int | float, AfterValidator(_checked_time)]  # kept as it was written: 5 stays 5


def _finite(value: int | float) -> int | float:
    if not (isinstance(value, int) and abs(value) < 1 << 60 or isinstance(value, float) and math.isfinite(value)):
        raise ValueError("a number of seconds")
    return value


def _file_name(value: str) -> str:
    if value in (".", "..") or re.search(r"[/\\\x00-\x1f]", value) or len(value) > 100:
        raise ValueError("a short name without slashes and control characters: files are named by it")
    return value


Seconds = Annotated[int | float, AfterValidator(_finite)]
Name = Annotated[str, AfterValidator(_file_name)]


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
    startTime: Time
    endTime: Time

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
    clip_start: Time
    clip_end: Time
    step_zh: str = ""
    step_en: str = ""
    step_number: int
    clip_video_path: str
    subject: Name
    annotations: list[Subtitle]


class VirtualClip(Record):
    """A stretch of a video file that nobody cut out: seconds from `start` to `end`."""

    video: str
    start: Seconds
    end: Seconds


class Message(Record):
    """One turn of a chat; an answer of weight 0 is read and not trained (the field's usual key for it).

    trained: characters of an answer, from and to, that are trained; the others are read. None: all of them.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    weight: Literal[0, 1] = 1
    trained: tuple[int, int] | None = None


class Sample(Record):
    """A training or test row: 3 messages (baseline) or 5 (ExpStar); `rejected_response` makes it a preference row.

    rejected_messages: the rejected dialogue behind the prompt, where it has several turns (ms-swift's key for it).
    """

    messages: list[Message]
    videos: list[str | VirtualClip]
    id: str
    rejected_response: str | None = None
    rejected_messages: list[Message] | None = None


class Passage(Record):
    """A passage of the knowledge base; `relevant` is its grade (1-5) in a retrieval result."""

    id: str
    title: str = ""
    section: str = ""
    text: str
    relevant: int | None = None

    @property
    def helps(self) -> bool:
        """Whether its grade makes it a relevant passage."""
        return (self.relevant or 1) >= RELEVANT_GRADE


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
    """One bad item: where, what was found, what was expected, what to do; a note is one that cost nothing."""

    file: str
    field: str
    found: str
    expected: str
    todo: str
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.field} is {self.found}, expected {self.expected}; {self.todo}"

"""The tagged text: its control strings, one builder, one parser; and the prompt sentences of `data/prompts.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from expstar_utils.files import describe, read_yaml
from expstar_utils.records import ExpStarError, Message

NARRATION, PRINCIPLE, SAFETY = "<Narration>", "<Principle>", "<Safety>"
RETRIEVAL, NO_RETRIEVAL = "[Retrieval]", "[No Retrieval]"
RELEVANT, IRRELEVANT = "[Relevant]", "[Irrelevant]"
SECTIONS = {NARRATION: "narration", PRINCIPLE: "principle", SAFETY: "safety"}
CONTROLS = (RETRIEVAL, NO_RETRIEVAL, RELEVANT, IRRELEVANT)
VIDEO = "<video>"
_TEMPLATE = re.compile(r"<(?=/?(?:video|image|paragraph|s)>|\|[^<>|\s]+\|>|(?:end|start)_of_\w+>|fake_token_\w+>|global-img>)")
_PLACES = re.compile(r"\{(\w+)\}")
PROMPTS_FILE = Path(__file__).parents[1] / "data" / "prompts.yaml"


@dataclass(frozen=True)
class Commentary:
    """Commentary of one step.

    narration, principle, safety: one note each. retrieve: the decision, None when none was made. verdicts: one for each
    passage that was judged, True for relevant.
    """

    narration: tuple[str, ...] = ()
    principle: tuple[str, ...] = ()
    safety: tuple[str, ...] = ()
    retrieve: bool | None = None
    verdicts: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Parsed:
    """What a tagged text said, and everything that was wrong with its form (empty: well formed)."""

    commentary: Commentary
    faults: tuple[str, ...] = field(default=())

    @property
    def well_formed(self) -> bool:
        return not self.faults


def section(tag: str, lines: Sequence[str]) -> str:
    """`tag` and its lines, each ended by a newline; nothing when there are no lines."""
    return "".join(f"{line}\n" for line in [tag, *lines]) if lines else ""


def quoted(text: str) -> str:
    """Text of a data set or a model as it stands in a prompt: a blank breaks what would be a video's place, a passage's end or a
    turn's end there; all other text stays as it is."""
    return _TEMPLATE.sub("< ", text)


def filled(sentence: str, words: Mapping[str, str]) -> str:
    """A sentence with words in the {places} that have some; a word is never looked through for places."""
    return _PLACES.sub(lambda place: words.get(place[1], place[0]), sentence)


def control(value: bool | None, yes: str, no: str) -> str:
    """One control string on a line of its own, or nothing for None."""
    return "" if value is None else f"{yes if value else no}\n"


def build(c: Commentary) -> str:
    """Tagged text of a commentary.

    Raises:
        ValueError: a line that could not be read back: empty, of several lines, or with a tag at its start or end.
    """
    for line in (*c.narration, *c.principle, *c.safety):
        if line != line.strip() or not line or len(line.splitlines()) != 1:
            raise ValueError(f"found the line {line!r}, expected one non-empty line without blanks around it")
        if any(line.startswith(tag) for tag in SECTIONS) or any(line.startswith(t) or line.endswith(t) for t in CONTROLS):
            raise ValueError(f"found the line {line!r}, expected text that neither starts nor ends with a tag")
    return "".join([
        section(NARRATION, c.narration), control(c.retrieve, RETRIEVAL, NO_RETRIEVAL),
        *(control(v, RELEVANT, IRRELEVANT) for v in c.verdicts),
        section(PRINCIPLE, c.principle), section(SAFETY, c.safety)])


def _split_controls(line: str) -> tuple[str, list[str]]:
    """A line without the control strings at its ends, and those control strings in order."""
    head, tail = [], []
    changed = True
    while changed:
        changed = False
        for tag in CONTROLS:
            if line.startswith(tag):
                head, line, changed = [*head, tag], line[len(tag):].strip(), True
            elif line.endswith(tag):
                tail, line, changed = [tag, *tail], line[: -len(tag)].strip(), True
    return line, head + tail


def parse(text: str) -> Parsed:
    """Read a tagged text; whatever a model wrote, this never raises.

    Returns:
        Parsed: the commentary (text outside any section is left out) and the faults found, in reading order.
    """
    lines: dict[str, list[str]] = {name: [] for name in SECTIONS.values()}
    controls: list[str] = []
    faults: list[str] = []
    seen: list[str] = []
    for raw in text.splitlines():
        line, found = _split_controls(raw.strip())
        controls += found
        tag = next((t for t in SECTIONS if line.startswith(t)), None)
        if tag:
            if SECTIONS[tag] in seen:
                faults.append(f"{tag} stands twice")
            seen.append(SECTIONS[tag])
            line = line[len(tag):].strip()
        if not line:
            continue
        if not seen:
            faults.append(f"text before any tag: {line[:60]!r}")
        else:
            lines[seen[-1]].append(line)
    faults += _form_faults(seen, lines, controls)
    return Parsed(_commentary(lines, controls), tuple(faults))


def _form_faults(seen: list[str], lines: dict[str, list[str]], controls: list[str]) -> list[str]:
    faults = []
    if not seen:
        faults.append("no section tag at all")
    elif "narration" not in seen:
        faults.append(f"no {NARRATION}")
    faults += [f"nothing under <{name.capitalize()}>" for name in dict.fromkeys(seen) if not lines[name]]
    order = list(dict.fromkeys(seen))
    if order != sorted(order, key=list(SECTIONS.values()).index):
        faults.append("sections out of order")
    decisions = [c for c in controls if c in (RETRIEVAL, NO_RETRIEVAL)]
    if len(decisions) > 1:
        faults.append("more than one decision about retrieval")
    if NO_RETRIEVAL in controls and len(controls) > len(decisions):
        faults.append(f"a verdict after {NO_RETRIEVAL}")
    return faults


def _commentary(lines: dict[str, list[str]], controls: list[str]) -> Commentary:
    decision = next((c == RETRIEVAL for c in controls if c in (RETRIEVAL, NO_RETRIEVAL)), None)
    verdicts = tuple(c == RELEVANT for c in controls if c in (RELEVANT, IRRELEVANT))
    return Commentary(*(tuple(lines[name]) for name in SECTIONS.values()), retrieve=decision, verdicts=verdicts)


class Prompts(BaseModel):
    """Prompt sentences; see the comments in `data/prompts.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subjects: dict[str, str]
    system: dict[str, str]
    request: dict[str, str]
    history: str
    history_line: str
    passage: str
    passage_separator: str
    placeholder_passage: str
    no_passage: str
    unclear: list[str] = []
    language: dict[str, str] = {}
    example: str = ""
    examples: str = ""

    def prefix(self, subject: str, title: str, previous: Sequence[str], language: str = "en") -> list[Message]:
        """System and user message of a step.

        Args:
            previous: one text for every step before it. language: of the answer, a key of `language` or the prompts' own.
        """
        name = self.subjects.get(subject, subject.replace("_", " "))
        words = {"subject": quoted(name), "title": quoted(title)}
        system = filled(self.system.get(subject, self.system["default"]), words)
        request = filled(self.request.get(subject, self.request["default"]), words)
        if previous:
            steps = "".join(filled(self.history_line, {"number": str(n), "text": quoted(t)}) for n, t in enumerate(previous, 1))
            request += filled(self.history, {"steps": steps, "number": str(len(previous) + 1)})
        system += self.language.get(language, "")
        return [Message(role="system", content=system), Message(role="user", content=request)]

    def unclear_lines(self, title: str) -> list[str]:
        """Narration of a picture that does not show what the title says; none where the file has no such sentences."""
        return [filled(line, {"title": title}) for line in self.unclear]

    def passages(self, texts: Sequence[str]) -> Message:
        """The turn that brings passages; with none, it says that nothing was found."""
        shown = [filled(self.passage, {"text": quoted(text)}) for text in texts] or [self.no_passage]
        return Message(role="user", content=self.passage_separator.join(shown))


def load_prompts(path: Path | None = None) -> Prompts:
    """Prompts of a file (default: the project's own).

    Raises:
        ExpStarError: the file is missing or lacks a key.
    """
    path = Path(path or PROMPTS_FILE)
    try:
        return Prompts.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ExpStarError(f"{path}: {describe(error)}") from None

"""What an experiment family says (one YAML file a subject) and how a variant's words are filled into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from expstar_utils.files import describe, read_yaml
from expstar_utils.mini import sprites
from expstar_utils.records import ExpStarError

PLACEHOLDER = re.compile(r"\{(\w+)\}")
FactKind = Literal["substance", "colour", "quantity", "shape", "outcome", "equation", "law", "hazard"]
Language = Literal["en", "zh"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Words(_Strict):
    """One phrase in both languages; a plain string in the YAML stands for both (equations)."""

    en: str
    zh: str

    @model_validator(mode="before")
    @classmethod
    def _same_in_both(cls, value: Any) -> Any:
        return {"en": value, "zh": value} if isinstance(value, str) else value


class Lines(_Strict):
    """Lines of text in both languages, as many in one as in the other; may hold {placeholders}."""

    en: list[str] = []
    zh: list[str] = []

    @model_validator(mode="after")
    def _as_many(self) -> Lines:
        if len(self.en) != len(self.zh):
            raise ValueError(f"{len(self.en)} English lines but {len(self.zh)} Chinese ones: write as many of each")
        return self


class Value(Words):
    """One value of a visible attribute: its words, and what the renderer draws ($attribute in a scene)."""

    draw: Any = None


class Attribute(_Strict):
    """Something that a viewer can see and that differs between variants; `mixed` values are those of mixed experiments alone."""

    kind: FactKind
    values: dict[str, Value]
    mixed: dict[str, Value] = {}

    def __getitem__(self, value: str) -> Value:
        return self.mixed[value] if value in self.mixed else self.values[value]


class Variant(_Strict):
    """One experiment of the family: what is seen, and what only the knowledge base says."""

    id: str
    split: Literal["seen", "unseen"]
    see: dict[str, str]
    know: dict[str, Words]
    cas: list[str] = []
    passage: str


class Step(_Strict):
    """One step: its texts and its scene. A step with `gold` passages asks for retrieval."""

    summary: Words
    seconds: float = Field(4.0, ge=3.0, le=6.0)
    narration: Lines
    principle: Lines = Lines()
    safety: Lines = Lines()
    gold: list[str] = []
    scene: list[dict[str, Any]]

    @field_validator("scene")
    @classmethod
    def _known_sprites(cls, scene: list[dict[str, Any]]) -> list[dict[str, Any]]:
        placing = {"sprite", "at", "size", "rotate", "show", "if"}
        for item in scene:
            name = item.get("sprite")
            if name not in sprites.SPRITES:
                raise ValueError(f"sprite {name!r} is not known; known: {sorted(sprites.SPRITES)}")
            unknown = set(item) - placing - sprites.parameters(name)
            if unknown:
                raise ValueError(f"sprite {name!r} has no {sorted(unknown)}; it takes {sorted(sprites.parameters(name))}")
        return scene

    @model_validator(mode="after")
    def _notes_need_gold(self) -> Step:
        if bool(self.gold) != bool(self.principle.en or self.safety.en):
            raise ValueError("a step has `gold` passages exactly when it has a principle or a safety note")
        return self


class Family(_Strict):
    """All variants of one experiment under one title.

    Raises:
        pydantic.ValidationError: names the field; also for a placeholder or attribute value that nobody defines.
    """

    id: str
    subject: str
    discipline: Literal["Science", "Healthcare", "Engineering"]
    title: Words
    attributes: dict[str, Attribute]
    knowledge: dict[str, FactKind]
    cas: list[str] = []
    variants: list[Variant] = Field(min_length=8)
    steps: list[Step] = Field(min_length=4, max_length=6)

    @model_validator(mode="after")
    def _everything_defined(self) -> Family:
        for variant in self.variants:
            if set(variant.see) != set(self.attributes):
                raise ValueError(f"variant {variant.id}: `see` names {sorted(variant.see)}, expected {sorted(self.attributes)}")
            for name, value in variant.see.items():
                if value not in self.attributes[name].values:
                    raise ValueError(f"variant {variant.id}: {name} has no value {value!r}")
            if set(variant.know) != set(self.knowledge):
                raise ValueError(f"variant {variant.id}: `know` names {sorted(variant.know)}, expected {sorted(self.knowledge)}")
        unknown = {p for s in self.steps for _, _, p in placeholders(s)} - set(self.attributes) - set(self.knowledge)
        if unknown:
            raise ValueError(f"placeholders without a definition: {sorted(unknown)}")
        return self

    def kind(self, name: str) -> FactKind:
        """Kind of fact behind a placeholder."""
        return self.attributes[name].kind if name in self.attributes else self.knowledge[name]

    def words(self, variant: Variant, language: Language) -> dict[str, str]:
        """Placeholder -> the variant's words in that language."""
        seen = {name: getattr(self.attributes[name][value], language) for name, value in variant.see.items()}
        return seen | {name: getattr(words, language) for name, words in variant.know.items()}

    def drawing(self, variant: Variant) -> dict[str, Any]:
        """Attribute -> what the renderer draws for the variant."""
        return {name: self.attributes[name][value].draw for name, value in variant.see.items()}

    def gold(self, variant: Variant, step: Step) -> list[str]:
        """Ids of the passages that a step needs: $passage is the variant's own, $hazards its hazard cards."""
        expand = {"$passage": [variant.passage], "$hazards": [f"hazard-{cas}" for cas in [*variant.cas, *self.cas]]}
        return [pid for item in step.gold for pid in expand.get(item, [item])]


def placeholders(step: Step) -> Iterator[tuple[str, int, str]]:
    """(section, line number, placeholder name) of every placeholder in a step's English text."""
    for section in ("narration", "principle", "safety"):
        for number, line in enumerate(getattr(step, section).en):
            for name in PLACEHOLDER.findall(line):
                yield section, number, name


def load_family(path: Path) -> Family:
    """Read one family file.

    Raises:
        ExpStarError: it cannot be read, or a field is wrong; names it.
    """
    try:
        return Family.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ExpStarError(f"{path}: {describe(error)}") from None


def load_families(folder: Path) -> list[Family]:
    """All families of a folder, in file-name order."""
    return [load_family(path) for path in sorted(Path(folder).glob("*.yaml"))]

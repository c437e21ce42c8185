"""The models that the paper compares with: one row each in `data/models.yaml`, one answer a step, published numbers beside.

They look nothing up and decide nothing: the whole commentary comes in one turn. Proprietary ones are shown examples from `train`,
the others were fine-tuned on the baseline rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expstar_utils import prompts as tags
from expstar_utils.datasets import Case
from expstar_utils.files import describe, read_yaml
from expstar_utils.prompts import Prompts
from expstar_utils.published import TABLES
from expstar_utils.published import published as published_table
from expstar_utils.records import ExpStarError

DATA = Path(__file__).parents[1] / "data"


class ModelRow(BaseModel):
    """One model of the comparison; see the comments in `data/models.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    id: str
    style: Literal["few-shot", "fine-tuned"]
    frames: int = Field(ge=1)
    shots: int = Field(0, ge=0)
    published: str = ""


def load_rows(path: Path | None = None) -> dict[str, ModelRow]:
    """Rows by name.

    Raises:
        ExpStarError: no such file, or a row that is wrong; names it.
    """
    path = Path(path or DATA / "models.yaml")
    listed, rows = read_yaml(path), {}
    if not isinstance(listed, list | None):
        raise ExpStarError(f"{path}: found no list, expected rows like those of data/models.yaml; correct it")
    for number, values in enumerate(listed or [], 1):
        try:
            row = ModelRow.model_validate(values)
        except ValidationError as error:
            raise ExpStarError(f"{path}, row {number}: {describe(error)}") from None
        rows[row.name] = row
    return rows


def find_row(name: str, path: Path | None = None) -> ModelRow:
    """Row of a model. Raises ExpStarError when there is none of that name."""
    rows = load_rows(path)
    if name not in rows:
        raise ExpStarError(f"model {name!r} is not known, expected one of {sorted(rows)}; add a row to data/models.yaml")
    return rows[name]


def published(row: str, table: str = "main_results", path: Path | None = None) -> dict[str, float]:
    """Published numbers of a row, by metric; none where the paper has no such row."""
    return {line["metric"]: float(line["value"]) for line in published_table(table, path or TABLES) if line["row"] == row}


def draw_examples(train: Sequence[Case], count: int, seed: int) -> list[Case]:
    """Steps of different experiments of `train`, repeatably by `seed`; those with notes and those without in turn."""
    rng = random.Random(f"{seed} examples")
    pools = [[c for c in train if c.needs_retrieval is wanted] for wanted in (True, False)]
    chosen: list[Case] = []
    for i in range(count):
        taken = {c.experiment for c in chosen}
        pool = next((p for p in (pools[i % 2], pools[1 - i % 2]) if any(c.experiment not in taken for c in p)), None)
        if pool is None:
            break
        chosen.append(rng.choice([c for c in pool if c.experiment not in taken]))
    return chosen


def with_examples(prompts: Prompts, examples: Sequence[Case]) -> Prompts:
    """The same prompts with commentaries of other experiments before every request.

    Raises:
        ExpStarError: the prompts have no sentence for that.
    """
    if not examples:
        return prompts
    if not prompts.example or not prompts.examples:
        raise ExpStarError("the prompts file has no `example` and `examples`, expected both for few-shot models; add them")
    def kept(text: str) -> str:
        return tags.quoted(tags.filled(text, {"title": "{ title}", "subject": "{ subject}"}))  # the request has such places
    words = [{"title": kept(c.title), "text": kept(c.reference())} for c in examples]
    before = tags.filled(prompts.examples, {"examples": "".join(tags.filled(prompts.example, w) for w in words)})
    return prompts.model_copy(update={"request": {key: before + text for key, text in prompts.request.items()}})

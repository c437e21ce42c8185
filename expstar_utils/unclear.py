"""Rows of films that do not show what their title says: the model says so, and looks up what the title names.

A small model that has only ever seen one data set names its scenes in every picture. These rows teach it to heed the title:
where the picture tells nothing, or something else, the narration admits it, and what the title names is looked up: a substance of
the hazard cards, or the title of a passage. Under the title of a known experiment the picture alone tells such a film apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from expstar_utils.choices import right_passages
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.knowledge import is_hazard_card
from expstar_utils.mini.unclear import FOLDER
from expstar_utils.prompts import Prompts
from expstar_utils.records import Passage, RetrievalResult, Sample

TITLES = ("Combustion of {}", "Burning {}", "Preparing {}", "Working with {}", "Properties of {}", "Making and Collecting {}",
          "Testing for {}", "How {} Reacts", "Reaction of {} with Water", "Heating {}")
NAMED = 0.75  # share of steps whose title a passage explains; the others stand under the title of a known experiment
FOREIGN = 0.5  # share of films that show another experiment; the others show nothing
HELD_OUT = 5  # every fifth passage is kept for a check of what was learned


def films(root: Path) -> list[str]:
    """Paths of a data set's unclear films, below its root."""
    return sorted(path.relative_to(root).as_posix() for path in (Path(root) / FOLDER).glob("*.mp4"))


def titled(passages: Sequence[Passage], own: set[str]) -> tuple[list[Passage], list[Passage]]:
    """Passages that a title can name, to train with and held out: hazard cards and those that no experiment has of its own.

    Args:
        own: ids of passages that belong to single experiments.
    """
    usable = sorted((p for p in passages if is_hazard_card(p) or p.id not in own), key=lambda p: p.id)
    return ([p for i, p in enumerate(usable) if i % HELD_OUT != 3], [p for i, p in enumerate(usable) if i % HELD_OUT == 3])


def unclear_case(number: int, film: str, passage: Passage, prompts: Prompts, rng: random.Random) -> Case:
    """A step whose picture tells nothing and whose title names what the passage is about."""
    card = is_hazard_card(passage)
    title = passage.title
    if card:
        name = passage.title.split(":")[0]
        title = rng.choice(TITLES).format(name.title() if name.islower() and rng.random() < 0.6 else name)
    note = sentences(passage.text)[1 if card else 0]
    return Case.model_validate({
        "id": f"unclear_{number}", "experiment": f"unclear/{number}", "title": title, "step_number": 1, "clip": film,
        "summary": title,
        "subject": rng.choice(["chemistry", "chemistry", "biology"]) if card else passage.id.split("-")[0],
        "narration": prompts.unclear_lines(title), ("safety" if card else "principle"): [note]})


def sentences(text: str) -> list[str]:
    """Sentences of a passage; no cut in abbreviations or numbers that a capital does not follow."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", text)


def unclear_samples(root: Path, cases: Sequence[Case], found: Mapping[str, RetrievalResult], passages: Sequence[Passage],
                    prompts: Prompts, *, count: int, sisters: int, seed: int = 0, check: bool = False) -> list[Sample]:
    """Rows of `count` steps: the right passage with its note, then passages that are not about the title.

    Args:
        root: folder of the data set, with its films in `unclear/`; without any there are no rows.
        cases, found: steps of the data set and their graded documents.
        passages: what titles can name and what stands beside it; those that only tests need must not be among them.
        sisters: how many passages stand beside the right one, most of them of its kind.
        check: make rows of the passages that are held out.
    """
    shots = films(root)
    own = set().union(*(ids for ids in right_passages(cases, found)[1].values() if len(ids) > 1))
    usable, rows = titled(passages, own)[check], []
    for number in range(count if shots and usable else 0):
        rng = random.Random(f"{seed} {number}")
        right, known_case, foreign = rng.choice(usable), rng.choice(cases), rng.choice(cases)
        case = unclear_case(number, rng.choice(shots), right, prompts, rng)
        if rng.random() < FOREIGN and foreign.title != known_case.title:
            case = case.model_copy(update={"clip": foreign.clip})
        if rng.random() < NAMED:
            before = [" ".join(case.narration)] * rng.choice([0, 0, 1, 2, 3, 5])
            for place, passage in enumerate([right, *_strangers(right, passages, sisters, rng)]):
                rows.append(expstar_sample(case, before, prompts, [passage], relevant=place == 0, notes=place == 0))
        else:
            rows.append(expstar_sample(_without_notes(case, known_case, prompts), [], prompts))
    return rows


def _without_notes(case: Case, known: Case, prompts: Prompts) -> Case:
    """The same film under the title of an experiment that is known; nothing is looked up for it."""
    said = prompts.unclear_lines(known.title)
    changed = {"subject": known.subject, "title": known.title, "narration": said, "principle": [], "safety": []}
    return case.model_copy(update=changed)


def _strangers(right: Passage, passages: Sequence[Passage], count: int, rng: random.Random) -> list[Passage]:
    """Passages that do not speak of the right one's subject matter, at least half of them of its kind where there are any."""
    name, kind = right.title.split(":")[0].lower(), right.id.split("-")[0]
    others = [p for p in passages if p.id != right.id and name not in f"{p.title} {p.text}".lower()]
    near = [p for p in others if p.id.split("-")[0] == kind]
    chosen = rng.sample(near, min((count + 1) // 2, len(near)))
    far = [p for p in others if p not in chosen]
    return chosen + rng.sample(far, min(count - len(chosen), len(far)))

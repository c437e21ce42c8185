"""Captions: rows of a clip and its narration alone, from which the language model learns to read its visual tokens.

With subject and title before it, almost every word of a narration can be guessed, so little of the loss asks for the picture.
Without them the whole narration must come out of the visual tokens. Mixed experiments (`mini.mixed`) go further: their values
come in combinations that no experiment has, so that one value does not tell the others.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from transformers import ProcessorMixin

from expstar_utils.datasets import Case, HistoryOf, by_experiment, load_cases, opening, previous_texts, sample_of
from expstar_utils.differences import crossings
from expstar_utils.encoding import text_ids
from expstar_utils.mini.mixed import FOLDER as MIXED
from expstar_utils.prompts import VIDEO, Prompts
from expstar_utils.records import Message, Sample
from expstar_utils.siblings import COMMON, place_of, sights


def mixed_cases(root: Path) -> list[Case]:
    """Steps of a data set's mixed experiments, narration only; none where there is no folder `mixed`."""
    found = load_cases(Path(root) / MIXED / "pairs", path_prefix=f"{MIXED}/")
    return [c.model_copy(update={"id": f"{MIXED}_{c.id}", "experiment": f"{MIXED}/{c.experiment}"}) for c in found]


def caption_sample(case: Case, lookup: bool | None = None) -> Sample:
    """Row of a clip alone: what is seen, and whether to look something up (None: as the case needs it)."""
    messages = [Message(role="user", content=f"{VIDEO}\n"), Message(role="assistant", content=opening(case, lookup))]
    return sample_of(case, messages)


def cross(row: Sample, other: Sample, rng: random.Random) -> None:
    """Let a row's answer begin as the `other` one's does, up to a place where both go on alike, and train what comes behind it.

    What is said there must then come out of the picture: what was said before does not tell it. As often as behind each of those
    places, its own beginning is kept, and trained up to the first of them. Texts that differ in one place alone stay as they are.
    """
    mine, its = row.messages[-1], other.messages[-1]
    places = [(0, 0), *crossings(mine.content, its.content)]
    if len(places) > 1:
        chosen = rng.randrange(len(places))
        (at, its_at), stop = places[chosen], len(mine.content) if chosen else places[1][0]
        mine.content, mine.trained = its.content[:its_at] + mine.content[at:], (its_at, its_at + stop - at)


def caption_samples(cases: Sequence[Case], mixed: Sequence[Case], prompts: Prompts, history: HistoryOf,
                    prompted: float = 0.0, plain: float = 1.0, crossed: float = 0.0, seed: int = 0,
                    epochs: float = 1.0) -> list[Sample]:
    """Rows of clips and what is seen in them.

    A step that says again what an earlier one showed stands behind its own earlier steps, in the whole prompt: its clip may show
    that no more. The others are captions, or stand in the whole prompt with no earlier steps, their own, or those of another
    experiment under the same title, in which other things were seen.

    Args:
        cases: steps with their notes; a mixed step looks something up where theirs do.
        mixed: steps of mixed experiments, of titles that `cases` have.
        prompted: share of the rows of the second kind that stand in the whole prompt; 0 makes captions of all steps.
        plain: share of the steps that are kept of those in which nothing tells their experiment apart; where no row stands in
            the whole prompt, of those in which nothing new does.
        crossed: share of the rows whose answer begins as that of another experiment under the same title (see `cross`).
        epochs: how often every step is drawn, each time anew; of the last epoch, a share.
    """
    lookup = {place_of(case): case.needs_retrieval for case in cases}
    experiments = list(by_experiment([*cases, *mixed]))
    titled, seen = defaultdict(list), sights(experiments)
    for steps in experiments:
        titled[steps[0].subject, steps[0].title].append(steps)
    rows = []
    for epoch, steps in product(range(math.ceil(epochs)), experiments):
        for i, case in enumerate(steps):
            rng, asks, (new, again) = random.Random(f"{seed} {epoch} {case.id}"), lookup[place_of(case)], seen[case.id]
            if rng.random() >= epochs - epoch:
                continue
            others = rng.choice(titled[case.subject, case.title])
            if not new and not (again and prompted) and rng.random() >= plain:
                continue
            row = caption_sample(case, asks)
            if prompted and (again or rng.random() < prompted):
                before = previous_texts(steps if again else rng.choice([[], steps, others]), i, history)
                row.messages[:1] = prompts.prefix(case.subject, case.title, before)
            if crossed and rng.random() < crossed:
                sibling = next((c for c in rng.choice(titled[case.subject, case.title]) if place_of(c) == place_of(case)), case)
                cross(row, caption_sample(sibling, asks), rng)
            rows.append(row)
    return rows


def telling_tokens(cases: Sequence[Case], processor: ProcessorMixin) -> dict[str, set[int]]:
    """Tokens, by case id, of a narration that tell it from its siblings: the same step of the same subject's experiments.

    A token tells if fewer than `COMMON` of the siblings' lines at its place hold it.
    """
    lines = [[set(text_ids(processor, f"\n{line}")) for line in case.narration] for case in cases]
    said: Counter = Counter()
    siblings: Counter = Counter()
    for case, tokens in zip(cases, lines, strict=True):
        for place, line in enumerate(tokens):
            key = (case.subject, case.step_number, place)
            siblings[key] += 1
            said.update((key, token) for token in line)
    return {case.id: {t for place, line in enumerate(tokens) for t in line
                      if said[(key := (case.subject, case.step_number, place)), t] < COMMON * siblings[key]}
            for case, tokens in zip(cases, lines, strict=True)}

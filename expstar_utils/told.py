"""Told variants: experiments that are written and never filmed, so that a model meets more names and laws than it can keep.

A family has a dozen variants that are filmed, each with one passage: a model knows by heart what their notes say, and does not
learn to find in a new passage which words are the name and which the law. A told variant is words and a passage alone
(`data/mini/told/<subject>.yaml`). Its steps are trained behind a clip of its family that shows something else, so their narration
is not trained. Its passage is not in the knowledge base.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from expstar_utils.choices import SISTER_GRADE
from expstar_utils.datasets import Case, by_experiment
from expstar_utils.files import describe, read_yaml
from expstar_utils.mini.build import SPECS, fill
from expstar_utils.mini.family import Family, load_family, placeholders
from expstar_utils.records import RELEVANT_GRADE, ExpStarError, Passage, RetrievalResult

Split = Literal["train", "val"]
SISTERS = 8  # passages nearest to a told one that may stand beside it,
SHOWN = 2  # and so many of them do in a round
NATURAL = 0.7  # share of told steps that keep their words: they are new as they are
PASSAGE_WORDS = 60, 125
LONGEST = {"narration": 20, "principle": 30, "safety": 25}  # words of a filled line


class ToldVariant(BaseModel):
    """An experiment in words: what would be seen, what only its passage says. English alone.

    split: `train`, or `val` for those that are kept to measure by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    split: Split = "train"
    see: dict[str, str]
    know: dict[str, str]
    passage: str

    @property
    def words(self) -> dict[str, str]:
        """Placeholder -> words."""
        return self.see | self.know


class ToldFile(BaseModel):
    """The told variants of one family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: list[ToldVariant]


def load_told(path: Path, family: Family) -> list[ToldVariant]:
    """Told variants of a family.

    Raises:
        ExpStarError: a field is wrong, or a variant lacks or says what it must not; names it.
    """
    variants = _read(path)
    for fault in faults(family, variants):
        raise ExpStarError(f"{path}: {fault}")
    return variants


def _read(path: Path) -> list[ToldVariant]:
    try:
        return ToldFile.model_validate(read_yaml(path)).variants
    except ValidationError as error:
        raise ExpStarError(f"{path}: {describe(error)}") from None


def told_cases(cases: Sequence[Case], split: Split, seed: int = 0, specs: Path = SPECS,
               ) -> tuple[list[Case], dict[str, RetrievalResult]]:
    """Steps of told variants, and what is found for those that need the variant's passage: it, and its nearest sisters.

    Args:
        cases: steps of filmed experiments: a told one has the clips of one of its title, drawn by `seed`. Titles that have no
            told variants, as those of any data set but Mini in English, get none.
        specs: folder of the families' files, the told variants' in `told` below it.
    """
    filmed = defaultdict(list)
    for steps in by_experiment(cases):
        filmed[steps[0].subject, steps[0].title].append(steps)
    made: list[Case] = []
    found: dict[str, RetrievalResult] = {}
    subjects = {subject for subject, _ in filmed}
    for path in sorted((Path(specs) / "told").glob("*.yaml")):
        if path.stem not in subjects:
            continue
        family = load_family(Path(specs) / path.name)
        carriers = [steps for steps in filmed[family.subject, family.title.en] if len(steps) == len(family.steps)]
        variants = [variant for variant in load_told(path, family) if variant.split == split]
        for variant in variants if carriers else []:
            behind = random.Random(f"{seed} {variant.id}").choice(carriers)
            for clip, step in zip(behind, family.steps, strict=True):
                notes = {name: fill(getattr(step, name).en, variant.words) for name in ("narration", "principle", "safety")}
                told = {"id": f"told_{family.subject}_{variant.id}_{clip.step_number}",
                        "experiment": f"told/{family.subject}/{variant.id}", "split": split}
                made.append(clip.model_copy(update=told | notes))
                if "$passage" in step.gold:
                    found[told["id"]] = _found(made[-1], variant, variants)
    return made, found


def _found(case: Case, variant: ToldVariant, variants: Sequence[ToldVariant]) -> RetrievalResult:
    """The variant's passage and those of the others that look most alike."""
    def alike(other: ToldVariant) -> int:
        return sum(_plain(other.see[name]) == _plain(words) for name, words in variant.see.items())
    sisters = sorted((v for v in variants if v.id != variant.id), key=alike, reverse=True)[:SISTERS]
    documents = [Passage(id=f"told-{v.id}", text=v.passage.strip(), relevant=RELEVANT_GRADE if v is variant else SISTER_GRADE)
                 for v in (variant, *sisters)]
    return RetrievalResult(id=case.id, query=case.query, video_path=case.clip, is_rag=True, documents=documents)


def faults(family: Family, variants: list[ToldVariant]) -> Iterator[str]:
    """What is wrong with told variants: names that are missing, a filmed variant's words, a passage that lacks its own."""
    filmed = [family.words(variant, "en") for variant in family.variants]
    named = [name for name, kind in family.knowledge.items() if kind == "substance"]
    looks = {tuple(_plain(words[name]) for name in sorted(family.attributes)) for words in filmed}
    known = {_plain(words[name]) for words in filmed for name in family.knowledge if family.kind(name) != "outcome"}
    ids = [variant.id for variant in family.variants]
    for told in variants:
        if told.id in ids:
            yield f"{told.id}: found twice, expected an id of its own"
            continue
        ids.append(told.id)
        if set(told.see) != set(family.attributes) or set(told.know) != set(family.knowledge):
            yield (f"{told.id}: found {sorted(told.see)} in see and {sorted(told.know)} in know, expected "
                   f"{sorted(family.attributes)} and {sorted(family.knowledge)}")
            continue
        if (look := tuple(_plain(told.see[name]) for name in sorted(family.attributes))) in looks:
            yield f"{told.id}: looks like another variant, expected values of `see` that no other has together"
        looks.add(look)
        for name in family.knowledge:
            if name in named or family.kind(name) in ("law", "equation", "hazard"):
                if _plain(told.know[name]) in known and not _shared_by_many(family, name):
                    yield f"{told.id}: {name} {told.know[name]!r} is another variant's, expected its own"
                known.add(_plain(told.know[name]))
        text = _plain(told.passage)
        for name, words in told.know.items():
            if _plain(words).rstrip(".") not in text:
                yield f"{told.id}: the passage lacks {name} {words!r}, expected it word for word"
        count = len(told.passage.split())
        if not PASSAGE_WORDS[0] <= count <= PASSAGE_WORDS[1]:
            yield f"{told.id}: a passage of {count} words, expected {PASSAGE_WORDS[0]} to {PASSAGE_WORDS[1]}"
        for step in family.steps:
            for section, number, _ in placeholders(step):
                line = getattr(step, section).en[number]
                length = len(re.sub(r"\{(\w+)\}", lambda m, words=told.words: words[m[1]], line).split())
                if length > LONGEST[section]:
                    yield f"{told.id}: a {section} line of {length} words, expected at most {LONGEST[section]}"


def _shared_by_many(family: Family, name: str) -> bool:
    """Whether variants of the family share that piece of knowledge (a kind of collision, a fluid)."""
    words = [family.words(variant, "en")[name] for variant in family.variants]
    return len(set(words)) < len(words)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def main() -> None:
    """Print what is wrong with the told variants of some subjects, or of all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("subject", nargs="*", choices=sorted(path.stem for path in (SPECS / "told").glob("*.yaml")))
    given = parser.parse_args()
    for path in sorted((SPECS / "told").glob("*.yaml")):
        if not given.subject or path.stem in given.subject:
            try:
                variants = _read(path)
                print(path.name, len(variants), *faults(load_family(SPECS / path.name), variants), sep="\n  ")
            except ExpStarError as error:
                print(error)


if __name__ == "__main__":
    main()

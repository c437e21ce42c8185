"""Experiments that no family knows: its visible values in new combinations, for a model that should look before it speaks.

A family has a dozen variants, so that one value often tells the others, and a model that has learned the variants by heart is
pulled toward them when it sees a new one. In a mixed take every value is drawn on its own. What is seen is true of the film; what
it would mean is not known, so these takes have a narration and no notes. Unseen variants are no mix: they stay unseen.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from expstar_utils.mini.family import Family, Lines, Variant

FOLDER, MIXES = "mixed", 64


def silent(family: Family) -> Family:
    """The family with nothing but narration in its steps."""
    bare = {"principle": Lines(), "safety": Lines(), "gold": []}
    return family.model_copy(update={"steps": [step.model_copy(update=bare) for step in family.steps]})


def mixes(family: Family, count: int = MIXES, seed: int = 42, wide: bool = False) -> list[Variant]:
    """At most `count` combinations of the family's visible values that none of its variants has, each once.

    Args:
        wide: take values in that only mixed experiments have. Where three colours of five never come with an outcome, a model may
            take the colour for the reason; more colours, and it must look.
    """
    names = sorted(family.attributes)
    taken = {tuple(v.see[name] for name in names) for v in family.variants}
    values = [sorted([*a.values, *(a.mixed if wide else ())]) for a in (family.attributes[name] for name in names)]
    free = [combination for combination in itertools.product(*values) if combination not in taken]
    drawn = np.random.default_rng([seed, len(free)]).permutation(len(free))[:count]
    model, kind = family.variants[0], "wide" if wide else "mix"
    return [model.model_copy(update={"id": f"{kind}-{number}", "see": dict(zip(names, free[i], strict=True)), "cas": []})
            for number, i in enumerate(drawn, 1)]


def seldom_filmed(variants: list[Variant], count: int) -> list[Variant]:
    """`count` more takes of some variants, filmed once each: next is one that was filmed least, with its pairs of values.

    Without unseen variants, the pairs that those have are rarer than others, and a model that has met them seldom guesses what it
    met often.
    """
    parts = [[v.id, *itertools.combinations(sorted(v.see.items()), 2)] for v in variants]
    filmed, drawn = Counter(itertools.chain(*parts)), []
    for _ in range(count):
        rarest = min(range(len(variants)), key=lambda i: sum(filmed[part] for part in parts[i]))
        filmed.update(parts[rarest])
        drawn.append(variants[rarest])
    return drawn

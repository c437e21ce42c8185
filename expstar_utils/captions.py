"""Captions: rows of a clip and its narration alone, from which the language model learns to read its visual tokens.

With subject and title before it, almost every word of a narration can be guessed, so little of the loss asks for the picture.
Without them the whole narration must come out of the visual tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from transformers import ProcessorMixin

from expstar_utils import prompts as tags
from expstar_utils.datasets import Case, sample_of
from expstar_utils.encoding import text_ids
from expstar_utils.prompts import VIDEO, section
from expstar_utils.records import Message, Sample

COMMON = 0.7


def caption_sample(case: Case) -> Sample:
    """Row of a clip alone: what is seen, and whether to look something up."""
    said = section(tags.NARRATION, case.narration) + (tags.RETRIEVAL if case.needs_retrieval else tags.NO_RETRIEVAL)
    messages = [Message(role="user", content=f"{VIDEO}\n"), Message(role="assistant", content=said)]
    return sample_of(case, messages)


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

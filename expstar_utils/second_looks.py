"""Second looks: an earlier step may have been misread, and what is found in the end tells which reading was right.

What a model narrates wrongly it was mostly unsure of: at one word another came near. A wrong fact is carried along, for later
steps read what was narrated, until no passage says such a thing, or one of another experiment does. So where a step looks
something up, the steps before it are also taken for what they would have said next best, one at a time. Of these histories
the likeliest stands, where both count: how near the other word came, and how relevant the best passage is then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from expstar_utils import prompts as tags
from expstar_utils.decoding import State
from expstar_utils.differences import differences
from expstar_utils.inference import Commentator, Step
from expstar_utils.records import Prediction

LEAST = 1e-4  # chance that a verdict errs, however sure it is


class LookingAgain(Commentator):
    """A commentator that doubts what it saw in earlier steps where another word came near (`Settings.second_look_nats`)."""

    def _narrate(self, steps: Sequence[Step]) -> tuple[list[State], list[list[int]]]:
        states, written = super()._narrate(steps)
        spoken = [(step, state, tokens) for step, state, tokens in zip(steps, states, written, strict=True) if tokens]
        for (step, *_), second in zip(spoken, self._seconds([s for _, s, _ in spoken], [t for *_, t in spoken]), strict=True):
            step.second = second
        return states, written

    def _seconds(self, states: Sequence[State], written: Sequence[list[int]]) -> list[dict[str, Any]]:
        """What would have been said next best behind each prompt: the other word where one came nearest, and what follows it."""
        near = self.decoder.runners_up(states, written)
        begun = [tokens[:place] + [other] for tokens, (place, other, _) in zip(written, near, strict=True)]
        _, rest = self._decode(self.decoder.extend(states, begun), turn=0)
        texts = [self.processor.tokenizer.decode(start + self._without_control(more)[0], skip_special_tokens=True)
                 for start, more in zip(begun, rest, strict=True)]
        return [{"narration": list(tags.parse(text).commentary.narration), "nats": round(nats, 4)}
                for text, (*_, nats) in zip(texts, near, strict=True)]

    def _judge(self, step: Step) -> list[State]:
        branches = super()._judge(step)
        others = other_histories(step.previous, step.earlier, self.settings.second_look_nats) if step.passages else []
        best = support(step.relevance)
        for nats, place, previous in others:
            read_again = {"step": place + 1, "narration": previous[place]}
            again = replace(step, previous=previous, state=None, read_again=read_again)
            super()._narrate([again])
            self._decide(again)
            if again.retrieve:
                found = super()._judge(again)
                fits = max(again.relevance, default=0.0) > self.settings.verdict_threshold
                if fits and support(again.relevance) - nats > best:
                    best, branches = support(again.relevance) - nats, found
                    vars(step).update(vars(again))
        return branches


def support(relevance: Sequence[float]) -> float:
    """How much what was found speaks for what was seen, nats: the logit of the best passage's relevance."""
    best = min(max([*relevance, LEAST]), 1 - LEAST)
    return math.log(best / (1 - best))


def other_histories(previous: list[str], earlier: Sequence[Prediction], nats: float) -> list[tuple[float, int, list[str]]]:
    """Earlier steps' texts in which one step says its second best, the nearest first; the steps behind it say it along.

    Args:
        previous: those texts. earlier: the predictions of a `LookingAgain` that said them; without, none is doubted.
        nats: how near a second must have come to the first.

    Returns:
        (nats by which that step's second was less likely, the step's position, the texts) of each history.
    """
    near = []
    for place, prediction in enumerate(earlier):
        second = prediction.evaluation_data.get("second") or {"narration": [], "nats": nats}
        text = " ".join(second["narration"])
        if text and text != previous[place] and second["nats"] < nats:
            near.append((second["nats"], place, text))
    return [(short, place, [*previous[:place], text, *(corrected(said, previous[place], text) for said in previous[place + 1:])])
            for short, place, text in sorted(near)]


def corrected(text: str, wrong: str, right: str) -> str:
    """A text that says what another one says wrongly, with those words exchanged for what that one says when it is right."""
    pieces = differences(right, wrong)
    for before, behind in zip(pieces, pieces[1:], strict=False):
        old, new = before.text.strip(" .,;"), behind.text.strip(" .,;")
        if (before.kind, behind.kind) == ("left_out", "added") and old and new:
            text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, new=new: new, text)
    return text

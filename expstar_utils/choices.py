"""Choice rows: the right passage beside its sisters, in words that cannot be known by heart.

Sister passages differ in a word or two, and a data set has few of them: a model learns by heart which passage belongs to which
experiment, and is lost when a new one comes. So the telling words of a row (colours, counts, names, formulas) are exchanged for
others, in the narration, the passages and the notes alike, and so are the phrases that a note takes over (`phrases`). What is
left to learn is to compare, and to copy what is written.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from expstar_utils.datasets import Case, HistoryOf, by_experiment, expstar_sample, previous_texts
from expstar_utils.packing import shared_groups
from expstar_utils.phrases import Phrase, Phrases, exchanged
from expstar_utils.prompts import Prompts
from expstar_utils.records import Passage, RetrievalResult, Sample
from expstar_utils.rewording import Rewording, reworded
from expstar_utils.siblings import Place, place_of, sights

SISTER_GRADE = 2
FIRST_ANSWER = 2  # place of the message that narrates
SHOWN_AGAIN = 3  # of a step's earlier rows, the relevant ones first


def right_passages(cases: Sequence[Case], found: Mapping[str, RetrievalResult],
                   ) -> tuple[dict[str, Passage], dict[Place, set[str]]]:
    """Case id -> the right passage that was found for it, and place -> ids of those that the steps there need.

    Where a place needs several, each belongs to experiments of its own.
    """
    right, needed = {}, defaultdict(set)
    for case in (c for c in cases if c.id in found):
        if good := [d for d in found[case.id].documents if d.helps]:
            right[case.id] = good[0]
            needed[place_of(case)].add(good[0].id)
    return right, needed


def choice_samples(cases: Sequence[Case], prompts: Prompts, found: Mapping[str, RetrievalResult], history: HistoryOf, *,
                   rounds: int, sisters: int, natural: float = 0.3, share: float = 0.7, phrased: float = 0.7,
                   narrated: bool = True, seed: int = 0) -> list[list[Sample]]:
    """Rows of the steps whose siblings need other passages and that found some of those, drawn anew every round.

    A step that keeps its words is trained as a whole. Where they are exchanged, its clip no longer shows what is said, and its
    narration is not trained (that message has weight 0): the verdicts and the notes are. A step that keeps its words, and says
    again what an earlier one showed, has its earlier steps before it; half of the others have.

    Args:
        found: graded documents by case id: the right ones from grade 3, sisters of grade 2.
        sisters: how many passages that siblings need stand beside the right one. A passage that another step of the experiment
            needs is none: it would be taught as irrelevant wherever a step is named.
        natural: share of steps that keep their words. share: of the telling words that are exchanged in the others, and of the
            phrases in those of them that are `phrased`, in note and passage alike.
        narrated: whether those that keep their words are trained to narrate; a few clips, shown often, are learned by heart.

    Returns:
        For each round its rows, those of one step together.
    """
    right, needed = right_passages(cases, found)
    near = {case.id: [d for d in found[case.id].documents if d.relevant == SISTER_GRADE and d.id in needed[place_of(case)]]
            for case in cases if right.get(case.id)}
    experiments = list(by_experiment(cases))
    steps = [(case, previous_texts(of_one, i, history)) for of_one in experiments for i, case in enumerate(of_one)
             if near.get(case.id)]
    if not steps:
        return [[] for _ in range(rounds)]
    seen = sights(experiments)
    passages = {d.id: d.text for result in found.values() for d in result.documents}
    rewording = Rewording([case for case, _ in steps], list(passages.values()))
    phrases = Phrases([case for case, _ in steps], right, rewording)
    drawn: list[list[Sample]] = []
    for number in range(rounds):
        rows = []
        for case, previous in steps:
            rng = random.Random(f"{seed} {number} {case.id}")
            shown = [right[case.id], *rng.sample(near[case.id], min(sisters, len(near[case.id])))]
            keeps = rng.random() < natural
            before = previous if rng.random() < 0.5 or (seen[case.id][1] and keeps) else []
            if not keeps:
                if rng.random() < phrased:
                    case, shown[0] = _phrased(case, shown[0], phrases.draw(case, share, rng))
                texts = [*before, *case.narration, *(p.text for p in shown), *case.principle, *case.safety]
                new = rewording.draw(place_of(case), texts, share, rng)
                before, shown = [reworded(text, new) for text in before], [_reworded_passage(p, new) for p in shown]
                notes = {k: [reworded(line, new) for line in getattr(case, k)] for k in ("narration", "principle", "safety")}
                case = case.model_copy(update=notes)
            for place, passage in enumerate(shown):
                row = expstar_sample(case, before, prompts, [passage], relevant=place == 0, notes=place == 0)
                if not (keeps and narrated):
                    row.messages[FIRST_ANSWER].weight = 0
                rows.append(row)
        drawn.append(rows)
    return drawn


def _phrased(case: Case, passage: Passage, substitutes: Sequence[tuple[Phrase, str]]) -> tuple[Case, Passage]:
    text, principle = passage.text, case.principle
    for phrase, new in substitutes:
        text, principle = exchanged(text, phrase.read, new), [exchanged(line, phrase.noted, new) for line in principle]
    return case.model_copy(update={"principle": principle}), Passage(id=passage.id, text=text)


def with_earlier(drawn: Sequence[Sequence[Sample]], earlier: Sequence[Sample], share: float, seed: int = 0,
                 narrated: bool = True) -> list[Sample]:
    """The rows of all rounds, and in each round `share` as many steps of earlier training, so that it is not forgotten.

    Args:
        narrated: whether those are trained to narrate; without, steps that look nothing up are left out.
    """
    if not narrated:
        earlier = [row.model_copy(deep=True) for row in earlier if len(row.messages) > FIRST_ANSWER + 1]
        for row in earlier:
            row.messages[FIRST_ANSWER].weight = 0
    groups, rows = shared_groups(earlier), []
    for number, of_round in enumerate(drawn):
        count = round(share * len({row.id for row in of_round}))
        again = random.Random(seed + number).sample(groups, min(count, len(groups)))
        rows += [*of_round, *(earlier[i] for group in again for i in group[:SHOWN_AGAIN])]
    return rows


def _reworded_passage(passage: Passage, substitutes: Mapping[str, str]) -> Passage:
    return Passage(id=passage.id, text=reworded(passage.text, substitutes))

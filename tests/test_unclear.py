"""Rows of films that do not show what their title says: that is admitted, and the title's own passage is the right one."""

from __future__ import annotations

from itertools import groupby

import pytest

from expstar_utils import unclear
from expstar_utils.datasets import Case
from expstar_utils.media import probe
from expstar_utils.mini import build
from expstar_utils.mini import unclear as films
from expstar_utils.mini.family import load_families
from expstar_utils.prompts import IRRELEVANT, NO_RETRIEVAL, RELEVANT, load_prompts, parse
from expstar_utils.records import Passage, RetrievalResult

GENERAL = [Passage(id=f"chemistry-topic{i}", title=f"Topic {i}", text=f"Topic {i} is law. It is.") for i in range(12)]
CARDS = [Passage(id=f"hazard-{name}", title=f"{name}: hazard card", text=f"Hazard card for {name} (CAS 1). It burns. Care.")
         for name in ("argon", "boron", "carbon", "radon", "xenon")]
OWN = [Passage(id=f"chemistry-own{i}", title=f"Own {i}", text=f"Own {i} text.") for i in range(2)]


def case_of(number: int, **more) -> Case:
    return Case.model_validate({
        "id": f"chemistry_{number}", "experiment": f"chemistry/{number}", "subject": "chemistry", "title": "Flames",
        "step_number": 1, "clip": f"{number}.mp4", "summary": "Light it", "narration": [f"The flame {number} burns."]} | more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for number in range(3):
        films.write_film((root, load_families(build.SPECS)[:2], 1, number))
    cases = [case_of(0, principle=["Own."]), case_of(1, principle=["Own."]), case_of(2), case_of(3, title="Beams")]
    def found(case, own):
        graded = [d.to_dict() | {"relevant": 5 if d is own else 1} for d in [*OWN, *GENERAL, *CARDS]]
        row = {"id": case.id, "query": "q", "video_path": "v", "is_rag": True, "documents": graded}
        return RetrievalResult.model_validate(row)
    results = {case.id: found(case, own) for case, own in zip(cases, OWN, strict=False)}
    def rows(**more):
        return unclear.unclear_samples(root, cases, results, [*OWN, *GENERAL, *CARDS], load_prompts(),
                                       **{"count": 60, "sisters": 2, "seed": 3} | more)
    return root, rows


def test_films_are_videos_that_stay_when_they_are_there(made):
    root, _ = made
    assert unclear.films(root) == ["unclear/01.mp4", "unclear/02.mp4", "unclear/03.mp4"]
    assert probe(root / "unclear/01.mp4").duration_s == pytest.approx(films.SECONDS, abs=0.2)
    before = (root / "unclear/02.mp4").stat().st_mtime_ns
    assert films.write_film((root, [], 1, 1)) == root / "unclear/02.mp4"
    assert (root / "unclear/02.mp4").stat().st_mtime_ns == before


def by_step(samples):
    """Rows of each unclear step."""
    return [list(rows) for name, rows in groupby(samples, key=lambda s: s.id) if name.startswith("unclear")]


def test_the_two_kinds_of_rows(made):
    _, rows = made
    kinds, shown = {3: 0, 1: 0}, set()
    for step in by_step(rows()):
        said = parse(step[0].messages[2].content).commentary
        assert said.narration[0] == load_prompts().unclear[0]
        assert step[0].messages[1].content.split('"')[1] in said.narration[1]
        kinds[len(step)] += 1
        shown.add(step[0].videos[0].split("/")[0])
        if len(step) == 1:
            assert step[0].messages[2].content.endswith(NO_RETRIEVAL)
            assert step[0].messages[1].content.split('"')[1] in ("Flames", "Beams")
    assert kinds[3] > kinds[1] > 4
    assert shown == {"unclear", "0.mp4", "1.mp4", "2.mp4", "3.mp4"}


def test_a_film_is_never_called_unclear_under_its_own_title(made):
    _, rows = made
    own = {"Flames": {"0.mp4", "1.mp4", "2.mp4"}, "Beams": {"3.mp4"}}
    for [row] in (step for step in by_step(rows(count=200)) if len(step) == 1):
        assert row.videos[0] not in own[row.messages[1].content.split('"')[1]]


def test_right_passage_speaks_of_the_title_and_its_strangers_do_not(made):
    _, rows = made
    samples = rows(count=80)
    for right, *others in (step for step in by_step(samples) if len(step) == 3):
        passage, notes = right.messages[3].content, parse(right.messages[4].content).commentary
        assert right.messages[4].content.startswith(f"{RELEVANT}\n")
        assert (notes.principle or notes.safety)[0] in passage
        title = right.messages[1].content.split('"')[1].lower()
        [about] = [p for p in [*GENERAL, *CARDS] if p.text in passage]
        assert about.title.split(":")[0].lower() in title
        for other in others:
            assert other.messages[4].content == f"{IRRELEVANT}\n"
            assert about.text not in other.messages[3].content
    assert not any("Own" in s.messages[3].content for s in samples if s.messages[-1].content.startswith(RELEVANT))


def test_held_out_passages_are_never_trained_and_make_the_check(made):
    _, rows = made
    def titles(samples):
        return {s.messages[3].content for s in samples if s.messages[-1].content.startswith(RELEVANT)}
    trained, checked = titles(rows(count=200)), titles(rows(count=200, check=True))
    assert trained
    assert checked
    assert not trained & checked


def test_same_seed_same_rows_and_without_films_there_are_none(made, tmp_path):
    _, rows = made
    assert rows() == rows() != rows(seed=4)
    assert unclear.unclear_samples(tmp_path, [case_of(0)], {}, GENERAL, load_prompts(), count=5, sisters=2) == []

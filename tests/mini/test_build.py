"""The data set as built: same bytes for one seed, splits that share no take, sizes as promised, resumable."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from expstar_utils.datasets import load_cases
from expstar_utils.files import read_json
from expstar_utils.media import probe, sample_frames
from expstar_utils.mini import build as mini
from expstar_utils.mini.canvas import Canvas
from expstar_utils.mini.family import load_families
from expstar_utils.mini.mixed import mixes, silent
from expstar_utils.mini.render import draw_scene, step_frames
from expstar_utils.records import DISCIPLINES, SUBJECTS


@pytest.fixture(scope="module")
def families():
    return load_families(mini.SPECS)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    mini.build(folder, workers=2, subjects=["chemistry"], small=True)
    return folder


def test_every_subject_has_a_family(families):
    assert {f.subject for f in families} == set(SUBJECTS)
    assert all(f.subject in DISCIPLINES[f.discipline] for f in families)


def test_promised_size(families):
    takes = mini.plan(families)
    assert len({(t.family.id, t.variant.id) for t in takes}) >= 168
    assert len(takes) >= 168
    assert sum(len(t.family.steps) for t in takes) >= 700


def test_splits_share_no_take_and_unseen_variants_only_one_split(families):
    takes = mini.plan(families)
    assert len({t.seed for t in takes}) == len(takes)
    assert len({(t.family.subject, t.stem) for t in takes}) == len(takes)
    for take in takes:
        assert (take.split == "test_unseen") == (take.variant.split == "unseen")
    per_split = Counter((t.split, t.family.subject) for t in takes)
    assert all(per_split[split, subject] >= 2 for split in ("train", "val", "test", "test_unseen") for subject in SUBJECTS)


def test_a_mix_is_no_variant_and_says_what_its_film_shows(families):
    for family in families:
        found = mixes(family)
        seen = [tuple(sorted(v.see.items())) for v in [*family.variants, *found]]
        assert len(set(seen)) == len(seen)
        assert [v.see for v in found] == [v.see for v in mixes(family)]
        for variant in found:
            assert set(variant.see) == set(family.attributes)
            assert all(value in family.attributes[name].values for name, value in variant.see.items())
    assert sum(len(mixes(family)) >= 10 for family in families) >= 18, "where a family has all its combinations there is none"
    assert len(mixes(families[3], count=4)) == 4
    assert mixes(families[3], seed=1) != mixes(families[3])


def test_films_taken_again_say_the_same_in_fewer_frames_and_other_rooms(families, tmp_path):
    [family] = [f for f in families if f.subject == "chemistry"]
    once, again = mini.plan_mixed([family], count=1), mini.plan_mixed([family], count=1, retakes=60)
    assert again[0] == once[0]
    assert len(again) == 61
    assert {t.fps for t in again[1:]} == {2} != {again[0].fps}
    assert not any(t.variant.split == "unseen" for t in again)
    first, second = once[0], next(t for t in again[1:] if t.variant.see == once[0].variant.see)
    for take in (first, second):
        mini.film((take, tmp_path))
    told = [[(c.narration, c.clip.start, c.clip.end) for c in load_cases(tmp_path / "pairs") if t.stem in c.experiment]
            for t in (first, second)]
    assert len(told[0]) == 5
    assert told[0] == told[1]
    looks = [sample_frames(tmp_path / t.video, 4.0, 8.0, fps=1.0, max_frames=3) for t in (first, second)]
    assert [len(look.pixels) for look in looks] == [3, 3]
    corners = [look.pixels[0, :8, :8].astype(float).mean((0, 1)) for look in looks]
    assert np.abs(corners[0] - corners[1]).max() > 5
    assert np.abs(looks[0].times_s - looks[1].times_s).max() <= 0.25
    assert [probe(tmp_path / t.video).fps for t in (first, second)] == [8, 2]


def test_films_taken_again_show_every_pair_of_values_about_as_often(families):
    def pairs(takes):
        return Counter(pair for t in takes for pair in itertools.combinations(sorted(t.variant.see.items()), 2))
    for family in families:
        once = mini.plan_mixed([family])
        possible = [*mixes(family, wide=True), *(v for v in family.variants if v.split == "seen")]
        before = pairs([replace(once[0] if once else mini.plan([family])[0], variant=v) for v in possible])
        after = pairs(mini.plan_mixed([family], retakes=250)[len(once):])
        assert before.keys() == after.keys(), family.id
        for kind in {(a[0], b[0]) for a, b in before}:
            old, new = ([n for (a, b), n in counts.items() if (a[0], b[0]) == kind] for counts in (before, after))
            assert max(new) / min(new) <= max(max(old) / min(old), 1.2), (family.id, kind)


def test_every_round_of_films_taken_again_is_another(families):
    first, second = (mini.plan_mixed(families, retakes=250, film_round=n) for n in (1, 2))
    once = mini.plan_mixed(families)
    seeds = [{t.seed for t in takes if t.fps == mini.RETAKES_FPS} for takes in (first, second, mini.plan(families), once)]
    assert [len(found) for found in seeds] == [250 * len(families), 250 * len(families), 0, 0]
    assert not seeds[0] & seeds[1]
    assert not (seeds[0] | seeds[1]) & {t.seed for t in [*mini.plan(families), *once]}
    assert [t for t in first if t.fps != mini.RETAKES_FPS] == [t for t in second if t.fps != mini.RETAKES_FPS] == once


def test_values_of_mixed_experiments_alone_come_in_retakes_and_nowhere_else(families):
    def shown(takes):
        return {(t.family.id, name, value) for t in takes for name, value in t.variant.see.items()}
    alone = {(f.id, name, value) for f in families for name, a in f.attributes.items() for value in a.mixed}
    assert len(alone) > 20
    assert not alone & shown([*mini.plan(families), *mini.plan_mixed(families)])
    assert alone <= shown(mini.plan_mixed(families, retakes=250))
    for family in families:
        for attribute in family.attributes.values():
            words = [v.en for v in [*attribute.values.values(), *attribute.mixed.values()]]
            assert len(set(words)) == len(words)
            assert not set(attribute.mixed) & set(attribute.values)


def test_mixed_takes_have_narrations_alone_and_their_own_seeds(families, built):
    takes, mixed = mini.plan(families), mini.plan_mixed(families)
    assert len({t.seed for t in [*takes, *mixed]}) == len(takes) + len(mixed)
    assert not any(step.gold or step.principle.en or step.safety.zh for t in mixed for step in t.family.steps)
    assert families[0].steps != silent(families[0]).steps
    [folder] = (built / "mixed" / "pairs" / "chemistry").iterdir()
    [take] = mini.plan_mixed([f for f in families if f.subject == "chemistry"], count=1)
    spoken = " ".join(line for case in load_cases(folder.parent.parent) for line in case.narration).lower()
    assert all(take.family.attributes[name].values[value].en.lower() in spoken for name, value in take.variant.see.items())


def test_one_seed_gives_the_same_bytes_and_another_does_not(built, tmp_path):
    again = mini.build(tmp_path / "again", workers=1, subjects=["chemistry"], small=True)
    assert again == read_json(built / "manifest.json")["sha256"]
    for path in sorted(built.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(built)).read_bytes(), path
    assert mini.build(tmp_path / "other", seed=43, workers=2, subjects=["chemistry"], small=True) != again


def test_what_is_done_is_not_done_again_and_what_is_missing_is(built):
    videos = sorted(built.rglob("*.mp4"))
    before = {v: v.stat().st_mtime_ns for v in videos}
    lost = videos[0].read_bytes()
    videos[0].unlink()
    mini.build(built, workers=1, subjects=["chemistry"], small=True)
    assert videos[0].read_bytes() == lost
    assert all(v.stat().st_mtime_ns == before[v] for v in videos[1:])


def test_pairs_point_at_their_stretch_of_the_video(built):
    cases = load_cases(built / "pairs")
    assert len(cases) == 25
    for case in cases:
        info = probe(built / case.clip.video)
        assert 0 <= case.clip.start < case.clip.end <= info.duration_s + 0.01
        assert case.narration
        assert case.subject == "chemistry"


def scene(family, variant, number: int, progress: float) -> np.ndarray:
    """A step's scene without camera, light and grain."""
    step = family.steps[number]
    canvas = Canvas(96, progress * step.seconds, progress, seed=1)
    draw_scene(canvas, step.scene, family.drawing(variant), variant.see)
    return canvas.pixels().astype(int)


def differing(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pixels that differ visibly."""
    return float((np.abs(a - b).max(2) > 40).mean())


def test_something_moves_in_every_step(families):
    for family in families:
        for number, step in enumerate(family.steps):
            first, *later = (scene(family, family.variants[0], number, p) for p in (0.0, 0.35, 0.7, 1.0))
            assert max(differing(first, frame) for frame in later) > 0.004, f"{family.id}: nothing moves in {step.summary.en!r}"


def test_variants_look_different_in_the_last_step(families):
    for family in families:
        seen = [[scene(family, v, len(family.steps) - 1, p) for p in (0.3, 0.9)] for v in family.variants]
        for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
            pair = f"{family.variants[i].id} and {family.variants[j].id}"
            assert max(map(differing, a, b)) > 0.004, f"{family.id}: {pair} look alike"


def test_frames_of_the_video_are_those_that_were_drawn(built, families):
    chemistry = next(f for f in families if f.subject == "chemistry")
    take = mini.plan([chemistry], small=True)[0]
    drawn = list(step_frames(take.family, take.variant, 1, take.seed))
    start = take.family.steps[0].seconds
    stored = sample_frames(built / take.video, start, start + 1, fps=8, max_frames=8).pixels
    assert np.abs(stored[3].astype(int) - drawn[3]).mean() < 6

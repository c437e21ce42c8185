"""Every family of ExpInstruct-Mini keeps the rules that make its truth checkable and its answer visible."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from expstar_utils.mini.family import PLACEHOLDER, Family, load_family, placeholders

DATA = Path(__file__).parents[2] / "data"
FILES = sorted((DATA / "mini").glob("*.yaml"))
MAX_WORDS = {"narration": 18, "principle": 30, "safety": 25}


def passages() -> dict[str, dict]:
    rows = [json.loads(line) for path in sorted((DATA / "knowledge_base").glob("*.jsonl"))
            for line in path.read_text(encoding="utf8").splitlines()]
    return {row["id"]: row for row in rows}


@pytest.fixture(params=FILES, ids=lambda p: p.stem)
def family(request) -> Family:
    return load_family(request.param)


def filled(family: Family, variant, step, section: str, language: str = "en") -> str:
    words = family.words(variant, language)
    return "\n".join(PLACEHOLDER.sub(lambda m: words[m[1]], line) for line in getattr(getattr(step, section), language))


def test_variants_differ_in_what_is_seen(family):
    seen = [tuple(sorted(v.see.items())) for v in family.variants]
    assert len(set(seen)) == len(seen), "two variants look the same"


def test_unseen_variants_are_new_combinations_of_seen_values(family):
    unseen = [v for v in family.variants if v.split == "unseen"]
    assert len(unseen) >= 2
    assert len(family.variants) - len(unseen) >= 8
    for variant in unseen:
        for name, value in variant.see.items():
            count = sum(v.see[name] == value for v in family.variants if v.split == "seen")
            assert count >= 2, f"{variant.id}: {name}={value} stands in {count} seen variants, 2 are needed"


def test_title_alone_does_not_give_the_answer(family):
    """The family's one title holds no word that tells its variants apart."""
    title = family.title.en.lower()
    for variant in family.variants:
        for name, words in family.words(variant, "en").items():
            if len({family.words(v, "en")[name] for v in family.variants}) > 1:
                assert words.lower() not in title, f"{variant.id}: the title names {name}={words}"


def test_steps_that_cite_the_own_passage_name_everything_that_singles_it_out(family):
    cited = [s for s in family.steps if "$passage" in s.gold]
    assert cited, "no step needs the variant's own passage"
    for step in cited:
        names = {n for section, _, n in placeholders(step) if section == "narration"} & set(family.attributes)
        keys = [tuple(v.see[n] for n in sorted(names)) for v in family.variants]
        assert len(set(keys)) == len(keys), f"{step.summary.en}: narration names {sorted(names)}, two variants agree in them"


def test_narration_names_only_what_was_shown(family):
    shown = set()
    for step in family.steps:
        scene = json.dumps(step.scene)
        shown |= {n for n in family.attributes if f"${n}" in scene or f'"{n}"' in scene}
        named = {n for section, _, n in placeholders(step) if section == "narration"}
        assert named <= shown, f"{step.summary.en}: {sorted(named - shown)} named before shown, or known from books only"
    assert shown == set(family.attributes)


def test_law_or_equation_is_the_variant_s_own(family):
    own = [n for n, kind in family.knowledge.items() if kind in ("equation", "law")
           and len({v.know[n].en for v in family.variants}) == len(family.variants)]
    assert own, "no equation or law differs between all variants"
    used = {n for s in family.steps for section, _, n in placeholders(s) if section == "principle"}
    assert set(own) & used, "the own equation or law is never stated"


def test_own_passage_holds_the_answer(family):
    base = passages()
    for variant, step in itertools.product(family.variants, family.steps):
        for pid in family.gold(variant, step):
            assert pid in base or pid.startswith("hazard-"), f"passage {pid} is not in the knowledge base"
        if "$passage" not in step.gold:
            continue
        text, words = base[variant.passage]["text"], family.words(variant, "en")
        for section, _, name in placeholders(step):
            kind = family.kind(name)
            if kind == "hazard":
                long = re.findall(r"[a-z]{5,}", words[name].lower())
                missing = [w for w in long if w not in text.lower()]
                assert len(missing) <= 0.3 * len(long), f"{variant.passage} lacks {missing} of its hazard"
            else:
                assert words[name].lower() in text.lower(), f"{variant.passage} lacks {section} word {name}={words[name]!r}"


def test_texts_are_short_and_bilingual(family):
    for variant, step in itertools.product(family.variants, family.steps):
        for section, limit in MAX_WORDS.items():
            for line in filled(family, variant, step, section).splitlines():
                assert len(line.split()) <= limit, f"{section} of {len(line.split())} words: {line}"
            chinese = filled(family, variant, step, section, "zh")
            assert not chinese or re.search(r"[\u4e00-\u9fff]", chinese)
        assert 1 <= len(step.narration.en) <= 3


WRITTEN = sorted(p for p in (DATA / "knowledge_base").glob("*.jsonl") if p.stem != "hazard_cards")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.stem)
def test_passages_are_well_formed(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    assert len(rows) >= 15
    assert len({r["id"] for r in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "title", "section", "text"}
        assert 60 <= len(row["text"].split()) <= 125, f"{row['id']}: {len(row['text'].split())} words"

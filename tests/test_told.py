"""Told variants: every file keeps its rules, and their steps are trained like filmed ones, but for what the clip shows."""

from collections import Counter

import pytest

from expstar_utils.choices import FIRST_ANSWER, choice_samples
from expstar_utils.datasets import Case, by_experiment
from expstar_utils.knowledge import load_knowledge
from expstar_utils.mini.build import SPECS, fill
from expstar_utils.mini.family import load_family
from expstar_utils.prompts import RELEVANT, load_prompts
from expstar_utils.records import ExpStarError
from expstar_utils.told import ToldVariant, faults, load_told, told_cases

FAMILIES = {path.stem: load_family(path) for path in sorted(SPECS.glob("*.yaml"))}
TOLD = {subject: load_told(SPECS / "told" / f"{subject}.yaml", family) for subject, family in FAMILIES.items()}
BENT = FAMILIES["material_engineering"]


def filmed(subjects, takes=2):
    """Cases of so many filmed experiments of the first seen variant, as 02 would make them."""
    return [Case.model_validate({
        "id": f"{subject}_{take}_{number}", "experiment": f"{subject}/{take}", "subject": subject,
        "title": FAMILIES[subject].title.en, "step_number": number, "clip": f"{subject}/{take}-{number}.mp4",
        "summary": step.summary.en,
        "narration": fill(step.narration.en, FAMILIES[subject].words(FAMILIES[subject].variants[0], "en"))})
        for subject in subjects for take in range(takes) for number, step in enumerate(FAMILIES[subject].steps, 1)]


@pytest.mark.parametrize("subject", FAMILIES)
def test_every_family_has_told_variants_of_both_sides(subject):
    sides = Counter(variant.split for variant in TOLD[subject])
    assert min(sides["train"] - 16, sides["val"] - 4) >= 0, f"{sides}; load_told has checked the rest"
    beginnings = Counter(" ".join(variant.passage.split()[:3]).lower() for variant in TOLD[subject])
    assert max(beginnings.values()) <= 2, f"passages begin alike: {beginnings.most_common(1)}"


def test_no_told_passage_is_in_the_knowledge_base():
    known = {" ".join(passage.text.split()) for passage in load_knowledge()}
    assert not [v.id for variants in TOLD.values() for v in variants if " ".join(v.passage.split()) in known]


def changed(**changes):
    return ToldVariant.model_validate(TOLD["material_engineering"][0].model_dump() | changes)


LOOK = {name: BENT.attributes[name][value].en for name, value in BENT.variants[-1].see.items()}


@pytest.mark.parametrize(("changes", "said"), [
    ({"id": BENT.variants[0].id}, "found twice"),
    ({"see": {"colour": "silver"}}, "expected ['colour', 'curve', 'fracture']"),
    ({"see": LOOK}, "looks like another variant"),
    ({"know": TOLD["material_engineering"][0].know | {"substance": "Structural  steel S355"}}, "is another variant's"),
    ({"know": TOLD["material_engineering"][0].know | {"law": BENT.variants[0].know["law"].en}}, "is another variant's"),
    ({"know": TOLD["material_engineering"][0].know | {"hazard": "Mind your toes."}}, "lacks hazard"),
    ({"passage": "Too short."}, "a passage of 2 words"),
    ({"see": LOOK | {"curve": "a " + "very " * 20 + "long line"}}, "a narration line of"),
])
def test_a_fault_is_named(changes, said):
    assert not list(faults(BENT, [changed()]))
    assert any(said in fault for fault in faults(BENT, [changed(**changes)]))


def test_two_told_variants_may_not_share_a_look_or_a_law():
    twin = changed(id="twin")
    said = "\n".join(faults(BENT, [changed(), twin]))
    assert [word for word in ("looks like another", "law", "substance") if word not in said] == []


@pytest.mark.parametrize("text", ["variants: [{id: a}]", "variants: 3", "colours: []", "{"])
def test_a_bad_file_is_named(tmp_path, text):
    (tmp_path / "told.yaml").write_text(text)
    with pytest.raises(ExpStarError, match="told.yaml"):
        load_told(tmp_path / "told.yaml", BENT)


def test_steps_are_those_of_the_family_behind_a_clip_of_its_title():
    made, found = told_cases(filmed(["chemistry", "optics"]), "train", seed=5)
    experiments = {steps[0].experiment: steps for steps in by_experiment(made)}
    assert len(experiments) == sum(v.split == "train" for subject in ("chemistry", "optics") for v in TOLD[subject])
    for subject in ("chemistry", "optics"):
        for variant in (v for v in TOLD[subject] if v.split == "train"):
            steps = experiments[f"told/{subject}/{variant.id}"]
            assert len({case.clip.split("-")[0] for case in steps}) == 1, "one film for all steps"
            assert {case.clip.split("/")[0] for case in steps} == {subject}
            for case, step in zip(steps, FAMILIES[subject].steps, strict=True):
                assert case.narration == fill(step.narration.en, variant.words)
                assert (case.id in found) == ("$passage" in step.gold)
                if case.id in found:
                    right = [d for d in found[case.id].documents if d.helps]
                    assert [d.text for d in right] == [variant.passage.strip()]
                    assert all(word in right[0].text.lower() for word in
                               [variant.know[name].lower() for name in variant.know if FAMILIES[subject].kind(name) != "hazard"])
    assert len({case.clip.split("-")[0] for case in made if case.subject == "optics"}) == 2, "every film is lent"
    assert made == told_cases(filmed(["chemistry", "optics"]), "train", seed=5)[0]


def test_sides_share_no_passage_and_other_titles_have_none():
    sides = {split: told_cases(filmed(FAMILIES), split)[1] for split in ("train", "val")}
    texts = {split: {d.text for r in found.values() for d in r.documents} for split, found in sides.items()}
    assert min(map(len, texts.values())) >= 4 * len(FAMILIES)
    assert not texts["train"] & texts["val"]
    other = [case.model_copy(update={"title": "Another title"}) for case in filmed(["chemistry"])]
    assert told_cases(other, "train") == ([], {})


def test_nearest_sisters_look_most_alike():
    _, found = told_cases(filmed(["material_engineering"]), "train")
    variants = {f"told-{v.id}": v for v in TOLD["material_engineering"]}
    for result in found.values():
        own, *others = (variants[d.id] for d in result.documents)
        alike = [sum(own.see[name].lower() == other.see[name].lower() for name in own.see) for other in others]
        assert alike == sorted(alike, reverse=True)


def test_what_the_clip_does_not_show_is_never_trained():
    made, found = told_cases(filmed(["chemistry"]), "train")
    [rows] = choice_samples(made, load_prompts(), found, "narration", rounds=1, sisters=2, natural=1.0, narrated=False)
    assert {row.id for row in rows} == set(found)
    assert {row.messages[FIRST_ANSWER].weight for row in rows} == {0}
    noted = [row for row in rows if RELEVANT in row.messages[-1].content]
    assert (len(noted), len(rows)) == (len(found), 3 * len(found))
    for row in noted:
        case = next(c for c in made if c.id == row.id)
        assert all(line in row.messages[-1].content for line in [*case.principle, *case.safety])

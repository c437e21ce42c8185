"""Profiles: those that ship load, a wrong key or value is named, a notebook's own parameters win."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from expstar_utils.profiles import FOLDER, Profile, load_profile
from expstar_utils.records import ExpStarError

FILES = sorted(FOLDER.glob("*.yaml"))
TINY = yaml.safe_load((FOLDER / "tiny.yaml").read_text(encoding="utf8"))


@pytest.fixture
def changed(tmp_path):
    """Writes tiny.yaml with some keys changed, as mine.yaml."""
    def write(**keys):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(TINY | keys), encoding="utf8")
        return str(path)
    return write


def test_tiny_and_the_published_setting_ship():
    assert {"tiny", "paper"} <= {p.stem for p in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_profile_that_ships_loads_by_name_and_by_path(path):
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert load_profile(str(path)) == profile
    for key, value in yaml.safe_load(path.read_text(encoding="utf8")).items():
        found = profile.model_dump(mode="json", exclude_unset=True)[key]
        assert found == value, key


def test_published_setting_is_that_of_the_paper():
    paper = load_profile("paper")
    published = {"base": "Qwen/Qwen2.5-VL-7B-Instruct", "dtype": "bfloat16", "fps": 1.0, "max_frames_sft": 64,
                 "max_frames_infer": 24, "max_length": 4096, "batch_size": 1, "sft_epochs": 3, "sft_lr": 1e-4, "warmup": 0.05,
                 "lora_r": 16, "lora_alpha": 32, "passages": 8, "max_new_tokens": 1024}
    assert paper.frame_size.frame == 768 * 16 * 16
    assert {key: getattr(paper, key) for key in published} == published
    [retriever] = paper.retrievers
    assert (retriever.options["model"], retriever.text, retriever.video) == ("EVA-CLIP-8B", 0.3, 0.7)


@pytest.mark.parametrize(("part", "said"), [
    ({"name": "faiss"}, r"retrievers\.0\.name is 'faiss'"), ({"name": "lit", "weight": 0}, r"retrievers\.0\.weight is 0"),
    ({"name": "lit", "text": 0}, r"retrievers\.0\.text is 0"), ({"name": "lit", "query": ["picture"]}, r"retrievers\.0\.query"),
    ({"name": "bm25", "query": ["clip"]}, "bm25 reads, found a query of clips alone"),
    ({"name": "lit", "modle": 1}, "modle is 1")])
def test_a_retriever_that_cannot_be_is_named(part, said):
    with pytest.raises(ExpStarError, match=said):
        load_profile("tiny", retrievers=[part])
    with pytest.raises(ExpStarError, match="retrievers is"):
        load_profile("tiny", retrievers=[])


@pytest.mark.parametrize("key", ["learning_rate", "sft_Lr", "名"])
def test_unknown_key_is_named(key, changed):
    with pytest.raises(ExpStarError, match=rf"mine\.yaml: {key} is 1, expected: Extra inputs are not permitted"):
        load_profile(changed(**{key: 1}))
    with pytest.raises(ExpStarError, match=rf"tiny\.yaml: {key} is 1"):
        load_profile("tiny", **{key: 1})


@pytest.mark.parametrize(("key", "value"), [
    ("fps", 0), ("fps", -1.0), ("max_frames_sft", 0), ("max_frames_infer", 0), ("max_length", 3), ("batch_size", 0),
    ("batch_size", 1.5), ("accumulation", 0), ("sft_epochs", 0), ("sft_lr", 0), ("sft_lr", "fast"), ("warmup", -0.1),
    ("lora_r", 0), ("passages", 0), ("max_new_tokens", 0), ("max_relevant", -1), ("max_irrelevant", -1), ("diversity", -0.1),
    ("index_recall", 0), ("index_kind", "annoy"), ("dtype", "int4"), ("history", "none"), ("frame_size", [128]),
    ("frame_size", [128, 1.5]), ("frame_size", "small"), ("frame_size", {"frame": 0}), ("frame_size", {"clip": 10**6}),
    ("frame_size", {"frame": 10**6, "clips": 1})])
def test_value_out_of_range_is_named_with_its_key(key, value, changed):
    for wrong in (lambda: load_profile(changed(**{key: value})), lambda: load_profile("tiny", **{key: value})):
        with pytest.raises(ExpStarError, match=rf"\.yaml: {key}.* is .*, expected: ") as caught:
            wrong()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "said"), [
    ([128], r"frame_size\.1 is missing"), ({"frame": 10**6, "clips": 1}, r"frame_size\.clips is 1, expected: Extra"),
    ("small", "frame_size is 'small', expected: Input should be a valid tuple")])
def test_what_is_wrong_with_a_size_is_told_without_pydantics_names_of_kinds(size, said):
    with pytest.raises(ExpStarError, match=said):
        load_profile("paper", frame_size=size)


@pytest.mark.parametrize(("size", "said"), [
    ({"frame": 783}, "783 pixels for each of 64 frames, expected at least 784"),
    ({"frame": 1000, "multiple": 32}, "1000 pixels for each of 64 frames, expected at least 1024"),
    ({"frame": 10**5, "clip": 50_000}, "781 pixels for each of 64 frames, expected at least 784")])
def test_a_limit_without_room_for_a_frame_is_named(size, said):
    with pytest.raises(ExpStarError, match=f"frame_size leaves {said}; raise it, or take fewer frames"):
        load_profile("paper", frame_size=size)


def test_a_profile_with_a_limit_of_pixels_survives_a_file():
    paper = load_profile("paper")
    assert Profile.model_validate(paper.model_dump(mode="json")) == Profile.model_validate_json(paper.model_dump_json()) == paper


def test_missing_key_is_named(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in TINY.items() if key != "sft_lr"}))
    with pytest.raises(ExpStarError, match=r"short\.yaml: sft_lr is missing"):
        load_profile(str(path))


def test_override_wins_and_none_leaves_the_file_alone():
    assert load_profile("tiny", sft_lr=0.5, history=None).sft_lr == 0.5
    assert load_profile("tiny", sft_lr=None, batch_size=None, base=None) == load_profile("tiny")
    assert load_profile("tiny", joint=False).joint is False, "False and 0 are values, not absence"
    assert load_profile("tiny", max_irrelevant=0).max_irrelevant == 0
    assert load_profile("tiny", sft_lr=0.5).model_dump() == load_profile("tiny").model_dump() | {"sft_lr": 0.5}


def test_profile_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("tiny").sft_lr = 1.0


@pytest.mark.parametrize("name", ["huge", "nowhere/huge.yaml", "../tiny"])
def test_unknown_profile_names_those_that_are_known(name):
    with pytest.raises(ExpStarError, match=rf"profile '{name}' was not found, expected one of .*'paper'.*'tiny'"):
        load_profile(name)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"just text", b"a: [1\n", b"a: b: c", b"\xff\xfe"])
def test_file_that_is_no_profile_is_named_in_one_sentence(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ExpStarError, match=r"mine\.yaml: found ") as caught:
        load_profile(str(path))
    assert "\n" not in str(caught.value)


def test_every_setting_has_a_value_in_tiny_or_a_default():
    assert set(TINY) <= set(Profile.model_fields)
    assert {key for key, field in Profile.model_fields.items() if field.is_required()} <= set(TINY)

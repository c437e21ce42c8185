"""A limit of pixels is kept in a film's proportions, never enlarges, and gives sizes that Qwen's processors leave alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from transformers import AutoVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from expstar_utils.profiles import load_profile
from expstar_utils.sizes import FrameSize, Pixels, scaled

PAPER = load_profile("paper")
SIDES = st.integers(28, 3000)
LIMITS = st.builds(Pixels, frame=st.integers(28 * 28, 10**6), clip=st.none() | st.integers(64 * 28 * 28, 10**7))
TOKEN_PX = 2 * 28 * 28  # two frames together
PUBLISHED = {  # what the files of the published weights say of videos (those of Qwen2.5-VL say it of pictures, for both)
    "paper": {"min_pixels": 56 * 56, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
              "video_processor_type": "Qwen2VLVideoProcessor"},
    "qwen3_vl": {"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}, "patch_size": 16, "temporal_patch_size": 2,
                 "merge_size": 2, "video_processor_type": "Qwen3VLVideoProcessor"}}


@given(LIMITS, SIDES, SIDES, st.integers(1, 64))
def test_both_limits_are_kept_and_no_side_is_longer_than_the_films(limit, height, width, count):
    found = scaled(limit, height, width, count)
    assert found[0] * found[1] <= limit.frame
    assert limit.clip is None or count * found[0] * found[1] <= limit.clip
    assert all(28 <= side <= own and side % 28 == 0 for side, own in zip(found, (height, width), strict=True))
    assert scaled(limit, width, height, count) == found[::-1]


@given(LIMITS, SIDES, SIDES, st.integers(1, 64))
def test_proportions_are_kept_to_a_multiple(limit, height, width, count):
    """Each side is what true proportions would give it, cut to a multiple; a strip gets a multiple and a shorter other side."""
    scale = min(1, (limit.a_frame(count) / (height * width)) ** 0.5)
    found = scaled(limit, height, width, count)
    assert all(side < scale * own + 1e-6 or side == 28 for side, own in zip(found, (height, width), strict=True))
    assert 28 in found or all(side > scale * own - 28 - 1e-6 for side, own in zip(found, (height, width), strict=True))


@given(st.integers(28 * 28, 10**6), SIDES, SIDES)
def test_frames_that_are_scaled_down_get_the_size_that_qwens_own_limit_would_give_them(frame, height, width):
    assumed = smart_resize(height, width, 28, 1, frame)
    if 28 not in assumed and (round(height / 28) * 28) * (round(width / 28) * 28) > frame < height * width:
        assert scaled(Pixels(frame=frame), height, width, 64) == assumed


@given(st.none() | st.tuples(SIDES, SIDES), SIDES, SIDES, st.integers(1, 64))
def test_without_a_limit_the_size_is_the_one_named_or_the_films(size, height, width, count):
    assert scaled(size, height, width, count) == (size or (height, width))


def test_a_film_smaller_than_a_multiple_is_shown_at_one():
    assert scaled(Pixels(frame=10**6), 20, 10, 1) == (28, 28)
    assert scaled(Pixels(frame=28 * 28 * 5), 20, 3000, 1) == (28, 5 * 28)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, PAPER.max_frames_sft))
def test_rows_of_the_paper_profile_stay_below_its_longest(height, width, count):
    """A prompt of 512 tokens and a branch of 256, whatever the film's size; frames go in pairs."""
    tall, wide = scaled(PAPER.frame_size, height, width, count)
    assert (count + count % 2) * tall * wide / TOKEN_PX + 512 + 256 <= PAPER.max_length


@pytest.mark.parametrize("profile", PUBLISHED)
@pytest.mark.parametrize(("count", "film"), [(64, (720, 1280)), (32, (1280, 720)), (24, (480, 640)), (2, (360, 640))])
def test_the_published_processors_take_such_frames_as_they_are(profile, count, film, tmp_path):
    torch.set_num_threads(1)
    name = "preprocessor_config.json" if profile == "paper" else "video_preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps(PUBLISHED[profile]))
    processor, limit = AutoVideoProcessor.from_pretrained(tmp_path), load_profile(profile).frame_size
    size = scaled(limit, *film, count)
    frames = np.zeros((count, 3, *size), np.uint8)
    grid = processor(videos=[frames], do_sample_frames=False, cap_pixels_per_frame=False, return_tensors="pt")["video_grid_thw"]
    assert grid[0].tolist() == [count // 2, *(side // processor.patch_size for side in size)]
    if (profile, count) == ("paper", 64):
        assert grid.prod() / 4 == 2912


@pytest.mark.parametrize("given_size", [None, (56, 84), Pixels(frame=1000), Pixels(frame=196608, clip=5_000_000, multiple=32)])
def test_a_size_survives_a_file(given_size):
    kind = TypeAdapter(FrameSize)
    assert kind.validate_json(kind.dump_json(given_size)) == given_size


def test_a_limit_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        PAPER.frame_size.frame = 1

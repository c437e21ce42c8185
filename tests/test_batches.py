"""Lengths of rows are counted from the heads of their clips, once, and anew when what they were counted of has changed."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest
from small_runs import small_profile
from test_packing import ragged

from expstar_utils import batches, media, models
from expstar_utils.batches import VideoCollator, counted_once, row_lengths
from expstar_utils.packing import shared_groups
from expstar_utils.records import Sample, VirtualClip


@pytest.fixture
def collator(smolvlm, root, tmp_path):
    model, processor = smolvlm
    shutil.copytree(root, tmp_path / "clips")
    return VideoCollator(processor, ragged(), tmp_path / "clips", small_profile(root), models.quirks(model, processor).turn_end)


@pytest.fixture
def asked(tmp_path):
    """Function (collator): its rows' lengths, and whether they had to be counted."""
    def lengths(collator):
        groups, counted = shared_groups(collator.samples), []
        found = counted_once(tmp_path / "lengths.json", collator,
                             lambda: counted.append(1) or row_lengths(collator, groups))
        assert list(map(tuple, found)) == row_lengths(collator, groups)
        return bool(counted)
    return lengths


def test_the_second_time_nothing_is_counted(collator, asked):
    assert [asked(collator), asked(dataclasses.replace(collator)), asked(collator)] == [True, False, False]


def test_other_rows_frames_or_clips_are_counted_anew(collator, asked):
    asked(collator)
    assert asked(dataclasses.replace(collator, samples=collator.samples[:-1]))
    assert asked(dataclasses.replace(collator, profile=collator.profile.model_copy(update={"max_frames_sft": 2})))
    assert asked(dataclasses.replace(collator, profile=collator.profile.model_copy(update={"packed": True})))
    asked(collator)
    os.utime(collator.root / "0.mp4", (5, 5))
    assert asked(collator)


@pytest.mark.parametrize("damage", [
    lambda text: text[:len(text) // 2], lambda text: text.replace('"lengths": [[', '"lengths": [[1'), lambda _: "[]",
    lambda _: ""])
def test_a_damaged_file_is_passed_over(collator, asked, tmp_path, damage):
    asked(collator)
    path = tmp_path / "lengths.json"
    path.write_text(damage(path.read_text()))
    assert [asked(collator), asked(collator)] == [True, False]


def test_heads_alone_give_the_lengths_that_the_pictures_have(base, root, monkeypatch):
    """Clips of several lengths, whole and in part, in every family."""
    model, processor = models.load(str(base))
    def row(clip, number):
        return Sample.model_validate({**ragged()[0].to_dict(), "id": str(number), "videos": [clip]})
    parts = [VirtualClip(video="0.mp4", start=0.2, end=end).to_dict() for end in (0.9, 2.0)]
    samples = [row(clip, number) for number, clip in enumerate(["0.mp4", "1.mp4", *parts])]
    collator = VideoCollator(processor, samples, root, small_profile(base, fps=3.0, max_frames_sft=8),
                             models.quirks(model, processor).turn_end)
    groups = [[i] for i in range(len(samples))]
    pictured = [collator.encode_group(group)[1] for group in groups]
    def refused(*_):
        raise AssertionError("a picture was decoded")
    monkeypatch.setattr(media, "last_at_or_before", refused)
    assert row_lengths(collator, groups) == [(layout.shared, layout.branches[0]) for layout in pictured]
    assert len({layout.shared for layout in pictured}) > 1
    with pytest.raises(AssertionError, match="a picture was decoded"):
        dataclasses.replace(collator).frames(samples[0])


def test_rows_that_share_a_prompt_have_the_lengths_that_they_have_alone(collator):
    groups = shared_groups(collator.samples)
    assert max(map(len, groups)) > 1
    together, alone = row_lengths(collator), row_lengths(collator, [[i] for i in range(len(collator.samples))])
    assert together == row_lengths(collator, groups)
    assert list(map(sum, together)) == list(map(sum, alone))


def test_frames_stay_in_memory_up_to_a_limit(collator, monkeypatch):
    clips = [sample for i, sample in enumerate(collator.samples) if sample.videos[0] not in
             [earlier.videos[0] for earlier in collator.samples[:i]]]
    fresh = {sample.id: dataclasses.replace(collator).frames(sample) for sample in clips}
    most = max(frames.pixels.nbytes for frames in fresh.values())
    assert len(clips) > 2
    for limit, kept in ((2 * most, 2), (0, 1)):
        monkeypatch.setattr(batches, "KEPT_BYTES", limit)
        bounded = dataclasses.replace(collator)
        for sample in [*clips, *clips, clips[-1]]:
            assert (bounded.frames(sample).pixels == fresh[sample.id].pixels).all()
            assert 1 <= len(bounded._frames) <= max(kept, limit // min(f.pixels.nbytes for f in fresh.values()))
            assert bounded._kept_bytes == sum(frames.pixels.nbytes for frames in bounded._frames.values())
            assert bounded._kept_bytes <= max(limit, most)
        assert bounded.frames(clips[-1]) is bounded.frames(clips[-1])

"""Lengths of rows are counted once, and anew when what they were counted of has changed."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest
from small_runs import small_profile
from test_packing import ragged

from expstar_utils import models
from expstar_utils.batches import VideoCollator, counted_once, row_lengths
from expstar_utils.packing import shared_groups


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

"""A stage's record: what made it, and the time of all the work behind it."""

from __future__ import annotations

import os
import time

import pytest

from expstar_utils.runlog import Stage, read_metrics


def test_time_of_runs_with_the_same_parameters_adds_up(tmp_path):
    first = Stage("4_sft", tmp_path, seed=1)
    first._started -= 100
    assert first.finish(loss=1.0)["total_s"] == pytest.approx(100, abs=5)
    again = Stage("4_sft", tmp_path, seed=1).finish(loss=0.5)
    assert again["wall_s"] < 50 < again["total_s"]
    assert read_metrics(tmp_path / "4_sft" / "metrics.json") == {"loss": 0.5}


def test_time_of_a_run_with_other_parameters_does_not_count(tmp_path):
    other = Stage("4_sft", tmp_path, seed=1)
    other._started -= 100
    other.finish()
    record = Stage("4_sft", tmp_path, seed=2).finish()
    assert record["total_s"] == record["wall_s"] < 50


def test_parts_of_a_stage_have_their_own_seconds(tmp_path):
    stage = Stage("s", tmp_path)
    for name in ("read", "write"):
        time.sleep(0.05)
        stage.lap(name)
    laps = stage.finish()["laps"]
    assert list(laps) == ["read", "write"]
    assert all(0.04 < lap["s"] < 0.5 and lap["peak_mib"] > 10 for lap in laps.values())
    assert "laps" not in Stage("t", tmp_path).finish()


def test_what_a_killed_process_began_a_day_ago_goes_and_nothing_else(tmp_path):
    folder = tmp_path / "5_predictions"
    (folder / ".vectors.12.part").mkdir(parents=True)
    for name in (".test.jsonl.a1.part", ".test.jsonl.b2.part", ".vectors.12.part/x", "test.jsonl", "5.part", ".hidden"):
        (folder / name).write_text("{}")
    for path in [*folder.iterdir()]:
        os.utime(path, (0, time.time() - (60 if "b2" in path.name else 90_000)))
    Stage("5_predictions", tmp_path)
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".lock-")}
    assert left == {".test.jsonl.b2.part", "test.jsonl", "5.part", ".hidden"}

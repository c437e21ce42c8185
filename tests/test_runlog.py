"""A stage's record: what made it, and the time of all the work behind it."""

from __future__ import annotations

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

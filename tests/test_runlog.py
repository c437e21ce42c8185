"""A stage's record: what made it, and the time of all the work behind it."""

from __future__ import annotations

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

"""Benchmarks of the model run on miniatures: their two sides agree, and the script for a GPU is ready for one."""

from __future__ import annotations

from argparse import Namespace

import pytest

from benchmarks import compiled, gpu_paper, packed_dpo, packed_sft, verdicts
from benchmarks.shaped import PAPER, Shape, clip, loaded, rows_of
from expstar_utils.encoding import encode_dialogue, encode_prefix
from expstar_utils.files import read_json
from expstar_utils.models import quirks

SMALL = Shape(prefix=500, branch=48, branches=3)


@pytest.fixture
def given(base):
    return Namespace(base=str(base), dtype="float32", runs=1)


def test_rows_have_the_wished_shape(given):
    from benchmarks.shaped import benchmark_profile
    model, processor = loaded(given)
    frames, end = clip(benchmark_profile(given)), quirks(model, processor).turn_end
    rows = rows_of(model, processor, frames, SMALL)
    assert len(rows) == SMALL.branches
    prefix = encode_dialogue(processor, rows[0].messages[:3], frames, end)
    whole = [len(encode_dialogue(processor, row.messages, frames, end).ids) for row in rows]
    assert len(prefix.ids) == pytest.approx(SMALL.prefix, abs=2)
    assert whole == pytest.approx([SMALL.prefix + SMALL.branch] * 3, abs=12)
    assert len({tuple(m.content for m in row.messages[:3]) for row in rows}) == 1
    assert encode_prefix(processor, rows[0].messages[:2], frames).ids == prefix.ids[:len(encode_prefix(
        processor, rows[0].messages[:2], frames).ids)]


def test_ceiling_is_that_of_the_tokens():
    assert PAPER.ceiling == pytest.approx(8 * 1088 / (1024 + 512))
    assert Shape(1, 10**9, 8).ceiling == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("benchmark", [packed_sft, packed_dpo, compiled, verdicts], ids=lambda b: b.__name__.split(".")[-1])
def test_both_sides_do_the_same_work(given, benchmark):
    found = benchmark.measured(given, SMALL, print)
    assert found["ours"] > 0 < found["theirs"]
    assert found.get("loss_difference", 0) < 1e-3
    assert found.get("largest_difference", 0) < 1e-3


def test_the_script_for_a_gpu_runs_on_the_miniature(tmp_path):
    rows = gpu_paper.main(["--size", "miniature", "--steps", "1", "--out", str(tmp_path)])
    kept = read_json(tmp_path / "gpu_paper_miniature.json")
    assert kept["failed"] == []
    assert [row["what"] for row in rows] == [
        "sft step, packed", "sft step, apart", "dpo step, packed", "dpo step, apart", "verdicts, prefix read once",
        "verdicts, prompt read every time", "generation, 8 side by side"]
    assert all(row["seconds"] > 0 < row["tokens_per_s"] for row in rows)

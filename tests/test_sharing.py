"""Shards of a stage: together they are the whole, one that is none is told, and their files are not taken for whole ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspected_run import three_steps

from expstar_utils.evaluation_rows import prediction_files
from expstar_utils.figures.examples import choose
from expstar_utils.files import write_json, write_jsonl
from expstar_utils.inspector.cases import Casebook
from expstar_utils.records import ExpStarError
from expstar_utils.sharing import is_shard, shard_files, shard_mark, share, whole_files


@given(st.lists(st.integers(), max_size=20), st.integers(1, 8))
def test_shards_are_interleaved_and_together_the_whole(units, count):
    shares = [share(units, shard, count) for shard in range(count)]
    taken = [iter(its) for its in shares]
    assert [next(taken[n % count]) for n in range(len(units))] == units
    assert sum(map(len, shares)) == len(units)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("shard", "count", "last"), [(4, 4, 3), (-1, 2, 1), (1, 1, 0)])
def test_a_shard_that_is_none_is_told(shard, count, last):
    with pytest.raises(ExpStarError, match=f"^shard is {shard} of {count}, expected 0 to {last}; correct it$"):
        share([1, 2, 3], shard, count)


@pytest.mark.parametrize("count", [2, 12])
def test_a_shards_files_are_told_by_their_names(count):
    for ending in ("jsonl", "metrics.json", "problems.json"):
        assert is_shard(f"test-free-adaptive.{shard_mark(count - 1, count)}{ending}")
        assert is_shard(f"{shard_mark(0, count)}{ending}")
        assert not is_shard(f"test-free-adaptive.{shard_mark(0, 1)}{ending}")
    assert not is_shard("shard-000-of-002-notes.jsonl")


def test_whoever_lists_predictions_leaves_shards_out(tmp_path):
    run = three_steps(tmp_path)
    folder = run / "5_predictions"
    for mark in ("shard-0-of-2.", "shard-1-of-2."):
        write_jsonl(folder / f"good.{mark}jsonl", [])
        write_json(folder / f"a.{mark}metrics.json", {})
    wanted = [folder / "bad.jsonl", folder / "good.jsonl"]
    assert whole_files(folder) == wanted
    assert prediction_files(folder) == wanted
    assert list(Casebook([run]).runs) == ["bad", "good"]
    assert {example.run for example in choose(run, 0)} == {"bad"}
    assert [path.name for path in shard_files(folder / "good.jsonl")] == ["good.shard-0-of-2.jsonl", "good.shard-1-of-2.jsonl"]
    assert shard_files(folder / "bad.jsonl") == []

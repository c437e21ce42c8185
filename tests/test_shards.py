"""Large knowledge bases: shards share the documents out, memory stays, and a killed build ends with the same bytes."""

import json
import multiprocessing
import random
import time

import pytest
from pyarrow import parquet

from benchmarks.wiki_dump import write_dump
from expstar_utils import shards
from expstar_utils.files import read_json
from expstar_utils.records import ExpStarError


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    return write_dump(tmp_path_factory.mktemp("dump") / "wiki.xml", 120)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(shards, "PART_PASSAGES", 60)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("[!.]*")) if path.is_file()}


def test_a_dump_becomes_parts_of_passages_without_copies(dump, tmp_path, small_parts):
    done = shards.build(dump, tmp_path)
    assert done["documents"] == 126  # 120 articles, 6 of them twice under another title
    passages = list(shards.StoredPassages(tmp_path))
    assert len(passages) == done["passages"] == len({p.id for p in passages})
    assert not any(p.title.startswith("Copy") for p in passages)
    assert {p.title for p in passages} == {f"Article {n}" for n in range(1, 121)}
    assert {p.section for p in passages} == {"", "Method", "中文"}
    parts = sorted(tmp_path.rglob("part-*.parquet"))
    assert len(parts) > 5
    assert parquet.read_schema(parts[0]).names == ["id", "title", "section", "text"]
    assert read_json(parts[0].parent / "problems.json") == []


def test_shards_share_the_documents_out(dump, tmp_path):
    whole = {p.id for p in shards.StoredPassages(shards_of(dump, tmp_path / "whole", 1))}
    parted = [p.id for p in shards.StoredPassages(shards_of(dump, tmp_path / "parted", 3))]
    assert len(parted) == len(set(parted))
    assert whole <= set(parted)  # a copy in another shard than its article is not known there
    assert all(read_json(path)["documents"] > 20 for path in (tmp_path / "parted").rglob("done.json"))


def shards_of(dump, out, count):
    for shard in range(count):
        shards.build(dump, out, shard=shard, num_shards=count)
    return out


def test_a_finished_shard_is_not_made_again(dump, tmp_path):
    first = shards.build(dump, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    assert shards.build(dump, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")} == before


def killed_build(dump, out):
    shards.PART_PASSAGES = 60
    shards.build(dump, out)


def test_a_build_killed_at_ten_moments_ends_like_one_that_was_not(dump, tmp_path, small_parts):
    started = time.monotonic()
    shards.build(dump, tmp_path / "whole")
    duration_s, rng = time.monotonic() - started, random.Random(0)
    context, stopped = multiprocessing.get_context("fork"), 0
    for _ in range(10):
        process = context.Process(target=killed_build, args=(dump, tmp_path / "cut"))
        process.start()
        process.join(rng.uniform(0.1, 0.6) * duration_s)
        stopped += process.is_alive()
        process.kill()
        process.join()
    assert stopped
    shards.build(dump, tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_parts_of_another_source_are_refused(dump, tmp_path, small_parts):
    shards.build(dump, tmp_path)
    with pytest.raises(ExpStarError, match=r"part-00000\.parquet: found a part that was made from something else"):
        shards.build(dump, tmp_path, language="de")


@pytest.mark.parametrize(("shard", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(dump, tmp_path, shard, count):
    with pytest.raises(ExpStarError, match="shard is"):
        shards.build(dump, tmp_path, shard=shard, num_shards=count)


def test_what_is_bad_is_listed_beside_the_parts(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"id": "a", "title": "t", "text": "A sentence of quite a number of words, enough for one passage."}
    path.write_text("\n".join([json.dumps(good), "{", json.dumps({"id": "b", "title": "t"})]))
    done = shards.build(path, tmp_path / "out")
    assert (done["documents"], done["passages"], done["problems"]) == (1, 1, 2)
    assert [p["field"] for p in read_json(next((tmp_path / "out").rglob("problems.json")))] == ["line 2", "row 3, text"]


def test_a_disk_that_is_full_leaves_the_parts_before(dump, tmp_path, small_parts, monkeypatch):
    written, write_table = [], parquet.write_table
    def failing(table, path, **how):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        write_table(table, path, **how)
    monkeypatch.setattr(parquet, "write_table", failing)
    with pytest.raises(ExpStarError, match="No space left on device"):
        shards.build(dump, tmp_path)
    monkeypatch.setattr(parquet, "write_table", write_table)
    assert len(list(tmp_path.rglob("part-*.parquet"))) == 2
    assert shards.build(dump, tmp_path)["documents"] == 126


def test_the_command_line_says_what_was_made(dump, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["shards", str(dump), "--out", str(tmp_path)])
    shards.main()
    assert json.loads(capsys.readouterr().out)["documents"] == 126
    monkeypatch.setattr("sys.argv", ["shards", str(tmp_path / "absent.xml"), "--out", str(tmp_path / "other")])
    with pytest.raises(SystemExit, match="no such file or folder"):
        shards.main()

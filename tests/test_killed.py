"""Notebook 01 killed at any moment: no file is ever half written, and the next run gives what an unhurried one gives."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from expstar_utils import pairs
from expstar_utils.files import read_json, write_json
from expstar_utils.mini.build import build

KILLS = 20


def work(root: Path, out: Path) -> None:
    """Notebook 01 with clips as files."""
    experiments, problems = pairs.find_experiments(root)
    problems += pairs.build_pairs(experiments, root, out, workers=2, clips=out / "clips")
    write_json(out / "problems.json", [p.model_dump() for p in problems])


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    build(folder, workers=2, subjects=["optics"], small=True)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file but unfinished ones, whose names begin with a dot."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and not p.name.startswith(".")}


def test_a_run_killed_at_twenty_moments_ends_like_one_that_was_not(raw, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    started = time.monotonic()
    work(raw, whole)
    duration_s, rng, killed = time.monotonic() - started, random.Random(0), 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    while killed < KILLS:
        process = context.Process(target=work, args=(raw, cut))
        process.start()
        process.join(rng.uniform(0, duration_s / 3))
        killed += process.is_alive()
        process.kill()
        process.join()
        for path in cut.rglob("[!.]*.json"):
            read_json(path)
        if process.exitcode == 0:  # done before it was killed: begin again
            for path in list(cut.rglob("*_step_*")):
                path.unlink()
    work(raw, cut)
    assert len(content(whole)) > 40
    assert content(cut) == content(whole)

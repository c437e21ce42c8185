"""What is damaged is named and made anew as it was; wrong clocks, two at once and read-only data do no harm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disks import read_only
from disturbed import ROOT, Course, execute, long, until

from expstar_utils import jobs, schedule
from expstar_utils.files import read_json
from expstar_utils.runlog import Stage

DAYS_S = 86400.0


def flip(path: Path) -> None:
    """Turn over the bits of some bytes in the middle."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle:middle + 3] = bytes(byte ^ 0xFF for byte in data[middle:middle + 3])
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Leave the first two thirds."""
    os.truncate(path, path.stat().st_size * 2 // 3)


def check_rebuilt(course: Course, damaged: dict[str, Callable[[Path], None]]) -> None:
    """Damage files of a finished run; the same command names each, and gives the same results."""
    wanted = course.results()
    for name, damage in damaged.items():
        damage(course.run / name)
    said = course.finish()
    assert [name for name in damaged if f"{course.run / name}: is gone or not as job" not in said] == []
    assert course.results() == wanted


@contextmanager
def as_it_was(course: Course, kept: Path) -> Iterator[Course]:
    """A finished course, afterwards as it was again; so long its copy is `kept`."""
    shutil.copytree(course.folder, kept)
    yield course
    shutil.rmtree(course.folder)
    shutil.move(kept, course.folder)


@pytest.fixture
def again(finished, tmp_path):
    """Notebook 02's finished run, as it was again afterwards."""
    with as_it_was(finished, tmp_path / "kept") as course:
        yield course


@pytest.fixture
def whole_again(whole, tmp_path):
    """A finished run of every stage, as it was again afterwards."""
    with as_it_was(whole, tmp_path / "kept") as course:
        yield course


def test_a_damaged_file_of_02_is_named_and_made_anew(again):
    check_rebuilt(again, {"2_datasets/cases.jsonl": flip, "2_datasets/metrics.json": cut,
                          "2_datasets/queries/train.jsonl": Path.unlink})


def test_what_the_schedule_itself_noted_may_be_damaged_too(again):
    wanted, before = again.results(), notebook_run(again)
    cut(again.run / "jobs" / ".02.json")
    assert "job 02 runs again" in again.finish()
    assert again.results() == wanted
    assert notebook_run(again) != before


@long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_files_of_every_stage_are_named_and_made_anew(whole_again, damage):
    run = whole_again.run
    names = ["2_datasets/cases.jsonl", "2_datasets/baseline/train.jsonl", "3_index/tower.safetensors", "3_index/manifest.json",
             "3_retrieval/test.jsonl", "2_datasets/expstar/train.jsonl", "4_sft/adapter/adapter_model.safetensors",
             "4_dpo/rewards.jsonl", "5_predictions/test-free-adaptive.jsonl", "6_metrics/metrics.json", "7_figures/metrics.json"]
    more = [sorted((run / "1_pairs").rglob("*_step_*.json"))[0], sorted((run / "7_figures").glob("*.png"))[0]]
    there = [*(str(path.relative_to(run)) for path in more), *(name for name in names if (run / name).is_file())]
    assert len(there) > 8
    check_rebuilt(whole_again, dict.fromkeys(there, damage))


# Clocks

def dated(course: Course, days: float) -> None:
    """Date every file of a run so many days from now."""
    for path in course.run.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() + days * DAYS_S,) * 2)


def notebook_run(course: Course) -> bytes:
    """The executed notebook, in which the time of each cell stands."""
    return (course.run / "notebooks" / "02.ipynb").read_bytes()


@pytest.mark.parametrize("days", [-9000, 400])
def test_a_clock_that_was_wrong_has_nothing_made_anew(again, days):
    before = notebook_run(again)
    dated(again, days)
    os.utime(again.run / "jobs" / "02.cases.json", (5, 5))
    again.finish()
    assert notebook_run(again) == before


def test_a_change_is_seen_under_an_older_date(again):
    wanted, path = again.results(), again.run / "2_datasets" / "cases.jsonl"
    flip(path)
    os.utime(path, (5, 5))
    assert f"{path}: is gone or not as job 02 left it" in again.finish()
    assert again.results() == wanted


def test_an_input_that_changed_while_the_clock_was_behind_is_seen(again):
    """As of a kill between two jobs: the mark that came first is older than what was made of the one before it."""
    job = again.jobs()["02"]
    need = again.folder / "before.json"
    need.write_text('{"a": "1"}')
    groups = {name: group.model_copy(update={"needs": (str(need),)}) for name, group in job.groups.items()}
    job = job.model_copy(update={"groups": groups})

    class OneJob:
        """A plan of this job alone."""

    OneJob.jobs = [job]
    state = jobs.State(job)
    for name in groups:
        state.known[name]["key"] = state.wanted(name)
    state.finish()
    mark = job.mark("cases")
    before = mark.stat().st_mtime
    assert schedule.forget_damaged(OneJob) == []
    assert mark.stat().st_mtime == before
    need.write_text('{"a": "2"}')
    os.utime(need, (before - DAYS_S,) * 2)
    schedule.forget_damaged(OneJob)
    assert mark.stat().st_mtime < need.stat().st_mtime


def test_seconds_are_never_negative(tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    stage = Stage("s", tmp_path)
    stage.lap("a")
    stage.finish()
    record = read_json(stage.folder / "metrics.json")
    assert min(record["wall_s"], record["total_s"], record["laps"]["a"]["s"]) >= 0


# Two at once

def test_the_same_notebook_by_hand_twice_at_once(finished, tmp_path):
    job = finished.jobs()["02"]
    given = job.parameters | {"run_dir": str(tmp_path / "run")}
    words = [word for name in ("run_dir", "data_root", "pairs_dir", "truth", "smoke") if name in given
             for word in ("-p", name, str(given[name]))]
    with open(tmp_path / "said", "w") as said:
        first = subprocess.Popen([sys.executable, "-m", "papermill", "--cwd", str(ROOT), "--no-progress-bar",
                                  str(ROOT / job.notebook), str(tmp_path / "a.ipynb"), *words], stderr=said)
    try:
        assert until(lambda: [path for path in tmp_path.glob("run/2_datasets/.lock-*") if path.stat().st_size])
        [lock] = tmp_path.glob("run/2_datasets/.lock-*")
        kernel = int(lock.read_text())
        os.kill(kernel, signal.SIGSTOP)  # so that it is still at work when the second begins
        error = execute(job.notebook, tmp_path / "b.ipynb", {name: given[name] for name in words[1::3]})
        os.kill(kernel, signal.SIGCONT)
        assert error.startswith(f"ExpStarError: stage 2_datasets of {tmp_path / 'run'} with these parameters is being run by")
        assert first.wait(300) == 0, (tmp_path / "said").read_text()
    finally:
        first.kill()
    assert (tmp_path / "run" / "2_datasets" / "metrics.json").is_file()


# Read-only data

def run_read_only(course: Course, *folders: Path) -> None:
    """Run a plan where these folders cannot be written to."""
    done = subprocess.run([*read_only(*folders), sys.executable, "-m", "expstar_utils.schedule", str(course.plan_file)], cwd=ROOT,
                          check=False, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def test_02_with_read_only_data(mini, small, finished, tmp_path):
    course = Course(tmp_path, **small)
    run_read_only(course, mini, ROOT / "data")
    assert course.results() == finished.results()


@long
@pytest.mark.timeout(3600)
def test_every_stage_with_read_only_data(mini, whole, tmp_path):
    plan = whole.plan | {"runs": {str(tmp_path / "run"): next(iter(whole.plan["runs"].values()))}}
    course = Course(tmp_path, **plan)
    run_read_only(course, mini, ROOT / "data")
    assert course.results() == whole.results()

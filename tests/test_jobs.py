"""One job: done once for one content, moved aside and back with its inputs, mended where damaged, ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from expstar_utils import jobs, locks
from expstar_utils.files import read_json
from expstar_utils.jobs import Group, Job, State, run_job
from expstar_utils.records import ExpStarError
from expstar_utils.schedule import state_of

CELLS = ("run_dir = ''\ntext = ''\nfails = False",
         "from pathlib import Path\nfolder = Path(run_dir) / 'made'\nfolder.mkdir(exist_ok=True)\n"
         "with open(folder / 'runs.log', 'a') as log:\n    log.write(text)",
         "if fails:\n    raise ValueError('the reagent is used up')",
         "(folder / 'result.txt').write_text(text)")
SLEEPS = ("run_dir = ''", "import os, subprocess, sys, time\nfrom pathlib import Path\n"
          "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()', run_dir], stdin=subprocess.PIPE)\n"
          "(Path(run_dir) / 'numbers').write_text(f'{os.getpid()} {child.pid}')\ntime.sleep(600)")


def notebook(path, cells):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.cells[0].metadata["tags"] = ["parameters"]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return str(path)


@pytest.fixture
def job(tmp_path):
    run = tmp_path / "run of a \"day\""
    run.mkdir()
    return Job(name="02", run=str(run), notebook=notebook(tmp_path / "toy.ipynb", CELLS),
               parameters={"run_dir": str(run), "text": "blue", "unknown": 1},
               groups={"": Group(results=("made/*.txt",), works=("made/*",), key="1")})


def changed(job, key, text=None, **more):
    group = job.groups[""].model_copy(update={"key": key})
    return job.model_copy(update={"groups": {"": group}, "parameters": {**job.parameters, "text": text or key, **more}})


def made(job, name="result.txt"):
    return (Path(job.run) / "made" / name).read_text()


def test_a_job_is_done_once_and_its_results_come_back_with_their_inputs(job):
    assert state_of(job) == "missing"
    assert run_job(job)
    assert [state_of(job), state_of(changed(job, "2"))] == ["done", "stale"]
    mark = job.mark("").read_bytes()
    assert list(read_json(job.mark(""))) == ["made/result.txt"]
    assert not run_job(job)
    assert made(job, "runs.log") == "blue"

    other = changed(job, "2", "green")
    assert run_job(other)
    assert (made(job), made(job, "runs.log")) == ("green", "green")  # what was made of other inputs does not stay among them
    assert other.mark("").read_bytes() != mark

    run_job(job)
    assert (made(job), made(job, "runs.log"), job.mark("").read_bytes()) == ("blue", "blue", mark)  # and was not run for it
    assert not run_job(job)


def test_what_is_moved_aside_leaves_no_empty_folder(job):
    run_job(job)
    State(changed(job, "2")).begin()
    assert not (Path(job.run) / "made").exists()
    assert sorted(path.name for path in (Path(job.run) / "earlier").rglob("*.*")) == ["result.txt", "runs.log"]


def test_the_same_results_of_another_key_leave_the_same_mark(job):
    run_job(job)
    mark = job.mark("").read_bytes()
    assert run_job(changed(job, "2", "blue"))
    assert job.mark("").read_bytes() == mark


def test_what_a_job_needs_counts_by_its_content(job, tmp_path):
    need = tmp_path / "before.json"
    job = job.model_copy(update={"groups": {"": job.groups[""].model_copy(update={"needs": (str(need),)})}})
    with pytest.raises(ExpStarError, match="before.json: no such file"):
        run_job(job)
    need.write_text('{"rows.jsonl": "1"}')
    assert run_job(job)
    os.utime(need, (1, 1))
    assert not run_job(job)
    need.write_text('{"rows.jsonl": "2"}')
    assert run_job(job)


@pytest.mark.parametrize("damage", [lambda path: path.write_text("torn"), lambda path: path.unlink()])
def test_a_damaged_result_is_named_and_made_anew(job, damage, capsys):
    run_job(job)
    damage(Path(job.run) / "made" / "result.txt")
    assert State(job).damaged("") == ["made/result.txt"]
    assert run_job(job)
    assert "made/result.txt: is not as job 02 left it" in capsys.readouterr().out
    assert made(job) == "blue"


def test_a_touched_result_is_not_damaged(job):
    run_job(job)
    os.utime(Path(job.run) / "made" / "result.txt", (10, 10))
    assert not State(job).damaged("")
    assert not run_job(job)


def test_a_failed_notebook_is_kept_with_its_cell_named_and_earlier_results_stay(job):
    run_job(job)
    broken = changed(job, "2", "green", fails=True)
    with pytest.raises(ExpStarError, match=r"02\.ipynb, cell \d+: ValueError: the reagent is used up; see file:.*#papermill-err"):
        run_job(broken)
    assert "the reagent is used up" in job.log.read_text()
    [kept] = Path(job.run).glob("earlier/*/made/result.txt")
    assert kept.read_text() == "blue"
    assert run_job(changed(job, "2", "green"))
    assert made(job) == "green"


def test_a_result_that_was_not_written_is_told(job):
    job = job.model_copy(update={"groups": {"": Group(results=("made/table.csv",), key="1")}})
    with pytest.raises(ExpStarError, match=r"made/table\.csv: was not written by job 02"):
        run_job(job)


def test_a_module_that_fails_is_told(job):
    job = Job(name="mini", run=job.run, module=("json.tool", "no such file"), groups={"": Group(results=("x",))})
    with pytest.raises(ExpStarError, match="job mini: `json.tool no such file` ended with status 2"):
        run_job(job)


def test_the_second_of_two_is_refused(job):
    refused = pytest.raises(ExpStarError, match=f"run by process {os.getpid()} already")
    with locks.locked(job.folder / ".02.lock", "job 02"), refused:
        run_job(job)
    assert run_job(job)


def test_a_bad_job_is_told_in_one_sentence(capsys):
    assert jobs.main(['{"name": "02"}']) == 2
    assert capsys.readouterr().err == "job: run is missing, expected: Field required\n"


def alive(number):
    """Whether a process runs; one that only waits to be counted does not."""
    with suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_kernel_and_children_end_with_the_job(tmp_path, how):
    job = Job(name="05", run=str(tmp_path), notebook=notebook(tmp_path / "toy.ipynb", SLEEPS),
              parameters={"run_dir": str(tmp_path)}, groups={"": Group(results=("numbers",))})
    process = subprocess.Popen([sys.executable, "-m", "expstar_utils.jobs", job.model_dump_json()], stderr=subprocess.DEVNULL)
    try:
        numbers = until(lambda: (tmp_path / "numbers").exists() and (tmp_path / "numbers").read_text().split())
        assert all(map(alive, numbers))
        process.send_signal(how)
        assert process.wait(60) != 0
        assert until(lambda: not any(map(alive, numbers)))
    finally:
        process.kill()
    with locks.locked(job.folder / ".05.lock", "job 05"):
        pass  # the system let go of it

"""Locks: one process at a time, the same one as often as it likes, and free again however it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from expstar_utils.locks import hold, let_go, locked
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import Stage

HOLDS = ("import sys\nfrom expstar_utils.runlog import Stage\nStage('4_sft', sys.argv[1], seed=1)\n"
         "print('held', flush=True)\nsys.stdin.read()")


@pytest.fixture
def other(tmp_path):
    """A process that has begun a stage and does not finish."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_stage_is_one_processs_until_it_ends(other, tmp_path):
    with pytest.raises(ExpStarError, match=f"stage 4_sft of .* is being run by process {other.pid} already"):
        Stage("4_sft", tmp_path, seed=1)
    Stage("4_sft", tmp_path, seed=2).finish()
    other.kill()
    other.wait()
    Stage("4_sft", tmp_path, seed=1)


def test_a_process_begins_a_stage_as_often_as_it_likes_and_lets_go_of_it_in_the_end(tmp_path):
    Stage("4_sft", tmp_path, seed=1)
    Stage("4_sft", tmp_path, seed=1).finish()
    Stage("4_sft", tmp_path, seed=1).finish()
    ended = subprocess.run([sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True,
                           check=False)
    assert (ended.returncode, ended.stdout) == (0, b"held\n"), ended.stderr


def test_a_block_holds_a_lock_and_names_who_has_it(tmp_path):
    path = tmp_path / "new" / "lock"
    with locked(path, "run a"), pytest.raises(ExpStarError, match=f"run a is being run by process {os.getpid()} already"), \
            locked(path, "run a"):
        pass
    hold(path, "run a")
    hold(path, "run a")
    let_go(path)
    let_go(path)
    with locked(path, "run a"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_takes_no_lock_is_told():
    with pytest.raises(ExpStarError, match="^/proc/none/.* cannot be written"):
        Stage("none", "/proc")

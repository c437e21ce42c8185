"""A plan, run: `snakemake` schedules its jobs here or on a cluster, what was damaged is made anew, and a summary ends it.

    python -m expstar_utils.schedule tiny                          # two cores of this machine
    python -m expstar_utils.schedule tiny --dry-run                # what would be done, and why
    python -m expstar_utils.schedule paper --executor slurm --jobs 100

What is not known here goes to snakemake as it is. Killed at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from expstar_utils.content import digest
from expstar_utils.files import read_json
from expstar_utils.jobs import Job, State, end_with_parent
from expstar_utils.locks import locked
from expstar_utils.plans import Plan, load_plan
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import ROOT

FLAGS = ("--nolock",  # runs have locks of their own, which end with their process
         "--rerun-incomplete", "--keep-going", "--rerun-triggers", "mtime", "params", "input", "--scheduler", "greedy",
         "--max-checksum-file-size", "100000000")
CANCEL_S = 120.0  # that cancelled jobs of Slurm may take to end; a cluster's own time before it kills is about 30 s
STOP_S = 30.0  # that snakemake may take to end after its jobs; on Slurm it asks for them only now and then


def run_plan(name: str, words: Sequence[str] = ()) -> int:
    """Run a plan until it is done or a job has failed; jobs that do not need a failed one's results are done all the same.

    Args:
        words: for snakemake.

    Returns:
        snakemake's status.

    Raises:
        ExpStarError: there is no such plan, or one of its runs is being run already.
    """
    plan, is_dry = load_plan(name), bool({"-n", "--dry-run", "--dryrun", "--dag", "--rulegraph"} & set(words))
    with ExitStack() as locks:
        for run in plan.runs:
            if not is_dry or Path(run).is_dir():  # a dry run makes none
                locks.enter_context(locked(Path(run) / "jobs" / ".lock", f"run {run}"))
        for number in [] if is_dry else cancel_left(slurm_name(plan)):
            print(f"Slurm's job {number} was left by a command that was killed; it was cancelled, and what it did goes on")
        for line in forget_damaged(plan):
            print(line)
        status = _snakemake(plan, name, [*_slurm_words(plan), *words])
        if not is_dry:
            cancel_left(slurm_name(plan))
    if not is_dry:
        print(summary(plan))
    return status


def forget_damaged(plan: Plan) -> list[str]:
    """Remove the marks of jobs whose results are gone or were changed, so that they run again: a sentence for each such file.

    Marks of what is of other inputs by now become as old as can be: snakemake goes by times, and a clock may have gone back.
    """
    said = []
    for job in plan.jobs:
        state = State(job)
        for group in job.groups:
            if broken := state.damaged(group):
                said += [f"{Path(job.run) / name}: is gone or not as job {job.name} left it; it runs again" for name in broken]
                job.mark(group).unlink(missing_ok=True)
            elif not state.known.get(group, {}).get("done"):
                job.mark(group).unlink(missing_ok=True)
            elif job.mark(group).is_file() and not state.is_current(group):
                os.utime(job.mark(group), (0, 0))
    return said


def _snakemake(plan: Plan, name: str, words: Sequence[str]) -> int:
    told = {word.split("=")[0] for word in words} & {"--cores", "-c", "--jobs", "-j", "--executor", "-e", "--workflow-profile",
                                                     "--profile"}
    cores = () if told else ("--cores", str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()))
    named = Path(name).resolve() if name.endswith((".yaml", ".yml")) else name
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(ROOT), *cores,
               *FLAGS, *words, "--config", f"plan={named}"]
    process = subprocess.Popen(command, start_new_session=True,  # signals of a terminal come here alone
                               preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGKILL))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return _stop(process, plan)
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _stop(process: subprocess.Popen, plan: Plan) -> int:
    """End snakemake and the jobs, here and on Slurm: told to end, snakemake begins no more jobs and waits for those that run."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    cancel_left(slurm_name(plan))
    with suppress(subprocess.TimeoutExpired):
        return process.wait(STOP_S)
    return 128 + signal.SIGTERM


def slurm_name(plan: Plan) -> str:
    """How the names of a plan's jobs on Slurm begin: the same for the same runs."""
    return f"expstar-{digest(sorted(os.path.abspath(run) for run in plan.runs))[:12]}"


def _slurm_words(plan: Plan) -> list[str]:
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm")
    return ["--slurm-jobname-prefix", slurm_name(plan)] if plugin and shutil.which("sbatch") else []


def cancel_left(name: str) -> list[str]:
    """Cancel what stands in Slurm's queue without a command that waits for it, until it is gone.

    Args:
        name: see `slurm_name`. The caller holds the runs' locks, so that no other command waits for these jobs.

    Returns:
        The cancelled jobs' numbers; none where there is no Slurm.
    """
    if left := _queued(name):
        subprocess.run(["scancel", *left], check=False, capture_output=True)
    end = time.monotonic() + CANCEL_S
    while left and _queued(name) and time.monotonic() < end:
        time.sleep(0.5)
    return left


def _queued(name: str) -> list[str]:
    """Numbers of this user's jobs, of those whose names begin so."""
    if not shutil.which("squeue"):
        return []
    with suppress(subprocess.TimeoutExpired):
        said = subprocess.run(["squeue", "--me", "--noheader", "--format=%i %j"], capture_output=True, text=True, check=False,
                              timeout=60).stdout
        return [line.split()[0] for line in said.splitlines() if line.split()[1:] and line.split()[1].startswith(name)]
    return []


def summary(plan: Plan) -> str:
    """A line a job: done, stale (of other inputs) or missing; minutes, memory, problems put aside; and the whole time."""
    lines, whole_s = [f"{'job':<28} {'run':<24} {'state':<8} {'minutes':>8} {'GiB':>6} {'problems':>8}"], 0.0
    for job in plan.jobs:
        state, word = State(job), state_of(job)
        there, took = word != "missing", _took(job, state)
        whole_s += took["total_s"]
        shown = [f"{took['total_s'] / 60:8.1f}", f"{took['peak_memory_mib'] / 1024:6.1f}" if took["peak_memory_mib"] else " " * 6,
                 f"{took['problems']:>8}" if took["problems"] else ""] if there else []
        lines.append(" ".join([f"{job.name:<28} {job.run[-24:]:<24} {word:<8}", *shown]).rstrip())
        if not there and job.log.is_file():
            lines.append(f"    {job.log.resolve().as_uri()}")
    return "\n".join([*lines, f"{whole_s / 60:.1f} minutes in all"])


def state_of(job: Job) -> str:
    """Of a job's results: "done"; "stale", of other inputs; or "missing"."""
    state = State(job)
    if not all(state.known.get(group, {}).get("done") for group in job.groups):
        return "missing"
    return "done" if all(state.is_current(group) for group in job.groups) else "stale"


def _took(job: Job, state: State) -> dict[str, float]:
    """Seconds, MiB and problems of a job: its notebook's own where it says so, else the seconds of the job that ended well."""
    known = [state.known.get(group, {}) for group in job.groups]
    took = {"total_s": max((its.get("wall_s", 0.0) for its in known), default=0.0), "peak_memory_mib": 0.0, "problems": 0}
    for name in (name for its in known for name in its.get("files", {}) if name.endswith("metrics.json")):
        with suppress(ExpStarError, AttributeError, TypeError, KeyError):  # torn ones of a job that is yet to run again
            record = read_json(Path(job.run) / name)
            number = record["metrics"].get("problems", 0)
            took = {"total_s": record["total_s"], "peak_memory_mib": record["peak_memory_mib"],
                    "problems": number if isinstance(number, int) else 0}
    return took


def main(argv: Sequence[str] | None = None) -> int:
    """Run a plan; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", help="name of a plan in notebooks/plans/, or the path of a YAML file")
    given, words = parser.parse_known_args(argv)
    try:
        return run_plan(given.plan, words)
    except ExpStarError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

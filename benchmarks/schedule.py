"""What scheduling costs: a plan of 500 finished jobs looked through again, and what a job takes beside its notebook.

The jobs' results are made up, their marks are not: `jobs.State` writes them, and snakemake is told of them by `--touch`. Asked:
500 jobs in under 20 s, a job in under 3 s. There is no other side.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

from benchmarks.timing import RESULTS, options
from expstar_utils.files import write_json
from expstar_utils.jobs import State
from expstar_utils.plans import Plan, load_plan
from expstar_utils.runlog import ROOT

JOBS, AGAIN = 500, 10


def made_up(folder: Path, jobs: int) -> str:
    """Path of a plan with that many jobs: nearly all are rows of notebook 05."""
    rows = {f"r{n}": {"split": "test", "language": f"l{n}"} for n in range(jobs - 4)}
    values = {"runs": {str(folder / "run"): {}}, "data_root": str(folder / "mini"), "stages": ["02", "03", "04a", "05"]}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(values | {"rows": rows}), encoding="utf8")
    return str(path)


def finish(plan: Plan) -> None:
    """Write a small result for every job of a plan, and its marks."""
    for job in plan.jobs:
        for pattern in (pattern for group in job.groups.values() for pattern in group.results):
            made = {"metrics": {"job": job.name}, "total_s": 0, "peak_memory_mib": 0}
            write_json(Path(job.run) / pattern.replace("*", "x"), made)
        state = State(job)
        state.begin()
        state.finish()


def scheduled(path: str, *words: str) -> tuple[float, str]:
    """Seconds of one call of the schedule, and what it printed."""
    begun = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "expstar_utils.schedule", path, *words], cwd=ROOT, capture_output=True,
                           text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stdout[-2000:] + ended.stderr[-2000:])
    return time.perf_counter() - begun, ended.stdout + ended.stderr


def measured(folder: Path, jobs: int, runs: int) -> dict[str, float]:
    """Seconds for looking through a finished plan (median), and for each of ten jobs that find nothing to do."""
    path = made_up(folder, jobs)
    plan = load_plan(path)
    finish(plan)
    scheduled(path, "--touch")
    checks = [scheduled(path) for _ in range(runs)]
    assert all("Nothing to be done" in said for _, said in checks), checks[0][1][-2000:]
    marks = [job.mark("") for job in plan.jobs if job.name.startswith("05")][:AGAIN]
    for mark in marks:
        mark.unlink()
    seconds, said = scheduled(path, "--cores", "1")
    assert all(mark.is_file() for mark in marks), said[-2000:]
    check_s = median(seconds for seconds, _ in checks)
    return {"check_s": round(check_s, 2), "job_s": round((seconds - check_s) / len(marks), 2)}


def main() -> None:
    """Measure, print and keep."""
    given = options(__doc__.splitlines()[0], runs=3).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), JOBS, given.runs)
    if not given.json:
        print(f"{JOBS} finished jobs looked through in {found['check_s']} s; a job more takes {found['job_s']} s")
    device = f"{os.cpu_count()} cores, {platform.machine()}"
    result = {"name": "schedule", "jobs": JOBS, **found, "runs": given.runs, "device": device}
    write_json(RESULTS / "schedule.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

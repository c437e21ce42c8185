"""Plans in folders of their own, run as a user runs them, watched from outside, and compared by their results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import papermill
import pytest
import yaml

from expstar_utils.content import result_hash
from expstar_utils.files import read_json
from expstar_utils.jobs import Job
from expstar_utils.plans import load_plan

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "notebooks" / "plans"
MARK = "EXPSTAR_FAULTS_COURSE"  # a variable that every process of a course inherits
ENDS_S = 15.0  # within which every process of a killed plan is gone
LONG = os.environ.get("EXPSTAR_FAULTS") == "1"
long = pytest.mark.skipif(not LONG, reason="minutes long: runs with EXPSTAR_FAULTS=1, as `make faults` sets it")


def until(condition: Callable[[], Any], seconds: float = 120, every_s: float = 0.05) -> Any:
    """What a condition gives as soon as it is true, or at last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(every_s)
    return found


def execute(notebook: str | Path, out: Path, given: Mapping[str, Any]) -> str:
    """Run a notebook with those of the parameters that it knows: "" or what stopped it, as `Kind: text`."""
    parameters = {name: given[name] for name in papermill.inspect_notebook(str(ROOT / notebook)) if name in given}
    try:
        papermill.execute_notebook(str(ROOT / notebook), str(out), parameters, cwd=str(ROOT), progress_bar=False)
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return ""


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock; looking through every process for it would be slow, and trying it would disturb."""
    with suppress(OSError):
        return f":{lock.stat().st_ino} " in Path("/proc/locks").read_text(encoding="utf8")
    return False


class Course:
    """A plan in a folder: that of a file, with changes. Its run is `run` there, its data `mini`, unless these name others."""

    def __init__(self, folder: Path, base: str = "smoke", **plan: Any):
        self.folder, self.plan_file, self.log = folder, folder / "plan.yaml", folder / "log.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = yaml.safe_load((PLANS / f"{base}.yaml").read_text(encoding="utf8")) | {
            "runs": {str(folder / "run"): {"profile": "tiny", "seed": 42}}, "data_root": str(folder / "mini")} | plan
        self.plan_file.write_text(yaml.safe_dump(self.plan), encoding="utf8")

    @property
    def run(self) -> Path:
        """Folder of the first run."""
        return Path(next(iter(self.plan["runs"])))

    def jobs(self) -> dict[str, Job]:
        """The first run's jobs, and the one that renders, by name."""
        its = {str(self.run), self.plan["data_root"]}
        return {job.name: job for job in load_plan(str(self.plan_file)).jobs if job.run in its}

    def start(self, *words: str) -> subprocess.Popen:
        """Start the plan."""
        with open(self.log, "w", encoding="utf8") as log:
            return subprocess.Popen([sys.executable, "-m", "expstar_utils.schedule", str(self.plan_file), *words], cwd=ROOT,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                    env=os.environ | {MARK: str(self.folder), "PYTHONUNBUFFERED": "1"})

    def finish(self, *words: str) -> str:
        """Run the plan to its end, and give what it said."""
        status, said = self.start(*words).wait(), self.log.read_text(encoding="utf8")
        assert status == 0, said[-6000:]
        return said

    def processes(self) -> dict[int, str]:
        """Number -> words of every living process that the plan started, by itself or through others."""
        found, mark = {}, f"{MARK}={self.folder}\0".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (place / "environ").read_bytes() and b") Z " not in (place / "stat").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf8", "replace")
        return found

    def running(self) -> set[str]:
        """Names of the jobs that run."""
        return {name for name, job in self._known.items() if _is_held(job.folder / f".{name}.lock")}

    @cached_property
    def _known(self) -> dict[str, Job]:
        return self.jobs()

    def kernels(self) -> list[int]:
        """Processes that run notebooks' cells."""
        return [number for number, words in self.processes().items() if "ipykernel_launcher" in words]

    def kill(self, process: subprocess.Popen, alone: bool) -> dict[int, str]:
        """Kill the schedule at once, `alone` or with its whole groups but the kernels; gives the processes that stay."""
        engines = [number for number, words in self.processes().items() if "-m snakemake" in words and "jobs" not in words]
        process.kill()
        for number in [] if alone else engines:
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
        process.wait()
        return self.left()

    def left(self) -> dict[int, str]:
        """Processes that are still there after some seconds; they are ended then."""
        until(lambda: not self.processes(), ENDS_S, every_s=0.5)
        left = self.processes()
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return left

    def results(self) -> dict[str, str]:
        """File -> hash of its content, of every result that a mark names; each is as its mark says."""
        found = {}
        for mark in sorted(self.folder.rglob("jobs/[!.]*.json")):
            for name, hashed in read_json(mark).items():
                path = mark.parents[1] / name
                assert result_hash(path) == hashed, f"{path} is not as {mark} says"
                found[str(path.relative_to(self.folder))] = hashed
        return found

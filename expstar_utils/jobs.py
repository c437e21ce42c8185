"""One job of a plan: a notebook run by papermill, or a module; done once for one content of what it depends on.

    python -m expstar_utils.jobs '{"name": "02", ...}'      # a `Job` as JSON, as the Snakefile gives it

Beside the results stand, in `<run>/jobs/`, a small file for each group of results with the hashes of their content: what stands
downstream depends on those, so that a job that comes to the same results changes nothing. Results of other inputs are moved to
`<run>/earlier/`, and come back from there when the inputs do.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from expstar_utils.content import digest, result_files, result_hash
from expstar_utils.files import describe, explained, read_json, write_json
from expstar_utils.locks import locked
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import EARLIER, ROOT

PR_SET_PDEATHSIG = 1  # of prctl(2)


class Group(BaseModel):
    """Results that depend on the same things.

    results: patterns of files below the run, whose content counts; of the first there must be one. works: patterns of what else
    belongs to them, such as checkpoints. key: hash of code, data, settings and parameters. needs: marks of the jobs before, as
    paths. stays: its notebook itself finds which files are still right, so that none is moved away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: tuple[str, ...]
    works: tuple[str, ...] = ()
    key: str = ""
    needs: tuple[str, ...] = ()
    stays: bool = False


class Job(BaseModel):
    """A notebook with its parameters, or a module with its words; `groups` of results by name ("" where there is but one).

    links: folders of the run that are another run's, name -> folder there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    run: str
    notebook: str = ""
    module: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    groups: dict[str, Group]
    links: dict[str, str] = {}

    @property
    def folder(self) -> Path:
        """Where marks are kept."""
        return Path(self.run) / "jobs"

    def mark(self, group: str) -> Path:
        """The file that says what a group of results holds."""
        return self.folder / f"{'.'.join(filter(None, (self.name, group)))}.json"

    @property
    def log(self) -> Path:
        """The executed notebook."""
        return Path(self.run) / "notebooks" / f"{self.name}.ipynb"


def run_job(job: Job) -> bool:
    """Do a job, or find that it is done.

    Returns:
        Whether there was something to do.

    Raises:
        ExpStarError: an earlier result is missing or not as its job left it, the job is running already, or it failed; names
            the notebook and the cell.
    """
    with locked(job.folder / f".{job.name}.lock", f"job {job.name} of {job.run}"):
        state, begun = State(job), time.monotonic()
        if state.is_done():
            print(f"{job.name}: nothing has changed")
            state.mark_done()
            return False
        state.begin()
        if all(state.known[group]["done"] for group in job.groups):
            print(f"{job.name}: its results of before came back")
        else:
            _link(job)
            (_execute if job.notebook else _call)(job)
        state.finish(time.monotonic() - begun)
    return True


class State:
    """What is known of a job's results: of which key they are, whether they are whole, and how their files look."""

    def __init__(self, job: Job):
        self.job, self.path = job, job.folder / f".{job.name}.json"
        self.known: dict[str, Any] = self._read() if self.path.is_file() else {}

    def _read(self) -> dict[str, Any]:
        """What was noted; where that cannot be read, results of a key that nothing has."""
        try:
            return read_json(self.path)
        except ExpStarError as error:
            print(f"{error}; job {self.job.name} runs again")
            return {group: {"key": "unknown", "done": False, "files": {}, "earlier": {}} for group in self.job.groups}

    def wanted(self, group: str) -> str:
        """Key of a group, with the content of what it needs.

        Raises:
            ExpStarError: what it needs is not there.
        """
        its = self.job.groups[group]
        return digest([its.key, {str(path): read_json(Path(path)) for path in its.needs}])

    def is_done(self) -> bool:
        """Whether all results are there, of these inputs and as they were left."""
        return all(self.is_current(group) and not self.damaged(group) for group in self.job.groups)

    def is_current(self, group: str) -> bool:
        """Whether a group was finished with these inputs; what is needed and not there is as other inputs are."""
        known = self.known.get(group, {})
        if not all(Path(need).is_file() for need in self.job.groups[group].needs):
            return False
        return known.get("done", False) and known["key"] == self.wanted(group)

    def damaged(self, group: str) -> list[str]:
        """Results of a finished group that are gone or not as its job left them; sizes and times are looked at first."""
        known = self.known.get(group, {})
        return [name for name, seen in known.get("files", {}).items() if _seen(Path(self.job.run) / name, seen) != seen]

    def begin(self) -> None:
        """Move what was made of other inputs out of the way, and bring back what was made of these."""
        for group, its in self.job.groups.items():
            known, wanted = self.known.get(group, {}), self.wanted(group)
            earlier = known.get("earlier", {})
            if known and known["key"] != wanted:
                earlier[known["key"]] = known["files"] if known["done"] else {}
                _move(self.job, its, Path(self.job.run), self._kept(known["key"]))
                _move(self.job, its, self._kept(wanted), Path(self.job.run))
                files = earlier.pop(wanted, {})
            elif broken := self.damaged(group):
                for name in broken:
                    print(f"{Path(self.job.run) / name}: is not as job {self.job.name} left it, and is made anew")
                _move(self.job, its, Path(self.job.run), self._kept(f"damaged-{known['key']}"))
                files = {}
            else:
                files = known.get("files", {})
            self.known[group] = {"key": wanted, "done": False, "files": files, "earlier": earlier}
            self.known[group]["done"] = bool(files) and not self.damaged(group)
        write_json(self.path, self.known)

    def _kept(self, key: str) -> Path:
        return Path(self.job.run) / EARLIER / f"{self.job.name}-{key[:20]}"

    def finish(self, wall_s: float = 0.0) -> None:
        """Note the results' content and the seconds that the job took, and write the marks.

        Raises:
            ExpStarError: a result was not written.
        """
        root = Path(self.job.run)
        for group, its in self.job.groups.items():
            if not result_files(root, its.results[:1]):
                raise ExpStarError(f"{root / its.results[0]}: was not written by job {self.job.name}, expected it; look at "
                                   f"{self.job.log}")
            files = {str(path.relative_to(root)): _seen(path) for path in result_files(root, its.results)}
            self.known[group] |= {"done": True, "files": files, "wall_s": round(wall_s, 1)}
        write_json(self.path, self.known)
        self.mark_done()

    def mark_done(self) -> None:
        """Write each group's mark: the hashes of its files, by name."""
        for group in self.job.groups:
            write_json(self.job.mark(group), {name: seen[2] for name, seen in self.known[group]["files"].items()})


def _seen(path: Path, before: Sequence[Any] | None = None) -> list[Any] | None:
    """[bytes, time of change in ns, hash] of a file, None where there is none; unchanged ones are not hashed again."""
    try:
        there = path.stat()
    except OSError:
        return None
    if before and list(before[:2]) == [there.st_size, there.st_mtime_ns]:
        return list(before)
    try:
        hashed = result_hash(path)
    except ExpStarError:  # metrics that are torn
        hashed = ""
    return list(before) if before and before[2] == hashed else [there.st_size, there.st_mtime_ns, hashed]


def _move(job: Job, group: Group, source: Path, target: Path) -> None:
    """Move a group's files between the run and where earlier ones are kept."""
    linked = [source / name for name in job.links]
    for path in () if group.stays else result_files(source, (*group.results, *group.works)):
        if not any(path.is_relative_to(link) for link in linked):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, place)
            with suppress(OSError):  # it still holds something; an empty one may be taken for a result
                os.removedirs(path.parent)


def _link(job: Job) -> None:
    for name, there in job.links.items():
        link = Path(job.run) / name
        if not link.exists():
            link.symlink_to(os.path.relpath(there, job.run), target_is_directory=True)


def _execute(job: Job) -> None:
    """Run the notebook; killed, it takes its kernel along."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config
    known = papermill.inspect_notebook(job.notebook)
    given = {name: value for name, value in job.parameters.items() if name in known}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explained(job.log), tempfile.TemporaryDirectory(prefix="kernel-") as sockets:  # no port that another may take first
            papermill.execute_notebook(job.notebook, str(job.log), given, cwd=str(ROOT), log_output=False,
                                       progress_bar={"desc": job.name, "mininterval": 5},
                                       config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}))
    except PapermillExecutionError as error:
        said = str(error.evalue).strip().splitlines() or [error.ename]
        raise ExpStarError(f"{job.log}, cell {error.cell_index + 1}: {error.ename}: {said[0][:600]}; see "
                           f"{job.log.resolve().as_uri()}#papermill-error-cell") from None


def _call(job: Job) -> None:
    """Run the module in a process of its own, which ends with this one."""
    ended = subprocess.run([sys.executable, "-m", *job.module], cwd=ROOT, check=False,
                           preexec_fn=partial(end_with_parent, os.getpid()))
    if ended.returncode:
        raise ExpStarError(f"job {job.name}: `{' '.join(job.module)}` ended with status {ended.returncode}; see what it printed "
                           "above")


def end_with_parent(parent: int, how: signal.Signals = signal.SIGTERM) -> None:
    """Have the system end this process when the one that started it is gone (Linux; elsewhere nothing happens).

    Args:
        parent: its number; it may be gone by now. how: the signal that is sent then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:
            os.kill(os.getpid(), how)


def _stop(number: int, _: Any) -> None:
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; its status is 1 where it failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", help="a job as JSON")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="number of the process with which the job ends")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    end_with_parent(given.parent)
    try:
        job = Job.model_validate_json(given.job)
        run_job(job)
    except ValidationError as error:
        print(f"job: {describe(error)}", file=sys.stderr)
        return 2
    except ExpStarError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

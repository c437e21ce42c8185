"""What every notebook leaves behind: `metrics.json` with parameters, code version, packages, time and memory."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from expstar_utils.files import dump_line, read_json, write_json
from expstar_utils.locks import hold, let_go, remove_unused
from expstar_utils.records import ExpStarError
from expstar_utils.weights import cache_folder

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "faiss-cpu", "sentence-transformers", "av", "numpy")
EARLIER = "earlier"  # folder of a run for results of other inputs than today's; see `jobs`
LARGE = 16 * 2**20  # bytes from which on a file's hash is kept, and taken again while size and time of the file are the same
ABANDONED_S = 86400.0  # after which a file that was begun beside its place, and not changed since, is a killed process's
SETTLED_S = 2.0  # a file that changed this lately may change again without another time


def at_root() -> Path:
    """Work in the repository's root, where the notebooks' paths begin, wherever the kernel was started."""
    os.chdir(ROOT)
    return ROOT


def git_sha() -> str:
    """Commit of the code, with `-dirty` when tracked files differ from it; "unknown" outside a checkout."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Installed versions of packages; missing ones are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def file_hash(*paths: Path) -> str:
    """sha256 over files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def content_hash(paths: Iterable[Path]) -> str:
    """sha256 of what files hold: of one file its own, of several that of their hashes in the order given."""
    found = [_sha256(Path(path)) for path in paths]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _sha256(path: Path) -> str:
    about = path.stat()
    seen = [about.st_size, about.st_mtime_ns]
    note = cache_folder() / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}.json"
    with suppress(ExpStarError, TypeError, KeyError):  # no note, or none that can be used
        if about.st_size >= LARGE and (known := read_json(note))["seen"] == seen:
            return known["sha256"]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if about.st_size >= LARGE and time.time() - about.st_mtime > SETTLED_S:
        with suppress(ExpStarError):  # a cache that cannot be written costs time alone
            write_json(note, {"seen": seen, "sha256": found})
    return found


class Stage:
    """One stage of a run: its folder, and its metrics when it ends; until then no other process has it with these parameters.

    Args:
        name: folder below the run, such as "4_sft". run_dir: the run. parameters: the notebook's own.

    Raises:
        ExpStarError: another process works on it, or the folder cannot be written.
    """

    def __init__(self, name: str, run_dir: str | Path, **parameters: Any):
        self.name, self.run_dir, self.parameters = name, Path(run_dir), parameters
        self.folder = self.run_dir / name
        self._lock = self.folder / f".lock-{hashlib.sha256(dump_line(parameters).encode()).hexdigest()[:16]}"
        hold(self._lock, f"stage {name} of {run_dir} with these parameters")
        remove_unused(self.folder.glob(".*.part"), ABANDONED_S)
        self._started, self._git_sha = time.monotonic(), git_sha()  # of the code that runs, whatever is changed meanwhile
        self.laps: dict[str, dict[str, float]] = {}
        self.hashes: dict[str, str] = {}

    def lap(self, name: str) -> None:
        """Note that a part of the stage is done: seconds since the last note, and the most memory used so far."""
        until = self._started + sum(lap["s"] for lap in self.laps.values())
        self.laps[name] = {"s": round(time.monotonic() - until, 2), "peak_mib": round(_peak_mib())}

    def reads(self, **given: str | Path | Iterable[str | Path] | None) -> None:
        """Note the content of what the stage works from, as sha256 for the ledger.

        Args:
            given: by kind, such as `data` and `weights`: a file, a folder (all its files), or several of them. What is None, ""
                or not there is left out.
        """
        for kind, paths in given.items():
            several = [paths] if isinstance(paths, str | Path) else paths or ()
            if files := [file for path in several if path for file in _files_of(Path(path))]:
                self.hashes[kind] = content_hash(files)

    def finish(self, file: str = "metrics.json", **metrics: Any) -> dict[str, Any]:
        """Write the stage's metrics and return them with everything that identifies the run.

        `wall_s` is of this run; `total_s` adds the finished runs with the same parameters before it, whose work it found.
        """
        wall_s = time.monotonic() - self._started
        record = {"stage": self.name, "parameters": self.parameters, "git_sha": self._git_sha, "packages": versions(),
                  "wall_s": round(wall_s, 1), "total_s": round(wall_s + self._seconds_before(self.folder / file), 1),
                  "peak_memory_mib": round(_peak_mib()), "metrics": metrics}
        record |= {key: value for key, value in (("laps", self.laps), ("hashes", dict(self.hashes))) if value}
        write_json(self.folder / file, record)
        let_go(self._lock)
        return record

    def _seconds_before(self, path: Path) -> float:
        with suppress(ExpStarError, AttributeError):  # none, or what is no metrics
            if (before := read_json(path)).get("parameters") == self.parameters:
                return before.get("total_s", 0.0)
        return 0.0

    def earlier(self, name: str) -> Path:
        """Folder of an earlier stage of the same run."""
        return self.run_dir / name


def _files_of(path: Path) -> list[Path]:
    """A file, or all in a folder that are not hidden, sorted; none where there is nothing."""
    there = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in there if file.is_file() and not file.name.startswith(".")]


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_metrics(path: Path) -> dict[str, Any]:
    """The `metrics` part of a stage's file."""
    return read_json(path)["metrics"]

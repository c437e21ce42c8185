"""What every notebook leaves behind: `metrics.json` with parameters, code version, packages, time and memory."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from expstar_utils.files import read_json, write_json

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "faiss-cpu", "sentence-transformers", "av", "numpy")


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


class Stage:
    """One stage of a run: its folder, and its metrics when it ends.

    Args:
        name: folder below the run, such as "4_sft". run_dir: the run. parameters: the notebook's own.
    """

    def __init__(self, name: str, run_dir: str | Path, **parameters: Any):
        self.name, self.run_dir, self.parameters = name, Path(run_dir), parameters
        self.folder = self.run_dir / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._started, self._git_sha = time.monotonic(), git_sha()  # of the code that runs, whatever is changed meanwhile
        self.laps: dict[str, dict[str, float]] = {}

    def lap(self, name: str) -> None:
        """Note that a part of the stage is done: seconds since the last note, and the most memory used so far."""
        until = self._started + sum(lap["s"] for lap in self.laps.values())
        self.laps[name] = {"s": round(time.monotonic() - until, 2), "peak_mib": round(_peak_mib())}

    def finish(self, file: str = "metrics.json", **metrics: Any) -> dict[str, Any]:
        """Write the stage's metrics and return them with everything that identifies the run.

        `wall_s` is of this run; `total_s` adds the finished runs with the same parameters before it, whose work it found.
        """
        wall_s = time.monotonic() - self._started
        record = {"stage": self.name, "parameters": self.parameters, "git_sha": self._git_sha, "packages": versions(),
                  "wall_s": round(wall_s, 1), "total_s": round(wall_s + self._seconds_before(self.folder / file), 1),
                  "peak_memory_mib": round(_peak_mib()), "metrics": metrics} | ({"laps": self.laps} if self.laps else {})
        write_json(self.folder / file, record)
        return record

    def _seconds_before(self, path: Path) -> float:
        before = read_json(path) if path.is_file() else {}
        return before.get("total_s", 0.0) if before.get("parameters") == self.parameters else 0.0

    def earlier(self, name: str) -> Path:
        """Folder of an earlier stage of the same run."""
        return self.run_dir / name


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_metrics(path: Path) -> dict[str, Any]:
    """The `metrics` part of a stage's file."""
    return read_json(path)["metrics"]

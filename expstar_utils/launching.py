"""Training in several processes from a notebook: the job becomes a file, and `accelerate launch` runs it on every device.

With one process, which is the default, everything stays in the notebook's own. Where a kernel dies, its processes end with it:
they read from a pipe that it holds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils import models
from expstar_utils.files import describe, read_jsonl, read_record, write_json, write_jsonl
from expstar_utils.preferences import train_dpo
from expstar_utils.profiles import FOLDER, Profile
from expstar_utils.records import ExpStarError, Record, Sample
from expstar_utils.training import train_sft

SAID = "expstar: "  # begins the line in which a process says why it stopped
DONE = "expstar: done"  # and that it did its part: launchers were seen to hang after that
WAIT_S = 30.0


@dataclass(frozen=True)
class Start:
    """From where training goes on. adapter: folder; None is the base alone. tower: of ExpStar-Tiny; None is the shipped one."""

    adapter: Path | None = None
    tower: Path | None = None


class Job(Record):
    """What every process of a training has to know; paths as text. telling: see `VideoCollator`."""

    kind: Literal["sft", "dpo"]
    profile: dict
    rows: str
    root: str
    folder: str
    adapter: str | None
    tower: str | None
    seed: int
    max_steps: int
    telling: dict[str, list[int]] | None = None


def load(kind: Literal["sft", "dpo"], start: Start, profile: Profile) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor to train: DPO folds the tuned adapter in, unless it trains that one further."""
    return models.load_tuned(profile, start.adapter, start.tower, merge=kind == "dpo" and not profile.dpo.further)


def train(kind: Literal["sft", "dpo"], loaded: tuple[PreTrainedModel, ProcessorMixin], start: Start, samples: Sequence[Sample],
          root: Path, profile: Profile, folder: Path, seed: int = 42, max_steps: int = -1,
          telling: Mapping[str, set[int]] | None = None) -> Path:
    """`train_sft` or `train_dpo`, in this process or in as many as the profile says.

    Args:
        loaded: model and processor for training in this process; with more of them each loads its own, from `start`.

    Raises:
        ExpStarError: what stopped the training, or the first of its processes that stopped.
    """
    if profile.processes == 1:
        return _train(kind, loaded, start, samples, root, profile, folder, seed, max_steps, telling)
    rows = write_jsonl(folder / "job" / "rows.jsonl", samples)
    job = Job(kind=kind, profile=profile.model_dump(mode="json"), rows=str(rows), root=str(root), folder=str(folder),
              adapter=start.adapter and str(start.adapter), tower=start.tower and str(start.tower), seed=seed,
              max_steps=max_steps, telling=telling and {key: sorted(ids) for key, ids in telling.items()})
    _run(command(profile, write_json(folder / "job" / "job.json", job)), profile.processes)
    return folder / "adapter"


def _train(kind: str, loaded: tuple[PreTrainedModel, ProcessorMixin], start: Start, samples: Sequence[Sample], root: Path,
           profile: Profile, folder: Path, seed: int, max_steps: int, telling: Mapping[str, set[int]] | None) -> Path:
    if kind == "sft":
        return train_sft(*loaded, samples, root, profile, folder, profile.base, seed, max_steps, telling)
    if start.adapter is None:
        raise ExpStarError("DPO: found no tuned adapter to start from, expected that of notebook 04a; run it first")
    return train_dpo(*loaded, samples, root, profile, folder, profile.base, start.adapter, seed, max_steps)


def command(profile: Profile, job: Path) -> list[str]:
    """The command that runs a job in the profile's processes; with several machines `srun` starts a launcher on each of them.

    Raises:
        ExpStarError: the profile wants several machines, and this is no Slurm job with a task on each.
    """
    config = FOLDER / "accelerate" / f"{profile.accelerate}.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes",
              str(profile.processes)]
    work = ["-m", "expstar_utils.launching", str(job), "--attached"]
    if profile.machines == 1:
        return [*launch, "--main_process_port", "0", *work]
    if (tasks := os.environ.get("SLURM_NTASKS", "none")) != str(profile.machines):
        raise ExpStarError(f"profile {profile.name}: machines is {profile.machines}, found a Slurm job of {tasks} tasks, "
                           "expected one on each machine; submit notebooks/profiles/slurm/train_two_nodes.sh")
    launch += ["--num_machines", tasks, "--main_process_ip", socket.gethostname(), "--main_process_port", str(_free_port())]
    line = f'exec {shlex.join(launch)} --machine_rank "$SLURM_PROCID" {shlex.join(work)}'  # each machine knows its own number
    return ["srun", "--ntasks", tasks, "--kill-on-bad-exit=1", "sh", "-c", line]


def _free_port() -> int:
    """A port where the first process can be met; a Slurm job's first task is on this machine."""
    with socket.create_server(("", 0)) as listening:
        return listening.getsockname()[1]


def _run(words: Sequence[str], processes: int) -> None:
    """Run a command, printing what it says as it comes, until all its processes are done; they end with this one."""
    environment = os.environ | {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
    said, done = "", 0
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", env=environment)
    try:
        for line in filter(str.strip, process.stdout):
            if line.startswith(DONE):
                done += 1
                if done == processes:
                    break
                continue
            said = said or (line if line.startswith(SAID) else "")
            if not said:  # what the launcher tells of it behind that helps nobody
                print(line, end="")
    finally:
        _end(process)
    if done < processes:
        raise ExpStarError(said.removeprefix(SAID).strip() if said else
                           f"training: {done} of {processes} processes came to their end (status {process.returncode}); see what "
                           "they printed above, and run it again")


def _end(process: subprocess.Popen) -> None:
    """Let a process end; one that goes on after WAIT_S is ended."""
    process.stdin.close()
    try:
        process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_S)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock would be held when this process ends by itself
        pass
    os._exit(1)


def run_job(path: Path) -> Path:
    """Run one process's part of a job: folder of the adapter."""
    job = read_record(path, Job)
    beside = path.resolve().parent
    for field, place in {"rows": beside / "rows.jsonl", "folder": beside.parent}.items():
        if os.path.realpath(getattr(job, field).replace("\0", "?")) != str(place):
            raise ExpStarError(f"{path}: {field} is {getattr(job, field)[:80]!r}, expected {place}; a job belongs to its own "
                               "folder, so start the training again")
    try:
        profile = Profile.model_validate(job.profile)
    except ValidationError as error:
        raise ExpStarError(f"{path}: profile.{describe(error)}") from None
    samples = list(read_jsonl(beside / "rows.jsonl", Sample))
    start = Start(job.adapter and Path(job.adapter), job.tower and Path(job.tower))
    loaded = load(job.kind, start, profile)
    telling = job.telling and {key: set(ids) for key, ids in job.telling.items()}
    return _train(job.kind, loaded, start, samples, Path(job.root), profile, Path(job.folder), job.seed, job.max_steps, telling)


def main(argv: Sequence[str] | None = None) -> int:
    """`accelerate launch -m expstar_utils.launching JOB`: one process of a training."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--attached", action="store_true", help="end when standard input is closed")
    given = parser.parse_args(argv)
    if given.attached:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_job(given.job)
    except ExpStarError as error:
        _say(f"{SAID}{error}")
        return 2
    _say(DONE)
    return 0


def _say(words: str) -> None:
    """Write a line of its own at one go: the processes share one pipe, and one's bar or line must not run into another's."""
    sys.stdout.flush()
    os.write(1, f"\n{words}\n".encode(errors="replace"))


if __name__ == "__main__":
    sys.exit(main())

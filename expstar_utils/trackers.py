"""A training's curves in TensorBoard, Trackio or Weights & Biases, for those who ask; nothing leaves the machine unasked."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expstar_utils.records import ExpStarError

PROJECT = "expstar"
STAGE = re.compile(r"\d+_")  # how a stage's folder begins
_ours: dict[str, str] = {}  # variables that were set here; a later training may set them anew, the user's own stay


def require_tracker(tracker: str) -> None:
    """Make sure that a tracker can be used, before hours of training.

    Raises:
        ExpStarError: it is not installed.
    """
    spec = find_spec(tracker) if tracker else None
    if tracker and (spec is None or spec.origin is None):  # without an origin: a mere folder of that name, such as its own files
        raise ExpStarError(f"tracker is {tracker!r}, which is not installed; run `pip install {tracker}`, or leave tracker empty")


def arguments(tracker: str, folder: Path) -> dict[str, Any]:
    """What the trainer is told of a tracker, which is got ready here: its files go below the run, and it stays offline.

    Args:
        tracker: as in a profile; "" is none. folder: of the training, such as `runs/tiny/4_sft/captions`.

    Returns:
        `{report_to, run_name, project}`. Variables that the user has set win: WANDB_MODE for one that is not "offline".

    Raises:
        ExpStarError: it is not installed.
    """
    if not tracker:
        return {"report_to": "none"}
    require_tracker(tracker)
    run = _run_of(folder)
    _set({"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"), "TRACKIO_DIR": str(run / "trackio"), "WANDB_DIR": str(run),
          "WANDB_MODE": "offline", "WANDB_PROJECT": PROJECT})
    if tracker == "wandb":
        import wandb
        wandb.finish()  # of an earlier training in this process: the next one has a run of its own
    return {"report_to": tracker, "run_name": folder.resolve().relative_to(run.parent).as_posix(), "project": PROJECT}


def _run_of(folder: Path) -> Path:
    """The run that a stage's folder, or one within it, belongs to; of any other folder itself."""
    folder = folder.resolve()
    stage = next((path for path in (folder, *folder.parents) if STAGE.match(path.name)), None)
    return stage.parent if stage else folder


def _set(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        if os.environ.get(name) in (None, _ours.get(name)):
            os.environ[name] = _ours[name] = value

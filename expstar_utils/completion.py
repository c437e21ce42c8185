"""Speech and step files that a raw experiment lacks, made beside the run; what a person wrote or edited is never overwritten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from expstar_utils.annotators import Annotator
from expstar_utils.files import read_record, write_json
from expstar_utils.pairs import Experiment, title_of
from expstar_utils.records import AsrFile, ExpStarError, Problem
from expstar_utils.speech import transcribe

_listening = threading.Lock()  # Whisper takes all cores, and its random numbers are the process's


def complete(experiment: Experiment, folder: Path, annotator: Annotator, **listening: Any) -> Experiment:
    """The experiment with both files. Those that it lacks are written below `folder` once, and stay as they are from then on.

    `speech/<name>.json` is what was heard, `asr/<name>.json` the same with notes, `step/<name>.json` the steps.

    Args:
        listening: `language`, `engine`, `model` and the like for `transcribe`.

    Raises:
        ExpStarError: see `transcribe` and the annotator.
    """
    speech, asr, steps = (folder / kind / f"{experiment.name}.json" for kind in ("speech", "asr", "step"))
    title = title_of(experiment.video.stem).replace("_", " ")
    heard = experiment.asr or (asr if asr.is_file() else speech)
    if not heard.is_file():
        with _listening:
            write_json(speech, transcribe(experiment.video, title, progress=False, **listening))
    if experiment.steps is None and not (steps.is_file() and asr.is_file()):
        found, noted = annotator.annotate(title, read_record(heard, AsrFile), experiment.video)
        if not asr.is_file():
            write_json(asr, noted)
        if not steps.is_file():
            write_json(steps, found)
    if experiment.steps is None and experiment.asr:
        _overlay(asr, experiment.asr)
    return replace(experiment, steps=experiment.steps or steps, asr=asr if experiment.steps is None else heard)


def _overlay(noted: Path, own: Path) -> None:
    """What stands in a person's own speech file wins over the copy with notes, also when it was edited later."""
    before, given = read_record(noted, AsrFile), read_record(own, AsrFile)
    notes = {line.id: line.to_dict() for line in before.subtitles}
    told = [{name: value for name, value in line.to_dict().items() if value not in ("", None)} for line in given.subtitles]
    lines = [notes.get(line["id"], {}) | line for line in told]
    after = AsrFile.model_validate({"subtitles": lines})
    if after.to_dict() != before.to_dict():
        write_json(noted, after)


def complete_all(experiments: Sequence[Experiment], folder: Path, annotator: Annotator, workers: int = 4,
                 **listening: Any) -> tuple[list[Experiment], list[Problem]]:
    """Every experiment with both files, and those that could not be completed; a killed run goes on where it was.

    Args:
        workers: videos side by side. Whisper hears one at a time; while a chat model thinks, the next are heard and asked for.
        listening: see `complete`.
    """
    def _complete(experiment: Experiment) -> Experiment | Problem:
        if experiment.steps and experiment.asr:
            return experiment
        try:
            return complete(experiment, folder, annotator, **listening)
        except ExpStarError as error:
            return Problem(file=experiment.name, field="speech and steps", found=str(error), expected="both",
                           todo="do what it says; the experiment was left out")
    with ThreadPoolExecutor(workers) as pool:
        done = list(tqdm(pool.map(_complete, experiments), total=len(experiments), desc="speech and steps", unit="video"))
    return [x for x in done if isinstance(x, Experiment)], [x for x in done if isinstance(x, Problem)]

"""Reading: what a model writes from passages that no training showed, where all else is given.

Free-running, a note can be wrong because the clip was misread, the passage not found or not believed. Here the narration is the
reference's and the passage the right one, so that only the writing is measured. Told variants that were kept back (`told`) are
asked for: no choice of settings by them touches a filmed experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case, by_experiment, previous_texts
from expstar_utils.inference import Commentator, Settings, Step
from expstar_utils.metrics import normalize
from expstar_utils.profiles import Profile
from expstar_utils.prompts import Prompts, parse
from expstar_utils.records import Record, RetrievalResult


class Written(Record):
    """Notes that were written, and those of the reference; sections as lines."""

    id: str
    principle: list[str]
    safety: list[str]
    right_principle: list[str]
    right_safety: list[str]

    @property
    def right(self) -> dict[str, bool]:
        """Section -> whether it says word for word what the reference says; without regard to capitals and blanks."""
        return {name: normalize("\n".join(getattr(self, name))) == normalize("\n".join(getattr(self, f"right_{name}")))
                for name in ("principle", "safety")}


def reader(model: PreTrainedModel, processor: ProcessorMixin, prompts: Prompts, max_new_tokens: int = 160) -> Commentator:
    """A commentator that is handed its passages and looks for none."""
    return Commentator(model, processor, prompts, None, Settings(max_new_tokens=max_new_tokens))


def write_notes(commentator: Commentator, cases: Sequence[Case], found: Mapping[str, RetrievalResult], root: Path,
                setting: Profile, batch: int = 12) -> list[Written]:
    """The notes on every step that has something found, from the first passage that helps, steps in the order of experiments.

    Args:
        cases: steps of whole experiments. root: folder of their clips. batch: of steps written side by side.
    """
    asked = []
    for steps in by_experiment(cases):
        for i, case in enumerate(steps):
            if right := [d for d in found[case.id].documents if d.helps] if case.id in found else []:
                asked.append((case, previous_texts(steps, i, setting.history), right[:1]))
    written = []
    with tqdm(total=len(asked), desc="notes", unit="step") as bar:
        for start in range(0, len(asked), batch):
            steps = [Step(case, previous, clip_frames(case.clip, root, fps=setting.fps, max_frames=setting.max_frames_infer,
                                                      size_px=setting.frame_size), passages=passages)
                     for case, previous, passages in asked[start:start + batch]]
            for step, answer in zip(steps, commentator.write(steps), strict=True):
                said = parse(answer).commentary
                written.append(Written(id=step.case.id, principle=list(said.principle), safety=list(said.safety),
                                       right_principle=step.case.principle, right_safety=step.case.safety))
                bar.update()
    return written

"""Every figure and table by name: what it is drawn from, which notebook makes that, and the files that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from expstar_utils.figures import curves, dataset, examples, paper_tables, speed, training
from expstar_utils.figures.numbers import Numbers
from expstar_utils.figures.style import Drawing, Labels, save
from expstar_utils.records import ExpStarError


@dataclass(frozen=True)
class Part:
    """One figure or table. needs: key of the numbers without which it cannot be drawn; notebook: which one makes that."""

    name: str
    section: str
    draw: Callable[[Numbers, Labels], Drawing]
    needs: str = ""
    notebook: str = ""


PARTS = (
    Part("sunburst_published", "data", dataset.published_sunburst),
    Part("sunburst_own", "data", dataset.own_sunburst, "subjects", "02_dataset_construction"),
    Part("histograms", "data", dataset.histograms),
    Part("statistics", "data", paper_tables.statistics),
    Part("main_results", "results", paper_tables.main_results),
    Part("ablation", "results", paper_tables.ablation),
    Part("ablation_facts", "results", paper_tables.ablation_facts, "ablations", "06_evaluate"),
    Part("ablation_intervals", "results", curves.ablation_intervals, "ablations", "06_evaluate"),
    Part("facts", "results", paper_tables.facts, "reports", "06_evaluate"),
    Part("recall", "decisions", curves.recall, "recall", "03_retrieval"),
    Part("gate_curve", "decisions", curves.gate_curve, "gate_curve",
         "05_infer on val with knowledge = \"always\", and 06_evaluate"),
    Part("thresholds", "decisions", curves.thresholds, "curves", "06_evaluate"),
    Part("training_sft", "training", training.sft, "training", "04a_train_sft"),
    Part("training_dpo", "training", training.dpo, "dpo", "04b_train_dpo"),
    Part("rewards", "training", training.rewards, "rewards", "04b_train_dpo"),
    Part("speed", "speed", speed.bars, "speed", "the scripts of benchmarks/"),
    Part("speed_table", "speed", speed.table, "speed", "the scripts of benchmarks/"))
OWN_ROWS = {"histograms": ("steps", "02_dataset_construction"), "statistics": ("statistics", "02_dataset_construction"),
            "main_results": ("text", "06_evaluate"), "ablation": ("ablations", "06_evaluate")}  # of what is drawn without, too
ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Picture:
    """A figure or table that was written. paths: `{pdf, png, tex}`."""

    name: str
    caption: str
    paths: dict[str, Path]


def draw(section: str, numbers: Numbers, labels: Labels, folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw a section's figures and tables, and write their files.

    Returns:
        (pictures, left_out): what is left out, and what lacks our own part, is a line that says which notebook makes it.
    """
    pictures, left_out = [], []
    for part in (part for part in PARTS if part.section == section):
        if part.needs and not numbers.get(part.needs):
            left_out.append(f"{part.name} is left out: its data come from {part.notebook}")
            continue
        key, notebook = OWN_ROWS.get(part.name, ("", ""))
        if key and not numbers.get(key):
            left_out.append(f"{part.name} shows published numbers alone: ours come from {notebook}")
        try:
            pictures.append(_written(part.draw(numbers, labels), folder))
        except ODD as error:
            left_out.append(f"{part.name} is left out: its data have another form than today's ({type(error).__name__}: "
                            f"{error}); run {part.notebook or notebook} again")
    return pictures, left_out


def draw_cases(chosen: Sequence[examples.Example], labels: Labels, root: Path, fps: float,
               folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw cases, `case_1` and so on; see `draw`."""
    pictures, left_out = [], [] if chosen else ["cases are left out: their data come from 05_infer"]
    for number, example in enumerate(chosen, 1):
        try:
            shots = examples.frames_of(example, root, fps)
            pictures.append(_written(examples.drawing(example, f"case_{number}", labels, shots), folder))
        except (ExpStarError, *ODD) as error:
            left_out.append(f"{example.prediction.id} is left out: {error}")
            continue
        if not shots:
            left_out.append(f"{example.prediction.id} has no frames: its clip is not below {root}")
    return pictures, left_out


def _written(drawing: Drawing, folder: Path) -> Picture:
    return Picture(drawing.name, drawing.caption, save(drawing, folder))

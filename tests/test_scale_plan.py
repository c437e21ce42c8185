"""The scale plan: every formula of `docs/scale.md` gives the value beside it, and its inputs are those of their sources."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from expstar_utils.files import read_json
from expstar_utils.profiles import load_profile

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf8")
INPUTS = re.findall(r"^\| `(\w+)` \| ([\d.e+*/ ]+) \| (.*) \|$", PAGE, re.M)
SUMS = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ([\d.e+-]+)", PAGE, re.M)
CLOSE = 0.006  # three digits are shown


def computed(formula: str, known: dict[str, float]) -> float:
    """Value of a formula of the page."""
    return eval(formula, {"__builtins__": {}}, known)


@pytest.fixture(scope="module")
def values():
    """Name -> value, each from the rows before it."""
    known = {}
    for name, formula, *_ in [*INPUTS, *SUMS]:
        assert name not in known, f"docs/scale.md has two rows {name}"
        known[name] = computed(formula, known)
    return known


def test_every_row_of_the_page_is_read():
    assert len(INPUTS) + len(SUMS) == len(re.findall(r"^\| `\w+` \|", PAGE, re.M)) > 50


def test_every_sum_is_right(values):
    wrong = {name: f"{shown} is shown, {formula} = {values[name]:.3g}" for name, formula, shown in SUMS
             if float(shown) != pytest.approx(values[name], rel=CLOSE)}
    assert not wrong


def test_figures_in_the_text_are_those_of_the_rows(values):
    told = re.findall(r"([\d.e]+) (?:s|h|TB|days|dollars|GPU hours)\s\(`(\w+)`\)", PAGE)
    assert len(told) > 20
    wrong = [(name, shown) for shown, name in told if float(shown) != pytest.approx(values[name], rel=CLOSE)]
    assert not wrong


def test_node_hours_are_those_of_the_stages(values):
    told = re.findall(r"\| ([\d.]+) = `([^`]+)` \|", PAGE)
    assert len(told) == 8
    wrong = [formula for shown, formula in told if float(shown) != pytest.approx(computed(formula, values), rel=CLOSE)]
    assert not wrong


def test_measured_inputs_are_those_of_the_benchmarks(values):
    measured = [(name, *re.search(r"`(\w+\.json)` `(\w+)`", source).groups()) for name, _, source in INPUTS
                if source.startswith("measured")]
    assert len(measured) == 5
    for name, file, field in measured:
        found = read_json(ROOT / "benchmarks" / "results" / file)[field]
        assert found == pytest.approx(values[name], rel=0.3), f"{file} has {found}: do the sums of docs/scale.md anew"


def test_clips_have_the_published_lengths_and_the_profiles_frames(values):
    with open(ROOT / "data" / "paper" / "tables.csv", encoding="utf8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"].startswith("seconds_per_step_histogram")]
    paper = load_profile("paper")
    counts = [(sum(map(float, row["row"].split("-"))) / 2, float(row["value"])) for row in rows]
    for name, most in (("sft", paper.max_frames_sft), ("dpo", paper.dpo.max_frames), ("infer", paper.max_frames_infer)):
        mean = sum(number * min(paper.fps * seconds, most) for seconds, number in counts) / sum(n for _, n in counts)
        assert mean == pytest.approx(values[f"frames_{name}"], rel=CLOSE)
    assert (paper.passages, paper.sft_epochs, paper.save_steps, paper.dpo.candidates, paper.lora_r) == (8, 3, 50, 4, 16)

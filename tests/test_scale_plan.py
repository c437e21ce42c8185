"""The scale plan: every formula of `docs/scale.md` gives the value beside it, and its inputs are those of their sources."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from expstar_utils.files import read_json
from expstar_utils.media import sample_times
from expstar_utils.profiles import load_profile
from expstar_utils.sizes import scaled

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf8")
INPUTS = re.findall(r"^\| `(\w+)` \| ([\d.e+*/ ]+) \| (.*) \|$", PAGE, re.M)
SUMS = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ([\d.e+-]+)", PAGE, re.M)
PAPER, FILM = load_profile("paper"), (720, 1280)  # height and width that the page assumes of films
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


@pytest.fixture(scope="module")
def lengths():
    """(seconds, how many clips), every bin of the published histogram cut into twenty."""
    with open(ROOT / "data" / "paper" / "tables.csv", encoding="utf8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"].startswith("seconds_per_step_histogram")]
    bins = [(*map(float, row["row"].split("-")), float(row["value"])) for row in rows]
    return [(start + (part + 0.5) * (end - start) / 20, count / 20) for start, end, count in bins for part in range(20)]


def tokens(count: int) -> int:
    """Visual tokens of a clip of the page's films with the `paper` profile: one for 28 x 28 pixels of two frames."""
    height, width = scaled(PAPER.frame_size, *FILM, count)
    return (count + 1) // 2 * height * width // 28**2


def test_clips_have_the_published_lengths_and_the_profiles_frames(values, lengths):
    clips = sum(number for _, number in lengths)
    for name, most in (("sft", PAPER.max_frames_sft), ("dpo", PAPER.dpo.max_frames), ("infer", PAPER.max_frames_infer)):
        frames = [(len(sample_times(0, seconds, PAPER.fps, most)), number) for seconds, number in lengths]
        assert sum(tokens(count) * number for count, number in frames) / clips == pytest.approx(values[f"seen_{name}"], rel=CLOSE)
    assert sum(count * number for count, number in frames) / clips == pytest.approx(values["frames_infer"], rel=CLOSE)
    assert (PAPER.passages, PAPER.sft_epochs, PAPER.save_steps, PAPER.dpo.candidates, PAPER.lora_r) == (8, 3, 50, 4, 16)


def test_longest_rows_are_as_long_as_the_page_says(values):
    limit, counts = PAPER.frame_size, range(1, PAPER.max_frames_sft + 1)
    most, count = max(((count + 1) // 2 * (limit.a_frame(count) // 28**2), count) for count in counts)
    row = int(most + values["text_tokens"] + values["branch_tokens"])
    assert row <= PAPER.max_length
    assert f"at most {most:,} visual tokens ({count} frames), {row:,} of {PAPER.max_length:,} with prompt" in PAGE
    height, width = scaled(limit, *FILM, 64)
    assert f"64 frames of 1280 × 720 go in as {width} × {height}, {tokens(64):,} tokens" in PAGE


def test_minutes_asked_of_a_scheduler_leave_room(values):
    for part, name in (("03", "paper_03_h"), ("04a", "paper_sft_h"), ("04b", "paper_dpo_h"), ("05", "paper_05_h")):
        assert PAPER.resources[part].minutes > 1.25 * 60 * values[name], part

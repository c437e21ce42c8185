"""Figures and tables show the numbers that they are given, legibly, escaped, and equal to the byte."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Wedge
from matplotlib.text import Text

from expstar_utils.datasets import Case
from expstar_utils.figures import (
    curves,
    dataset,
    examples,
    gallery,
    glyphs,
    numbers,
    paper_tables,
    speed,
    style,
    tables,
    training,
)
from expstar_utils.figures.style import Labels
from expstar_utils.files import write_json, write_jsonl
from expstar_utils.miniatures import noise_clip
from expstar_utils.publishing.fonts import Typeface
from expstar_utils.records import DISCIPLINES, ExpStarError, Prediction

ROOT = Path(__file__).parents[1]
LABELS = Labels()
WILD = r"50 % of_A & B #1 {x} $y_1$ ~ ^ \ <b>"
METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "BERTScore-F1 (all-MiniLM-L6-v2)")


def chinese() -> str:
    """Chinese where a font for it is, and always where the project is checked."""
    try:
        Typeface("氢气燃烧")
    except ExpStarError:
        if os.environ.get("CI") == "true":
            raise
        return "hydrogen burns"
    return "氢气燃烧"


CHINESE = chinese()


def table_rows(name: str) -> list[dict[str, str]]:
    with open(ROOT / "data/paper/tables.csv", encoding="utf8") as file:
        return [row for row in csv.DictReader(file) if row["table"] == name]


def text_line(base: float) -> dict:
    return {"group": "all", "name": "all", "rows": 7} | {m: base + i + 0.123 for i, m in enumerate(METRICS)}


def ablation_line(split: str, row: str, stem: str) -> dict:
    names = (*METRICS[3:], "substance", "colour or quantity", "equation or law", "hazard", "safety missing")
    columns = dict.fromkeys(names, 40.0)
    return {"split": split, "row": row, "stem": stem} | columns | {f"{c}_interval": [31.0, 52.0] for c in columns}


def made_up() -> dict:
    """Numbers of a whole run."""
    subjects = {s: 100 + 7 * i for i, s in enumerate(s for names in DISCIPLINES.values() for s in names)}
    word_stats = {"experiments": 5, "clips": 25.0, "clip_s": 4.2, "steps": 5.0, "narration_words": 17.0, "principle_words": 14.0,
                  "safety_words": 13.0, "principle_rate": 0.4, "safety_rate": 0.5}
    report = {"steps": 7, "well_formed": 1.0, "substance": 0.5, "colour_quantity": 0.75, "seen": 0.9, "principle": float("nan"),
              "hazard": 0.25, "gate_auc": 1.0, "verdict_f1": 0.8}
    stems = ("test-free-adaptive", "test_unseen-free-adaptive", "test_unseen-free-never", "val-free-adaptive")
    curve = [{"threshold": t / 20, "precision": t / 20, "recall": 1 - t / 20, "f1": 0.5} for t in range(1, 20)]
    ks = {f"recall@{k}": [0.1 + 0.04 * k, 0.1, 0.99] for k in (1, 5, 8, 20)}
    return {
        "subjects": subjects, "steps": {"edges": [4, 5, 6, 7], "counts": [3, 20, 4]},
        "seconds": {"edges": [3, 4, 5], "counts": [9, 2]}, "statistics": dict.fromkeys((*DISCIPLINES, "all"), word_stats),
        "recall": [{"split": split, "query": way} | ks for split in ("train", "test", "test_unseen")
                   for way in ("bm25: title", "bm25: narration", "text: both", "lit: clip", "hybrid")],
        "chance": {"test_unseen": {"8 by subject": 0.42}},
        "training": {name: [[5 * i, 1 / i] for i in range(1, 40)] for name in ("captions", "rows", "choices")},
        "dpo": [{"step": i, "loss": 0.7 - i / 100, "accuracy": i % 2, "margin": i / 50} for i in range(1, 30)],
        "rewards": {name: {"n": 40, "mean": 0.7, "counts": [10] + 18 * [0] + [30]} for name in training.COMPONENTS},
        "reports": dict.fromkeys(stems, report), "curves": {"gate": curve, "verdict": curve},
        "text": {stem: {"lines": [text_line(50)], "signatures": {"BLEU-1": "tok:13a_x"}} for stem in stems},
        "intervals": {stems[0]: {m: [41.0, 62.0] for m in METRICS[3:]}},
        "gate_curve": [{"tau": t / 20, "rate": 1 - t / 40, "quality": 0.8 - (t / 20 - 0.4) ** 2} for t in range(1, 20)],
        "ablations": [ablation_line("val", "full", stems[3]), ablation_line("test", "grey frames", "test-free-adaptive-blank"),
                      ablation_line("test", "full", stems[0]),
                      ablation_line("test_unseen", "without the knowledge base", stems[2])],
        "speed": [{"name": "cut_clips", "ours_s": 2.0, "theirs_s": 90.0, "ratio": 45.0, "runs": 3, "device": "2 cores",
                   "clips": 12, "clip_s": 34.0, "worst_psnr_db": 45.2},
                  {"name": "my_own", "ours_s": 4.0, "theirs_s": 2.0, "ratio": 0.5, "runs": 1, "device": "2 cores"}]}


@pytest.fixture(scope="module")
def drawn():
    """Every figure and table by name, drawn from made-up numbers."""
    return {part.name: part.draw(made_up(), LABELS) for part in gallery.PARTS}


def prediction(case_id: str = "chemistry_1", asks: bool = True, said: str = "Pour the acid.") -> Prediction:
    passages = ["<paragraph>An acid & a base.</paragraph>", f"<paragraph>{40 * 'Long. '}</paragraph>"]
    data = {"is_retrieval": asks, "retrieval_prob": 0.9, "passage_ids": ["p1", "p2"] * asks, "rag_passages": passages * asks,
            "passage_titles": [WILD, CHINESE] * asks, "relevance": [0.95, 0.2] * asks, "relevant_ids": ["p1"] * asks,
            "settings": {"tau": 0.5, "verdict_threshold": 0.7}}
    return Prediction(id=case_id, response=f"<Narration>\n{said}\n<Safety>\nWear goggles.\n", full_dialogue="",
                      labels="<Narration>\nPour the base.\n", evaluation_data=data)


def case(case_id: str = "chemistry_1", title: str = "Acid and base") -> Case:
    return Case(id=case_id, experiment="chemistry/01-A", subject="chemistry", title=title, step_number=2, clip="clip.mp4",
                summary="", narration=["Pour the base."], split="test", duration_s=2.0)


@pytest.fixture
def run(tmp_path):
    """A run that holds predictions alone, and clips for them."""
    predictions = [prediction("chemistry_1"), prediction("chemistry_2", asks=False), prediction("chemistry_3", said="Else")]
    write_jsonl(tmp_path / "run/5_predictions/test-free-adaptive.jsonl", predictions)
    noise_clip(tmp_path / "clip.mp4", 2)
    return tmp_path / "run"


# What stands in a picture

def polygons(figure) -> list[tuple[str, np.ndarray]]:
    """(text, its corners in pixels) of all that is written in a figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    ticks = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in
             (*axis.get_major_ticks(), *axis.get_minor_ticks()) for label in (tick.label1, tick.label2)
             if not (label.get_visible() and min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval()))}
    bare = [axis for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)]
    hidden = {id(text) for axis in bare for text in axis.findobj(Text)}
    found = []
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()):
        if id(text) in ticks | hidden:
            continue
        angle, rotation = text.get_rotation(), np.radians(text.get_rotation())
        if angle % 90:
            text.set_rotation(0)
        box = text.get_window_extent(renderer)
        text.set_rotation(angle)
        corners = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
        if angle % 90:
            turn = np.array([[np.cos(rotation), np.sin(rotation)], [-np.sin(rotation), np.cos(rotation)]])
            corners = (corners - corners.mean(0)) @ turn + corners.mean(0)
        found.append((text.get_text(), corners))
    return found


def apart(a: np.ndarray, b: np.ndarray, slack: float) -> bool:
    """Whether two convex shapes overlap by less than `slack` pixels along some side's normal."""
    for shape in (a, b):
        for edge in np.roll(shape, -1, 0) - shape:
            normal = np.array([-edge[1], edge[0]]) / max(np.hypot(*edge), 1e-9)
            (low_a, high_a), (low_b, high_b) = ((p.min(), p.max()) for p in (a @ normal, b @ normal))
            if high_a - slack <= low_b or high_b - slack <= low_a:
                return True
    return False


def assert_legible(figure) -> None:
    found, (width, height) = polygons(figure), figure.bbox.size
    assert found
    for text, corners in found:
        assert corners.min() > -1.5, f"{text!r} is cut off"
        assert corners[:, 0].max() < width + 1.5, f"{text!r} is cut off on the right"
        assert corners[:, 1].max() < height + 1.5, f"{text!r} is cut off above"
    for (one, a), (other, b) in itertools.combinations(found, 2):
        assert apart(a, b, slack=2.5), f"{one!r} overlaps {other!r}"
    sizes = {t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()}
    assert min(sizes) >= style.TEXT_PT


@pytest.mark.parametrize("part", gallery.PARTS, ids=lambda part: part.name)
def test_text_is_large_enough_and_neither_overlaps_nor_is_cut_off(drawn, part):
    drawing = drawn[part.name]
    with style.styled():
        assert_legible(drawing.figure)
    assert drawing.figure.get_figwidth() <= style.PAGE_IN + 0.1
    assert drawing.wide or drawing.figure.get_figwidth() <= style.COLUMN_IN + 0.01


def test_the_check_of_overlaps_finds_them():
    figure, axes = style.page(100, 50)
    axes.text(10, 20, "here")
    axes.text(14, 20, "there", rotation=10)
    with pytest.raises(AssertionError, match="overlaps"):
        assert_legible(figure)


def test_nothing_is_told_by_colour_alone():
    looks = [(line["marker"], line["linestyle"]) for line in style.LINES]
    assert len(set(looks)) == len(style.LINES)
    assert style.PUBLISHED["hatch"]
    assert "hatch" not in style.OWN
    # as the colour blind see them (Viénot, Brettel and Mollon 1999, green cones missing), colours differ in brightness or hue
    blind = np.array([[0.29, 0.71, 0.0], [0.29, 0.71, 0.0], [-0.02, 0.02, 1.0]])
    seen = [blind @ np.power(to_rgb(line["color"]), 2.2) for line in style.LINES]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(seen, 2)) > 0.05


# Values

def cells(tex: str) -> list[list[str]]:
    """Rows of a LaTeX table, without its markup."""
    lines = [line for line in tex.splitlines() if line.endswith(r" \\") and not line.startswith(r"\multicolumn")]
    text = re.sub(r"\\textbf\{([^{}]*)\}", r"\1", "\n".join(line.removesuffix(r" \\") for line in lines))
    for sign, written in {"<": r"\textless{}", ">": r"\textgreater{}", "%": r"\%", "_": r"\_"}.items():
        text = text.replace(written, sign)
    return [line.split(" & ") for line in text.split("\n")]


@pytest.mark.parametrize(("name", "table"), [("main_results", "main_results"), ("statistics", "dataset_statistics")])
def test_published_cells_are_those_of_the_csv(drawn, name, table):
    shown = {text for text, _ in polygons(drawn[name].figure)}
    header, *rows = cells(drawn[name].tex.split(r"\heavyrulewidth")[0])
    by_row = {row[0]: dict(zip(header, row)) for row in rows}
    published = table_rows(table)
    for row in published:
        column = row["metric"] if table == "main_results" else row["group"]
        assert by_row[row["row"]][column] == row["value"]
        assert row["value"] in shown
    assert len(by_row) == len({row["row"] for row in published})


def test_the_best_published_value_of_a_metric_is_bold_and_ours_never_is(drawn):
    theirs, ours = drawn["main_results"].tex.split(r"\midrule[\heavyrulewidth]")
    bold = re.findall(r"\\textbf\{([\d.]+)\}", theirs)
    rows = table_rows("main_results")
    best = [max((r["value"] for r in rows if r["metric"] == m), key=float) for m in dict.fromkeys(r["metric"] for r in rows)]
    assert sorted(bold) == sorted(best)
    assert not re.findall(r"\\textbf\{[\d.]+\}", ours)


@pytest.mark.parametrize("name", ["main_results", "ablation", "statistics"])
def test_own_rows_stand_below_a_heavy_rule_under_our_name(drawn, name):
    theirs, ours = drawn[name].tex.split(r"\midrule[\heavyrulewidth]")
    assert ours.splitlines()[1].startswith(rf"\multicolumn{{{len(cells(theirs)[0])}}}{{l}}{{\textbf{{ExpInstruct-Mini (ours)")
    assert "ExpStar-Tiny" not in theirs.split(r"\begin{tabular}")[1]
    assert "(published)" not in ours.split(r"\bottomrule")[0]
    if name != "statistics":
        assert "not comparable" in ours.splitlines()[1]


def test_own_cells_are_the_runs(drawn):
    ours = {row[0]: row[1:] for row in cells(drawn["main_results"].tex.split(r"\heavyrulewidth")[1])}
    assert ours["ExpStar-Tiny, test"] == [f"{50 + i}.12" for i in range(len(METRICS))]
    assert ours["95 % interval"] == ["", "", "", *["41.0–62.0"] * 5]
    assert set(ours) == {"ExpStar-Tiny, test", "ExpStar-Tiny, test_unseen", "95 % interval"}  # neither val nor ablations
    facts = {row[0]: row[1:] for row in cells(drawn["facts"].tex)}
    assert facts["without the knowledge base, test_unseen"] == [
        "7", "1.000", "0.500", "0.750", "0.900", "–", "0.250", "1.000", "0.800"]
    ablated = [row[0] for row in cells(drawn["ablation"].tex.split(r"\heavyrulewidth")[1])]
    assert ablated[::2] == ["full", "grey frames", "without the knowledge base"]
    statistics = {row[0]: row[1:] for row in cells(drawn["statistics"].tex.split(r"\heavyrulewidth")[1])}
    assert statistics["Average Text Length"] == ["29.10"] * 4
    assert statistics["Principle Rate (%)"] == ["40.00"] * 4


def test_bars_are_as_high_as_the_counts(drawn):
    (steps, seconds), (own_steps, own_seconds) = np.array(drawn["histograms"].figure.axes).reshape(2, 2)
    for axes, kind in ((steps, "steps_per_video"), (seconds, "seconds_per_step")):
        rows = table_rows(f"{kind}_histogram_read_off_figure")
        assert [bar.get_height() for bar in axes.patches] == [int(row["value"]) for row in rows]
        assert [f"{bar.get_x():.0f}-{bar.get_x() + bar.get_width():.0f}" for bar in axes.patches] == [row["row"] for row in rows]
        assert "read off" in axes.get_title()
        assert all(bar.get_hatch() for bar in axes.patches)
    for axes, kind in ((own_steps, "steps"), (own_seconds, "seconds")):
        assert [bar.get_height() for bar in axes.patches] == made_up()[kind]["counts"]
        assert axes.get_title() == LABELS.own


def test_sectors_are_as_wide_as_the_counts(drawn):
    wedges = [p for p in drawn["sunburst_own"].figure.axes[0].patches if isinstance(p, Wedge)]
    widths = {(w.r, round(w.theta1, 3)): w.theta2 - w.theta1 for w in wedges}
    subjects = made_up()["subjects"]
    outer = [width for (radius, _), width in sorted(widths.items()) if radius == dataset.RIM_PT]
    assert outer == pytest.approx([360 * n / sum(subjects.values()) for n in subjects.values()])
    inner = [w.theta2 - w.theta1 for w in drawn["sunburst_published"].figure.axes[0].patches if w.r == dataset.CENTRE_PT]
    assert inner == pytest.approx([3.6 * float(row["value"]) for row in table_rows("discipline_share")], abs=0.2)
    written = {text for text, _ in polygons(drawn["sunburst_own"].figure)}
    assert {"Science\n847", "chemistry 100", "electrical\nengineering 233"} <= written


def test_curves_pass_through_the_numbers(drawn):
    found = made_up()
    test, unseen = drawn["recall"].figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in unseen.lines}
    assert lines["hybrid"] == pytest.approx([0.14, 0.3, 0.42, 0.9])
    assert lines["by chance, same subject"] == [0.42]
    rate, quality = drawn["gate_curve"].figure.axes
    assert list(quality.lines[0].get_ydata()) == [p["quality"] for p in found["gate_curve"]]
    assert quality.lines[1].get_xdata()[0] == pytest.approx(0.4)
    ratios = {bar.get_x() + bar.get_width() for bar in drawn["speed"].figure.axes[0].patches}
    assert ratios == {45.0, 0.5}
    first = drawn["rewards"].figure.axes[0]
    assert [bar.get_height() for bar in first.patches] == [25, *18 * [0], 75]
    steps = drawn["training_sft"].figure.axes[0].lines[-2].get_xdata()
    assert steps[-1] == 3 * 195  # stages follow each other
    losses = drawn["training_dpo"].figure.axes[0].lines[0].get_ydata()
    assert list(losses) == [row["loss"] for row in found["dpo"]]


def test_running_mean_is_that_of_the_last_tenth():
    values = np.arange(40.0)
    mean = training.running_mean(values)
    assert mean[:5].tolist() == [0, 0.5, 1, 1.5, 2.5]
    assert mean[-1] == values[-4:].mean()


def test_benchmarks_say_what_was_asked_and_what_differs():
    row = made_up()["speed"][0]
    assert speed.task(row) == ("cut 12 clips of 34 s", "one ffmpeg call a clip")
    assert speed.difference(row) == "PSNR 45.2 dB at worst"
    assert speed.difference({"largest_difference": {"a": 5e-14, "b": 4.8e-6}}) == "4.8e-06 at most"
    assert speed.difference({"largest_difference": 0}) == ""
    assert speed.task({"name": "cut_clips"}) == ("cut clips", "one ffmpeg call a clip")  # numbers are missing


# Bytes

SCRIPT = """
import json, sys
from pathlib import Path
from expstar_utils.figures import dataset, speed, style
numbers = json.loads(Path(sys.argv[1]).read_text())
for make in (dataset.histograms, speed.table):
    style.save(make(numbers, style.Labels()), Path(sys.argv[2]))
"""


def test_same_numbers_same_bytes_in_another_process(tmp_path):
    write_json(tmp_path / "numbers.json", made_up())
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nfigure.dpi: 50\nlines.linewidth: 9\n")
    odd = {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "numbers.json", tmp_path / "there"], check=True, cwd=ROOT,
                   env=os.environ | odd)
    glyphs.add_fonts([CHINESE])  # a font for Chinese changes nothing else
    with matplotlib.rc_context({"font.size": 30}):
        for make in (dataset.histograms, speed.table):
            style.save(make(made_up(), LABELS), tmp_path / "here")
    files = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert len(files) == 2 * 3
    for name in files:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


def test_files_hold_no_date_and_fonts_that_matplotlib_brings(drawn, tmp_path):
    paths = style.save(drawn["thresholds"], tmp_path)
    pdf = paths["pdf"].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"CIDFontType2" in pdf  # Type 42, not 3
    assert b"Software" not in paths["png"].read_bytes()
    with style.styled():
        assert Path(matplotlib.get_data_path()) in Path(font_manager.findfont("DejaVu Sans")).parents
    assert r"\includegraphics[width=\columnwidth]{thresholds.pdf}" in paths["tex"].read_text()


# Text of others

def test_wild_titles_are_escaped_in_latex_and_literal_in_the_picture(tmp_path):
    wild = f"{WILD} {CHINESE}"
    example = examples.Example("asked for", "test", prediction(said=wild), case(title=wild))
    drawing = examples.drawing(example, "case_1", LABELS, [(0.5, np.zeros((40, 60, 3), np.uint8))])
    with style.styled():
        assert_legible(drawing.figure)
    written = " ".join(text for text, _ in polygons(drawing.figure))
    assert wild.replace(" ", "") in written.replace(" ", "")
    tex = style.save(drawing, tmp_path)["tex"].read_text(encoding="utf8")
    caption = next(line for line in tex.splitlines() if "caption" in line)
    assert r"50 \% of\_A \& B \#1 \{x\} \$y\_1\$ \textasciitilde{} \textasciicircum{} \textbackslash{}" in caption
    assert CHINESE in caption
    table = tables.Table("t", wild, ["", wild], [tables.Block(wild, [[wild, tables.Bold("_")]], own=True)])
    assert not re.search(r"(?<!\\)[%#$_](?!.*\\label)", re.sub(r"\\label.*", "", table.latex()))
    assert wild in {text for text, _ in polygons(table.drawing().figure)}


def test_wild_names_of_subjects_and_data_sets_are_drawn():
    found = {"subjects": {"a_$b$&": 300, "chemistry": 500, "tiny": 1}}
    drawing = dataset.own_sunburst(found, Labels("Data_$1 & {2}"))
    assert r"Data\_\$1 \& \{2\} (ours)" in drawing.latex()
    assert drawing.caption.endswith("Too small for a name: tiny (1).")
    with style.styled():
        assert_legible(drawing.figure)
    assert {"a $b$& 300", "other\n301"} <= {text for text, _ in polygons(drawing.figure)}


def test_lines_are_wrapped_to_the_width_and_lose_nothing():
    text = "A rather long sentence, with words (and signs). 氢气在氧气中燃烧，生成水。" + 30 * "x"
    lines = style.wrapped(text, 80)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(style.width_pt(line) <= 80 for line in lines)
    assert not any(line.startswith((",", ".", ")", "，", "。")) for line in lines)
    assert style.wrapped("", 80) == []
    assert style.shortened("word " * 50, 80).endswith("...")
    assert style.width_pt(style.shortened("word " * 50, 80)) <= 80
    assert style.wrapped("a\x00b\nc", 80) == ["ab c"]


def test_letters_that_no_font_has_are_said(monkeypatch):
    monkeypatch.setattr(glyphs, "font_files", lambda: [])
    with pytest.raises(ExpStarError, match="font: found none with 氢"):
        glyphs.add_fonts(["氢"])
    glyphs.add_fonts(["only Latin, τ and ✓"])


# What is there, and what is not

def test_a_run_that_holds_nothing_is_no_obstacle(tmp_path):
    found = numbers.find(tmp_path / "no run", tmp_path / "no benchmarks")
    assert (found.numbers, found.of_run, found.problems) == ({}, False, [])
    assert found.source == f"the published numbers alone, for {tmp_path / 'no run'} holds none"


def test_numbers_of_a_run_are_found_and_kept_ones_stand_in_for_them(tmp_path):
    run, results = tmp_path / "run", tmp_path / "results"
    write_jsonl(run / "2_datasets/cases.jsonl", [case(f"chemistry_{i}").to_dict() | {"duration_s": 2.0 + i} for i in range(3)])
    for name, content in {"2_datasets": {"statistics": {"all": 1}}, "4_sft": {"choices_final_loss": 1.0}}.items():
        write_json(run / name / "metrics.json", {"git_sha": f"sha of {name}", "metrics": content})
    for folder in ("4_sft", "4_sft/captions"):
        write_jsonl(run / folder / "log.jsonl", [{"step": 5, "loss": 0.5, "lr": 1}, {"train_runtime": 3}])
    earned = [{"id": "a", "number": n, "value": n / 4, "components": {"format": 1.0}} for n in range(3)]
    write_jsonl(run / "4_dpo/rewards.jsonl", earned)
    write_json(results / "cut_clips.json", {"name": "cut_clips", "ratio": 3})
    write_json(results / "memory.json", {"name": "memory"})
    found = numbers.find(run, results)
    assert found.of_run
    assert found.numbers["subjects"] == {"chemistry": 3}
    assert found.numbers["steps"] == {"edges": [3, 4], "counts": [1]}
    assert found.numbers["seconds"] == {"edges": [2, 3, 4, 5], "counts": [1, 1, 1]}
    assert found.numbers["training"] == {"captions": [[5, 0.5]], "choices": [[5, 0.5]]}
    assert found.numbers["rewards"]["reward"] == {"n": 3, "mean": 0.25, "counts": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *9 * [0]]}
    assert found.numbers["code"] == {"2_datasets": "sha of 2_datasets", "4_sft": "sha of 4_sft"}
    assert [row["name"] for row in found.numbers["speed"]] == ["cut_clips"]
    assert "recall" not in found.numbers
    kept = write_json(tmp_path / "numbers.json", found.numbers)
    again = numbers.find(tmp_path / "none", results, kept)
    assert again.numbers == found.numbers
    assert not again.of_run


def test_files_of_another_form_are_said_and_the_rest_is_drawn(tmp_path):
    run = tmp_path / "run"
    recall = [{"split": "test", "query": "a", "recall@1": 0.5}]
    write_json(run / "3_index/metrics.json", {"git_sha": "x", "metrics": {"recall": recall}})
    write_json(run / "2_datasets/metrics.json", {"git_sha": "x", "metrics": {"statistics": {"all": {"clips": 3}}}})
    (run / "6_metrics").mkdir()
    (run / "6_metrics/metrics.json").write_text("{ torn")
    found = numbers.find(run, tmp_path)
    assert len(found.problems) >= 1
    assert "6_metrics/metrics.json: found text that is not JSON" in found.problems[0]
    pictures, left_out = gallery.draw("decisions", found.numbers, LABELS, tmp_path)
    assert not pictures
    assert "recall is left out: its data have another form than today's" in left_out[0]
    assert "run 03_retrieval again" in left_out[0]


def test_cases_are_drawn_by_seed_and_the_worst_is_among_them(run):
    chosen = examples.choose(run, 42)
    assert [(e.prediction.id, e.prediction.evaluation_data["is_retrieval"]) for e in chosen][1] == ("chemistry_2", False)
    assert chosen == examples.choose(run, 42)
    assert {e.prediction.id for e in chosen} == {"chemistry_1", "chemistry_2", "chemistry_3"}
    assert [e.why for e in examples.choose(run, 42, ["chemistry_3"])] == ["asked for"]
    with pytest.raises(ExpStarError, match="has no 'nobody'"):
        examples.choose(run, 42, ["nobody"])
    assert examples.choose(run / "none", 42) == []


def test_a_case_shows_frames_passages_and_verdicts(run, tmp_path):
    write_jsonl(run / "2_datasets/cases.jsonl", [case("chemistry_1"), case("chemistry_2")])
    asking = next(e for e in examples.choose(run, 1, ["chemistry_1"]))
    shots = examples.frames_of(asking, tmp_path, 2.0)
    assert len(shots) == examples.SHOTS
    assert examples.frames_of(asking, tmp_path / "elsewhere", 2.0) == []
    drawing = examples.drawing(asking, "case_1", LABELS, shots)
    with style.styled():
        assert_legible(drawing.figure)
    axes = drawing.figure.axes[0]
    assert len(axes.images) == examples.SHOTS
    written = [text for text, _ in polygons(drawing.figure)]
    for needed in ("Acid and base, step 2", "Decision: [Retrieval]", "p = 0.90, threshold 0.50", "Pour the acid.",
                   "Pour the base.", "relevant, used", "irrelevant", "0.95", "0.20"):
        assert needed in written
    pictures, left_out = gallery.draw_cases(examples.choose(run, 1), LABELS, tmp_path, 2.0, tmp_path / "out")
    assert [p.name for p in pictures] == ["case_1", "case_2", "case_3"]
    assert left_out == [f"chemistry_3 has no frames: its clip is not below {tmp_path}"]


def test_an_answer_of_one_turn_is_a_case_too(tmp_path):
    plain = prediction().model_copy(update={"evaluation_data": {"rounds": []}})
    drawing = examples.drawing(examples.Example("asked for", "test", plain), "case_1", LABELS, [])
    assert "No passage was asked for." in [text for text, _ in polygons(drawing.figure)]


@pytest.mark.parametrize("stem", ["test-free-adaptive", "test_unseen-free-adaptive", "test-free-adaptive-gpt-4o", "my_model"])
def test_whole_models_are_in_the_main_table(stem):
    assert paper_tables.is_whole(stem)


@pytest.mark.parametrize("stem", ["val-free-adaptive", "test-free-never", "test-free-adaptive-blank", "test-teacher-adaptive"])
def test_what_is_less_than_a_whole_model_is_not(stem):
    assert not paper_tables.is_whole(stem)


def test_compared_models_have_the_papers_name():
    assert paper_tables.run_label("test-free-adaptive-gpt-4o", LABELS) == "GPT-4o, test"
    assert paper_tables.run_label("test-free-never", LABELS) == "without the knowledge base, test"
    assert paper_tables.run_label("mine", LABELS) == "mine"


# The notebook and what is committed

def cells_of(**given) -> list[str]:
    """Code of notebook 07, with parameters."""
    code = [c for c in nbformat.read(ROOT / "notebooks/07_paper_figures.ipynb", 4).cells if c.cell_type == "code"]
    changed = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    return [code[0].source + "\n" + changed, *(c.source for c in code[1:])]


@pytest.mark.parametrize("there", [True, False])
def test_notebook_runs_on_predictions_alone_and_on_nothing(there, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    folder = run if there else tmp_path / "empty"
    kept_ones = {path: path.read_bytes() for path in (ROOT / "figures").glob("*.json")}
    space: dict = {}
    for cell in cells_of(run_dir=str(folder), smoke=True, kept="", benchmarks=str(tmp_path / "none"), data_root=str(tmp_path)):
        exec(compile(cell, "07", "exec"), space)
    record = json.loads((folder / "7_figures/metrics.json").read_text())["metrics"]
    cases = ["case_1", "case_2", "case_3"] * there
    assert record["drawn"] == ["sunburst_published", "histograms", "statistics", "main_results", "ablation", *cases]
    assert len(list((folder / "7_figures").glob("*.pdf"))) == len(record["drawn"])
    assert "recall is left out: its data come from 03_retrieval" in record["left_out"]
    assert "main_results shows published numbers alone: ours come from 06_evaluate" in record["left_out"]
    drawn_from_all = {line.split()[0] for line in record["left_out"]} | set(record["drawn"])
    assert {name for name in drawn_from_all if "case" not in name and "chem" not in name} == {part.name for part in gallery.PARTS}
    assert there or "(ours)" not in "".join(path.read_text() for path in (folder / "7_figures").glob("*.tex"))
    assert "speed is left out" in capsys.readouterr().out
    assert kept_ones == {path: path.read_bytes() for path in (ROOT / "figures").glob("*.json")}


def test_committed_files_are_small_and_explained():
    readme = (ROOT / "figures/README.md").read_text()
    named = set(re.findall(r"`([\w.]+)`", readme))
    for path in (ROOT / "figures").iterdir():
        assert path.stat().st_size < 300_000, path.name
        assert path.name == "README.md" or path.name in named or path.stem in named or path.stem.startswith("case_"), path.name
    assert {part.name for part in gallery.PARTS} <= named


def test_committed_tables_are_those_of_the_committed_numbers(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = numbers.find(Path("no run"), Path("benchmarks/results"), Path("figures/numbers.json"))
    for draw in (paper_tables.statistics, paper_tables.main_results, paper_tables.ablation):
        drawing = draw(found.numbers, LABELS)
        assert (ROOT / "figures" / f"{drawing.name}.tex").read_text(encoding="utf8") == drawing.latex()
    assert curves.TESTS == paper_tables.TESTS

"""A plan's jobs: whole, in order, and changed by what they depend on and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from matplotlib.backends.backend_agg import RendererAgg

from expstar_utils import content, plans
from expstar_utils.plan_picture import boxes, plan_dag
from expstar_utils.plans import NOTEBOOKS, STAGES, load_plan, stem_of
from expstar_utils.profiles import load_profile
from expstar_utils.records import ExpStarError

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in plans.FOLDER.glob("*.yaml"))


def written(folder, values, name="plan.yaml"):
    path = folder / name
    path.write_text(yaml.safe_dump(values), encoding="utf8")
    return str(path)


def profile(folder, **changes):
    values = load_profile("tiny").model_dump(mode="json") | changes
    return written(folder, values, "profile.yaml")


def plan(folder, setting="tiny", **more):
    runs = more.pop("runs", {str(folder / "run"): {"profile": setting}})
    return load_plan(written(folder, {"runs": runs, "stages": list(STAGES)[1:], "data_root": str(folder / "mini")} | more))


def keys(made):
    return {".".join(filter(None, (job.name, group))): its.key for job in made.jobs for group, its in job.groups.items()}


def changed(before, after):
    return {name for name, key in keys(before).items() if keys(after)[name] != key}


@pytest.mark.parametrize("name", NAMES)
def test_every_job_comes_after_those_that_it_needs(name):
    there = set()
    made = load_plan(name)
    for job in made.jobs:
        assert {need for group in job.groups.values() for need in group.needs} <= there
        assert there.isdisjoint(map(str, map(job.mark, job.groups)))
        there |= set(map(str, map(job.mark, job.groups)))
        assert not job.notebook or (ROOT / job.notebook).is_file()
    assert {job.name.split("-")[0].split(".")[0] for job in made.jobs} >= set(made.stages)


def test_a_setting_changes_the_stages_that_read_it(tmp_path):
    changes = {"verdict_threshold": (0.9, {"04b", "05-test", "06"}),
               "caption_lr": (1e-5, {"04a", "04b"}),
               "closed_book": (0.5, {"03.index", "03.found", "03.rows"}),
               "dpo": ({"candidates": 7}, {"04b"}),
               "name": ("other", set()),
               "resources": ({"05": {"cpus": 3}}, set()),
               "fps": (2.0, {name for name in keys(plan(tmp_path)) if name != "mini"})}
    for field, (value, expected) in changes.items():
        old = keys(plan(tmp_path, profile(tmp_path)))
        after = keys(plan(tmp_path, profile(tmp_path, **{field: value})))
        assert {name for name in old if old[name] != after[name]} == expected, field


@pytest.mark.parametrize(("stages", "given", "trained"), [
    (["04a", "04b", "05"], {}, "04b"), (["04a", "05"], {}, "04a"), (["04a", "04b", "05"], {"adapter": "sft"}, "04a"),
    (["04a", "04b", "05"], {"adapter": "dpo"}, "04b"), (["04a", "04b", "05"], {"adapter": "some/folder"}, "")])
def test_inference_waits_for_the_adapter_that_it_takes(tmp_path, stages, given, trained):
    made = plan(tmp_path, stages=stages, render=False, rows={"x": given})
    [needs] = [job.groups[""].needs for job in made.jobs if job.name == "05-x"]
    assert [Path(need).stem for need in needs] == ([trained] if trained else [])


def test_a_prompt_changes_what_depends_on_it_and_nothing_else(tmp_path, monkeypatch):
    before = plan(tmp_path)
    old, its = keys(before), content.data_hash
    unread = {"mini", "02.cases", "03.tower", "06", "07"}
    monkeypatch.setattr(plans, "data_hash", lambda patterns: its(patterns) + ("new" if "data/prompts.yaml" in patterns else ""))
    assert {n for n in old if old[n] == keys(plan(tmp_path))[n]} == unread


def test_prose_does_not_count_and_code_does(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("before"), nbformat.v4.new_code_cell("x = 1  # one\n")]

    def hashed(first, code):
        content.notebook_hash.cache_clear()
        cells[0].source, cells[1].source = first, code
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
        return content.notebook_hash(tmp_path / "n.ipynb")
    one = hashed("before", "x = 1  # one\n")
    assert hashed("after", "x = 1\n\n# more") == one
    assert hashed("before", "x = 2") != one
    assert hashed("before", "from expstar_utils import files\nx = 1") != one
    bare = content._bare
    assert bare(ast.parse('def f():\n    """Said."""\n    return 1')) == bare(ast.parse("def f():\n    return 1  # why"))


def test_a_module_counts_where_it_is_reached(tmp_path):
    reached = {number: content._reached(frozenset().union(*(content._imported(ast.parse(cell.source)) for cell in
               nbformat.read(path, as_version=4).cells if cell.cell_type == "code"))) for number, path in NOTEBOOKS.items()}
    assert "rewards" in reached["04b"] - reached["05"]
    assert "figures.curves" in reached["07"] - reached["04a"]
    assert all("files" in names for names in reached.values())


@pytest.mark.parametrize("stage", STAGES)
def test_settings_that_a_stage_is_said_not_to_read_are_not_read_in_its_cells(stage):
    cells = nbformat.read(NOTEBOOKS[stage], as_version=4).cells
    read = {name for cell in cells if cell.cell_type == "code" for name in re.findall(r"setting\.(\w+)", cell.source)}
    assert not read & frozenset.intersection(*(part.unread for part in STAGES[stage].values()))


def test_parameters_are_the_notebooks_own(tmp_path):
    made = plan(tmp_path, rows={"never": {"split": "val", "knowledge": "never"}}, parameters={"03": {"tower_steps": 3}})
    [infer] = [job for job in made.jobs if job.name == "05-never"]
    assert infer.groups[""].results == ("5_predictions/val-free-never.jsonl", "5_predictions/val-free-never.metrics.json")
    assert changed(plan(tmp_path), plan(tmp_path, parameters={"03": {"tower_steps": 3}})) == {
        "03.tower", "03.index", "03.found", "03.rows"}


def test_a_second_seed_takes_the_firsts_data_and_trains_its_own(tmp_path):
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    made = plan(tmp_path, runs={one: {"seed": 1}, two: {"seed": 2, "shares": one}})
    of_two = {job.name: job for job in made.jobs if job.run == two}
    assert set(of_two) == {"04a", "04b", "05-test", "06", "07"}
    assert f"{one}/jobs/03.rows.json" in of_two["04a"].groups[""].needs
    assert f"{two}/jobs/04a.json" in of_two["04b"].groups[""].needs
    assert f"{two}/jobs/04b.json" in of_two["05-test"].groups[""].needs
    assert of_two["04a"].links["2_datasets"] == f"{one}/2_datasets"


def test_shards_come_before_what_gathers_them(tmp_path):
    made = plan(tmp_path, shards={"05": 3})
    names = [job.name for job in made.jobs if job.name.startswith("05")]
    assert names == ["05-test.shard-0", "05-test.shard-1", "05-test.shard-2", "05-test"]
    [whole] = [job for job in made.jobs if job.name == "05-test"]
    assert {f"{tmp_path / 'run'}/jobs/05-test.shard-{n}.json" for n in range(3)} <= set(whole.groups[""].needs)
    shard = next(job for job in made.jobs if job.name == "05-test.shard-2")
    assert shard.groups[""].results[0] == "5_predictions/test-free-adaptive.shard-2-of-3.jsonl"
    assert (shard.parameters["shard"], shard.parameters["shards"]) == (2, 3)


@pytest.mark.parametrize(("values", "told"), [
    ({"runs": {}}, "runs is {}, expected"),
    ({"runs": {"a": {"profil": "tiny"}}}, "runs.a.profil is 'tiny', expected: Extra inputs"),
    ({"runs": {"a": {}}, "stages": ["09"]}, r"found \['09'\], expected numbers of notebooks"),
    ({"runs": {"a": {"shares": "b"}}}, "a shares 'b', expected another run of the plan"),
    ({"runs": {"a": {}}, "shards": {"02": 4}}, "expected 01 or 05 and a number from 1"),
    ({"runs": {"a": {}}, "parameters": {"9": {}}}, r"parameters of \['9'\], expected"),
    ({"runs": {"a": {}}, "parameters": {"03": {"tower_step": 2}}}, r"'tower_step' is no parameter of notebook 03, expected"),
    ({"runs": {"a": {}}, "rows": {"x": {"splits": "val"}}}, r"'splits' is no parameter of notebook 05, expected some of"),
])
def test_a_bad_plan_is_told_by_field(values, told, tmp_path):
    with pytest.raises(ExpStarError, match=f"plan plan.yaml: .*{told}"):
        load_plan(written(tmp_path, values))


def test_an_unknown_plan_names_those_that_there_are():
    with pytest.raises(ExpStarError, match=r"plan 'tin' was not found, expected one of \[.*'tiny'"):
        load_plan("tin")


@pytest.mark.parametrize(("given", "name"), [
    ({}, "test-free-adaptive"),
    ({"split": "val", "history": "teacher", "knowledge": "never"}, "val-teacher-never"),
    ({"verdicts": "none", "blank": True}, "test-free-adaptive-none-blank"),
    ({"adapter": "runs/x/adapter", "language": "zh"}, "test-free-adaptive-zh"),
    ({"adapter": "dpo", "row": "gpt-4o"}, "test-free-adaptive-dpo-gpt-4o"),
])
def test_predictions_are_named_by_what_is_not_the_default(given, name):
    assert stem_of(given) == name


def test_snakemake_reads_the_plan_and_draws_it(tmp_path):
    path = written(tmp_path, {"runs": {str(tmp_path / "run"): {}}, "data_root": str(tmp_path / "mini"), "shards": {"05": 2}})
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path),
               "--config", f"plan={path}"]
    drawn = subprocess.run([*command, "--rulegraph", "mermaid-js"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {f"stage_{number}" for number in ("mini", "02", "03", "04a", "05", "06", "07")} <= set(re.findall(r"stage_\w+", drawn))
    dry = subprocess.run([*command, "-n", "--cores", "2"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.search(r"stage_05\s+3\b", dry.stdout + dry.stderr)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_of_a_plan_has_every_job_right_of_those_before(name):
    made = load_plan(name)
    graph, states = boxes(made)
    assert sum(its.total() for its in states.values()) == len(made.jobs)
    drawing = plan_dag(made, name)
    [axes] = drawing.figure.axes
    drawn = {text.get_text(): text for text in axes.texts if text.get_text()}
    assert set(drawn) >= {box.name if states[box].total() == 1 else f"{states[box].total()} x {box.name}" for box in graph}
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == len(graph.edges)
    assert all(arrow.xy[0] > arrow.xyann[0] for arrow in arrows)
    renderer = RendererAgg(*drawing.figure.get_size_inches() * 72, 72)
    frames = [patch.get_window_extent(renderer) for patch in axes.patches]
    assert len(frames) == len(graph)
    for text in drawn.values():
        its = text.get_window_extent(renderer)
        assert any(frame.x0 <= its.x0 and its.x1 <= frame.x1 and frame.y0 <= its.y0 and its.y1 <= frame.y1 for frame in frames)

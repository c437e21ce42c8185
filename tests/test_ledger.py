"""The ledger: every metrics file once, whatever the others hold; hashes tell what was read; trackers only for those who ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_launching import trained
from test_packing import ragged

from expstar_utils import ledger, runlog, seeds, trackers
from expstar_utils.figures import numbers, paper_tables
from expstar_utils.figures.style import Labels
from expstar_utils.files import read_json, write_json
from expstar_utils.miniatures import MINIATURES
from expstar_utils.profiles import load_profile
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import Stage, content_hash, file_hash
from expstar_utils.training import common_arguments

ROOT = Path(__file__).parents[1]
NAME = "test-free-adaptive"


def finished(runs, run, stage, when_s, file="metrics.json", seed=42, reads=None, profile="tiny", **metrics):
    """Path of a stage's metrics, written as a notebook does, at a time of its own."""
    its = Stage(stage, runs / run, profile=profile, seed=seed, smoke=False)
    its.reads(**reads or {})
    its.finish(file, **metrics)
    os.utime(its.folder / file, (when_s, when_s))
    return its.folder / file


def evaluated(runs, run, seed, blue, when_s=1000, training_profile="tiny"):
    """A run of training, inference and evaluation; `blue` is its BLEU-4."""
    weights = runs / run / "4_sft" / "adapter.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text(f"weights of {run}")
    finished(runs, run, "4_sft", when_s, seed=seed, profile=training_profile, adapter_sha256=file_hash(weights))
    finished(runs, run, "5_predictions", when_s + 1, f"{NAME}.metrics.json", reads={"weights": weights}, steps=3)
    line = {"group": "all", "name": "all", "rows": 3, "BLEU-4": blue}
    finished(runs, run, "6_metrics", when_s + 2, reports={NAME: {"substance": blue / 100}},
             text={NAME: {"lines": [line], "signatures": {}, "problems": []}}, best_tau=0.5)


def key(row):
    return row["run"], row["stage"], row["name"]


# Gathering

def test_every_file_is_a_row_and_an_evaluation_one_more_for_each_file_it_scored(tmp_path):
    evaluated(tmp_path, "a", 1, 40.0)
    rows, problems = ledger.gather(tmp_path)
    assert not problems
    assert [key(row) for row in rows] == [("a", "4_sft", ""), ("a", "5_predictions", NAME), ("a", "6_metrics", ""),
                                         ("a", "6_metrics", NAME)]
    training, prediction, whole, scored = rows
    assert training["weights_sha256"] == prediction["weights_sha256"] == file_hash(tmp_path / "a/4_sft/adapter.safetensors")
    assert (prediction["seed"], prediction["profile"], prediction["smoke"], prediction["metrics.steps"]) == (42, "tiny", False, 3)
    assert (scored["metrics.BLEU-4"], scored["metrics.substance"]) == (40.0, 0.4)
    assert whole["wall_s"] >= 0
    assert scored["wall_s"] is None  # seconds add up over rows
    assert json.loads(whole["metrics"]) == {"best_tau": 0.5}
    assert json.loads(training["parameters"]) == {"profile": "tiny", "seed": 1, "smoke": False}
    assert training["when"].isoformat() == "1970-01-01T00:16:40+00:00"
    sha = runlog.git_sha()
    assert (training["git_sha"], training["dirty"]) == (sha.removesuffix("-dirty"), sha.endswith("-dirty"))


def test_runs_of_todays_and_earlier_notebooks_are_found_in_folders_of_folders(tmp_path):
    finished(tmp_path, "sweep/seed 1/氢", "4_sft", 5)
    old = {"stage": "4_sft", "parameters": {"profile": "tiny"}, "metrics": {"data_sha256": "d" * 64, "adapter_sha256": "e" * 64}}
    write_json(tmp_path / "old/4_sft/metrics.json", old)
    write_json(tmp_path / "old/4_kept/metrics.json", old)  # renamed by hand
    write_json(tmp_path / "old/4_sft/config.json", {"no": "metrics"})
    rows, problems = ledger.gather(tmp_path)
    assert not problems
    assert [key(row) for row in rows] == [("old", "4_kept", ""), ("old", "4_sft", ""), ("sweep/seed 1/氢", "4_sft", "")]
    assert (rows[1]["data_sha256"], rows[1]["weights_sha256"], rows[1]["seed"]) == ("d" * 64, "e" * 64, None)


def test_links_are_not_followed(tmp_path):
    runs, outside = tmp_path / "runs", tmp_path / "outside"
    finished(runs, "a", "4_sft", 5)
    finished(outside, "b", "4_sft", 5)
    (runs / "b").symlink_to(outside / "b")
    (runs / "c").mkdir()
    (runs / "c/4_sft").symlink_to("../a/4_sft")
    (runs / "c/5_predictions").mkdir()
    (runs / "c/5_predictions/metrics.json").symlink_to(outside / "b/4_sft/metrics.json")
    assert [key(row) for row in ledger.gather(runs)[0]] == [("a", "4_sft", "")]
    (tmp_path / "linked").symlink_to(runs)
    assert [key(row) for row in ledger.gather(tmp_path / "linked")[0]] == [("a", "4_sft", "")]


@pytest.mark.parametrize(("text", "said"), [
    ("{ torn", "found text that is not JSON"), ("[1]", "value is"), ('{"stage": "x", "parameters": {}}', "metrics is missing"),
    ('{"stage": "x", "parameters": {"seed": "y"}, "metrics": {}}', "parameters.seed is 'y'"),
    (f'{{"stage": "x", "parameters": {{"seed": {10**30}}}, "metrics": {{}}}}', "parameters.seed is 1000"),
    ('{"stage": "x", "parameters": {}, "metrics": {}, "wall_s": "long"}', "wall_s is 'long'")])
def test_a_broken_file_is_named_and_the_others_go_on(tmp_path, text, said):
    finished(tmp_path, "a", "4_sft", 5)
    broken = tmp_path / "b/4_sft/metrics.json"
    broken.parent.mkdir(parents=True)
    broken.write_text(text)
    rows, [problem] = ledger.rebuild(tmp_path)
    assert problem.startswith(f"{broken}: ")
    assert said in problem
    assert [row["run"] for row in rows] == ["a"]
    assert list(pd.read_parquet(tmp_path / ledger.FILE)["run"]) == ["a"]


def test_odd_metrics_are_kept_as_text_and_only_numbers_become_columns(tmp_path):
    odd = {"n": 10**400, "nan": float("nan"), "yes": True, "half": "\ud800", "seed": 7, "list": [1], "run": 3.5}
    (tmp_path / "a/4_sft").mkdir(parents=True)
    written = {"stage": "4_sft", "parameters": {"profile": "\ud800"}, "metrics": odd}
    (tmp_path / "a/4_sft/metrics.json").write_text(json.dumps(written))
    write_json(tmp_path / "a/6_metrics/metrics.json",
               {"stage": "6_metrics", "parameters": {}, "metrics": {"reports": [1], "text": {"x": {"lines": []}, "y": 3}}})
    rows, problems = ledger.rebuild(tmp_path)
    assert not problems
    assert {name for name in rows[0] if name.startswith("metrics.")} == {"metrics.seed", "metrics.run"}
    assert [row["name"] for row in rows if row["stage"] == "6_metrics"] == ["", "x", "y"]
    assert pd.read_parquet(tmp_path / ledger.FILE).loc[0, ["run", "metrics.run"]].tolist() == ["a", 3.5]


def test_same_files_same_bytes_and_the_ledger_is_rebuilt_from_them(tmp_path):
    evaluated(tmp_path / "one", "a", 1, 40.0)
    evaluated(tmp_path / "one", "b", 2, 41.0)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for runs in ("one", "two"):
        ledger.rebuild(tmp_path / runs)
    first = (tmp_path / "one" / ledger.FILE).read_bytes()
    assert first == (tmp_path / "two" / ledger.FILE).read_bytes()
    shutil.rmtree(tmp_path / "one/b")
    assert {row["run"] for row in ledger.rebuild(tmp_path / "one")[0]} == {"a"}
    assert set(pd.read_parquet(tmp_path / "one" / ledger.FILE)["run"]) == {"a"}
    assert [path.name for path in (tmp_path / "one").iterdir() if path.is_file()] == [ledger.FILE]


def test_a_ledger_that_cannot_be_written_is_said_and_the_rows_are_there(tmp_path):
    finished(tmp_path, "a", "4_sft", 5)
    (tmp_path / ledger.FILE).mkdir()
    rows, [problem] = ledger.rebuild(tmp_path)
    assert rows
    assert "ledger.parquet: cannot be written" in problem


def test_an_empty_folder_has_an_empty_ledger(tmp_path):
    assert ledger.rebuild(tmp_path) == ([], [])
    frame = pd.read_parquet(tmp_path / ledger.FILE)
    assert list(frame.columns) == ledger.COLUMNS.names
    assert len(frame) == 0


def test_a_run_stands_in_the_ledger_of_the_runs_folder_above_it_else_in_its_own(tmp_path):
    run = tmp_path / "runs/sweep/a"
    assert (ledger.home(run), ledger.name_of(run)) == (tmp_path / "runs", "sweep/a")
    assert (ledger.home(tmp_path / "x"), ledger.name_of(tmp_path / "x")) == (tmp_path / "x", "x")
    finished(tmp_path, "x", "4_sft", 5)
    assert [key(row) for row in ledger.gather(tmp_path / "x")[0]] == [("x", "4_sft", "")]


# Printing

def printed(*words):
    return subprocess.run([sys.executable, "-m", "expstar_utils.ledger", *map(str, words)], capture_output=True, text=True,
                          cwd=ROOT, check=False)


def test_it_is_printed_newest_last_and_filtered(tmp_path):
    evaluated(tmp_path, "late", 1, 40.0, when_s=2000)
    evaluated(tmp_path, "early", 2, 41.0, when_s=1000)
    lines = printed(tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", *4 * ["early"], *4 * ["late"]]
    assert "BLEU-4=41" in "".join(lines)
    of_stage = printed(tmp_path, "--run", "late", "--stage", "5").stdout.splitlines()
    assert [line.split()[:3] for line in of_stage[1:]] == [["late", "5_predictions", NAME]]
    rows = json.loads(printed(tmp_path, "--json", "--stage", "4").stdout)
    assert [(row["run"], row["parameters"]["seed"]) for row in rows] == [("early", 2), ("late", 1)]


def test_what_is_broken_makes_the_status(tmp_path):
    (tmp_path / "a/4_sft").mkdir(parents=True)
    (tmp_path / "a/4_sft/metrics.json").write_text("{")
    done = printed(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "metrics.json: found text that is not JSON" in done.stderr
    assert printed(tmp_path / "none").returncode == 2


def test_lines_fit_a_width_and_run_no_control_codes(tmp_path):
    finished(tmp_path, "a\x1b[31m氢气", "4_sft", 5, **{f"loss {n}": 0.5 for n in range(50)})
    rows, _ = ledger.gather(tmp_path)
    assert "\x1b" not in ledger.table(rows)
    for line in ledger.table(rows, 60).splitlines():
        assert ledger._width(line) <= 60


# What was read

def test_hashes_are_those_of_the_content(tmp_path):
    one, folder = tmp_path / "one", tmp_path / "folder"
    one.write_text("x")
    folder.mkdir()
    (folder / "b").write_text("b")
    (folder / ".unfinished").write_text("c")
    stage = Stage("s", tmp_path)
    stage.reads(data=one, weights=[one, None, "", folder], tower=None, start=tmp_path / "none")
    hashes = stage.finish()["hashes"]
    assert hashes == {"data": file_hash(one), "weights": content_hash([one, folder / "b"])}
    (folder / "b").write_text("B")
    stage.reads(weights=[one, folder])
    assert stage.hashes["weights"] != hashes["weights"]
    assert "hashes" not in Stage("t", tmp_path).finish()


def test_large_files_are_hashed_again_only_when_size_or_time_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runlog, "LARGE", 4)
    path = tmp_path / "large"
    path.write_text("12345")
    fresh = content_hash([path])
    assert not (tmp_path / "cache").exists()  # just written: it may change again within the same tick of the clock
    os.utime(path, (1000, 1000))
    assert content_hash([path]) == fresh
    [note] = (tmp_path / "cache/hashes").iterdir()
    write_json(note, read_json(note) | {"sha256": "from the note"})
    assert content_hash([path]) == "from the note"
    os.utime(path, (1001, 1001))
    assert content_hash([path]) == fresh
    for torn in ("{", "[]", "{}"):
        note.write_text(torn)
        assert content_hash([path]) == fresh


# Seeds

def test_mean_and_spread_over_seeds_of_twins_alone(tmp_path):
    evaluated(tmp_path, "a", 1, 40.0, 1000)
    evaluated(tmp_path, "b", 2, 44.0, 2000)
    evaluated(tmp_path, "other", 3, 90.0, 3000, training_profile="paper")
    evaluated(tmp_path, "again", 1, 42.0, 4000)  # one seed counts once, and the newest counts
    copied = tmp_path / "copy/6_metrics"  # its weights are not known
    shutil.copytree(tmp_path / "a/6_metrics", copied)
    rows, _ = ledger.gather(tmp_path)
    found = seeds.over_seeds(rows, "a")[NAME]
    assert found["seeds"] == [1, 2]
    assert found["mean"]["BLEU-4"] == 43.0
    assert found["sd"]["BLEU-4"] == pytest.approx(2 ** 0.5)
    assert seeds.over_seeds(rows, "other") == seeds.over_seeds(rows, "copy") == {}
    lines = seeds.beside(rows, "b")
    told = [(line["run"], line["seed"]) for line in lines]
    assert told == [("b", "2"), ("a", "1"), ("again", "1"), ("copy", "42"), ("other", "3"), ("2 seeds", "1, 2")]
    assert lines[-1]["BLEU-4"] == "43.000 ± 1.414"
    assert seeds.beside(rows, "no run") == []


def test_the_main_table_has_a_row_of_seeds_where_there_are_several_and_else_none(tmp_path):
    runs = tmp_path / "runs"
    evaluated(runs, "a", 1, 40.0)
    labels = Labels()
    alone = numbers.find(runs / "a", tmp_path / "none").numbers
    assert "seeds" not in alone
    evaluated(runs, "b", 2, 44.0)
    together = numbers.find(runs / "a", tmp_path / "none").numbers
    assert json.loads(json.dumps(together))["seeds"][NAME]["mean"]["BLEU-4"] == 42.0
    row = [line for line in paper_tables.main_results(together, labels).latex().splitlines() if "SD" in line]
    assert len(row) == 1
    assert "mean ± SD, 2 seeds" in row[0]
    assert "42.0±2.8" in row[0]
    without = {key: value for key, value in together.items() if key != "seeds"}
    assert paper_tables.main_results(without, labels).latex() == paper_tables.main_results(alone, labels).latex()


def test_06_shows_its_run_and_the_others(tmp_path, capsys):
    """The notebook's own cells, on two runs."""
    evaluated(tmp_path / "runs", "a", 1, 40.0)
    evaluated(tmp_path / "runs", "b", 2, 44.0)
    cells = [c.source for c in nbformat.read(ROOT / "notebooks/06_evaluate.ipynb", 4).cells if c.id in ("c25", "c26")]
    space = {"ledger": ledger, "seeds": seeds, "pd": pd, "stage": Stage("6_metrics", tmp_path / "runs/a")}
    exec(cells[0], space)
    shown = eval(cells[1], space)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split()[0] for line in lines] == ["run", *4 * ["a"]]
    assert shown["run"].tolist() == ["a", "b", "2 seeds"]
    assert (tmp_path / "runs" / ledger.FILE).is_file()


# Trackers

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return MINIATURES["qwen2_5_vl"](tmp_path_factory.mktemp("base") / "qwen2_5_vl")


@pytest.fixture
def untracked(monkeypatch):
    """An environment in which no tracker was set up, neither by a user nor by a training before."""
    monkeypatch.setattr(trackers, "_ours", {})
    for name in ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def losses_of(folder):
    """(step, loss) of a training as TensorBoard reads them."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


@pytest.mark.parametrize("processes", [1, 2])
def test_tensorboard_has_the_losses_of_the_log_also_of_several_processes(small, root, tmp_path, untracked, processes):
    folder = tmp_path / "run/4_sft/captions"
    found, _ = trained("sft", small, root, folder, ragged()[:8], tracker="tensorboard", batch_size=2 // processes,
                       processes=processes, sft_epochs=5)
    assert found
    assert [loss for _, loss in losses_of(folder)] == pytest.approx(found, abs=1e-3)


def test_no_tracker_is_asked_unless_the_profile_names_one(tmp_path, untracked):
    assert common_arguments(load_profile("tiny"), tmp_path, 1, 1)["report_to"] == "none"
    assert not {"WANDB_MODE", "TRACKIO_DIR"} & set(os.environ)
    with pytest.raises(ExpStarError, match="tracker is 'mlflow'"):
        load_profile("tiny", tracker="mlflow")


def test_a_tracker_is_told_run_and_folder_and_stays_offline_unless_the_user_says_otherwise(tmp_path, untracked, monkeypatch):
    setting = load_profile("tiny", tracker="tensorboard")
    told = [common_arguments(setting, tmp_path / "runs/a/4_sft" / part, 1, 1) for part in ("", "captions")]
    assert [(one["report_to"], one["run_name"], one["project"]) for one in told] == [
        ("tensorboard", "a/4_sft", "expstar"), ("tensorboard", "a/4_sft/captions", "expstar")]
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "runs/a/4_sft/captions/tensorboard")
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_DIR"] == str(tmp_path / "runs/a")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DIR", "mine")
    trackers.arguments("tensorboard", tmp_path / "runs/b/4_dpo")
    assert (os.environ["WANDB_MODE"], os.environ["WANDB_DIR"]) == ("online", "mine")
    assert os.environ["TRACKIO_DIR"] == str(tmp_path / "runs/b/trackio")


def test_a_tracker_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ExpStarError, match=r"tracker is 'wandb', which is not installed; run `pip install wandb`, or leave"):
        trackers.require_tracker("wandb")
    trackers.require_tracker("")
    with pytest.raises(ExpStarError, match="`pip install trackio`"):
        common_arguments(load_profile("tiny", tracker="trackio"), tmp_path, 1, 1)


def test_a_folder_of_that_name_is_no_tracker(tmp_path, monkeypatch):
    (tmp_path / "surely_no_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExpStarError, match="not installed"):
        trackers.require_tracker("surely_no_tracker")


@pytest.mark.parametrize("name", ["04a_train_sft", "04b_train_dpo"])
def test_notebooks_refuse_a_missing_tracker_before_they_load_anything(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    cells = [c.source for c in nbformat.read(ROOT / f"notebooks/{name}.ipynb", 4).cells if c.cell_type == "code"]
    space: dict = {}
    exec("\n".join([cells[0], f"tracker, run_dir = 'wandb', {str(tmp_path)!r}", cells[1]]), space)
    with pytest.raises(ExpStarError, match="pip install wandb"):
        exec(cells[2], space)

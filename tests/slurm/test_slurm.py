"""Plans on a real Slurm: the results of a local run, whatever is killed on the way, and nothing left behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from cluster import Cluster, missing, said
from safetensors.torch import load_file

from expstar_utils.files import read_jsonl
from expstar_utils.miniatures import MINIATURES
from expstar_utils.profiles import load_profile
from expstar_utils.records import Record

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from disturbed import Course, long, until  # noqa: E402

WORDS = ("--executor", "slurm", "--jobs", "4", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks",
         "3", "--seconds-between-status-checks", "2", "--default-resources", "slurm_account=tests")


@pytest.fixture(scope="module")
def cluster():
    """The cluster; its folder's path is short, for sockets."""
    if lacking := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(lacking)
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """`tiny`, asking for one core a job, so that two of them run beside each other."""
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    settings = yaml.safe_load((ROOT / "notebooks" / "profiles" / "tiny.yaml").read_text(encoding="utf8"))
    settings["resources"] = {"02": {"cpus": 1, "mem_gib": 2, "minutes": 10}}
    path.write_text(yaml.safe_dump(settings), encoding="utf8")
    return str(path)


begun = []  # courses whose processes a failed test may leave


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    while begun:
        begun.pop().left()


def course(folder, profile, **more):
    """Notebook 02 for two runs of one data set."""
    runs = {str(folder / name): {"profile": profile, "seed": seed} for name, seed in (("run", 1), ("other", 2))}
    return Course(folder, **{"runs": runs, "stages": ["02"], "render_words": ["--small", "--subject", "chemistry"]} | more)


def on_slurm(of):
    """Words for a course's schedule; logs of Slurm's jobs stay in its folder."""
    return *WORDS, "--slurm-logdir", str(of.folder / "slurm")


@pytest.fixture(scope="module")
def local(cluster, profile, tmp_path_factory):
    """The same on this machine, to compare with."""
    whole = course(tmp_path_factory.mktemp("local"), profile)
    whole.finish("--cores", "2")
    assert len(whole.results()) > 20
    return whole


def begin(of):
    """Start a course on Slurm, and wait until a job of notebook 02 is in the midst of its work."""
    schedule = of.start(*on_slurm(of))
    begun.append(of)
    assert until(lambda: of.kernels() or schedule.poll() is not None, 300), said_by(of)
    assert schedule.poll() is None, said_by(of)
    return schedule


def works(of):
    """Number and run of each process that runs a job."""
    begins = f"{sys.executable} -m expstar_utils.jobs"
    return [(number, run) for number, words in of.processes().items() if words.startswith(begins)
            for run in of.plan["runs"] if f'"run":"{run}"' in words]


def said_by(of):
    """What the schedule said, and the jobs of Slurm."""
    return "\n".join(path.read_text(errors="replace") for path in [of.log, *(of.folder / "slurm").rglob("*.log")])


def test_a_plan_of_which_everything_was_killed_once_ends_like_a_local_one(cluster, local, profile, tmp_path):
    away = course(tmp_path, profile, render=False, data_root=local.plan["data_root"])
    kill_both_jobs(cluster, away)
    cancel_all(cluster, away)
    kill_the_controller(cluster, away)
    assert away.results() == {name: hashed for name, hashed in local.results().items() if not name.startswith("mini")}
    marks = [path.relative_to(tmp_path) for path in tmp_path.rglob("jobs/[!.]*.json")]
    assert len(marks) == 4
    assert all((tmp_path / mark).read_bytes() == (local.folder / mark).read_bytes() for mark in marks)


def kill_both_jobs(cluster, away):
    """One by a signal to its process, one by Slurm: the schedule names both, and both their runs."""
    schedule = begin(away)
    work, run = works(away)[0]
    os.kill(work, signal.SIGKILL)
    killed, [cancelled] = cluster.job_of(run), [cluster.job_of(other) for other in away.plan["runs"] if other != run]
    subprocess.run(["scancel", cancelled], check=True)
    assert schedule.wait() != 0
    told = away.log.read_text()
    assert f"SLURM-job '{killed}' failed, SLURM status is: 'FAILED'" in told
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in told
    assert {line.split(":")[1].split("/jobs/")[0].strip() for line in told.splitlines() if line.startswith("    output:")
            } == set(away.plan["runs"])
    assert away.left() == {}


def cancel_all(cluster, away):
    """Told to end, the schedule leaves no job in the queue and no process."""
    schedule = begin(away)
    schedule.send_signal(signal.SIGTERM)
    assert schedule.wait() != 0
    assert cluster.jobs() == []
    assert away.left() == {}


def kill_the_controller(cluster, away):
    """Slurm's controller is gone for a moment while jobs run; they go on, and it finds them again."""
    schedule = begin(away)
    cluster.stop("slurmctld", signal.SIGKILL)
    assert away.kernels()
    assert cluster.jobs() == []  # nobody answers
    cluster.start("slurmctld")
    assert cluster.jobs() != []
    assert schedule.wait() == 0, said_by(away)


def test_the_profile_for_a_cluster_asks_for_what_a_stage_needs(cluster, tmp_path):
    """On a node that is down, so that the jobs wait and can be looked at."""
    away = course(tmp_path, "paper", render=False, data_root=str(tmp_path / "clips"), stages=["04a"], smoke=False)
    schedule = away.start("--workflow-profile", "notebooks/profiles/slurm", *on_slurm(away)[4:8])
    assert until(lambda: len(cluster.jobs("pending")) == 2 or schedule.poll() is not None), said_by(away)
    told = said("scontrol", "show", "job", cluster.jobs()[0])
    schedule.send_signal(signal.SIGTERM)
    for asked in ("Partition=a100", "Account=expstar", "NumNodes=1", "NumCPUs=32", "CPUs/Task=32", "MinMemoryNode=256G",
                  "TimeLimit=1-00:00:00", "gpu:a100:4"):
        assert asked in told, told
    assert schedule.wait() != 0
    assert cluster.jobs() == []


@long
def test_a_killed_command_leaves_jobs_that_the_next_one_cancels(cluster, local, profile, tmp_path):
    away = course(tmp_path, profile, render=False, data_root=local.plan["data_root"])
    schedule = begin(away)
    schedule.kill()
    schedule.wait()
    left = cluster.jobs()
    assert left
    told = away.finish(*on_slurm(away))
    assert all(f"Slurm's job {number} was left by a command that was killed" in told for number in left)
    assert away.results().items() <= local.results().items()


@long
@pytest.mark.timeout(3600)
def test_every_stage_of_the_smoke_plan_gives_on_slurm_what_it_gives_here(cluster, tmp_path):
    here, away = Course(tmp_path / "here"), Course(tmp_path / "away")
    here.finish("--cores", "2")
    away.finish(*on_slurm(away))
    assert len(away.results()) > 25
    assert away.results() == here.results()


@long
def test_the_scripts_train_and_two_launchers_learn_what_one_does(cluster, tmp_path):
    """Two processes of a CPU: below one launcher, and below one each in two tasks of Slurm."""
    for name, machines in (("one", 1), ("two", 2)):
        profile = load_profile("tiny", processes=2, machines=machines, warm_start=[], caption_epochs=0, caption_tower=False,
                               choice_rounds=0, lora_r=4)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(profile.model_dump(mode="json")), encoding="utf8")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    away = Course(tmp_path, runs={one: {"profile": f"{one}.yaml"}, two: {"profile": f"{two}.yaml", "shares": one}},
                  stages=["02", "03", "04a"])
    away.finish("--cores", "2", f"{one}/jobs/03.rows.json", f"{one}/jobs/03.tower.json")
    for name, tasks, cores, script in (("one", 1, 2, "train_one_node.sh"), ("two", 2, 1, "train_two_nodes.sh")):
        words = [f"--ntasks={tasks}", f"--ntasks-per-node={tasks}", f"--cpus-per-task={cores}", "--nodes=1", "--mem=4G",
                 "--gpus-per-node=0", f"--output={tmp_path}/{name}.log", f"notebooks/profiles/slurm/{script}"]
        done = subprocess.run(["sbatch", "--wait", *words, str(away.plan_file), f"{tmp_path}/{name}/jobs/04a.json"], cwd=ROOT,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + (tmp_path / f"{name}.log").read_text(errors="replace")[-6000:]
    learned = [load_file(tmp_path / name / "4_sft" / "adapter" / "adapter_model.safetensors") for name in ("one", "two")]
    assert any(tensor.any() for name, tensor in learned[0].items() if "lora_B" in name)  # 0 before the first step
    for name, tensor in learned[0].items():
        torch.testing.assert_close(learned[1][name].float(), tensor.float(), rtol=2e-2, atol=5e-5)


KERNEL = """
import sys
sys.path[:0] = ["tests", "."]
from pathlib import Path
from test_launching import launching, ragged, setting
base, root, folder, machines, accelerate = sys.argv[1:]
profile = setting(Path(base), batch_size=1, processes=2, machines=int(machines), sft_epochs=6, accelerate=accelerate)
launching.train("sft", (None, None), launching.Start(), 2 * ragged()[:8], Path(root), profile, Path(folder))
"""


@long
@pytest.mark.parametrize("accelerate", ["ddp", "zero2"])
def test_a_launcher_in_each_of_two_tasks_learns_what_one_launcher_does(cluster, root, tmp_path, accelerate):
    base, losses = MINIATURES["qwen2_5_vl"](tmp_path / "base"), []
    for machines in (1, 2):
        folder, log = tmp_path / str(machines), tmp_path / f"{machines}.log"
        words = [sys.executable, "-c", KERNEL, str(base), str(root), str(folder), str(machines), accelerate]
        done = subprocess.run(["sbatch", "--wait", f"--ntasks={machines}", "--nodes=1", "--mem=4G", f"--output={log}",
                               f"--wrap={shlex.join(words)}"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + log.read_text(errors="replace")[-6000:]
        losses.append([row.loss for row in read_jsonl(folder / "log.jsonl", Record)])
    assert len(losses[0]) >= 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)

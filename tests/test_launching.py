"""Training in several processes: what one process learns from the same batches; all of them end when they must."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from small_runs import COMPILER, small_profile
from test_packing import ragged
from test_preferences import pairs

from expstar_utils import launching
from expstar_utils.files import read_jsonl
from expstar_utils.miniatures import MINIATURES
from expstar_utils.profiles import FOLDER, load_profile
from expstar_utils.records import ExpStarError, Record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from disturbed import long  # noqa: E402


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder of the miniature of the paper's family."""
    return MINIATURES["qwen2_5_vl"](tmp_path_factory.mktemp("base") / "qwen2_5_vl")


def setting(base, **changes):
    """Four rows a step, from one process or two; dropouts of chance are off."""
    return small_profile(base, **{"packed": True, "max_length": 4000, "sft_lr": 1e-2, "batch_size": 4, "sft_epochs": 2} | changes)


def losses(folder):
    if not (folder / "log.jsonl").is_file():
        return []
    return [row.loss for row in read_jsonl(folder / "log.jsonl", Record)]


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def trained(kind, base, root, folder, samples, tuned=None, **changes):
    """Losses and adapter of a training, in this process or as many as `changes` say."""
    torch.manual_seed(0)
    profile, start = setting(base, **changes), launching.Start(tuned)
    launching.train(kind, launching.load(kind, start, profile), start, samples, root, profile, folder)
    return losses(folder), weights(folder)


@pytest.fixture(scope="module")
def tuned(small, root, tmp_path_factory):
    """An adapter to start DPO from."""
    folder = tmp_path_factory.mktemp("tuned")
    trained("sft", small, root, folder, ragged())
    return folder / "adapter"


SFT, DPO, FURTHER = {"sft_epochs": 5}, {"dpo": {"lr": 1e-2, "epochs": 3}}, {"dpo": {"lr": 1e-3, "epochs": 3, "further": True}}
SHARED_OUT = {"zero2": "global_step*/zero_pp_rank_1_*", "fsdp": "pytorch_model_fsdp.bin"}  # what a checkpoint has where it was


@pytest.mark.parametrize(("kind", "more"), [
    ("sft", SFT), ("sft", SFT | {"warm_start": ["merger"], "warm_start_lr": 1e-3}),
    ("dpo", DPO), ("dpo", FURTHER), ("dpo", FURTHER | {"accelerate": "fsdp"}),
    pytest.param("sft", SFT | {"accelerate": "zero2"}, marks=COMPILER),
    pytest.param("dpo", DPO | {"accelerate": "zero2"}, marks=[COMPILER, long]),
    pytest.param("sft", SFT | {"compiled": True}, marks=COMPILER),
    pytest.param("dpo", FURTHER | {"accelerate": "fsdp", "compiled": True}, marks=[COMPILER, long]),
    pytest.param("sft", SFT | {"accelerate": "zero2", "compiled": True}, marks=[COMPILER, long])])
def test_two_processes_learn_what_one_does(small, root, tuned, tmp_path, monkeypatch, kind, more):
    """However the optimiser's state or the weights are shared out."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "as_gpus"))
    samples = 2 * ragged()[:8] if kind == "sft" else 2 * pairs()
    start = None if kind == "sft" else tuned
    one = trained(kind, small, root, tmp_path / "one", samples, start, batch_size=2, **more)
    two = trained(kind, small, root, tmp_path / "two", samples, start, batch_size=1, processes=2, **more)
    assert list((tmp_path / "two" / "checkpoints").glob(f"checkpoint-*/{SHARED_OUT.get(more.get('accelerate'), 'optimizer.pt')}"))
    assert len(one[0]) == len(two[0]) >= 2
    assert two[0] == pytest.approx(one[0], rel=1e-3)
    assert one[1].keys() == two[1].keys()
    for name, tensor in one[1].items():
        torch.testing.assert_close(two[1][name].float(), tensor.float(), rtol=2e-2, atol=2e-3)


def test_a_process_says_why_it_stopped(small, root, tmp_path):
    with pytest.raises(ExpStarError, match="found no row to train on, expected one of at most 20 tokens"):
        trained("sft", small, root, tmp_path, ragged(), processes=2, max_length=20)


def test_a_launcher_that_ends_before_its_processes_are_done_is_no_success():
    said = f"print({launching.DONE!r})"
    launching._run([sys.executable, "-c", f"{said}\n{said}"], 2)
    with pytest.raises(ExpStarError, match="1 of 2 processes came to their end .status 0."):
        launching._run([sys.executable, "-c", said], 2)


def test_what_a_process_says_stands_on_a_line_of_its_own_beside_the_others_bars():
    bar_and_word = "sys.stderr.write('\\r 10%|#'); launching._say(launching.DONE)"
    launching._run([sys.executable, "-c", f"import sys; from expstar_utils import launching; {bar_and_word}; {bar_and_word}"], 2)


KERNEL = """
import sys
sys.path[:0] = ["tests", "."]
from pathlib import Path
from test_launching import launching, ragged, setting
base, root, folder, accelerate = sys.argv[1:]
profile = setting(Path(base), batch_size=1, processes=2, sft_epochs=6, accelerate=accelerate)
launching.train("sft", (None, None), launching.Start(), 2 * ragged()[:8], Path(root), profile, Path(folder))
"""


def mentioning(folder):
    """Numbers of the processes that have this folder in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to look for processes")
@pytest.mark.parametrize("accelerate", ["ddp", pytest.param("zero2", marks=[COMPILER, long])])
def test_a_killed_kernel_takes_its_processes_along_and_training_goes_on(small, root, tmp_path, accelerate):
    whole = trained("sft", small, root, tmp_path / "whole", 2 * ragged()[:8], batch_size=2, sft_epochs=6)
    words = [sys.executable, "-c", KERNEL, str(small), str(root), str(tmp_path / "cut"), accelerate]
    kernel = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(losses(tmp_path / "cut")) >= 1)
    kernel.kill()
    kernel.wait()
    wait_for(lambda: not mentioning(tmp_path / "cut"))
    assert not (tmp_path / "cut" / "adapter").exists()
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    assert len(losses(tmp_path / "cut")) == len(whole[0])  # a loss that was cut is the mean of the steps behind the cut
    for name, tensor in whole[1].items():
        torch.testing.assert_close(weights(tmp_path / "cut")[name].float(), tensor.float(), rtol=2e-2, atol=2e-3)


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["ddp", "zero2", "fsdp"])
def test_accelerate_reads_the_files(name):
    config = load_config_from_file(str(FOLDER / "accelerate" / f"{name}.yaml"))
    assert config.num_processes >= 2
    assert config.distributed_type == {"ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "fsdp": "FSDP"}[name]
    if name == "zero2":  # the stock launcher of DeepSpeed would go to other machines by itself, which srun did already
        assert config.deepspeed_config["deepspeed_multinode_launcher"] == "standard"


def test_a_profile_names_what_it_runs_with(tmp_path):
    words = launching.command(load_profile("paper"), tmp_path / "job.json")
    assert words[words.index("--num_processes") + 1] == "4"
    assert Path(words[words.index("--config_file") + 1]).name == "zero2.yaml"


def test_several_machines_need_a_task_of_slurm_on_each(tmp_path, monkeypatch):
    profile = load_profile("paper", processes=8, machines=2)
    for tasks in ("none", "1"):
        monkeypatch.setenv("SLURM_NTASKS", tasks) if tasks != "none" else monkeypatch.delenv("SLURM_NTASKS", raising=False)
        with pytest.raises(ExpStarError, match=f"machines is 2, found a Slurm job of {tasks} tasks, expected one on each"):
            launching.command(profile, tmp_path / "job.json")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    *words, line = launching.command(profile, tmp_path / "a job.json")
    assert words[:3] == ["srun", "--ntasks", "2"]
    assert '--num_machines 2' in line
    assert "'" + str(tmp_path / "a job.json") + "'" in line
    with pytest.raises(ExpStarError, match="processes 3 do not share out evenly among machines 2"):
        load_profile("paper", processes=3, machines=2)


def test_dpo_needs_where_to_start_from(small, root, tmp_path):
    with pytest.raises(ExpStarError, match="found no tuned adapter to start from"):
        launching.train("dpo", (None, None), launching.Start(), pairs(), root, setting(small), tmp_path)

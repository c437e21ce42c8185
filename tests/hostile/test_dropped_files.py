"""Files beside the data, in a run or in an adapter's folder are not unpickled, imported or run; other weights are refused."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_data import Payload, drop, one_sentence, pickled, source, torch_archive
from inspected_run import three_steps
from small_runs import small_profile

from expstar_utils import knowledge, models, pairs, tower
from expstar_utils.adapters import lora, save_adapter
from expstar_utils.clips import clip_frames
from expstar_utils.datasets import read_cases
from expstar_utils.encoders import TextEncoder
from expstar_utils.evaclip import load_evaclip
from expstar_utils.evaluation_rows import read_pairs
from expstar_utils.inspector.cases import Casebook
from expstar_utils.inspector.widgets import Inspector
from expstar_utils.miniatures import MINIATURES, noise_clip
from expstar_utils.records import ExpStarError, Sample
from expstar_utils.runlog import Stage
from expstar_utils.shards import StoredPassages
from expstar_utils.sources import documents
from expstar_utils.training import train_sft
from expstar_utils.viclip import ViclipConfig, load_viclip

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "expstar_utils").rglob("*.py"))


@pytest.fixture
def mark(tmp_path):
    """A file that must not be there at the end."""
    path = tmp_path / "taken"
    yield path
    assert not path.exists(), "something of the data was run"


def test_the_payloads_work(tmp_path):
    """Else the others would prove nothing."""
    mark = tmp_path / "mark"
    pickle.loads(pickled(mark))
    assert mark.exists()
    mark.unlink()
    torch.load(torch_archive(mark, tmp_path / "x.pt"), weights_only=False)
    assert mark.exists()
    mark.unlink()
    drop(tmp_path / "drop", mark)
    env = os.environ | {"PYTHONPATH": str(tmp_path / "drop")}
    subprocess.run([sys.executable, "-c", "pass"], env=env, check=False)
    assert mark.exists()  # sitecustomize
    mark.unlink()
    subprocess.run(["git", "-C", str(tmp_path / "drop"), "status"], capture_output=True, check=False)
    assert mark.exists()  # core.fsmonitor


# Data and runs


def test_reading_data_runs_nothing(mark, tmp_path, monkeypatch):
    """Notebooks 01 to 03, 06 and 08, with such files at every level, and the data as the working folder."""
    run = three_steps(tmp_path)
    raw = tmp_path / "raw"
    noise_clip(raw / "source_video" / "c" / "01-x.mp4", 2)
    for kind, content in (
        ("step", {"title_zh": "x", "steps": [{"step": 1, "startTime": 0, "endTime": 1, "ASR_id": [1]}]}),
        ("asr", {"subtitles": [{"id": 1, "startTime": 0, "endTime": 1, "text_en": "x"}]}),
    ):
        (raw / "dataset" / "c" / kind).mkdir(parents=True)
        (raw / "dataset" / "c" / kind / "01-x.json").write_text(json.dumps(content))
    base = tmp_path / "kb"
    base.mkdir()
    (base / "a.jsonl").write_text('{"id": "1", "text": "x"}\n')
    (base / "a.md").write_text("# x\n\nA note.\n")
    for folder in (
        run,
        run / "2_datasets",
        run / "5_predictions",
        run / "8_ratings",
        tmp_path / "films",
        raw,
        raw / "source_video" / "c",
        raw / "dataset" / "c" / "step",
        base,
    ):
        drop(folder, mark)
    monkeypatch.chdir(raw)
    found, problems = pairs.find_experiments(raw)
    problems += pairs.build_pairs(found, raw, run / "1_pairs")
    drop(run / "1_pairs" / "c", mark)
    cases = list(read_cases(run / "1_pairs"))
    assert len(cases) == 1
    assert not problems
    assert len(clip_frames(cases[0].clip, raw / "source_video", fps=1, max_frames=1, cache=run / "frames").pixels) == 1
    assert len(knowledge.load_knowledge(base)) == 1
    assert [d.id for d in documents(base, problems.append)] == ["a.md"]
    assert read_pairs(run / "5_predictions" / "good.jsonl")[0]
    inspector = Inspector(Casebook([run]), tmp_path / "films", run / "8_ratings", rater="x")
    inspector.load_film()
    assert Stage("6_metrics", run).finish()["git_sha"]
    one_sentence(lambda: StoredPassages(run))


def test_a_program_started_elsewhere_imports_nothing_from_the_data(mark, tmp_path):
    """A process of its own reads such a folder; none of its files is on the path."""
    three_steps(tmp_path)
    drop(tmp_path / "run", mark)
    drop(tmp_path / "run" / "5_predictions", mark)
    run = str(tmp_path / "run")
    code = f"from pathlib import Path\nfrom expstar_utils.inspector.cases import Casebook\nCasebook([Path({run!r})])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kept_frames_are_never_unpickled(mark, tmp_path):
    """A file in the cache that was put there by another: the frames are read anew."""
    noise_clip(tmp_path / "x.mp4", 2)
    how = {"fps": 1, "max_frames": 2, "cache": tmp_path / "cache"}
    frames = clip_frames("x.mp4", tmp_path, **how)
    [kept] = (tmp_path / "cache").rglob("*.npz")
    for evil in (np.array([Payload(mark)], dtype=object),):
        np.savez(kept, pixels=evil, times_s=evil, indices=evil, span_s=evil)
        assert np.array_equal(clip_frames("x.mp4", tmp_path, **how).pixels, frames.pixels)
    kept.write_bytes(pickled(mark))
    assert np.array_equal(clip_frames("x.mp4", tmp_path, **how).pixels, frames.pixels)


# Models


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return MINIATURES["smolvlm"](tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter(base, tmp_path):
    """A trained adapter's folder."""
    from peft import get_peft_model

    model, _ = models.load(str(base))
    profile = small_profile(base)
    return save_adapter(get_peft_model(model, lora(profile, model)), tmp_path / "adapter", str(base))


def rewritten(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_lies_beside_an_adapter_or_a_base_is_not_loaded(base, adapter, mark, tmp_path):
    copy = shutil.copytree(base, tmp_path / "copy")
    rewritten(adapter / "adapter_config.json", base_model_name_or_path=str(copy))
    drop(adapter, mark)
    drop(copy, mark)
    for trainable in (False, True):
        assert models.load(str(copy), adapter, merge=not trainable)[0] is not None


def test_an_adapter_in_a_pickle_is_refused(base, adapter, mark):
    (adapter / "adapter_model.safetensors").unlink()
    torch_archive(mark, adapter / "adapter_model.bin")
    one_sentence(lambda: models.load(str(base), adapter), "adapter_model.safetensors", "convert")


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"peft_type": "../x"},
        {"peft_type": None},
        {"megatron_config": {"x": 1}, "megatron_core": "modeling_evil"},
    ],
)
def test_an_adapter_of_another_kind_is_refused(base, adapter, changes, mark, monkeypatch):
    """Other kinds load tokenizers or import modules that their settings name."""
    (adapter / "modeling_evil.py").write_text(source(mark))
    monkeypatch.syspath_prepend(adapter)
    rewritten(adapter / "adapter_config.json", **changes)
    one_sentence(lambda: models.load(str(base), adapter), "LoRA")


def test_a_base_in_a_pickle_is_refused(base, mark, tmp_path):
    copy = shutil.copytree(base, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    torch_archive(mark, copy / "pytorch_model.bin")
    one_sentence(lambda: models.load(str(copy)), "safetensors", "convert")


def test_code_that_comes_with_a_base_is_not_run(base, mark, tmp_path):
    """`auto_map` names it in every file of settings; nobody is asked, and the family's own class is taken."""
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "evil.py").write_text(source(mark) + "class Evil: pass\n")
    kinds = (
        "AutoConfig",
        "AutoModel",
        "AutoModelForImageTextToText",
        "AutoProcessor",
        "AutoTokenizer",
        "AutoImageProcessor",
        "AutoVideoProcessor",
    )
    for name in (
        "config.json",
        "processor_config.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    ):
        if (copy / name).is_file():
            rewritten(copy / name, auto_map=dict.fromkeys(kinds, "evil.Evil"))
    assert type(models.load(str(copy))[0]).__name__ == "SmolVLMForConditionalGeneration"
    rewritten(copy / "config.json", model_type="evil")
    with pytest.raises((ValueError, ExpStarError)):
        models.load(str(copy))


def test_code_that_comes_with_an_encoder_is_not_run(mark, tmp_path, monkeypatch):
    (tmp_path / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    (tmp_path / "config_sentence_transformers.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "evil.py").write_text(source(mark) + "class Evil: pass\n")
    with pytest.raises(Exception, match="."):  # noqa: B017, PT011  (of the library)
        TextEncoder(str(tmp_path))


def test_weights_of_towers_and_encoders_are_not_unpickled(mark, tmp_path):
    evil = torch_archive(mark, tmp_path / "tower.safetensors")
    with pytest.raises(Exception, match="."):  # noqa: B017, PT011  (safetensors' own)
        tower.load_tower(evil)
    one_sentence(lambda: load_viclip(torch_archive(mark, tmp_path / "x.pth"), ViclipConfig()), "x.pth")
    (tmp_path / "eva").mkdir()
    torch_archive(mark, tmp_path / "eva" / "pytorch_model.bin")
    (tmp_path / "eva" / "config.json").write_text("{}")
    with pytest.raises(Exception, match="."):  # noqa: B017, PT011
        load_evaclip(tmp_path / "eva", torch.float32)


def test_a_checkpoint_that_was_exchanged_is_not_run(base, mark, tmp_path):
    """A training goes on from its run folder: what optimiser, scheduler and chance left there is read as tensors alone."""
    noise_clip(tmp_path / "x.mp4", 2)
    messages = [{"role": "user", "content": "<video>x"}, {"role": "assistant", "content": "<Narration>\nx\n"}]
    samples = [Sample.model_validate({"id": str(i), "messages": messages, "videos": ["x.mp4"]}) for i in range(4)]

    def train(steps: int) -> None:
        train_sft(
            *models.load(str(base)),
            samples,
            tmp_path,
            small_profile(base, sft_epochs=4),
            tmp_path / "4_sft",
            str(base),
            42,
            steps,
        )

    train(1)
    [checkpoint] = (tmp_path / "4_sft").rglob("checkpoint-1")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        assert (checkpoint / name).is_file()
        torch_archive(mark, checkpoint / name)
    shutil.rmtree(tmp_path / "4_sft" / "adapter")
    with suppress(pickle.UnpicklingError, RuntimeError):
        train(2)


# The code itself


def calls() -> list[tuple[str, str, dict[str, str]]]:
    """(file, function, named arguments) of every call in the package."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.unparse(n.func), {k.arg or "**": ast.unparse(k.value) for k in n.keywords})
        for path in MODULES
        for n in ast.walk(ast.parse(path.read_text("utf8")))
        if isinstance(n, ast.Call)
    ]


def test_no_code_unpickles_or_runs_text():
    imported = {
        (path.name, alias.name.split(".")[0])
        for path in MODULES
        for n in ast.walk(ast.parse(path.read_text("utf8")))
        if isinstance(n, ast.Import | ast.ImportFrom)
        for alias in (n.names if isinstance(n, ast.Import) else [ast.alias(n.module or "")])
    }
    assert not [
        i for i in imported if i[1] in ("pickle", "marshal", "shelve", "dill", "joblib", "runpy", "code", "zipimport", "imp")
    ]
    for file, function, named in calls():
        assert function not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle"), file
        assert named.get("shell", "False") == "False", file
        assert named.get("trust_remote_code", "False") == "False", file
        if function == "torch.load":
            assert named.get("weights_only") == "True", file
        if function in ("np.load", "numpy.load"):
            assert named.get("allow_pickle", "False") == "False", file
    assert {file for file, function, _ in calls() if function.endswith("import_module")} <= {
        "expstar_utils/mini/sprites/__init__.py"
    }
    assert not {file for file, function, _ in calls() if function.endswith((".extractall", "unpack_archive"))}


def test_notebooks_neither():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        code = "\n".join("".join(c["source"]) for c in json.loads(path.read_text("utf8"))["cells"] if c["cell_type"] == "code")
        assert not [
            w
            for w in ("pickle", "trust_remote_code", "weights_only=False", "allow_pickle", "eval(", "exec(", "shell=")
            if w in code
        ]

"""What libraries write, on a full disk: one sentence, the old file as it was, and training that goes on when there is room."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import leave, small_disk
from safetensors.torch import load_file
from small_runs import noise_clips, small_profile

from expstar_utils import models, nearest, retrieval, tabular, tower_training
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.miniatures import MINIATURES
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Message, Sample
from expstar_utils.tower import Tower, save_tower
from expstar_utils.training import last_whole_checkpoint, train_sft

FULL = r"^{disk}/.* cannot be written \(.*(No space left on device|Error|could not|write).*\); free space or choose another"


@pytest.fixture
def disk(tmp_path):
    """A disk that holds one old file of each kind, with 64 KiB free."""
    old = tmp_path / "old"
    old.mkdir()
    for name in ("tower.safetensors", "checkpoint.pt", "rows.parquet", "ann.index"):
        (old / name).write_bytes(b"old")
    with small_disk(tmp_path / "disk", old) as made:
        leave(made, 2**16)
        yield made


def sample(text: str) -> Sample:
    """A row that cannot be made much smaller."""
    return Sample(id="a_1", messages=[Message(role="user", content=text)], videos=["a.mp4"])


def parquet(path: Path) -> None:
    """A table of 400 kB that compression leaves so."""
    texts = ["".join(hashlib.sha256(f"{i} {n}".encode()).hexdigest() for n in range(200)) for i in range(60)]
    tabular.write_parquet(path, map(sample, texts))


def checkpoint(path: Path) -> None:
    """A tower's checkpoint, as training leaves it."""
    tower = Tower()
    optimizer = torch.optim.AdamW(tower.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    tower_training._save(path, tower, torch.nn.Parameter(torch.zeros(())), optimizer, schedule, 1)


WRITERS = {"tower.safetensors": lambda path: save_tower(Tower(), path), "checkpoint.pt": checkpoint, "rows.parquet": parquet}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_library_writes_is_there_as_a_whole_or_not(disk, name):
    before = {path: path.read_bytes() for path in disk.iterdir()}
    with pytest.raises(ExpStarError, match=FULL.format(disk=disk)) as error:
        WRITERS[name](disk / name)
    assert len(str(error.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in disk.iterdir()} == before
    leave(disk, 2**28)
    WRITERS[name](disk / name)
    assert (disk / name).stat().st_size > 2**16


def test_an_index_and_its_vectors(disk, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with pytest.raises(ExpStarError, match="free space or choose another"):
        nearest.build(vectors, disk, "e", "0" * 64, kind="hnsw")
    assert sorted(path.name for path in disk.iterdir()) == ["ann.index", "checkpoint.pt", "rows.parquet", "tower.safetensors"]

    class Encoder:
        """Vectors of noise."""

        name = "e"

        def encode_texts(self, texts):
            """One for each text."""
            return vectors[:len(texts)]
    monkeypatch.setattr(retrieval.weights, "cache_folder", lambda: disk)
    passages = [type("P", (), {"id": str(i), "title": "t", "text": str(i)})() for i in range(600)]
    monkeypatch.setattr(retrieval, "content_hash", lambda _: "0")
    with pytest.raises(ExpStarError, match=FULL.format(disk=disk)):
        retrieval.passage_vectors(passages, Encoder())


@pytest.fixture
def train(tmp_path):
    """Function (folder, steps): weights after so many steps with a checkpoint at each."""
    torch.set_num_threads(1)
    base, clips = MINIATURES["smolvlm"](tmp_path / "base"), noise_clips(tmp_path / "clips", [1, 2])
    cases = [Case(id=f"a_{n}", experiment=f"a/{n}", subject="a", title="T", step_number=1, clip=f"{n}.mp4", summary="s",
                  narration=[f"Salt {n} glows."]) for n in range(2)]
    rows = [expstar_sample(case, [], load_prompts()) for case in cases]

    def trained(folder: Path, steps: int = 4) -> dict[str, torch.Tensor]:
        """One training."""
        model, processor = models.load(str(base))
        adapter = train_sft(model, processor, rows, clips, small_profile(base), folder, str(base), max_steps=steps)
        return load_file(adapter / "adapter_model.safetensors")
    return trained


def test_a_training_under_a_clock_that_went_back_keeps_its_last_checkpoint(train, tmp_path):
    train(tmp_path / "run", 2)
    for path in [*(tmp_path / "run").rglob("*")]:
        os.utime(path, (time.time() + 10**7,) * 2)
    train(tmp_path / "run", 4)
    assert last_whole_checkpoint(tmp_path / "run" / "checkpoints") == str(tmp_path / "run" / "checkpoints" / "checkpoint-4")


def test_a_training_whose_checkpoint_finds_no_room_goes_on_later(train, tmp_path):
    wanted = train(tmp_path / "whole")
    size = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", tmp_path / "clips") as disk:
        leave(disk, size * 2 // 3)
        with pytest.raises(ExpStarError, match=FULL.format(disk=disk)):
            train(disk)
        assert not list(disk.rglob("base.json"))
        leave(disk, 2**28)
        found = train(disk)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())

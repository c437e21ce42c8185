"""Assembly of ExpStar-Tiny: one folder in the cache, whoever comes first."""

import os
import time
from pathlib import Path

import pytest

from expstar_utils import models
from expstar_utils.records import ExpStarError


class Assembled:
    """Stands for model and processor: writes a file, and may meet another process that was faster."""

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        self.meanwhile()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path))
    return tmp_path


def test_another_process_that_was_faster_is_no_error(cache, monkeypatch):
    monkeypatch.setattr(models, "assemble_tiny", lambda _: (Assembled(), Assembled()))
    target = models.assembled_tiny()
    assert list(cache.glob("expstar-tiny-*")) == [target]
    for path in target.iterdir():
        path.unlink()
    target.rmdir()

    def other() -> None:
        target.mkdir(exist_ok=True)
        (target / "config.json").write_text("the other's")
    monkeypatch.setattr(models, "assemble_tiny", lambda _: (Assembled(), Assembled(other)))
    assert models.assembled_tiny() == target
    assert (target / "config.json").read_text() == "the other's"
    assert [p for p in cache.iterdir() if p != target] == []


def test_models_that_nobody_used_for_days_leave_the_cache(cache, monkeypatch):
    monkeypatch.setattr(models, "assemble_tiny", lambda _: (Assembled(), Assembled()))
    for name, age_s in (("expstar-tiny-old", 2 * models.UNUSED_S), ("expstar-tiny-recent", models.UNUSED_S / 2)):
        (cache / name).mkdir()
        (cache / name / "config.json").write_text("{}")
        os.utime(cache / name, (time.time() - age_s,) * 2)
    target = models.assembled_tiny()
    assert sorted(path.name for path in cache.iterdir()) == sorted(["expstar-tiny-recent", target.name])
    os.utime(target, (5, 5))
    models.assembled_tiny()
    assert time.time() - target.stat().st_mtime < 60


def test_a_folder_that_cannot_be_put_in_its_place_is_an_error(cache, monkeypatch):
    monkeypatch.setattr(models, "assemble_tiny", lambda _: (Assembled(), Assembled()))
    monkeypatch.setattr(models.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        models.assembled_tiny()


def test_a_run_is_used_with_its_newest_adapter_unless_one_is_named(tmp_path):
    assert models.tuned_adapter(tmp_path) == models.tuned_adapter(tmp_path, "sft") == models.SHIPPED / "adapter"
    assert models.tuned_adapter(tmp_path, "some/folder") == Path("some/folder")
    for name in ("dpo", "baseline"):
        with pytest.raises(ExpStarError, match="no adapter there, expected that of notebook 04"):
            models.tuned_adapter(tmp_path, name)
    for stage in ("4_sft", "4_dpo", "4_sft_baseline"):
        (tmp_path / stage / "adapter").mkdir(parents=True)
        (tmp_path / stage / "adapter/base.json").write_text("{}")
    assert [models.tuned_adapter(tmp_path, name).parent.name for name in ("", "sft", "dpo", "baseline")] == [
        "4_dpo", "4_sft", "4_dpo", "4_sft_baseline"]


def test_a_tower_trained_with_captions_comes_before_the_retrievers(tmp_path):
    assert models.tuned_tower(tmp_path) is None
    for stage in ("3_index", "4_sft"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "tower.safetensors").write_bytes(b"")
        assert models.tuned_tower(tmp_path) == tmp_path / stage / "tower.safetensors"

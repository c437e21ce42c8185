"""Weights are shipped whole, small enough, and with a card that says where they came from."""

import pytest

from expstar_utils.card import ship
from expstar_utils.files import write_json
from expstar_utils.records import ExpStarError

SFT = {"parameters": {"seed": 7}, "git_sha": "abc123", "total_s": 3600, "metrics": {"rows": 11, "data_sha256": "d" * 64},
       "packages": {"torch": "2.14", "transformers": "5.23", "trl": "1.16", "peft": "0.21"}}
INDEX = {"total_s": 60, "metrics": {"passages": 496, "content_sha256": "e" * 64}}
RESULTS = {"metrics": {"reports": {"test-free-adaptive": {"steps": 210.0, "principle": 0.7125}}}}


@pytest.fixture
def run(tmp_path):
    for stage, record in {"2_datasets": {}, "3_index": INDEX, "4_sft": SFT, "6_metrics": RESULTS}.items():
        write_json(tmp_path / "run" / stage / "metrics.json", record)
    (tmp_path / "run/4_sft/adapter").mkdir()
    for name in ("3_index/tower.safetensors", "4_sft/adapter/adapter_model.safetensors", "4_sft/adapter/adapter_config.json"):
        (tmp_path / "run" / name).write_bytes(b"weights of " + name.encode())
    return tmp_path / "run"


def test_card_says_what_made_the_weights(run, tmp_path):
    folder = ship(run, tmp_path / "shipped")
    card = (folder / "README.md").read_text(encoding="utf8")
    for said in ("| seed | 7 |", "abc123", "11, sha256 dddddddddddddddd", "496 passages", "SFT 60", "| 210 | 0.713 |"):
        assert said in card
    assert "| `make reproduce PLAN=whole`, then `make ship RUN=runs/whole` |" in card
    assert "told variants" not in card
    its = SFT["metrics"] | {"told_principle": 0.5, "told_safety": 0.75}
    write_json(run / "4_sft/metrics.json", SFT | {"parameters": {"seed": 7, "start": "weights"}, "metrics": its})
    further = (ship(run, tmp_path / "shipped") / "README.md").read_text(encoding="utf8")
    assert "| `04a_train_sft` with `start`, from weights shipped earlier" in further
    assert "SFT 60 since those" in further
    assert "right to the word | principle 0.500, safety 0.750 |" in further
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes().endswith(b"adapter_model.safetensors")
    assert (folder / "tower.safetensors").is_file()


def test_the_adapter_of_a_stage_goes_by_its_name(run, tmp_path):
    (run / "4_dpo/adapter").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (run / "4_dpo/adapter" / name).write_bytes(b"preferred")
    assert (ship(run, tmp_path / "a", "dpo") / "adapter/adapter_model.safetensors").read_bytes() == b"preferred"
    assert (ship(run, tmp_path / "b") / "adapter/adapter_model.safetensors").read_bytes() != b"preferred"


def test_unfinished_run_is_not_shipped(run, tmp_path):
    (run / "6_metrics/metrics.json").unlink()
    with pytest.raises(ExpStarError, match=r"6_metrics/metrics\.json: no such file"):
        ship(run, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_too_heavy_weights_are_not_shipped(run, tmp_path):
    with open(run / "3_index/tower.safetensors", "wb") as file:
        file.truncate(26_000_000)
    with pytest.raises(ExpStarError, match=r"26\.0 MB, expected at most 25 MB"):
        ship(run, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()

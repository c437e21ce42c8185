"""`make demo`: real video in, commentary out; bad input gets one sentence on stderr and exit status 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from expstar_utils import quickstart
from expstar_utils.files import read_json
from expstar_utils.models import SHIPPED

ROOT = Path(__file__).parents[1]
PUBLISHED = next((ROOT.parent / "shared" / "expstar_demo" / "1data").glob("*.mp4"), None)
SAMPLES = ROOT / "data" / "sample"
needs_weights = pytest.mark.skipif(not SHIPPED.is_dir(), reason="data/models/expstar-tiny is not there yet")


def demo(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "expstar_utils.quickstart", *words], capture_output=True, text=True,
                          cwd=ROOT, env=os.environ | environment, check=False)


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("expstar: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in last


@pytest.fixture
def here(capfd):
    """As `demo`, in this process: seconds less where it ends before a model is loaded."""
    def called(*words: str) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(words, quickstart.main(words), *capfd.readouterr())
    return called


@pytest.fixture
def bad(tmp_path) -> dict[str, Path]:
    whole = (SAMPLES / "burning_a_gas.mp4").read_bytes()
    contents = {"empty": b"", "text": b"no video at all\n" * 50, "truncated": whole[: len(whole) // 3],
                "picture": bytes.fromhex("89504e470d0a1a0a") + b"\0" * 64}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    return {name: tmp_path / f"{name}.mp4" for name in (*contents, "missing")}


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "picture", "missing"])
def test_what_is_no_video_is_named(bad, here, kind):
    refused(here(str(bad[kind]), "A title"), f"{kind}.mp4", "expected")


def test_the_command_says_so_too(bad):
    refused(demo(str(bad["truncated"]), "A title"), "truncated.mp4", "expected")


@pytest.mark.parametrize("title", ["", "   ", "x" * 10_000])
def test_title_must_be_a_title(here, title):
    refused(here(str(SAMPLES / "burning_a_gas.mp4"), title), "title", "characters")


def test_unknown_profile_key_is_named(here, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text((ROOT / "notebooks/profiles/tiny.yaml").read_text() + "learning_rat: 1\n")
    refused(here(str(SAMPLES / "burning_a_gas.mp4"), "A title", "--profile", str(path)), "learning_rat")


def test_weights_missing_offline_says_what_helps(tmp_path):
    done = demo(str(SAMPLES / "burning_a_gas.mp4"), "A title", EXPSTAR_CACHE=str(tmp_path), HF_HUB_OFFLINE="1", PIP_NO_INDEX="1",
                PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull, HF_HOME=str(tmp_path / "hf"))
    refused(done, "no weights", "three things")


@needs_weights
def test_sample_becomes_commentary(tmp_path):
    done = demo("--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "make demo VIDEO=" in done.stdout
    steps = read_json(tmp_path / "commentary.json")["steps"]
    assert len(steps) >= 3
    assert all(step["narration"] for step in steps)


@needs_weights
@pytest.mark.skipif(PUBLISHED is None, reason="../shared/expstar_demo is not beside this checkout")
def test_the_published_video_with_chinese_speech(tmp_path):
    done = demo(str(PUBLISHED), "Combustion of Carbon Monoxide", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    steps = read_json(tmp_path / "commentary.json")["steps"]
    assert len(steps) >= 3
    assert not any(step["faults"] for step in steps)
    used = [p for step in steps for p in step["passages"] if p["used"]]
    assert any("carbon monoxide" in p["title"].lower() or p["id"] == "hazard-630-08-0" for p in used)

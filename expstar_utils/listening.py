"""Whisper behind either of two libraries: faster-whisper, quantised and quick on a CPU, or openai-whisper, the reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from tqdm.auto import tqdm

from expstar_utils import weights
from expstar_utils.records import ExpStarError

SAMPLE_RATE_HZ = 16_000
WHISPER = {"faster-whisper": "Systran/faster-whisper-base", "openai-whisper": "base"}  # engine -> model that it takes by default
# A beam of 3 and one retry: on the samples and the real Chinese video no worse than Whisper's 5 and five retries, which take up
# to three times as long, most of it to make up words for the silence that wider padding keeps.
SEARCH = {"beam_size": 3, "best_of": 2, "temperature": (0.0, 0.4)}
PAD_MS = 200


class Word(NamedTuple):
    """A word with the blank before it, and its time in seconds from the start of the sound track."""

    start: float
    end: float
    word: str


class Whisper(Protocol):
    """What is asked of a Whisper. Audio: mono, float32 in [-1, 1] at SAMPLE_RATE_HZ."""

    languages: frozenset[str]

    def detect(self, audio: np.ndarray) -> str:
        """Code of the language spoken."""

    def segments(self, audio: np.ndarray, language: str, before: str, progress: bool) -> Iterator[list[Word]]:
        """Words of the voiced parts, a segment of about a sentence at a time; `before` is what the model is told came before."""

    def translated(self, audio: np.ndarray, language: str) -> str:
        """English for one line of speech."""


def spans(audio: np.ndarray) -> list[dict[str, int]]:
    """Stretches with a voice in them, `{start, end}` in samples."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps
    return get_speech_timestamps(audio, VadOptions(speech_pad_ms=PAD_MS)) if len(audio) >= SAMPLE_RATE_HZ // 10 else []


class FasterWhisper:
    """CTranslate2's Whisper with 8-bit weights.

    Args:
        name: a folder, or a name known to `weights.find`.
    """

    def __init__(self, name: str):
        from faster_whisper import WhisperModel
        folder = weights.find(name)
        try:
            self._model = WhisperModel(str(folder), device="cpu", compute_type="int8")
        except (RuntimeError, ValueError) as error:
            raise ExpStarError(f"{folder}: found no faster-whisper model ({str(error).splitlines()[0]}), expected model.bin, "
                               "config.json and tokenizer.json; convert it with ct2-transformers-converter") from None
        self.languages = frozenset(self._model.supported_languages)

    def detect(self, audio: np.ndarray) -> str:
        """See `Whisper`."""
        return self._model.detect_language(audio)[0]

    def segments(self, audio: np.ndarray, language: str, before: str, progress: bool) -> Iterator[list[Word]]:
        """See `Whisper`; the same audio gives the same words."""
        from ctranslate2 import set_random_seed
        set_random_seed(0)  # Whisper samples where it is unsure
        found, _ = self._model.transcribe(audio, language=language, initial_prompt=before or None, word_timestamps=True,
                                          vad_filter=True, vad_parameters={"speech_pad_ms": PAD_MS}, **SEARCH)
        total = round(len(audio) / SAMPLE_RATE_HZ)
        with tqdm(total=total, desc="Listening", unit="s", disable=not progress) as bar:
            for segment in found:
                bar.update(min(int(segment.end), total) - bar.n)
                yield [Word(w.start, w.end, w.word) for w in segment.words or ()]
            bar.update(total - bar.n)

    def translated(self, audio: np.ndarray, language: str) -> str:
        """See `Whisper`."""
        found, _ = self._model.transcribe(audio, language=language, task="translate", beam_size=3, temperature=0.0,
                                          without_timestamps=True, condition_on_previous_text=False)
        return " ".join(segment.text.strip() for segment in found)


class OpenAIWhisper:
    """The reference implementation, on the GPU where there is one.

    Args:
        name: path of a .pt checkpoint, or a name that openai-whisper downloads.
    """

    def __init__(self, name: str):
        import torch
        try:
            import whisper
        except ImportError:
            raise ExpStarError("engine openai-whisper: the package is not installed; run pip install -e '.[whisper]', or take "
                               "faster-whisper") from None
        try:
            self._model = whisper.load_model(str(name), device="cuda" if torch.cuda.is_available() else "cpu")
        except Exception as error:  # torch.load and urllib raise many kinds
            raise ExpStarError(f"{name}: found no openai-whisper model ({str(error).splitlines()[0][:99]}), expected the path of "
                               f"a .pt checkpoint or one of {', '.join(whisper.available_models())}") from None
        self.languages = frozenset(whisper.tokenizer.LANGUAGES)

    def detect(self, audio: np.ndarray) -> str:
        """See `Whisper`."""
        import whisper
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio), self._model.dims.n_mels).to(self._model.device)
        return max((chances := self._model.detect_language(mel)[1]), key=chances.get)

    def segments(self, audio: np.ndarray, language: str, before: str, progress: bool) -> Iterator[list[Word]]:
        """See `Whisper`; the library answers for the whole audio at once and shows its own bar."""
        import torch
        clips = [at / SAMPLE_RATE_HZ for span in spans(audio) for at in (span["start"], span["end"])]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = self._transcribe(audio, language=language, initial_prompt=before or None, word_timestamps=True,
                                     clip_timestamps=clips, verbose=False if progress else None, **SEARCH)
        yield from ([Word(w["start"], w["end"], w["word"]) for w in segment["words"]] for segment in found["segments"])

    def translated(self, audio: np.ndarray, language: str) -> str:
        """See `Whisper`."""
        return self._transcribe(audio, language=language, task="translate", beam_size=3, temperature=0.0, without_timestamps=True,
                                condition_on_previous_text=False)["text"].strip()

    def _transcribe(self, audio: np.ndarray, **options) -> dict:
        return self._model.transcribe(audio, fp16=self._model.device.type == "cuda", **options)


@lru_cache(maxsize=1)
def load(engine: str, name: str = "") -> Whisper:
    """A Whisper, ready to listen.

    Args:
        engine: key of WHISPER. name: see the engine; empty takes its default.

    Raises:
        ExpStarError: unknown engine, or a model that cannot be had.
    """
    engines = {"faster-whisper": FasterWhisper, "openai-whisper": OpenAIWhisper}
    if engine not in engines:
        raise ExpStarError(f"speech engine: found {engine!r}, expected one of {', '.join(engines)}")
    return engines[engine](name or WHISPER[engine])

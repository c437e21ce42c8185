"""Speech becomes timed lines that can be trusted: what was said and nothing that Whisper makes up."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hearing import DEMO, REAL_TITLE, ROWS, SAMPLES, heard, heard_in_sample, real_video
from hypothesis import example, given
from hypothesis import strategies as st

from expstar_utils import speech
from expstar_utils.records import AsrFile, ExpStarError


@dataclass
class Word:
    """What faster-whisper says of a word."""

    start: float
    end: float
    word: str


def write_video(path: Path, sound: np.ndarray | None) -> Path:
    """One second a frame of grey pictures; sound: float32 [n] at 16 kHz, or None for no sound track."""
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("libx264", rate=1)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        voice = out.add_stream("aac", rate=16000, layout="mono") if sound is not None else None
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90 + i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 1)
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode())
        if voice:
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, 0
            out.mux(voice.encode(frame))
            out.mux(voice.encode())
    return path


by_sample = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])


@by_sample
def test_samples_are_understood(row):
    """At most one word in five is wrong, and English is given as English."""
    said = " ".join(line for step in row["steps"] for line in step["lines"])
    lines = heard_in_sample(row)
    assert speech.word_error_rate(said, " ".join(s.text for s in lines)) <= 0.2
    assert all(s.text_en == s.text for s in lines)


@by_sample
def test_lines_are_numbered_and_in_order_and_lie_in_their_step(row):
    lines = heard_in_sample(row)
    assert [s.id for s in lines] == list(range(1, len(lines) + 1))
    assert all(s.start_s < s.end_s for s in lines)
    assert all(a.end_s <= b.start_s for a, b in pairwise(lines))
    for line in lines:
        assert any(step["start_s"] - 0.3 <= line.start_s and line.end_s <= step["end_s"] + 0.3 for step in row["steps"]), line


@by_sample
def test_transcript_survives_the_file_format(row):
    asr = AsrFile(subtitles=list(heard_in_sample(row)))
    assert AsrFile.model_validate(asr.to_dict()).to_dict() == asr.to_dict()


@pytest.mark.parametrize("sound", [None, np.zeros(40), np.zeros(48000)], ids=["no track", "blip", "silence"])
def test_without_speech_there_are_no_lines(tmp_path, sound):
    """Whisper would write a credit over silence."""
    assert speech.transcribe(write_video(tmp_path / "静 'quiet'.mp4", sound), progress=False).subtitles == []


def test_noise_is_no_speech(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    assert speech.transcribe(write_video(tmp_path / "noise.mp4", noise), progress=False).subtitles == []


def test_late_sound_track_shifts_the_lines(tmp_path):
    """Times count from the first picture, as those of frames do."""
    path = tmp_path / "late.mkv"
    with av.open(str(SAMPLES / "burning_a_gas.mp4")) as source, av.open(str(path), "w") as out:
        tracks = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts += int(2 / packet.time_base)
                    packet.dts += int(2 / packet.time_base)
                packet.stream = tracks[packet.stream.index]
                out.mux(packet)
    assert speech._delay_s(path) == pytest.approx(speech._delay_s(SAMPLES / "burning_a_gas.mp4") + 2, abs=0.05)


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 99])
def test_unreadable_file_gives_one_sentence(tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExpStarError, match=r"bad\.mp4.*expected"):
        speech.transcribe(path, progress=False)


def test_unknown_language_and_model_are_named(tmp_path):
    with pytest.raises(ExpStarError, match="language: found 'klingon'"):
        speech.transcribe(SAMPLES / "burning_a_gas.mp4", language="klingon", progress=False)
    with pytest.raises(ExpStarError, match="found no faster-whisper model"):
        speech.transcribe(SAMPLES / "burning_a_gas.mp4", model=str(tmp_path), progress=False)


@pytest.mark.parametrize("credit", [
    "字幕由Amara.org社区提供", "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目", "中文字幕志愿者 李宗盛", "谢谢观看", "感謝大家收看",
    "优优独播剧场——YoYo Television Series Exclusive", "Thanks for watching!", "Thank you very much for watching.",
    "Subtitles by the Amara.org community", "Please subscribe to my channel"])
def test_credits_are_dropped(credit):
    segments = [[Word(0, 2, "将火柴靠近尖嘴。")], [Word(2, 5, credit)], [Word(5, 7, "气体燃烧。")]]
    lines = list(speech._subtitles(segments, "zh", 0.0))
    assert [s.text for s in lines] == ["将火柴靠近尖嘴。", "气体燃烧。"]
    assert [s.id for s in lines] == [1, 2]


def test_sentence_may_run_on_over_segments():
    segments = [[Word(0, 2, "烧杯壁")], [Word(2, 4, "上的石灰水变浑浊。")]]
    assert [s.text for s in speech._subtitles(segments, "zh", 0.0)] == ["烧杯壁上的石灰水变浑浊。"]


def test_no_line_of_the_samples_is_taken_for_a_credit():
    lines = [line for row in ROWS for step in row["steps"] for line in step["lines"]]
    assert not [line for line in lines if speech.is_made_up(line, 3.0)]


def test_prompt_read_aloud_and_impossible_speed_are_dropped():
    assert speech.is_made_up("、".join(speech.GLOSSARY["zh"][:5]) + "。")
    assert not speech.is_made_up("准备试管、烧杯、锥形瓶、导管。", 4.0)
    assert speech.is_made_up("The gas is kept in a glass gas holder.", 0.3)
    assert not speech.is_made_up("The gas is kept in a glass gas holder.", 2.0)


def test_chinese_is_simplified_and_other_languages_untouched():
    traditional = [Word(0, 3, "將澄清石灰水變渾濁，導管點燃氣體。")]
    [line] = speech._subtitles([traditional], "zh", 0.0)
    assert (line.text, line.text_en) == ("将澄清石灰水变浑浊，导管点燃气体。", "")
    [line] = speech._subtitles([[Word(0, 2, "氣體を燃やす。")]], "ja", 0.0)
    assert line.text == "氣體を燃やす。"


PIECES = st.sampled_from([" gas", " 0.", "5", " flame.", "火", "焰。", " so,", "水，"])


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.05, 1), PIECES), max_size=60))
@example([(0, 0.3, " 0."), (0, 0.3, "5"), (0, 0.3, " flame.")])
def test_splitting_loses_no_word_and_respects_pauses(rhythm):
    """Lines put together are the words; sentence ends and pauses end a line, decimal points do not; none is too wide."""
    words, at = [], 0.0
    for pause, length, text in rhythm:
        words.append(Word(at + pause, at + pause + length, text))
        at += pause + length
    lines = speech.split_lines(words)
    assert [w for line in lines for w in line] == words
    assert all(lines)
    for line in lines:
        for a, b in pairwise(line):
            assert a.word not in ("焰。", " flame.") or b.word == "5"
            assert b.start - a.end < speech.PAUSE_S or (a.word.endswith(".") and b.word == "5")
        assert speech._width("".join(w.word for w in line)) <= speech.MAX_WIDTH + 1


def test_prompt_names_title_and_glossary_in_the_language_of_the_speech():
    chinese = speech.prompt("一氧化碳的燃烧", ["储气瓶"], "zh")
    assert all(part in chinese for part in ("一氧化碳的燃烧。", "储气瓶", "澄清石灰水"))
    assert "limewater" not in chinese
    assert "Burning" not in speech.prompt("Burning a gas", (), "zh")
    assert "Burning a gas. " in speech.prompt("Burning a gas", (), "en")
    assert speech.prompt("", (), "fr") == ""


@given(st.lists(st.sampled_from(["gas", "flame", "jet", "水"]), min_size=1, max_size=12), st.data())
def test_word_error_rate_counts_edits(words, data):
    """Nothing for the same words in other case and punctuation; one word left out is one error."""
    said = " ".join(words)
    assert speech.word_error_rate(said, said.upper() + "!") == 0
    gone = data.draw(st.integers(0, len(words) - 1))
    assert speech.word_error_rate(said, " ".join(words[:gone] + words[gone + 1:])) == pytest.approx(1 / len(words))


@pytest.mark.skipif(not DEMO.is_dir(), reason="../shared/expstar_demo is absent: the real demo video")
def test_real_chinese_video_is_understood():
    """The words of its published annotation are heard, in simplified characters, at their published times (whole seconds)."""
    lines = heard(real_video(), REAL_TITLE)
    text = "".join(s.text for s in lines)
    assert all(words in text for words in ("储气瓶", "活塞", "排出一氧化碳", "火柴", "澄清的石灰水", "二氧化碳"))
    assert text == speech.simplified(text)
    for start_s in (2, 11, 25):  # published starts of steps that begin with a line of their own
        assert min(abs(s.start_s - start_s) for s in lines) <= 1

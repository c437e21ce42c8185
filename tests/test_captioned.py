"""The video with captions: same length, same sound, captions where and when they belong, and nothing else changed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from test_subtitles import doc

from expstar_utils.media import probe, sample_frames
from expstar_utils.publishing import captioned, fonts, soundtrack, voices
from expstar_utils.publishing.captioned import write_mp4
from expstar_utils.publishing.fonts import Typeface
from expstar_utils.publishing.pen import Pen
from expstar_utils.publishing.subtitles import Caption, readable, units
from expstar_utils.records import ExpStarError

RATE = 48_000
WORDS = ["The gas burns {blue}.", "A dry beaker --> stays dry."]


def film(path: Path, times_s: list[float], end_s: float, size: tuple[int, int] = (320, 240), *, codec: str = "libx264",
         sound: str = "aac", turned: int = 0, between: int = 2) -> Path:
    """Pictures, each of another grey that also tells left from right, and a tone that starts in the middle."""
    with av.open(str(path), "w") as out:
        track = out.add_stream(codec, rate=5, options={"bf": str(between), "preset": "ultrafast"} if codec == "libx264" else {})
        (track.width, track.height), track.pix_fmt, track.codec_context.time_base = size, "yuv420p", Fraction(1, 1000)
        track.set_display_rotation(turned)
        tone = out.add_stream(sound, rate=RATE, layout="mono") if sound else None
        for place, (time_s, next_s) in enumerate(zip(times_s, [*times_s[1:], end_s])):
            pixels = np.full((size[1], size[0], 3), 60 + place % 8 * 12, np.uint8)
            pixels[:, : size[0] // 4] += 40
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base, frame.duration = round(1000 * time_s), Fraction(1, 1000), round(1000 * (next_s - time_s))
            out.mux(track.encode(frame))
        for packet in track.encode(None):
            packet.duration = packet.duration or round(1000 * (end_s - times_s[-1]))
            out.mux(packet)
        if tone:
            samples = np.arange(round(end_s * RATE))
            wave = (0.3 * np.sin(samples * 2 * np.pi * 440 / RATE) * (samples >= len(samples) // 2)).astype(np.float32)
            for start in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, start:start + 1024], format="fltp", layout="mono")
                frame.pts, frame.rate, frame.time_base = start, RATE, Fraction(1, RATE)
                for part in av.AudioResampler(tone.format.name, "mono", RATE).resample(frame):
                    out.mux(tone.encode(part))
            out.mux(tone.encode(None))
    return path


def steady(seconds: float) -> list[float]:
    return [i / 5 for i in range(round(seconds * 5))]


def heard(path: Path) -> np.ndarray:
    """Loudness in each tenth of a second of the sound, as it is played."""
    with av.open(str(path)) as source:
        resampler, wave = av.AudioResampler("fltp", "mono", RATE), np.zeros(RATE * 60)
        for frame in source.decode(source.streams.audio[0]):
            for part in resampler.resample(frame):
                at = round(part.time * RATE)
                wave[max(at, 0):max(at, 0) + part.samples] = part.to_ndarray()[0][max(-at, 0):]
    return np.sqrt((wave.reshape(-1, RATE // 10) ** 2).mean(1))


def captions_in(path: Path) -> list[tuple[float, float, str]]:
    """(start, end, text) of the subtitle track, seconds."""
    with av.open(str(path)) as source:
        [track] = source.streams.subtitles
        return [(float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base), bytes(p)[2:].decode())
                for p in source.demux(track) if p.size > 2]


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as source:
        return [bytes(p) for p in source.demux(next(s for s in source.streams if s.type == kind)) if p.size]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setitem(captioned.ENCODER, "preset", "ultrafast")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films") / "Versuch 一氧化碳 'x' \"y\" .."
    folder.mkdir()
    rate = [0, 0.04, 0.08, 0.5, 0.52, 1.7, 1.9, 3.1, 3.15, 4.8]
    def made(name: str, times_s: list[float] | None = None, **how) -> Path:
        return film(folder / name, times_s or steady(5), 5, **how)
    return {"plain": made("plain.mp4"), "mute": made("mute.mp4", sound=""), "portrait": made("portrait.mp4", size=(180, 320)),
            "turned": made("turned.mp4", size=(320, 180), turned=90), "uneven": made("uneven.mp4", rate, between=0),
            "odd": made("odd.mkv", size=(322, 242), sound="pcm_s16le"), "one": made("one.mp4", [0], sound=""),
            "vp8": made("vp8.webm", codec="libvpx", sound="")}


KINDS = ("plain", "mute", "portrait", "turned", "uneven", "odd", "one", "vp8")
TALK = doc((0.0, 2.5, WORDS[:1], [], []), (2.5, 4.6, [], [], WORDS[1:]))


def talk(video: Path) -> dict:
    return TALK | {"video": str(video)}


def difference(one: Path, other: Path, time_s: float, size_px: tuple[int, int]) -> np.ndarray:
    """How far two videos' pictures of one time differ, by row."""
    shown = [sample_frames(p, time_s, time_s + 0.02, max_frames=1, size_px=size_px).pixels[0].astype(int) for p in (one, other)]
    return np.abs(shown[0] - shown[1]).max((1, 2))


# Captions in the pictures

@pytest.mark.parametrize("kind", KINDS)
def test_burned_captions_change_the_lower_part_of_their_pictures_alone(kind, videos, tmp_path):
    video, path = videos[kind], tmp_path / "out.mp4"
    made = write_mp4(path, video, [talk(video)], "burn")
    before, after = probe(video), probe(path)
    assert abs(before.duration_s - after.duration_s) < 0.06
    assert after.has_audio == before.has_audio
    assert after.rotation == 0
    assert abs(after.width_px / after.height_px - before.width_px / before.height_px) < 0.02
    assert min(after.width_px, after.height_px) >= captioned.LEAST_SIDE_PX
    height, width = size = before.height_px, before.width_px
    [first, *_] = made.captions
    with_it, without = (difference(video, path, t, size) for t in ((first.start_ms + first.end_ms) / 2000, 4.9))
    assert with_it[height * 3 // 4:].max() > 80
    assert with_it[:height // 2].max() < 25
    assert without.max() < 25, "after the last step there is no caption"


def test_a_caption_begins_and_ends_on_time_though_the_picture_stands(videos, tmp_path):
    path = tmp_path / "out.mp4"
    made = write_mp4(path, videos["one"], [doc((1.0, 3.0, ["a b"], [], []), (3.5, 5.0, ["c d"], [], []))], "burn")
    assert [(c.start_ms, c.end_ms) for c in made.captions] == [(1000, 3000), (3500, 5000)]
    shown = [difference(videos["one"], path, t, (240, 320))[200:].max() > 80 for t in (0.9, 1.1, 2.9, 3.1, 3.4, 3.6, 4.9)]
    assert shown == [False, True, True, False, False, True, True]


def test_sound_is_kept_as_it_is(videos, tmp_path):
    for how in ("burn", "track"):
        write_mp4(tmp_path / "out.mp4", videos["plain"], [talk(videos["plain"])], how)
        assert packets(tmp_path / "out.mp4", "audio") == packets(videos["plain"], "audio")
        assert np.abs(heard(tmp_path / "out.mp4") - heard(videos["plain"])).max() < 0.01


def test_sound_that_mp4_does_not_take_is_encoded_in_step(videos, tmp_path):
    write_mp4(tmp_path / "out.mp4", videos["odd"], [talk(videos["odd"])], "burn")
    assert np.abs(heard(tmp_path / "out.mp4") - heard(videos["odd"]))[:48].max() < 0.05


# Captions as a track

@pytest.mark.parametrize("kind", KINDS)
def test_track_reads_back_and_pictures_are_as_they_were(kind, videos, tmp_path):
    video, path = videos[kind], tmp_path / "out.mp4"
    made = write_mp4(path, video, [talk(video)], "track")
    assert captions_in(path) == [(c.start_ms / 1000, c.end_ms / 1000, "\n".join(map(readable, c.lines))) for c in made.captions]
    before, after = probe(video), probe(path)
    assert abs(before.duration_s - after.duration_s) < 0.06
    assert (after.width_px, after.height_px) == (before.width_px, before.height_px)
    if kind != "vp8":
        assert packets(path, "video") == packets(video, "video")
        assert after.rotation == before.rotation
    with av.open(str(path)) as source:
        assert source.streams.subtitles[0].metadata["language"] == "eng"
        assert source.metadata["title"] == "t"


def test_track_file_has_the_same_bytes_every_time(videos, tmp_path):
    for name in "ab":
        write_mp4(tmp_path / name, videos["plain"], [talk(videos["plain"])])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_two_languages_share_the_track(videos, tmp_path):
    path, zh = tmp_path / "out.mp4", doc((0.0, 2.5, ["气体燃烧。"], [], []), (2.5, 4.6, [], [], ["保持干燥。"]), language="zh")
    write_mp4(path, videos["plain"], [talk(videos["plain"]), zh])
    assert [text.splitlines() for *_, text in captions_in(path)] == [
        ["The gas burns (blue).", "气体燃烧。"], ["Safety: A dry beaker --＞ stays dry.", "安全：保持干燥。"]]
    with av.open(str(path)) as source:
        assert source.streams.subtitles[0].metadata["language"] == "mul"


# Pictures that wait, and speech

LONG = doc((0.0, 1.0, ["n" * 40], [], []), (1.0, 5.0, [], ["p" * 60], ["s" * 92]))


@pytest.mark.parametrize("how", ["burn", "track"])
@pytest.mark.parametrize("kind", ["plain", "turned", "mute"])
def test_held_pictures_lengthen_the_film_and_sound_waits_with_them(how, kind, videos, tmp_path):
    path = tmp_path / "out.mp4"
    made = write_mp4(path, videos[kind], [LONG], how, hold=True)
    assert not made.left_out
    assert made.holds == [(1000, 1000), (5000, 4550)]
    assert abs(probe(path).duration_s - 10.55) < 0.06
    size = probe(videos[kind]).height_px, probe(videos[kind]).width_px
    for shown_s, film_s in ((0.5, 0.5), (1.5, 0.9), (3.55, 2.5), (9.0, 4.9)):
        one, other = (sample_frames(p, t, t + 0.02, max_frames=1, size_px=size).pixels[0, : size[0] // 2]
                      for p, t in ((path, shown_s), (videos[kind], film_s)))
        assert np.abs(one.astype(int) - other.astype(int)).max() < 25
    if kind != "mute":
        loud = heard(path)[:105] > 0.1
        assert (loud[:34].any(), loud[37:58].all(), loud[62:].any()) == (False, True, False)


def beep(text: str) -> np.ndarray:
    """Half a second for each word, at 1000 Hz."""
    return (0.7 * np.sin(np.arange(len(text.split()) * 8000) * 2 * np.pi / 16)).astype(np.float32)


@pytest.mark.parametrize("kind", ["plain", "mute"])
def test_notes_are_spoken_while_their_captions_are_shown(kind, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(captioned, "open_voice", lambda language: voices.Voice("beep", "", 16_000, beep))
    path = tmp_path / "out.mp4"
    said = doc((0.0, 1.0, ["one two three"], [], []), (1.0, 5.0, ["four five"], [], []))
    made = write_mp4(path, videos[kind], [said], speak=True)
    first, second = made.spoken[0][0] // 100, made.spoken[1][0] // 100
    loud = heard(path) > 0.4
    assert loud[first + 1:first + 14].all()
    assert not loud[first + 16:second].any()
    assert loud[second + 1:second + 9].all()
    assert made.captions[0].end_ms >= 1500
    assert probe(path).has_audio


def test_speech_lowers_the_sound_under_it_and_nothing_else():
    tone, speech = np.full((1, 3 * RATE), 0.5, np.float32), np.full(RATE, 0.1, np.float32)
    blocks = [tone[:, a:a + 1000] for a in range(0, 3 * RATE, 1000)]
    mixed = np.concatenate(list(soundtrack.spoken_over(blocks, [(1000, speech)])), 1)[0]
    assert np.allclose(mixed[:RATE - 8000], 0.5)
    assert np.allclose(mixed[RATE + 10:2 * RATE - 10], 0.5 * soundtrack.LOWERED + 0.1, atol=1e-3)
    assert np.allclose(mixed[2 * RATE + 8000:], 0.5)


def test_without_a_voice_one_sentence_says_what_to_install(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "_piper", lambda: None)
    monkeypatch.setattr(voices, "_espeak", lambda language: None)
    with pytest.raises(ExpStarError, match=r"^voice: found none .* pip install espeakng-loader[^\n]*$"):
        write_mp4(tmp_path / "out.mp4", videos["plain"], [TALK], speak=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("language", "text"), [("en", "Wear goggles."), ("zh", "请戴护目镜。")])
def test_espeak_speaks_both_languages(language, text, monkeypatch):
    monkeypatch.setattr(voices, "_piper", lambda: None)
    voice = voices.open_voice(language)
    sound = voice.say(text)
    assert 0.4 < len(sound) / voice.rate_hz < 4
    assert np.abs(sound).max() == pytest.approx(voices.LOUDNESS)
    assert voice.licence.startswith("GPL")
    assert len(voice.say("")) == 0


# Fonts

def small_font(path: Path, characters: str) -> Path:
    """A font whose every character is a black square."""
    builder, pen = FontBuilder(1000), TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(c):X}" for c in characters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return path


def test_font_with_all_characters_is_taken_else_several(tmp_path):
    latin, chinese, both = (small_font(tmp_path / f"{name}.ttf", text) for name, text in (
        ("a", "abc"), ("b", "一氧"), ("c", "abc一氧")))
    assert [f.path for f in Typeface("ab 一", [latin, chinese, both]).faces] == [both]
    mixed = Typeface("ab 一氧c", [latin, chinese])
    assert [run for run, _ in mixed.runs("ab一氧c", 20)] == ["ab", "一氧", "c"]
    assert mixed.width_px("ab一", 20) == pytest.approx(60)


def test_letters_that_no_font_has_are_named_but_a_sign_is_not_worth_an_error(tmp_path):
    latin, no_font = small_font(tmp_path / "a.ttf", "abc"), tmp_path / "no.ttf"
    no_font.write_text("no font")
    with pytest.raises(ExpStarError, match=r"^font: found none with 一, .*apt-get install fonts-noto-cjk[^\n]*$"):
        Typeface("ab 一", [no_font, latin])
    assert [f.path for f in Typeface("ab ⇌", [no_font, latin]).faces] == [latin]


def test_chinese_captions_are_burned_with_a_chinese_font(videos, tmp_path, monkeypatch):
    font = small_font(tmp_path / "c.ttf", "气体燃烧。")
    monkeypatch.setattr(fonts, "font_files", lambda: [font])
    path = tmp_path / "out.mp4"
    write_mp4(path, videos["plain"], [doc((0.0, 4.0, ["气体燃烧。"], [], []), language="zh")], "burn")
    assert difference(videos["plain"], path, 2.0, (240, 320))[180:].max() > 80
    with pytest.raises(ExpStarError, match="font: found none with"):
        write_mp4(path, videos["plain"], [doc((0.0, 4.0, ["氧气"], [], []), language="zh")], "burn")


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (480, 480), (640, 480)])
def test_the_widest_caption_fits_the_picture_and_leaves_most_of_it_free(size):
    lines = ("W" * 42, "Hold a cold dry beaker over the blue flame")
    pen = Pen([Caption(0, 1000, lines, "safety")], *size)
    drawn = np.asarray(pen.draw(pen.captions[0]))
    assert units(lines[0]) == 42
    assert drawn.shape[1] == size[0]
    assert drawn.shape[0] < 0.2 * size[1]
    assert not drawn[:, [0, -1], 3].any(), "the ground ends inside the picture"
    assert (drawn[..., :3].min(2) > 100).any(0).sum() > 0.5 * size[0]


# What cannot be

def test_video_is_never_overwritten_and_a_failed_export_leaves_nothing(videos, tmp_path):
    path = tmp_path / "own.mp4"
    path.write_bytes(videos["plain"].read_bytes())
    with pytest.raises(ExpStarError, match="found the video itself"):
        write_mp4(path, path, [TALK])
    with pytest.raises(ExpStarError, match="no such file"):
        write_mp4(tmp_path / "out.mp4", tmp_path / "gone.mp4", [TALK])
    assert [p.name for p in tmp_path.iterdir()] == ["own.mp4"]


def test_empty_commentary_and_one_with_ten_thousand_characters(videos, tmp_path):
    for notes in ([], ["x" * 10_000]):
        given = doc((0.0, 5.0, notes, [], []))
        for how in ("burn", "track"):
            made = write_mp4(tmp_path / "out.mp4", videos["one"], [given], how)
            assert not made.captions
            assert [len(n.texts[0]) for n in made.left_out] == list(map(len, notes))
            assert abs(probe(tmp_path / "out.mp4").duration_s - 5) < 0.06

"""Sampling picks exactly the frames it should from real files of many shapes; what is no video is named in one sentence."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from expstar_utils.clips import clip_frames
from expstar_utils.media import probe, sample_frames, sample_times
from expstar_utils.records import ExpStarError, VirtualClip
from expstar_utils.sizes import Pixels, scaled

BITS = 8


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A frame that carries its own number: columns of white (1) and black (0)."""
    bits = [(number >> i) & 1 for i in range(BITS)]
    columns = np.minimum(np.arange(width) * BITS // width, BITS - 1)
    row = np.array(bits, np.uint8)[columns] * 255
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def numbers(pixels: np.ndarray) -> list[int]:
    """Numbers that frames carry; uint8 [n, height, width, 3] -> n."""
    _, height, width, _ = pixels.shape
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    bits = pixels[:, height // 2, centres, 1] > 127
    return [int(sum(int(bit) << i for i, bit in enumerate(row))) for row in bits]


def write_video(path: Path, times_ms: list[int], *, codec: str = "libx264", size: tuple[int, int] = (96, 64), rate: int = 10,
                audio: bool = False, b_frames: int = 2, container: dict | None = None, fmt: str | None = None,
                pix_fmt: str = "yuv420p", turns: int = 0) -> Path:
    """A video whose frame n shows n at times_ms[n]; a key frame every 7 frames.

    turns: quarter turns that a player makes counter-clockwise; the file holds the pictures turned the other way.
    """
    with av.open(str(path), "w", format=fmt, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size[::-1] if turns % 2 else size
        stream.pix_fmt = pix_fmt
        if turns:
            stream.set_display_rotation(90 * turns)
        steady = all(t * rate == 1000 * i for i, t in enumerate(times_ms))
        base = Fraction(1, rate) if steady else Fraction(1, 1000)
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = 7
        if codec == "libx264":
            stream.codec_context.max_b_frames = b_frames
        sound = out.add_stream("aac", rate=16000) if audio else None
        for i, t in enumerate(times_ms):
            held = np.ascontiguousarray(np.rot90(picture(i, *size), -turns))
            frame = av.VideoFrame.from_ndarray(held, format="rgb24")
            frame.time_base, frame.pts = base, int(Fraction(t, 1000) / base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound:
            write_sound(out, sound, (times_ms[-1] + 1000 // rate) / 1000)
    return path


def write_sound(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for i in range(int(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, i * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def decode_all(path: Path) -> list[tuple[float, int]]:
    """(seconds from the first frame, number) of every frame, without any seeking."""
    with av.open(str(path)) as container:
        frames = [(frame.time, numbers(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)[None])[0])
                  for frame in container.decode(video=0)]
    return [(time - frames[0][0], number) for time, number in frames]


def expected(path: Path, start_s: float, end_s: float, fps: float, max_frames: int) -> list[tuple[float, int]]:
    """What sampling should pick: in the middle of each equal stretch, the frame that is on the screen then."""
    shown, count = decode_all(path), max(1, min(max_frames, round((end_s - start_s) * fps)))
    middles = [start_s + (i + 0.5) * (end_s - start_s) / count for i in range(count)]
    return [[frame for frame in shown if frame[0] <= middle + 1e-6][-1] for middle in middles]


def steady(count: int, rate: int = 10) -> list[int]:
    return [1000 * i // rate for i in range(count)]


UNEVEN = [0, 40, 80, 500, 510, 520, 1400, 1440, 1900, 2600, 2610, 2620, 2630, 3300, 3340, 3900]
VIDEOS = {
    "steady.mp4": {"times_ms": steady(40)},
    "sound.mp4": {"times_ms": steady(30), "audio": True},
    "uneven.mp4": {"times_ms": UNEVEN, "b_frames": 0},
    "uneven.mkv": {"times_ms": UNEVEN},
    "starts_late.mkv": {"times_ms": [5000 + t for t in steady(30)]},
    "recording.webm": {"times_ms": steady(30), "codec": "libvpx", "container": {"live": "1"}, "fmt": "webm"},
    "camera.ts": {"times_ms": steady(40)},
    "fragments.mp4": {"times_ms": steady(30), "container": {"movflags": "frag_keyframe+empty_moov"}},
    "odd_size.mkv": {"times_ms": steady(30), "codec": "ffv1", "size": (97, 65), "pix_fmt": "yuv444p"},
    "old.avi": {"times_ms": steady(30), "codec": "mpeg4"},
    "fast.mp4": {"times_ms": steady(100, 50), "rate": 50},
    "phone.mp4": {"times_ms": steady(40), "turns": 3},
    "left.mp4": {"times_ms": steady(30), "turns": 1, "codec": "mpeg4"},
    "head_down.mp4": {"times_ms": steady(30), "turns": 2},
    "ten_bit.mp4": {"times_ms": steady(30), "pix_fmt": "yuv420p10le"},
    "hevc.mp4": {"times_ms": steady(40), "codec": "libx265"},
    "vp9.webm": {"times_ms": steady(30), "codec": "libvpx-vp9"},
    "av1.mkv": {"times_ms": steady(30), "codec": "libsvtav1"},
    "one.mp4": {"times_ms": [0]},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("实验 'videos'")
    made = {name: write_video(folder / name, **shape) for name, shape in VIDEOS.items()}
    if hasattr(os, "sched_setscheduler"):  # root's SVT-AV1 leaves its caller, and all that it starts, at real-time priority
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return made


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no scheduling policies")
def test_writing_the_videos_leaves_the_process_at_ordinary_priority(videos):
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


# Which frames

@pytest.mark.parametrize("name", VIDEOS)
def test_probe_says_what_was_written(name, videos):
    info, shape = probe(videos[name]), VIDEOS[name]
    times, rate = shape["times_ms"], shape.get("rate", 10)
    assert (info.width_px, info.height_px) == shape.get("size", (96, 64))
    assert info.has_audio == shape.get("audio", False)
    last_s = (times[-1] - times[0]) / 1000
    assert last_s <= info.duration_s <= last_s + 1
    if times == UNEVEN:
        return
    assert info.duration_s == pytest.approx(last_s + 1 / rate, abs=0.01)
    assert info.fps == pytest.approx(rate)


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize(("fps", "max_frames"), [(1.0, 64), (3.0, 64), (4.0, 5), (0.01, 64), (25.0, 64)])
def test_whole_file_gives_the_frames_on_the_screen(name, fps, max_frames, videos):
    path = videos[name]
    frames = sample_frames(path, fps=fps, max_frames=max_frames)
    right = expected(path, 0.0, probe(path).duration_s, fps, max_frames)
    assert numbers(frames.pixels) == [number for _, number in right]
    assert frames.times_s == pytest.approx([time for time, _ in right], abs=1e-3)
    assert 1 <= len(frames.pixels) <= max_frames


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([name for name in VIDEOS if name != "one.mp4"]), data=st.data(), fps=st.floats(0.3, 12),
       max_frames=st.integers(1, 20))
def test_clip_gives_the_frames_of_the_same_stretch_decoded_by_brute_force(name, data, fps, max_frames, videos):
    path = videos[name]
    length = probe(path).duration_s
    start_s = data.draw(st.floats(0, length - 0.2))
    end_s = data.draw(st.floats(start_s + 0.1, length))
    clip = VirtualClip(video=path.name, start=start_s, end=end_s)
    frames = clip_frames(clip, path.parent, fps=fps, max_frames=max_frames)
    right = expected(path, start_s, end_s, fps, max_frames)
    assert numbers(frames.pixels) == [number for _, number in right]
    assert (frames.start_s, frames.end_s) == (start_s, end_s)
    on_screen_at_start = [time for time, _ in decode_all(path) if time <= start_s + 1e-6][-1]
    assert frames.times_s.min() >= on_screen_at_start - 1e-3
    assert frames.times_s.max() < end_s


@pytest.mark.parametrize("name", [name for name in VIDEOS if VIDEOS[name]["times_ms"][-1] > 2500])
@pytest.mark.parametrize("start_s", [0.05, 0.3, 0.5, 1.0, 1.55, 1.9, 2.2])
def test_wherever_a_clip_starts_its_first_frame_is_the_one_on_the_screen(name, start_s, videos):
    """Also in transport streams, where seeking lands behind the place asked for."""
    frames = sample_frames(videos[name], start_s, start_s + 0.2, fps=5)
    assert numbers(frames.pixels) == [number for _, number in expected(videos[name], start_s, start_s + 0.2, 5, 64)]


@pytest.mark.parametrize("name", ["steady.mp4", "sound.mp4", "uneven.mkv", "starts_late.mkv", "fragments.mp4", "fast.mp4"])
def test_pictures_that_nobody_needs_are_not_decoded(name, videos, monkeypatch):
    monkeypatch.setattr("expstar_utils.pictures._decode_from", lambda *_: pytest.fail("every picture was decoded"))
    info = probe(videos[name])
    for start_s, end_s in ((0.0, info.duration_s), (0.45, 2.6)):
        frames = sample_frames(videos[name], start_s, end_s, fps=1.0)
        assert numbers(frames.pixels) == [number for _, number in expected(videos[name], start_s, end_s, 1.0, 64)]


@pytest.mark.parametrize("start_s", [0.7, 1.4, 2.1])
def test_clip_that_starts_on_a_key_frame_starts_with_it(start_s, videos):
    assert numbers(sample_frames(videos["steady.mp4"], start_s, start_s + 0.1).pixels) == [round(start_s * 10)]


def test_path_and_virtual_clip_of_the_whole_file_give_the_same(videos):
    path = videos["steady.mp4"]
    whole = clip_frames(path.name, path.parent, fps=2, max_frames=64)
    virtual = clip_frames(VirtualClip(video=path.name, start=0, end=4), path.parent, fps=2, max_frames=64)
    assert np.array_equal(whole.pixels, virtual.pixels)
    assert np.array_equal(whole.times_s, virtual.times_s)


def test_stretch_cut_into_a_file_of_its_own_gives_the_same_frames(videos, tmp_path):
    path = videos["steady.mp4"]
    cut = write_video(tmp_path / "cut.mp4", steady(40)[:14])
    virtual = clip_frames(VirtualClip(video=path.name, start=0, end=1.4), path.parent, fps=5, max_frames=64)
    assert numbers(virtual.pixels) == numbers(sample_frames(cut, fps=5).pixels)


@pytest.mark.parametrize("name", [name for name in VIDEOS if VIDEOS[name]["times_ms"] != UNEVEN])
def test_times_and_indices_are_those_of_the_frames(name, videos):
    frames = sample_frames(videos[name], fps=4)
    rate = VIDEOS[name].get("rate", 10)
    assert frames.times_s.dtype == np.float64
    assert frames.indices.tolist() == numbers(frames.pixels)
    assert frames.times_s == pytest.approx(np.array(numbers(frames.pixels)) / rate, abs=1e-3)
    assert np.all(np.diff(frames.times_s) > 0)
    assert frames.fps == pytest.approx(len(frames.times_s) / (frames.end_s - frames.start_s))


@pytest.mark.parametrize("name", ["uneven.mp4", "one.mp4", "fast.mp4"])
def test_times_never_go_back_when_frames_are_asked_more_often_than_there_are(name, videos):
    frames = sample_frames(videos[name], fps=60, max_frames=500)
    assert np.all(np.diff(frames.times_s) >= 0)
    assert len(frames.pixels) == len(frames.times_s) == len(frames.indices)


@given(st.floats(0, 100), st.floats(0.01, 100), st.floats(0.01, 60), st.integers(1, 64))
def test_sample_times_are_increasing_inside_the_clip_and_not_too_many(start_s, length_s, fps, max_frames):
    times = sample_times(start_s, start_s + length_s, fps, max_frames)
    assert 1 <= len(times) <= max_frames
    assert start_s < times[0]
    assert times[-1] < start_s + length_s
    assert np.all(np.diff(times) > 0)


def test_three_hours_are_sampled_like_three_seconds(tmp_path):
    path = write_video(tmp_path / "lesson.mp4", [54_000 * n for n in range(200)])
    assert probe(path).duration_s == pytest.approx(3 * 3600, abs=60)
    for start_s, end_s in ((0.0, 10_700.0), (10_000.0, 10_600.5), (10_746.0, 10_746.05)):
        frames = sample_frames(path, start_s, end_s, fps=0.5, max_frames=40)
        assert numbers(frames.pixels) == [number for _, number in expected(path, start_s, end_s, 0.5, 40)]


@pytest.mark.parametrize("size_px", [(32, 48), (64, 96), (33, 57), (128, 192)])
def test_size_is_height_and_width_asked_for(size_px, videos):
    frames = sample_frames(videos["odd_size.mkv"], fps=2, size_px=size_px)
    assert frames.pixels.shape[1:] == (*size_px, 3)
    assert frames.pixels.dtype == np.uint8
    assert numbers(frames.pixels) == numbers(sample_frames(videos["odd_size.mkv"], fps=2).pixels)


@pytest.mark.parametrize(("size", "turns"), [((96, 64), 0), ((64, 96), 1), ((130, 70), 2), ((300, 90), 3)])
def test_a_limit_of_pixels_gives_the_frames_that_the_size_it_stands_for_gives(size, turns, tmp_path):
    """Of films as they are shown; the limit of a clip counts the frames that come, not those that might."""
    path = write_video(tmp_path / "film.mp4", [100 * n for n in range(20)], size=size, turns=turns)
    for limit in (Pixels(frame=56 * 56), Pixels(frame=10**6, clip=40_000), Pixels(frame=10**6)):
        found = sample_frames(path, fps=3, size_px=limit)
        height, width = found.pixels.shape[1:3]
        assert (height, width) == scaled(limit, *size[::-1], len(found.pixels))
        assert (height > width) == (size[1] > size[0]) or height == width
        named = sample_frames(path, fps=3, size_px=(height, width))
        assert np.array_equal(found.pixels, named.pixels)
        assert np.array_equal(found.times_s, named.times_s)
    few, many = (sample_frames(path, fps=fps, size_px=Pixels(frame=10**6, clip=20_000)).pixels.shape for fps in (1, 10))
    assert few[1] * few[2] > many[1] * many[2]


def test_blanked_frames_are_grey_all_over_and_keep_their_times(videos):
    frames = sample_frames(videos["steady.mp4"])
    blank = frames.blanked()
    assert blank.pixels.shape == frames.pixels.shape
    assert np.unique(blank.pixels).tolist() == [127]
    assert np.array_equal(blank.times_s, frames.times_s)
    assert frames.pixels.max() > 200, "the original is not changed"


# What is no video

def cut_short(path: Path, source: Path) -> None:
    data = source.read_bytes()
    path.write_bytes(data[:data.rindex(b"moov")])


def no_frames(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        out.start_encoding()


def sound_only(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=16000)
        if cover:
            stream = out.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt, stream.disposition = 96, 64, "yuvj420p", Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(picture(5, 96, 64), format="rgb24")
            frame.pts = 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode())
        write_sound(out, sound, 1.0)


BAD = {  # name -> (how it is made, what is said)
    "missing": (lambda path, _: None, "no such file"),
    "folder": (lambda path, _: path.mkdir(), "no such file"),
    "empty": (lambda path, _: path.touch(), "found an empty file"),
    "cut short": (cut_short, "not a readable video"),
    "text": (lambda path, _: path.write_text("Not a video.\n" * 50), "not a readable video"),
    "subtitles": (lambda path, _: path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n"), "without pictures"),
    "zeros": (lambda path, _: path.write_bytes(bytes(5000)), "not a readable video"),
    "png": (lambda path, _: Image.new("RGB", (64, 48)).save(path, "PNG"), "found a picture"),
    "jpeg": (lambda path, _: Image.new("RGB", (64, 48)).save(path, "JPEG"), "found a picture"),
    "gif": (lambda path, _: Image.new("RGB", (64, 48)).save(path, "GIF"), "found a picture"),
    "sound": (lambda path, _: sound_only(path), "without pictures"),
    "sound with a cover": (lambda path, _: sound_only(path, cover=True), "without pictures"),
    "unknown codec": (lambda path, source: path.write_bytes(source.read_bytes().replace(b"avc1", b"zzzz")),
                      "no frame can be decoded"),
}


def check_sentence(error: ExpStarError, path: Path) -> None:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert "expected" in message
    assert "\n" not in message
    assert "Traceback" not in message


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("use", [probe, sample_frames])
def test_what_is_no_video_is_named_in_one_sentence(kind, use, videos, tmp_path):
    path = tmp_path / "课 'clip'.mp4"
    make, said = BAD[kind]
    make(path, videos["sound.mp4"])
    with pytest.raises(ExpStarError, match=said) as caught:
        use(path)
    check_sentence(caught.value, path)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_video_without_a_frame_is_named_in_one_sentence(suffix, tmp_path):
    path = tmp_path / f"none{suffix}"
    no_frames(path)
    with pytest.raises(ExpStarError) as caught:
        sample_frames(path)
    check_sentence(caught.value, path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_file_whose_end_is_lost_is_named_in_one_sentence(share, tmp_path):
    """A copy that broke off: the index is there and names a length, the pictures are not."""
    whole = write_video(tmp_path / "whole.mp4", steady(40), container={"movflags": "faststart"})
    data, left = whole.read_bytes(), tmp_path / "left.mp4"
    start = data.index(b"mdat") + 4
    left.write_bytes(data[:start + int((len(data) - start) * share)])
    assert len(sample_frames(whole, fps=5).pixels) == 20
    with pytest.raises(ExpStarError) as caught:
        sample_frames(left, fps=5)
    check_sentence(caught.value, left)


def test_changed_file_is_looked_at_anew(videos, tmp_path):
    path = tmp_path / "a.mp4"
    shutil.copy(videos["steady.mp4"], path)
    assert probe(path).duration_s == pytest.approx(4.0)
    shutil.copy(videos["sound.mp4"], path)
    assert probe(path).duration_s == pytest.approx(3.0)
    path.unlink()
    with pytest.raises(ExpStarError, match="no such file"):
        probe(path)


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (2, 1), (1, 1), (4.5, 5), (4.0, 4.2), (99, 100),
                                               (float("nan"), 2), (0, float("nan"))])
def test_clip_outside_the_file_is_refused(start_s, end_s, videos):
    with pytest.raises(ExpStarError, match="found a clip from") as caught:
        sample_frames(videos["steady.mp4"], start_s, end_s)
    check_sentence(caught.value, videos["steady.mp4"])


def test_clip_end_rounded_up_beyond_the_file_is_taken(videos):
    frames = sample_frames(videos["steady.mp4"], 3.0, 4.6, fps=5)
    assert numbers(frames.pixels)[-1] == 39


@pytest.mark.parametrize("clip", ["../outside.mp4", VirtualClip(video="../outside.mp4", start=0, end=1)])
def test_clip_outside_the_data_set_is_refused(clip, videos, tmp_path):
    shutil.copy(videos["steady.mp4"], tmp_path / "outside.mp4")
    (tmp_path / "root").mkdir()
    with pytest.raises(ExpStarError, match="expected one inside the data set"):
        clip_frames(clip, tmp_path / "root", fps=1, max_frames=8)


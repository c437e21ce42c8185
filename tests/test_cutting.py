"""Clips cut out of videos: every frame of the stretch and no other, sound in step, copied where the file allows it."""

from fractions import Fraction

import av
import numpy as np
import pytest

from expstar_utils import cutting
from expstar_utils.cutting import Clip, both_headers, cut_clips, units
from expstar_utils.media import probe
from expstar_utils.records import ExpStarError

BITS, CELL, RATE, CLICK_S = 8, 16, 25, 0.5
CLOSED = {"g": "10", "bf": "2", "x264-params": "open-gop=0:scenecut=0:keyint=10:min-keyint=10"}


def picture(number, width=BITS * CELL, height=48):
    """A picture whose bars say its number in binary."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    for bit in range(BITS):
        pixels[:, bit * CELL:(bit + 1) * CELL] = 210 if number >> bit & 1 else 40
    pixels[:8] = (number * 7) % 200 + 20
    return pixels


def number_of(pixels):
    return sum((pixels[20:40, bit * CELL + 4:(bit + 1) * CELL - 4].mean() > 125) << bit for bit in range(BITS))


def clicks(count, rate=48000):
    sound = np.zeros((1, count), np.float32)
    for at in np.arange(0, count / rate, CLICK_S):
        sound[0, int(at * rate):int(at * rate) + 200] = 0.8
    return sound


def film(path, codec="libx264", frames=100, pix_fmt="yuv420p", options=None, sounds=("aac",), size=(BITS * CELL, 48), times=None,
         turned=0):
    """A video with numbered pictures, and a click every half second."""
    with av.open(str(path), "w") as out:
        track = out.add_stream(codec, rate=RATE, options=CLOSED if codec == "libx264" and options is None else options or {})
        track.width, track.height, track.pix_fmt = *size, pix_fmt
        track.codec_context.time_base = Fraction(1, 1000)
        track.set_display_rotation(turned)
        tracks = [out.add_stream(name, rate=48000, layout="mono") for name in sounds]
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(1000 * (i / RATE if times is None else times[i])), Fraction(1, 1000)
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
        for sound in tracks:
            samples, step = clicks(frames * 48000 // RATE), sound.codec_context.frame_size or 1024
            for at in range(0, samples.shape[1], step):
                part = av.AudioFrame.from_ndarray(samples[:, at:at + step], format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48000, at, Fraction(1, 48000)
                resampled = av.AudioResampler(sound.format.name, "mono", 48000).resample(part)
                for piece in resampled:
                    out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
    return path


def seen(path):
    """(time from the first frame, number) of every frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [(float(f.pts * stream.time_base), number_of(f.to_ndarray(format="rgb24"))) for f in container.decode(stream)]
    return [(t - shown[0][0], n) for t, n in shown]


def heard(path, track=0):
    """Times of the clicks, seconds on the file's clock."""
    with av.open(str(path)) as container:
        stream, origin = container.streams.audio[track], container.streams.video[0].start_time or 0
        zero = float(origin * container.streams.video[0].time_base)
        loud = [float(f.pts * f.time_base) + i / f.sample_rate - zero for f in container.decode(stream)
                for i in np.flatnonzero(np.abs(f.to_ndarray().astype(float)).reshape(-1, f.samples)[0] > 0.3 * _top(f))]
    return [t for i, t in enumerate(loud) if i == 0 or t - loud[i - 1] > 0.1]


def _top(frame):
    return {"s16": 32768, "s16p": 32768, "s32": 2 ** 31}.get(frame.format.name, 1)


def check(source, start_s, end_s, target, tracks=1):
    """The clip holds the frames of the stretch at their distances, and the clicks of the stretch in step with them."""
    wanted = [(t, n) for t, n in seen(source) if start_s - 1e-6 <= t < end_s - 1e-6]
    got = seen(target)
    assert [n for _, n in got] == [n for _, n in wanted]
    np.testing.assert_allclose([t for t, _ in got], [t - wanted[0][0] for t, _ in wanted], atol=1.5e-3)
    for track in range(tracks):
        there = [t - wanted[0][0] for t in heard(source, track) if start_s + 0.03 < t < end_s - 0.08]
        found = [t for t in heard(target, track) if there and there[0] - 0.05 < t < there[-1] + 0.05]
        np.testing.assert_allclose(found, there, atol=0.012)
    return len(wanted)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """100 frames in closed groups of ten with B-frames."""
    return film(tmp_path_factory.mktemp("film") / "closed.mp4")


@pytest.mark.parametrize(("start_s", "end_s"), [
    (0, 4), (0, 0.04), (0.4, 1.2), (0.4, 1.24), (0.36, 1.2), (0.5, 0.7), (0.52, 3.33), (0.44, 0.76), (3.9, 4), (3.96, 9),
    (0.401, 1.199)])
def test_every_frame_of_the_stretch_and_no_other(groups, tmp_path, start_s, end_s):
    assert cut_clips(groups, [Clip(start_s, end_s, tmp_path / "clip.mp4")]) == [""]
    assert check(groups, start_s, end_s, tmp_path / "clip.mp4") > 0


def test_whole_groups_are_copied_bit_for_bit(groups, tmp_path):
    cut_clips(groups, [Clip(0.52, 3.33, tmp_path / "clip.mp4")])
    def pixels(path):
        with av.open(str(path)) as container:
            return [f.to_ndarray() for f in container.decode(video=0)]
    source, clip = pixels(groups)[13:84], pixels(tmp_path / "clip.mp4")
    same = [bool((a == b).all()) for a, b in zip(source, clip, strict=True)]
    assert all(same[7:68])  # frames 20 to 80, the key frame of a group that is copied in part
    assert not all(same[:7])


@pytest.mark.parametrize("bf", [0, 2, 5])
def test_wherever_a_clip_ends_few_frames_are_encoded_for_its_end(tmp_path, bf):
    """B-frames that lean on each other: what is copied ends before the first frame that cannot be, and nothing is lost."""
    source = film(tmp_path / "v.mp4", frames=60, options={"g": "30", "bf": str(bf), "x264-params": "open-gop=0:b-pyramid=normal"})
    with av.open(str(source)) as container:
        groups = cutting.find_groups(container, container.streams.video[0])
    frame = int(np.diff(np.sort(groups.shown))[0])
    encoded = []
    for end in range(31, 60, 1 if bf == 5 else 4):
        cut_clips(source, [Clip(0.6, end / RATE, tmp_path / "clip.mp4")])
        assert check(source, 0.6, end / RATE, tmp_path / "clip.mp4") == end - 15
        key, stop = groups.keys[1], int(groups.shown.min()) + end * frame
        encoded.append((stop - groups.copied_to(key, stop)) // frame)
    assert max(encoded) <= 2 * bf
    assert (max(encoded) > 0) == (bf > 0)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_film_held_sideways_stays_so(tmp_path, codec):
    source = film(tmp_path / "phone.mp4", codec, turned=-90)
    [reason] = cut_clips(source, [Clip(0.52, 3.33, tmp_path / "clip.mp4")])
    assert bool(reason) == (codec == "mpeg4")
    assert check(source, 0.52, 3.33, tmp_path / "clip.mp4")
    before, after = probe(source), probe(tmp_path / "clip.mp4")
    assert (before.rotation, before.width_px, before.height_px) == (270, 48, BITS * CELL)
    assert (after.rotation, after.width_px, after.height_px) == (270, 48, BITS * CELL)


def test_several_clips_of_one_video(groups, tmp_path):
    clips = [Clip(i, i + 1.1, tmp_path / "deep" / f"{i} ü'\".mp4") for i in (2, 0, 1)]
    assert cut_clips(groups, clips) == [""] * 3
    for clip in clips:
        check(groups, clip.start_s, clip.end_s, clip.path)
    assert len(list((tmp_path / "deep").iterdir())) == 3


def test_the_same_bytes_again(groups, tmp_path):
    for name in ("a", "b"):
        cut_clips(groups, [Clip(0.5, 2, tmp_path / f"{name}.mp4")])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(("name", "how", "reason"), [
    ("open.mp4", {"options": {"x264-params": "open-gop=1:keyint=12:bframes=2:b-adapt=0:scenecut=0"}}, "open"),
    ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, "its codec is hevc"),
    ("vp9.webm", {"codec": "libvpx-vp9", "sounds": ("libopus",)}, "its codec is vp9"),
    ("mpeg4.avi", {"codec": "mpeg4", "sounds": ()}, "its codec is mpeg4"),
    ("ten_bit.mp4", {"pix_fmt": "yuv420p10le"}, "its pixels are yuv420p10le"),
    ("pcm.mkv", {"sounds": ("pcm_s16le",)}, "its sound is pcm_s16le"),
    ("stream.ts", {}, "stand in no header"),
    ("odd.mkv", {"size": (BITS * CELL + 1, 49), "pix_fmt": "yuv444p"}, "its pixels are yuv444p"),
])
def test_what_cannot_be_copied_is_encoded_and_says_so(tmp_path, name, how, reason):
    source = film(tmp_path / name, **how)
    [said] = cut_clips(source, [Clip(0.52, 2.6, tmp_path / "clip.mp4")])
    assert reason in said
    check(source, 0.52, 2.6, tmp_path / "clip.mp4", tracks=len(how.get("sounds", ("aac",))))


@pytest.mark.parametrize("how", [
    {"sounds": ()}, {"sounds": ("aac", "aac")}, {"options": CLOSED | {"bf": "0"}}, {"options": {"g": "1"}},
    {"times": np.cumsum(np.random.default_rng(0).integers(20, 90, 100)) / 1000}, {"options": {"g": "1000"}}])
def test_kinds_of_files_that_can_be_copied(tmp_path, how):
    source = film(tmp_path / "v.mp4", **how)
    assert cut_clips(source, [Clip(0.52, 2.6, tmp_path / "clip.mp4")]) == [""]
    check(source, 0.52, 2.6, tmp_path / "clip.mp4", tracks=min(len(how.get("sounds", ("aac",))), 0 if "times" in how else 9))


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (2, 2), (3, 2), (4.5, 9)])
def test_a_clip_outside_the_video_is_an_error_and_leaves_nothing(groups, tmp_path, start_s, end_s):
    sentence = r"closed.mp4: found a clip from .* expected a start before the end and inside the video"
    with pytest.raises(ExpStarError, match=sentence):
        cut_clips(groups, [Clip(start_s, end_s, tmp_path / "clip.mp4")])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_fails_half_way_leaves_the_old_file(groups, tmp_path, monkeypatch):
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    def fails(self, indices):
        raise OSError("disk")
        yield
    monkeypatch.setattr(cutting._Cutter, "_packets", fails)
    with pytest.raises(OSError, match="disk"):
        cut_clips(groups, [Clip(0, 1, target)])
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert target.read_bytes() == b"old"


def test_both_parameter_sets_stand_in_the_header():
    sps, pps, sps7, pps7 = b"\x67\x64\x00\x0bAA", b"\x68\xeeB", b"\x67\x64\x00\x0bCCC", b"\x68\xeeDD"
    source = b"\x01\x64\x00\x0b\xff\xe1\x00\x06" + sps + b"\x01\x00\x03" + pps + b"\xfd\xf8\xf8\x00"
    header = both_headers(source, b"\x00\x00\x00\x01" + sps7 + b"\x00\x00\x01" + pps7 + b"\x00\x00\x01\x06sei")
    assert header == (b"\x01\x64\x00\x0b\xff\xe2\x00\x06" + sps + b"\x00\x07" + sps7 + b"\x02\x00\x03" + pps + b"\x00\x04" + pps7
                      + b"\xfd\xf8\xf8\x00")
    assert units(b"\x00\x00\x00\x01ab\x00\x00\x01c\x00\x00\x00\x01d") == [b"ab", b"c", b"d"]

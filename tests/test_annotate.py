"""A raw video falls into steps that cover it, at its pauses and shot changes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hearing import DEMO, REAL_TITLE, ROWS, SAMPLES, heard, heard_in_sample, real_video
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expstar_utils import media
from expstar_utils.annotate import NEAR_S, shot_changes, split_steps, topic_changes
from expstar_utils.records import ExpStarError, StepsFile, Subtitle, format_time

FPS = 10


def spoken(*spans: tuple[float, float]) -> list[Subtitle]:
    """Lines spoken from start to end, seconds."""
    return [Subtitle(id=i, startTime=format_time(a), endTime=format_time(b), text="这是一句话。")
            for i, (a, b) in enumerate(spans, 1)]


def edges(steps) -> list[float]:
    return [steps[0].start_s, *(s.end_s for s in steps)]


@st.composite
def speeches(draw) -> tuple[float, list[Subtitle], list[float]]:
    """A video's length, its lines with pauses between them, and shot changes anywhere, some outside the video."""
    at, spans = 0.0, []
    for pause, length in draw(st.lists(st.tuples(st.floats(0, 8), st.floats(0.1, 12)), max_size=12)):
        spans.append((at + pause, at + pause + length))
        at += pause + length
    duration_s = draw(st.one_of(st.floats(0.01, 200), st.just(max(at, 0.5))))
    return duration_s, spoken(*spans), sorted(draw(st.lists(st.floats(0, 220), max_size=8)))


@given(speeches(), st.floats(0.5, 6), st.floats(2, 5))
@settings(deadline=None, max_examples=150)
@example((6.001, [], []), 3.0, 2.0)
@example((40.0, spoken((0, 40)), []), 3.0, 20 / 3)
def test_steps_cover_the_video_within_the_bounds(video, min_step_s, factor):
    """First start 0, last end the video's, each end the next start; lengths within bounds; every line in just one step."""
    duration_s, lines, shots = video
    min_step_s, max_step_s = round(min_step_s, 3), round(min_step_s, 3) * factor
    steps = split_steps(duration_s, lines, shots, min_step_s, max_step_s)
    assert [s.step for s in steps] == list(range(1, len(steps) + 1))
    assert steps[0].start_s == 0
    assert steps[-1].end_s == pytest.approx(duration_s, abs=0.0011)
    assert all(a.endTime == b.startTime for a, b in pairwise(steps))
    for step in steps:
        assert min(min_step_s, duration_s) - 0.003 <= step.end_s - step.start_s <= max_step_s + 0.003
        assert (step.step_zh, step.step_en) == ("", "")
    assert sorted(i for s in steps for i in s.ASR_id) == [line.id for line in lines]


@given(st.lists(st.tuples(st.floats(0.6, 1.6), st.floats(2.0, 6.0)), min_size=2, max_size=12),
       st.lists(st.floats(0, 80), max_size=5))
@settings(deadline=None)
def test_no_cut_through_a_spoken_line_where_pauses_allow(rhythm, shots):
    """Lines shorter than a step, with pauses between them: each cut is in a pause, or at a shot change beside one."""
    at, spans = 0.0, []
    for pause, length in rhythm:
        spans.append((at, at + length))
        at += length + pause
    for step in split_steps(at, spoken(*spans), shots)[:-1]:
        inside = [min(step.end_s - a, b - step.end_s) for a, b in spans if a < step.end_s < b]
        assert not inside or max(inside) <= NEAR_S + 0.002


def test_longest_pauses_are_chosen():
    lines = spoken((0, 4), (4.2, 8), (9.6, 13), (13.2, 17), (18.6, 22), (22.2, 26))
    assert edges(split_steps(26, lines, [])) == [0, 8.8, 17.8, 26]
    assert [s.ASR_id for s in split_steps(26, lines, [])] == [[1, 2], [3, 4], [5, 6]]


def test_shot_change_in_a_pause_decides_between_equal_pauses_and_gives_the_time():
    lines = spoken((0, 5), (6, 8), (9, 11), (12, 17))
    assert 8.2 in edges(split_steps(17, lines, [8.2]))
    assert 11.9 in edges(split_steps(17, lines, [11.9]))


def test_shot_change_amid_speech_is_no_boundary():
    assert 10.0 not in edges(split_steps(20, spoken((0, 6), (7, 13), (14, 20)), [10.0]))


def test_pause_after_a_fragment_is_no_boundary():
    """ "Observe." - pause - "It turned cloudy." belong together."""
    whole = split_steps(20, spoken((0, 9), (9.7, 12), (12.9, 20)), [])
    fragment = split_steps(20, spoken((0, 9), (9.7, 10.2), (11.1, 20)), [])
    assert edges(whole)[1] == pytest.approx(12.45)
    assert edges(fragment)[1] == pytest.approx(9.35)


def test_change_of_topic_decides_between_equal_pauses():
    lines = spoken((0, 3), (4, 7), (8, 11), (12, 15), (16, 19))
    for place in range(1, 3):
        topics = [float(i == place) for i in range(4)]
        assert edges(split_steps(19, lines, [], topics=topics))[1:-1] == [4 * place + 3.5]


def test_topic_changes_where_the_words_do():
    blocks = np.repeat(np.eye(3), [4, 3, 5], axis=0)
    found = topic_changes(blocks)
    assert found[[3, 6]].tolist() == [1, 1]
    assert np.delete(found, [3, 6]).max() < 0.5  # a line beside the change sees it too, from one side
    assert len(topic_changes(blocks[:1])) == len(topic_changes(blocks[:0])) == 0
    assert topic_changes(blocks[3:5]).tolist() == [0]


@given(st.integers(0, 12), st.integers(1, 4), st.integers(0, 99))
def test_topic_changes_are_shares(count, lines, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 5))
    found = topic_changes(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), lines)
    assert len(found) == max(count - 1, 0)
    assert all(0 <= x <= 1 for x in found)


def test_topic_changes_of_other_lines_are_refused():
    with pytest.raises(ValueError, match="2 topic changes for 2 lines"):
        split_steps(10, spoken((0, 4), (5, 9)), [], topics=[0.1, 0.2])


def test_without_speech_shots_are_the_boundaries():
    assert edges(split_steps(30, [], [9.3, 21.7])) == [0, 9.3, 21.7, 30]


@given(st.floats(1, 400))
@settings(deadline=None)
def test_with_neither_the_parts_are_equal(duration_s):
    lengths = [s.end_s - s.start_s for s in split_steps(duration_s, [], [])]
    assert max(lengths) - min(lengths) <= 0.003


@pytest.mark.parametrize("wrong", [(0, 3, 20), (-1, 3, 20), (30, 0, 20), (30, 3, 5.9)])
def test_impossible_bounds_are_refused(wrong):
    duration_s, low, high = wrong
    with pytest.raises(ValueError, match="expected a duration > 0"):
        split_steps(duration_s, [], [], low, high)


def test_steps_survive_the_file_format():
    file = StepsFile(steps=split_steps(26, spoken((0, 4), (5, 8), (9.6, 25)), []))
    assert StepsFile.model_validate(file.to_dict()).to_dict() == file.to_dict()


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    """Pictures uint8 [n][72, 128, 3] at FPS a second, without sound."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 128, 72, "yuv420p"
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def scene(level: int, count: int, seed: int) -> list[np.ndarray]:
    """A noisy wall of one brightness with a bright square that moves across it."""
    rng, pictures = np.random.default_rng(seed), []
    for i in range(count):
        picture = (level + rng.normal(0, 4, (72, 128, 3))).clip(0, 255).astype(np.uint8)
        picture[20:50, (3 * i) % 98:(3 * i) % 98 + 30] = 230
        pictures.append(picture)
    return pictures


def test_cuts_are_found_and_motion_is_not(tmp_path):
    path = write_video(tmp_path / "three 'shots'.mp4", scene(40, 30, 0) + scene(110, 30, 1) + scene(170, 30, 2))
    assert shot_changes(path) == pytest.approx([3.0, 6.0], abs=0.11)


def test_flash_is_no_cut(tmp_path):
    pictures = scene(80, 60, 0)
    pictures[30] = np.full_like(pictures[30], 255)
    assert shot_changes(write_video(tmp_path / "flash.mp4", pictures)) == []


def test_slow_change_of_light_is_no_cut(tmp_path):
    assert shot_changes(write_video(tmp_path / "dusk.mp4", [p for i in range(60) for p in scene(60 + 2 * i, 1, i)])) == []


def test_higher_threshold_finds_no_more(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene(40, 20, 0) + scene(80, 20, 1) + scene(200, 20, 2))
    found = [set(shot_changes(path, threshold)) for threshold in (0.02, 0.12, 0.9)]
    assert found[0] >= found[1] >= found[2] == set()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shortest_videos_have_no_shots(tmp_path, count):
    assert shot_changes(write_video(tmp_path / "short.mp4", scene(40, count, 0))) == []


def test_unreadable_file_gives_one_sentence(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(ExpStarError, match=r"bad\.mp4"):
        shot_changes(tmp_path / "bad.mp4")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_steps_of_the_samples_are_found(row):
    """From what Whisper hears, every true boundary within a second, and as many steps as there are."""
    path = SAMPLES / row["file"]
    found = edges(split_steps(media.probe(path).duration_s, heard_in_sample(row), shot_changes(path)))
    true = [0.0, *(step["end_s"] for step in row["steps"])]
    assert found == pytest.approx(true, abs=1.0)


@pytest.mark.skipif(not DEMO.is_dir(), reason="../shared/expstar_demo is absent: the real demo video")
def test_steps_of_the_real_video_are_found():
    """The four published boundaries between steps, within 1.5 s."""
    video = real_video()
    found = edges(split_steps(media.probe(video).duration_s, heard(video, REAL_TITLE), shot_changes(video)))
    assert all(min(abs(edge - true) for edge in found) <= 1.5 for true in (11, 16, 25, 36)), found

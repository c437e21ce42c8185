"""Steps of a raw video: cut where the speaker pauses and where the picture changes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from expstar_utils.media import probe
from expstar_utils.pictures import video_stream
from expstar_utils.records import RawStep, Subtitle, format_time
from expstar_utils.speech import SENTENCE_END

THUMB_PX = (64, 36)       # (width, height): small enough that camera noise and small motion average out
SAMPLE_S = 0.1            # a thumbnail every so many seconds
MIN_SHOT_S = 0.5
TYPICAL_STEP_S = 9.0      # a published step is about so long; only the middle of a broad preference
LENGTH_COST = 0.8         # of a step e times longer or shorter than that
SHOT_WEIGHT, SENTENCE_WEIGHT = 0.6, 0.2   # what a cut gains, next to 1 for a pause of twice the usual length
TOPIC_WEIGHT, TOPIC_LINES = 1.0, 2   # what a full change of topic gains, seen over so many lines on either side
IN_SPEECH_COST = 3.0      # of a cut through a spoken line: only the longest allowed step forces one
FRAGMENT_S, FRAGMENT_COST = 1.0, 0.8  # after "Next," or "Observe." the speaker waits, but goes on
NEAR_S = 0.3              # a shot change so close to a pause belongs to it: word times are no better than that
GRID_S = 0.5              # fallback places for cuts, where neither pause nor shot change is to be had


@dataclass(frozen=True)
class Cut:
    """A place where a step may end: seconds from the start of the file, and what is gained by cutting there."""

    time_s: float
    gain: float


def shot_changes(path: Path, threshold: float = 0.12) -> list[float]:
    """Times at which the picture changes at once, as at a cut of the film.

    Two thumbnails are compared by the geometric mean of pixel and histogram difference: a moving hand changes pixels but
    hardly the histogram. A change counts when it lasts (a flash goes back at once) and stands out from its neighbours.

    Args:
        threshold: least difference, 0 (same picture) to 1; lower finds more.

    Returns:
        list of seconds from the first frame, increasing, at least MIN_SHOT_S apart.

    Raises:
        ExpStarError: the file is not a readable video.
    """
    probe(path)
    measured = list(_jumps(path))
    jumps = np.array([jump for _, jump in measured])
    found: list[float] = []
    for i in np.flatnonzero(jumps >= threshold):
        around = np.delete(jumps[max(i - 5, 0):i + 6], min(i, 5))
        stands_out = not len(around) or (jumps[i] >= 3 * np.median(around) and jumps[i] >= around.max())
        if stands_out and (not found or measured[i][0] - found[-1] >= MIN_SHOT_S):
            found.append(round(measured[i][0], 3))
    return found


def _jumps(path: Path) -> Iterator[tuple[float, float]]:
    """(seconds, difference to what was before) of each thumbnail; a difference that one thumbnail alone makes is left out."""
    recent: deque[tuple[float, np.ndarray]] = deque(maxlen=4)
    for sample in _thumbnails(path):
        recent.append(sample)
        if len(recent) == 4:
            (_, earlier), (_, before), (time_s, now), (_, after) = recent
            yield time_s, min(_difference(before, now), _difference(before, after), _difference(earlier, now))


def _thumbnails(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, uint8 [height, width, 3]) every SAMPLE_S; a damaged tail ends them quietly."""
    last_s = -math.inf
    with av.open(str(path)) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                time_s = float((frame.pts - (stream.start_time or 0)) * stream.time_base) if frame.pts is not None else last_s
                if time_s - last_s >= SAMPLE_S - 1e-3:
                    last_s = time_s
                    yield time_s, frame.reformat(*THUMB_PX, format="rgb24", interpolation="AREA").to_ndarray()
        except av.FFmpegError:
            return


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Difference of two thumbnails uint8 [height, width, 3], in [0, 1]."""
    pixels = np.abs(a.astype(np.int16) - b).mean() / 255
    histograms = [np.bincount((x // 16).ravel(), minlength=16) for x in (a, b)]
    return math.sqrt(pixels * np.abs(histograms[0] - histograms[1]).sum() / (2 * a.size))


def topic_changes(vectors: np.ndarray, lines: int = TOPIC_LINES) -> np.ndarray:
    """How much the topic changes between each spoken line and the next: the depth of the valley in their likeness.

    The likeness of what comes before and after is compared with the nearest peaks on both sides (TextTiling: Hearst,
    Computational Linguistics 1997).

    Args:
        vectors: embeddings of the lines in order, float [n, d], of length 1. lines: seen on either side of a gap.

    Returns:
        float [n - 1], 0 (no valley) to 1.
    """
    if len(vectors) < 3:
        return np.zeros(max(len(vectors) - 1, 0))
    def _mean(part: np.ndarray) -> np.ndarray:
        return part.mean(0) / max(np.linalg.norm(part.mean(0)), 1e-9)
    alike = np.array([_mean(vectors[max(i - lines, 0):i]) @ _mean(vectors[i:i + lines]) for i in range(1, len(vectors))])
    depths = [_climb(alike[i::-1]) + _climb(alike[i:]) for i in range(len(alike))]
    return np.clip(depths, 0, 1)


def _climb(values: np.ndarray) -> float:
    """How far values rise from the first one until they fall."""
    falls = np.flatnonzero(np.diff(values) < 0)
    return float(values[falls[0] if len(falls) else -1] - values[0])


def split_steps(duration_s: float, subtitles: Sequence[Subtitle], shots: Sequence[float], min_step_s: float = 3.0,
                max_step_s: float = 20.0, topics: Sequence[float] = ()) -> list[RawStep]:
    """Steps that together cover a video, cut at its longest pauses, changes of shot and topic, and ends of sentences.

    The best set of cuts is found by dynamic programming: each cut brings its gain, each step costs the more the further
    its length is from the typical one.

    Args:
        duration_s: of the video, > 0.
        subtitles: what is said, in order of time; may be empty.
        shots: times of shot changes, seconds; may be empty. With neither, the video is cut into equal parts.
        min_step_s, max_step_s: bounds on a step's length, max >= 2 * min. A shorter video is one step.
        topics: how much the topic changes from each line to the next (`topic_changes`); empty when it is not known.

    Returns:
        list of RawStep: numbered from 1, each ending where the next starts, with the ids of the lines spoken in it
        (a line belongs to the step that holds its middle); `step_zh` and `step_en` are empty.

    Raises:
        ValueError: bounds or duration out of range, or not one value a gap in `topics`.
    """
    if len(topics) not in (0, len(subtitles) - 1):
        raise ValueError(f"found {len(topics)} topic changes for {len(subtitles)} lines, expected one between each two")
    if not (duration_s > 0 and min_step_s > 0 and 2 * min_step_s <= max_step_s):
        raise ValueError(f"found duration {duration_s} s and steps of {min_step_s} to {max_step_s} s, expected a duration > 0 "
                         "and a maximum of at least twice the minimum")
    end_s = max(math.floor(duration_s * 1000 + 1e-6), 1) / 1000  # whole milliseconds, as in the file
    lines = _merged([(min(s.start_s, end_s), min(s.end_s, end_s)) for s in subtitles])
    cuts = _equal_parts(end_s, min_step_s, max_step_s, -IN_SPEECH_COST if lines or shots else 0.0)
    if lines or shots:
        cuts += _grid(end_s, lines) + _pauses(subtitles, shots, topics) + _lone_shots(lines, shots)
    edges = _best_edges(end_s, [c for c in cuts if 0 < c.time_s < end_s], min_step_s, max_step_s)
    return [_step(number, start, end, subtitles, end == end_s) for number, (start, end) in enumerate(pairwise(edges), 1)]


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same stretches of time without overlaps, in order."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _equal_parts(end_s: float, min_step_s: float, max_step_s: float, gain: float) -> list[Cut]:
    """Cuts into equal parts of about the typical length: the answer without any hint, and always within the bounds."""
    parts = min(max(round(end_s / TYPICAL_STEP_S), math.ceil(end_s / max_step_s - 1e-9)), math.floor(end_s / min_step_s + 1e-9))
    return [Cut(round(end_s * i / parts, 3), gain) for i in range(1, parts)]


def _in_speech(time_s: float, lines: Sequence[tuple[float, float]]) -> bool:
    """Whether a time lies within one of the lines, which are in order and apart."""
    i = bisect_left(lines, (time_s,)) - 1
    return i >= 0 and lines[i][0] < time_s < lines[i][1]


def _grid(end_s: float, lines: Sequence[tuple[float, float]]) -> list[Cut]:
    times = np.arange(GRID_S, end_s, GRID_S).round(3)
    return [Cut(float(t), -IN_SPEECH_COST if _in_speech(t, lines) else -1.0) for t in times]


def _pauses(subtitles: Sequence[Subtitle], shots: Sequence[float], topics: Sequence[float]) -> list[Cut]:
    """A cut in each pause: where the shot changes in it, else in its middle. Gain: log2 of its length over the usual one."""
    change = dict(zip((id(line) for line in subtitles), topics, strict=False))
    spoken = sorted(subtitles, key=lambda s: s.start_s)
    gaps = [(a, a.end_s, b.start_s) for a, b in pairwise(spoken) if b.start_s > a.end_s]
    usual_s = float(np.median([end - start for _, start, end in gaps])) if gaps else 1.0
    cuts = []
    for line, start, end in gaps:
        gain = TOPIC_WEIGHT * change.get(id(line), 0.0)
        gain += float(np.clip(np.log2((end - start) / usual_s), -1, 1.5))
        gain += SENTENCE_WEIGHT * line.text.strip().endswith(tuple(SENTENCE_END))
        gain -= FRAGMENT_COST * (line.end_s - line.start_s < FRAGMENT_S)
        near = [t for t in shots if start - NEAR_S <= t <= end + NEAR_S]
        cuts += [Cut(round(t, 3), gain + SHOT_WEIGHT * bool(near)) for t in near or [(start + end) / 2]]
    return cuts


def _lone_shots(lines: Sequence[tuple[float, float]], shots: Sequence[float]) -> list[Cut]:
    """Shot changes away from speech; one while somebody is speaking is an illustration, not a new step."""
    return [Cut(round(t, 3), SHOT_WEIGHT) for t in shots if not _in_speech(t, lines)]


def _best_edges(end_s: float, cuts: Sequence[Cut], min_step_s: float, max_step_s: float) -> list[float]:
    """Edges 0 < ... < end_s of the steps with the greatest sum of gains less costs, each step within the bounds."""
    gains = {0.0: 0.0, end_s: 0.0}
    for cut in cuts:
        gains[cut.time_s] = max(cut.gain, gains.get(cut.time_s, -np.inf))
    times = np.array(sorted(gains))
    best, previous = np.full(len(times), -np.inf), np.zeros(len(times), int)
    best[0], shortest_s = 0.0, min(min_step_s, end_s)
    for j in range(1, len(times)):
        first, stop = np.searchsorted(times, [times[j] - max_step_s - 1e-3, times[j] - shortest_s + 1e-3])
        i = np.arange(first, min(stop, j))
        if len(i):
            value = best[i] - LENGTH_COST * np.log((times[j] - times[i]) / TYPICAL_STEP_S) ** 2 + gains[times[j]]
            best[j], previous[j] = value.max(), i[value.argmax()]
    edges = [len(times) - 1]
    while edges[-1]:
        edges.append(int(previous[edges[-1]]))
    return [float(times[e]) for e in reversed(edges)]


def _step(number: int, start_s: float, end_s: float, subtitles: Sequence[Subtitle], last: bool) -> RawStep:
    middles = [(s.id, (s.start_s + s.end_s) / 2) for s in subtitles]
    ids = [i for i, at in middles if start_s <= at < end_s or (last and at >= end_s)]
    return RawStep(step=number, step_zh="", step_en="", ASR_id=ids, startTime=format_time(start_s), endTime=format_time(end_s))

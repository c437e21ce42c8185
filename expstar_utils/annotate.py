"""Steps of a raw video: cut where the speaker pauses and where the picture changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from expstar_utils.media import probe
from expstar_utils.records import RawStep, Subtitle, format_time
from expstar_utils.speech import SENTENCE_END

THUMB_PX = (64, 36)       # (width, height): small enough that camera noise and small motion average out
SAMPLE_S = 0.1            # a thumbnail every so many seconds
TYPICAL_STEP_S = 9.0      # a published step is about so long; only the middle of a broad preference
LENGTH_COST = 0.8         # of a step e times longer or shorter than that
SHOT_WEIGHT, SENTENCE_WEIGHT = 0.6, 0.2   # what a cut gains, next to 1 for a pause of twice the usual length
IN_SPEECH_COST = 3.0      # of a cut through a spoken line: only the longest allowed step forces one
SHORT_SPEECH_S, SHORT_SPEECH_COST = 2.0, 0.8  # a step with hardly a word said is a title or an aside
NEAR_S = 0.6              # a shot change so close to a pause belongs to it
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
        list of seconds from the first frame, increasing, at least 0.5 apart.

    Raises:
        ExpStarError: the file is not a readable video.
    """
    probe(path)
    times, thumbs = _thumbnails(path)
    if len(thumbs) < 3:
        return []
    after = np.concatenate([thumbs[2:], thumbs[-1:]])
    jump = np.minimum(_difference(thumbs[:-1], thumbs[1:]), _difference(thumbs[:-1], after))
    found: list[float] = []
    for i in np.flatnonzero(jump >= threshold):
        around = np.delete(jump[max(i - 5, 0):i + 6], min(i, 5))
        if jump[i] >= 3 * np.median(around) and jump[i] >= around.max() and (not found or times[i + 1] - found[-1] >= 0.5):
            found.append(round(float(times[i + 1]), 3))
    return found


def _thumbnails(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times float [n] in seconds and thumbnails uint8 [n, height, width, 3]; a damaged tail ends them quietly."""
    times, thumbs = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                at = float((frame.pts - (stream.start_time or 0)) * stream.time_base) if frame.pts is not None else None
                if at is not None and (not times or at - times[-1] >= SAMPLE_S - 1e-3):
                    times.append(at)
                    thumbs.append(frame.reformat(*THUMB_PX, format="rgb24", interpolation="AREA").to_ndarray())
        except av.FFmpegError:
            pass
    return np.array(times), np.array(thumbs)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of thumbnails in [0, 1], float [n], for two stacks uint8 [n, height, width, 3]."""
    pixels = np.abs(a.astype(np.int16) - b).mean(axis=(1, 2, 3)) / 255
    histograms = [np.stack([np.bincount((x // 16).ravel(), minlength=16) for x in stack]) for stack in (a, b)]
    spread = np.abs(histograms[0] - histograms[1]).sum(axis=1) / (2 * a[0].size)
    return np.sqrt(pixels * spread)


def split_steps(duration_s: float, subtitles: Sequence[Subtitle], shots: Sequence[float], min_step_s: float = 3.0,
                max_step_s: float = 20.0) -> list[RawStep]:
    """Steps that together cover a video, cut at its longest pauses, shot changes and ends of sentences.

    The best set of cuts is found by dynamic programming: each cut brings its gain, each step costs the more the further
    its length is from the typical one.

    Args:
        duration_s: of the video, > 0.
        subtitles: what is said, in order of time; may be empty.
        shots: times of shot changes, seconds; may be empty. With neither, the video is cut into equal parts.
        min_step_s, max_step_s: bounds on a step's length, max >= 2 * min. A shorter video is one step.

    Returns:
        list of RawStep: numbered from 1, each ending where the next starts, with the ids of the lines spoken in it
        (a line belongs to the step that holds its middle); `step_zh` and `step_en` are empty.

    Raises:
        ValueError: bounds or duration out of range.
    """
    if not (duration_s > 0 and min_step_s > 0 and 2 * min_step_s <= max_step_s):
        raise ValueError(f"found duration {duration_s}, steps of {min_step_s} to {max_step_s} s, expected a duration > 0 and max >= 2 * min")
    end_s = math.floor(duration_s * 1000 + 1e-6) / 1000  # whole milliseconds, as in the file
    lines = _merged([(min(s.start_s, end_s), min(s.end_s, end_s)) for s in subtitles])
    cuts = _equal_parts(end_s, min_step_s, max_step_s)
    if lines or shots:
        cuts += _grid(end_s, lines) + _pauses(subtitles, shots) + _lone_shots(lines, shots)
    edges = _best_edges(end_s, [c for c in cuts if 0 < c.time_s < end_s], lines, min_step_s, max_step_s)
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


def _equal_parts(end_s: float, min_step_s: float, max_step_s: float) -> list[Cut]:
    """Cuts into equal parts of about the typical length: the answer without any hint, and always within the bounds."""
    parts = min(max(round(end_s / TYPICAL_STEP_S), math.ceil(end_s / max_step_s - 1e-9)), math.floor(end_s / min_step_s + 1e-9))
    return [Cut(round(end_s * i / parts, 3), -IN_SPEECH_COST) for i in range(1, parts)]


def _in_speech(time_s: float, lines: Sequence[tuple[float, float]]) -> bool:
    return any(start < time_s < end for start, end in lines)


def _grid(end_s: float, lines: Sequence[tuple[float, float]]) -> list[Cut]:
    times = np.arange(GRID_S, end_s, GRID_S).round(3)
    return [Cut(float(t), -IN_SPEECH_COST if _in_speech(t, lines) else -1.0) for t in times]


def _pauses(subtitles: Sequence[Subtitle], shots: Sequence[float]) -> list[Cut]:
    """A cut in each pause: where the shot changes in it, else in its middle. Gain: log2 of its length over the usual one."""
    spoken = sorted(subtitles, key=lambda s: s.start_s)
    gaps = [(a.end_s, b.start_s, a.text.strip().endswith(tuple(SENTENCE_END))) for a, b in pairwise(spoken) if b.start_s > a.end_s]
    usual = float(np.median([b - a for a, b, _ in gaps])) if gaps else 1.0
    cuts = []
    for start, end, sentence in gaps:
        near = [t for t in shots if start - NEAR_S <= t <= end + NEAR_S]
        gain = float(np.clip(np.log2((end - start) / usual), -1, 1.5)) + SENTENCE_WEIGHT * sentence + SHOT_WEIGHT * bool(near)
        within = [t for t in near if start <= t <= end] or [(start + end) / 2]
        cuts += [Cut(round(t, 3), gain) for t in within]
    return cuts


def _lone_shots(lines: Sequence[tuple[float, float]], shots: Sequence[float]) -> list[Cut]:
    """Shot changes away from speech; one while somebody is speaking is an illustration, not a new step."""
    return [Cut(round(t, 3), SHOT_WEIGHT) for t in shots if not _in_speech(t, lines)]


def _best_edges(end_s: float, cuts: Sequence[Cut], lines: Sequence[tuple[float, float]], min_step_s: float,
                max_step_s: float) -> list[float]:
    """Edges 0 < ... < end_s of the steps with the greatest sum of gains less costs, each step within the bounds."""
    gains = {0.0: 0.0, end_s: 0.0}
    for cut in cuts:
        gains[cut.time_s] = max(cut.gain, gains.get(cut.time_s, -np.inf))
    times = np.array(sorted(gains))
    spoken_s = sum((np.clip(times - a, 0, b - a) for a, b in lines), np.zeros(len(times)))
    best, previous = np.full(len(times), -np.inf), np.zeros(len(times), int)
    best[0] = 0.0
    shortest = min(min_step_s, end_s)
    for j in range(1, len(times)):
        i = np.arange(*np.searchsorted(times, [times[j] - max_step_s - 1e-6, times[j] - shortest + 1e-6]))
        if len(i):
            value = best[i] - _step_cost(times[j] - times[i], spoken_s[j] - spoken_s[i]) + gains[times[j]]
            best[j], previous[j] = value.max(), i[value.argmax()]
    edges = [len(times) - 1]
    while edges[-1]:
        edges.append(int(previous[edges[-1]]))
    return [float(times[e]) for e in reversed(edges)]


def _step_cost(length_s: np.ndarray, spoken_s: np.ndarray) -> np.ndarray:
    hardly_spoken = (spoken_s > 0) & (spoken_s < SHORT_SPEECH_S)
    return LENGTH_COST * np.log(length_s / TYPICAL_STEP_S) ** 2 + SHORT_SPEECH_COST * hardly_spoken


def _step(number: int, start_s: float, end_s: float, subtitles: Sequence[Subtitle], last: bool) -> RawStep:
    middles = [(s.id, (s.start_s + s.end_s) / 2) for s in subtitles]
    ids = [i for i, at in middles if start_s <= at < end_s or (last and at >= end_s)]
    return RawStep(step=number, step_zh="", step_en="", ASR_id=ids, startTime=format_time(start_s), endTime=format_time(end_s))

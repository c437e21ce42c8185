"""The sound of a captioned video: the video's own, silent where its picture is held, lowered where a note is spoken over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from math import gcd
from pathlib import Path

import av
import numpy as np

RATE_HZ = 48_000
LAYOUTS = {1: "mono", 2: "stereo"}
LOWERED = 0.1  # what is left of the video's own sound under speech
FADE_S = 0.15
SLIP_S = 0.03  # by so much a block may come too early or too late before it is moved
Speech = Sequence[tuple[int, np.ndarray]]  # (start_ms, float32 [n] at RATE_HZ)


def resampled(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """A sound, float32 [n] at `rate_hz`, at RATE_HZ."""
    from scipy.signal import resample_poly  # half a second, which a demo without a voice would wait for
    common = gcd(RATE_HZ, rate_hz)
    return resample_poly(sound, RATE_HZ // common, rate_hz // common).astype(np.float32) if len(sound) else sound


def frames(video: Path, origin_s: float, end_s: float, holds: Sequence[tuple[int, int]], speech: Speech,
           channels: int) -> Iterator[av.AudioFrame]:
    """The sound as it is to be encoded: fltp at RATE_HZ, mono or stereo, from 0 to `end_s` of the film that is shown.

    Args:
        origin_s: the time in the file of its first picture. holds: see `subtitles.Plan`. channels: 1 or 2.
    """
    own = filled(held(_own(video, origin_s, channels), holds), round(end_s * RATE_HZ), channels)
    at = 0
    for block in spoken_over(own, speech):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=LAYOUTS[channels])
        frame.pts, frame.rate, frame.time_base = at, RATE_HZ, Fraction(1, RATE_HZ)
        at += block.shape[1]
        yield frame


def _own(video: Path, origin_s: float, channels: int) -> Iterator[tuple[int, np.ndarray]]:
    """(place, float32 [channels, n]) of the file's first sound; places are samples from its first picture, increasing."""
    with av.open(str(video)) as source:
        if not source.streams.audio:
            return
        resampler, due = av.AudioResampler("fltp", LAYOUTS[channels], RATE_HZ), None
        for frame in chain(source.decode(source.streams.audio[0]), [None]):  # None empties the resampler
            if frame is not None:
                place = round(((frame.time or 0) - origin_s) * RATE_HZ)
                due = place if due is None or abs(place - due) > SLIP_S * RATE_HZ else due
            for part in resampler.resample(frame) if due is not None else []:
                yield due, part.to_ndarray()
                due += part.samples


def held(blocks: Iterable[tuple[int, np.ndarray]], holds: Sequence[tuple[int, int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks at the places where they are heard, cut where the picture is held."""
    cuts = [at * RATE_HZ // 1000 for at, _ in holds]
    waits = np.cumsum([0, *(wait * RATE_HZ // 1000 for _, wait in holds)]).tolist()
    for place, block in blocks:
        edges = [place, *(cut for cut in cuts if place < cut < place + block.shape[1]), place + block.shape[1]]
        for start, end in pairwise(edges):
            yield start + waits[sum(cut <= start for cut in cuts)], block[:, start - place:end - place]


def filled(blocks: Iterable[tuple[int, np.ndarray]], length: int, channels: int) -> Iterator[np.ndarray]:
    """Blocks one after another from 0 to `length`, with silence between them; what would overlap or pass the end is cut."""
    at = 0
    for place, block in blocks:
        yield from _silence(min(place, length) - at, channels)
        at = max(at, min(place, length))
        block = block[:, max(at - place, 0):max(length - place, 0)]
        if block.shape[1]:
            yield block
            at += block.shape[1]
    yield from _silence(length - at, channels)


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    for start in range(0, samples, RATE_HZ):
        yield np.zeros((channels, min(RATE_HZ, samples - start)), np.float32)


def spoken_over(blocks: Iterable[np.ndarray], speech: Speech) -> Iterator[np.ndarray]:
    """Blocks with speech in front and their own sound lowered under it."""
    spans = [(ms * RATE_HZ // 1000, sound) for ms, sound in speech if len(sound)]
    at, fade = 0, round(FADE_S * RATE_HZ)
    for block in blocks:
        end, gain, said = at + block.shape[1], np.ones(block.shape[1]), np.zeros(block.shape[1])
        for start, sound in spans:
            stop = start + len(sound)
            if start - fade < end and at < stop + fade:
                edges = [start - fade, start, stop, stop + fade]
                gain = np.minimum(gain, np.interp(np.arange(at, end), edges, [1, LOWERED, LOWERED, 1]))
            if (low := max(start, at)) < (high := min(stop, end)):
                said[low - at:high - at] += sound[low - start:high - start]
        yield np.clip(block * gain + said, -1, 1).astype(np.float32)
        at = end

"""One frame a second of a long film: ours decodes what is wanted and what that needs, theirs reads every frame with OpenCV.

Both keep the same frames. `cached_s` is ours from the second time on, at the model's resolution, from the frames kept on disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.long_video import long_video
from benchmarks.timing import in_turn, options, report
from expstar_utils.clips import kept_frames
from expstar_utils.media import sample_frames

SIZE_PX = (128, 128)
ALL = 1_000_000


def theirs(video: Path, wanted: set[int]) -> list[np.ndarray]:
    """The frames with these numbers, BGR."""
    capture, kept, number = cv2.VideoCapture(str(video)), [], 0
    while True:
        there, frame = capture.read()
        if not there:
            return kept
        if number in wanted:
            kept.append(frame)
        number += 1


def main() -> None:
    """Run both and report."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--video", type=Path, help="an H.264 film (default: one that is made from the sample)")
    given = parser.parse_args()
    video = given.video or long_video()
    frames = sample_frames(video, fps=1.0, max_frames=ALL)
    reference = theirs(video, set(frames.indices.tolist()))
    assert len(reference) == len(frames.pixels), f"{len(reference)} frames, ours {len(frames.pixels)}"
    differing = [np.abs(mine.astype(np.int16) - other[..., ::-1]).max() for mine, other in zip(frames.pixels, reference)]
    wanted = set(frames.indices.tolist())
    del frames, reference
    medians = in_turn({"ours": lambda: sample_frames(video, fps=1.0, max_frames=ALL), "theirs": lambda: theirs(video, wanted)},
                      given.runs, (lambda _: None) if given.json else print)
    with tempfile.TemporaryDirectory() as cache:
        seconds = []
        for _ in range(given.runs + 1):
            started = time.perf_counter()
            kept_frames(Path(cache), video, fps=1.0, max_frames=ALL, size_px=SIZE_PX)
            seconds.append(time.perf_counter() - started)
    cached_s = float(np.median(seconds[1:]))
    report("sample_frames", medians, given.runs, frames=len(wanted), largest_difference=int(max(differing)),
           cached_s=round(cached_s, 4), cached_ratio=round(medians["theirs"] / cached_s, 1))


if __name__ == "__main__":
    main()

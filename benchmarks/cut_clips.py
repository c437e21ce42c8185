"""Twelve step clips out of a long film: ours copies whole groups of pictures, theirs encodes each with one ffmpeg call.

Both must give the same number of frames with the same first and last one (up to what their encoders lose).
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from benchmarks.long_video import long_video
from benchmarks.timing import in_turn, options, report
from expstar_utils.cutting import Clip, cut_clips
from expstar_utils.media import probe

COUNT, LENGTH_S = 12, 34.0
LEAST_PSNR_DB = 30.0


def theirs(video: Path, clips: list[Clip]) -> None:
    """One call a clip, as in the published preparation."""
    for clip in clips:
        span = ["-ss", str(clip.start_s), "-to", str(clip.end_s)]
        command = [get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(video), *span, "-c:v", "libx264", "-c:a", "aac",
                   str(clip.path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def ends(path: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """(number of frames, first, last) of a clip, uint8 [height, width, 3]."""
    with av.open(str(path)) as container:
        count, first, last = 0, None, None
        for last in container.decode(video=0):
            count, first = count + 1, first or last
        return count, first.to_ndarray(format="rgb24"), last.to_ndarray(format="rgb24")


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures, dB."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def main() -> None:
    """Run both and report."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--video", type=Path, help="an H.264 film (default: one that is made from the sample)")
    given = parser.parse_args()
    say = (lambda _: None) if given.json else print
    video = given.video or long_video()
    info = probe(video)
    starts = np.round(np.linspace(0.5, info.duration_s - LENGTH_S - 0.5, COUNT) * info.fps) / info.fps  # where a frame begins
    with tempfile.TemporaryDirectory() as folder:
        named = {side: [Clip(float(s), float(s) + LENGTH_S, Path(folder) / f"{side}-{i}.mp4") for i, s in enumerate(starts)]
                 for side in ("ours", "theirs")}
        medians = in_turn({"ours": lambda: cut_clips(video, named["ours"]), "theirs": lambda: theirs(video, named["theirs"])},
                          given.runs, say)
        worst_db = np.inf
        for one, other in zip(named["ours"], named["theirs"], strict=True):
            (count, *mine), (wanted, *reference) = ends(one.path), ends(other.path)
            assert count == wanted, f"clip at {one.start_s} s has {count} frames, theirs {wanted}"
            worst_db = min(worst_db, *map(psnr_db, mine, reference))
        assert worst_db > LEAST_PSNR_DB, f"first or last frames differ: {worst_db:.1f} dB"
    report("cut_clips", medians, given.runs, clips=COUNT, clip_s=LENGTH_S, worst_psnr_db=round(worst_db, 1))


if __name__ == "__main__":
    main()

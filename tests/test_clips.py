"""Frames that are kept are those that were sampled, and nothing stale or torn is ever read."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from expstar_utils.clips import clip_frames, kept_frames
from expstar_utils.miniatures import noise_clip
from expstar_utils.records import ExpStarError, VirtualClip
from expstar_utils.sizes import Pixels


def same(a, b) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "times_s", "indices"))
    return arrays and (a.start_s, a.end_s, a.fps) == (b.start_s, b.end_s, b.fps)


@pytest.fixture
def film(tmp_path) -> Path:
    return noise_clip(tmp_path / "film.mp4", 3, 0)


def test_kept_frames_are_those_that_were_sampled(film, tmp_path):
    how = {"fps": 3.0, "max_frames": 5, "size_px": (32, 48)}
    for clip in ("film.mp4", VirtualClip(video="film.mp4", start=0.3, end=1.7)):
        fresh = clip_frames(clip, tmp_path, **how)
        for _ in range(2):
            assert same(clip_frames(clip, tmp_path, **how, cache=tmp_path / "kept"), fresh)
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 2
    assert not list((tmp_path / "kept").rglob("*.part"))


def test_what_is_kept_is_read_and_not_decoded_again(film, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPSTAR_FRAMES", str(tmp_path / "kept"))
    first = clip_frames("film.mp4", tmp_path, fps=2.0, max_frames=4)
    monkeypatch.setattr("expstar_utils.clips.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
    assert same(clip_frames("film.mp4", tmp_path, fps=2.0, max_frames=4), first)


def test_another_request_or_a_changed_video_is_decoded(film, tmp_path):
    def frames(*span, **changes):
        return kept_frames(tmp_path / "kept", film, *span, **{"fps": 2.0, "max_frames": 4} | changes)
    seen = [frames(), frames(max_frames=3), frames(0.5, 1.5), frames(size_px=(8, 8)),
            *(frames(size_px=Pixels(frame=frame, multiple=multiple)) for frame, multiple in ((800, 28), (500, 4), (500, 3)))]
    noise_clip(film, 1, 1)
    seen.append(frames())
    assert not any(same(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_frames_that_were_kept_are_found_again_by_whoever_asks_as_before(film, tmp_path):
    """The name of a file hangs on the text of a size: that of a height and a width, and of none, is the one it always was."""
    state = film.stat()
    for size in ((8, 8), None):
        kept_frames(tmp_path / "kept", film, 0.5, 1.5, fps=2.0, max_frames=4, size_px=size)
        asked = (str(film), (state.st_size, state.st_mtime_ns), (0.5, 1.5), [("fps", 2.0), ("max_frames", 4), ("size_px", size)])
        digest = hashlib.sha256(repr(asked).encode()).hexdigest()
        assert (tmp_path / "kept" / digest[:2] / f"{digest}.npz").is_file()


def test_a_torn_file_of_kept_frames_is_made_again(film, tmp_path):
    fresh = kept_frames(tmp_path / "kept", film, fps=2.0, max_frames=4)
    [kept] = (tmp_path / "kept").rglob("*.npz")
    whole = kept.read_bytes()
    for torn in (b"", whole[:100], whole[:len(whole) // 2], b"nothing like it"):
        kept.write_bytes(torn)
        assert same(kept_frames(tmp_path / "kept", film, fps=2.0, max_frames=4), fresh)
    assert kept.read_bytes() == whole


def test_bad_video_and_bad_clip_are_named_with_a_cache_too(film, tmp_path):
    with pytest.raises(ExpStarError, match="no such file"):
        kept_frames(tmp_path / "kept", tmp_path / "gone.mp4", fps=1.0, max_frames=4)
    with pytest.raises(ExpStarError, match="expected a start before the end"):
        kept_frames(tmp_path / "kept", film, 99.0, 100.0, fps=1.0, max_frames=4)
    assert not list((tmp_path / "kept").rglob("*.npz"))

"""Changed frames: the same seed the same way, all frames of a clip alike, everything still in its place."""

import numpy as np
import pytest
import torch
from small_runs import small_profile

from expstar_utils import models
from expstar_utils.augmentation import augmented
from expstar_utils.batches import VideoCollator
from expstar_utils.media import Frames
from expstar_utils.records import Message, Sample


def clip(count=3, side=64):
    """Frames with a red square on the left, which grows, before a grey wall."""
    pixels = np.full((count, side, side, 3), 120, np.uint8)
    for n in range(count):
        pixels[n, 24:40, 8:20 + 4 * n] = [230, 20, 20]
    return Frames(pixels, np.arange(count) / 1.0, np.arange(count), 0.0, float(count))


def centre(picture):
    """Mean place (y, x) of what is red, 0..1."""
    red = (picture[..., 0].astype(int) - picture[..., 1]) > 100
    return np.argwhere(red).mean(0) / len(picture)


def test_a_seed_gives_one_picture_and_another_seed_another():
    frames = clip()
    once, again, other = augmented(frames, 1), augmented(frames, 1), augmented(frames, 2)
    assert once.pixels.dtype == np.uint8
    assert once.pixels.shape == frames.pixels.shape
    np.testing.assert_array_equal(once.pixels, again.pixels)
    assert np.abs(once.pixels.astype(int) - other.pixels).mean() > 5
    assert (frames.pixels[0, 0, 0] == 120).all()
    assert (once.times_s == frames.times_s).all()
    assert once.end_s == frames.end_s


@pytest.mark.parametrize("seed", range(8))
def test_left_stays_left_red_stays_red_and_frames_move_together(seed):
    still = clip()
    still.pixels[:] = still.pixels[:1]
    changed = augmented(still, seed).pixels
    places = [centre(picture) for picture in changed]
    assert places[0][1] < 0.5
    np.testing.assert_allclose(places[1:], [places[0]] * 2, atol=0.02)
    assert np.abs(places[0] - centre(still.pixels[0])).max() < 0.2


def test_rows_of_one_clip_are_changed_each_in_its_way(base, root):
    model, processor = models.load(str(base))
    messages = [Message(role="user", content="<video>\n"), Message(role="assistant", content="A flame.")]
    rows = [Sample(id=f"c_{n}", messages=messages, videos=["0.mp4"]) for n in range(2)]
    end = models.quirks(model, processor).turn_end

    def batch(augment):
        collate = VideoCollator(processor, rows, root, small_profile(base, augment=augment), end)
        return collate([{"row": 0}, {"row": 1}])
    plain, changed, again = batch(False), batch(True), batch(True)
    key = next(k for k in plain if k.startswith("pixel_values"))
    half = len(plain[key]) // 2
    assert torch.equal(plain[key][:half], plain[key][half:])
    assert not torch.equal(changed[key][:half], changed[key][half:])
    assert torch.equal(changed[key], again[key])
    assert torch.equal(plain["input_ids"], changed["input_ids"])

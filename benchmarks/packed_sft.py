"""One SFT step of the K rows of a step, packed behind their prefix (ours) or apart, as TRL takes them (theirs).

Both sides are TRL's trainer with our collator and our scoring of the trained tokens alone, which TRL does not have: the ratio is
that of packing and of nothing else. `efficiency` is the share of the ceiling K (P + S) / (P + K S) that was reached.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.shaped import CLIP, STEPS, Shape, benchmark_profile, clip, loaded, rows_of, run_shapes, steps_in_turn
from expstar_utils.training import VideoSFTTrainer, sft_trainer


def trainer_of(given: Any, shape: Shape, packed: bool, folder: Path) -> VideoSFTTrainer:
    """A trainer of one step over the rows of a shape."""
    model, processor = loaded(given)
    profile = benchmark_profile(given, packed=packed, batch_size=1 if packed else shape.branches)
    rows = rows_of(model, processor, clip(profile), shape)
    return sft_trainer(model, processor, rows, CLIP.parent, profile, folder, given.base, max_steps=STEPS)


def measured(given: Any, shape: Shape, say: Any) -> dict[str, Any]:
    """Medians of both sides; the losses must be the same."""
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {name: trainer_of(given, shape, name == "ours", Path(scratch) / name) for name in ("ours", "theirs")}
        return steps_in_turn(trainers, given.runs, say) | {"ceiling": round(shape.ceiling, 2)}


if __name__ == "__main__":
    run_shapes("packed_sft", __doc__, measured)

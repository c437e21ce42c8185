"""One DPO step of a pair, packed behind its prompt (ours) or apart, as TRL takes it (theirs); reference included.

Both sides are TRL's trainer with our collator and our scoring of the trained tokens alone, which TRL does not have: the ratio is
that of packing and of nothing else. `efficiency` is the share of the ceiling 2 (P + S) / (P + 2 S) that was reached.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.shaped import CLIP, STEPS, Shape, benchmark_profile, clip, loaded, pair_of, rows_of, run_shapes, steps_in_turn
from expstar_utils.preferences import VideoDPOTrainer, dpo_trainer


def trainer_of(given: Any, shape: Shape, packed: bool, folder: Path) -> VideoDPOTrainer:
    """A trainer of one step over one pair."""
    model, processor = loaded(given)
    profile = benchmark_profile(given, packed=packed)
    pair = pair_of(rows_of(model, processor, clip(profile), shape))
    return dpo_trainer(model, processor, [pair], CLIP.parent, profile, folder, given.base, max_steps=STEPS)


def measured(given: Any, shape: Shape, say: Any) -> dict[str, Any]:
    """Medians of both sides; the losses must be the same."""
    shape = dataclasses.replace(shape, branches=2)
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {name: trainer_of(given, shape, name == "ours", Path(scratch) / name) for name in ("ours", "theirs")}
        return steps_in_turn(trainers, given.runs, say) | {"ceiling": round(shape.ceiling, 2)}


if __name__ == "__main__":
    run_shapes("packed_dpo", __doc__, measured)

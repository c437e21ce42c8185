"""One SFT step of a step's packed rows with the parts of the layers compiled (ours), or as they are (theirs).

Both sides are the same trainer on the same rows. Compiling (some ten seconds, kept on disk) is not counted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.packed_sft import trainer_of
from benchmarks.shaped import Shape, run_shapes, steps_in_turn


def measured(given: Any, shape: Shape, say: Any) -> dict[str, Any]:
    """Medians of both sides; the losses must be the same, but for what 16 bits round away."""
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {name: trainer_of(given, shape, True, Path(scratch) / name) for name in ("ours", "theirs")}
        return steps_in_turn(trainers, given.runs, say, lambda name: {"packed": True, "compiled": name == "ours"})


if __name__ == "__main__":
    run_shapes("compiled", __doc__, measured)

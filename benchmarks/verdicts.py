"""Verdicts on K passages: the prefix read once and branched (ours), or the whole prompt for every call (theirs), as published.

Both give the same probabilities (`largest_difference`). `efficiency` is the share of the ceiling K (P + S) / (P + K S) that was
reached.
"""

from __future__ import annotations

from typing import Any

from benchmarks.shaped import Shape, benchmark_profile, clip, loaded, rows_of, run_shapes
from benchmarks.timing import in_turn
from expstar_utils.decoding import Decoder
from expstar_utils.encoding import between_turns, encode_prefix, text_ids
from expstar_utils.inference import retrieval_prob
from expstar_utils.models import quirks
from expstar_utils.prompts import IRRELEVANT, RELEVANT
from expstar_utils.rereading import RereadingDecoder


def measured(given: Any, shape: Shape, say: Any) -> dict[str, Any]:
    """Medians of both sides; the probabilities must be the same."""
    model, processor = loaded(given)
    family, frames = quirks(model, processor), clip(benchmark_profile(given))
    rows = rows_of(model, processor, frames, shape)
    prefix = encode_prefix(processor, rows[0].messages[:2], frames)
    opened = text_ids(processor, rows[0].messages[2].content + family.turn_end)
    turns = [between_turns(processor, row.messages[3], family.turn_end) for row in rows]
    verdicts = [text_ids(processor, f"{word}\n") for word in (RELEVANT, IRRELEVANT)]
    found = {}

    def judge(name: str, decoder: Decoder) -> None:
        """Read the prefix and judge every passage."""
        [state] = decoder.extend([decoder.prefill(prefix)], [opened])
        _, scores = decoder.judge([state] * len(turns), turns, verdicts)
        found[name] = [retrieval_prob(*pair) for pair in scores]
    sides = {"ours": Decoder(model, family.axes), "theirs": RereadingDecoder(model, family.axes)}
    for name, decoder in sides.items():
        judge(name, decoder)
    medians = in_turn({name: lambda name=name: judge(name, sides[name]) for name in sides}, given.runs, say)
    apart = max(abs(a - b) for a, b in zip(found["ours"], found["theirs"], strict=True))
    return {**medians, "ceiling": round(shape.ceiling, 2), "largest_difference": round(apart, 5)}


if __name__ == "__main__":
    run_shapes("verdicts", __doc__, measured)

"""What the benchmarks measured: how many times as fast, at what was asked, and in what the answers differ."""

from __future__ import annotations

from typing import Any

from expstar_utils.figures.numbers import Numbers
from expstar_utils.figures.style import COLUMN_IN, OWN, PT, TEXT_PT, Drawing, Labels, in_style, panels, width_pt
from expstar_utils.figures.tables import Block, Table, shown

TASKS = {  # benchmark -> (what was asked, what it is compared with); braces take values of its result
    "cut_clips": ("cut {clips} clips of {clip_s:g} s", "one ffmpeg call a clip"),
    "sample_frames": ("sample {frames} frames of a film", "OpenCV, every frame read"),
    "encode_kb": ("encode {passages} passages", "one text a call, float32"),
    "search": ("nearest 8 of {vectors:,} vectors", "exact comparison with all"),
    "packed_sft": ("SFT step, rows share a prefix", "rows apart"),
    "compiled": ("SFT step, layers compiled", "the same, not compiled"),
    "packed_dpo": ("DPO step, pair shares a prompt", "answers apart"),
    "verdicts": ("verdicts on a step's passages", "the whole prompt for each"),
    "metrics": ("report on {rows} rows, {groups} groups", "each library anew for each group")}
DIFFERENCES = {"recall_at_8": "recall@8 {}", "same_top8": "same top 8 {}", "worst_psnr_db": "PSNR {} dB at worst",
               "loss_difference": "loss, {}", "largest_difference": "{} at most"}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
VALUE_PT = 30  # room behind the longest bar, for its number


@in_style
def bars(numbers: Numbers, labels: Labels) -> Drawing:
    """How many times as fast as the alternative, for what was asked."""
    rows = sorted(numbers["speed"], key=lambda row: row["ratio"])
    names, ratios = [task(row)[0] for row in rows], [row["ratio"] for row in rows]
    figure, axes = panels(0.55 + 0.2 * len(rows))
    axis = axes[0, 0]
    axis.barh(names, [ratio - 1 for ratio in ratios], left=1, height=0.62, **OWN)
    for at, ratio in enumerate(ratios):
        axis.annotate(f"{times(ratio)}×", (max(ratio, 1), at), (3, 0), textcoords="offset points", va="center")
    room, highest = COLUMN_IN * PT - max(map(width_pt, names)) - 20, max(1.5, *ratios)
    axis.set(xscale="log", xlim=(min(1, *(0.8 * ratio for ratio in ratios)), highest ** (room / max(room - VALUE_PT, 1))))
    ticks = [tick for tick in TICKS if min(1, *ratios) <= tick <= highest]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.axvline(1, color="black", linewidth=0.6)
    figure.supxlabel("times as fast as the alternative (1: equal)", fontsize=TEXT_PT)
    return Drawing("speed", figure, f"Speed against the alternative on the same machine ({_devices(rows)}), by what was asked. "
                   "What each is compared with, and in what the answers differ, stands in the table of the benchmarks.")


def table(numbers: Numbers, labels: Labels) -> Drawing:
    """Seconds of both sides, and in what their answers differ."""
    rows = [[*task(row), shown(float(row["ours_s"])), shown(float(row["theirs_s"])), times(row["ratio"]), str(row["runs"]),
             difference(row) or "none"] for row in numbers["speed"]]
    return Table("speed_table", "Benchmarks: median seconds of both sides, which ran in turn.",
                 ["Task", "Compared with", "Ours, s", "Theirs, s", "Ratio", "Runs", "Answers differ by"],
                 [Block(f"Measured by us on {_devices(numbers['speed'])}", rows, own=True)], align="llrrrrl").drawing()


def task(row: dict[str, Any]) -> tuple[str, str]:
    """What a benchmark asked, and what it was compared with."""
    asked, against = TASKS.get(row["name"], (row["name"].replace("_", " "), "the alternative"))
    try:
        return asked.format(**row), against
    except (KeyError, ValueError):
        return row["name"].replace("_", " "), against


def times(ratio: float) -> str:
    """A ratio with the digits that mean something."""
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def difference(row: dict[str, Any]) -> str:
    """In what the answers of a benchmark's two sides differ, as far as it was measured; "" where they do not."""
    found = []
    for key, text in DIFFERENCES.items():
        value = row.get(key)
        value = max(value.values(), default=0) if isinstance(value, dict) else value
        if value:
            found.append(text.format(f"{value:.2g}" if value < 0.1 else f"{value:g}"))
    return ", ".join(found)


def _devices(rows: list[dict[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(row.get("device", "a machine without a name") for row in rows))

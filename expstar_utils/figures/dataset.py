"""Pictures of a data set: what it is about, how many steps a video has and how long a step is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from expstar_utils.figures.numbers import Numbers
from expstar_utils.figures.style import (
    COLUMN_IN,
    GREEN,
    GREY,
    ORANGE,
    OWN,
    PT,
    PUBLISHED,
    SKY,
    TEXT_PT,
    TITLE_PT,
    Drawing,
    Labels,
    folded,
    in_style,
    page,
    panels,
    width_pt,
)
from expstar_utils.published import published
from expstar_utils.records import DISCIPLINES

COLORS = {"Science": ORANGE, "Healthcare": SKY, "Engineering": GREEN, "other": GREY}
CENTRE_PT, RIM_PT, LINE_PT = 34, 116, 7.3  # radii of the inner ring's and the outer ring's edge; height of a line
HEAD_PT, FOOT_PT = 15, 13


@in_style
def published_sunburst(numbers: Numbers, labels: Labels) -> Drawing:
    """The paper's disciplines by their clips; it names the subjects and does not count them."""
    clips = {row["group"]: int(row["value"]) for row in published("dataset_statistics") if row["row"] == "Video Clips"}
    total = clips.pop("Total")
    shares = {name: dict.fromkeys(DISCIPLINES[name], clips[name] / len(DISCIPLINES[name])) for name in clips}
    figure, _ = _sunburst(f"ExpInstruct (published): {total:,} clips", clips, shares, "white: subjects, not counted in the paper")
    return Drawing("sunburst_published", figure, "ExpInstruct, published: clips by discipline. The paper names the subjects and "
                   "does not count their clips: the white sectors of a discipline are of equal size and are not data.")


@in_style
def own_sunburst(numbers: Numbers, labels: Labels) -> Drawing:
    """Our disciplines and subjects by their clips."""
    subjects = numbers["subjects"]
    placed = {name: {s: subjects[s] for s in names if s in subjects} for name, names in DISCIPLINES.items()}
    known = {s for names in DISCIPLINES.values() for s in names}
    placed["other"] = {s: n for s, n in subjects.items() if s not in known}
    placed = {name: found for name, found in placed.items() if found}
    clips = {name: sum(found.values()) for name, found in placed.items()}
    figure, unnamed = _sunburst(f"{labels.own}: {sum(clips.values()):,} clips", clips, placed)
    small = f" Too small for a name: {', '.join(unnamed)}." if unnamed else ""
    return Drawing("sunburst_own", figure, f"{labels.own}: clips by discipline and subject.{small}")


def _sunburst(title: str, clips: Mapping[str, int], subjects: Mapping[str, Mapping[str, float]],
              note: str = "") -> tuple[Figure, list[str]]:
    """Two rings, clockwise from the top, and the subjects that have no room for their name.

    Args:
        note: given where the outer ring counts nothing; it is white then.
    """
    side = COLUMN_IN * PT
    foot = FOOT_PT if note else 0
    figure, axes = page(side, side + HEAD_PT + foot)
    axes.text(side / 2, HEAD_PT - 4, title, ha="center", va="baseline", fontsize=TITLE_PT)
    if note:
        axes.text(side / 2, side + HEAD_PT + foot - 4, note, ha="center", va="baseline")
    middle, total, start = (side / 2, side / 2 + HEAD_PT), sum(clips.values()), 0.0
    corners, unnamed = {45, 135, 225, 315}, []
    for name, count in clips.items():
        end = start + 360 * count / total
        _sector(axes, middle, (0, CENTRE_PT), (start, end), COLORS.get(name, GREY))
        _spoke(axes, middle, CENTRE_PT * 0.6, (start + end) / 2, f"{100 * count / total:.1f} %", turned=False)
        corner = min(corners, key=lambda angle: abs(angle - (start + end) / 2), default=None)
        corners.discard(corner)
        if corner:
            _corner(axes, middle, corner, f"{name}\n{count:,}")
        for subject, size in subjects[name].items():
            stop = start + 360 * size / total
            written = _subject(axes, middle, (start, stop), subject, None if note else int(size), COLORS.get(name, GREY))
            unnamed += [] if written else [f"{subject.replace('_', ' ')} ({size:g})"]
            start = stop
        start = end
    return figure, unnamed


def _sector(axes: Axes, middle: tuple[float, float], radii: tuple[float, float], degrees: tuple[float, float], color: str,
            **how) -> None:
    """A part of a ring; degrees clockwise from the top, on a sheet whose y grows downward."""
    start, end = (angle - 90 for angle in degrees)
    axes.add_patch(Wedge(middle, radii[1], start, end, width=radii[1] - radii[0],
                         **{"facecolor": color, "edgecolor": "white", "linewidth": 0.8} | how))


def _subject(axes: Axes, middle: tuple[float, float], degrees: tuple[float, float], subject: str, count: int | None,
             color: str) -> bool:
    """A sector of the outer ring with its name, and its count if there is room; whether the name is there."""
    pale = {"alpha": 0.35} if count is not None else {"facecolor": "white", "edgecolor": color, "linewidth": 0.6}
    _sector(axes, middle, (CENTRE_PT, RIM_PT), degrees, color, **pale)
    name = subject.replace("_", " ")
    counted = [] if count is None else [f"{name} {count}", f"{folded(name)} {count}", f"{name}\n{count}"]
    for text in [*counted, folded(name), name]:
        lines = text.split("\n")
        longest = max(map(width_pt, lines))
        inner = RIM_PT - 2 - longest
        room = 2 * inner * math.sin(math.radians(min(degrees[1] - degrees[0], 180) / 2))
        if inner > CENTRE_PT and len(lines) * LINE_PT < room + 1:
            _spoke(axes, middle, inner + longest / 2, sum(degrees) / 2, text)
            return True
    return False


def _spoke(axes: Axes, middle: tuple[float, float], radius: float, degree: float, text: str, turned: bool = True) -> None:
    """A text at a place of the ring, along its radius if turned; never upside down."""
    angle = math.radians(degree)
    place = middle[0] + radius * math.sin(angle), middle[1] - radius * math.cos(angle)
    leaning = 90 - degree if degree < 180 else 270 - degree
    axes.text(*place, text, ha="center", va="center", rotation=leaning if turned else 0, rotation_mode="anchor",
              linespacing=0.95, color="black")


def _corner(axes: Axes, middle: tuple[float, float], degree: int, text: str) -> None:
    """A text in the corner of the sheet that lies in a direction."""
    right, low = degree < 180, 90 < degree < 270
    x = 2 * middle[0] - 2 if right else 2
    y = middle[1] + (middle[0] - 2) * (1 if low else -1)
    axes.text(x, y, text, ha="right" if right else "left", va="bottom" if low else "top", weight="bold", linespacing=1.05)


@in_style
def histograms(numbers: Numbers, labels: Labels) -> Drawing:
    """Steps a video and seconds a step: the paper's bars, and ours below in panels of their own."""
    kinds = {"steps": ("steps per video", "videos"), "seconds": ("seconds per step", "clips")}
    own = all(kind in numbers for kind in kinds)
    figure, axes = panels(2.9 if own else 1.6, 2 if own else 1, 2)
    for column, (kind, (x, y)) in enumerate(kinds.items()):
        edges, counts = published_bins(f"{x.replace(' ', '_')}_histogram_read_off_figure")
        _bars(axes[0, column], edges, counts, PUBLISHED)
        axes[0, column].set(xlabel=x, ylabel=y)
        axes[0, column].set_title("ExpInstruct (published),\nread off its figure", fontsize=TEXT_PT)
        if own:
            _bars(axes[1, column], numbers[kind]["edges"], numbers[kind]["counts"], OWN, centred=kind == "steps")
            axes[1, column].set(xlabel=x, ylabel=y)
            axes[1, column].set_title(labels.own, fontsize=TEXT_PT)
    caption = ("Steps per video and seconds per step. Hatched: ExpInstruct, published; the bars were read off the paper's figure "
               "by eye and are approximate.")
    return Drawing("histograms", figure, caption + (f" Plain: {labels.own}, counted." if own else ""))


def published_bins(table: str) -> tuple[list[int], list[int]]:
    """Edges and counts of a published histogram."""
    rows = published(table)
    starts, ends = zip(*((int(edge) for edge in row["row"].split("-")) for row in rows))
    return [*starts, ends[-1]], [int(row["value"]) for row in rows]


def _bars(axes: Axes, edges: Sequence[int], counts: Sequence[int], look: Mapping, centred: bool = False) -> None:
    """Bars from edge to edge; centred: a bin that holds one whole number has its bar above it."""
    widths = [b - a for a, b in zip(edges, edges[1:])]
    shift = 0.5 if centred and set(widths) == {1} else 0
    axes.bar([edge - shift for edge in edges[:-1]], counts, width=widths, align="edge", **look)
    axes.set_ylim(0, 1.08 * max(counts))
    if len(counts) < 8:
        axes.set_xticks(edges[:-1] if shift else edges)
        axes.set_xlim(edges[0] - shift - 0.5, edges[-1] - shift + 0.5)

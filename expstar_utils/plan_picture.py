"""A plan as a picture: its jobs, what each waits for, and how far each has come.

    python -m expstar_utils.plan_picture tiny        # runs/plan_tiny.pdf, .png and .tex
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import networkx
from matplotlib.patches import Rectangle

from expstar_utils.figures.style import BLACK, GREY, TEXT_PT, Drawing, in_style, page, plain, save, shortened, width_pt
from expstar_utils.plans import Plan, load_plan
from expstar_utils.records import ExpStarError
from expstar_utils.schedule import state_of

BOXES = {"done": {"facecolor": "#cfe6f5", "edgecolor": "#00304d", "linewidth": 0.7},
         "stale": {"facecolor": "#ffffff", "edgecolor": "#D55E00", "linewidth": 0.7, "hatch": "/////"},
         "missing": {"facecolor": "#ffffff", "edgecolor": GREY, "linewidth": 0.7, "linestyle": (0, (3, 2))}}
WIDE_PT, LINE_PT, GAP_PT, BETWEEN_PT, MARGIN_PT = 110.0, 9.0, 10.0, 34.0, 8.0  # widest box, a line, gaps, edge


class Box(NamedTuple):
    """What one box stands for: a job, or all shards of one."""

    run: str
    name: str


def boxes(plan: Plan) -> tuple[networkx.DiGraph, dict[Box, Counter[str]]]:
    """The graph of a plan's boxes, without edges that follow from others, and how many jobs of each are in which state."""
    states: dict[Box, Counter[str]] = {}
    makes, graph = {}, networkx.DiGraph()
    for job in plan.jobs:
        box = Box(job.run, f"{job.name.split('.shard-')[0]} shards" if ".shard-" in job.name else job.name)
        graph.add_node(box)
        states.setdefault(box, Counter())[state_of(job)] += 1
        makes.update({str(job.mark(group)): box for group in job.groups})
        graph.add_edges_from((makes[need], box) for group in job.groups.values() for need in group.needs)
    return networkx.transitive_reduction(graph), states


def _lines(box: Box, states: Counter[str], several: bool) -> list[str]:
    count, done = states.total(), states["done"]
    name = box.name if count == 1 else f"{count} x {box.name}"
    state = next(iter(states)) if len(states) == 1 else f"{done} of {count} done"
    return [name, *([Path(box.run).name] if several else []), state]


@in_style
def plan_dag(plan: Plan, name: str) -> Drawing:
    """Boxes from left to right, each right of all that it waits for."""
    graph, states = boxes(plan)
    layers = [sorted(layer) for layer in networkx.topological_generations(graph.reverse())][::-1]  # each as late as can be
    rows = 3 if len(plan.runs) > 1 else 2
    high = rows * LINE_PT + 4
    texts = {box: [shortened(plain(line), WIDE_PT - 8) for line in _lines(box, its, rows == 3)] for box, its in states.items()}
    wide = [8 + max(width_pt(line, bold=True) for box in layer for line in texts[box]) for layer in layers]
    tall = max(map(len, layers)) * (high + GAP_PT) - GAP_PT
    figure, axes = page(2 * MARGIN_PT + sum(wide) + BETWEEN_PT * (len(layers) - 1), 2 * MARGIN_PT + tall)
    places, left = {}, MARGIN_PT
    for layer, width in zip(layers, wide):
        top = MARGIN_PT + (tall - len(layer) * (high + GAP_PT) + GAP_PT) / 2
        for number, box in enumerate(layer):
            places[box] = (left, top + number * (high + GAP_PT), width)
        left += width + BETWEEN_PT
    for before, after in graph.edges:
        (x, y, width), (to_x, to_y, _) = places[before], places[after]
        axes.annotate("", (to_x, to_y + high / 2), (x + width, y + high / 2), zorder=1, arrowprops={
            "arrowstyle": "-|>", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6})
    for box, (x, y, width) in places.items():
        look = BOXES["done" if set(states[box]) == {"done"} else "stale" if states[box]["stale"] else "missing"]
        axes.add_patch(Rectangle((x, y), width, high, zorder=2, **look))
        for number, line in enumerate(texts[box]):
            axes.text(x + width / 2, y + 2 + (number + 0.5) * LINE_PT, line, ha="center", va="center_baseline", zorder=3,
                      fontsize=TEXT_PT, color=BLACK if number == 0 else "#404040", fontweight="normal" if number else "bold",
                      bbox={"facecolor": look["facecolor"], "edgecolor": "none", "pad": 0.3})
    return Drawing(f"plan_{name}", figure, f"The jobs of plan {name}, each right of those that it waits for: done (filled), "
                   "made of other inputs (hatched), missing (dashed).", wide=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a plan; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", help="name of a plan in notebooks/plans/, or the path of a YAML file")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the files")
    given = parser.parse_args(argv)
    try:
        print(save(plan_dag(load_plan(given.plan), Path(given.plan).stem), given.out)["png"])
    except ExpStarError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

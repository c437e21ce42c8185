"""Curves of a run: how passages are found, where the thresholds lie, what is left when a part is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from expstar_utils.ablations import FACTS
from expstar_utils.figures.numbers import Numbers
from expstar_utils.figures.paper_tables import ablated
from expstar_utils.figures.style import BLACK, GREY, LINES, PAGE_IN, Drawing, Labels, in_style, panels
from expstar_utils.metrics import best_tau

TESTS = ("test", "test_unseen")
CHANCE = {"marker": "_", "markersize": 11, "markeredgewidth": 1.5, "color": BLACK, "linestyle": ""}
ASKED = {"gate": "look something up?", "verdict": "is a passage relevant?"}


@in_style
def recall(numbers: Numbers, labels: Labels) -> Drawing:
    """Share of steps whose passage is among the first k, for every way to ask."""
    rows = numbers["recall"]
    splits = [s for s in TESTS if any(row["split"] == s for row in rows)] or [rows[0]["split"]]
    ways = dict(zip(_distinct(row["query"] for row in rows if row["split"] in splits), cycle(LINES)))
    ks = sorted(int(key.split("@")[1]) for key in rows[0] if key.startswith("recall@"))
    figure, axes = panels(2.2 + 0.13 * (len(ways) // 2 + 1), 1, len(splits), sharey=True)
    for axis, split in zip(axes[0], splits):
        for row in (row for row in rows if row["split"] == split):
            axis.plot(range(len(ks)), [row[f"recall@{k}"][0] for k in ks], label=row["query"], **ways[row["query"]])
        chance = (numbers.get("chance") or {}).get(split, {}).get("8 by subject")
        if chance is not None and 8 in ks:
            axis.plot(ks.index(8), chance, label="by chance, same subject", **CHANCE)
        axis.set(title=split, xlabel="passages looked at, k", ylim=(0, 1.02))
        axis.set_xticks(range(len(ks)), [str(k) for k in ks])
        axis.grid(True, axis="y")
    axes[0, 0].set_ylabel("recall@k")
    _legend_below(axes[0], 2)
    figure.suptitle(labels.own)
    return Drawing("recall", figure, f"Retrieval on {labels.own}: share of steps for which a needed passage is among the first "
                   "k; dash: eight passages of the step's subject drawn at random.")


@in_style
def gate_curve(numbers: Numbers, labels: Labels) -> Drawing:
    """How often the gate looks something up at each threshold, and how good the commentary is then."""
    curve, chosen = numbers["gate_curve"], best_tau(numbers["gate_curve"])
    figure, axes = panels(2.3, 2, 1, sharex=True)
    names = {"rate": "share looked up", "quality": "word F1"}
    for axis, (key, name), look in zip(axes[:, 0], names.items(), LINES):
        axis.plot([point["tau"] for point in curve], [point[key] for point in curve], **look | {"marker": ""})
        axis.axvline(chosen, color=GREY, linestyle=":", linewidth=0.9)
        axis.set_ylabel(name)
        axis.margins(y=0.12)
        axis.grid(True, axis="y")
    axes[0, 0].set(title=f"{labels.own}, val", ylim=(0, 1.05))
    axes[1, 0].set(xlabel=f"threshold of the gate (dotted: best, {chosen:.2f})", xlim=(0, 1))
    return Drawing("gate_curve", figure, f"The gate on val of {labels.own}: share of steps that look something up, and F1 of the "
                   f"words with the reference, by threshold. Dotted: the threshold of the best quality, {chosen:.2f}.")


@in_style
def thresholds(numbers: Numbers, labels: Labels) -> Drawing:
    """Precision, recall and F1 of both decisions by threshold."""
    kinds = {kind: curve for kind, curve in numbers["curves"].items() if curve}
    figure, axes = panels(1.95, 1, len(kinds), sharey=True)
    for axis, (kind, curve) in zip(axes[0], kinds.items()):
        for number, (name, look) in enumerate(zip(("precision", "recall", "f1"), LINES)):
            axis.plot([point["threshold"] for point in curve], [point[name] for point in curve], **look,
                      label="F1" if name == "f1" else name, markevery=(number, 3))
        axis.set(title=ASKED.get(kind, kind), xlabel="threshold", ylim=(0, 1.05), xlim=(0, 1), xticks=[0, 0.5, 1])
        axis.grid(True, axis="y")
    _legend_below(axes[0], 3)
    figure.suptitle(f"{labels.own}, val")
    return Drawing("thresholds", figure, f"Both decisions on val of {labels.own}: precision, recall and F1 by threshold.")


@in_style
def ablation_intervals(numbers: Numbers, labels: Labels) -> Drawing:
    """What is still said rightly when a part is taken away, with intervals; the splits beside each other."""
    lines = ablated(numbers)
    columns = [name for name in (*FACTS, "safety missing") if any(name in line for line in lines)]
    rows, splits = (_distinct(line[key] for line in lines) for key in ("row", "split"))
    figure, axes = panels(0.75 + 0.24 * len(rows), 1, len(columns), width_in=PAGE_IN, sharey=True)
    for axis, column in zip(axes[0], columns):
        for number, (split, look) in enumerate(zip(splits, LINES)):
            found = {rows.index(line["row"]): line for line in lines if line["split"] == split and column in line}
            _whiskers(axis, found, column, 0.5 * number / len(splits) - 0.18, look | {"label": split})
        axis.set(title=column, xlim=(-4, 104), ylim=(len(rows) - 0.5, -0.5))
        axis.set_xlabel("%" if column in FACTS else "% (less is better)")
        axis.grid(True, axis="x")
    axes[0, 0].set_yticks(range(len(rows)), rows)
    _legend_below(axes[0], len(splits))
    return Drawing("ablation_intervals", figure, f"Ablations on {labels.own}: facts said rightly (last: safety notes that are "
                   "missing), percent, with 95 % intervals over experiments.", wide=True)


def _whiskers(axis: Axes, lines: dict[int, dict[str, Any]], column: str, shift: float, look: dict[str, Any]) -> None:
    """Values and intervals of one split, each beside its row."""
    for place, line in lines.items():
        low, high = line.get(f"{column}_interval") or (line[column], line[column])
        axis.hlines(place + shift, low, high, color=look["color"], linewidth=0.9)
    axis.plot([line[column] for line in lines.values()], [place + shift for place in lines], **look | {"linestyle": ""})


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _legend_below(axes: Sequence[Axes], columns: int) -> None:
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    axes[0].figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)

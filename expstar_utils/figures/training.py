"""Pictures of training: losses of SFT, what DPO changes, and the rewards that candidates earned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from expstar_utils.figures.numbers import REWARD_BINS, Numbers
from expstar_utils.figures.style import GREY, LINES, OWN, TEXT_PT, Drawing, Labels, in_style, panels

STAGES = {"captions": "captions", "rows": "rows of the data set", "choices": "choices among sisters"}
COMPONENTS = {"reward": "reward", "format": "form", "safety_present": "safety present", "narration": "narration",
              "principle": "principle", "safety": "safety", "equation": "equation"}
COIN = math.log(2)
THIN_AND_THICK = "thin: as logged, thick: running mean"


@in_style
def sft(numbers: Numbers, labels: Labels) -> Drawing:
    """Losses of the stages of SFT, one after another."""
    stages, start = numbers["training"], 0
    figure, axes = panels(1.75 + 0.13 * len(stages))
    axis = axes[0, 0]
    for (name, points), look in zip(stages.items(), LINES):
        if start:
            axis.axvline(start, color=GREY, linewidth=0.6, linestyle=":")
        steps, losses = np.array(points, float).T
        _logged(axis, start + steps, losses, look["color"], f"{STAGES.get(name, name)} ({int(steps[-1]):,} steps)")
        start += int(steps[-1])
    axis.set(xlabel="step", ylabel="loss a trained token", yscale="log")
    axis.set_title(f"{labels.model}, SFT" + (" (stages from left to right)" if len(stages) > 1 else ""))
    lowest, highest = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1,) if highest > 30 * lowest else (1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, axis="y")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return Drawing("training_sft", figure,
                   f"SFT of {labels.model} on {labels.own}: loss by step, stage after stage; {THIN_AND_THICK}.")


@in_style
def dpo(numbers: Numbers, labels: Labels) -> Drawing:
    """Loss, accuracy and margin of DPO by step."""
    rows = numbers["dpo"]
    figure, axes = panels(2.9, 3, 1, sharex=True)
    names = {"loss": "loss", "accuracy": "chosen first", "margin": "margin"}
    for axis, (key, name), look in zip(axes[:, 0], names.items(), LINES):
        _logged(axis, np.array([row["step"] for row in rows]), np.array([row[key] for row in rows], float), look["color"])
        axis.set_ylabel(name)
        axis.grid(True, axis="y")
    axes[0, 0].axhline(COIN, color=GREY, linestyle=":", linewidth=0.9)
    axes[0, 0].set_title(f"{labels.model}, DPO; dotted: a coin's loss, ln 2")
    axes[1, 0].set_ylim(-0.05, 1.05)
    axes[2, 0].set_xlabel("step")
    figure.align_ylabels()
    return Drawing("training_dpo", figure, f"DPO of {labels.model} on {labels.own}: loss, share of pairs whose chosen answer is "
                   f"preferred, and margin of the implicit rewards; {THIN_AND_THICK}. Dotted: ln 2.")


def _logged(axis: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str | None = None) -> None:
    axis.plot(steps, values, color=color, linewidth=0.4, alpha=0.4)
    axis.plot(steps, running_mean(values), color=color, label=label)


def running_mean(values: Sequence[float]) -> np.ndarray:
    """Mean of the values so far, of a tenth of all at most."""
    values = np.asarray(values, float)
    window, sums = max(len(values) // 10, 1), np.concatenate([[0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


@in_style
def rewards(numbers: Numbers, labels: Labels) -> Drawing:
    """What the candidates earned: the reward, and each component that applied."""
    found = numbers["rewards"]
    names = [*(name for name in COMPONENTS if name in found), *(name for name in found if name not in COMPONENTS)]
    rows = -(-len(names) // 2)
    figure, axes = panels(0.4 + 0.78 * rows, rows, 2, sharex=True)
    for axis, name in zip(axes.flat, names):
        part, look = found[name], OWN if name == "reward" else OWN | {"facecolor": "#9cc9e3"}
        shares = 100 * np.array(part["counts"]) / max(part["n"], 1)
        axis.bar(np.arange(REWARD_BINS) / REWARD_BINS, shares, width=1 / REWARD_BINS, align="edge", **look)
        axis.axvline(part["mean"], color="black", linestyle="--", linewidth=0.9)
        axis.set_title(f"{COMPONENTS.get(name, name)}, n = {part['n']:,}", fontsize=TEXT_PT, pad=2)
        axis.set(xlim=(-0.02, 1.03), ylim=(0, 105), xticks=[0, 0.5, 1], yticks=[0, 50, 100])
    for axis in axes.flat[len(names):]:
        axis.axis("off")
    figure.suptitle(f"{labels.model}, sampled candidates")
    figure.supylabel("candidates, %", fontsize=TEXT_PT)
    figure.supxlabel("0: nothing, 1: all; dashed: mean", fontsize=TEXT_PT)
    return Drawing("rewards", figure, f"Rewards of sampled candidates of {labels.model} on train of {labels.own}, and their "
                   "components where they apply; dashed: mean.")

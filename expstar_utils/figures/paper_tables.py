"""The paper's tables with our own rows below: data statistics, main results, ablations; and what only ours can ask, the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expstar_utils.ablations import ROWS, TEXT, row_of
from expstar_utils.compared import load_rows
from expstar_utils.figures.numbers import Numbers
from expstar_utils.figures.style import Drawing, Labels
from expstar_utils.figures.tables import NOTHING, Block, Bold, Table, shown
from expstar_utils.published import GROUPS, PUBLISHED, own_columns, published

APART = "other data than the published rows, not comparable with them"
STATISTICS = {  # the paper's row -> ours
    "Video Clips": lambda s: int(s["clips"]),
    "Average Duration (s)": lambda s: s["clip_s"],
    "Steps per Video": lambda s: s["steps"],
    "Average Text Length": lambda s: (s["narration_words"] + s["principle_rate"] * s["principle_words"]
                                      + s["safety_rate"] * s["safety_words"]),
    "Procedure Length": lambda s: s["narration_words"],
    "Principle Length": lambda s: s["principle_words"],
    "Safety Guideline Length": lambda s: s["safety_words"],
    "Principle Rate (%)": lambda s: 100 * s["principle_rate"],
    "Safety Guideline Rate (%)": lambda s: 100 * s["safety_rate"]}
FACTS = {"steps": "Steps", "well_formed": "Form", "substance": "Substance", "colour_quantity": "Colour", "seen": "Seen",
         "principle": "Principle", "hazard": "Hazard", "gate_auc": "Gate AUC", "verdict_f1": "Verdict F1"}
TESTS, CHOSEN_ON = ("test", "test_unseen"), ("train", "val")  # thresholds were chosen on val
FULL = ROWS["adaptive", ()]


def statistics(numbers: Numbers, labels: Labels) -> Drawing:
    """The paper's table of its data set, and the same numbers of ours."""
    rows = published("dataset_statistics")
    columns, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("group", "row"))
    value = {(row["row"], row["group"]): row["value"] for row in rows}
    blocks = [Block(PUBLISHED, [[name, *(value.get((name, c), NOTHING) for c in columns)] for name in names])]
    caption = "Statistics of the data: published for ExpInstruct"
    if ours := numbers.get("statistics"):
        ours = ours | {"Total": ours["all"]}
        blocks.append(Block(labels.own, [[name, *(shown(STATISTICS[name](ours[c])) if c in ours else NOTHING for c in columns)]
                                         for name in names if name in STATISTICS], own=True))
        caption += f", and counted by us for {labels.own}; lengths in words, those of notes over the steps that have one"
    return Table("statistics", f"{caption}.", ["", *columns], blocks).drawing()


def main_results(numbers: Numbers, labels: Labels) -> Drawing:
    """The paper's main table; below a heavy rule, our own models on our own data."""
    metrics, blocks = _published_results()
    texts = {stem: text for stem, text in (numbers.get("text") or {}).items() if is_whole(stem)}
    columns = own_columns(metrics, (name for text in texts.values() for name in text["lines"][0]))
    caption = "Main results, percent. Published rows: ExpInstruct; bold: the best of them."
    intervals, ours = numbers.get("intervals") or {}, []
    for stem, text in texts.items():
        ours += _own_rows(run_label(stem, labels), text["lines"][0], columns, intervals.get(stem, {}))
        ours += _seed_rows((numbers.get("seeds") or {}).get(stem), columns)
    if ours:
        blocks.append(Block(f"{labels.own}: {APART}", ours, own=True))
        caption += _own_caption(labels, columns)
    signatures = next((text.get("signatures", {}) for text in texts.values()), {})
    return Table("main_results", caption, ["Model", *metrics], blocks,
                 notes=[f"ours, {column}: {signature}" for column, signature in signatures.items()]).drawing()


def ablation(numbers: Numbers, labels: Labels) -> Drawing:
    """What each part of the method is worth: the paper's rows, then ours, split by split."""
    metrics, blocks = _published_results("Ours")
    lines = ablated(numbers)
    columns = own_columns(metrics, (name for line in lines for name in line))
    ours = _own_blocks(lines, columns, {split: f"{labels.own}, {split}: {APART}" for split in _splits(lines)})
    caption = "Ablations, percent; published rows: ExpInstruct." + (_own_caption(labels, columns) if ours else "")
    return Table("ablation", caption, ["Variant", *metrics], [*blocks, *ours]).drawing()


def ablation_facts(numbers: Numbers, labels: Labels) -> Drawing:
    """The same ablations by what is true in the commentary, which only ours can ask."""
    lines = ablated(numbers)
    found = dict.fromkeys(key.removesuffix("_interval") for line in lines for key in line if key.endswith("_interval"))
    columns = [name for name in found if not name.startswith(TEXT)]
    caption = (f"Ablations on {labels.own}: facts said rightly, and safety notes that are missing or not needed, percent, with "
               "95 % intervals over experiments. The paper has no such numbers.")
    blocks = _own_blocks(lines, columns, {split: f"{labels.own}, {split}" for split in _splits(lines)})
    return Table("ablation_facts", caption, ["Variant", *columns], blocks).drawing()


def facts(numbers: Numbers, labels: Labels) -> Drawing:
    """How many facts of the truth our model says: the table that only a rendered data set allows."""
    reports = sorted(numbers["reports"].items(), key=lambda item: (len(item[0].split("-")[0]), item[0]))
    columns = {key: name for key, name in FACTS.items() if any(key in report for _, report in reports)}
    rows = [[run_label(stem, labels), *(shown(report.get(key), 3) for key in columns)] for stem, report in reports]
    caption = (f"Facts said rightly on {labels.own}: shares of those that the truth names, 0 to 1 (Colour: or quantity; Seen: "
               "all that only the picture tells); Form: share of well-formed texts; Gate AUC and Verdict F1: the two decisions. "
               "The paper has no such numbers.")
    return Table("facts", caption, ["Run", *columns.values()], [Block(labels.own, rows, own=True)]).drawing()


def ablated(numbers: Numbers) -> list[dict[str, Any]]:
    """Our ablations on test sets, the full model first, with all text metrics of their files."""
    lines = [line for line in numbers.get("ablations") or [] if line["split"] not in CHOSEN_ON]
    order, texts = [FULL, *ROWS.values()], numbers.get("text") or {}
    lines.sort(key=lambda line: (line["split"], order.index(line["row"]) if line["row"] in order else len(order)))
    return [(texts[line["stem"]]["lines"][0] if line["stem"] in texts else {}) | line for line in lines]


def is_whole(stem: str) -> bool:
    """Whether a file of predictions is of a whole model on a test set, nothing taken away."""
    split = stem.split("-")[0]
    if split in TESTS:
        return row_of(stem) == (FULL, split) or _compared(stem) is not None
    return split not in CHOSEN_ON  # a file not of notebook 05 is of the model that its name says


def run_label(stem: str, labels: Labels) -> str:
    """What a file of predictions holds, in words: our model or what was taken from it, and the split; else its name."""
    if found := row_of(stem):
        row, split = found
        return f"{labels.model if row == FULL else row}, {split}"
    return f"{name}, {stem.split('-')[0]}" if (name := _compared(stem)) else stem


def _compared(stem: str) -> str | None:
    """The paper's name of the model that a file is of, where it is one of those that it compares with."""
    return next((row.published or name for name, row in load_rows().items() if stem.endswith(f"-{name}")), None)


def _published_results(group: str | None = None) -> tuple[list[str], list[Block]]:
    rows = [row for row in published("main_results") if group in (None, row["group"])]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    best = {m: max(float(row["value"]) for row in rows if row["metric"] == m) for m in metrics}
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        cell = Bold(row["value"]) if float(row["value"]) == best[row["metric"]] else row["value"]
        groups.setdefault(row["group"], {}).setdefault(row["row"], {})[row["metric"]] = cell
    return metrics, [Block(f"{PUBLISHED}: {GROUPS.get(name, name)}", [[model, *(values.get(m, NOTHING) for m in metrics)]
                                                                      for model, values in models.items()])
                     for name, models in groups.items()]


def _splits(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["split"] for line in lines))


def _own_blocks(lines: Sequence[Mapping[str, Any]], columns: Sequence[str], headings: Mapping[str, str]) -> list[Block]:
    """Our ablations of some columns, a block for each split; none where no row has one of them."""
    blocks = []
    for split, heading in headings.items():
        rows = [row for line in lines if line["split"] == split and any(c in line for c in columns) for row in _own_rows(
            line["row"], line, columns, {c: line[f"{c}_interval"] for c in columns if line.get(f"{c}_interval")})]
        blocks += [Block(heading, rows, own=True)] if rows else []
    return blocks


def _own_rows(name: str, values: Mapping[str, Any], columns: Sequence[str],
              intervals: Mapping[str, Sequence[float]]) -> list[list[str]]:
    rows = [[name, *(shown(values.get(c)) for c in columns)]]
    if any(column in intervals for column in columns):
        rows.append(["95 % interval", *("{:.1f}–{:.1f}".format(*intervals[c]) if c in intervals else "" for c in columns)])
    return rows


def _seed_rows(found: Mapping[str, Any] | None, columns: Sequence[str]) -> list[list[str]]:
    if not found:
        return []
    cells = ("{:.1f}±{:.1f}".format(found["mean"][c], found["sd"][c]) if c in found["mean"] else "" for c in columns)
    return [[f"mean ± SD, {len(found['seeds'])} seeds", *cells]]


def _own_caption(labels: Labels, columns: Sequence[str]) -> str:
    bert = "".join(f" BERTScore below it: {column}." for column in columns if column.startswith("BERTScore-"))
    return (f" Below the heavy rule: {labels.own}, rendered clips, references of few wordings, a small model; these numbers and "
            f"the published ones are of different data and say nothing about each other.{bert}")

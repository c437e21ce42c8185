"""Cases to look at: frames, the decision, what was written beside its reference, and every passage with its verdict."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case
from expstar_utils.differences import word_f1
from expstar_utils.figures.glyphs import add_fonts
from expstar_utils.figures.style import (
    BLUE,
    GREY,
    PAGE_IN,
    PT,
    TITLE_PT,
    Drawing,
    Labels,
    in_style,
    page,
    plain,
    shortened,
    width_pt,
    wrapped,
)
from expstar_utils.files import read_jsonl
from expstar_utils.prompts import NO_RETRIEVAL, RETRIEVAL, Commentary, parse
from expstar_utils.records import ExpStarError, Passage, Prediction
from expstar_utils.sharing import whole_files

FILES = ("test_unseen-free-adaptive", "test-free-adaptive", "val-free-adaptive")  # the first that is there
SECTIONS = {"narration": "Procedure", "principle": "Principle", "safety": "Safety"}
LINE_PT, EDGE_PT, SHOTS, SHOT_PT = 9.5, 5, 3, 100  # shots: frames shown; shot: width of one
BAR_PT, SIZE_PX = 34, 256


@dataclass(frozen=True)
class Example:
    """A case that is shown. why: how it was chosen. run: file of predictions. case: None where the run has no data set."""

    why: str
    run: str
    prediction: Prediction
    case: Case | None = None

    @property
    def written(self) -> Commentary:
        return parse(self.prediction.response).commentary

    @property
    def reference(self) -> Commentary:
        return parse(self.prediction.labels).commentary

    @property
    def agreement(self) -> float:
        return word_f1(self.prediction.response, self.prediction.labels)

    @property
    def passages(self) -> list[tuple[Passage, float, bool]]:
        """Passage, probability that it is relevant, whether it was written from; in the order of the search."""
        data = self.prediction.evaluation_data
        rows = zip(*(data.get(key, []) for key in ("passage_ids", "passage_titles", "rag_passages", "relevance")))
        used = set(data.get("relevant_ids", []))
        return [(Passage(id=i, title=title, text=text.removeprefix("<paragraph>").removesuffix("</paragraph>")), prob, i in used)
                for i, title, text, prob in rows]


def choose(run: Path, seed: int, ids: Sequence[str] = ()) -> list[Example]:
    """Cases of a run: those asked for by id, else three: one that looks something up and one that does not, drawn by `seed`, and
    the one that agrees least with its reference.

    Raises:
        ExpStarError: an id is not there, or a file is not what it should be.
    """
    paths = {path.stem: path for path in whole_files(Path(run) / "5_predictions")}
    name = next((name for name in (*FILES, *paths) if name in paths), None)
    if name is None:
        return []
    predictions = {p.id: p for p in read_jsonl(paths[name], Prediction)}
    cases_file = Path(run) / "2_datasets" / "cases.jsonl"
    cases = {c.id: c for c in read_jsonl(cases_file, Case)} if cases_file.is_file() else {}
    if unknown := [case_id for case_id in ids if case_id not in predictions]:
        raise ExpStarError(f"{paths[name]}: has no {unknown[0]!r}, expected every id of `cases` in it; correct the parameters")
    chosen = dict.fromkeys(ids, "asked for") or _drawn(predictions, seed)
    return [Example(why, name, predictions[case_id], cases.get(case_id)) for case_id, why in chosen.items()]


def _drawn(predictions: dict[str, Prediction], seed: int) -> dict[str, str]:
    chosen = {}
    asking = {i: bool(p.evaluation_data.get("is_retrieval")) for i, p in predictions.items()}
    for looks_up, why in ((True, "drawn from the steps that look something up"), (False, "drawn from those that do not")):
        if pool := sorted(i for i, asks in asking.items() if asks is looks_up):
            chosen[random.Random(f"{seed} {looks_up}").choice(pool)] = why
    if rest := sorted(i for i in predictions if i not in chosen):
        least = min(rest, key=lambda i: word_f1(predictions[i].response, predictions[i].labels))
        chosen[least] = "agrees least of all with its reference"
    return chosen


def frames_of(example: Example, root: Path, fps: float) -> list[tuple[float, np.ndarray]]:
    """A few (seconds from the clip's start, pixels) of the clip; none where it is not there."""
    if example.case is None:
        return []
    try:
        found = clip_frames(example.case.clip, root, fps=fps, max_frames=SHOTS)
    except (ExpStarError, OSError):
        return []
    return [(float(time - found.start_s), pixels) for time, pixels in zip(found.times_s, found.pixels)]


def drawing(example: Example, name: str, labels: Labels, shots: Sequence[tuple[float, np.ndarray]]) -> Drawing:
    """A case as a picture, both columns wide.

    Raises:
        ExpStarError: no font of this machine has its letters.
    """
    title = f"{example.case.title}, step {example.case.step_number}" if example.case else example.prediction.id
    add_fonts([title, example.prediction.response, example.prediction.labels, *(p.title + p.text for p, *_ in example.passages)])
    caption = (f"{title} ({example.prediction.id}, {example.run}). Chosen: {example.why}. {labels.model} on {labels.own}; bars: "
               "how probably a passage is relevant.")
    return Drawing(name, _Sheet(example, title, labels, shots).figure, plain(caption), wide=True)


class _Sheet:
    """The picture of a case, from top to bottom."""

    @in_style
    def __init__(self, example: Example, title: str, labels: Labels, shots: Sequence[tuple[float, np.ndarray]]):
        self.width = PAGE_IN * PT
        columns = [_section_lines(side, self.width / 2 - 3 * EDGE_PT) for side in (example.written, example.reference)]
        picture = SHOT_PT * max((p.shape[0] / p.shape[1] for _, p in shots), default=0)
        self.figure, self.axes = page(self.width, self.width)
        self.y = 11.0
        self._text(EDGE_PT, shortened(title, self.width - 2 * EDGE_PT, TITLE_PT), size=TITLE_PT, weight="bold")
        self._top(example, shots, picture)
        self._columns([f"Written by {labels.model}", "Reference"], columns)
        self._passages(example)
        self.figure.set_figheight((self.y + EDGE_PT) / PT)
        self.axes.set(xlim=(0, self.width), ylim=(self.y + EDGE_PT, 0))

    def _text(self, x: float, text: str, size: float | None = None, **how) -> None:
        self.axes.text(x, self.y, text, va="baseline", **({"fontsize": size} if size else {}) | how)

    def _top(self, example: Example, shots: Sequence[tuple[float, np.ndarray]], picture: float) -> None:
        top, x = self.y + 5, float(EDGE_PT)
        for time, pixels in shots:
            step = max(pixels.shape[1] // SIZE_PX, 1)
            _shot(self.axes, pixels[::step, ::step], (x, top, SHOT_PT, picture))
            self.axes.text(x + SHOT_PT / 2, top + picture + 8, f"{time:.1f} s", ha="center", va="baseline", color=GREY)
            x += SHOT_PT + 4
        self.y = top
        told = [*_decision(example), f"Words shared with the reference (F1): {example.agreement:.2f}", f"Chosen: {example.why}"]
        for line in (part for text in told for part in wrapped(text, self.width - x - 3 * EDGE_PT)):
            self.y += LINE_PT
            self._text(x + EDGE_PT, line)
        self.y = max(self.y, top + picture + 9 if shots else 0) + LINE_PT + 2

    def _columns(self, heads: Sequence[str], columns: Sequence[Sequence[tuple[str, bool]]]) -> None:
        start = self.y
        for number, (head, lines) in enumerate(zip(heads, columns)):
            self.y, x = start, EDGE_PT + number * self.width / 2
            self._text(x, head, weight="bold", color=BLUE if number == 0 else "black")
            for line, bold in lines:
                self.y += LINE_PT
                self._text(x, line, weight="bold" if bold else "normal")
        self.y = start + LINE_PT * (1 + max(map(len, columns))) + 3

    def _passages(self, example: Example) -> None:
        self._text(EDGE_PT, "Passages, by rank" if example.passages else "No passage was asked for.", weight="bold")
        limit = (example.prediction.evaluation_data.get("settings") or {}).get("verdict_threshold", 0.5)
        for passage, prob, used in example.passages:
            self.y += LINE_PT
            self.axes.add_patch(Rectangle((EDGE_PT, self.y - 5.5), BAR_PT, 5.5, facecolor="none", edgecolor=GREY, linewidth=0.5))
            self.axes.add_patch(Rectangle((EDGE_PT, self.y - 5.5), BAR_PT * prob, 5.5, facecolor=BLUE if prob > limit else GREY))
            self._text(EDGE_PT + BAR_PT + 4, f"{prob:.2f}")
            verdict = ("relevant, used" if used else "relevant") if prob > limit else "irrelevant"
            self._text(EDGE_PT + BAR_PT + 24, verdict, weight="bold" if used else "normal")
            x = EDGE_PT + BAR_PT + 30 + width_pt("relevant, used", bold=True)
            self._text(x, shortened(f"{passage.title or passage.id}: {passage.text}", self.width - x - 2 * EDGE_PT))


def _shot(axes: Axes, pixels: np.ndarray, box: tuple[float, float, float, float]) -> None:
    x, y, width, height = box
    axes.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="bilinear", zorder=1)


def _decision(example: Example) -> list[str]:
    data = example.prediction.evaluation_data
    prob, tau = data.get("retrieval_prob"), (data.get("settings") or {}).get("tau")
    said = [f"p = {prob:.2f}" + (f", threshold {tau:.2f}" if tau is not None else "")] if prob is not None else []
    return [f"Decision: {RETRIEVAL if data.get('is_retrieval') else NO_RETRIEVAL}", *said]


def _section_lines(commentary: Commentary, limit_pt: float) -> list[tuple[str, bool]]:
    """(line, whether it is a heading) of all sections that hold something."""
    lines = []
    for key, name in SECTIONS.items():
        if notes := getattr(commentary, key):
            lines += [(name, True), *((line, False) for note in notes for line in wrapped(note, limit_pt))]
    return lines or [("(nothing)", False)]

"""The case inspector: one case after another with its clip, frames, passages and commentaries, and a panel to rate them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import ipywidgets as w

from expstar_utils.inspector import panels
from expstar_utils.inspector.cases import Casebook, View
from expstar_utils.inspector.filters import Filters
from expstar_utils.inspector.footage import Span, frames_at, jpegs, shown_clip, span_of, spread_frames
from expstar_utils.inspector.player import Player
from expstar_utils.inspector.rating_panel import RatingPanel
from expstar_utils.ratings import Unit
from expstar_utils.records import ExpStarError

STYLE = Path(__file__).with_name("inspector.css")
KEPT_FILMS = 8  # clips and frames of the cases looked at last
FRAMES = 8  # shown of a clip of which no run says what it saw
NOTHING = "No case fits. Take back a filter, or choose another run."


class Inspector:
    """Looks at cases and rates them; show `root`.

    Args:
        book: the cases. data_root: below which their clips lie. ratings: folder of the raters' files.
        labels: runs that are chosen at first. rater: who rates; empty asks for a name. title: what stands above it.
    """

    def __init__(self, book: Casebook, data_root: Path, ratings: Path, *, labels: Sequence[str] = (), rater: str = "",
                 title: str = ""):
        self.book, self.data_root = book, Path(data_root)
        self.ids: list[str] = []
        self.case_id, self.view, self._counting, self._order = "", None, False, ""
        self._film = lru_cache(maxsize=KEPT_FILMS)(self._read_film)
        self.player = Player(place=str(Path(ratings).resolve()))
        self.heading, self.strip, self.commentary, self.passages = (w.HTML() for _ in range(4))
        self.rating = RatingPanel(ratings, self._rated)
        self.filters = Filters(book, labels, self.update, self._rated_units)
        self.root = self._layout(title)
        self.rating.name.value = rater
        self.player.on_msg(self._hear)
        self.update()

    def _layout(self, title: str) -> w.VBox:
        self.previous, self.next = (w.Button(description=words, tooltip=f"key {key}") for words, key in (
            ("◀ Previous", "p or ←"), ("Next ▶", "n or →")))
        self.number, self.of = w.BoundedIntText(value=1, min=1, max=1), w.HTML()
        self.previous.on_click(lambda _: self.move(-1))
        self.next.on_click(lambda _: self.move(1))
        self.number.observe(lambda change: self._counting or self._to(change["new"] - 1), "value")
        head = w.HTML(f"<style>{STYLE.read_text(encoding='utf8')}</style><div class='es-title'><h1>Case inspector</h1>"
                      f"<span>{panels.text(title)}</span>{panels.problems(self.book.problems)}</div>")
        steps = w.HBox([self.previous, self.number, self.of, self.next]).add_class("es-steps")
        left = w.VBox([steps, self.player, self.rating.root]).add_class("es-left")
        right = w.VBox([self.heading, self.strip, self.commentary, self.passages]).add_class("es-right")
        return w.VBox([head, self.filters.root, w.HBox([left, right]).add_class("es-body")]).add_class("es-root")

    def update(self) -> None:
        """Look for the cases again, and stay with the one that is shown if it is among them and their order is the same."""
        order, self._order = self._order, self.filters.order.value
        self.ids = self.filters.found()
        self.show(self.case_id if self.case_id in self.ids and order == self._order else next(iter(self.ids), ""))

    def move(self, by: int) -> None:
        """Go on or back by so many cases; the ends hold."""
        if self.ids:
            at = self.ids.index(self.case_id) if self.case_id in self.ids else 0
            self._to(at + by)

    def _to(self, at: int) -> None:
        if self.ids:
            wanted = self.ids[min(max(at, 0), len(self.ids) - 1)]
            if wanted != self.case_id:
                self.show(wanted)

    def show(self, case_id: str) -> None:
        """Show a case's texts at once; its film comes when the browser asks for it (`load_film`)."""
        self.case_id, self.view, problem = case_id, None, "" if case_id else NOTHING
        try:
            self.view = self.book.view(case_id, self.filters.labels) if case_id else None
        except ExpStarError as error:
            problem = str(error)
        self._count()
        self._show_texts(problem)
        self.player.play(b"", "Loading the clip …" if self.view else "")
        self.player.case_id = case_id

    def _count(self) -> None:
        self._counting = True
        self.of.value = f"of {len(self.ids):,}"
        self.number.max = max(len(self.ids), 1)
        self.number.value = self.ids.index(self.case_id) + 1 if self.case_id else 1
        self._counting = False

    def _show_texts(self, problem: str) -> None:
        view = self.view
        self.strip.value = panels.waiting_strip() if view else ""
        self.heading.value = panels.heading(view) if view else panels.message(problem)
        marks = {label: self.book.runs[label].marks[view.case.id] for label in view.predictions} if view else {}
        self.commentary.value = panels.commentary(view, marks) if view else ""
        self.passages.value = panels.passages(view) if view else ""
        self.rating.show(self.case_id, {label: p.response for label, p in view.predictions.items()} if view else {})

    def load_film(self) -> None:
        """Show the clip of the case and the frames that the models saw, or say why not."""
        if self.view is None:
            return
        clip, problem, strip = self._film(self.case_id, tuple(self.view.predictions))
        self.player.play(clip, problem)
        self.strip.value = strip

    def _read_film(self, case_id: str, labels: tuple[str, ...]) -> tuple[bytes, str, str]:
        """(clip, why there is none, strip of frames)."""
        view = self.book.view(case_id, labels)
        try:
            span = span_of(view.case.clip, self.data_root)
            return shown_clip(span), "", strips(view, span)
        except (ExpStarError, av.FFmpegError, OSError) as error:
            return b"", str(error), ""

    def _rated(self) -> None:
        """Keep the rater's name in the browser; what is left to rate is counted when the filter is next used."""
        if self.rating.book is not None:
            self.player.rater = self.rating.book.rater

    def _rated_units(self) -> set[Unit]:
        return {rating.unit for rating in self.rating.book.ratings} if self.rating.book is not None else set()

    def _hear(self, _: Player, said: dict[str, Any], __: list[bytes]) -> None:
        """A message of the player, see there."""
        kind = said.get("kind")
        if kind == "want" and said.get("id") == self.case_id:
            self.load_film()
        elif kind == "step":
            self.move(1 if said.get("to") == "next" else -1)
        elif kind == "hello":
            if said.get("rater") and not self.rating.name.value:
                self.rating.name.value = str(said["rater"])
            if said.get("id") in self.ids:
                self.show(said["id"])


def strips(view: View, span: Span) -> str:
    """Frames as the models saw them, a strip for every choice of frames among the runs."""
    seen, where = panels.seen_by(view), f"seconds in the film, clip {span.start_s:g} to {span.end_s:g} s"
    if not seen:
        frames, caption = spread_frames(span, FRAMES), f"Frames of the clip; no run says which ones it saw ({where})"
        return panels.strip(jpegs(frames), frames.times_s.tolist(), span, caption)
    found = []
    for times, labels in seen.items():
        blank = [label for label in labels if (view.predictions[label].evaluation_data.get("settings") or {}).get("blank")]
        grey = f"; all grey to {', '.join(blank)}" if blank else ""
        caption = f"{len(times)} frames as seen by {', '.join(labels)} ({where}){grey}"
        found.append(panels.strip(jpegs(frames_at(span, times)), times, span, caption))
    return "".join(found)

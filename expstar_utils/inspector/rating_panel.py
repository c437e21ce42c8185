"""The inspector's rating panel: three scales and a note for one commentary, kept at once and shown again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w

from expstar_utils.inspector.panels import chip, text
from expstar_utils.ratings import ASPECTS, SCALE, Rating, RatingBook
from expstar_utils.records import ExpStarError

PAUSE_S = 0.8  # without a key, after which a note is kept
NOT_GIVEN = ("–", 0)


class RatingPanel:
    """Ratings of the case that is shown, by one rater.

    Args:
        folder: where the raters' files lie. changed: called when a rater came or said something.

    Who rates is `name.value`; empty, nothing is kept.
    """

    def __init__(self, folder: Path, changed: Callable[[], None]):
        self.folder, self.changed = Path(folder), changed
        self.book: RatingBook | None = None
        self._case_id, self._responses = "", {}
        self._filling, self._waiting = False, None
        self.name = w.Text(description="Rater", placeholder="your name or initials", continuous_update=False)
        self.run = w.Dropdown(description="Run")
        self.scales = {aspect: w.ToggleButtons(options=[NOT_GIVEN, *((str(n), n) for n in SCALE)], value=0,
                                               description=aspect.capitalize()) for aspect in ASPECTS}
        self.note = w.Textarea(description="Note", placeholder="what is wrong or good", rows=2)
        self.status = w.HTML()
        self.root = w.VBox([self.name, self.run, *self.scales.values(), self.note, self.status]).add_class("es-rating")
        self._watch()
        self._fill()

    def _watch(self) -> None:
        self.name.observe(lambda change: self._open(change["new"]), "value")
        self.run.observe(lambda _: self._fill(), "value")
        for aspect, scale in self.scales.items():
            scale.observe(lambda change, aspect=aspect: self._save(**{aspect: change["new"] or None}), "value")
        self.note.observe(lambda _: self._later(), "value")

    def _open(self, rater: str) -> None:
        """Take up a rater's file where it was left."""
        self.keep_note()
        self.book, problem = None, ""
        try:
            self.book = RatingBook(self.folder, rater) if rater.strip() else None
        except ExpStarError as error:
            problem = str(error)
        self._fill(problem)
        self.changed()

    def show(self, case_id: str, responses: Mapping[str, str]) -> None:
        """Show the rater's ratings of another case.

        Args:
            responses: each run's tagged text, by label.
        """
        self.keep_note()
        chosen = self.run.value
        self._filling, self._case_id, self._responses = True, case_id, dict(responses)
        self.run.options = list(responses)
        self.run.value = chosen if chosen in responses else next(iter(responses), None)
        self._fill()

    def _fill(self, problem: str = "") -> None:
        rating = None
        try:
            rating = self._found()
        except ExpStarError as error:
            problem = str(error)
        self._filling = True
        for aspect, scale in self.scales.items():
            scale.value = (rating and getattr(rating, aspect)) or 0
        self.note.value = rating.note if rating else ""
        self._filling = False
        for control in (*self.scales.values(), self.note):
            control.disabled = self.book is None or not self._responses or bool(problem)
        self._say(problem, rating)

    def _found(self) -> Rating | None:
        if self.book is None or self.run.value not in self._responses:
            return None
        self.book.refresh()
        return self.book.get(self._case_id, self.run.value, self._responses[self.run.value])

    def _say(self, problem: str, rating: Rating | None) -> None:
        if problem:
            said = chip(problem, "warn")
        elif self.book is None:
            said = "Give a name to rate."
        else:
            kept = f"Saved {text(rating.at[:16].replace('T', ' '))} UTC. " if rating else "Not rated yet. "
            said = f"{kept}{len(self.book.ratings)} rated by {text(self.book.rater)}."
        self.status.value = f'<p class="es-status" role="status">{said}</p>'

    def _later(self) -> None:
        """Keep the note once no key was pressed for a moment; at once where no loop runs."""
        if self._filling:
            return
        if self._waiting:
            self._waiting.cancel()
        try:
            self._waiting = asyncio.get_running_loop().call_later(PAUSE_S, self.keep_note)
        except RuntimeError:
            self._save(note=self.note.value)

    def keep_note(self) -> None:
        """Keep a note that is still being written."""
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
            self._save(note=self.note.value)

    def _save(self, **said: Any) -> None:
        if self._filling or self.book is None or self.run.value not in self._responses:
            return
        try:
            rating = self.book.save(self._case_id, self.run.value, self._responses[self.run.value], **said)
        except ExpStarError as error:
            self._say(str(error), None)
            return
        self._say("", rating)
        self.changed()

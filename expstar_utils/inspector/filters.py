"""The inspector's filters: which runs, and which of their cases in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w

from expstar_utils.inspector.cases import ORDERS, Casebook, Entry
from expstar_utils.inspector.marks import FLAGS, MEANINGS
from expstar_utils.ratings import Unit

SHOWN_AT_FIRST = 3  # runs side by side
EVERY_STEP = -1


class Filters:
    """Controls that say which cases are looked at.

    Args:
        book: the cases. labels: runs that are chosen at first; none: the first, and those that predicted cases of it too.
        changed: called after every change. rated: the commentaries that the rater rated.
    """

    def __init__(self, book: Casebook, labels: Sequence[str], changed: Callable[[], None], rated: Callable[[], set[Unit]]):
        self.book, self.changed, self.rated = book, changed, rated
        self._filling = False
        first = [label for label in labels if label in book.runs] or first_labels(book)
        self.runs = {label: w.Checkbox(label in first, description=label, indent=False) for label 
                     in dict.fromkeys([*first, *book.runs])}
        self.subject, self.experiment, self.step = (w.Dropdown(description=name) for name in ("Subject", "Experiment", "Step"))
        self.search = w.Text(description="Search", placeholder="words of title, reference, commentary", continuous_update=False)
        self.order = w.Dropdown(description="Order", options=[(words, order) for order, words in ORDERS.items()])
        self.flags = {flag: w.ToggleButton(description=label, tooltip=MEANINGS[flag]) for flag, label in FLAGS.items()}
        self.unrated = w.ToggleButton(description="Not rated by me")
        places = [self.subject, self.experiment, self.step, self.search, self.order]
        self.root = w.VBox([w.HBox(list(self.runs.values())).add_class("es-runs"), w.HBox(places).add_class("es-places"),
                            w.HBox([*self.flags.values(), self.unrated]).add_class("es-flag-row")]).add_class("es-filters")
        self.places()
        for control in (*self.runs.values(), *places, *self.flags.values(), self.unrated):
            control.observe(self._change, "value")

    @property
    def labels(self) -> list[str]:
        """Chosen runs, in their order."""
        return [label for label, box in self.runs.items() if box.value]

    def _change(self, change: dict[str, Any]) -> None:
        if not self._filling:
            self.places()
            self.changed()

    def places(self) -> None:
        """Offer the subjects, experiments and steps that the chosen runs have, each within the one before it."""
        runs = [self.book.runs[label] for label in self.labels]
        entries = [e for e in self.book.entries.values() if not runs or any(e.id in run.marks for run in runs)]
        self._filling = True
        offer(self.subject, "all subjects", "", [(e.subject.replace("_", " "), e.subject) for e in entries])
        entries = [e for e in entries if self.subject.value in ("", e.subject)]
        offer(self.experiment, "all experiments", "", [(named(e), e.experiment) for e in entries])
        entries = [e for e in entries if self.experiment.value in ("", e.experiment)]
        offer(self.step, "all steps", EVERY_STEP, [(str(step), step) for step in sorted({e.step for e in entries})])
        self._filling = False

    def found(self) -> list[str]:
        """Ids of the cases that fit; writes on the buttons of the flags how many have each."""
        asked = {"subject": self.subject.value, "experiment": self.experiment.value, "search": self.search.value,
                 "order": self.order.value, "step": None if self.step.value == EVERY_STEP else self.step.value}
        fitting = self.book.find(self.labels, **asked)
        counts = self.book.counts(fitting, self.labels)
        for flag, button in self.flags.items():
            button.description = f"{FLAGS[flag]} ({counts[flag]})"
            button.disabled = not counts[flag] and not button.value
        wanted = [flag for flag, button in self.flags.items() if button.value]
        found = self.book.find(self.labels, flags=wanted, **asked) if wanted else fitting
        return self._left(found) if self.unrated.value else found

    def _left(self, case_ids: list[str]) -> list[str]:
        """Cases of which the rater has not rated what every chosen run wrote."""
        done, runs = self.rated(), [self.book.runs[label] for label in self.labels]
        return [i for i in case_ids
                if any((i, run.label, run.marks[i].text_hash) not in done for run in runs if i in run.marks) or not runs]


def first_labels(book: Casebook) -> list[str]:
    """The first run, and those that predicted cases of it too; three at most."""
    labels = list(book.runs)
    return [label for label in labels if book.runs[label].marks.keys() & book.runs[labels[0]].marks.keys()][:SHOWN_AT_FIRST]


def named(entry: Entry) -> str:
    """An experiment's name without its subject, as one reads it."""
    return entry.experiment.rpartition("/")[2].replace("_", " ")


def offer(dropdown: w.Dropdown, every: str, none: Any, options: Sequence[tuple[str, Any]]) -> None:
    """Put options into a dropdown, each once, behind one for all of them; what was chosen stays chosen if it is there."""
    new, chosen = [(every, none), *dict.fromkeys(options)], dropdown.value
    if list(dropdown.options) != new:
        dropdown.options = new
        dropdown.value = chosen if any(value == chosen for _, value in new) else none

"""Chemical equations in a text: found, balanced or not, the same as another or not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
CHARGE = re.compile(r"([⁰¹²³⁴⁵⁶⁷⁸⁹]*[⁺⁻])")
FORMULA = r"[A-Z(\[][A-Za-z0-9()\[\]]*(?:[·•*]\d*[A-Z][A-Za-z0-9()]*)?"
ION = r"(?:\^\d*[+-])?"
TERM = re.compile(rf"(\d*)\s?({FORMULA})({ION})")
ANY_TERM = rf"(?:\d+\s?)?{FORMULA}{ION}[↑↓]?"
SIDE = rf"{ANY_TERM}(?:\s*\+\s*{ANY_TERM})*"
ARROW = r"(?:→|⟶|⇌|⇄|<=>|-+>|=+)"
EQUATION = re.compile(rf"(?<![\w)])({SIDE})\s*({ARROW})\s*({SIDE})(?!\w)")
STATE = re.compile(r"\((?:s|l|g|aq)\)$")
DEUTERIUM, RESIDUE = re.compile(r"D(?![a-z])"), re.compile(r"R(?![a-z])")
Composition = dict[int, int]  # atoms by atomic number, charge by 0
HALF = 0.5  # of an equation whose species are right and whose numbers are not


@dataclass(frozen=True)
class Equation:
    """A chemical equation as it was written. reactants, products: (coefficient, formula) each, in ASCII, without states."""

    reactants: tuple[tuple[int, str], ...]
    products: tuple[tuple[int, str], ...]

    @property
    def balanced(self) -> bool | None:
        """Whether atoms and charge are the same on both sides; None where a formula is not known to chempy (`NaR`)."""
        sides = [_sum(side) for side in (self.reactants, self.products)]
        return None if None in sides else sides[0] == sides[1]

    @property
    def species(self) -> tuple[frozenset[str], frozenset[str]]:
        """Formulas on the left and on the right."""
        return frozenset(f for _, f in self.reactants), frozenset(f for _, f in self.products)

    def same(self, other: Equation) -> bool:
        """Whether both say the same reaction, in any order and with all coefficients multiplied by any number."""
        return self._ratios() == other._ratios()

    def _ratios(self) -> dict[tuple[bool, str], Fraction]:
        counts: Counter = Counter()
        for right, side in enumerate((self.reactants, self.products)):
            for number, formula in side:
                counts[bool(right), formula] += number
        least = min(counts.values())
        return {key: Fraction(number, least) for key, number in counts.items()}


def find_equations(text: str) -> list[Equation]:
    """Every chemical equation of a text, in order; laws such as `F = ma` are none, nor are arrows between words."""
    return list(_found(CHARGE.sub(r"^\1", text).translate(PLAIN | RAISED)))


def _found(text: str) -> Iterator[Equation]:
    for match in EQUATION.finditer(text):
        arrow, sides = match[2], [TERM.findall(match[side]) for side in (1, 3)]
        equation = Equation(*(tuple(_term(*term) for term in side) for side in sides))
        formulas = [formula for _, formula in (*equation.reactants, *equation.products)]
        of_several = len(formulas) > 2 or not arrow.startswith("=")  # T2 = T1 is none
        if of_several and all(map(_looks_chemical, formulas)) and any(any(c.isdigit() for c in f) for f in formulas):
            yield equation  # with one formula of several atoms at least: U = IR is a law


def _term(number: str, formula: str, charge: str) -> tuple[int, str]:
    """Coefficient and formula of one term; charges as chempy writes them: `Cu+2`, `OH-`."""
    formula = re.sub(r"[·•*]", "..", STATE.sub("", formula))
    return int(number or 1), formula + charge[-1:] + charge[1:-1]


def _looks_chemical(formula: str) -> bool:
    """Whether it could be a formula: known to chempy, or with an organic rest R in it."""
    return composition(formula) is not None or composition(RESIDUE.sub("C", formula)) is not None


def composition(formula: str) -> Composition | None:
    """Atoms (by atomic number) and charge (by 0) of a formula; None when it is none. Deuterium counts as hydrogen."""
    from chempy.util.parsing import formula_to_composition
    from pyparsing import ParseException
    try:
        found = formula_to_composition(DEUTERIUM.sub("H", formula))
    except (ParseException, ValueError, KeyError):
        return None
    return {atom: count for atom, count in found.items() if count}


def _sum(side: tuple[tuple[int, str], ...]) -> Composition | None:
    total: Counter = Counter()
    for number, formula in side:
        atoms = composition(formula)
        if atoms is None:
            return None
        for atom, count in atoms.items():
            total[atom] += number * count
    return {atom: count for atom, count in total.items() if count}


def equations_agree(text: str, reference: str) -> float | None:
    """How far the equations of a text are those of its reference, 0 to 1; None when neither has any."""
    said, wanted = find_equations(text), find_equations(reference)
    if not said and not wanted:
        return None
    if any(e.balanced is False for e in said) or not wanted:
        return 0.0
    right = [max((1.0 if e.same(w) else HALF if e.species == w.species else 0.0 for e in said), default=0.0) for w in wanted]
    return sum(right) / len(wanted)

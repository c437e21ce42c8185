"""Chemical equations: found in running text, judged, compared."""

from __future__ import annotations

import pytest
import yaml

from expstar_utils.equations import composition, find_equations
from expstar_utils.mini.build import SPECS

SODA = "NaHCO3 + HCl → NaCl + CO2↑ + H2O"


@pytest.mark.parametrize(("text", "balanced"), [
    (SODA, True), ("NaHCO₃ + HCl → NaCl + CO₂↑ + H₂O", True), ("H2 + O2 → H2O", False), ("2 H2 + O2 = 2 H2O", True),
    ("MnO4⁻ + 5Fe²⁺ + 8H⁺ → Mn²⁺ + 5Fe³⁺ + 4H2O", True), ("MnO4⁻ + Fe²⁺ + 8H⁺ → Mn²⁺ + Fe³⁺ + 4H2O", False),
    ("SO4^2- + Ba^2+ -> BaSO4↓", True), ("CuSO4 + 2NaR → CuR2 + Na2SO4", None), ("CuSO4·5H2O → CuSO4 + 5H2O", True),
    ("2CO(g) + O2(g) ⇌ 2CO2(g)", True), ("2D2 + O2 → 2D2O", True), ("2H2+O2→2H2O", True), ("N2 + 3H2 <=> 2NH3", True)])
def test_an_equation_is_found_and_weighed(text, balanced):
    [found] = find_equations(f"It reacts: {text}, which is seen.")
    assert found.balanced is balanced


@pytest.mark.parametrize("text", ["F = ma", "U = IR", "P = IV", "starch → glucose", "v = s/t = 3 m/s", "", "2 + 2 = 4", "→",
                                  "I2 turns blue", "amylose helix + iodine → blue-black complex", "T2 = 300 K"])
def test_laws_and_words_are_no_equations(text):
    assert find_equations(text) == []


def test_order_and_multiples_do_not_matter_and_species_do():
    [soda] = find_equations(SODA)
    [turned] = find_equations("2HCl + 2NaHCO3 → 2H2O + 2NaCl + 2CO2")
    [other] = find_equations("Na2CO3 + 2HCl → 2NaCl + CO2 + H2O")
    [wrong] = find_equations("NaHCO3 + 2HCl → NaCl + CO2 + H2O")
    [back] = find_equations("NaCl + CO2 + H2O → NaHCO3 + HCl")
    assert soda.same(turned)
    assert not any(soda.same(x) for x in (other, wrong, back))
    assert soda.species == wrong.species != other.species


def test_several_equations_of_one_text_keep_their_order():
    found = find_equations("First 2H2 + O2 → 2H2O.\nThen C + O2 → CO2; at last CO2 + C → 2CO.")
    assert [e.reactants[0] for e in found] == [(2, "H2"), (1, "C"), (1, "CO2")]
    assert all(e.balanced for e in found)


def test_a_composition_names_atoms_and_charge():
    assert composition("Cu+2") == {29: 1, 0: 2}
    assert composition("Ca(OH)2") == {20: 1, 8: 2, 1: 2}
    assert composition("hello") is None


def test_every_equation_of_mini_balances():
    texts = [text for path in SPECS.glob("*.yaml") for text in _strings(yaml.safe_load(path.read_text(encoding="utf8")))]
    found = [e for text in texts for e in find_equations(text)]
    assert len(found) > 25
    assert [e for e in found if e.balanced is False] == []


def _strings(value):
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)

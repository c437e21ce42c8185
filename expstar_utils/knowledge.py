"""The knowledge base: passages written for it, and hazard cards made from the `chemicals` package.

    python -m expstar_utils.knowledge                                   # data/knowledge_base/hazard_cards.jsonl anew
    python -m expstar_utils.knowledge --cas cas.txt --out runs/mine     # cards of a list of substances, one a line: CAS [name]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from expstar_utils.files import inside, read_jsonl, write_jsonl
from expstar_utils.records import ExpStarError, Passage, Problem

FOLDER = Path(__file__).parents[1] / "data" / "knowledge_base"
CARDS = "hazard_cards.jsonl"
MOST_CHARACTERS = 10_000  # of a passage: more would fill a model's whole context


def load_knowledge(folder: Path = FOLDER) -> list[Passage]:
    """All passages of a folder of JSONL files, in file order.

    Raises:
        ExpStarError: no file there, an empty text or a huge one, or an id that stands twice.
    """
    passages: dict[str, Passage] = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        for passage in read_jsonl(inside(folder, path.name), Passage):
            if passage.id in passages:
                raise ExpStarError(f"{path}: id {passage.id!r} stands twice, expected unique ids; rename one")
            if not passage.text.strip():
                raise ExpStarError(f"{path}: text of {passage.id!r} is empty, expected a passage; write or remove it")
            if len(passage.text) > MOST_CHARACTERS:
                raise ExpStarError(f"{path}: text of {passage.id!r} has {len(passage.text)} characters, expected a passage of "
                                   "about 100 words; cut the file with `python -m expstar_utils.shards`")
            passages[passage.id] = passage
    if not passages:
        raise ExpStarError(f"{folder}: no *.jsonl with passages there; give the folder of a knowledge base")
    return list(passages.values())


def is_hazard_card(passage: Passage) -> bool:
    """Whether a passage is a substance's hazard card, told by its id."""
    return passage.id.startswith("hazard-")


def hazard_card(cas: str, name: str | None = None) -> Passage:
    """Hazard card of a substance: flash point, ignition, flammability limits, exposure limit, carcinogen class.

    Args:
        cas: CAS number. name: what the project calls it; None takes the package's common name.

    Raises:
        ExpStarError: the package does not know the number.
    """
    from chemicals import identifiers, safety
    try:
        if not identifiers.check_CAS(cas):  # the search takes names and formulas too
            raise ValueError(cas)
        found = identifiers.search_chemical(cas)
    except ValueError:
        raise ExpStarError(f"CAS number {cas!r} is not known to the `chemicals` package; check it") from None
    name = name or next(n for n in (found.common_name, found.iupac_name, found.formula) if n and n != cas)
    sentences = [f"Hazard card for {name} (CAS {cas}, formula {found.formula})."]
    sentences += _fire(cas, safety) + _health(cas, found.MW, safety)
    if len(sentences) == 1:
        sentences.append("The source lists neither fire data nor an exposure limit for it. Wear goggles, keep it off skin and "
                         "food, and wash your hands after work.")
    sentences.append(f"Figures for {name} are from the data tables of the Python package `chemicals`.")
    return Passage(id=f"hazard-{cas}", title=f"{name}: hazard card", section="Hazard cards", text=" ".join(sentences))


def _fire(cas: str, safety) -> list[str]:
    said = []
    if flash := safety.T_flash(cas):
        said.append(f"Its flash point is {flash - 273.15:.0f} °C ({safety.T_flash_methods(cas)[0]}): above that its vapour can "
                    "be lit.")
    if ignition := safety.T_autoignition(cas):
        said.append(f"It ignites by itself at {ignition - 273.15:.0f} °C ({safety.T_autoignition_methods(cas)[0]}).")
    low, high = safety.LFL(CASRN=cas), safety.UFL(CASRN=cas)
    if low and high and safety.LFL_methods(CASRN=cas) and low > 0:
        said.append(f"Between {100 * low:.1f} and {100 * high:.1f} % in air it forms a flammable or explosive mixture "
                    f"({safety.LFL_methods(CASRN=cas)[0]}): keep flames and sparks away and ventilate well.")
    return said


def _health(cas: str, molar_mass: float, safety) -> list[str]:
    said = []
    if limit := safety.TWA(cas):
        value, unit = limit
        mg = float(f"{value * molar_mass / 24.45 if unit == 'ppm' else value:.2g}")
        said.append(f"The exposure limit for an eight-hour day is {mg:g} mg/m³ ({safety.TWA_methods(cas)[0]}): do not breathe "
                    "it, work in a fume cupboard or with good ventilation.")
    if safety.Skin(cas):
        said.append("It is taken up through the skin: wear gloves.")
    classes = {source: label for source, label in (safety.Carcinogen(cas) or {}).items() if label != "Unlisted"}
    said += [f"Carcinogen class: {label} ({source})." for source, label in classes.items()]
    return said


def substances(families: Iterable) -> dict[str, str]:
    """CAS number -> name of every substance that ExpInstruct-Mini uses."""
    found: dict[str, str | None] = {}
    for family in families:
        for cas in family.cas:
            found.setdefault(cas, None)
        for variant in family.variants:
            name = variant.know["substance"].en if len(variant.cas) == 1 and "substance" in variant.know else None
            for cas in variant.cas:
                found[cas] = found.get(cas) or name
    return dict(sorted(found.items()))


def read_substances(path: Path) -> dict[str, str | None]:
    """CAS number -> name, or None, from a text file: `630-08-0 carbon monoxide` a line; empty lines and `#` are passed over.

    Raises:
        ExpStarError: no such file, or not UTF-8 text.
    """
    try:
        lines = Path(path).read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExpStarError(f"{path}: cannot be read ({error}), expected lines of a CAS number and a name; give another "
                           "file") from None
    split = [line.split(None, 1) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {cas: rest[0].strip() if rest else None for cas, *rest in split}


def write_hazard_cards(folder: Path = FOLDER, named: Mapping[str, str | None] | None = None,
                       report: Callable[[Problem], None] | None = None) -> Path:
    """Write hazard cards; what cannot be made is reported, and the others are written.

    Args:
        named: CAS number -> name; None takes all substances of Mini. report: None raises at the first unknown number.
    """
    if named is None:
        from expstar_utils.mini.build import SPECS
        from expstar_utils.mini.family import load_families
        named = substances(load_families(SPECS))
    cards = []
    for cas, name in named.items():
        try:
            cards.append(hazard_card(cas, name))
        except ExpStarError as error:
            if report is None:
                raise
            report(Problem(file=str(folder / CARDS), field="CAS number", found=f"{cas!r} ({error})",
                           expected="one that the `chemicals` package knows", todo="correct it; the other cards were written"))
    return write_jsonl(folder / CARDS, cards)


def main() -> None:
    """Write cards from the command line; ends with status 1 when a number was unknown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cas", type=Path, help="file with a CAS number and a name a line; left out, Mini's substances")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    problems: list[Problem] = []
    try:
        named = read_substances(given.cas) if given.cas else None
        print(write_hazard_cards(given.out, named, problems.append))
    except ExpStarError as error:
        raise SystemExit(str(error)) from None
    if problems:
        raise SystemExit("\n".join(map(str, problems)))


if __name__ == "__main__":
    main()

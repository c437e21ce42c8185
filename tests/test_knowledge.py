"""The knowledge base: whole, of unique passages, and its hazard cards say what their source says."""

from __future__ import annotations

import re

import pytest
from chemicals import safety

from expstar_utils import knowledge
from expstar_utils.files import read_jsonl, write_jsonl
from expstar_utils.knowledge import CARDS, FOLDER, hazard_card, load_knowledge, substances
from expstar_utils.mini.build import SPECS
from expstar_utils.mini.family import load_families
from expstar_utils.records import SUBJECTS, ExpStarError, Passage

CARBON_MONOXIDE, ACETONE, IRON, COBALT_CHLORIDE = "630-08-0", "67-64-1", "7439-89-6", "7646-79-9"


# Hazard cards

def test_card_names_number_limits_and_source():
    card = hazard_card(CARBON_MONOXIDE)
    low, high = safety.LFL(CASRN=CARBON_MONOXIDE), safety.UFL(CASRN=CARBON_MONOXIDE)
    assert (card.id, card.title) == ("hazard-630-08-0", "carbon monoxide: hazard card")
    for said in ("CAS 630-08-0", "formula CO)", f"Between {100 * low:.1f} and {100 * high:.1f} % in air",
                 "Python package `chemicals`", f"ignites by itself at {safety.T_autoignition(CARBON_MONOXIDE) - 273.15:.0f} °C"):
        assert said in card.text
    assert 0 < low < high <= 1


@pytest.mark.parametrize("cas", [CARBON_MONOXIDE, ACETONE, "75-15-0", "106-99-0"])
def test_every_figure_stands_with_the_table_it_is_from(cas):
    tables = {*safety.T_flash_methods(cas), *safety.T_autoignition_methods(cas), *safety.LFL_methods(CASRN=cas),
              *safety.TWA_methods(cas), *(safety.Carcinogen(cas) or {})}
    sentences = re.split(r"(?<=\.) ", hazard_card(cas).text)
    figures = [s for s in sentences if re.search(r"\d (?:°C|%|mg/m³)|Carcinogen class", s)]
    assert len(figures) >= 3
    for sentence in figures:
        assert any(f"({table})" in sentence for table in tables), sentence


def test_exposure_limit_is_that_of_the_source_in_plain_digits():
    value, unit = safety.TWA(ACETONE)
    assert unit == "ppm"
    [said] = re.findall(r"eight-hour day is (\S+) mg/m³", hazard_card(ACETONE).text)
    assert said.isdigit(), "no 1.2e+03"
    assert float(said) == pytest.approx(value * 58.08 / 24.45, rel=0.05)


def test_substance_of_which_nothing_is_known_says_so():
    text = hazard_card(IRON).text
    assert "lists neither fire data nor an exposure limit" in text
    assert not re.search(r"°C|mg/m³|% in air", text)


def test_name_given_wins_and_the_name_found_is_no_number():
    assert hazard_card(CARBON_MONOXIDE, "town gas").title == "town gas: hazard card"
    assert COBALT_CHLORIDE not in hazard_card(COBALT_CHLORIDE).title


@pytest.mark.parametrize("cas", ["630-08-1", "9999999-99-9", "000-00-0", "water", "H2O", ""])
def test_unknown_number_is_refused_by_name(cas):
    with pytest.raises(ExpStarError, match=f"^CAS number '{cas}' is not known"):
        hazard_card(cas)


def test_a_list_of_substances_becomes_cards_and_what_is_unknown_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "cas.txt").write_text(f"# gases\n{CARBON_MONOXIDE} town gas\n\n{ACETONE}\n999-99-9 nothing\n")
    assert knowledge.read_substances(tmp_path / "cas.txt") == {CARBON_MONOXIDE: "town gas", ACETONE: None, "999-99-9": "nothing"}
    monkeypatch.setattr("sys.argv", ["knowledge", "--cas", str(tmp_path / "cas.txt"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="CAS number is '999-99-9'"):
        knowledge.main()
    cards = load_knowledge(tmp_path / "out")
    assert [p.id for p in cards] == [f"hazard-{CARBON_MONOXIDE}", f"hazard-{ACETONE}"]
    assert cards[0].title == "town gas: hazard card"
    assert capsys.readouterr().out.strip().endswith(CARDS)


@pytest.mark.parametrize("content", [None, b"\xff\xfe630"])
def test_a_list_that_cannot_be_read_is_named(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "cas.txt").write_bytes(content)
    monkeypatch.setattr("sys.argv", ["knowledge", "--cas", str(tmp_path / "cas.txt"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"cas\.txt: cannot be read"):
        knowledge.main()


# Reading a folder

def test_files_are_read_in_the_order_of_their_names(tmp_path):
    write_jsonl(tmp_path / "b.jsonl", [Passage(id="3", text="c")])
    write_jsonl(tmp_path / "a.jsonl", [Passage(id="2", text="b"), Passage(id="1", text="a")])
    assert [p.id for p in load_knowledge(tmp_path)] == ["2", "1", "3"]


@pytest.mark.parametrize(("rows", "said"), [
    ([{"id": "1", "text": "a"}, {"id": "1", "text": "b"}], "mine.jsonl: id '1' stands twice"),
    ([{"id": "1", "text": " \n"}], "mine.jsonl: text of '1' is empty"),
    ([{"id": "1", "text": "a " * 500_000}], "mine.jsonl: text of '1' has 1000000 characters"),
    ([{"id": "1"}], "mine.jsonl, line 1: text is missing"),
    ([], "give the folder of a knowledge base")])
def test_bad_knowledge_base_is_named(rows, said, tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", rows)
    with pytest.raises(ExpStarError, match=re.escape(said)):
        load_knowledge(tmp_path)


def test_id_is_unique_over_files_too(tmp_path):
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [Passage(id="same", text="x")])
    with pytest.raises(ExpStarError, match=r"b\.jsonl: id 'same' stands twice"):
        load_knowledge(tmp_path)


# What ships

def test_every_subject_has_passages_and_there_are_three_hundred():
    files = {path.stem: list(read_jsonl(path, Passage)) for path in FOLDER.glob("*.jsonl") if path.name != CARDS}
    assert set(files) == set(SUBJECTS)
    assert min(map(len, files.values())) >= 10
    assert sum(map(len, files.values())) >= 300


@pytest.mark.parametrize("path", [p for p in sorted(FOLDER.glob("*.jsonl")) if p.name != CARDS], ids=lambda p: p.stem)
def test_passages_have_the_published_keys_a_readable_length_and_the_id_of_their_subject(path):
    for passage in read_jsonl(path, Passage):
        assert list(passage.to_dict()) == ["id", "title", "section", "text"], passage.id
        assert passage.id.startswith(f"{path.stem}-")
        assert 60 <= len(passage.text.split()) <= 125, passage.id


def test_ids_and_texts_that_ship_are_unique():
    passages = load_knowledge()
    assert len({p.id for p in passages}) == len({p.text for p in passages}) == len(passages)


def test_cards_that_ship_are_what_the_package_says_now():
    made = [hazard_card(cas, name) for cas, name in substances(load_families(SPECS)).items()]
    assert len(made) >= 20
    assert [p.to_dict() for p in read_jsonl(FOLDER / CARDS, Passage)] == [p.to_dict() for p in made]


def test_cards_are_written_byte_for_byte_the_same(tmp_path):
    first = knowledge.write_hazard_cards(tmp_path).read_bytes()
    assert knowledge.write_hazard_cards(tmp_path).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [CARDS]

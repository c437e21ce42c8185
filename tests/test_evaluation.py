"""The report: files of every published shape are read, bad rows are named, groups equal anew, and the tables keep their text."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.made_up import SUBJECTS, pairs
from expstar_utils import evaluation
from expstar_utils.evaluation import GROUPS, METRICS, evaluate, overview, section_pair, write_report
from expstar_utils.evaluation_rows import TextPair, prediction_files, read_pairs
from expstar_utils.prompts import Commentary, build
from expstar_utils.records import ExpStarError, Problem
from expstar_utils.result_tables import latex_escaped, write_csv, write_latex

DEMO = Path(__file__).parents[2] / "shared" / "expstar_demo"
CHEAP = ("bleu", "meteor", "rouge", "cider")
PREDICTED = {"id": "a", "response": "pour it", "labels": "pour that", "full_dialogue": "x"}
COMPARED = {"gt": {"feedback": "heat that"}, "pred": {"feedback": "heat it"}, "data_type": "chemistry"}


def saved(path: Path, *rows: object) -> Path:
    """A JSONL file; text is a line as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf8")
    return path


def texts(found: list[TextPair]) -> list[tuple[str, str]]:
    return [(pair.prediction, pair.reference) for pair in found]


# Reading

def test_every_published_shape_is_read(tmp_path):
    rows = [PREDICTED, COMPARED]
    expected = [("pour it", "pour that"), ("heat it", "heat that")]
    mixed = saved(tmp_path / "mixed.jsonl", *rows)
    (tmp_path / "list.json").write_text(json.dumps(rows), encoding="utf-8-sig")
    (tmp_path / "lines.json").write_bytes(mixed.read_bytes().replace(b"\n", b"\r\n\r\n"))
    (tmp_path / "one.json").write_text(json.dumps(COMPARED, indent=1), encoding="utf8")
    for name in ("mixed.jsonl", "list.json", "lines.json"):
        found, problems = read_pairs(tmp_path / name)
        assert (texts(found), problems) == (expected, []), name
    assert texts(read_pairs(tmp_path / "one.json")[0]) == expected[1:]
    assert [p.name for p in prediction_files(tmp_path)] == ["lines.json", "list.json", "mixed.jsonl", "one.json"]
    assert prediction_files(mixed) == [mixed]


def test_a_folder_is_one_set(tmp_path):
    saved(tmp_path / "1.jsonl", PREDICTED)
    saved(tmp_path / "2.json", COMPARED)
    saved(tmp_path / ".hidden.jsonl", "no")
    saved(tmp_path / "notes.txt", "no")
    found, problems = read_pairs(tmp_path)
    assert texts(found) == [("pour it", "pour that"), ("heat it", "heat that")]
    assert problems == []


@pytest.mark.skipif(not DEMO.is_dir(), reason="../shared/expstar_demo is absent: the published files")
@pytest.mark.parametrize("name", ["6Expstar_result/result.jsonl", "7eval/eval.jsonl"])
def test_published_demo_files_are_scored(name):
    found, problems = read_pairs(DEMO / name)
    rows = [json.loads(line) for line in (DEMO / name).read_text(encoding="utf8").splitlines() if line.strip()]
    assert problems == []
    assert [p.reference for p in found] == [row["labels"] if "labels" in row else row["gt"]["feedback"] for row in rows]
    assert evaluate(found, CHEAP).overall["ROUGE-L"] > 10


def test_subjects_and_disciplines_come_from_the_row_the_data_type_or_the_caller(tmp_path):
    rows = [PREDICTED | {"id": "a", "data_type": "physics"}, PREDICTED | {"id": "b", "subject": "telematics", "data_type": "new"},
            PREDICTED | {"id": "c", "data_type": 3}, PREDICTED | {"id": 4}, PREDICTED | {"id": "e", "data_type": None}]
    found, problems = read_pairs(saved(tmp_path / "x.jsonl", *rows), subjects={"4": "immuno_engineering"})
    assert [(p.id, p.data_type, p.subject, p.discipline) for p in found] == [
        ("a", "physics", "physics", "Science"), ("b", "new", "telematics", "Engineering"), ("c", "3", "", ""),
        ("4", "", "immuno_engineering", "Healthcare"), ("e", "", "", "")]
    assert problems == []


BAD = [  # row, field, found
    ({"response": "x"}, "labels or gt.feedback", "missing"),
    ({"labels": "x"}, "response or pred.feedback", "missing"),
    ({"response": "x", "labels": " \n"}, "labels", "empty"),
    ({"response": "x", "labels": math.nan}, "labels", "NaN"),
    ({"response": None, "labels": "x"}, "response", "missing"),
    ({"response": ["x"], "labels": "x"}, "response", "of type list"),
    ({"response": "x", "labels": 3.5}, "labels", "of type float"),
    ({"gt": "x", "pred": {"feedback": "x"}}, "labels or gt.feedback", "missing"),
    ({"gt": {"feedback": 0}, "pred": {"feedback": "x"}}, "gt.feedback", "of type int"),
    (["x"], "row", "list"), ("{torn", "line", "not JSON"), ("[" * 100_000, "line", "not JSON")]


@pytest.mark.parametrize(("row", "field", "found"), BAD, ids=[f"{field}: {found}" for _, field, found in BAD])
def test_a_row_that_cannot_be_scored_is_named_and_the_others_count(tmp_path, row, field, found):
    path = saved(tmp_path / "x.jsonl", PREDICTED, row, COMPARED)
    kept, [problem] = read_pairs(path)
    assert texts(kept) == [("pour it", "pour that"), ("heat it", "heat that")]
    assert (problem.file, problem.field, problem.found) == (f"{path}, line 2", field, found)
    assert problem.severity == "error"
    assert problem.todo


def test_empty_predictions_stay_and_half_characters_are_replaced(tmp_path):
    path = saved(tmp_path / "x.jsonl", {"response": "", "labels": "x"},
                 '{"response": "a\\ud800b", "labels": "\\ud83d\\ude00", "data_type": "\\udc00"}')
    found, problems = read_pairs(path)
    write_report(evaluate(found, ("rouge",)), tmp_path / "out", "r")
    assert texts(found) == [("", "x"), ("a\ufffdb", "\U0001f600")]
    assert problems == []


def test_of_rows_with_one_id_the_first_counts(tmp_path):
    path = saved(tmp_path / "x.jsonl", PREDICTED, PREDICTED | {"response": "again"}, COMPARED, COMPARED)
    found, [problem] = read_pairs(path)
    assert texts(found) == [("pour it", "pour that"), ("heat it", "heat that"), ("heat it", "heat that")]
    assert str(problem) == f"{path}, line 2: id is 'a', which stands further up, expected one row an id; the first row counts"


def test_references_that_stand_apart_meet_by_id(tmp_path):
    predictions = saved(tmp_path / "p.jsonl", *({"id": i, "response": f"p{i}"} for i in "abcd"), {"response": "no id"})
    references = saved(tmp_path / "r.jsonl", {"id": "b", "labels": "rb"}, {"id": "a", "gt": {"feedback": "ra"}},
                       {"id": "c", "labels": ""}, {"id": "e", "labels": "re"}, {"id": "a", "labels": "again"}, {"labels": "none"})
    found, problems = read_pairs(predictions, references)
    assert texts(found) == [("pa", "ra"), ("pb", "rb")]
    assert sorted((p.file.removeprefix(f"{tmp_path}/"), p.field, p.found) for p in problems) == [
        ("p.jsonl, line 4", "id", "'d' without a reference"), ("p.jsonl, line 5", "id", "missing"),
        ("r.jsonl", "id", "'e' without a prediction"), ("r.jsonl, line 3", "labels", "empty"),
        ("r.jsonl, line 5", "id", "'a', which stands further up"), ("r.jsonl, line 6", "id", "missing")]


@pytest.mark.parametrize(("content", "said"), [
    (None, "no such file"), (b"\xff\xfe{\x00", "not UTF-8"), (b"[1, 2", "not JSON, expected a JSON list"),
    (b"hello\nworld", "not JSON")])
def test_a_file_of_another_kind_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExpStarError, match=f"x.json: .*{said}"):
        read_pairs(path)


def test_folder_without_predictions_is_said(tmp_path):
    with pytest.raises(ExpStarError, match="found no .json or .jsonl file"):
        prediction_files(tmp_path)


# The report

@pytest.fixture(scope="module")
def rows():
    return pairs(210)


@pytest.fixture(scope="module")
def made(rows):
    return evaluate(rows, CHEAP)


def test_each_group_equals_the_metrics_called_for_it_alone(rows, made):
    names = {group: sorted({getattr(row, group) for row in rows}) for group in GROUPS}
    assert names["data_type"] == sorted(SUBJECTS)
    names |= {"section": ["narration", "principle", "safety"]}
    assert [(line["group"], line["name"]) for line in made.lines[1:]] == [(g, n) for g in names for n in names[g]]
    for line in made.lines[1:]:
        if line["group"] == "section":
            part = [p for row in rows if (p := section_pair(row, line["name"])).reference]
        else:
            part = [row for row in rows if getattr(row, line["group"]) == line["name"]]
        alone = evaluate(part, CHEAP, groups=(), sections=()).lines
        assert len(alone) == 1
        assert line["rows"] == len(part) >= 30
        assert {c: line[c] for c in made.signatures} == pytest.approx({c: alone[0][c] for c in made.signatures}, abs=1e-9)
    assert len({line["CIDEr"] for line in made.lines}) > 8


def test_bertscore_of_a_group_is_that_of_the_group_alone(rows):
    some = rows[:16]
    whole = evaluate(some, ("bertscore",), groups=("subject",), sections=())
    line = next(line for line in whole.lines if line["name"] == "physics")
    alone = evaluate([row for row in some if row.subject == "physics"], ("bertscore",), groups=(), sections=())
    assert line["rows"] == 3
    assert [line[c] for c in whole.signatures] == pytest.approx(list(alone.overall.values()), abs=1e-4)


def test_rows_are_scored_once_for_all_groups(rows, monkeypatch):
    calls = []

    def counting(predictions, references):
        calls.append(len(predictions))
        return evaluation.RougeL(predictions, references)
    monkeypatch.setitem(evaluation.METRICS, "rouge", counting)
    evaluate(rows, ("rouge",), sections=("safety",))
    assert calls == [len(rows), sum(bool(section_pair(row, "safety").reference) for row in rows)]


def test_a_section_is_read_without_tags_and_scores_nothing_where_it_was_not_written():
    reference = build(Commentary(("Pour it.",), ("Gas expands.",), ("Wear goggles.",), True, (True,)))
    whole = TextPair("a", reference, reference)
    missing = TextPair("b", "<Narration>\nWear goggles.\n", reference)
    assert section_pair(whole, "safety").prediction == section_pair(whole, "safety").reference == "Wear goggles."
    report = evaluate([whole, missing, TextPair("c", reference, "<Narration>\nPour it.\n")], ("rouge",), groups=())
    by_name = {line["name"]: line for line in report.lines}
    assert by_name["safety"]["rows"] == by_name["principle"]["rows"] == 2
    assert by_name["safety"]["ROUGE-L"] == 50
    assert by_name["narration"]["rows"] == 3


def test_rows_of_the_report_are_those_of_the_file(rows, made):
    assert [row["id"] for row in made.rows] == [row.id for row in rows]
    assert sum(row["ROUGE-L"] for row in made.rows) / len(rows) == pytest.approx(made.overall["ROUGE-L"])
    assert [row["METEOR"] for row in made.rows][7] == 0


def test_cider_of_single_rows_is_noted():
    alone = evaluate([TextPair("a", "pour it", "pour it", "new")], ("cider", "rouge"))
    assert alone.overall == {"CIDEr": 0.0, "ROUGE-L": 100.0}
    [note] = alone.problems
    assert (note.field, note.severity, note.found) == ("CIDEr", "note", "0 for a single row (all all, data_type new)")
    assert evaluate([TextPair("a", "pour it", "pour it")], ("rouge",)).problems == []


@pytest.mark.parametrize(("found", "metrics", "said"), [
    ([], CHEAP, "no row to score, expected .*x.jsonl, line 3: labels is NaN"),
    ([TextPair("a", "b", "c")], ("blue",), r"\['blue'\], expected some of"),
    ([TextPair("a", "b", "c")], (), "none, expected some of")])
def test_nothing_to_report_is_one_sentence(found, metrics, said):
    problem = Problem(file="x.jsonl, line 3", field="labels", found="NaN", expected="a text", todo="fill it in")
    with pytest.raises(ExpStarError, match=said):
        evaluate(found, metrics, problems=[problem])


def test_all_metrics_of_the_paper_have_a_column(rows):
    report = evaluate(rows[:4], groups=(), sections=())
    assert list(METRICS) == [*CHEAP, "bertscore"]
    assert [column.split(" ")[0] for column in report.overall] == [
        "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "sacreBLEU", "METEOR", "ROUGE-L", "CIDEr",
        "BERTScore-P", "BERTScore-R", "BERTScore-F1"]


# Writing

def test_files_of_a_report_hold_its_numbers_and_are_the_same_bytes_again(made, rows, tmp_path):
    paths = write_report(made, tmp_path / "once", "test")
    again = write_report(evaluate(rows, CHEAP), tmp_path / "twice", "test")
    assert {k: p.read_bytes() for k, p in paths.items()} == {k: p.read_bytes() for k, p in again.items()}
    kept = json.loads(paths["json"].read_text(encoding="utf8"))
    assert kept["signatures"] == made.signatures
    assert [line["CIDEr"] for line in kept["lines"]] == pytest.approx([line["CIDEr"] for line in made.lines], abs=1e-6)
    with open(paths["csv"], encoding="utf8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [line["name"] for line in made.lines]
    assert table[1]["METEOR"] == f"{made.lines[1]['METEOR']:.4f}"
    latex = paths["tex"].read_text(encoding="utf8")
    assert f"% METEOR: {made.signatures['METEOR']}\n" in latex
    assert latex.count(r"\midrule") == 5
    assert f"all & all & 210 & {made.overall['BLEU-1']:.2f} & " in latex
    assert len(paths["rows"].read_text(encoding="utf8").splitlines()) == 210


def test_problems_stand_in_the_json(tmp_path):
    problem = Problem(file="x", field="y", found="z", expected="w", todo="v")
    report = evaluate([TextPair("a", "b", "c")], ("rouge",), problems=[problem])
    kept = json.loads(write_report(report, tmp_path, "r")["json"].read_text(encoding="utf8"))
    assert kept["problems"] == [problem.model_dump()]


def test_overview_has_a_line_a_model(made):
    other = dataclasses.replace(made, lines=[made.lines[0] | {"METEOR": 1.5}])
    lines = overview({"ours": made, "theirs": other})
    assert [(line["model"], line["rows"], line["METEOR"]) for line in lines] == [("ours", 210, made.overall["METEOR"]),
                                                                                ("theirs", 210, 1.5)]
    assert list(lines[0]) == ["model", "rows", *made.signatures]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.floats(-1e3, 1e3))
def test_csv_gives_text_and_numbers_back(tmp_path_factory, names, number):
    path = write_csv(tmp_path_factory.mktemp("csv") / "t.csv", [{"name": name, "value": number} for name in names])
    with open(path, encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, row in zip(names, rows, strict=True):
        shown = name.replace("\r", " ")
        assert row["name"] == (f"'{shown}" if shown.startswith(tuple("=+-@\t\n")) else shown)
        assert float(row["value"]) == pytest.approx(number, abs=1e-4)


def test_formulas_are_guarded_in_text_alone(tmp_path):
    line = {"name": "=HYPERLINK(1)", "other": "-x", "value": -1.5, "count": -2, "none": None, "nan": math.nan}
    text = write_csv(tmp_path / "t.csv", [line]).read_text(encoding="utf8")
    assert text == "name,other,value,count,none,nan\n'=HYPERLINK(1),'-x,-1.5000,-2,,\n"


def test_latex_shows_signs_as_they_are(tmp_path):
    assert latex_escaped("50 % of_a & b \\ ~^ {x} #$\n<y>|") == (
        r"50 \% of\_a \& b \textbackslash{} \textasciitilde{}\textasciicircum{} \{x\} \#\$ \textless{}y\textgreater{}\textbar{}")
    lines = [{"model": "[a]", "BLEU-1": 1.005, "rows": 3}, {"model": "碳*", "BLEU-1": None, "rows": 4}]
    text = write_latex(tmp_path / "t.tex", lines, notes=["x:\n\\input{y}"]).read_text(encoding="utf8")
    assert text == ("% x: \\input{y}\n\\begin{tabular}{lrr}\n\\toprule\nmodel & BLEU-1 & rows \\\\\n\\midrule\n"
                    "{[}a] & 1.00 & 3 \\\\\n碳{*} &  & 4 \\\\\n\\bottomrule\n\\end{tabular}\n")

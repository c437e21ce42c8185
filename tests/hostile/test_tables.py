"""No cell of a table that the project writes is a formula to a spreadsheet, and no other code writes tables."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import nbformat
import pytest
from hostile_data import FORMULAS

from expstar_utils import corpus
from expstar_utils.datasets import Case
from expstar_utils.evaluation import evaluate, write_report
from expstar_utils.evaluation_rows import read_pairs
from expstar_utils.files import FORMULA, write_jsonl
from expstar_utils.result_tables import write_csv

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?$")


@pytest.fixture(params=FORMULAS, ids=repr)
def formula(request):
    return request.param


def formulas_in(path: Path) -> list[str]:
    """Cells that a spreadsheet would run."""
    with open(path, encoding="utf8", newline="") as file:
        return [cell for row in csv.reader(file) for cell in row if cell.startswith(FORMULA) and not NUMBER.match(cell)]


def test_cells_and_columns(formula, tmp_path):
    path = write_csv(tmp_path / "t.csv", [{formula: formula, "n": -1.5}, {"n": -2}])
    assert not formulas_in(path)
    assert "-1.5" in path.read_text()
    assert "-2" in path.read_text()


def test_the_check_can_fail(tmp_path):
    """Written as they are, these cells are formulas."""
    for number, cell in enumerate(FORMULAS):
        assert formulas_in(write_raw(tmp_path / f"{number}.csv", cell.lstrip()))


def write_raw(path: Path, text: str) -> Path:
    with open(path, "w", encoding="utf8", newline="") as file:
        csv.writer(file).writerow([text])
    return path


def test_the_statistics_of_notebook_02(formula, tmp_path):
    """Subjects are names of the data set; the notebook writes the table as pandas does."""
    cases = [
        Case.model_construct(
            id="a_1",
            experiment=formula,
            subject=formula,
            title=formula,
            step_number=1,
            clip="x.mp4",
            summary=formula,
            narration=[formula],
            principle=[],
            safety=[],
            split="train",
            duration_s=1.0,
        )
    ]
    table = corpus.table_of(cases)
    for by in ("discipline", "subject", "experiment", "title"):
        corpus.statistics(table, by).to_csv(tmp_path / "s.csv", float_format="%.4g")
        assert not formulas_in(tmp_path / "s.csv")


def test_the_reports_of_notebook_06(formula, tmp_path):
    rows = [
        {"id": formula, "response": "x", "labels": "x", "data_type": formula, "subject": formula},
        {"id": "2", "response": "x y", "labels": "x", "data_type": formula, "subject": formula},
    ]
    found, problems = read_pairs(write_jsonl(tmp_path / "p.jsonl", rows))
    report = evaluate(found, ["rouge"], problems=problems)
    assert not formulas_in(write_report(report, tmp_path, "r")["csv"])


def test_no_other_place_writes_tables():
    """`csv.writer` stands in `result_tables` alone; pandas' writers in notebook 02's statistics alone."""

    def calls(source: str) -> set[str]:
        return {ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)}

    writers = {
        path.name
        for path in (ROOT / "expstar_utils").rglob("*.py")
        if any(re.search(r"csv\.(?:writer|DictWriter)$|\.to_(?:csv|excel|clipboard)$", c) for c in calls(path.read_text("utf8")))
    }
    assert writers == {"result_tables.py"}
    cells = [
        (p.name, c.source)
        for p in (ROOT / "notebooks").glob("*.ipynb")
        for c in nbformat.read(p, 4).cells
        if c.cell_type == "code"
    ]
    assert {name for name, source in cells if re.search(r"\.to_(?:csv|excel)\(", source)} <= {"02_dataset_construction.ipynb"}

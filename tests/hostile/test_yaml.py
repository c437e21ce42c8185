"""YAML holds plain values: a tag, an alias or nesting without end is a sentence, and nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hostile_data import one_sentence, source

from expstar_utils.annotators import ChatAnnotator
from expstar_utils.compared import load_rows
from expstar_utils.files import read_yaml
from expstar_utils.grading import ChatGrader
from expstar_utils.mini.family import load_family
from expstar_utils.profiles import FOLDER, load_profile
from expstar_utils.prompts import load_prompts

ROOT = Path(__file__).parents[2]
READERS = {
    "profile": lambda path: load_profile(str(path)),
    "prompts": load_prompts,
    "models": load_rows,
    "family": load_family,
    "grader": lambda path: ChatGrader("http://127.0.0.1:9", "m", path.parent, sentences=path),
    "annotator": lambda path: ChatAnnotator("http://127.0.0.1:9", "m", path.parent, sentences=path),
}
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


def hostile(mark: Path) -> list[str]:
    """Files of YAML that would run, fill the memory, or break the reader."""
    code = repr(source(mark))
    return [
        f"name: !!python/object/apply:builtins.exec [{code}]",
        f"!!python/object/apply:os.system ['touch {mark}']",
        f"!!python/object/new:subprocess.Popen [[touch, '{mark}']]",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
        f"!!python/object/apply:eval\nargs: [{code}]",
        "a: !custom x",
        LAUGHS,
        "a: &a [*a]",
        "[" * 20_000,
        "{a: " * 5000,
        "a: 9999-99-99",
        "a: " + "9" * 10_000,
        "\xff\xfe",
        "a: \x00",
        "- a: [",
        "%YAML 9.9\n---\n",
    ]


@pytest.mark.parametrize("number", range(len(hostile(Path()))))
@pytest.mark.parametrize("kind", READERS)
def test_hostile_yaml_is_a_sentence(kind, number, tmp_path):
    mark, path = tmp_path / "taken", tmp_path / "x.yaml"
    path.write_text(hostile(mark)[number], encoding="latin-1")
    one_sentence(lambda: READERS[kind](path), "x.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("text", ["", "x", "5", "[1, 2]", "a: 1", "null"])
def test_other_values_are_a_sentence_or_no_rows(kind, text, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    if kind == "models" and text in ("", "null"):
        assert load_rows(path) == {}
    else:
        one_sentence(lambda: READERS[kind](path), "x.yaml")


def test_the_project_s_own_files_are_plain():
    files = [*(ROOT / "data").rglob("*.yaml"), *FOLDER.glob("*.yaml")]
    assert len(files) > 20
    for path in files:
        assert read_yaml(path)


def test_yaml_is_read_in_one_way():
    """No loader but ours, and PyYAML's safe one for a file of the package's own."""
    found = {
        (path.name, ast.unparse(node.func))
        for path in (ROOT / "expstar_utils").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("yaml.") and "load" in ast.unparse(node.func)
    }
    assert found <= {("files.py", "yaml.load"), ("rewards.py", "yaml.safe_load")}

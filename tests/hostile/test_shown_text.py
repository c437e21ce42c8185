"""Text of data sets and models is shown as text: in the page, in Markdown, subtitles, the inspector and LaTeX."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nbformat
import pandas as pd
import pysubs2
import pytest
from bs4 import BeautifulSoup
from hostile_data import SCRIPTS
from inspected_run import case, prediction, write_run
from ipywidgets import HTML, Box, Checkbox, Dropdown
from markdown_it import MarkdownIt

from expstar_utils.datasets import Case
from expstar_utils.export import markdown
from expstar_utils.inspector import panels, player
from expstar_utils.inspector.cases import Casebook
from expstar_utils.inspector.widgets import Inspector
from expstar_utils.publishing.documents import clean
from expstar_utils.publishing.page import page
from expstar_utils.publishing.subtitles import subtitles
from expstar_utils.result_tables import write_latex

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LATEX = (
    r"\input{/etc/passwd}",
    r"\immediate\write18{id}",
    "}\\end{tabular}",
    "% x",
    "^^5cinput{x}",
    "$x$ & # _ ~",
    "[2ex]",
    "*",
    "\\\\",
    "a\n\\input{x}\n",
)


@pytest.fixture(params=SCRIPTS, ids=lambda s: repr(s[:20]))
def script(request):
    return request.param


def doc(text: str) -> dict:
    """A commentary with the text in every field."""
    passage = {"id": text, "title": text, "relevance": 0.9, "used": True}
    step = {
        "step": 1,
        "start_s": 0.0,
        "end_s": 30.0,
        "narration": [text],
        "principle": [text],
        "safety": [text],
        "passages": [passage],
    }
    return {"title": text, "video": text.replace("\0", "") + ".mp4", "language": text, "steps": [step]}


def tags(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Elements of a page with the names of their attributes."""
    return [(tag.name, tuple(tag.attrs)) for tag in BeautifulSoup(html, "html.parser").find_all()]


def test_the_page_has_the_elements_that_plain_text_gives(script, tmp_path):
    made = page([doc(script)], tmp_path)
    assert tags(made) == tags(page([doc("plain")], tmp_path))
    assert clean(script) in BeautifulSoup(made, "html.parser").get_text()


def test_markdown_has_no_element_and_no_link(script):
    """Rendered as GitHub and Jupyter do: raw HTML would come through."""
    html = MarkdownIt("commonmark", {"html": True}).render(markdown(doc(script)))
    assert tags(html) == tags(MarkdownIt("commonmark", {"html": True}).render(markdown(doc("plain"))))


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_have_no_tag_no_time_and_no_line_too_many(script, kind):
    text = subtitles(doc(script + r" {\an8}{\b1} 00:00:01,000 --> 00:00:09,000")).to_string(kind)
    shown = [line for line in text.split("\n") if line and " --> " not in line and not line.isdigit() and line != "WEBVTT"]
    assert not re.search(r"[<>{}]|&#?\w+;", "".join(shown)), shown
    count = len(subtitles(doc(script + r" {\an8}{\b1} 00:00:01,000 --> 00:00:09,000")))
    assert len(re.findall(r"^\S+ --> \S+$", text, re.M)) == count == len(list(pysubs2.SSAFile.from_file(io.StringIO(text), kind)))


# Inspector


def widgets(root) -> list:
    """All widgets below one."""
    return [root, *(w for child in root.children for w in widgets(child))] if isinstance(root, Box) else [root]


def inspected(folder: Path, text: str, label: str) -> Inspector:
    """An inspector of a run whose every text is this one; its file of predictions is named by it too."""
    one = Case.model_validate(
        case(1).to_dict()
        | {
            "id": text,
            "experiment": text,
            "subject": text,
            "title": text,
            "summary": text,
            "clip": "gone.mp4",
            "narration": [text],
            "principle": [text],
            "safety": [text],
        }
    )
    said = prediction(case(1)).to_dict()
    data = said["evaluation_data"] | {
        "passage_ids": [text, "b"],
        "passage_titles": [text, text],
        "rag_passages": [text, text + "2"],
        "relevant_ids": [text],
    }
    said |= {
        "id": text,
        "response": f"<Narration>\n{text}\n<Safety>\n{text}\n",
        "full_dialogue": text,
        "labels": one.reference(),
        "evaluation_data": data,
    }
    run = write_run(folder / "run", [one], {label: [said]})
    (run / "5_predictions" / f"{label}x.jsonl").write_text("broken\n")
    shown = Inspector(Casebook([run]), folder, run / "8_ratings", title=text)
    shown.rating.name.value = "x" + clean(text)[:40]
    shown.rating.note.value = text.replace("\0", "")
    return shown


def test_the_inspector_has_the_elements_that_plain_text_gives(script, tmp_path):
    """Cases, passages, file names, notes and problems; of widgets, only those of kind HTML take HTML."""
    label = re.sub(r"[/\0\n\r]", "_", script)
    pages = []
    for folder, text, name in ((tmp_path / "a", script, label), (tmp_path / "b", "plain", "plain")):
        shown = inspected(folder, text, name)
        shown.load_film()
        assert shown.view is not None
        pages.append(list(widgets(shown.root)))
    hostile, plain = ([{t for w in page if isinstance(w, HTML) for t in tags(w.value)}] for page in pages)
    assert {name for name, _ in hostile[0]} <= {name for name, _ in plain[0]} | {"ins", "del", "br", "span", "p"}
    assert not [t for t in hostile[0] if any(a.startswith("on") or a in ("href", "srcdoc") for a in t[1])]
    assert not any(
        getattr(w, "description_allow_html", False) for page in pages for w in page if isinstance(w, Checkbox | Dropdown)
    )


def test_the_player_sets_text_never_html():
    code = Path(player.__file__).with_name("inspector.js").read_text(encoding="utf8")
    assert "textContent" in code
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", code)


def test_frames_are_captioned_with_text(script):
    strip = panels.strip([b"x"], [0.5], panels.Span(Path("x"), 0, 1), script)
    assert tags(strip) == tags(panels.strip([b"x"], [0.5], panels.Span(Path("x"), 0, 1), "plain"))


# LaTeX and notebooks


@pytest.mark.parametrize("text", [*LATEX, *SCRIPTS])
def test_latex_has_no_command_but_ours(text, tmp_path):
    """Cells, column names, notes: what remains when our own commands and escapes are taken away holds nothing that acts."""
    path = write_latex(tmp_path / "t.tex", [{text: text, "n": 1.0}], notes=[text])
    made = path.read_text(encoding="utf8")
    comments, body = made.split("\\begin{tabular}{", 1)
    assert all(line.startswith("% ") for line in comments.splitlines())
    head, *cells = (
        body.split("\\toprule\n")[1]
        .replace("\\midrule\n", "")
        .removesuffix("\\bottomrule\n\\end{tabular}\n")
        .split(" \\\\\n")[:2]
    )
    for cell in (head, *cells):
        rest = re.sub(r"\\text(?:backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\\[&%$#_{}]|\{[\[*]\}| & ", "", cell)
        assert not re.search(r"[\\{}$&#^_%~]", rest), rest
        assert not rest.startswith(("[", "*"))


def cells(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


RENDERED = {  # in each notebook that renders more than tables, the call that it renders with
    "00_quickstart.ipynb": "Markdown(export.markdown(document))",
}


def test_notebooks_render_tables_and_known_cells_alone():
    """Tables are escaped by pandas, what is printed is text; the one other cell, in 00, is tested above."""
    found = [
        (path.name, cell)
        for path in NOTEBOOKS.glob("*.ipynb")
        for cell in cells(path)
        if re.search(r"\b(?:Markdown|HTML|Javascript|SVG|Latex|IFrame)\(|escape=False", cell)
    ]
    assert all(RENDERED.get(name, "nothing") in cell for name, cell in found), [name for name, _ in found]
    assert "<script" not in pd.DataFrame([{"<script>": "<script>x"}])._repr_html_()

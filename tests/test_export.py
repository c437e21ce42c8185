"""What people read: subtitles other programs read back, inside their steps; Markdown that shows text as it is."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils import quickstart
from expstar_utils.datasets import Case
from expstar_utils.export import LINE_CHARACTERS, document, main, markdown, subtitles, write_commentary
from expstar_utils.files import read_json, write_json
from expstar_utils.inference import Settings
from expstar_utils.media import probe
from expstar_utils.records import ExpStarError, Prediction, VirtualClip, format_time

STEPS = [(0.0, 4.25, ["The jar is opened.", "一氧化碳从导管排出" * 6], ["2CO + O2 → 2CO2"], ["Work in a fume hood."]),
         (4.25, 9.5, ["The gas burns with a pale blue flame that can hardly be seen in a bright room."], [], []),
         (12.0, 15.001, ["It is <50 °C & {safe}: a<b>c --> d \\N e"], [], ["Wear goggles."])]


def case(number: int, start_s: float, end_s: float) -> Case:
    return Case(id=f"chemistry_{number}", experiment="chemistry/a", subject="chemistry", title="t", step_number=number,
                clip=VirtualClip(video="a.mp4", start=start_s, end=end_s), summary="s", narration=["n"])


def prediction(number: int, narration, principle, safety, **data) -> Prediction:
    response = "".join(f"{tag}\n" + "".join(f"{line}\n" for line in lines) for tag, lines in
                       (("<Narration>", narration), ("<Principle>", principle), ("<Safety>", safety)) if lines)
    data = {"passage_ids": ["p1", "p2"], "passage_titles": ["Gas", "Ice"], "relevance": [0.9, 0.2], "relevant_ids": ["p1"],
            "settings": {"verdict_threshold": 0.5},
            "retrieval_prob": 0.75, "is_retrieval": True} | data
    return Prediction(id=f"chemistry_{number}", response=response, full_dialogue=response, evaluation_data=data)


def made(steps=STEPS, title="A gas burns", **data) -> dict:
    cases = [case(i, start_s, end_s) for i, (start_s, end_s, *_) in enumerate(steps, 1)]
    return document(title, "a.mp4", cases, [prediction(c.step_number, *step[2:], **data) for c, step in zip(cases, steps)])


# The document

def test_document_holds_what_was_said_and_where_it_comes_from():
    doc = made()
    first = doc["steps"][0]
    assert (first["step"], first["start_s"], first["end_s"], first["retrieved"]) == (1, 0.0, 4.25, True)
    assert (first["narration"], first["principle"], first["safety"]) == tuple(STEPS[0][2:])
    assert first["passages"] == [{"id": "p1", "title": "Gas", "relevance": 0.9, "relevant": True, "used": True},
                                 {"id": "p2", "title": "Ice", "relevance": 0.2, "relevant": False, "used": False}]


def test_prediction_too_few_is_an_error_not_a_shorter_page():
    with pytest.raises(ValueError, match="zip"):
        document("t", "a.mp4", [case(1, 0, 1), case(2, 1, 2)], [prediction(1, ["a"], [], [])])


def test_document_names_its_language_and_refuses_steps_that_are_files_of_their_own():
    assert made()["language"] == "en"
    assert made(settings={"verdict_threshold": 0.5, "language": "zh"})["language"] == "zh"
    cut = case(1, 0, 1).model_copy(update={"clip": "a_step_1.mp4"})
    with pytest.raises(ExpStarError, match="a_step_1.mp4, expected a stretch"):
        document("t", "a.mp4", [cut], [prediction(1, ["a"], [], [])])


# Subtitles

@pytest.mark.parametrize("suffix", ["srt", "vtt"])
def test_subtitle_files_read_back_inside_their_steps(suffix, tmp_path):
    doc = made()
    write_commentary(tmp_path, doc)
    lines = list(pysubs2.load(str(tmp_path / f"commentary.{suffix}")))
    assert [(e.start, e.end, e.plaintext) for e in lines] == [(e.start, e.end, e.plaintext) for e in subtitles(doc)]
    assert len(lines) > 3
    starts = [*(step["start_s"] for step in doc["steps"]), doc["steps"][-1]["end_s"]]
    for line in lines:
        assert any(a * 1000 - 1 <= line.start < line.end <= b * 1000 + 1 for a, b in itertools.pairwise(starts))
        assert all(len(shown) <= LINE_CHARACTERS for shown in line.plaintext.split("\n"))
    for one, next_one in itertools.pairwise(lines):
        assert one.end <= next_one.start


# Markdown

MARKUP = r"\`*_{}[]<>#|~&$"
UGLY = ["<script>alert(1)</script>", "![x](http://a.b/c.png)", "[click](javascript:x)", "**bold** _it_ `code`", "# heading",
        "- item", "+ item", "1. one", "23) two", "> quote", "| a | b |", "~~gone~~", "&lt;b&gt;", "$x^2$", "===", "---",
        "a\\*b", "\\"]


def unescaped(text: str) -> str:
    """Text as CommonMark shows it, where every markup character is escaped; fails where one is not."""
    assert not re.search(rf"(?<!\\)(?:\\\\)*[{re.escape(MARKUP[1:])}]", text), text
    assert not re.match(r"[-+=]|\d+[.)]", text), text
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


@pytest.mark.parametrize("ugly", UGLY)
def test_markdown_shows_texts_of_models_and_data_as_they_are(ugly):
    page = markdown(made([(0, 1, [ugly], [ugly], [ugly])], title=ugly, passage_titles=[ugly, "Ice"], passage_ids=[ugly, "p2"],
                         relevant_ids=[ugly]))
    blocks = [block for block in page.split("\n") if block]
    assert unescaped(blocks[0].removeprefix("# ")) == ugly
    assert blocks[1].startswith("## Step 1 (")
    assert unescaped(blocks[2]) == ugly
    assert unescaped(blocks[3].removeprefix("> **Principle.** ")) == ugly
    assert unescaped(blocks[4].removeprefix("> **Safety.** ")) == ugly
    assert unescaped(blocks[5].removeprefix("Sources: ")) == f"{ugly} ({ugly}, relevance 0.90)"


def test_title_cannot_begin_a_new_block():
    assert markdown({"title": "a\n\n# b\n<b>", "steps": []}) == "# a \\# b \\<b\\>\n"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60).map(lambda s: " ".join(s.split())))
def test_markdown_title_reads_back(title):
    first = markdown({"title": title, "steps": []})
    assert first.count("\n") == 1
    assert unescaped(first[2:-1]) == title


def test_page_names_steps_times_and_only_the_passages_that_were_used():
    page = markdown(made())
    for number, (start_s, end_s, *_) in enumerate(STEPS, 1):
        assert f"## Step {number} ({format_time(round(start_s))} to {format_time(round(end_s))})" in page
    assert "Gas (p1, relevance 0.90)" in page
    assert "Ice" not in page
    assert "Sources" not in markdown(made(relevant_ids=[]))


def test_five_files_are_written_and_the_json_is_the_document(tmp_path):
    doc = made()
    folder = tmp_path / "出 'x' \"y\" .." / "b c"
    paths = write_commentary(folder, doc)
    assert [p.name for p in paths] == [f"commentary.{suffix}" for suffix in ("json", "md", "srt", "vtt", "html")]
    assert read_json(paths[0]) == doc
    assert paths[1].read_text(encoding="utf8") == markdown(doc)
    before = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in write_commentary(folder, doc)] == before
    assert sorted(folder.iterdir()) == sorted(paths)


# Two languages

CHINESE = [(0.0, 4.25, ["打开瓶子。"], ["2CO + O₂ → 2CO₂"], ["在通风橱中操作。"]), (4.25, 9.5, ["气体燃烧。"], [], []),
           (12.0, 15.001, ["停止。"], [], ["戴护目镜。"])]


def chinese(steps=CHINESE) -> dict:
    return made(steps, title="燃烧", settings={"verdict_threshold": 0.5, "language": "zh"})


def test_two_languages_give_one_json_each_and_share_the_rest(tmp_path):
    paths = write_commentary(tmp_path, made(), chinese())
    assert [p.name for p in paths] == ["commentary.en.json", "commentary.zh.json", *(f"commentary.{s}" for s in (
        "md", "srt", "vtt", "html"))]
    assert read_json(paths[1])["title"] == "燃烧"
    page = paths[2].read_text(encoding="utf8")
    assert page.startswith("# A gas burns / 燃烧\n\n## Step 1 / 步骤 1 (0:00:00 to 0:00:04)\n")
    assert page.index("The jar is opened.") < page.index("打开瓶子。") < page.index("**Principle.**") < page.index("**原理：**")
    assert "气体燃烧。" in paths[3].read_text(encoding="utf8")


def test_two_documents_of_other_steps_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ExpStarError, match="steps: found 3 and 2 in the en and the zh document"):
        write_commentary(tmp_path, made(), chinese(CHINESE[:2]))
    assert not list(tmp_path.iterdir())


# The command

def test_corrected_json_gives_the_files_again(tmp_path, capsys):
    doc = made()
    doc["steps"][1]["narration"] = ["Corrected by hand."]
    doc["mine"] = 1
    path = write_json(tmp_path / "in" / "commentary.json", doc)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert read_json(tmp_path / "out" / "commentary.json") == doc
    for suffix in ("md", "vtt", "html"):
        assert "Corrected by hand." in re.sub(r"\\", "", (tmp_path / "out" / f"commentary.{suffix}").read_text(encoding="utf8"))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Left out of the captions, too fast to be read there: 2 of 7 notes.")
    assert said[1].startswith("Written: ")


def test_two_jsons_are_one_commentary_in_two_languages(tmp_path):
    paths = [write_json(tmp_path / f"{doc['language']}.json", doc) for doc in (made(), chinese())]
    assert main([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 6


@pytest.mark.parametrize(("change", "words"), [
    ({"steps": [{"step": 1, "start_s": 2, "end_s": 1}]}, ("step 1 ends at 1 s",)), ({"steps": 3}, ("steps is 3",)),
    ({"title": None}, ("title is None",)), ({"steps": [{"step": 1, "start_s": -1, "end_s": 1}]}, ("start_s is -1",))])
def test_json_that_is_no_commentary_is_named_in_one_sentence(change, words, tmp_path, capsys):
    path = write_json(tmp_path / "commentary.json", made() | change)
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in (f"expstar: {path}", *words))


@pytest.mark.parametrize(("options", "words"), [(["--burn"], "a.mp4: no such file"), (["--speak"], "voice: found none"),
                                                (["x.json", "y.json"], "found 3 files")])
def test_what_cannot_be_done_is_said_in_one_sentence(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("expstar_utils.publishing.voices._piper", lambda: None)
    monkeypatch.setattr("expstar_utils.publishing.voices._espeak", lambda language: None)
    path = write_json(tmp_path / "commentary.json", made())
    assert main([str(path), *options]) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["commentary.json"]


def test_video_is_written_where_it_is_asked_for(tmp_path):
    sample = Path(__file__).parents[1] / "data" / "sample" / "burning_a_gas.mp4"
    doc = made(STEPS[:2]) | {"video": str(sample)}
    path = write_json(tmp_path / "commentary.json", doc)
    assert main([str(path), "--track", "--link"]) == 0
    assert probe(tmp_path / "commentary.mp4").duration_s == pytest.approx(probe(sample).duration_s, abs=0.05)
    assert "base64" not in re.search(r'<video[^>]*? src="([^"]*)"', (tmp_path / "commentary.html").read_text(encoding="utf8"))[1]


# Asking a model for another language

def test_model_that_writes_no_chinese_is_told_from_one_that_does(monkeypatch):
    writer = SimpleNamespace(settings=Settings())
    def comment_video(writer, info, title, subject, steps, setting):
        lines = {"en": ["It burns."], "zh": [written]}[writer.settings.language]
        settings = {"verdict_threshold": 0.5, "language": writer.settings.language}
        return [case(1, 0, 4)], [prediction(1, lines, [], [], settings=settings)]
    monkeypatch.setattr(quickstart, "comment_video", comment_video)
    info, setting = SimpleNamespace(path="a.mp4"), SimpleNamespace(base="some model")
    written = "气体燃烧。"
    docs = quickstart.documents(writer, info, "t", "", [], setting, ("en", "zh"))
    assert [(doc["language"], doc["steps"][0]["narration"]) for doc in docs] == [("en", ["It burns."]), ("zh", ["气体燃烧。"])]
    written = "It burns."
    with pytest.raises(ExpStarError, match="'some model', wrote no Chinese"):
        quickstart.documents(writer, info, "t", "", [], setting, ("zh",))

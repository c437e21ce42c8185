"""Documents out of dumps, rows and notes: prose alone, streamed; what is broken is named and the rest goes on."""

import bz2
import gzip
import json
from functools import partial

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.wiki_dump import HEAD, article, page, write_dump
from expstar_utils import sources
from expstar_utils.records import ExpStarError

ROWS = [{"id": str(n), "url": "u", "title": f"Title {n}",
         "text": f"Lead of {n} is a sentence.\n\nHistory of it \n\nIt was found in 19{n}. It went on.\n\nSee also\n\nA list"}
        for n in range(10, 15)]


def read(path):
    """(documents, problems) of a source."""
    problems = []
    return list(sources.documents(path, problems.append)), problems


def told(document):
    return list(document.parse(document.text))


# Wikipedia

def test_a_dump_gives_its_articles_without_redirects_and_talk(tmp_path):
    documents, problems = read(write_dump(tmp_path / "wiki.xml", 20))
    assert [d.id for d in documents][:3] == ["testwiki-1", "testwiki-2", "testwiki-3"]
    assert len(documents) == 21  # 20 articles and one copy
    assert problems == []
    assert documents[4].title == "Article 5"


def test_of_an_article_only_prose_is_left():
    sections = dict(sources.wikitext_sections(article(7)))
    assert list(sections) == ["", "Method", "中文"]
    assert sections[""].strip().startswith("Article 7 is about The ")
    whole = "\n".join(sections.values())
    for gone in ("Infobox", "{", "}", "[[", "]]", "Cited", "ref", "picture", "remark", "wikitable", "colour", "''", "reflist",
                 "no prose", "Category"):
        assert gone not in whole, gone
    assert "first item" in sections["Method"]
    assert "因为电子跃迁时放出光" in sections["中文"]


@pytest.mark.parametrize("text", ["", "{{", "[[[[", "'''''", "{|\n|", "<ref>", "== \n", "{{{{{{a}}}", "</table>", "&#x0;&nbsp;",
                                  "=" * 500, "[" * 3000])
def test_broken_wikitext_is_read_as_far_as_it_goes(text):
    sections = list(sources.wikitext_sections(f"A sentence before it.\n{text}"))
    assert "A sentence before it." in sections[0][1]


@pytest.mark.parametrize(("suffix", "opened"), [
    (".xml", open), (".xml.bz2", partial(bz2.open, compresslevel=1)), (".xml.gz", gzip.open)])
def test_a_dump_cut_amid_a_page_keeps_what_came_before(tmp_path, suffix, opened):
    whole = write_dump(tmp_path / "whole.xml", 100).read_bytes()
    path = tmp_path / f"cut{suffix}"
    with opened(path, "wb") as file:
        file.write(whole)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * 0.7)])
    documents, [problem] = read(path)
    assert 0 < len(documents) < 105
    assert problem.file == str(path)
    assert "amid" in problem.found


def test_bytes_that_are_no_utf8_cost_a_character_and_no_page(tmp_path):
    path = tmp_path / "wiki.xml"
    bad = page(1, "Bad", "It glows gr@n in the dark.").encode().replace(b"@", b"\xff\xfe")
    path.write_bytes(HEAD.encode() + bad + b"</mediawiki>")
    [document], problems = read(path)
    assert "in the dark" in told(document)[0][1]
    assert problems == []


def test_xml_that_is_no_export_is_named(tmp_path):
    path = tmp_path / "other.xml"
    path.write_text("<html><body>no dump</body></html>")
    documents, [problem] = read(path)
    assert documents == []
    assert problem.expected == "a whole MediaWiki export"


# Rows

@pytest.fixture(params=["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def rows(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf8") as file:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


def test_rows_are_documents_with_their_headings(rows):
    documents, problems = read(rows)
    assert [(d.id, d.title) for d in documents] == [(row["id"], row["title"]) for row in ROWS]
    assert told(documents[0]) == [("", "Lead of 10 is a sentence."), ("History of it", "It was found in 1910. It went on.")]
    assert problems == []


@pytest.mark.parametrize(("line", "field"), [
    ('{"id": "1", "title": "t"}', "row 2, text"), ('{"id": "", "title": "t", "text": "x"}', "row 2, id"),
    ('{"id": "1", "title": "t", "text": "  "}', "row 2, text"), ("[1, 2]", "row 2, id"), ("{", "line 2"), ("no json", "line 2")])
def test_a_bad_row_is_named_and_the_rest_goes_on(tmp_path, line, field):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(ROWS[0]), line, json.dumps(ROWS[1])]))
    documents, [problem] = read(path)
    assert [d.id for d in documents] == ["10", "11"]
    assert (problem.file, problem.field) == (str(path), field)


def test_a_table_without_the_columns_and_a_torn_one_are_named(tmp_path):
    parquet.write_table(pa.Table.from_pylist([{"id": "1", "body": "x"}]), tmp_path / "other.parquet")
    documents, [problem] = read(tmp_path / "other.parquet")
    assert documents == []
    assert problem.field == "row 1, title"
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    documents, [problem] = read(tmp_path / "torn.parquet")
    assert documents == []
    assert "no readable Parquet" in problem.found


# Notes

PDF_TEXT = "A convex lens gathers light in its focal point."


def write_pdf(path, lines):
    """A PDF of one page that holds lines of text, written byte by byte."""
    content = b"BT /F1 12 Tf 72 720 Td " + b" 0 -14 Td ".join(b"(%s) Tj" % line.encode() for line in lines) + b" ET"
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
               b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
               b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1, table, len(objects) + 1, len(out))
    path.write_bytes(out)


def test_notes_of_a_folder_are_documents_by_their_path(tmp_path):
    (tmp_path / "光学").mkdir()
    (tmp_path / "光学" / "thin_lens.md").write_text(
        "---\nauthor: me\n---\n# Lens\nA **thick** lens\nbends `light` [more](http://a.b).\n\n![a picture](x.png)\n\n- one\n"
        "- two\n\n"
        "```\ncode\n```\n\n| a | b |\n\n## Focus\nIts focal length.\n")
    (tmp_path / "salt.txt").write_text("Salt\n\nIt is NaCl.\n\nUse of it\n\nIn food.")
    write_pdf(tmp_path / "ray.pdf", ["A convex lens gath-", "ers light in its", "focal point."])
    (tmp_path / "data.csv").write_text("a,b")
    documents, problems = read(tmp_path)
    assert problems == []
    found = {d.id: (d.title, told(d)) for d in documents}
    assert found == {
        "ray.pdf": ("ray", [("page 1", PDF_TEXT)]),
        "salt.txt": ("salt", [("", ""), ("Salt", "It is NaCl."), ("Use of it", "In food.")]),
        "光学/thin_lens.md": ("thin lens", [
            ("", ""), ("Lens", "A thick lens bends light more.\n\none\ntwo"), ("Focus", "Its focal length.")])}


def test_notes_that_cannot_be_read_are_named_and_none_leads_outside(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "good.txt").write_text("It is a sentence of some words.")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 and nothing")
    (tmp_path / "secret.txt").write_text("Not for this.")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    documents, problems = read(folder)
    assert [d.id for d in documents] == ["good.txt"]
    assert {p.file for p in problems} == {str(folder / "bad.pdf"), str(folder / "link.txt")}


@pytest.mark.parametrize("name", ["absent.xml", "film.mp4", "table.csv.gz"])
def test_what_is_no_source_is_named_in_one_sentence(tmp_path, name):
    if name != "absent.xml":
        (tmp_path / name).write_text("x")
    with pytest.raises(ExpStarError, match=f"{name}: (no such|found a file)"):
        read(tmp_path / name)

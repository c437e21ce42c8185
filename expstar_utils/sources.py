"""Documents for a knowledge base, one at a time: a Wikipedia dump, rows in Hugging Face's shape, or a folder of course notes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from tqdm import tqdm

from expstar_utils.files import inside
from expstar_utils.passages import Document
from expstar_utils.records import ExpStarError, Problem

Report = Callable[[Problem], None]
COMPRESSED = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
NOTES = (".md", ".markdown", ".txt", ".pdf")
LISTS = {  # headings of sections that hold no prose
    "see also", "references", "external links", "further reading", "notes", "bibliography", "sources", "citations", "gallery",
    "参见", "参考文献", "外部链接", "延伸阅读", "注释", "参考资料",
    "參見", "參考文獻", "外部連結", "延伸閱讀", "註釋",
}
NO_TEXT = {"ref", "references", "table", "gallery", "math", "chem", "code", "syntaxhighlight", "source", "timeline", "score",
           "imagemap"}
HEADING_WORDS = 12


def documents(path: Path, report: Report) -> Iterator[Document]:
    """Documents of a source, told by its name: `*.xml[.bz2|.gz|.xz]`, `*.parquet`, `*.jsonl[...]`, or a folder of notes.

    What cannot be used is reported, and the rest goes on.

    Raises:
        ExpStarError: it is not there, or of no kind that is known.
    """
    path = Path(path)
    kinds: dict[str, Callable[[Path, Report], Iterator[Document]]] = {
        ".xml": wikipedia_dump, ".parquet": parquet_rows, ".jsonl": jsonl_rows}
    if path.is_dir():
        return notes(path, report)
    if not path.is_file():
        raise ExpStarError(f"{path}: no such file or folder, expected a source of passages; check the path")
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    if suffix not in kinds:
        raise ExpStarError(f"{path}: found a file {suffix!r}, expected one of {sorted(kinds)}, compressed or not, or a folder of "
                           f"{', '.join(NOTES)}; convert it")
    return kinds[suffix](path, report)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file, unpacked as it is read, with a progress bar over its bytes on disk."""
    with open(path, "rb") as raw, tqdm.wrapattr(raw, "read", total=path.stat().st_size, desc=path.name) as counted:
        yield COMPRESSED[path.suffix](counted) if path.suffix in COMPRESSED else counted


def wikipedia_dump(path: Path, report: Report) -> Iterator[Document]:
    """Articles of a MediaWiki export, streamed; redirects and other namespaces are left out."""
    from mwxml import Dump
    from mwxml.errors import MalformedXML
    try:
        with _opened(path) as file:
            dump = Dump.from_file(codecs.getreader("utf-8")(file, errors="replace"))
            wiki = dump.site_info.dbname or "wiki"
            for page in dump:
                text = next((revision.text for revision in page), None)
                if not page.redirect and not page.namespace and text:
                    yield Document(f"{wiki}-{page.id}", page.title, text, wikitext_sections)
    except (ParseError, MalformedXML, AssertionError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        report(Problem(file=str(path), field="content", found=f"an end or a fault amid a page ({str(error)[:80]})",
                       expected="a whole MediaWiki export", todo="download it again; what came before is kept"))


def wikitext_sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, plain text) of an article, without tables, templates, references, pictures and lists of links."""
    from mwparserfromhell import parse
    from mwparserfromhell.nodes import Heading, Tag, Wikilink
    heading, kept = "", []
    code = parse(text, skip_style_tags=True)

    def told() -> Iterator[tuple[str, str]]:
        """The section that was gathered, unless it is a list of links."""
        code.nodes = kept
        if heading.lower() not in LISTS:
            yield heading, re.sub(r"'{2,}|__[A-Z]+__", "", code.strip_code())
    for node in list(code.nodes):
        if isinstance(node, Heading):
            yield from told()
            heading, kept = node.title.strip_code().strip(), []
        elif not (isinstance(node, Tag) and str(node.tag).lower() in NO_TEXT) and not (
                isinstance(node, Wikilink) and re.match(r"\s*[^\s:|]+:\S", str(node.title))):
            kept.append(node)
    yield from told()


def plain_sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, text) where a heading is a short paragraph of one line that ends like none, as in Hugging Face's Wikipedia."""
    heading, kept = "", []
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    for block, following in pairwise([*blocks, ""]):
        short = "\n" not in block and len(block.split()) <= HEADING_WORDS and len(block) < 100
        if short and following and block[-1] not in ".!?:;,。！？：；，":
            yield from [(heading, "\n".join(kept))] * (heading.lower() not in LISTS)
            heading, kept = block, []
        else:
            kept.append(block)
    yield from [(heading, "\n".join(kept))] * (heading.lower() not in LISTS)


def parquet_rows(path: Path, report: Report) -> Iterator[Document]:
    """Rows `{id, title, text}` of a Parquet file, read by batches."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile
    try:
        table = ParquetFile(path)
        there = [name for name in ("id", "title", "text") if name in table.schema_arrow.names]
        with tqdm(total=table.metadata.num_rows, desc=path.name, unit="row") as bar:
            for batch in table.iter_batches(256, columns=there):
                yield from _documents_of(batch.to_pylist(), path, bar.n, report)
                bar.update(len(batch))
    except (ArrowException, OSError) as error:
        report(Problem(file=str(path), field="content", found=f"no readable Parquet ({str(error)[:80]})",
                       expected="columns id, title, text", todo="copy or download it again"))


def jsonl_rows(path: Path, report: Report) -> Iterator[Document]:
    """Rows `{id, title, text}` of a JSONL file."""
    try:
        with _opened(path) as file:
            for number, line in enumerate(codecs.getreader("utf-8")(file, errors="replace")):
                if not line.strip():
                    continue
                try:
                    yield from _documents_of([json.loads(line)], path, number, report)
                except (ValueError, RecursionError):
                    report(Problem(file=str(path), field=f"line {number + 1}", found=f"{line[:40]!r}", expected="a JSON object",
                                   todo="correct it; the line was left out"))
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        report(Problem(file=str(path), field="content", found=f"an end amid the file ({str(error)[:80]})",
                       expected="a whole file", todo="download it again; what came before is kept"))


def _documents_of(rows: Iterable[Any], path: Path, first: int, report: Report) -> Iterator[Document]:
    for number, row in enumerate(rows, first + 1):
        fields = row if isinstance(row, dict) else {}
        wrong = next((name for name in ("id", "title", "text") if not str(fields.get(name) or "").strip()), None)
        if wrong:
            report(Problem(file=str(path), field=f"row {number}, {wrong}", found="nothing", expected="id, title and text",
                           todo="fill it; the row was left out"))
        else:
            yield Document(str(fields["id"]), str(fields["title"]), str(fields["text"]), plain_sections)


def notes(folder: Path, report: Report) -> Iterator[Document]:
    """Course notes of a folder and those below it: Markdown, text, PDF; an id is the file's path in the folder."""
    readers = {".pdf": _pdf_text, ".txt": _text, ".md": _text, ".markdown": _text}
    for path in tqdm(sorted(p for p in folder.rglob("*") if p.suffix.lower() in NOTES), desc=folder.name, unit="file"):
        name, kind = path.relative_to(folder).as_posix(), path.suffix.lower()
        try:
            text = readers[kind](inside(folder, name))
        except (ExpStarError, OSError, ValueError) as error:
            report(Problem(file=str(path), field="content", found=str(error).splitlines()[0][:120], expected="readable notes",
                           todo="convert it, or take it out of the folder; it was left out"))
            continue
        parse = {".pdf": _pages, ".txt": plain_sections}.get(kind, markdown_sections)
        yield Document(name, path.stem.replace("_", " "), text, parse)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace")


def _pdf_text(path: Path) -> str:
    """Pages of a PDF, form feeds between them."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError
    try:
        return "\f".join(page.extract_text() for page in PdfReader(path).pages)
    except (PyPdfError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a PDF that cannot be read ({error})") from None


def _pages(text: str) -> Iterator[tuple[str, str]]:
    """(page, text): lines are joined, and words that were parted at their ends."""
    for number, page in enumerate(text.split("\f"), 1):
        yield f"page {number}", re.sub(r"\s*\n\s*", " ", re.sub(r"(?<=\w)-\n(?=[a-z])", "", page))


def markdown_sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, text) of Markdown, without code, tables and pictures."""
    from markdown_it import MarkdownIt
    heading, kept, in_heading = "", [], False
    for token in MarkdownIt("commonmark").parse(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)):
        if token.type == "heading_open":
            yield heading, "\n".join(kept)
            kept = []
        if token.type == "inline":
            said = "".join(" " if part.type in ("softbreak", "hardbreak") else part.content
                           for part in token.children if part.type not in ("image", "html_inline"))
            if in_heading:
                heading = said
            elif not re.match(r"\s*\|.*\|\s*$", said):
                kept.append(said)
        in_heading = token.type == "heading_open"
    yield heading, "\n".join(kept)

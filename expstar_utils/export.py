"""A whole video's commentary for readers and viewers: JSON, Markdown, subtitles, a page, a video.

    python -m expstar_utils.export runs/demo/commentary.json --burn

writes all of it again from the JSON, which may have been corrected by hand; two of them, in two languages, are put side by side.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from expstar_utils.files import write_json, write_text
from expstar_utils.publishing.captioned import write_mp4
from expstar_utils.publishing.documents import clean, document, language_of, read_document, same_steps
from expstar_utils.publishing.fonts import Typeface
from expstar_utils.publishing.page import page
from expstar_utils.publishing.subtitles import LINE_UNITS, Plan, plan, subtitles
from expstar_utils.publishing.voices import open_voice
from expstar_utils.records import ExpStarError, format_time

__all__ = ["document", "subtitles"]  # defined elsewhere, public here
LINE_CHARACTERS = LINE_UNITS
WORDS = {"en": ("Step {}", "Principle.", "Safety.", "Sources:", "relevance"),
         "zh": ("步骤 {}", "原理：", "安全：", "依据：", "相关度")}


def markdown(*docs: dict) -> str:
    """Readable text of a commentary; of two, each in its language, every step says its notes in the first, then in the other."""
    same_steps(docs)
    words = [WORDS.get(language_of(doc), WORDS["en"]) for doc in docs]
    parts = [f"# {' / '.join(_plain(doc['title']) for doc in docs)}\n"]
    for steps in zip(*(doc["steps"] for doc in docs)):
        first, own = steps[0], words[0]
        name = " / ".join(dict.fromkeys(w[0].format(first["step"]) for w in words))
        parts.append(f"\n## {name} ({format_time(round(first['start_s']))} to {format_time(round(first['end_s']))})\n")
        parts += [f"\n{_plain(line)}\n" for step in steps for line in step["narration"]]
        parts += [f"\n> **{w[1]}** {_plain(line)}\n" for w, step in zip(words, steps) for line in step["principle"]]
        parts += [f"\n> **{w[2]}** {_plain(line)}\n" for w, step in zip(words, steps) for line in step["safety"]]
        used = [f"{_plain(p['title'])} ({_plain(p['id'])}, {own[4]} {p['relevance']:.2f})"
                for p in first["passages"] if p["used"]]
        parts.append(f"\n{own[3]} {'; '.join(used)}\n" if used else "")
    return "".join(parts)


def _plain(text: str) -> str:
    """Text of one line that Markdown shows as it is."""
    text = re.sub(r"[\\`*_{}\[\]<>#|~&$]", r"\\\g<0>", clean(text))
    return re.sub(r"^([-+=]|\d+(?=[.)]))", lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", text)


def write_commentary(folder: Path, *docs: dict, embed: bool | None = None) -> list[Path]:
    """Write `commentary.{json,md,srt,vtt,html}` into a folder; returns their paths.

    Args:
        docs: one document, or the same steps in two languages: then one JSON for each, named by its language, and the others hold
            both. embed: whether the page holds the video; see `page.page`.

    Raises:
        ExpStarError: the documents are not of the same steps, the video cannot be read, or the folder cannot be written.
    """
    folder, lines = Path(folder), subtitles(*docs)
    names = ["commentary.json"] if len(docs) == 1 else [f"commentary.{language_of(doc)}.json" for doc in docs]
    return [*(write_json(folder / name, doc) for name, doc in zip(names, docs)),
            write_text(folder / "commentary.md", markdown(*docs)),
            write_text(folder / "commentary.srt", lines.to_string("srt")),
            write_text(folder / "commentary.vtt", lines.to_string("vtt")),
            write_text(folder / "commentary.html", page(docs, folder, embed))]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a command that exports."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--burn", action="store_true", help="also write commentary.mp4, captions drawn into the pictures")
    how.add_argument("--track", action="store_true", help="also write commentary.mp4, captions as a track to switch on and off")
    parser.add_argument("--hold", action="store_true", help="in commentary.mp4, hold the picture until all notes were read")
    parser.add_argument("--speak", action="store_true", help="in commentary.mp4, speak the notes; holds the picture")
    page_of = parser.add_mutually_exclusive_group()
    page_of.add_argument("--embed", action="store_true", default=None, help="put the video into the page, however long it is")
    page_of.add_argument("--link", dest="embed", action="store_false", help="leave the video where it is, linked from the page")


def write_video(folder: Path, docs: Sequence[dict], given: argparse.Namespace) -> tuple[list[Path], Plan]:
    """Write `commentary.mp4` where the options of `add_options` ask for it; returns its path, and what is shown when."""
    if not (given.burn or given.track or given.hold or given.speak):
        return [], plan(docs)
    path = Path(folder) / "commentary.mp4"
    how = "burn" if given.burn else "track"
    return [path], write_mp4(path, Path(docs[0]["video"]), docs, how, given.hold, given.speak)


def check_options(given: argparse.Namespace, languages: Sequence[str]) -> None:
    """Raises ExpStarError where the options ask for a voice or a font that is not installed."""
    if given.speak:
        open_voice(languages[0])
    if given.burn and "zh" in languages:
        Typeface("一步")


def left_out(made: Plan) -> str:
    """A sentence on notes that no caption had time for; empty where there are none."""
    if not made.left_out:
        return ""
    count, of = len(made.left_out), len(made.left_out) + len(made.spoken)
    return (f"Left out of the captions, too fast to be read there: {count} of {of} notes. The page has them all; --hold makes a "
            "video that waits for them.")


def main(argv: Sequence[str] | None = None) -> int:
    """Write a commentary's files from its JSON; two JSON files are one commentary in two languages."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("document", nargs="+", type=Path, help="commentary.json; at most two")
    parser.add_argument("--out", type=Path, help="folder; by default that of the first document")
    add_options(parser)
    given = parser.parse_args(argv)
    try:
        if len(given.document) > 2:
            raise ExpStarError(f"document: found {len(given.document)} files, expected one or two; leave the others out")
        docs, folder = [read_document(path) for path in given.document], given.out or given.document[0].parent
        check_options(given, [language_of(doc) for doc in docs])
        video, made = write_video(folder, docs, given)
        files = [*write_commentary(folder, *docs, embed=given.embed), *video]
    except ExpStarError as error:
        print(f"expstar: {error}", file=sys.stderr)
        return 2
    print(f"{left_out(made)}\nWritten: {', '.join(str(f) for f in files)}".strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())

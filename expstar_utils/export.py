"""A whole video's commentary as JSON, Markdown and subtitles."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pysubs2

from expstar_utils.datasets import Case
from expstar_utils.files import write_json, write_text
from expstar_utils.prompts import parse
from expstar_utils.records import Prediction, VirtualClip, format_time

LINE_CHARACTERS = 42
NOT_TAGS = str.maketrans("{}<>\\", "()＜＞/")  # players would swallow what stands between them


def document(title: str, video: str, cases: Sequence[Case], predictions: Sequence[Prediction]) -> dict:
    """Commentary of a video: `{title, video, steps: [{step, start_s, end_s, narration, principle, safety, retrieval_prob,
    passages: [{id, title, relevance, relevant, used}]}]}`; of the relevant passages, those used are written from."""
    steps = []
    for case, prediction in zip(cases, predictions, strict=True):
        said, data = parse(prediction.response).commentary, prediction.evaluation_data
        clip = case.clip
        assert isinstance(clip, VirtualClip)
        threshold = data["settings"]["verdict_threshold"]
        judged = zip(data["passage_ids"], data["passage_titles"], data["relevance"], strict=True)
        steps.append({
            "step": case.step_number, "start_s": clip.start, "end_s": clip.end, "narration": list(said.narration),
            "principle": list(said.principle), "safety": list(said.safety), "retrieval_prob": data["retrieval_prob"],
            "retrieved": data["is_retrieval"], "faults": list(parse(prediction.full_dialogue).faults),
            "passages": [{"id": i, "title": t, "relevance": r, "relevant": r > threshold, "used": i in data["relevant_ids"]}
                         for i, t, r in judged]})
    return {"title": title, "video": video, "steps": steps}


def markdown(doc: dict) -> str:
    """Readable page of a commentary."""
    parts = [f"# {_plain(doc['title'])}\n"]
    for step in doc["steps"]:
        parts.append(f"\n## Step {step['step']} ({format_time(round(step['start_s']))} to {format_time(round(step['end_s']))})\n")
        parts += [f"\n{_plain(line)}\n" for line in step["narration"]]
        parts += [f"\n> **Principle.** {_plain(line)}\n" for line in step["principle"]]
        parts += [f"\n> **Safety.** {_plain(line)}\n" for line in step["safety"]]
        used = [f"{_plain(p['title'])} ({_plain(p['id'])}, relevance {p['relevance']:.2f})"
                for p in step["passages"] if p["used"]]
        parts.append(f"\nSources: {'; '.join(used)}\n" if used else "")
    return "".join(parts)


def _plain(text: str) -> str:
    """Text of one line that Markdown shows as it is."""
    text = re.sub(r"[\\`*_{}\[\]<>#|~&$]", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"^([-+=]|\d+(?=[.)]))", lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", text)


def subtitles(doc: dict) -> pysubs2.SSAFile:
    """Subtitles: the notes of a step share its time in proportion to their length; nothing in them is a tag."""
    file = pysubs2.SSAFile()
    for step in doc["steps"]:
        notes = [*step["narration"], *(f"Principle: {x}" for x in step["principle"]), *(f"Safety: {x}" for x in step["safety"])]
        at_s, whole = step["start_s"], sum(map(len, notes)) or 1
        for note in notes:
            end_s = at_s + (step["end_s"] - step["start_s"]) * len(note) / whole
            text = r"\N".join(textwrap.wrap(note.translate(NOT_TAGS), LINE_CHARACTERS))
            file.append(pysubs2.SSAEvent(start=round(at_s * 1000), end=round(end_s * 1000), text=text))
            at_s = end_s
    return file


def write_commentary(folder: Path, doc: dict) -> list[Path]:
    """Write `commentary.{json,md,srt,vtt}` into a folder; returns their paths."""
    lines = subtitles(doc)
    return [write_json(folder / "commentary.json", doc), write_text(folder / "commentary.md", markdown(doc)),
            write_text(folder / "commentary.srt", lines.to_string("srt")),
            write_text(folder / "commentary.vtt", lines.to_string("vtt"))]


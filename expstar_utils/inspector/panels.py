"""The inspector's page as HTML: every text that comes from a model or a data set is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

from expstar_utils.datasets import Case
from expstar_utils.differences import differences
from expstar_utils.inspector.cases import View
from expstar_utils.inspector.footage import Span
from expstar_utils.inspector.marks import FLAGS, SECTIONS, SURE, Mark, Scores, scores_of, section_text
from expstar_utils.prompts import Commentary, parse
from expstar_utils.records import Prediction

TAGS = {"added": "ins", "left_out": "del"}
PARAGRAPH = re.compile(r"^\s*<paragraph>\s*|\s*</paragraph>\s*$")
NONE = '<span class="es-none">none</span>'


def text(value: object) -> str:
    """Text that a page shows as it is."""
    return html.escape(str(value).encode("utf8", "replace").decode("utf8"))


def lines(value: str) -> str:
    """Escaped text of several lines."""
    return text(value.strip("\n")).replace("\n", "<br>")


def chip(words: str, kind: str = "plain") -> str:
    """A short remark in a frame."""
    return f'<span class="es-chip es-{kind}">{text(words)}</span>'


def message(words: str) -> str:
    """A sentence in place of what cannot be shown."""
    return f'<p class="es-message">{text(words)}</p>'


def heading(view: View) -> str:
    """Title, step and place of a case, and what is odd about it."""
    case = view.case
    step = [f"step {case.step_number}"] if case.step_number else []
    place = " · ".join([case.subject, *step, case.id, case.experiment])
    summary = f'<p class="es-summary">{text(case.summary)}</p>' if case.summary else ""
    return (f'<div class="es-heading"><h2>{text(case.title or case.id)}</h2>{summary}<p class="es-place">{text(place)}</p>'
            + "".join(message(note) for note in view.notes) + "</div>")


def problems(found: Sequence[str]) -> str:
    """What is missing or bad in the runs, folded away; nothing when all is there."""
    if not found:
        return ""
    items = "".join(f"<li>{text(problem)}</li>" for problem in found)
    noun = "thing is" if len(found) == 1 else "things are"
    return f'<details class="es-problems"><summary>{len(found)} {noun} missing or bad</summary><ul>{items}</ul></details>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML already; the first cell of a row names it."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
                   for name, *cells in rows)
    return f'<table class="es-table es-{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def commentary(view: View, marks: Mapping[str, Mark]) -> str:
    """The reference and each run's commentary side by side, differences marked, and the metrics of this case under them.

    Args:
        marks: of this case, by run label; their flags stand under the runs' names.
    """
    case, made = view.case, view.predictions
    said = {label: parse(p.response).commentary for label, p in made.items()}
    scores = {label: scores_of(p, case, view.facts) for label, p in made.items()}
    head = ["", "Reference", *(text(label) + _flags(marks[label]) for label in made)]
    rows = [[kind.capitalize(), lines(section_text(case, [kind])) or NONE,
             *(_section(kind, said[label], case, scores[label]) for label in made)] for kind in SECTIONS]
    if made:
        rows += [[name, reference, *(show(made[label], scores[label]) for label in made)] for name, reference, show in (
            ("BLEU", "", lambda p, s: f"{s.bleu:.1f}"),
            ("Facts", _wanted(view), lambda p, s: _facts(s)),
            ("Form", "", lambda p, s: "<br>".join(map(text, s.faults)) or "well formed"),
            ("Looked up", text("yes" if case.needs_retrieval else "no"), lambda p, s: f"{_gate(p)} {_read_again(p)}"))]
    legend = ('<p class="es-legend"><ins>added</ins> by the model, <del>left out</del> of the reference; % = words in common</p>'
              if made else message("No run that is chosen predicted this case."))
    return table(head, rows, "commentary") + legend


def _flags(mark: Mark) -> str:
    chips = "".join(chip(label, "warn") for flag, label in FLAGS.items() if flag in mark.flags)
    return f'<span class="es-flags">{chips}</span>'


def _section(kind: str, said: Commentary, case: Case, scores: Scores) -> str:
    written, wanted = section_text(said, [kind]), section_text(case, [kind])
    if not written and not wanted:
        return NONE
    note = chip(f"{scores.agreement[kind]:.0%}", "plain")
    if not written:
        note = chip("missing", "warn")
    elif not wanted:
        note = chip("not in the reference", "warn")
    return note + marked(written, wanted)


def marked(written: str, wanted: str) -> str:
    """A text with its differences to its reference: added words underlined, words left out struck through.

    A text of its own is shown alone: struck through, the reference beside it would only hide it.
    """
    parts, pieces = [], differences(written, wanted)
    if [piece.kind for piece in pieces] == ["left_out", "added"]:
        pieces = pieces[1:]
    for piece in pieces:
        shown = text(piece.text).replace("\n", "<br>")
        tag = TAGS.get(piece.kind)
        parts.append(f"<{tag}>{shown}</{tag}>" if tag else shown)
    return "".join(parts)


def _wanted(view: View) -> str:
    return ", ".join(text(fact["en"]) for fact in view.facts) or '<span class="es-none">not known</span>'


def _facts(scores: Scores) -> str:
    if not scores.facts:
        return ""
    missed = [text(fact) for fact, right in scores.facts.items() if not right]
    count = f"{len(scores.facts) - len(missed)} of {len(scores.facts)}"
    return f"{count}; missed: {', '.join(missed)}" if missed else count


def _gate(prediction: Prediction) -> str:
    data = prediction.evaluation_data
    settings, prob = data.get("settings") or {}, data.get("retrieval_prob")
    answer = "yes" if data.get("is_retrieval") else "no"
    if settings.get("knowledge", "adaptive") != "adaptive":
        return f"{text(settings['knowledge'])} (set beforehand)"
    if prob is None:
        return answer
    tau = settings.get("tau", 0.5)
    close = chip("close", "warn") if abs(prob - tau) < SURE else ""
    return f"{answer}, p = {prob:.2f} (from {tau:g}) {close}"


def _read_again(prediction: Prediction) -> str:
    """A sign that an earlier step is taken to have shown something else."""
    again = prediction.evaluation_data.get("read_again")
    return chip(f"step {again['step']} read again", "plain") if again else ""


def passages(view: View) -> str:
    """Every passage that a run judged, with each run's probability; the used ones are marked."""
    judged = {label: passages_of(p) for label, p in view.predictions.items()}
    rows = {key: row for found in judged.values() for key, row in found.items()}
    used = {key for found in judged.values() for key, row in found.items() if row["used"]}
    if not rows:
        return message("Nothing was looked up.") if view.predictions else ""
    def verdict(label: str, key: str) -> str:
        return _verdict(judged[label][key], view.predictions[label]) if key in judged[label] else '<span class="es-none">–</span>'
    body = [[_passage(row, view.gold, key in used), *(verdict(label, key) for label in judged)] for key, row in rows.items()]
    return table(["Passage", *map(text, judged)], body, "passages")


def passages_of(prediction: Prediction) -> dict[str, dict]:
    """A prediction's passages by id: `{id, title, text, prob, used}`; where nothing names them, their text does."""
    data, found = prediction.evaluation_data, {}
    texts = [PARAGRAPH.sub("", str(t)) for t in data.get("rag_passages") or []]
    used = {PARAGRAPH.sub("", str(t)) for t in data.get("relevant_passages") or []}
    ids, titles, probs = ((data.get(name) or []) for name in ("passage_ids", "passage_titles", "relevance"))
    for i, passage in enumerate(texts):
        name = ids[i] if i < len(ids) else ""
        found[name or passage] = {"id": name, "title": titles[i] if i < len(titles) else passage[:60], "text": passage,
                                  "prob": probs[i] if i < len(probs) else None,
                                  "used": name in (data.get("relevant_ids") or []) if name else passage in used}
    return found


def _passage(row: Mapping, gold: set[str] | None, is_open: bool) -> str:
    helps = chip("helps", "good") if gold and row["id"] in gold else ""
    return (f"<details{' open' if is_open else ''}><summary>{text(row['title'])} {helps}</summary><p>{text(row['text'])}</p>"
            f'<p class="es-place">{text(row["id"])}</p></details>')


def _verdict(row: Mapping, prediction: Prediction) -> str:
    used = chip("● used", "good") if row["used"] else ""
    if row["prob"] is None:
        return used or "not used"
    threshold = (prediction.evaluation_data.get("settings") or {}).get("verdict_threshold", 0.5)
    close = chip("close", "warn") if abs(row["prob"] - threshold) < SURE else ""
    relevant = "" if row["used"] or row["prob"] <= threshold else chip("○ relevant")
    bar = f'<span class="es-bar"><i style="width:{100 * row["prob"]:.0f}%"></i><b style="left:{100 * threshold:.0f}%"></b></span>'
    return f'<span class="es-prob">{row["prob"]:.3f}</span>{bar}{used}{relevant}{close}'


def strip(pictures: Sequence[bytes], times_s: Sequence[float], span: Span, caption: str) -> str:
    """Frames in a row under their times; a click on one seeks the player to it.

    Args:
        pictures: JPEG files. times_s: seconds from the film's first frame, as the model was told.
    """
    cells = []
    for picture, time_s in zip(pictures, times_s, strict=True):
        data, at_s = base64.b64encode(picture).decode(), max(time_s - span.start_s, 0)
        cells.append(f'<button type="button" class="es-frame" data-seek="{at_s:.3f}" title="{at_s:.3f} s into the clip"><img '
                     f'alt="frame at {time_s:.3f} s" src="data:image/jpeg;base64,{data}"><span>{time_s:.3f} s</span></button>')
    return f'<figure class="es-strip"><div>{"".join(cells)}</div><figcaption>{text(caption)}</figcaption></figure>'


def waiting_strip() -> str:
    """What holds the strip's place until the frames are there."""
    return '<figure class="es-strip"><div class="es-waiting"></div><figcaption>Loading the frames …</figcaption></figure>'


def seen_by(view: View) -> dict[tuple[float, ...], list[str]]:
    """Frame times and the runs whose model saw these; runs that do not say are left out."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for label, prediction in view.predictions.items():
        times = tuple(prediction.evaluation_data.get("frame_times_s") or ())
        if times:
            groups.setdefault(times, []).append(label)
    return groups

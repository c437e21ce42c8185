"""One video, from file to commentary: what notebook 00 and `make demo` call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from expstar_utils import annotate, export, inference, media, models, retrieval, speech
from expstar_utils.annotators import topics
from expstar_utils.datasets import Case
from expstar_utils.profiles import Profile, load_profile
from expstar_utils.prompts import load_prompts, parse
from expstar_utils.records import AsrFile, ExpStarError, Prediction, RawStep, VirtualClip, format_time
from expstar_utils.second_looks import LookingAgain

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample" / "burning_a_gas.mp4"
MAX_TITLE = 300


def checked_title(title: str) -> str:
    """The title without line breaks.

    Raises:
        ExpStarError: empty, or longer than MAX_TITLE characters.
    """
    title = " ".join(title.split())
    if not 1 <= len(title) <= MAX_TITLE:
        raise ExpStarError(f"title: found {len(title)} characters, expected 1 to {MAX_TITLE}; say in a few words what the "
                           "video shows")
    return title


def find_steps(info: media.VideoInfo, title: str, language: str | None = None) -> tuple[list[RawStep], AsrFile]:
    """Steps of a video, from pauses in its speech and changes of shot and topic, and what was said in it."""
    said = speech.transcribe(info.path, title=title, language=language) if info.has_audio else AsrFile(subtitles=[])
    steps = annotate.split_steps(info.duration_s, said.subtitles, annotate.shot_changes(info.path),
                                 topics=topics(said.subtitles))
    return steps, said


def commentator(setting: Profile, seed: int = 42) -> inference.Commentator:
    """The shipped model of a profile with its knowledge base, ready to comment.

    On a CPU in float32: each kind of CPU rounds bfloat16 sums in its own way, and on strange pictures the words hang on it.
    """
    torch.manual_seed(seed)
    dtype = getattr(torch, setting.dtype) if torch.cuda.is_available() else torch.float32
    adapter = models.SHIPPED / "adapter" if setting.base == models.TINY else None
    model, processor = models.load(setting.base, adapter, dtype, attention=setting.attention)
    retriever = retrieval.open_retriever(setting)
    how = inference.Settings.of(setting, seed=seed)

    def misread(case: Case, lines: list[str]) -> bool:
        """Whether what was narrated belongs to another subject than the title."""
        return case.subject not in retrieval.subjects_near(" ".join(lines), setting.doubt)
    kind = LookingAgain if setting.second_look_nats else inference.Commentator
    return kind(model, processor, load_prompts(), retriever.for_step, how, misread if setting.doubt else None)


def comment_video(writer: inference.Commentator, info: media.VideoInfo, title: str, subject: str, steps: Sequence[RawStep],
                  setting: Profile) -> tuple[list[Case], list[Prediction]]:
    """Commentary of every step in turn; each step sees what was narrated before it.

    Args:
        subject: subject key for the prompt; empty guesses it from the title.
    """
    subject = subject or retrieval.guess_subject(title)
    cases, predictions, previous = [], [], []
    for step in steps:
        clip = VirtualClip(video=str(info.path), start=step.start_s, end=step.end_s)
        case = Case(id=f"demo_{step.step}", experiment="demo", subject=subject, title=title, step_number=step.step, clip=clip,
                    summary="", narration=[])
        frames = media.sample_frames(info.path, step.start_s, step.end_s, fps=setting.fps, size_px=setting.frame_size,
                                     max_frames=setting.max_frames_infer)
        [prediction] = writer.comment([inference.Step(case, list(previous), frames, earlier=list(predictions))])
        cases.append(case)
        predictions.append(prediction)
        previous.append(" ".join(parse(prediction.response).commentary.narration))
    return cases, predictions


def documents(writer: inference.Commentator, info: media.VideoInfo, title: str, subject: str, steps: Sequence[RawStep],
              setting: Profile, languages: Sequence[str] = ("en",)) -> list[dict]:
    """Commentary of a video as one document a language (`export.document`).

    Raises:
        ExpStarError: Chinese was asked for, and the model wrote none.
    """
    docs = []
    for language in languages:
        writer.settings = replace(writer.settings, language=language)
        doc = export.document(title, str(info.path), *comment_video(writer, info, title, subject, steps, setting))
        said = "".join(line for step in doc["steps"] for line in step["narration"])
        if language == "zh" and not any("\u4e00" <= c <= "\u9fff" for c in said):
            raise ExpStarError(f"profile: its model, {setting.base!r}, wrote no Chinese, expected some; take a profile whose "
                               "model knows it, or --write en")
        docs.append(doc)
    return docs


def show(doc: dict) -> str:
    """Commentary for a terminal: notes, decision, passages with their verdicts."""
    out = [f"\n{doc['title']}"]
    for step in doc["steps"]:
        out.append(f"\nStep {step['step']}  {format_time(round(step['start_s']))} to {format_time(round(step['end_s']))}")
        out += [f"  {line}" for line in step["narration"]]
        out.append(f"  [{'Retrieval' if step['retrieved'] else 'No Retrieval'}]  p = {step['retrieval_prob']:.2f}")
        out += [f"    {'[Relevant]  ' if p['relevant'] else '[Irrelevant]'} {p['relevance']:.2f}  {p['title']}  ({p['id']})"
                f"{'' if p['used'] or not p['relevant'] else '  not used'}" for p in step["passages"]]
        if step["read_again"]:
            out.append(f"  (step {step['read_again']['step']} is taken to show: {step['read_again']['narration']})")
        out += [f"  Principle: {line}" for line in step["principle"]] + [f"  Safety: {line}" for line in step["safety"]]
        out += [f"  (malformed: {fault})" for fault in step["faults"]]
    return "\n".join(out)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m expstar_utils.quickstart VIDEO TITLE`: what `make demo` runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("video", nargs="?", default=str(SAMPLE))
    parser.add_argument("title", nargs="?", default="Burning an Unknown Gas and Testing the Products")
    parser.add_argument("--subject", default="")
    parser.add_argument("--language", default="", help="of the speech; empty detects it")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--write", choices=("en", "zh", "both"), default="en", help="language of the commentary")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo")
    export.add_options(parser)
    given = parser.parse_args(argv)
    languages = ("en", "zh") if given.write == "both" else (given.write,)
    try:
        setting, title, info = load_profile(given.profile), checked_title(given.title), media.probe(Path(given.video))
        export.check_options(given, languages)
        writer = commentator(setting)  # first, so that missing weights are told at once
        steps, _ = find_steps(info, title, given.language or None)
        docs = documents(writer, info, title, given.subject, steps, setting, languages)
        files = export.write_commentary(given.out, *docs, embed=given.embed)
        video, made = export.write_video(given.out, docs, given)
    except ExpStarError as error:
        print(f"expstar: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(show, docs)))
    print(f"\n{export.left_out(made)}\nWritten: {', '.join(str(f) for f in [*files, *video])}".rstrip())
    print('Your own video:  make demo VIDEO=my.mp4 TITLE="What the experiment shows"')
    return 0


if __name__ == "__main__":
    sys.exit(main())

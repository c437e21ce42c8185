"""Raw videos with their steps and their speech -> pairs, one JSON a step; what does not fit is listed, never guessed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from tqdm.auto import tqdm

from expstar_utils.cutting import Clip, cut_clips
from expstar_utils.files import describe, inside, read_json, write_json
from expstar_utils.media import probe
from expstar_utils.records import ExpStarError, Pair, Problem, RawStep, Record, Subtitle, format_time, parse_time

R = TypeVar("R", bound=Record)
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".m4v")
SLACK_S = 1.0  # published times are whole seconds, so a last step may end so much after its video
_NUMBER = re.compile(r"(\d+)\s*[-_.、 ]\s*(?=.)")
_BETWEEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Experiment:
    """Raw files of one experiment; steps, asr: None where there is no such file. unit: "<subject>" or "<subject>/<unit>"."""

    unit: str
    video: Path
    steps: Path | None = None
    asr: Path | None = None

    @property
    def subject(self) -> str:
        return self.unit.split("/")[0]

    @property
    def name(self) -> str:
        return f"{self.unit}/{self.video.stem}"


def name_key(stem: str) -> tuple[int | None, str]:
    """Number and title of a raw file, as far as they tell files apart: `01-A`, `1_a` and `01. A` are one name."""
    stem = unicodedata.normalize("NFKC", stem).casefold().strip()
    number = _NUMBER.match(stem)
    return (int(number[1]), _BETWEEN.sub("-", stem[number.end():]).strip("-")) if number else (None, _BETWEEN.sub("-", stem))


def title_of(stem: str) -> str:
    """Title as it stands in a raw file's name, without its number."""
    number = _NUMBER.match(stem)
    return stem[number.end():].strip() if number else stem


def find_experiments(root: Path) -> tuple[list[Experiment], list[Problem]]:
    """Raw experiments below `root`, in order of their names, and the files that belong to none or to several.

    Layout: `dataset/<subject>/<unit>/{step,asr}/NN-title.json` and `source_video/<subject>/<unit>/NN-title.mp4`, or the same
    without units. Files go together when number and title are the same (see `name_key`); a file that only shares its number is
    held back.
    """
    root, found, problems = Path(root), [], []
    for unit in _units(root):
        places = {"video": (root / "source_video" / unit, VIDEO_SUFFIXES), "step": (root / "dataset" / unit / "step", (".json",)),
                  "asr": (root / "dataset" / unit / "asr", (".json",))}
        sides = {kind: _by_name(root, *place, problems) for kind, place in places.items()}
        faults = _mismatches(root, sides)
        problems += faults.values()
        for key in sorted(sides["video"].keys() - faults.keys(), key=str):
            [video], steps, asr = sides["video"][key], sides["step"].get(key, [None]), sides["asr"].get(key, [None])
            found.append(Experiment(unit, video, steps[0], asr[0]))
    return sorted(found, key=lambda e: e.name), problems


def _units(root: Path) -> list[str]:
    notes, videos = root / "dataset", root / "source_video"
    units = set()
    for depth in ("*", "*/*"):
        units |= {p.parent.relative_to(notes) for kind in ("step", "asr") for p in notes.glob(f"{depth}/{kind}")}
        units |= {p.parent.relative_to(videos) for p in videos.glob(f"{depth}/*") if p.suffix.lower() in VIDEO_SUFFIXES}
    return sorted(unit.as_posix() for unit in units)


def _by_name(root: Path, folder: Path, suffixes: Sequence[str], problems: list[Problem]) -> dict[tuple, list[Path]]:
    files: dict[tuple[int | None, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            try:
                files[name_key(path.stem)].append(inside(root, path.absolute()) and path)
            except ExpStarError:
                problems.append(Problem(file=path.relative_to(root).as_posix(), field="file", found="a link out of the folder",
                                        expected="a file in it", todo="copy it there; it was left out"))
    return {name: paths for name, paths in files.items() if paths}


def _mismatches(root: Path, sides: dict[str, dict]) -> dict[tuple[int | None, str], Problem]:
    """Names of a unit that cannot be matched for certain, each with its problem."""
    faults: dict[tuple[int | None, str], Problem] = {}
    def fault(key, path: Path, found: str, expected: str, todo: str) -> None:
        faults[key] = Problem(file=path.relative_to(root).as_posix(), field="name", found=found, expected=expected, todo=todo)
    videos = sides["video"]
    for key in {k for side in sides.values() for k in side}:
        for kind, side in sides.items():
            if len(same := side.get(key, [])) > 1:
                fault(key, same[0], f"the same name as {', '.join(p.name for p in same[1:])}", f"one {kind} file of that name",
                      "remove or rename the others; the experiment was left out")
        if key not in videos and key not in faults:
            path = next(side[key][0] for side in sides.values() if key in side)
            near = [k for k in videos if k[0] is not None and k[0] == key[0]]
            seen = f"only {videos[near[0]][0].name}, which has another title" if near else "no video of that number and title"
            fault(key, path, seen, f"a video named {path.stem}", "rename one of the two; the file was left out")
            for other in near:
                if not all(other in sides[kind] for kind in ("step", "asr")):
                    fault(other, videos[other][0], f"{path.name}, which has the same number and another title",
                          "one title for all files of a number", "rename one of the two; the experiment was left out")
    return faults


def read_items(path: Path, key: str, kind: type[R], file: str) -> tuple[list[R], list[Problem]]:
    """Records of the list `key` in a raw JSON file; each bad one is a problem of its own, the others are kept.

    Args:
        file: name of the file in problems.
    """
    try:
        data = read_json(path)
        items = data.get(key) if isinstance(data, dict) else None
    except ExpStarError as error:
        return [], [Problem(file=file, field="file", found=str(error).removeprefix(f"{path}: "), expected="one JSON object",
                            todo="mend it; the experiment was left out")]
    if not isinstance(items, list):
        found = f"an object with {', '.join(data) or 'nothing'}" if isinstance(data, dict) else f"a {type(data).__name__}"
        return [], [Problem(file=file, field=key, found=found[:80], expected=f'a list named "{key}"',
                            todo="mend it; the experiment was left out")]
    good, problems = [], []
    for i, item in enumerate(items):
        try:
            good.append(kind.model_validate(item))
        except ValidationError as error:
            field, _, rest = describe(error).partition(" is ")
            found, _, expected = rest.partition(", expected: ")
            problems.append(Problem(file=file, field=f"{key}[{i}].{field}", found=found, expected=expected,
                                    todo="correct it; the entry was left out"))
    return good, problems


def checked_steps(steps: Sequence[RawStep], duration_s: float, file: str) -> tuple[list[RawStep], list[Problem]]:
    """Steps of one number each whose times are in order and inside the video, and what is wrong with the rest."""
    good: list[RawStep] = []
    problems = []
    times = Counter(step.step for step in steps)
    def fault(step: RawStep, field: str, found: str, expected: str) -> None:
        problems.append(Problem(file=file, field=f"step {step.step}, {field}", found=found, expected=expected,
                                todo="correct it; the step was left out"))
    for step in sorted(steps, key=lambda s: (s.step, s.start_s)):
        span = f"{format_time(step.start_s)} to {format_time(step.end_s)}"
        if times[step.step] > 1:
            fault(step, "step", f"{times[step.step]} steps of that number", "one")
        elif step.end_s <= step.start_s:
            fault(step, "endTime", span, "an end after the start")
        elif step.start_s >= duration_s or step.end_s > duration_s + SLACK_S:
            fault(step, "endTime", span, f"times inside the video of {duration_s:.2f} s")
        elif good and step.start_s < good[-1].end_s:
            fault(step, "startTime", span, f"a start after the end of step {good[-1].step}, {format_time(good[-1].end_s)}")
        else:
            good.append(step)
    return good, problems


def attach(steps: Sequence[RawStep], lines: Sequence[Subtitle], file: str) -> tuple[dict[int, list[Subtitle]], list[Problem]]:
    """Speech by step number: a line's own `step`, else the step that lists its id in `ASR_id`.

    Returns:
        (step number -> its lines in order, problems: lines of no step, ids listed that are not there, steps without a line).
    """
    problems: list[Problem] = []
    listed = {number: step.step for step in steps for number in step.ASR_id}
    known, by_step = {step.step for step in steps}, {step.step: [] for step in steps}
    def fault(field: str, found: str, expected: str, left_out: str) -> None:
        problems.append(Problem(file=file, field=field, found=found, expected=expected, todo=f"correct it; {left_out} left out"))
    twice = {number for number, uses in Counter(line.id for line in lines).items() if uses > 1}
    for line in lines:
        number = line.step if line.step is not None else listed.get(line.id)
        if line.id in twice and line.step is None:
            fault(f"subtitle {line.id}", "several lines of that id", "one, or a step in each line", "the line was")
        elif number not in known:
            fault(f"subtitle {line.id}, step", "no step" if number is None else f"step {number}", f"one of {sorted(known)}",
                  "the line was")
        else:
            by_step[number].append(line)
    if missing := sorted(listed.keys() - {line.id for line in lines}):
        fault("ASR_id", f"ids {missing[:8]} of no subtitle", "ids of subtitles", "they were")
    for number in [n for n, spoken in by_step.items() if not spoken]:
        fault(f"step {number}", "no subtitle", "at least one line of speech", "the step was")
    return {n: sorted(spoken, key=lambda s: (s.start_s, s.id)) for n, spoken in by_step.items() if spoken}, problems


def pairs_of(experiment: Experiment, root: Path, path_prefix: str = "") -> tuple[list[Pair], list[Problem]]:
    """Pairs of one experiment with virtual clips, and everything in its files that does not fit.

    Args:
        root: folder of the raw data (see `find_experiments`); paths in a pair are relative to its `source_video`.
        path_prefix: put before those paths, such as "/data/expinstruct/".
    """
    def shown(path: Path) -> str:
        return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    if lacking := [kind for kind in ("steps", "asr") if getattr(experiment, kind) is None]:
        return [], [Problem(file=shown(experiment.video), field=", ".join(lacking), found="no such file",
                            expected="a JSON file of that name", todo="write it, or let 01 make it (`annotator`)")]
    try:
        duration_s = probe(experiment.video).duration_s
    except ExpStarError as error:
        return [], [Problem(file=shown(experiment.video), field="video", found=str(error).removeprefix(f"{experiment.video}: "),
                            expected="a video that can be read", todo="replace it; the experiment was left out")]
    steps, problems = read_items(experiment.steps, "steps", RawStep, shown(experiment.steps))
    lines, more = read_items(experiment.asr, "subtitles", Subtitle, shown(experiment.asr))
    problems += more
    steps, more = checked_steps(steps, duration_s, shown(experiment.steps))
    problems += more
    spoken, more = attach(steps, lines, shown(experiment.asr)) if steps and lines else ({}, [])
    titles = _titles(experiment) if spoken else {}
    problems += [Problem(file=shown(experiment.steps), field=field, found="no title", expected="the title in that language",
                         todo="add it to the step file; the pairs have none") for field, title in titles.items() if not title]
    video = path_prefix + experiment.video.relative_to(root / "source_video").as_posix()
    pairs = [Pair.model_validate({
        **titles, "original_video": video, "clip_start": step.startTime, "clip_end": step.endTime, "step_zh": step.step_zh,
        "step_en": step.step_en, "step_number": step.step, "clip_video_path": video, "subject": experiment.subject,
        "annotations": [{k: v for k, v in line.to_dict().items() if k != "step"} for line in spoken[step.step]],
    }) for step in steps if step.step in spoken]
    return pairs, problems + more


def _titles(experiment: Experiment) -> dict[str, str]:
    """`title_zh` and `title_en`: the step file's own, else the file name's for the language that it is written in."""
    own, name = read_json(experiment.steps), title_of(experiment.video.stem)
    chinese = bool(re.search(r"[\u3400-\u9fff]", name))
    return {"title_zh": str(own.get("title_zh") or (name if chinese else "")),
            "title_en": str(own.get("title_en") or ("" if chinese else name))}


def write_pairs(pairs: Sequence[Pair], experiment: Experiment, folder: Path) -> list[Path]:
    """One JSON a step below `folder/<name of the experiment>/`; steps that are no longer there are removed."""
    target, stem = folder / experiment.name, experiment.video.stem
    paths = [target / f"{stem}_step_{pair.step_number}.json" for pair in pairs]
    for old in set(target.glob("*_step_*.json")) - set(paths):
        old.unlink()
    return [write_json(path, pair) for path, pair in zip(paths, pairs, strict=True)]


def cut_pairs(pairs: Sequence[Pair], experiment: Experiment, folder: Path, path_prefix: str = "") -> tuple[list[Pair], str]:
    """The same pairs with their clips as files, `folder/<unit>/video/<stem>/<stem>_step_<i>.mp4` as published.

    A clip that is there already is kept as long as its times and its video are the same.

    Returns:
        (pairs whose `clip_video_path` is `path_prefix` and the path below `folder`, why clips were encoded as a whole or "").
    """
    stem, below = experiment.video.stem, f"{experiment.unit}/video/{experiment.video.stem}"
    mark, state = folder / below / "cuts.json", experiment.video.stat()
    known = read_json(mark) if mark.is_file() else {}
    made = {pair.step_number: [pair.clip_start, pair.clip_end, state.st_size, state.st_mtime_ns] for pair in pairs}
    names = {n: f"{stem}_step_{n}.mp4" for n in made}
    lacking = [n for n in made if known.get(str(n)) != made[n] or not (folder / below / names[n]).is_file()]
    clips = [Clip(parse_time(made[n][0]), parse_time(made[n][1]), folder / below / names[n]) for n in lacking]
    reason = next(iter(cut_clips(experiment.video, clips)), "") if clips else known.get("encoded", "")
    if clips:
        write_json(mark, {str(n): cut for n, cut in made.items()} | ({"encoded": reason} if reason else {}))
    cut = [Pair.model_validate(p.to_dict() | {"clip_video_path": f"{path_prefix}{below}/{names[p.step_number]}"}) for p in pairs]
    return cut, reason


def build_pairs(experiments: Sequence[Experiment], root: Path, folder: Path, path_prefix: str = "", workers: int = 4,
                clips: Path | None = None) -> list[Problem]:
    """Write the pairs of all experiments below `folder`, side by side; a second run gives the same files.

    Args:
        clips: where step clips are written as files (see `cut_pairs`); None leaves them virtual.

    Returns:
        What does not fit, in the order of the experiments; the rest is written.
    """
    def _build(experiment: Experiment) -> list[Problem]:
        pairs, problems = pairs_of(experiment, root, path_prefix)
        if clips and pairs:
            pairs, reason = cut_pairs(pairs, experiment, clips, path_prefix)
            if reason:
                problems.append(Problem(file=experiment.video.relative_to(root).as_posix(), field="clips", found=reason,
                                        expected="h264 that can be copied", severity="note",
                                        todo="nothing: the clips were encoded as a whole"))
        write_pairs(pairs, experiment, folder)
        return problems
    with ThreadPoolExecutor(workers) as pool:
        done = tqdm(pool.map(_build, experiments), total=len(experiments), desc="pairs", unit="experiment")
        return [problem for problems in done for problem in problems]

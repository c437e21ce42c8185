"""`make mini`: render every family into videos, their raw annotations, published-format pairs and a file of what is true.

    python -m expstar_utils.mini.build [--out runs/mini] [--seed 42] [--workers 2] [--subject NAME ...] [--small] [--retakes N]
                                       [--round N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from expstar_utils.files import write_json, write_jsonl
from expstar_utils.mini.family import PLACEHOLDER, Family, Step, Variant, load_families, load_family, placeholders
from expstar_utils.mini.mixed import FOLDER as MIXED
from expstar_utils.mini.mixed import MIXES, mixes, seldom_filmed, silent
from expstar_utils.mini.render import FPS, take_clips, write_video
from expstar_utils.mini.unclear import FILMS, write_film
from expstar_utils.records import SUBJECTS, Pair, format_time

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "data" / "mini"
TRAIN_TAKES, HELD_OUT_VARIANTS = 2, 2
RETAKEN = 10_000_000  # between the seeds of two rounds of retakes
RETAKES_FPS = 2  # a model that looks once a second misses nothing, and they are drawn four times as fast


@dataclass(frozen=True)
class Take:
    """One experiment to render: a variant of a family, filmed once, `fps` frames a second."""

    family: Family
    variant: Variant
    split: str
    seed: int
    stem: str
    fps: int = FPS

    @property
    def video(self) -> str:
        return f"source_video/{self.family.subject}/{self.stem}.mp4"


def plan(families: list[Family], seed: int = 42, small: bool = False) -> list[Take]:
    """Which takes are filmed, and on which side they stand.

    Every seen variant has TRAIN_TAKES takes in `train`; HELD_OUT_VARIANTS of a family have one more in `val`, as many
    others one more in `test`; unseen variants stand in `test_unseen` only. `small` keeps one experiment of each split, and in
    `train` those of two variants.
    """
    takes = []
    for family in families:
        number = SUBJECTS.index(family.subject)
        rng = np.random.default_rng([seed, number])
        seen = [v for v in family.variants if v.split == "seen"]
        order = rng.permutation(len(seen))
        wanted = [(seen[i], "train") for i in range(len(seen)) for _ in range(TRAIN_TAKES)]
        wanted += [(seen[i], "val") for i in order[:HELD_OUT_VARIANTS]]
        wanted += [(seen[i], "test") for i in order[HELD_OUT_VARIANTS:2 * HELD_OUT_VARIANTS]]
        wanted += [(v, "test_unseen") for v in family.variants if v.split == "unseen"]
        if small:
            held_out = [next(w for w in wanted if w[1] == split) for split in ("val", "test", "test_unseen")]
            wanted = [*((v, "train") for v in seen[:2]), *held_out]
        takes += _takes(family, wanted, seed * 100_000 + number * 1000)
    return takes


def plan_mixed(families: list[Family], seed: int = 42, count: int = MIXES, retakes: int = 0, film_round: int = 1) -> list[Take]:
    """Takes of mixed experiments, at most `count` a family (see `mixed`), and so many `retakes` of them and of seen variants.

    Args:
        film_round: of the retakes, from 1 on; each has films of its own, for a model that has learned from those before.
    """
    takes = []
    for family in families:
        drawn, seen = mixes(family, count, seed), [v for v in family.variants if v.split == "seen"]
        again = seldom_filmed(mixes(family, MIXES, seed + film_round - 1, wide=True) + seen, retakes)
        wanted = [(variant, "mixed") for variant in drawn + again]
        place = SUBJECTS.index(family.subject)
        made = _takes(silent(family), wanted, seed * 100_000 + place * 1000 + 500)
        anew = film_round * RETAKEN + place * 3000  # no two subjects share a seed, up to 3,500 retakes
        takes += made[:len(drawn)] + [replace(take, fps=RETAKES_FPS, seed=take.seed + anew) for take in made[len(drawn):]]
    return takes


def _takes(family: Family, wanted: list[tuple[Variant, str]], seed: int) -> list[Take]:
    title = family.title.en.replace(" ", "_").replace("/", "-")
    return [Take(family, variant, split, seed + i, f"{i + 1:02d}-{title}") for i, (variant, split) in enumerate(wanted)]


def fill(lines: list[str], words: dict[str, str]) -> list[str]:
    """Lines with their placeholders filled; a line begins with a capital letter."""
    filled = [PLACEHOLDER.sub(lambda m: words[m[1]], line) for line in lines]
    return [line[:1].upper() + line[1:] for line in filled]


def facts(family: Family, variant: Variant, step: Step) -> list[dict[str, Any]]:
    """What must be said in a step: `{name, kind, section, en, zh, others}`; `others` are the family's wrong answers."""
    english, chinese = family.words(variant, "en"), family.words(variant, "zh")
    found = []
    for section, name in dict.fromkeys((s, n) for s, _, n in placeholders(step)):
        others = sorted({family.words(v, "en")[name] for v in family.variants} - {english[name]})
        found.append({"name": name, "kind": family.kind(name), "section": section, "en": english[name],
                      "zh": chinese[name], "others": others})
    return found


def pairs(take: Take, times: list[tuple[float, float]]) -> Iterator[Pair]:
    """Published-format pair of every step; its clip is a stretch of the experiment's video."""
    family, en, zh = take.family, take.family.words(take.variant, "en"), take.family.words(take.variant, "zh")
    subtitle = 0
    for number, (step, (start_s, end_s)) in enumerate(zip(family.steps, times, strict=True), 1):
        lines = list(zip(fill(step.narration.zh, zh), fill(step.narration.en, en), strict=True))
        cuts = np.linspace(start_s, end_s, len(lines) + 1)
        annotations = []
        for i, (text, text_en) in enumerate(lines):
            subtitle += 1
            annotations.append({"id": subtitle, "startTime": format_time(cuts[i]), "endTime": format_time(cuts[i + 1]),
                                "text": text, "text_en": text_en})
        for section in ("safety", "principle"):
            for language, words in (("zh", zh), ("en", en)):
                if notes := fill(getattr(getattr(step, section), language), words):
                    annotations[-1][f"{section}_{language}"] = "\n".join(notes)
        yield Pair.model_validate({
            "title_zh": family.title.zh, "title_en": family.title.en, "original_video": take.video,
            "clip_start": format_time(start_s), "clip_end": format_time(end_s), "step_zh": step.summary.zh,
            "step_en": step.summary.en, "step_number": number, "clip_video_path": take.video, "subject": family.subject,
            "annotations": annotations})


def raw_files(made: list[Pair]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Raw step file and raw speech file that say what the pairs of one experiment say."""
    steps = [{"step": p.step_number, "step_zh": p.step_zh, "step_en": p.step_en, "ASR_id": [line.id for line in p.annotations],
              "startTime": p.clip_start, "endTime": p.clip_end} for p in made]
    lines = [line.to_dict() | {"step": p.step_number} for p in made for line in p.annotations]
    titles = {"summary": "", "title_zh": made[0].title_zh, "title_en": made[0].title_en}
    return titles | {"steps": steps}, {"subtitles": lines}


def truth(take: Take) -> Iterator[dict[str, Any]]:
    """What is true of every step, for checkable metrics and for relevance grades."""
    for number, step in enumerate(take.family.steps, 1):
        yield {"experiment": f"{take.family.subject}/{take.stem}", "step": number, "subject": take.family.subject,
               "discipline": take.family.discipline, "family": take.family.id, "variant": take.variant.id,
               "split": take.split, "facts": facts(take.family, take.variant, step),
               "gold": take.family.gold(take.variant, step)}


@lru_cache(maxsize=1)
def code_hash() -> str:
    """sha256 of the renderer's own code: a video drawn by other code is drawn anew."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def film(job: tuple[Take, Path]) -> str:
    """Render one take and write its pairs; returns the video's sha256. Done takes are left alone."""
    take, out = job
    video, folder = out / take.video, out / "pairs" / take.family.subject / take.stem
    what = f"{code_hash()}{take.seed}{take.family.model_dump_json()}{take.variant.id}{take.fps}"
    recipe = hashlib.sha256(what.encode()).hexdigest()
    mark = folder / "recipe.json"
    if mark.is_file() and video.is_file() and (done := json.loads(mark.read_text()))["recipe"] == recipe:
        return done["sha256"]
    video.parent.mkdir(parents=True, exist_ok=True)
    unfinished = video.with_suffix(".part")
    times = write_video(unfinished, take_clips(take.family, take.variant, take.seed, take.fps), take.fps)
    os.replace(unfinished, video)
    made = list(pairs(take, times))
    for pair in made:
        write_json(folder / f"{take.stem}_step_{pair.step_number}.json", pair)
    for kind, content in zip(("step", "asr"), raw_files(made), strict=True):
        write_json(out / "dataset" / take.family.subject / kind / f"{take.stem}.json", content)
    digest = hashlib.sha256(video.read_bytes()).hexdigest()
    write_json(mark, {"recipe": recipe, "sha256": digest})
    return digest


def build(out: Path, seed: int = 42, workers: int = 2, subjects: list[str] | None = None, small: bool = False,
          retakes: int = 0, film_round: int = 1) -> str:
    """Render the data set into `out`; returns a sha256 of its videos and truths. For `retakes` see `plan_mixed`."""
    families = [load_family(SPECS / f"{s}.yaml") for s in sorted(subjects)] if subjects else load_families(SPECS)
    takes = plan(families, seed, small)
    jobs = [(take, Path(out)) for take in takes]
    jobs += [(take, Path(out) / MIXED) for take in plan_mixed(families, seed, 1 if small else MIXES, retakes, film_round)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        digests = list(tqdm(pool.imap(film, jobs, chunksize=4), total=len(jobs), desc="mini", unit="experiment"))
        pool.map(write_film, [(Path(out), families, seed, number) for number in range(3 if small else FILMS)])
    rows = [row for take in takes for row in truth(take)]
    write_jsonl(Path(out) / "truth.jsonl", rows)
    whole = hashlib.sha256("".join([*digests, json.dumps(rows)]).encode()).hexdigest()
    write_json(Path(out) / "manifest.json", {"experiments": len(takes), "clips": len(rows), "seed": seed, "sha256": whole})
    return whole


def main() -> None:
    """Render the data set from the command line and print its sha256."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mini")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--subject", nargs="*", default=None)
    parser.add_argument("--small", action="store_true", help="one experiment of each split and subject")
    parser.add_argument("--retakes", type=int, default=0,
                        help=f"films more of each subject, without notes, {RETAKES_FPS} frames a second")
    parser.add_argument("--round", type=int, default=1, help="of those films: each round has its own")
    given = parser.parse_args()
    print(build(given.out, given.seed, given.workers, given.subject, given.small, given.retakes, given.round))


if __name__ == "__main__":
    main()

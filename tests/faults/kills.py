"""A plan killed at random moments, begun again each time, and compared with an undisturbed run.

    python tests/faults/kills.py --moments 20 --seed 1        # the smoke plan; as often SIGKILL for all as for the schedule alone
    python tests/faults/kills.py --plan tiny --moments 1      # what one kill costs at the size of `make reproduce`

The last line is a JSON object: seconds of both, the work that was done twice as a share, and what stayed behind.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from disturbed import Course

from expstar_utils.files import read_json

POLL_S = 0.1


class Span(NamedTuple):
    """When a job ran, in seconds since the plan began."""

    start_s: float
    end_s: float


def watch(course: Course) -> dict[str, Span]:
    """Run a plan undisturbed: when each of its jobs ran; under "" the whole."""
    begun, spans = time.monotonic(), {}
    process = course.start()
    while process.poll() is None:
        now = time.monotonic() - begun
        for name in course.running():
            spans[name] = Span(spans.get(name, (now,))[0], now)
        time.sleep(POLL_S)
    assert process.returncode == 0, course.log.read_text(encoding="utf8")[-6000:]
    return {"": Span(0, time.monotonic() - begun), **spans}


def moments_of(spans: dict[str, Span], count: int, rng: random.Random) -> list[tuple[str, float]]:
    """Moments drawn over the whole time, in order: the job that began last, and seconds since it began."""
    found = []
    for at in sorted(rng.uniform(0, spans[""].end_s) for _ in range(count)):
        last = max((name for name, span in spans.items() if span.start_s <= at), key=lambda name: spans[name].start_s)
        found.append((last, at - spans[last].start_s))
    return found


def run_until(course: Course, moment: tuple[str, float], spans: dict[str, Span]) -> Any:
    """Start a plan and come back when a job has run so long, or one that comes after it has begun."""
    (name, offset_s), begun = moment, time.monotonic()
    later = {other for other, span in spans.items() if span.start_s > spans[name].end_s}
    process, at = course.start(), None if name else begun
    while process.poll() is None:
        running = course.running()
        at = at or (time.monotonic() if name in running else None)
        if running & later or (at and time.monotonic() - at >= offset_s):
            break
        time.sleep(POLL_S)
    return process


def catch(course: Course, moment: tuple[str, float], spans: dict[str, Span]) -> Any:
    """`run_until`, and where the plan was done before, its job is made to run again and caught earlier."""
    name, offset_s = moment
    while (process := run_until(course, (name, offset_s), spans)).poll() is not None and offset_s > POLL_S:
        offset_s /= 2
        for mark in course.folder.rglob("jobs/[!.]*.json"):
            if mark.name.startswith(f"{name}."):
                for result in read_json(mark):
                    (mark.parents[1] / result).unlink()
    return process


def disturb(folder: Path, count: int, seed: int, **plan: Any) -> dict[str, Any]:
    """Run a plan undisturbed, then anew with `count` kills, in one place after the other.

    Returns:
        `{name, moments, killed, undisturbed_s, disturbed_s, redone, left, differing, files}`.
    """
    course, kept = Course(folder / "course", **plan), folder / "whole"
    spans = watch(course)
    wanted = course.results()
    shutil.move(course.folder, kept)
    course = Course(folder / "course", **plan)
    killed, left, begun = 0, [], time.monotonic()
    for number, moment in enumerate(moments_of(spans, count, random.Random(seed))):
        process = catch(course, moment, spans)
        killed += process.poll() is None
        left += course.kill(process, alone=number % 2 == 1).values()
        print(f"{number + 1} of {count}: killed {'alone' if number % 2 else 'with all'} {moment[1]:.1f} s into "
              f"{moment[0] or 'the plan'}", flush=True)
    course.finish()
    disturbed_s, undisturbed_s = time.monotonic() - begun, spans[""].end_s
    found = course.results()
    differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    return {"name": "kills", "moments": count, "seed": seed, "killed": killed, "undisturbed_s": round(undisturbed_s, 1),
            "disturbed_s": round(disturbed_s, 1), "redone": round(disturbed_s / undisturbed_s - 1, 3), "left": left,
            "differing": differing, "files": len(wanted)}


def main() -> int:
    """Run it; 1 where something stayed behind or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="smoke")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = disturb(Path(folder), given.moments, given.seed, base=given.plan)
    print(f"{record['killed']} kills: {record['disturbed_s']} s against {record['undisturbed_s']} s undisturbed, "
          f"{len(record['left'])} processes left behind, {len(record['differing'])} of {record['files']} results differ")
    print(json.dumps(record))
    return int(bool(record["left"] or record["differing"]))


if __name__ == "__main__":
    raise SystemExit(main())

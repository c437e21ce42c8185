"""What all benchmarks share: both sides run in turn, medians, one JSON line at the end and in `results/`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expstar_utils.files import write_json

RESULTS = Path(__file__).parent / "results"


def options(text: str, runs: int) -> argparse.ArgumentParser:
    """Command line of a benchmark, with the options that every one has."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--runs", type=int, default=runs, help="times that each side runs")
    parser.add_argument("--json", action="store_true", help="print the result's line alone")
    return parser


def in_turn(sides: dict[str, Callable[[], Any]], runs: int, say: Callable[[str], None]) -> dict[str, float]:
    """Median seconds of each side; they take turns, so that a slow minute of the machine meets both."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(runs):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
            say(f"run {run + 1} of {runs}, {name}: {seconds[name][-1]:.2f} s")
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def report(name: str, medians: dict[str, float], runs: int, **more: Any) -> dict[str, Any]:
    """Print the result as one JSON line and keep it in `results/<name>.json`."""
    ours, theirs = medians["ours"], medians["theirs"]
    device = f"{os.cpu_count()} cores, {platform.machine()}"
    result = {"name": name, "ours_s": round(ours, 4), "theirs_s": round(theirs, 4), "ratio": round(theirs / ours, 2),
              "runs": runs, "device": device} | more
    write_json(RESULTS / f"{name}.json", result)
    print(json.dumps(result))
    return result

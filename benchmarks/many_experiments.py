"""Memory of notebooks 01 and 02 as the number of experiments grows: raw experiments that share one film, up to a thousand.

There is no other side here: the claim is that the curve is flat. The last line of output is JSON, as everywhere.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path

import papermill

from benchmarks.timing import RESULTS, options
from expstar_utils.files import read_json, write_json
from expstar_utils.miniatures import noise_clip

ROOT = Path(__file__).parents[1]
SIZES = (125, 250, 500, 1000)
STEPS = 5
SLACK = 1.05  # the largest may take so much more than the smallest


def raw_experiments(root: Path, count: int) -> Path:
    """A raw layout of `count` experiments with STEPS steps each; all films are links to one."""
    film = noise_clip(root / "film.mp4", 2 * STEPS)
    for number in range(count):
        name, unit = f"{number + 1:04d}-Experiment", f"chemistry/unit_{number % 20}"
        times = [{"startTime": f"0:00:0{2 * i}.000", "endTime": f"0:00:0{2 * i + 1}.900"} for i in range(STEPS)]
        steps = [{"step": i + 1, "step_zh": f"第{i + 1}步", "step_en": f"Step {i + 1}", "ASR_id": [i + 1]} | span
                 for i, span in enumerate(times)]
        lines = [{"id": i + 1, "text": f"看第{i + 1}步。", "text_en": f"See step {i + 1} of {number}."} | span
                 for i, span in enumerate(times)]
        titles = {"title_en": f"Experiment {number}", "title_zh": f"实验{number}"}
        write_json(root / "dataset" / unit / "step" / f"{name}.json", titles | {"steps": steps})
        write_json(root / "dataset" / unit / "asr" / f"{name}.json", {"subtitles": lines})
        video = root / "source_video" / unit / f"{name}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        os.link(film, video)
    return root


def through_notebooks(root: Path) -> dict[str, float]:
    """Peak memory (MiB) and seconds of 01 and 02 over one raw layout."""
    run, found = root / "run", {}
    given = {"01_video_commentary_pairs": {"raw_root": str(root)},
             "02_dataset_construction": {"pairs_dir": str(run / "1_pairs"), "truth": "", "data_root": str(root)}}
    for name, extra in given.items():
        started = time.perf_counter()
        papermill.execute_notebook(str(ROOT / "notebooks" / f"{name}.ipynb"), str(root / f"{name}.ipynb"),
                                   {"run_dir": str(run)} | extra, cwd=str(ROOT), progress_bar=False)
        stage = "1_pairs" if name.startswith("01") else "2_datasets"
        found |= {f"{name[:2]}_mib": read_json(run / stage / "metrics.json")["peak_memory_mib"],
                  f"{name[:2]}_s": round(time.perf_counter() - started, 1)}
    return found


def main() -> None:
    """Run every size and report the curve."""
    given = options(__doc__, runs=1).parse_args()
    curve = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            curve.append({"experiments": count} | through_notebooks(raw_experiments(Path(folder), count)))
        if not given.json:
            print(curve[-1])
    growth = {name: round(curve[-1][name] / curve[0][name], 3) for name in ("01_mib", "02_mib")}
    device = f"{os.cpu_count()} cores, {platform.machine()}"
    flat = max(growth.values()) <= SLACK
    result = {"name": "many_experiments", "growth": growth, "flat": flat, "curve": curve, "device": device}
    write_json(RESULTS / "many_experiments.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

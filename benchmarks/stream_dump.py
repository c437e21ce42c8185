"""A Wikipedia dump of 200 MB becomes passages: seconds and peak memory of `expstar_utils.shards`, in a process of its own.

There is no other side here: the claim is that memory stays small. The dump is made up (`wiki_dump`): valid XML with nested
templates, tables, references, redirects, copies, and a section in Chinese.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import RESULTS, options
from benchmarks.wiki_dump import write_dump
from expstar_utils.files import write_json

ARTICLES, SENTENCES = 13_000, 120
MOST_MIB = 500


def main() -> None:
    """Write the dump, build from it, report."""
    parser = options(__doc__, runs=1)
    parser.add_argument("--articles", type=int, default=ARTICLES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump = write_dump(Path(folder) / "wiki.xml", given.articles, SENTENCES)
        size_mb, started = dump.stat().st_size / 1e6, time.perf_counter()
        command = [sys.executable, "-m", "expstar_utils.shards", str(dump), "--out", str(Path(folder) / "out")]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if given.json else None,
                              text=True).stdout
        seconds = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    made = json.loads(said)
    result = {"name": "stream_dump", "dump_mb": round(size_mb, 1), "seconds": round(seconds, 1), "peak_mib": round(peak_mib),
              "small": peak_mib < MOST_MIB, "documents": made["documents"], "passages": made["passages"],
              "device": f"{os.cpu_count()} cores, {platform.machine()}"}
    write_json(RESULTS / "stream_dump.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

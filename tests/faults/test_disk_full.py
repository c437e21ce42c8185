"""A full disk is told in one sentence, old results stay as they are, nothing is left half written, and with room it goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from disks import leave, small_disk
from disturbed import ROOT, execute, long
from inspected_run import three_steps

from expstar_utils.content import result_files, result_hash

GIB = 2**30
SENTENCE = r"ExpStarError: {disk}/.*: cannot be (written|appended to) \(.*No space left on device.*\); free space or choose"
STAGES = ["01", "02", "03", "04a", "04b", "05-test", "06", "07"]


def contents(folder: Path) -> dict[str, bytes]:
    """What every file holds that is not hidden."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in result_files(folder, ["**/*"])}


def is_whole(path: Path, name: str, wanted: bytes | None) -> bool:
    """Whether a file is there as a whole, of appended ones the beginning; checkpoints and adapters say so themselves.

    Args:
        wanted: its content, None where that has times in it.
    """
    found = path.read_bytes()
    if "checkpoints/" in name or (path.parent.name == "adapter" and not (path.parent / "base.json").is_file()):
        return True
    if name.endswith(".pt"):
        return bool(torch.load(path, weights_only=True))
    if wanted is None or name.endswith("metrics.json"):
        return not name.endswith(".json") or json.loads(found) is not None
    return wanted.startswith(found) if name.endswith(".jsonl") else found == wanted


def check_full(disk: Path, error: str) -> None:
    """The error is one sentence about a file on the disk."""
    assert re.match(SENTENCE.format(disk=re.escape(str(disk))), error), error
    assert len(error.splitlines()) == 1


def test_notebook_02_on_a_full_disk(finished, tmp_path):
    job = finished.jobs()["02"]
    with small_disk(tmp_path / "disk", finished.run) as disk:
        before = contents(disk)
        size = sum((disk / name).stat().st_size for name in before if name.startswith("2_datasets"))
        (disk / "2_datasets" / "cases.jsonl").unlink()
        leave(disk, size // 20)
        check_full(disk, execute(job.notebook, tmp_path / "02.ipynb", job.parameters | {"run_dir": str(disk)}))
        assert {name: data for name, data in contents(disk).items() if before[name] != data} == {}


def test_notebook_06_on_a_full_disk(tmp_path):
    three_steps(tmp_path / "made")
    with small_disk(tmp_path / "disk", tmp_path / "made" / "run") as disk:
        before = contents(disk)
        leave(disk, 0)
        check_full(disk, execute("notebooks/06_evaluate.ipynb", tmp_path / "06.ipynb",
                                 {"run_dir": str(disk), "truth": "", "text_metrics": "bleu", "smoke": True}))
        found = contents(disk)
        assert before.items() <= found.items()
        assert all(json.loads(found[name]) for name in found.keys() - before.keys())


def test_a_job_whose_notebook_cannot_be_kept(finished, tmp_path):
    with small_disk(tmp_path / "disk", finished.run) as disk:
        job = finished.jobs()["02"]
        groups = {name: group.model_copy(update={"key": "another seed's"}) for name, group in job.groups.items()}
        changed = job.model_copy(update={"run": str(disk), "groups": groups,
                                         "parameters": job.parameters | {"run_dir": str(disk), "seed": 7}})
        wanted = {name: data for name, data in contents(disk).items() if name.startswith("2_datasets/")}
        leave(disk, 0)
        ended = subprocess.run([sys.executable, "-m", "expstar_utils.jobs", changed.model_dump_json()], cwd=ROOT, check=False,
                               capture_output=True, text=True)
        assert ended.returncode == 1
        check_full(disk, f"ExpStarError: {ended.stderr.strip().splitlines()[-1]}")
        assert "Traceback" not in ended.stderr
        kept = contents(disk).items()
        assert [old for old, then in wanted.items() if not any(name.endswith(old) and data == then for name, data in kept)] == []


@long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_on_a_full_disk(whole, tmp_path, stage, share):
    job = whole.jobs()[stage]
    with small_disk(tmp_path / "disk", whole.run) as disk:
        before = contents(disk)
        given = {key: value.replace(str(whole.run), str(disk)) if isinstance(value, str) else value
                 for key, value in job.parameters.items()}
        its = {path for group in job.groups.values() for path in result_files(disk, (*group.results, *group.works))}
        results = {str(path.relative_to(disk)): result_hash(path) for group in job.groups.values()
                   for path in result_files(disk, group.results)}
        size = sum(path.stat().st_size for path in its)
        for path in its:
            path.unlink()
        leave(disk, int(share * size))
        check_full(disk, execute(job.notebook, tmp_path / f"{stage}.ipynb", given))
        found = contents(disk)
        known = {name: data for name, data in before.items() if name in results or disk / name not in its}
        rows = {name for name in known if stage == "02" and name.startswith("2_datasets/expstar/")}  # 03 puts passages into them
        known = {name: data for name, data in known.items() if name not in rows}
        torn = [name for name in found if not is_whole(disk / name, name, known.get(name))]
        assert not torn, torn
        assert {disk / name for name in before.keys() - found.keys()} <= its
        leave(disk, 2 * GIB)
        assert execute(job.notebook, tmp_path / f"{stage}.ipynb", given) == ""
        assert {name: result_hash(disk / name) for name in results} == results
        assert all(found[name] in (before[name], (disk / name).read_bytes()) for name in rows)

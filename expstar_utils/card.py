"""Ship a run's weights: tower and adapter into `data/models/expstar-tiny/`, with a card made from the run's metrics.

    python -m expstar_utils.card runs/tiny [sft|dpo]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from expstar_utils.files import read_json, write_text
from expstar_utils.models import SHIPPED, TINY_TEXT, TRAINED, trained_tower, tuned_tower
from expstar_utils.records import ExpStarError

LIMIT_BYTES = 25_000_000
STAGES = ("2_datasets", "3_index", "4_sft", "6_metrics")


def ship(run: Path, target: Path = SHIPPED, stage: str = "sft") -> Path:
    """Copy the weights of a finished run and write their card; returns the folder.

    Args:
        stage: whose adapter goes, "sft" or "dpo".

    Raises:
        ExpStarError: the run is not finished, or its weights are over LIMIT_BYTES together.
    """
    records = {name: read_json(run / name / "metrics.json") for name in STAGES}
    adapter = run / TRAINED[stage] / "adapter"
    sources = [trained_tower(tuned_tower(run)), adapter / "adapter_model.safetensors"]
    size = sum(path.stat().st_size for path in sources)
    if size > LIMIT_BYTES:
        raise ExpStarError(f"{run}: found weights of {size / 1e6:.1f} MB, expected at most {LIMIT_BYTES / 1e6:.0f} MB; lower "
                           "lora_r in the profile")
    (target / "adapter").mkdir(parents=True, exist_ok=True)
    shutil.copy(sources[0], target / "tower.safetensors")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(adapter / name, target / "adapter" / name)
    write_text(target / "README.md", card(records, size))
    return target


SHOWN = ("steps", "well_formed", "substance", "colour_quantity", "seen", "principle", "hazard", "safety_missing",
         "safety_unneeded", "gate_auc", "verdict_f1", "gold_cited", "bleu")  # of a report


def card(records: dict[str, dict], size_bytes: int) -> str:
    """Text of the model card.

    Args:
        records: stage -> its `metrics.json`.
    """
    sft, index, further = records["4_sft"], records["3_index"], records["4_sft"]["parameters"].get("start")
    results = {run: its for run, its in records["6_metrics"]["metrics"]["reports"].items() if not run.endswith(("-sft", "-dpo"))}
    names = [name for name in SHOWN if all(name in its for its in results.values())]
    command = "`make reproduce PLAN=whole`, then `make ship RUN=runs/whole`"
    if further:
        command = "`04a_train_sft` with `start`, from weights shipped earlier (`LOG.md` tells the runs), then `make ship`"
    rows = [f"| {run} | " + " | ".join(_number(v[name]) for name in names) + " |" for run, v in sorted(results.items())]
    return "\n".join([
        "# ExpStar-Tiny", "",
        f"SmolVLM put together from {TINY_TEXT} (Apache-2.0) and our own vision tower; tower, connector and LoRA adapter are",
        f"here, {size_bytes / 1e6:.1f} MB. Trained on ExpInstruct-Mini alone, by the notebooks of this repository (MIT).", "",
        "| | |", "|---|---|",
        f"| command | {command} |",
        f"| seed | {sft['parameters']['seed']} |",
        f"| code | {sft['git_sha']} |",
        f"| training rows | {sft['metrics']['rows']}, sha256 {sft['metrics']['data_sha256'][:16]} |",
        f"| knowledge base | {index['metrics']['passages']} passages, sha256 {index['metrics']['content_sha256'][:16]} |",
        f"| minutes | tower and index {index['total_s'] / 60:.0f}, SFT {sft['total_s'] / 60:.0f}"
        f"{' since those' if further else ''} (2 CPU cores) |",
        *_told(sft["metrics"]),
        f"| torch, transformers, trl, peft | {', '.join(sft['packages'][p] for p in ('torch', 'transformers', 'trl', 'peft'))} |",
        "", "Measured by notebook 06; a run's name says split, history, use of the knowledge base, and what was taken away.",
        "", "| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|", *rows, "",
        "It has seen drawn clips of 21 experiment families and nothing else: on real videos its words are guesses.", ""])


def _told(metrics: dict[str, float]) -> list[str]:
    """The line on notes from passages that were never read, where 04a measured that."""
    shares = [f"{name} {metrics[f'told_{name}']:.3f}" for name in ("principle", "safety") if f"told_{name}" in metrics]
    line = f"| notes on told variants kept back, narration and passage given, right to the word | {', '.join(shares)} |"
    return [line] if shares else []


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and value > 1 else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Ship a run; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="runs/tiny", type=Path, help="a finished run's folder")
    parser.add_argument("stage", nargs="?", default="sft", choices=("sft", "dpo"), help="whose adapter goes")
    given = parser.parse_args(argv)
    try:
        print(ship(given.run, stage=given.stage))
    except ExpStarError as error:
        print(f"expstar: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

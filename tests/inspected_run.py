"""A tiny run to inspect: three steps of one experiment, their films of noise, two files of predictions."""

from __future__ import annotations

from pathlib import Path

from expstar_utils.datasets import Case
from expstar_utils.files import write_jsonl
from expstar_utils.miniatures import noise_clip
from expstar_utils.prompts import Commentary, build
from expstar_utils.records import Prediction

SCRIPT = "<script>window.taken = 1</script><img src=x onerror='window.taken = 2'>"
PASSAGES = {"salt": ("Copper salts", 0.99), "lens": ("A lens", 0.02)}


def case(number: int, **given) -> Case:
    """Step `number`: the first two lie in one film, the third is a file of its own."""
    clip = {"video": "film.mp4", "start": 2.0 * number - 2, "end": 2.0 * number} if number < 3 else "本生灯 3.mp4"
    return Case.model_validate({
        "id": f"chemistry_{number}", "experiment": "chemistry/01-Flames", "subject": "chemistry", "title": "Flame tests",
        "step_number": number, "clip": clip, "summary": f"Step {number}",
        "narration": ["Heat the salt.", f"Watch flame {number}."],
        "principle": ["2H2 + O2 → 2H2O releases heat."], "safety": ["Wear goggles."]} | given)


def prediction(of: Case, prob: float = 0.98, tau: float = 0.5, **said: list[str]) -> Prediction:
    """What a run wrote of a case: the reference, but for the sections given; it saw two frames and used one of two passages."""
    written = {kind: tuple(getattr(of, kind)) for kind in ("narration", "principle", "safety")}
    response = build(Commentary(**(written | {kind: tuple(lines) for kind, lines in said.items()})))
    start_s = 0.0 if isinstance(of.clip, str) else of.clip.start
    texts = {name: f"<paragraph>{title} are told of here.</paragraph>" for name, (title, _) in PASSAGES.items()}
    data = {"is_retrieval": True, "retrieval_prob": prob, "passage_ids": list(texts), "rag_passages": list(texts.values()),
            "passage_titles": [title for title, _ in PASSAGES.values()], "relevance": [p for _, p in PASSAGES.values()],
            "relevant_ids": ["salt"], "relevant_passages": [texts["salt"]], "frame_times_s": [start_s + 0.5, start_s + 1.5],
            "settings": {"tau": tau, "verdict_threshold": 0.7, "knowledge": "adaptive", "blank": False}}
    return Prediction(id=of.id, response=response, full_dialogue=response, labels=of.reference(), evaluation_data=data)


def write_run(folder: Path, cases: list[Case | dict], runs: dict[str, list[Prediction | dict]]) -> Path:
    """A run folder with these cases and these files of predictions."""
    if cases:
        write_jsonl(folder / "2_datasets" / "cases.jsonl", cases)
    for name, predictions in runs.items():
        write_jsonl(folder / "5_predictions" / f"{name}.jsonl", predictions)
    return folder


def three_steps(folder: Path) -> Path:
    """Run folder `run` beside its data root `films`: run `good` says what the reference says, `bad` is wrong in each step."""
    noise_clip(folder / "films" / "film.mp4", 4, seed=1)
    noise_clip(folder / "films" / "本生灯 3.mp4", 2, seed=2)
    cases = [case(1), case(2), case(3, title="本生灯的火焰")]
    bad = [prediction(cases[0], safety=[]), prediction(cases[1], prob=0.52, narration=[f"Say {SCRIPT} to it."]),
           prediction(cases[2], principle=["H2 + O2 → H2O releases heat."])]
    return write_run(folder / "run", cases, {"good": [prediction(c) for c in cases], "bad": bad})

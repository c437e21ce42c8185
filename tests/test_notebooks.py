"""Every notebook runs at smoke size, in order, on freshly rendered data, and leaves its metrics behind."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
import yaml
from endpoint import completion, refusal
from safetensors.torch import load_file
from warm_kernels import NAME as KERNEL
from warm_kernels import warm_kernels

from expstar_utils.candidates import Candidate, Scored
from expstar_utils.datasets import Case
from expstar_utils.files import read_json, read_jsonl, write_json, write_jsonl
from expstar_utils.mini.build import build
from expstar_utils.miniatures import noise_clip
from expstar_utils.models import SHIPPED
from expstar_utils.profiles import load_profile
from expstar_utils.prompts import parse
from expstar_utils.records import Prediction, RetrievalResult, Sample

ROOT = Path(__file__).parents[1]
SUBJECTS = ["biology", "chemistry"]
CHAIN = {
    "01_video_commentary_pairs": {},
    "02_dataset_construction": {},
    "03_retrieval": {"tower": "train", "tower_steps": 2},
    "04a_train_sft": {},
    "04b_train_dpo": {"adapter": str(SHIPPED / "adapter")},  # what two steps of SFT leave writes nothing to choose from
    "05_infer": {"split": "test"},
    "06_evaluate": {},
    "07_paper_figures": {"kept": ""},
    "08_case_inspector": {},
}


def execute(name: str, out: Path, **given) -> nbformat.NotebookNode:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    known = {line.split(" = ")[0] for line in cell.source.splitlines()}
    return papermill.execute_notebook(str(ROOT / "notebooks" / f"{name}.ipynb"), str(out / f"{name}.ipynb"),
                                      {k: v for k, v in given.items() if k in known}, cwd=str(ROOT), progress_bar=False,
                                      kernel_name=KERNEL)


@pytest.fixture(scope="session", autouse=True)
def _kernels(tmp_path_factory):
    with warm_kernels(tmp_path_factory.mktemp("kernels")):
        yield


@pytest.fixture(scope="session")
def chain(tmp_path_factory, _kernels) -> Path:
    """Run folder of the whole chain at smoke size."""
    folder = tmp_path_factory.mktemp("chain")
    build(folder / "mini", workers=2, subjects=SUBJECTS, small=True)
    profile = folder / "choosing.yaml"  # tiny, and the stages and captions that it leaves out; plan `smoke` has its own
    choosing = load_profile("tiny", choice_rounds=1, unclear_share=1.0, second_look_nats=5.0, caption_tower=True,
                            caption_epochs=2, caption_lr=1e-3, caption_prompted=0.5, caption_crossed=0.0, caption_times=True,
                            dpo={"positive": 0.25, "margin": 0.0, "temperature": 1.5})
    profile.write_text(yaml.safe_dump(choosing.model_dump(mode="json")), encoding="utf8")
    paths = {"profile": str(profile), "run_dir": str(folder / "run"), "data_root": str(folder / "mini"),
             "raw_root": str(folder / "mini"), "pairs_dir": str(folder / "mini" / "pairs"),
             "truth": str(folder / "mini" / "truth.jsonl"), "smoke": True}
    for name, extra in CHAIN.items():
        execute(name, folder, **paths, **extra)
    return folder / "run"


def test_every_stage_says_what_made_it(chain):
    files = ["1_pairs/metrics.json", "2_datasets/metrics.json", "3_index/metrics.json", "4_sft/metrics.json",
             "4_dpo/metrics.json", "6_metrics/metrics.json", "5_predictions/test-free-adaptive.metrics.json"]
    for name in files:
        record = read_json(chain / name)
        assert record["parameters"]["smoke"] is True
        assert record["git_sha"]
        assert record["packages"]["torch"]
        assert record["wall_s"] > 0
        assert record["peak_memory_mib"] > 50


def test_pairs_of_the_raw_files_are_those_that_mini_wrote(chain):
    mini, ours = chain.parent / "mini", chain / "1_pairs"
    assert read_json(ours / "problems.json") == []
    written = {path.relative_to(ours) for path in ours.rglob("*_step_*.json")}
    assert written == {path.relative_to(mini / "pairs") for path in (mini / "pairs").rglob("*_step_*.json")}
    for path in written:
        assert (ours / path).read_bytes() == (mini / "pairs" / path).read_bytes()


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two raw experiments: films of noise in MPEG-4, the second with a step that ends beyond its film."""
    for name, end in (("01-Flame", "0:00:02"), ("02-Beam", "0:00:09")):
        noise_clip(tmp_path / "raw" / "source_video" / "chemistry" / f"{name}.mp4", 3)
        step = {"step": 1, "step_zh": "", "step_en": "Look", "ASR_id": [1], "startTime": "0:00:00", "endTime": end}
        line = {"id": 1, "startTime": "0:00:00", "endTime": "0:00:01", "text": "See.", "text_en": "See."}
        for kind, content in (("step", {"title_en": "T", "title_zh": "T", "steps": [step]}), ("asr", {"subtitles": [line]})):
            write_json(tmp_path / "raw" / "dataset" / "chemistry" / kind / f"{name}.json", content)
    return tmp_path / "raw"


def test_exit_status_of_01_tells_of_errors_and_not_of_notes(raw, tmp_path):
    given = {"raw_root": str(raw), "run_dir": str(tmp_path / "run"), "clips_dir": str(tmp_path / "clips")}
    with pytest.raises(papermill.PapermillExecutionError, match="1 problems are listed in .*problems.json; all else is written"):
        execute("01_video_commentary_pairs", tmp_path, **given)
    assert nbformat.read(tmp_path / "01_video_commentary_pairs.ipynb", as_version=4).cells
    listed = read_json(tmp_path / "run/1_pairs/problems.json")
    assert {(row["severity"], Path(row["file"]).stem) for row in listed} == {("error", "02-Beam"), ("note", "01-Flame")}
    assert [p.parent.name for p in (tmp_path / "run/1_pairs").rglob("*_step_*.json")] == ["01-Flame"]
    execute("01_video_commentary_pairs", tmp_path, **given, fail_on_problems=False)
    (raw / "source_video/chemistry/02-Beam.mp4").unlink()
    for kind in ("step", "asr"):
        (raw / f"dataset/chemistry/{kind}/02-Beam.json").unlink()
    execute("01_video_commentary_pairs", tmp_path, **given)
    record = read_json(tmp_path / "run/1_pairs/metrics.json")["metrics"]
    assert (record["problems"], record["notes"]) == (0, 1)


def test_shards_of_01_and_one_job_more_leave_what_one_job_leaves(raw, tmp_path):
    write_json(raw / "dataset/chemistry/step/03-Lost.json", {})  # belongs to no video, and so to no shard
    given = {"raw_root": str(raw), "fail_on_problems": False}
    run, whole = tmp_path / "run", tmp_path / "whole"
    for shard in range(2):
        execute("01_video_commentary_pairs", tmp_path, **given, run_dir=str(run), shard=shard, shards=2)
        its = [row["file"] for row in read_json(run / f"1_pairs/shard-{shard}-of-2.problems.json")]
        assert {Path(name).stem for name in its} == ({"02-Beam"} if shard else set())
        record = read_json(run / f"1_pairs/shard-{shard}-of-2.metrics.json")
        assert (record["parameters"]["shard"], record["metrics"]["videos"]) == (shard, 1 - shard)
    assert not (run / "1_pairs/problems.json").exists()
    for folder in (run, whole):
        execute("01_video_commentary_pairs", tmp_path, **given, run_dir=str(folder))
    def left(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.json")
                if not p.name.startswith("shard-") and p.name != "metrics.json"}
    assert left(run) == left(whole)
    assert len(left(whole)) == 2
    metrics = [read_json(folder / "1_pairs/metrics.json")["metrics"] for folder in (run, whole)]
    assert metrics[0] == metrics[1]
    with pytest.raises(papermill.PapermillExecutionError, match="shard is 2 of 2, expected 0 to 1; correct it"):
        execute("01_video_commentary_pairs", tmp_path, **given, run_dir=str(run), shard=2, shards=2)


def test_steps_without_any_note_are_a_data_set_too(raw, tmp_path):
    run = tmp_path / "run"
    execute("01_video_commentary_pairs", tmp_path, raw_root=str(raw), run_dir=str(run), fail_on_problems=False)
    execute("02_dataset_construction", tmp_path, run_dir=str(run), pairs_dir=str(run / "1_pairs"), truth="", data_root=str(raw))
    assert [c.experiment for c in read_jsonl(run / "2_datasets/cases.jsonl", Case)] == ["chemistry/01-Flame"]


def test_the_connector_comes_first_then_captions_and_choices_last(chain):
    stages = ("connector", "captions", "rows", "")
    weights = [(chain / "4_sft" / stage / "adapter/adapter_model.safetensors").read_bytes() for stage in stages]
    assert len(set(weights)) == 4
    told = read_json(chain / "4_sft/connector/val.json")
    assert told["clips"] > 0
    assert 0 <= told["pointed"] <= 1


def test_preferences_are_sampled_rewarded_and_trained_on(chain):
    folder = chain / "4_dpo"
    made = list(read_jsonl(folder / "candidates.jsonl", Candidate))
    scored = list(read_jsonl(folder / "rewards.jsonl", Scored))
    assert [(c.id, c.number) for c in made] == [(s.id, s.number) for s in scored]
    record = read_json(folder / "metrics.json")["metrics"]
    pairs = list(read_jsonl(folder / "preference.jsonl", Sample))
    assert record["pairs"] == len(pairs) > 0
    assert record["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    value = {(s.id, c.response): s.value for s, c in zip(scored, made)}
    assert all(value[p.id, p.rejected_response] < 0.25 for p in pairs)
    sft, dpo = (load_file(chain / name / "adapter/adapter_model.safetensors") for name in ("4_sft", "4_dpo"))
    assert sft.keys() == dpo.keys()
    assert read_json(folder / "adapter/adapter_config.json")["r"] == 20


def test_the_tower_is_trained_with_the_captions_and_fitted_anew(chain):
    names = ("3_index", "4_sft/captions", "4_sft")
    before, seen, fitted = (load_file(chain / name / "tower.safetensors") for name in names)
    def changed(one, other, part):
        return any(not torch.equal(one[name], other[name]) for name in one if name.startswith(part))
    assert changed(before, seen, "vision_model.")
    assert not changed(before, seen, "projection.")
    assert changed(seen, fitted, "projection.")
    assert not changed(seen, fitted, "vision_model.")
    adapter = load_file(chain / "4_sft" / "adapter" / "adapter_model.safetensors")
    assert not any("vision_model" in name for name in adapter)


def test_04a_goes_on_from_an_adapter_and_skips_what_it_is_told_to(chain, tmp_path):
    run, start = tmp_path / "run", chain / "4_sft" / "captions" / "adapter"
    for earlier in ("2_datasets", "3_index", "3_retrieval"):
        shutil.copytree(chain / earlier, run / earlier)
    profile = tmp_path / "further.yaml"
    def weights(folder: Path, keep_start: float = 0.0, **stages) -> dict[str, torch.Tensor]:
        further = load_profile("tiny", caption_epochs=0, **stages)
        profile.write_text(yaml.safe_dump(further.model_dump(mode="json")), encoding="utf8")
        execute("04a_train_sft", tmp_path, profile=str(profile), run_dir=str(run), data_root=str(chain.parent / "mini"),
                start=str(start), skip_rows=True, smoke=True, keep_start=keep_start)
        return load_file(folder / "adapter" / "adapter_model.safetensors")
    before = load_file(start / "adapter_model.safetensors")
    kept = weights(run / "4_sft", choice_rounds=0)
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    further = weights(run / "4_sft", choice_rounds=1)
    assert further.keys() == before.keys()
    assert any(not torch.equal(further[name], tensor) for name, tensor in before.items())
    assert {path.name for path in (run / "4_sft").iterdir() if path.is_dir()} == {"adapter", "checkpoints"}
    between = weights(run / "4_sft", choice_rounds=1, keep_start=0.25)
    for name, tensor in before.items():
        mean = 0.25 * tensor.float() + 0.75 * further[name].float()
        torch.testing.assert_close(between[name].float(), mean, rtol=2**-8, atol=0)


def test_04a_keeps_a_share_of_the_captions_adapter_and_asks_for_shares_of_what_a_run_has(chain, tmp_path):
    run = Path(shutil.copytree(chain, tmp_path / "run"))
    given = {"profile": str(chain.parent / "choosing.yaml"), "run_dir": str(run), "data_root": str(chain.parent / "mini"),
             "smoke": True}
    execute("04a_train_sft", tmp_path, **given, keep_captions=0.5)
    first, last, mean = (load_file(folder / "adapter" / "adapter_model.safetensors")
                         for folder in (chain / "4_sft/captions", chain / "4_sft", run / "4_sft"))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor.float(), (first[name].float() + last[name].float()) / 2, rtol=2**-8, atol=1e-30)
    with pytest.raises(papermill.PapermillExecutionError, match="found keep_start 0.5 and keep_captions 0.0 with start ''"):
        execute("04a_train_sft", tmp_path, **given, keep_start=0.5)


def test_training_rows_hold_their_passages(chain):
    rows = list(read_jsonl(chain / "2_datasets/expstar/train.jsonl", Sample))
    asking = [r for r in rows if len(r.messages) == 5]
    assert asking
    assert all("(no passage yet)" not in r.messages[3].content for r in asking)
    verdicts = {r.messages[4].content.splitlines()[0] for r in asking}
    assert verdicts == {"[Relevant]", "[Irrelevant]"}


def test_02_fills_rows_from_frozen_results_and_refuses_changed_ones(chain, tmp_path):
    mini, frozen = chain.parent / "mini", tmp_path / "frozen"
    shutil.copytree(chain / "3_retrieval", frozen, ignore=shutil.ignore_patterns("metrics.json"))
    given = {"run_dir": str(tmp_path / "run"), "pairs_dir": str(mini / "pairs"), "truth": str(mini / "truth.jsonl"),
             "smoke": True, "retrieval_results": str(frozen)}
    execute("02_dataset_construction", tmp_path, **given)
    rows = list(read_jsonl(tmp_path / "run/2_datasets/expstar/test.jsonl", Sample))
    texts = {d.text for r in read_jsonl(frozen / "test.jsonl", RetrievalResult) for d in r.documents}
    shown = [row.messages[3].content for row in rows if len(row.messages) == 5]
    assert shown
    assert all(any(text in content for text in texts) for content in shown)
    results = frozen / "test.jsonl"
    results.write_text(results.read_text(encoding="utf8").replace('"relevant": 5', '"relevant": 1'), encoding="utf8")
    with pytest.raises(papermill.PapermillExecutionError, match=r"test\.jsonl: was changed since it was frozen"):
        execute("02_dataset_construction", tmp_path, **given)


def grade_all(messages):
    asked = json.loads(messages[1]["content"])
    return completion(json.dumps({"grades": [{"id": p["id"], "grade": 1 + n % 5} for n, p in enumerate(asked["passages"])]}))


@pytest.mark.parametrize("grader", ["cosine", "chat"])
def test_03_grades_by_itself_where_nothing_is_known(chain, tmp_path, endpoint, monkeypatch, grader):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    run = tmp_path / "run"
    shutil.copytree(chain / "2_datasets", run / "2_datasets")
    url, asked = endpoint(grade_all)
    execute("03_retrieval", tmp_path, run_dir=str(run), data_root=str(chain.parent / "mini"), truth="", grader=grader,
            endpoint=url, chat_model="m", smoke=True)
    found = list(read_jsonl(run / "3_retrieval/train.jsonl", RetrievalResult))
    grades = {d.relevant for r in found for d in r.documents}
    assert grades == {1, 2, 3, 4, 5} if grader == "chat" else 1 < len(grades) <= 5
    assert bool(asked) == (grader == "chat")
    assert read_json(run / "3_retrieval/train.hash.json")["grader"] == grader
    assert read_json(run / "3_index/metrics.json")["metrics"]["recall"] == []


def test_05_writes_from_frozen_results_and_refuses_those_of_other_queries(chain, tmp_path):
    run = tmp_path / "run"
    for earlier in ("2_datasets", "3_index", "4_sft"):
        shutil.copytree(chain / earlier, run / earlier)
    frozen = tmp_path / "frozen.jsonl"
    results = [r.model_copy(update={"documents": r.documents[-3:]})
               for r in read_jsonl(chain / "3_retrieval/test.jsonl", RetrievalResult)]
    write_jsonl(frozen, results)
    given = {"run_dir": str(run), "data_root": str(chain.parent / "mini"), "split": "test", "knowledge": "always", "smoke": True}
    execute("05_infer", tmp_path, **given, retrieval_results=str(frozen))
    wanted = {r.id: [d.id for d in r.documents] for r in results}
    for p in read_jsonl(run / "5_predictions/test-free-always.jsonl", Prediction):
        assert p.evaluation_data["passage_ids"] == wanted.get(p.id, [])
    write_jsonl(frozen, [r.model_copy(update={"query": "Another title."}) for r in results])
    with pytest.raises(papermill.PapermillExecutionError, match="was found for 'Another title"):
        execute("05_infer", tmp_path, **given, retrieval_results=str(frozen))


def test_05_takes_over_what_its_shards_wrote(chain, tmp_path):
    """The first shard has all eight experiments that go side by side, the second has none; then no model is needed."""
    run, name = tmp_path / "run", "5_predictions/test-free-adaptive"
    for earlier in ("2_datasets", "3_index", "4_sft", "4_dpo"):
        shutil.copytree(chain / earlier, run / earlier, ignore=shutil.ignore_patterns("checkpoints"))
    given = {"profile": str(chain.parent / "choosing.yaml"), "run_dir": str(run), "data_root": str(chain.parent / "mini"),
             "split": "test", "smoke": True}
    for shard in range(2):
        execute("05_infer", tmp_path, **given, shard=shard, shards=2)
    wanted = (chain / f"{name}.jsonl").read_bytes()
    assert (run / f"{name}.shard-0-of-2.jsonl").read_bytes() == wanted
    assert (run / f"{name}.shard-1-of-2.jsonl").read_bytes() == b""
    for tuned in (run / "4_sft", run / "4_dpo"):
        (tuned / "adapter" / "adapter_config.json").unlink(missing_ok=True)
    execute("05_infer", tmp_path, **given)
    assert (run / f"{name}.jsonl").read_bytes() == wanted
    assert read_json(run / f"{name}.problems.json") == []
    mine, its = (read_json(folder / f"{name}.metrics.json")["metrics"] for folder in (run, chain))
    assert mine == its


def test_passages_of_unseen_variants_are_kept_out_of_training(chain):
    """A passage that only unseen variants need is never shown in training, not even as a wrong one."""
    rows = list(read_jsonl(chain / "2_datasets/expstar/train.jsonl", Sample))
    shown = "\n".join(r.messages[3].content for r in rows if len(r.messages) == 5)
    def gold(split: str) -> dict[str, str]:
        found = read_jsonl(chain / f"3_retrieval/{split}.jsonl", RetrievalResult)
        return {d.id: d.text for r in found for d in r.documents if d.relevant == 5}
    held_out = {pid: text for pid, text in gold("test_unseen").items() if pid not in gold("train")}
    assert held_out
    assert all(text not in shown for text in held_out.values())


def test_predictions_cover_the_split_and_parse(chain):
    cases = [c for c in read_jsonl(chain / "2_datasets/cases.jsonl", Case) if c.split == "test"]
    predictions = list(read_jsonl(chain / "5_predictions/test-free-adaptive.jsonl", Prediction))
    assert {p.id for p in predictions} == {c.id for c in cases}
    for p in predictions:
        parse(p.full_dialogue)
        assert 0 <= p.evaluation_data["retrieval_prob"] <= 1
        assert len(p.evaluation_data["passage_ids"]) == len(p.evaluation_data["relevance"])


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="data/models/expstar-tiny is not there yet")
def test_quickstart_writes_commentary(tmp_path):
    execute("00_quickstart", tmp_path, run_dir=str(tmp_path / "demo"), smoke=True)
    document = read_json(tmp_path / "demo" / "commentary.json")
    assert len(document["steps"]) >= 3
    for kind in ("md", "srt", "vtt", "html"):
        assert (tmp_path / "demo" / f"commentary.{kind}").stat().st_size > 100


DEMO = ROOT.parent / "shared" / "expstar_demo"


@pytest.mark.skipif(not DEMO.is_dir(), reason="../shared/expstar_demo is absent: the published demo files")
@pytest.mark.parametrize("name", ["7eval", "6Expstar_result"])
def test_published_files_are_evaluated_as_they_are(tmp_path, name):
    execute("06_evaluate", tmp_path, run_dir=str(tmp_path), predictions=str(DEMO / name), text_metrics="bleu meteor rouge cider")
    metrics = read_json(tmp_path / "6_metrics/metrics.json")["metrics"]
    [report] = metrics["text"].values()
    assert report["lines"][0]["rows"] >= 1
    assert {"BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"} <= set(report["signatures"])
    assert metrics["ablations"] == []
    assert len(list((tmp_path / "6_metrics").glob("*.tex"))) == 3  # of the file, of ablations, the leaderboard


def answers(messages):
    """A server's model: it narrates and asks, and every passage is relevant."""
    last = messages[-1]["content"]
    text = last if isinstance(last, str) else last[-1]["text"]
    if "<paragraph>" in text:
        return completion("[Relevant]\n<Principle>\nIt is known.\n")
    return completion("<Narration>\nIt is seen.\n[Retrieval]")


def test_inference_through_a_server_and_a_server_that_is_down(chain, endpoint, tmp_path):
    given = {"profile": str(chain.parent / "choosing.yaml"), "run_dir": str(tmp_path / "run"), "split": "test", "limit": 1,
             "data_root": str(chain.parent / "mini"), "endpoint_model": "m"}
    shutil.copytree(chain, tmp_path / "run", ignore=shutil.ignore_patterns("4_*", "5_*", "6_*"))
    url, asked = endpoint(answers)
    execute("05_infer", tmp_path, endpoint=url, **given)
    found = list(read_jsonl(tmp_path / "run/5_predictions/test-free-adaptive.jsonl", Prediction))
    assert {p.response for p in found} == {"<Narration>\nIt is seen.\n<Principle>\nIt is known.\n"}
    assert all(len(p.evaluation_data["relevant_ids"]) == 1 for p in found)
    assert "media_io_kwargs" in asked[0]
    execute("05_infer", tmp_path, endpoint=url, **given, row="gpt-4o")
    single = list(read_jsonl(tmp_path / "run/5_predictions/test-free-adaptive-gpt-4o.jsonl", Prediction))
    assert {p.response for p in single} == {"<Narration>\nIt is seen.\n[Retrieval]"}
    shutil.rmtree(tmp_path / "run/5_predictions")
    with pytest.raises(papermill.PapermillExecutionError, match="found Error code: 400"):
        execute("05_infer", tmp_path, endpoint=endpoint(refusal(400))[0], **given)


def test_06_says_that_there_are_no_predictions(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=r"5_predictions: found no predictions, expected \*\.jsonl"):
        execute("06_evaluate", tmp_path, run_dir=str(tmp_path / "run"))

"""No path of a data set leads out of its root, neither for reading nor for writing, and each refusal is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile_data import SECRET, answer, data_root, escapes, one_sentence
from small_runs import small_profile

from expstar_utils import corpus, knowledge, launching, media, pairs
from expstar_utils.batches import VideoCollator
from expstar_utils.clips import clip_frames
from expstar_utils.datasets import Case, read_cases
from expstar_utils.files import inside, read_jsonl, read_record, write_json, write_jsonl
from expstar_utils.inspector.footage import span_of
from expstar_utils.pairs import find_experiments
from expstar_utils.profiles import load_profile
from expstar_utils.ratings import rater_file
from expstar_utils.records import Pair, RetrievalResult, Sample, VirtualClip
from expstar_utils.sources import documents

HOW = {"fps": 1.0, "max_frames": 2}
COUNT = len(escapes(Path()))
PAIR = {
    "title_en": "x",
    "original_video": "sub/good.mp4",
    "clip_start": 0,
    "clip_end": 1,
    "step_number": 1,
    "clip_video_path": "sub/good.mp4",
    "subject": "chemistry",
    "annotations": [],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_root(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=range(COUNT), ids=lambda i: repr(escapes(Path("T"))[i][:30]))
def out(request, root):
    """A path that leads out."""
    return escapes(root.parent)[request.param]


@pytest.fixture(autouse=True)
def opened(monkeypatch, root):
    """Films that were opened; at the end none of them may be a secret one."""
    seen, stock = [], media.av.open
    monkeypatch.setattr(media.av, "open", lambda path, *given, **more: seen.append(path) or stock(path, *given, **more))
    yield seen
    assert not [path for path in seen if Path(path).resolve().name == SECRET], seen


def clips(out: str) -> list[str | VirtualClip]:
    return [out, VirtualClip(video=out, start=0, end=1)]


def case(clip: str | dict, **more) -> dict:
    return {
        "id": "c_1",
        "experiment": "c/x",
        "subject": "c",
        "title": "x",
        "step_number": 1,
        "clip": clip,
        "summary": "",
        "narration": ["x"],
    } | more


# Reading


def test_what_lies_inside_is_read(root):
    """Else the refusals below would prove nothing."""
    for clip in clips("sub/../sub/good.mp4"):
        assert len(clip_frames(clip, root, **HOW).pixels) in (1, 2)
        assert span_of(clip, root).path.name == "good.mp4"


def test_a_clip_is_refused_by_frames_and_by_the_inspector(root, out):
    for clip in clips(out):
        one_sentence(lambda clip=clip: clip_frames(clip, root, **HOW))
        one_sentence(lambda clip=clip: span_of(clip, root))


def as_written(out: str) -> str:
    """A path as JSON can hold it."""
    return out.encode("utf8", "replace").decode()


@pytest.mark.parametrize("fields", [("clip_video_path",), ("original_video", "clip_video_path")], ids=["clip", "video"])
def test_a_pair_is_refused(root, out, fields, tmp_path):
    """A clip of its own, and a stretch of the whole video, for which both name the same."""
    write_json(tmp_path / "c" / "01-x" / "01-x_step_1.json", PAIR | dict.fromkeys(fields, as_written(out)))
    [made] = read_cases(tmp_path)
    one_sentence(lambda: clip_frames(made.clip, root, **HOW))


def test_rows_results_and_cases_are_refused(root, out, tmp_path):
    out = as_written(out)
    clip = {"video": out, "start": 0, "end": 1}
    message = [{"role": "user", "content": "<video>x"}, {"role": "assistant", "content": "y"}]
    sample, other = (
        write_jsonl(tmp_path / f"{i}.jsonl", [{"id": "1", "messages": message, "videos": [video]}])
        for i, video in enumerate((out, clip))
    )
    for path in (sample, other):
        rows = list(read_jsonl(path, Sample))
        collator = VideoCollator(None, rows, root, small_profile(Path("x")), "")
        one_sentence(lambda collator=collator, rows=rows: collator.frames(rows[0]))
    found = RetrievalResult(id="1", query="q", video_path=VirtualClip(**clip), is_rag=True, documents=[])
    one_sentence(lambda: clip_frames(found.video_path, root, **HOW))
    [read] = read_jsonl(write_jsonl(tmp_path / "cases.jsonl", [case(clip)]), Case)
    one_sentence(lambda: clip_frames(read.clip, root, **HOW))


def test_copies_are_looked_for_inside_alone(root, out):
    """Twins of videos are told by their bytes; what lies outside is refused, or is not there at all."""
    both = [Case(**case(out, id="a", experiment="c/x")), Case(**case("sub/good.mp4", id="b", experiment="c/y", split="test"))]
    assert not [p for p in answer(lambda: corpus.leaks(both, root)) or [] if p.field.startswith("content")]


def test_links_out_of_a_raw_folder_are_problems(root, tmp_path):
    """Film, step file and a whole folder of films; the experiment beside them is found."""
    raw, outside = tmp_path / "raw", root.parent / "outside"
    steps = {"title_zh": "x", "steps": [{"step": 1, "startTime": 0, "endTime": 1, "ASR_id": [1]}]}
    lines = {"subtitles": [{"id": 1, "startTime": 0, "endTime": 1, "text_en": "x"}]}
    for name in ("01-good", "02-film", "03-steps"):
        write_json(raw / "dataset" / "c" / "step" / f"{name}.json", steps)
        write_json(raw / "dataset" / "c" / "asr" / f"{name}.json", lines)
        (raw / "source_video" / "c").mkdir(parents=True, exist_ok=True)
        (raw / "source_video" / "c" / f"{name}.mp4").write_bytes((root / "sub" / "good.mp4").read_bytes())
    (raw / "source_video" / "c" / "02-film.mp4").unlink()
    (raw / "source_video" / "c" / "02-film.mp4").symlink_to(outside / SECRET)
    write_json(outside / "steps.json", steps)
    (raw / "dataset" / "c" / "step" / "03-steps.json").unlink()
    (raw / "dataset" / "c" / "step" / "03-steps.json").symlink_to(outside / "steps.json")
    (raw / "source_video" / "linked").symlink_to(outside)
    (outside / "04-film.mp4").write_bytes((outside / SECRET).read_bytes())
    found, problems = find_experiments(raw)
    assert [e.name for e in found if e.steps and e.asr] == ["c/01-good"]
    assert {e.unit for e in found} == {"c"}
    assert not any(path and path.resolve().is_relative_to(outside) for e in found for path in (e.video, e.steps, e.asr))
    linked = [p for p in problems if "link out" in p.found]
    assert {Path(p.file).name for p in linked} == {"02-film.mp4", "03-steps.json", "04-film.mp4", SECRET}
    assert not [p for p in pairs.build_pairs(found[:1], raw, tmp_path / "pairs") if p.severity == "error"]


def test_links_out_of_pairs_knowledge_and_notes_are_refused(tmp_path):
    outside, inner = tmp_path / "outside", tmp_path / "data"
    (inner / "c" / "x").mkdir(parents=True)
    pair = write_json(outside / "pair.json", PAIR)
    (inner / "c" / "x" / "x_step_1.json").symlink_to(pair)
    one_sentence(lambda: list(read_cases(inner)), "outside")
    passages = write_jsonl(outside / "kb.jsonl", [{"id": "1", "text": "secret"}])
    (inner / "kb.jsonl").symlink_to(passages)
    one_sentence(lambda: knowledge.load_knowledge(inner), "outside")
    (inner / "n.md").symlink_to(write_json(outside / "n.md", "secret"))
    problems = []
    assert not list(documents(inner, problems.append))
    assert "outside" in problems[0].found


# Writing


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", r"a\b", "..", ".", "a\0b", "a\nb", "x" * 101])
def test_what_files_are_named_by_is_a_plain_name(name, tmp_path):
    """Notebook 02 names a sheet by each subject and a data set by each side; the side comes from the truth file, unchecked."""
    path = write_json(tmp_path / "pair.json", PAIR | {"subject": name})
    one_sentence(lambda: read_record(path, Pair), "pair.json", "subject is")
    placed = Case(**case("x.mp4"))
    placed.split = name
    rows = write_jsonl(tmp_path / "cases.jsonl", [placed])
    one_sentence(lambda: list(read_jsonl(rows, Case)), "cases.jsonl", "split is")


def test_a_rater_s_name_stays_in_its_folder(out, tmp_path):
    file = answer(lambda: rater_file(tmp_path, out))
    assert file is None or file.parent == tmp_path


# Profiles and jobs


def test_a_profile_is_named_or_is_a_yaml_file(out):
    one_sentence(lambda: load_profile(out), "profile")


@pytest.mark.parametrize("field", ["accelerate", "attention", "dtype", "index_kind", "history"])
def test_what_a_profile_chooses_by_name_is_one_of_a_few_words(field):
    one_sentence(lambda: load_profile("tiny", **{field: "../x"}), f"{field} is '../x'")


@pytest.mark.parametrize("field", ["rows", "folder"])
def test_a_job_belongs_to_its_own_folder(root, out, field, tmp_path):
    """A job file that was changed neither reads rows from elsewhere nor writes elsewhere."""
    folder = tmp_path / "4_sft"
    rows = write_jsonl(folder / "job" / "rows.jsonl", [])
    job = {
        "kind": "sft",
        "profile": {},
        "rows": str(rows),
        "root": str(root),
        "folder": str(folder),
        "adapter": None,
        "tower": None,
        "seed": 1,
        "max_steps": 1,
    }
    path = write_json(folder / "job" / "job.json", job)
    one_sentence(lambda: launching.run_job(path), "profile")  # so far all was right
    path = write_json(folder / "job" / "job.json", job | {field: as_written(out)})
    one_sentence(lambda: launching.run_job(path), f"{field} is")


@pytest.mark.parametrize("wrong", [{"kind": "../x"}, {"seed": "x"}, {"rows": None}, {"profile": {"name": 1, "nope": 2}}])
def test_a_wrong_job_is_named(wrong, tmp_path):
    path = write_json(
        tmp_path / "job" / "job.json",
        {
            "kind": "sft",
            "profile": {},
            "rows": str(tmp_path / "job" / "rows.jsonl"),
            "root": "",
            "folder": str(tmp_path),
            "adapter": None,
            "tower": None,
            "seed": 1,
            "max_steps": 1,
        }
        | wrong,
    )
    one_sentence(lambda: launching.run_job(path), "job.json")
    assert json.loads(path.read_text())


def test_inside_resolves_before_it_judges(root):
    assert inside(root, "linked/../sub/good.mp4" if (root / "linked" / ".." / "sub").exists() else "sub/good.mp4")
    one_sentence(lambda: inside(root, "linked/../secret.mp4"), "outside")

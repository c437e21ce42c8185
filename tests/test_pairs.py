"""From raw files to pairs: the published pairs come out as published, files go together only when they must, slips are listed."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from expstar_utils import pairs
from expstar_utils.cutting import cut_clips
from expstar_utils.datasets import load_cases
from expstar_utils.files import read_json
from expstar_utils.media import probe
from expstar_utils.mini.build import build as build_mini
from expstar_utils.miniatures import noise_clip
from expstar_utils.records import ExpStarError
from expstar_utils.sharing import share

DEMO = Path(__file__).parents[2] / "shared" / "expstar_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the published demo is not at {DEMO}")
STEPS = [{"step": 1, "step_zh": "准备", "step_en": "Prepare", "ASR_id": [1], "startTime": "0:00:00", "endTime": "0:00:01"},
         {"step": 2, "step_zh": "点燃", "step_en": "Light", "ASR_id": [2, 3], "startTime": "0:00:01", "endTime": "0:00:02.500"}]
LINES = [{"id": n, "startTime": f"0:00:0{n - 1}", "endTime": f"0:00:0{n - 1}.900", "text": f"句{n}", "text_en": f"Line {n}"}
         for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return noise_clip(tmp_path_factory.mktemp("clip") / "3s.mp4", 3, 0)


@pytest.fixture
def raw(tmp_path, clip):
    """Function that adds one experiment to the raw folder; returns the folder."""
    def add(name="01-Flame", unit="ch_1", steps=STEPS, lines=LINES, names=None, **extra):
        names = {"step": name, "asr": name, "video": name} | (names or {})
        for kind, key, items in (("step", "steps", steps), ("asr", "subtitles", lines)):
            path = tmp_path / "dataset" / "chemistry" / unit / kind / f"{names[kind]}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = items if isinstance(items, str) else json.dumps({key: items} | (extra if kind == "step" else {}))
            path.write_text(text, encoding="utf8")
        video = tmp_path / "source_video" / "chemistry" / unit / f"{names['video']}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, video)
        return tmp_path
    return add


def build(root):
    found, problems = pairs.find_experiments(root)
    return problems + pairs.build_pairs(found, root, root / "1_pairs", workers=2)


def written(root):
    return sorted(p.relative_to(root / "1_pairs").as_posix() for p in (root / "1_pairs").rglob("*.json"))


@needs_demo
def test_the_published_pairs_come_out_as_published(tmp_path):
    published = [read_json(p) for p in sorted(DEMO.glob("2pair-data/*/*.json"))]
    stem = "02-一氧化碳的燃烧"
    steps = [{"step": p["step_number"], "step_zh": p["step_zh"], "step_en": p["step_en"], "startTime": p["clip_start"],
              "endTime": p["clip_end"], "ASR_id": []} for p in published]
    lines = [line | {"step": p["step_number"]} for p in published for line in p["annotations"]]
    titles = {key: published[0][key] for key in ("title_zh", "title_en")}
    for kind, data in (("step", titles | {"steps": steps}), ("asr", {"subtitles": lines})):
        path = tmp_path / "dataset" / "chemistry" / "ch_67" / kind / f"{stem}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(data), encoding="utf8")
    video = tmp_path / "source_video" / "chemistry" / "ch_67" / f"{stem}.mp4"
    video.parent.mkdir(parents=True)
    shutil.copy(DEMO / "1data" / "video-ch_67-02-一氧化碳的燃烧.mp4", video)
    found, problems = pairs.find_experiments(tmp_path)
    assert problems + pairs.build_pairs(found, tmp_path, tmp_path / "1_pairs", "/path/to/") == []
    for pair in published:
        ours = read_json(tmp_path / "1_pairs" / "chemistry" / "ch_67" / stem / f"{stem}_step_{pair['step_number']}.json")
        assert ours["clip_video_path"] == ours["original_video"] == pair["original_video"]  # virtual, not cut
        assert list(ours) == list(pair)
        assert ours | {"clip_video_path": 0} == pair | {"clip_video_path": 0}


def test_pairs_are_cases_with_virtual_clips(raw):
    root = raw(title_en="A flame", title_zh="火焰")
    assert build(root) == []
    assert written(root) == ["chemistry/ch_1/01-Flame/01-Flame_step_1.json", "chemistry/ch_1/01-Flame/01-Flame_step_2.json"]
    first, second = load_cases(root / "1_pairs")
    assert (first.title, first.summary, first.narration) == ("A flame", "Prepare", ["Line 1"])
    assert second.narration == ["Line 2", "Line 3"]
    assert second.clip.to_dict() == {"video": "chemistry/ch_1/01-Flame.mp4", "start": 1.0, "end": 2.5}


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    build_mini(folder, workers=1, subjects=["chemistry"], small=True)
    return folder


def test_raw_files_without_units_give_the_pairs_of_mini(mini, tmp_path):
    found, problems = pairs.find_experiments(mini)
    assert len(found) == 5
    assert problems + pairs.build_pairs(found, mini, tmp_path, "source_video/") == []
    expected = sorted(p for p in (mini / "pairs").rglob("*_step_*.json"))
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.json")) == [p.relative_to(mini / "pairs") for p in expected]
    for path in expected:
        assert (tmp_path / path.relative_to(mini / "pairs")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("other", ["01_Flame", "1-flame", "01.Flame", "01 Flame", "０１－Flame"])
def test_spellings_of_one_name_go_together(raw, other):
    root = raw("01-Flame", names={"asr": other})
    [found], problems = pairs.find_experiments(root)
    assert problems == []
    assert (found.asr.stem, found.steps.stem, found.name) == (other, "01-Flame", "chemistry/ch_1/01-Flame")


@pytest.mark.parametrize(("one", "other"), [("01-Flame", "02-Flame"), ("01-Flame", "01-Flames"), ("1-1", "11"),
                                            ("01-火焰", "01-火"), ("Flame", "01-Flame")])
def test_different_names_stay_apart(one, other):
    assert pairs.name_key(one) != pairs.name_key(other)


def test_another_title_under_the_same_number_is_no_match(raw):
    root = raw("01-Flame", names={"video": "01-Candle"})
    found, problems = pairs.find_experiments(root)
    assert found == []
    assert {p.file for p in problems} == {"dataset/chemistry/ch_1/step/01-Flame.json",
                                          "source_video/chemistry/ch_1/01-Candle.mp4"}
    assert "only 01-Candle.mp4, which has another title" in " ".join(map(str, problems))


@pytest.mark.parametrize("double", ["01_Flame.mkv", "1.Flame.MP4"])
def test_two_videos_of_one_name_are_a_problem_and_the_rest_goes_on(raw, double):
    root = raw()
    raw("02-Candle")
    videos = root / "source_video" / "chemistry" / "ch_1"
    shutil.copy(videos / "01-Flame.mp4", videos / double)
    [problem] = [p for p in build(root) if p.field == "name"]
    assert "01-Flame.mp4" in str(problem)
    assert double in str(problem)
    assert {Path(p).parent.name for p in written(root)} == {"02-Candle"}


def test_one_stem_in_two_units_makes_two_experiments(raw):
    root = raw()
    raw(unit="ch_2")
    build(root)
    assert len({c.experiment for c in load_cases(root / "1_pairs")}) == 2


@pytest.mark.parametrize(("change", "field"), [
    ({"startTime": "0:00:02.500", "endTime": "0:00:01"}, "step 2, endTime"),
    ({"startTime": "0:00:01", "endTime": "0:00:01"}, "step 2, endTime"),
    ({"startTime": "0:00:00.500"}, "step 2, startTime"),
    ({"endTime": "0:00:09"}, "step 2, endTime"),
    ({"startTime": "0:00:05", "endTime": "0:00:06"}, "step 2, endTime"),
    ({"startTime": "NaN"}, "steps[1].startTime"),
    ({"endTime": None}, "steps[1].endTime"),
    ({"endTime": -1}, "steps[1].endTime"),
    ({"step": "two"}, "steps[1].step"),
])
def test_a_bad_step_is_listed_and_the_other_one_is_kept(raw, change, field):
    root = raw(steps=[STEPS[0], STEPS[1] | change])
    problems = [p for p in build(root) if p.field == field]
    assert [(p.file, p.todo) for p in problems] in (
        [("dataset/chemistry/ch_1/step/01-Flame.json", todo)] for todo in
        ("correct it; the step was left out", "correct it; the entry was left out"))
    assert written(root) == ["chemistry/ch_1/01-Flame/01-Flame_step_1.json"]


def test_times_may_be_seconds_and_a_last_step_may_end_with_the_second(raw):
    root = raw(steps=[STEPS[0], STEPS[1] | {"startTime": 1, "endTime": 3.9}], title_zh="火焰")
    assert build(root) == []
    assert read_json(root / "1_pairs" / "chemistry/ch_1/01-Flame/01-Flame_step_2.json")["clip_end"] == 3.9


def test_two_steps_of_one_number_are_both_left_out(raw):
    root = raw(steps=[*STEPS, STEPS[1] | {"startTime": "0:00:02.600", "endTime": "0:00:02.900"}])
    assert [p.field for p in build(root) if "2 steps of that number" in p.found] == ["step 2, step"] * 2
    assert written(root) == ["chemistry/ch_1/01-Flame/01-Flame_step_1.json"]


@pytest.mark.parametrize(("lines", "found", "kept"), [
    (LINES[:1], "no subtitle", 1),
    ([*LINES, LINES[0] | {"id": 9}], "no step", 2),
    ([*LINES, LINES[0] | {"id": 9, "step": 7}], "step 7", 2),
    ([*LINES, LINES[2]], "several lines of that id", 2),
    (LINES[:2], "ids [3] of no subtitle", 2),
])
def test_lines_that_belong_nowhere_are_listed(raw, lines, found, kept):
    root = raw(lines=lines)
    assert found in [p.found for p in build(root)]
    assert len(written(root)) == kept


@pytest.mark.parametrize(("text", "found"), [
    ('{"steps": [', "not JSON"), ('{"steps": []} {"steps": []}', "not JSON"), ("[1, 2]", "a list"),
    ('{"schritte": []}', "schritte"), ("", "not JSON"), ('{"steps": {"step": 1}}', "steps"), ("null", "NoneType")])
def test_a_file_that_is_no_step_file_is_listed_and_the_rest_goes_on(raw, text, found):
    root = raw(steps=text)
    raw("02-Candle")
    problems = [p for p in build(root) if p.file == "dataset/chemistry/ch_1/step/01-Flame.json"]
    assert found in problems[0].found
    assert {Path(p).parent.name for p in written(root)} == {"02-Candle"}


def test_a_byte_order_mark_is_no_fault(raw):
    assert [p for p in build(raw(steps="\ufeff" + json.dumps({"steps": STEPS}))) if p.field != "title_zh"] == []


@pytest.mark.parametrize("name", ["01-它's \"so\"", "02-..", "03-一氧化碳的燃烧", "04-a\nb", "05-$(ls) {x} %s"])
def test_odd_names_are_ordinary(raw, name):
    root = raw(name)
    build(root)
    cases = load_cases(root / "1_pairs")
    assert {c.experiment for c in cases} == {f"chemistry/ch_1/{name}"}
    assert {c.clip.video for c in cases} == {f"chemistry/ch_1/{name}.mp4"}


def test_a_missing_half_is_listed(raw):
    root = raw()
    (root / "dataset/chemistry/ch_1/asr/01-Flame.json").unlink()
    [problem] = build(root)
    assert (problem.file, problem.field, problem.found) == ("source_video/chemistry/ch_1/01-Flame.mp4", "asr", "no such file")


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(raw):
    """Nothing can be written below /proc, not even by root."""
    found, _ = pairs.find_experiments(root := raw())
    with pytest.raises(ExpStarError, match=r"^/proc/pairs/.*json: cannot be written .*choose another run_dir"):
        pairs.build_pairs(found, root, Path("/proc/pairs"))


def test_a_broken_video_is_listed(raw):
    root = raw()
    (root / "source_video/chemistry/ch_1/01-Flame.mp4").write_bytes(b"\0" * 500)
    [problem] = build(root)
    assert (problem.file, problem.field) == ("source_video/chemistry/ch_1/01-Flame.mp4", "video")


def test_clips_as_files_lie_where_the_published_ones_do(raw, monkeypatch):
    root = raw(title_en="A flame", title_zh="火焰")
    [found], _ = pairs.find_experiments(root)
    def cut():
        return pairs.build_pairs([found], root, root / "1_pairs", "/data/", clips=root / "source_video")
    [said] = cut()
    assert (said.field, said.found) == ("clips", "its codec is mpeg4, not h264")
    step = read_json(root / "1_pairs/chemistry/ch_1/01-Flame/01-Flame_step_2.json")
    assert step["clip_video_path"] == "/data/chemistry/ch_1/video/01-Flame/01-Flame_step_2.mp4"
    assert step["original_video"] == "/data/chemistry/ch_1/01-Flame.mp4"
    clip = root / "source_video/chemistry/ch_1/video/01-Flame/01-Flame_step_2.mp4"
    assert probe(clip).duration_s == pytest.approx(1.5, abs=0.05)
    asked = []
    def noted(video, clips):
        asked.append([c.path.name for c in clips])
        return cut_clips(video, clips)
    monkeypatch.setattr(pairs, "cut_clips", noted)
    assert cut() == [said]
    assert asked == []
    clip.unlink()
    cut()
    raw(steps=[STEPS[0] | {"endTime": "0:00:00.900"}, STEPS[1]], title_en="A flame", title_zh="火焰")
    cut()
    assert asked == [["01-Flame_step_2.mp4"], ["01-Flame_step_1.mp4", "01-Flame_step_2.mp4"]]  # the video was copied anew
    assert pairs.find_experiments(root)[0] == [found]  # clips are no raw videos


def test_shards_at_once_and_one_run_more_are_the_whole(raw):
    """Three processes write pairs and clips into the same folders; the run after them cuts nothing and tells of all videos."""
    for name in ("01-Flame", "02-Candle", "03-Lens", "04-Spring"):
        root = raw(name, title_en="T", title_zh="T")
    (root / "source_video/chemistry/ch_1/02-Candle.mp4").write_bytes(b"\0" * 500)
    found, _ = pairs.find_experiments(root)
    def built(folder, experiments):
        return pairs.build_pairs(experiments, root, root / folder, clips=root / f"{folder}_clips")
    whole = built("whole", found)
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=built, args=("1_pairs", share(found, shard, 3))) for shard in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    def content(folder):
        return {p.relative_to(root / folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in (root / folder).rglob("*.*")}
    cut = content("1_pairs_clips")
    assert built("1_pairs", found) == whole
    assert len(whole) == 4  # a broken video, and three whose clips were encoded as a whole
    assert content("1_pairs_clips") == cut
    for folder in ("1_pairs", "1_pairs_clips"):
        its, other = content(folder), content(folder.replace("1_pairs", "whole"))
        assert {path: data for path, (data, _) in its.items()} == {path: data for path, (data, _) in other.items()}


def test_a_second_run_gives_the_same_bytes_and_drops_steps_that_are_gone(raw):
    root = raw()
    build(root)
    first = {p: (root / "1_pairs" / p).read_bytes() for p in written(root)}
    build(root)
    assert first == {p: (root / "1_pairs" / p).read_bytes() for p in written(root)}
    build(raw(steps=STEPS[:1]))
    assert written(root) == ["chemistry/ch_1/01-Flame/01-Flame_step_1.json"]

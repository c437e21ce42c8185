"""What raw experiments lack is made once, beside the run; what a person wrote or edited stays."""

import json
import shutil
import threading

import pytest
from hearing import ROWS, SAMPLES

from expstar_utils import completion, pairs
from expstar_utils.annotators import OfflineAnnotator
from expstar_utils.files import read_json, write_json
from expstar_utils.knowledge import load_knowledge
from expstar_utils.miniatures import noise_clip
from expstar_utils.records import AsrFile, ExpStarError, StepsFile

HEARD = {"subtitles": [{"id": n, "startTime": n, "endTime": n + 0.8, "text": f"Line {n}.", "text_en": f"Line {n}."}
                       for n in (0, 1)]}
FOUND = {"summary": "s", "title_zh": "", "title_en": "A flame", "steps": [
    {"step": n + 1, "step_zh": "", "step_en": f"Do {n}", "ASR_id": [n], "startTime": n, "endTime": n + 1} for n in (0, 1)]}


class Scripted:
    """Annotator that always finds the same; `fails` for the titles named."""

    def __init__(self, *fails):
        self.fails, self.asked = fails, []

    def annotate(self, title, said, video):
        self.asked.append(title)
        if title in self.fails:
            raise ExpStarError(f"{title}: no answer")
        noted = [line.to_dict() | {"step": line.id + 1, "principle_en": f"Law {line.id}"} for line in said.subtitles]
        return StepsFile.model_validate(FOUND), AsrFile.model_validate({"subtitles": noted})


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Raw folder with one video that nobody has annotated; `transcribed` counts what Whisper was asked."""
    transcribed = []
    def hear(video, title, **_):
        transcribed.append(title)
        return AsrFile.model_validate(HEARD)
    monkeypatch.setattr(completion, "transcribe", hear)
    noise_clip(tmp_path / "raw" / "source_video" / "chemistry" / "ch_1" / "01-A_Flame.mp4", 3, 0)
    return tmp_path / "raw", transcribed


def run(root, annotator):
    found, problems = pairs.find_experiments(root)
    assert problems == []
    whole, problems = completion.complete_all(found, root.parent / "made", annotator)
    return whole, problems


def own(root, kind, data):
    return write_json(root / "dataset" / "chemistry" / "ch_1" / kind / "01-A_Flame.json", data)


def test_both_files_are_made_once_and_give_pairs(raw):
    root, transcribed = raw
    annotator = Scripted()
    for _ in range(2):
        [experiment], problems = run(root, annotator)
        assert problems == []
    assert (transcribed, annotator.asked) == (["A Flame"], ["A Flame"])
    made, problems = pairs.pairs_of(experiment, root)
    assert [(p.step_en, p.annotations[0].principle_en) for p in made] == [("Do 0", "Law 0"), ("Do 1", "Law 1")]
    assert [p.field for p in problems] == ["title_zh"]


def test_what_a_person_edited_is_not_overwritten(raw):
    root, _ = raw
    run(root, Scripted())
    made = root.parent / "made" / "step" / "chemistry" / "ch_1" / "01-A_Flame.json"
    write_json(made, read_json(made) | {"title_en": "Edited"})
    text = made.read_bytes()
    [experiment], _ = run(root, Scripted("A Flame"))
    assert made.read_bytes() == text
    assert pairs.pairs_of(experiment, root)[0][0].title_en == "Edited"


def test_own_speech_wins_over_what_was_made_from_it_also_later(raw):
    root, transcribed = raw
    own(root, "asr", HEARD)
    run(root, Scripted())
    edited = json.loads(json.dumps(HEARD))
    edited["subtitles"][1] |= {"text_en": "Corrected.", "principle_en": "Own law"}
    text = own(root, "asr", edited).read_bytes()
    [experiment], _ = run(root, Scripted())
    first, second = pairs.pairs_of(experiment, root)[0]
    assert (first.annotations[0].principle_en, second.annotations[0].principle_en) == ("Law 0", "Own law")
    assert second.annotations[0].text_en == "Corrected."
    assert (root / "dataset/chemistry/ch_1/asr/01-A_Flame.json").read_bytes() == text
    assert transcribed == []


def test_own_steps_need_only_speech(raw):
    root, transcribed = raw
    own(root, "step", FOUND)
    annotator = Scripted()
    [experiment], _ = run(root, annotator)
    assert (transcribed, annotator.asked) == (["A Flame"], [])
    assert len(pairs.pairs_of(experiment, root)[0]) == 2


def test_one_that_fails_is_listed_and_the_rest_goes_on(raw):
    root, _ = raw
    shutil.copy(root / "source_video/chemistry/ch_1/01-A_Flame.mp4", root / "source_video/chemistry/ch_1/02-B.mp4")
    whole, [problem] = run(root, Scripted("A Flame"))
    assert [e.video.name for e in whole] == ["02-B.mp4"]
    assert (problem.file, problem.found) == ("chemistry/ch_1/01-A_Flame", "A Flame: no answer")
    again, problems = run(root, Scripted())
    assert (len(again), problems) == (2, [])


def test_videos_are_annotated_side_by_side_and_keep_their_order(raw):
    root, _ = raw
    for name in ("02-B", "03-C", "04-D"):
        shutil.copy(root / "source_video/chemistry/ch_1/01-A_Flame.mp4", root / f"source_video/chemistry/ch_1/{name}.mp4")
    together = threading.Barrier(4, timeout=60)  # broken, and an error, if one waits for another to end

    class Waiting(Scripted):
        def annotate(self, title, said, video):
            together.wait()
            return super().annotate(title, said, video)
    whole, problems = run(root, Waiting())
    assert problems == []
    assert [e.video.stem for e in whole] == ["01-A_Flame", "02-B", "03-C", "04-D"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_shipped_video_becomes_pairs_offline(row, tmp_path):
    video = tmp_path / "raw" / "source_video" / row["subject"] / f"01-{row['title_en']}.mp4"
    video.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / row["file"], video)
    [experiment], problems = pairs.find_experiments(tmp_path / "raw")[0], []
    annotator = OfflineAnnotator()
    [whole], problems = completion.complete_all([experiment], tmp_path / "made", annotator)
    made, more = pairs.pairs_of(whole, tmp_path / "raw")
    assert problems == []
    assert {p.field for p in more} <= {"title_zh"}
    truth = row["steps"]
    assert len(made) == len(truth)
    for pair, step in zip(made, truth):
        assert pairs.parse_time(pair.clip_start) == pytest.approx(step["start_s"], abs=1.0)
        assert pair.step_en
    notes = [line for pair in made for line in pair.annotations if line.principle_en or line.safety_en]
    assert notes
    known = {p.id: p.text for p in load_knowledge()}
    for line in notes:
        assert line.note_sources
        assert {line.principle_en, line.safety_en} - {None} == {known[i] for i in line.note_sources}

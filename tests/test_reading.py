"""Reading: notes from the right passage, compared with the reference's word for word."""

from small_runs import noise_clips

from expstar_utils.datasets import Case
from expstar_utils.profiles import load_profile
from expstar_utils.reading import Written, write_notes
from expstar_utils.records import Passage, RetrievalResult


class Copier:
    """Stands in for the commentator: writes each passage's text as the principle, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def write(self, steps):
        self.asked.append([(s.case.id, s.previous, [p.id for p in s.passages], len(s.frames.pixels)) for s in steps])
        return [f"<Principle>\n{step.passages[0].text}" for step in steps]


def case(number, experiment, step):
    return Case.model_validate({"id": f"c_{number}", "experiment": experiment, "subject": "chemistry", "title": "Flames",
                                "step_number": step, "clip": f"{number % 2}.mp4", "summary": "s",
                                "narration": [f"It is {number}."],
                                "principle": [f"Salt {number}: Na."], "safety": ["Goggles."] if number == 3 else []})


def test_each_step_with_a_passage_is_written_behind_its_own_earlier_steps(tmp_path):
    root = noise_clips(tmp_path, [3, 4])
    cases = [case(0, "chemistry/a", 1), case(1, "chemistry/a", 2), case(2, "chemistry/b", 1), case(3, "chemistry/b", 2)]
    texts = {"c_1": "salt 1:  Na.", "c_2": "Salt 3: Na.", "c_3": "Salt 3: Na."}
    found = {key: RetrievalResult(id=key, query="q", video_path="0.mp4", is_rag=True, documents=[
        Passage(id="sister", text="no", relevant=2), Passage(id="own", text=text, relevant=3)]) for key, text in texts.items()}
    found["c_0"] = RetrievalResult(id="c_0", query="q", video_path="0.mp4", is_rag=True,
                                   documents=[Passage(id="sister", text="no", relevant=2)])
    copier = Copier()
    written = write_notes(copier, cases, found, root, load_profile("tiny", fps=2.0, max_frames_infer=2), batch=2)
    assert [(name, before, passages) for turn in copier.asked for name, before, passages, _ in turn] == [
        ("c_1", ["It is 0."], ["own"]), ("c_2", [], ["own"]), ("c_3", ["It is 2."], ["own"])]
    assert [len(turn) for turn in copier.asked] == [2, 1]
    assert {turn[0][3] for turn in copier.asked} == {2}
    assert [row.right for row in written] == [{"principle": True, "safety": True}, {"principle": False, "safety": True},
                                              {"principle": True, "safety": False}]
    assert written[1] == Written(id="c_2", principle=["Salt 3: Na."], safety=[], right_principle=["Salt 2: Na."], right_safety=[])

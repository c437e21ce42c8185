"""Shards of predictions: done apart and gathered they are the whole, to the byte; nothing is done twice or foreign."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import noise_clips

from expstar_utils.datasets import Case
from expstar_utils.inference import Commentator, Settings, infer
from expstar_utils.predicted import cases_of_shard, gathered, read_predictions, settled, turns
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Passage
from expstar_utils.sharing import shard_mark

PASSAGES = [Passage(id=f"p{i}", title=t, text=f"{t} burns with {t} light.") for i, t in enumerate(("Sodium", "Copper"))]
SHORT = Settings(passages=2, max_new_tokens=6, knowledge="always")
SIDE_BY_SIDE = 2


def cases_of(lengths):
    """Experiments of so many steps each, given in another order than that of their names."""
    steps = [(f"chemistry/{name:02}", step) for name, length in enumerate(lengths) for step in range(1, length + 1)]
    return [Case.model_validate({"id": f"c_{n}", "experiment": name, "subject": "chemistry", "title": "Flames", "summary": "s",
                                 "step_number": step, "clip": f"{n % 3}.mp4", "narration": ["It glows."]})
            for n, (name, step) in reversed(list(enumerate(steps)))]


CASES = cases_of([2, 1, 3, 2, 1])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4, 2])


@pytest.fixture
def do(smolvlm, root, tmp_path):
    """Function (shard, shards, settings) -> ids that the model wrote now; into `p.jsonl`, or the file of the shard."""
    def job(shard=0, shards=1, settings=SHORT, out="p"):
        out, asked = tmp_path / f"{out}.{shard_mark(shard, shards)}jsonl", []
        cases = cases_of_shard(CASES, SIDE_BY_SIDE, shard, shards)
        done = gathered(out, cases, settings, SIDE_BY_SIDE)
        if all(case.id in done for case in cases):
            settled(out, done, cases, SIDE_BY_SIDE)
            return []
        def find(case, clip, k):
            asked.append(case.id)
            return PASSAGES[:k]
        infer(Commentator(*smolvlm, load_prompts(), find, settings), cases, root, out, fps=1, max_frames=2, frame_size=(32, 32),
              batch=SIDE_BY_SIDE)
        return asked
    return job


@pytest.fixture
def whole(do, tmp_path):
    """Bytes of a run without shards."""
    assert len(do(out="whole")) == len(CASES)
    return (tmp_path / "whole.jsonl").read_bytes()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.integers(1, 4), st.integers(1, 5))
def test_shards_hold_the_turns_of_the_whole(lengths, together, count):
    """Every turn of the whole run is one of one shard, with the same rows side by side."""
    def ids(cases):
        return [tuple(steps[index].id for steps, index in turn) for turn in turns(cases, together)]
    cases = cases_of(lengths)
    apart = [ids(cases_of_shard(cases, together, shard, count)) for shard in range(count)]
    assert sorted(turn for of_shard in apart for turn in of_shard) == sorted(ids(cases))
    assert sorted(i for turn in ids(cases) for i in turn) == sorted(case.id for case in cases)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_gathered_are_the_whole_to_the_byte(do, whole, tmp_path, count):
    written = [do(shard, count) for shard in range(count)]
    assert sorted(i for ids in written for i in ids) == sorted(case.id for case in CASES)
    shards = {path: path.read_bytes() for path in sorted(tmp_path.glob("p.shard-*"))}
    assert len(shards) == count  # one that has no share leaves a file too
    assert do() == []
    assert (tmp_path / "p.jsonl").read_bytes() == whole
    assert {path: path.read_bytes() for path in sorted(tmp_path.glob("p.shard-*"))} == shards
    assert do() == []
    assert (tmp_path / "p.jsonl").read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_what_shards_left_undone_is_done_when_they_are_gathered(do, whole, tmp_path, kept):
    """The second shard never ran; the first was killed in its line `kept` + 1."""
    do(0, 2)
    shard = tmp_path / "p.shard-0-of-2.jsonl"
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
    whole_turns = {0: 0, 1: 0, 2: 2, 3: 3}[kept]  # the first turn has two rows, the second has one
    assert len(do()) == len(CASES) - whole_turns
    assert (tmp_path / "p.jsonl").read_bytes() == whole


def test_a_gathering_that_was_killed_goes_on(do, whole, tmp_path):
    do(1, 2)
    (tmp_path / "p.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert len(do()) == len(CASES) - 2 - len(cases_of_shard(CASES, SIDE_BY_SIDE, 1, 2))
    assert (tmp_path / "p.jsonl").read_bytes() == whole


def test_shards_made_otherwise_are_not_taken_over(do, whole, tmp_path):
    other = Settings(**(vars(SHORT) | {"tau": 0.7}))
    do(0, 2, other)
    do(1, 2)
    assert sorted(do()) == sorted(case.id for case in cases_of_shard(CASES, SIDE_BY_SIDE, 0, 2))
    assert (tmp_path / "p.jsonl").read_bytes() == whole
    with pytest.raises(ExpStarError, match=r"shard-0-of-2\.jsonl: holds predictions made with tau=0\.7, expected tau=0\.5"):
        do(0, 2)
    with pytest.raises(ExpStarError, match=r"p\.jsonl: holds predictions made with tau=0\.5, expected tau=0\.7"):
        do(settings=other)


def test_rows_of_other_steps_stay_where_they_are(do, whole, tmp_path):
    """A file that holds more than is asked for now loses nothing."""
    out = tmp_path / "whole.jsonl"
    done, some = read_predictions(out, SHORT), CASES[-2:]
    assert gathered(out, some, SHORT, SIDE_BY_SIDE).keys() == done.keys()
    assert [p.id for p in settled(out, done, some, SIDE_BY_SIDE)] == [case.id for case in some]
    assert out.read_bytes() == whole

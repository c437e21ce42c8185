"""Packed rows: loss and gradients of the unpacked ones, in every family, whatever the number and length of the branches."""

import pytest
import torch
from small_runs import small_profile

from expstar_utils import models, scoring, training
from expstar_utils.attention import branched_attention, causal_attention
from expstar_utils.batches import VideoCollator
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.files import read_json, read_jsonl
from expstar_utils.packing import Layout, encode_group, shared_groups, shares
from expstar_utils.prompts import load_prompts
from expstar_utils.records import Passage, Record

PASSAGES = ["Sodium burns yellow.", "Copper salts colour a flame green, and the bead cools.", "No.", "Lithium: crimson. " * 7]


def rows_of(number, passages, notes=True, history=()):
    case = Case.model_validate({"id": f"chemistry_{number}", "experiment": f"chemistry/{number}", "subject": "chemistry",
                                "title": f"Flame {number}", "step_number": 1, "clip": f"{number}.mp4", "summary": "s",
                                "narration": [f"Salt {number} glows."], "principle": ["It emits."] if notes else []})
    return [expstar_sample(case, list(history), load_prompts(), [Passage(id="p", text=PASSAGES[i])], relevant=i == 0)
            for i in passages]


def ragged():
    """Four passages; none; one, each of these rows twice; the first step again with a history: 9 rows, 4 groups."""
    return [*rows_of(0, range(4)), *2 * rows_of(1, [0], notes=False), *2 * rows_of(2, [1]), *rows_of(0, [1], history=["Before."])]


def test_what_is_shared_is_found_among_neighbours():
    assert shared_groups(ragged()) == [[0, 1, 2, 3], [4, 5], [6, 7], [8]]
    assert shared_groups([*rows_of(0, [1]), *rows_of(2, [1]), *rows_of(0, [2])]) == [[0], [1], [2]]
    assert shared_groups([]) == []


def test_a_packed_row_holds_its_rows(base, root):
    model, processor = models.load(str(base))
    end = models.quirks(model, processor).turn_end
    samples = ragged()[:4]
    collate = VideoCollator(processor, samples, root, small_profile(base), end)
    row, layout = encode_group(processor, samples, collate.frames(samples[0]), end)
    assert len(layout.branches) == 4
    assert layout.shared + sum(layout.branches) == len(row.ids) == len(row.labels)
    at = layout.shared
    for i, size in enumerate(layout.branches):
        alone = collate.encode(i)
        assert alone.ids == row.ids[:layout.shared] + row.ids[at:at + size]
        assert alone.labels == row.labels[:layout.shared] + row.labels[at:at + size]
        at += size


def test_shares_count_rows():
    counts = shares([Layout(2, (1, 1, 1)), Layout(4, (0, 0))], 6)
    assert counts.tolist() == [[3, 3, 1, 1, 1, 1], [2, 2, 2, 2, 1, 1]]


@pytest.mark.parametrize("layout", [Layout(5, (3,)), Layout(9, (1, 7, 0, 4)), Layout(12, (0,)), Layout(1, (2, 2))])
def test_a_branch_sees_what_is_shared_and_itself(layout):
    torch.manual_seed(0)
    length = layout.shared + sum(layout.branches) + 2  # two of padding
    q, k, v = (torch.randn(1, heads, length, 8, dtype=torch.float64) for heads in (6, 2, 2))
    found = branched_attention(q, k, v, 0.3, [layout], block=4)
    at = layout.shared
    for size in layout.branches:
        seen = [*range(layout.shared), *range(at, at + size)]
        alone = causal_attention(*(x[:, :, seen] for x in (q, k, v)), 0.3)
        torch.testing.assert_close(found[:, :, seen], alone)
        at += size


def gradients(base, root, folder, samples, monkeypatch, **changes):
    """Losses as logged, and the gradients of five steps over all rows at once."""
    caught = []

    class Catch(training.LossLog):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            caught.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))

    monkeypatch.setattr(training, "LossLog", Catch)
    model, processor = models.load(str(base))
    torch.manual_seed(0)
    setting = small_profile(base, **{"batch_size": 16, "sft_lr": 1e-3} | changes)
    training.train_sft(model, processor, samples, root, setting, folder, str(base), max_steps=5)
    [line] = read_jsonl(folder / "log.jsonl", Record)
    return line.loss, caught


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_loss_and_gradients_are_those_of_the_unpacked_rows(base, root, tmp_path, monkeypatch, weight):
    loss, expected = gradients(base, root, tmp_path / "rows", ragged(), monkeypatch, decision_weight=weight, packed=False)
    packed, found = gradients(base, root, tmp_path / "packed", ragged(), monkeypatch, decision_weight=weight, packed=True)
    assert packed == pytest.approx(loss, rel=1e-4)
    assert len(expected) == len(found) == 5
    for a, b in zip(expected, found, strict=True):
        assert a.norm() > 1e-3
        assert (a - b).norm() < 1e-4 * a.norm()


@pytest.mark.parametrize("packed", [True, False])
def test_accumulated_rows_weigh_as_one_batch(base, root, tmp_path, monkeypatch, packed):
    loss, whole = gradients(base, root, tmp_path / "whole", ragged(), monkeypatch, packed=packed)
    parted, parts = gradients(base, root, tmp_path / "parts", ragged(), monkeypatch, packed=packed, batch_size=1,
                              accumulation=4 if packed else 9)
    assert parted == pytest.approx(loss, rel=1e-4)
    assert (whole[0] - parts[0]).norm() < 1e-4 * whole[0].norm()


def test_an_over_long_branch_is_left_out_and_its_siblings_stay(base, root, tmp_path, monkeypatch):
    model, processor = models.load(str(base))
    whole = ragged()
    collate = VideoCollator(processor, whole, root, small_profile(base), models.quirks(model, processor).turn_end)
    lengths = [len(collate.encode(n).ids) for n in range(len(whole))]
    assert max(lengths) == lengths[3]
    rest = whole[:3] + whole[4:]
    _, expected = gradients(base, root, tmp_path / "rest", rest, monkeypatch, packed=True)
    _, found = gradients(base, root, tmp_path / "whole", whole, monkeypatch, packed=True, max_length=lengths[3] - 1)
    [problem] = read_json(tmp_path / "whole" / "problems.json")
    assert problem["found"] == f"{lengths[3]} tokens"
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("packed", "apart", "rounded", "same"), [
    (0.0565, 0.066, True, True), (0.117, 0.131, True, True), (0.19, 0.131, True, False), (2.1, 2.0, True, True),
    (2.5, 2.0, True, False), (0.1312, 0.1311, False, True), (0.133, 0.131, False, False), (2.003, 2.0, False, False),
    (float("nan"), 2.0, True, False)])
def test_rounding_is_no_wrong_packing_however_small_the_loss(packed, apart, rounded, same):
    assert training.alike(packed, apart, rounded) == same


def test_a_packing_that_is_wrong_is_found_and_left(base, root, tmp_path, monkeypatch, capsys):
    loss, expected = gradients(base, root, tmp_path / "rows", ragged(), monkeypatch, packed=False)
    right = scoring.packed_positions
    monkeypatch.setattr(scoring, "packed_positions", lambda *given: right(*given) * 2)
    unpacked, found = gradients(base, root, tmp_path / "wrong", ragged(), monkeypatch, packed=True)
    assert "training goes on unpacked" in capsys.readouterr().out
    assert unpacked == pytest.approx(loss, rel=1e-5)
    assert (expected[0] - found[0]).norm() < 1e-5 * expected[0].norm()

"""The first training stage: rows of a clip alone, words that tell, a connector that moves gently, an adapter trained further."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_profile

from expstar_utils import captions, models, training
from expstar_utils.batches import VideoCollator
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.encoding import IGNORED, text_ids
from expstar_utils.files import read_json, read_jsonl
from expstar_utils.prompts import load_prompts
from expstar_utils.records import Record

CONNECTOR = {"smolvlm": ["connector"], "qwen2_5_vl": ["merger"], "qwen3_vl": ["merger"]}
COLOURS = ["yellow", "crimson", "lilac", "green"]


def cases(count=4, step=1):
    return [Case.model_validate({"id": f"chemistry_{n}", "experiment": f"chemistry/{n}", "subject": "chemistry",
                                 "title": "Flames", "step_number": step, "clip": f"{n}.mp4", "summary": "s",
                                 "narration": ["We heat a salt.", f"The flame turns {COLOURS[n]}."],
                                 "principle": ["It emits."] if n % 2 else []}) for n in range(count)]


def words(processor, text):
    return set(text_ids(processor, text))


def train(base, root, folder, rows, model=None, **changes):
    profile = small_profile(base, warm_start=CONNECTOR[base.name]).model_copy(update=changes)
    loaded, processor = models.load(str(base))
    telling = captions.telling_tokens(cases(), processor)
    return training.train_sft(loaded if model is None else model, processor, rows, root, profile, folder, str(base), max_steps=3,
                              telling=telling)


def test_a_caption_holds_nothing_but_the_clip():
    silent, asking = map(captions.caption_sample, cases()[:2])
    assert [m.role for m in silent.messages] == ["user", "assistant"]
    assert silent.messages[0].content == "<video>\n"
    assert silent.messages[1].content == "<Narration>\nWe heat a salt.\nThe flame turns yellow.\n[No Retrieval]"
    assert asking.messages[1].content.endswith("[Retrieval]")
    assert (silent.videos, silent.id) == (["0.mp4"], "chemistry_0")


def experiments():
    """Two steps of four experiments: the first shows the colour, the second names it again; a third tells nothing."""
    whole = []
    for case in cases():
        said = {1: case.narration[1:], 2: [f"It was {case.narration[1].split()[-1]}"], 3: ["We put the wire away."]}
        whole += [case.model_copy(update={"id": f"{case.id}_{n}", "step_number": n, "narration": lines,
                                          "principle": ["It emits."] if n == 2 else []}) for n, lines in said.items()]
    return whole


def mixed():
    return [c.model_copy(update={"id": f"mixed_{c.id}", "experiment": f"mixed/{c.experiment}", "principle": []})
            for c in experiments()]


def test_every_step_gets_a_row_and_a_mix_asks_where_its_title_does():
    whole, more = experiments(), mixed()
    for share in (0.0, 0.5, 1.0):
        rows = captions.caption_samples(whole, more, load_prompts(), "narration", prompted=share, seed=3)
        assert sorted(row.id for row in rows) == sorted(case.id for case in [*whole, *more])
        asking = {row.id for row in rows if row.messages[-1].content.endswith("[Retrieval]")}
        assert asking == {case.id for case in [*whole, *more] if case.step_number == 2}
        bare = {row.id[-1] for row in rows if row.messages[0].role == "user"}
        assert bare == {0.0: {"1", "2", "3"}, 0.5: {"1", "3"}, 1.0: set()}[share]
    alone = captions.caption_samples(whole, [], load_prompts(), "narration")
    assert sorted(alone, key=lambda row: row.id) == sorted(map(captions.caption_sample, whole), key=lambda row: row.id)
    for share, kept in ((0.0, {"1"}), (0.5, {"1", "2"})):
        few = captions.caption_samples(whole, more, load_prompts(), "narration", prompted=share, plain=0.0)
        assert {row.id[-1] for row in few} == kept


def test_every_epoch_draws_the_rows_anew_and_the_last_one_a_share_of_them():
    def drawn(epochs):
        return captions.caption_samples(experiments(), mixed(), load_prompts(), "narration", prompted=0.5, epochs=epochs)
    once, more = drawn(1), drawn(2.5)
    assert more[:len(once)] == once
    second, third = more[len(once):2 * len(once)], more[2 * len(once):]
    assert [row.id for row in second] == [row.id for row in once]
    assert second != once
    assert 0.25 * len(once) < len(third) < 0.75 * len(once)
    assert {row.id for row in third} < {row.id for row in once}


def test_what_was_told_before_stands_before_it_and_what_is_seen_may_stand_behind_anything():
    steps = [c if c.step_number != 3 else c.model_copy(update={"step_number": 4, "narration": [f"Smoke of {c.experiment}."]})
             for c in experiments()]
    kinds = set()
    for seed in range(20):
        for row in captions.caption_samples(steps, [], load_prompts(), "narration", prompted=1.0, seed=seed):
            own = COLOURS[int(row.id.split("_")[1])]
            told = {colour for colour in COLOURS if f"turns {colour}" in row.messages[1].content}
            if row.id.split("_")[2] == "2":
                assert told == {own}
            elif row.id.split("_")[2] == "3":
                kinds.add("none" if not told else "own" if told == {own} else "other")
    assert kinds == {"none", "own", "other"}


SEEN = [("red", "two", "slim"), ("red", "six", "round"), ("blue", "six", "slim")]


def narrated(number, colour, count, build):
    lines = [f"We see a {colour} lamp.", f"It lights {count} mice, all of them {build}."]
    return cases()[0].model_copy(update={"id": f"chemistry_{number}", "experiment": f"chemistry/{number}", "narration": lines})


def test_an_answer_begins_as_a_siblings_does_and_is_trained_where_it_is_its_own():
    whole, begun = [narrated(n, *values) for n, values in enumerate(SEEN)], set()
    for seed in range(40):
        for row, case in zip(captions.caption_samples(whole, [], load_prompts(), "narration", crossed=1.0, seed=seed), whole,
                             strict=True):
            said, true = row.messages[-1], captions.caption_sample(case).messages[-1]
            if not said.trained:
                assert said == true
                continue
            start, stop = said.trained
            given, own, rest = said.content[:start], said.content[start:stop], said.content[stop:]
            assert true.content.endswith(own + rest)
            assert any(captions.caption_sample(other).messages[-1].content.startswith(given) for other in whole)
            assert bool(given) != bool(rest)  # the beginning is trained for its own sake, the rest behind another's beginning
            assert not given or not true.content.startswith(given)
            begun.add((row.id, given))
    assert {row for row, given in begun if given} == {row for row, given in begun if not given} == {case.id for case in whole}
    plain = captions.caption_samples(whole, [], load_prompts(), "narration", seed=1)
    assert plain == list(map(captions.caption_sample, whole))


def test_what_is_given_of_an_answer_is_read_and_not_trained(base, root):
    whole = [narrated(n, *values).model_copy(update={"clip": "0.mp4"}) for n, values in enumerate(SEEN)]
    model, processor = models.load(str(base))
    rows = [row for seed in range(9)
            for row in captions.caption_samples(whole, [], load_prompts(), "narration", crossed=1.0, seed=seed)]
    end = models.quirks(model, processor).turn_end
    collate = VideoCollator(processor, rows, root, small_profile(base), end)
    kinds = set()
    for place, row in enumerate(rows):
        encoded, said = collate.encode(place), row.messages[-1]
        start, stop = said.trained or (0, len(said.content))
        trained = processor.tokenizer.decode([label for label in encoded.labels if label != IGNORED])
        assert trained == said.content[start:stop] + (end if stop == len(said.content) else "")
        assert processor.tokenizer.decode(encoded.ids).endswith(said.content + end)
        usual = text_ids(processor, said.content) + text_ids(processor, end)
        assert encoded.ids[-len(usual):] == usual  # no token is cut in two
        kinds.add((start > 0, stop == len(said.content)))
    assert {(True, True), (False, False)} <= kinds


def test_without_a_folder_there_are_no_mixed_cases(tmp_path):
    assert captions.mixed_cases(tmp_path) == []


def test_words_tell_where_siblings_differ(base):
    _, processor = models.load(str(base))
    telling = captions.telling_tokens(cases(), processor)
    assert list(telling) == [f"chemistry_{n}" for n in range(4)]
    for colour, tokens in zip(COLOURS, telling.values()):
        assert tokens
        assert tokens <= words(processor, f"\nThe flame turns {colour}.")
        assert not tokens & words(processor, "\nWe heat a salt.")
    alone = captions.telling_tokens(cases(1), processor)
    assert alone == {"chemistry_0": set()}
    steps = captions.telling_tokens([case for n in (1, 2) for case in cases(1, step=n)], processor)
    assert steps == {"chemistry_0": set()}


@pytest.mark.parametrize("packed", [False, True])
def test_words_that_tell_count_more(base, root, tmp_path, packed):
    model, processor = models.load(str(base))
    telling, rows = captions.telling_tokens(cases(), processor), [captions.caption_sample(case) for case in cases()]
    profile = small_profile(base)
    collate = VideoCollator(processor, rows, root, profile, models.quirks(model, processor).turn_end)
    batch = collate([{"row": n} for n in range(4)])
    labels = batch.pop("labels")[:, 1:]
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(model(**batch).logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED,
                                                   reduction="none")
    heavy = torch.tensor([[int(t) in telling[row.id] for t in its] for row, its in zip(rows, labels)])
    assert 0 < heavy.sum() < (labels != IGNORED).sum()
    expected = ((1 + 4 * heavy) * losses).sum() / (labels != IGNORED).sum()
    changes = {"batch_size": 4, "sft_lr": 1e-12, "decision_weight": 1.0, "telling_weight": 5.0, "packed": packed}
    profile = small_profile(base, **changes)
    training.train_sft(model, processor, rows, root, profile, tmp_path, str(base), max_steps=5, telling=telling)
    [line] = read_jsonl(tmp_path / "log.jsonl", Record)
    assert line.loss == pytest.approx(float(expected), rel=1e-4)


def test_captions_may_leave_out_when_frames_were_shown(base, root, tmp_path):
    profile = small_profile(base, caption_times=False, batch_size=4, warm_start=CONNECTOR[base.name])
    assert not profile.for_captions().frame_times
    assert profile.for_choices().frame_times
    model, processor = models.load(str(base))
    rows, end = [captions.caption_sample(case) for case in cases()], models.quirks(model, processor).turn_end
    lengths = [VideoCollator(processor, rows, root, which, end)([{"row": n} for n in range(4)])["input_ids"].shape[1]
               for which in (profile, profile.for_captions())]
    assert lengths[1] < lengths[0] if base.name == "smolvlm" else lengths[1] == lengths[0]
    training.train_sft(model, processor, rows, root, profile.for_captions(), tmp_path, str(base), max_steps=5)
    [line] = read_jsonl(tmp_path / "log.jsonl", Record)
    assert 0 < line.loss < 20
    assert not list(read_json(tmp_path / "problems.json"))


@pytest.mark.parametrize("rate", [0.0, 1e-5])
def test_the_connector_moves_gently_or_not_at_all(base, root, tmp_path, rate):
    before = models.load(str(base))[0].state_dict()
    rows = [captions.caption_sample(case) for case in cases()]
    adapter = train(base, root, tmp_path, rows, sft_lr=1e-2, warm_start_lr=rate)
    saved = load_file(adapter / "adapter_model.safetensors")
    carried = {name.split("base_model.model.")[1]: tensor for name, tensor in saved.items() if "lora_" not in name}
    assert carried
    moved = max(float((tensor.float() - before[name].float()).abs().max()) for name, tensor in carried.items())
    rounding = max(float(tensor.abs().max()) for tensor in carried.values()) / 256
    assert moved <= 3 * rate * 1.2 + rounding


def test_the_connector_does_move(base, root, tmp_path):
    rows = [captions.caption_sample(case) for case in cases()]
    still, moved = (load_file(train(base, root, tmp_path / str(rate), rows, warm_start_lr=rate) / "adapter_model.safetensors")
                    for rate in (0.0, 1e-2))
    changed = [n for n in still if "lora_" not in n and not torch.equal(still[n], moved[n])]
    assert changed


def test_the_second_stage_goes_on_from_the_first(base, root, tmp_path):
    first = train(base, root, tmp_path / "captions", [captions.caption_sample(case) for case in cases()])
    rows = [expstar_sample(case, [], load_prompts(), [], relevant=False) for case in cases()]
    kept, _ = models.load(str(base), first, merge=False)
    second = train(base, root, tmp_path / "sft", rows, kept, sft_lr=1e-12, packed=True)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    assert any(bool(t.any()) for n, t in before.items() if "lora_B" in n)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=1e-2)
    kept, _ = models.load(str(base), first, merge=False)
    third = train(base, root, tmp_path / "further", rows, kept, sft_lr=1e-2, packed=True)
    further = load_file(third / "adapter_model.safetensors")
    assert all(not torch.equal(t, further[n]) for n, t in before.items() if "lora_B" in n)


def test_for_captions_changes_only_what_captions_need(base):
    profile = small_profile(base, packed=True, decision_weight=10, accumulation=4, caption_epochs=2, caption_batch=5,
                            caption_lr=0.01, caption_connector_lr=0.002, telling_weight=3)
    stage = profile.for_captions()
    assert (stage.sft_epochs, stage.batch_size, stage.sft_lr, stage.warm_start_lr) == (1, 5, 0.01, 0.002)
    assert (stage.packed, stage.decision_weight, stage.accumulation, stage.telling_weight) == (False, 1.0, 1, 3)

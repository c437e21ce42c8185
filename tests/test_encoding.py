"""Tokens and labels: exact masks, one encoding for training and inference, padding that changes no loss."""

import re
from itertools import groupby

import pytest
import torch

from expstar_utils import models
from expstar_utils.batches import VideoCollator
from expstar_utils.datasets import Case, baseline_sample, expstar_sample
from expstar_utils.encoding import (
    IGNORED,
    between_turns,
    decision_tokens,
    encode_dialogue,
    encode_prefix,
    pad_right,
    render,
    text_ids,
    weigh_decisions,
)
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import MINIATURES, noise_clip
from expstar_utils.profiles import load_profile
from expstar_utils.prompts import CONTROLS, load_prompts
from expstar_utils.records import ExpStarError, Message, Passage

CLIP_S = {"long.mp4": 12, "short.mp4": 5}
PASSAGES = [Passage(id="a", text="Sodium burns yellow (589 nm).\n\nKeep it under oil."), Passage(id="b", text="  盐 is salt.")]
PLACEHOLDERS = ("<|video_pad|>", "<image>")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, duration_s in CLIP_S.items():
        noise_clip(folder / name, duration_s, seed=duration_s)
    return folder


@pytest.fixture(scope="module", params=MINIATURES)
def loaded(request, tmp_path_factory):
    torch.set_num_threads(1)
    model, processor = models.load(str(MINIATURES[request.param](tmp_path_factory.mktemp(request.param))))
    return model, processor, models.quirks(model, processor)


def case(clip="long.mp4", **changes):
    return Case.model_validate({"id": f"chemistry_{clip}", "experiment": "chemistry/x", "subject": "chemistry", "title": "Flames",
                                "step_number": 2, "clip": clip, "summary": "s",
                                "narration": ["Salt goes in.", "It glows (yellow)"],
                                "principle": ["Na emits light."], "safety": ["Wear goggles!"]} | changes)


def rows(clip="long.mp4"):
    prompts, previous = load_prompts(), ["The burner is lit."]
    return {
        "baseline": baseline_sample(case(clip), previous, prompts),
        "no retrieval": expstar_sample(case(clip, principle=[], safety=[]), [], prompts),
        "placeholder": expstar_sample(case(clip), previous, prompts),
        "one passage": expstar_sample(case(clip), previous, prompts, PASSAGES[:1], relevant=False),
        "two passages": expstar_sample(case(clip), previous, prompts, PASSAGES),
    }


def frames(root, fps=1.5):
    return sample_frames(root / "long.mp4", fps=fps, size_px=(56, 56))


@pytest.mark.parametrize("kind", rows())
def test_labels_are_the_assistant_turns_and_nothing_else(loaded, root, kind):
    _, processor, found = loaded
    messages = rows()[kind].messages
    row = encode_dialogue(processor, messages, frames(root), found.turn_end)
    assert len(row.labels) == len(row.ids)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.ids))
    runs = [[token for token, _ in run] for trained, run in
            groupby(zip(row.ids, row.labels), key=lambda pair: pair[1] != IGNORED) if trained]
    spoken = [m.content + found.turn_end for m in messages if m.role == "assistant"]
    assert [processor.tokenizer.decode(run) for run in runs] == spoken
    visual = {processor.tokenizer.convert_tokens_to_ids(token) for token in PLACEHOLDERS}
    assert not visual & {label for run in runs for label in run}
    hidden = processor.tokenizer.decode([t for t, label in zip(row.ids, row.labels) if label == IGNORED])
    assert not any(text in hidden for text in [*CONTROLS, *spoken])
    shown = [m.content.removeprefix("<video>") for m in messages if m.role != "assistant"]
    assert all(text in hidden for text in shown)


def test_a_prompt_without_times_has_as_many_pictures_and_its_own_words(loaded, root):
    _, processor, found = loaded
    messages, seen = rows()["baseline"].messages, frames(root)
    whole, bare = (encode_dialogue(processor, messages, seen, found.turn_end, times=times) for times in (True, False))
    visual = {processor.tokenizer.convert_tokens_to_ids(token) for token in PLACEHOLDERS}
    assert [t for t in whole.ids if t in visual] == [t for t in bare.ids if t in visual]
    assert [t for t in whole.labels if t != IGNORED] == [t for t in bare.labels if t != IGNORED]
    assert len(bare.labels) == len(bare.ids)
    words = processor.tokenizer.decode([t for t in bare.ids if t not in visual])
    assert all(m.content.removeprefix("<video>") in words for m in messages)
    if processor.image_token_id in whole.ids:
        assert len(bare.ids) < len(whole.ids)
        assert "frame" not in words.lower()
    else:
        assert bare.ids == whole.ids


@pytest.mark.parametrize("kind", rows())
def test_decisions_alone_weigh_more(loaded, root, kind):
    """One token a control string, in whatever row it stands: the first that tells it from its opposite."""
    _, processor, found = loaded
    messages = rows()[kind].messages
    labels = pad_right([encode_dialogue(processor, messages, frames(root), found.turn_end).labels, [IGNORED]], IGNORED)
    weights = weigh_decisions(labels, decision_tokens(processor), 7.0)
    said = "".join(m.content for m in messages if m.role == "assistant")
    heavy = [processor.tokenizer.decode([token]).strip() for token in labels[weights == 7.0].tolist()]
    assert len(heavy) == sum(said.count(control) for control in CONTROLS)
    assert all(text and any(text in control for control in CONTROLS) for text in heavy)
    assert (weights[weights != 7.0] == 1.0).all()
    assert (weigh_decisions(labels, decision_tokens(processor), 1.0) == 1.0).all()


@pytest.mark.parametrize("kind", rows())
def test_training_row_is_what_inference_feeds(loaded, root, kind):
    _, processor, found = loaded
    messages, end = rows()[kind].messages, text_ids(loaded[1], loaded[2].turn_end)
    row = encode_dialogue(processor, messages, frames(root), found.turn_end)
    fed = encode_prefix(processor, messages[:2], frames(root)).ids + text_ids(processor, messages[2].content) + end
    if len(messages) == 5:
        fed += between_turns(processor, messages[3], found.turn_end) + text_ids(processor, messages[4].content) + end
    assert row.ids == fed


@pytest.mark.parametrize("kind", rows())
def test_row_is_the_processors_own_encoding_of_the_whole_chat(loaded, root, kind):
    _, processor, found = loaded
    messages, clip = rows()[kind].messages, frames(root)
    row = encode_dialogue(processor, messages, clip, found.turn_end)
    own = processor(text=[render(processor, messages, generate=False)], videos=[clip.pixels.transpose(0, 3, 1, 2)],
                    video_metadata=[{"total_num_frames": len(clip.times_s), "fps": clip.fps, "duration": clip.end_s,
                                     "frames_indices": list(range(len(clip.times_s)))}], do_sample_frames=False,
                    return_tensors="pt")
    after_last_turn = text_ids(processor, "\n")  # the template ends the last turn with a line end that nobody has to write
    assert row.ids + after_last_turn == own["input_ids"][0].tolist()


def test_passage_turn_closes_the_template_around_it(loaded):
    _, processor, found = loaded
    turn = processor.tokenizer.decode(between_turns(processor, load_prompts().passages(["a", "b"]), found.turn_end))
    assert turn == ("\n<|im_start|>user\n<paragraph>a</paragraph>\n<paragraph>b</paragraph><|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("fps", [0.4, 1.0, 1.5, 3.7])
def test_visual_tokens_match_the_features(loaded, root, fps):
    model, processor, found = loaded
    clip = frames(root, fps)
    prefix = encode_prefix(processor, load_prompts().prefix("chemistry", "x", []), clip)
    tokens = sum(prefix.ids.count(processor.tokenizer.convert_tokens_to_ids(t)) for t in PLACEHOLDERS)
    if model.config.model_type != "smolvlm":
        assert tokens == -(-len(clip.times_s) // 2) * 4  # pairs of frames, 2 x 2 merged patches
        assert prefix.extras["mm_token_type_ids"][0].tolist().count(2) == tokens
    else:
        assert tokens == len(clip.times_s) * 4
        assert prefix.extras["pixel_values"].shape[1] == len(clip.times_s)
    assert found.pixels_key in prefix.extras


@pytest.mark.parametrize("fps", [0.4, 3.7])
def test_seconds_a_grid_stay_a_fraction(loaded, root, fps):
    model, processor, _ = loaded
    clip = frames(root, fps)
    extras = encode_prefix(processor, load_prompts().prefix("chemistry", "x", []), clip).extras
    if model.config.model_type == "qwen2_5_vl":
        assert extras["second_per_grid_ts"].is_floating_point()
        assert float(extras["second_per_grid_ts"][0]) == pytest.approx(2 / clip.fps, rel=1e-6)


@pytest.mark.parametrize("fps", [0.4, 3.7])
def test_qwen3_reads_the_seconds_of_its_frames(loaded, root, fps):
    model, processor, _ = loaded
    clip = frames(root, fps)
    ids = encode_prefix(processor, load_prompts().prefix("chemistry", "x", []), clip).ids
    said = [float(s) for s in re.findall(r"<([\d.]+) seconds>", processor.tokenizer.decode(ids))]
    if model.config.model_type == "qwen3_vl":  # the middle of each pair of frames, from the first frame on
        times = [(i + min(i + 1, len(clip.times_s) - 1)) / 2 / clip.fps for i in range(0, len(clip.times_s), 2)]
        assert said == pytest.approx(times, abs=0.051)
    else:
        assert said == []


@pytest.mark.parametrize("content", ["no video", "<video> and <video>"])
def test_a_prompt_holds_one_video(loaded, root, content):
    with pytest.raises(ExpStarError, match=rf"found {content.count('<video>')} <video> in a prompt, expected one"):
        encode_prefix(loaded[1], [Message(role="user", content=content)], frames(root))


def loss(model, batch):
    """Mean loss of each row of a batch."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "ids")}
    with torch.no_grad():
        logits = model(**inputs).logits[:, :-1].float()
    labels = batch["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (labels != IGNORED).sum(1)


def test_padding_changes_no_loss(loaded, root):
    model, processor, found = loaded
    samples = [rows("long.mp4")["two passages"], rows("short.mp4")["no retrieval"]]
    profile = load_profile("tiny", max_frames_sft=12, frame_size=(56, 56))
    collator = VideoCollator(processor, samples, root, profile, found.turn_end)
    alone = [collator([{"row": i}]) for i in range(2)]
    for order in ([0, 1], [1, 0]):
        batch = collator([{"row": i} for i in order])
        lengths = [alone[i]["input_ids"].shape[1] for i in order]
        assert batch["attention_mask"].sum(1).tolist() == lengths
        assert lengths[0] != lengths[1]
        padded = batch["attention_mask"] == 0
        assert (batch["labels"][padded] == IGNORED).all()
        for i, ids, labels in zip(order, batch["input_ids"], batch["labels"]):
            row = encode_dialogue(processor, samples[i].messages, collator.frames(samples[i]), found.turn_end)
            assert (ids[: len(row.ids)].tolist(), labels[: len(row.ids)].tolist()) == (row.ids, row.labels)
        if "mm_token_type_ids" in batch:
            assert batch["mm_token_type_ids"].shape == batch["input_ids"].shape
            assert not batch["mm_token_type_ids"][padded].any()
        torch.testing.assert_close(loss(model, batch), torch.cat([loss(model, alone[i]) for i in order]), rtol=1e-4, atol=0)


def test_the_loss_sees_frames_and_token_types(loaded, root):
    """Guards the test above: with another clip's frames, or without token types, the loss is another one."""
    model, processor, found = loaded
    profile = load_profile("tiny", max_frames_sft=5, frame_size=(56, 56))
    samples = [rows(clip)["no retrieval"] for clip in ("long.mp4", "short.mp4")]
    collator = VideoCollator(processor, samples, root, profile, found.turn_end)
    first, second = collator([{"row": 0}]), collator([{"row": 1}])
    true = loss(model, first)
    assert not torch.allclose(true, loss(model, first | {found.pixels_key: second[found.pixels_key]}), rtol=1e-3)
    blind = {k: v for k, v in first.items() if k != "mm_token_type_ids"}
    if model.config.model_type == "qwen3_vl":
        with pytest.raises(ValueError, match="mm_token_type_ids"):
            loss(model, blind)
    elif model.config.model_type == "qwen2_5_vl":
        assert not torch.allclose(true, loss(model, blind), rtol=1e-3)

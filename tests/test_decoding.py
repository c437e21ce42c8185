"""Branching states: equal to one plain forward and to `generate`, whatever stands beside them in the batch."""

import copy
import dataclasses

import pytest
import torch

from expstar_utils import models
from expstar_utils.decoding import Decoder
from expstar_utils.encoding import encode_prefix, text_ids
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import MINIATURES, noise_clip
from expstar_utils.prompts import NO_RETRIEVAL, RETRIEVAL, load_prompts
from expstar_utils.rereading import RereadingDecoder

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TITLES = ("Flames", "How a prism splits white light", "pH of tea")
CLIPS_S = (24, 3, 9)  # Qwen's time positions run past the text behind the first clip, and stay behind it in the second


@pytest.fixture(scope="module", params=MINIATURES)
def ready(request, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = models.load(str(MINIATURES[request.param](folder / "model")))
    prefixes = []
    for title, duration_s in zip(TITLES, CLIPS_S):
        clip = sample_frames(noise_clip(folder / f"{duration_s}.mp4", duration_s, seed=duration_s), size_px=(56, 56))
        messages = load_prompts().prefix("chemistry", title, ["It glows."] * (duration_s == 9))
        prefixes.append(encode_prefix(processor, messages, clip))
    return model, processor, Decoder(model, models.quirks(model, processor).axes), prefixes


@pytest.fixture(scope="module")
def states(ready):
    _, _, decoder, prefixes = ready
    return [decoder.prefill(prefix) for prefix in prefixes]


def suffixes(processor):
    texts = ("<Narration>\nSalt glows yellow.\n", "Water", "[Retrieval]\nand more words than that")
    return [text_ids(processor, text) for text in texts]


def plain(model, prefix, ids):
    """Logits of one forward over prompt and continuation, no cache: what training sees; float32 [len(ids) + 1, vocabulary]."""
    whole = torch.tensor([prefix.ids + list(ids)])
    extras = dict(prefix.extras)
    if "mm_token_type_ids" in extras:
        extras["mm_token_type_ids"] = torch.nn.functional.pad(torch.as_tensor(extras["mm_token_type_ids"]), (0, len(ids)))
    with torch.no_grad():
        return model(input_ids=whole, attention_mask=torch.ones_like(whole), **extras).logits[0, len(prefix.ids) - 1:]


def generate(model, prefix, end, count):
    ids = torch.tensor([prefix.ids])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **prefix.extras, max_new_tokens=count,
                         do_sample=False, eos_token_id=end, pad_token_id=0)
    return out[0, ids.shape[1]:].tolist()


def assert_same(state, other):
    assert (state.length, state.position) == (other.length, other.position)
    torch.testing.assert_close(state.logits, other.logits, **CLOSE)
    for mine, its in zip(state.keys + state.values, other.keys + other.values):
        torch.testing.assert_close(mine, its, **CLOSE)


def test_positions_go_on_where_the_prompt_ended(ready, states):
    model, _, _, prefixes = ready
    for prefix, state in zip(prefixes, states):
        assert state.length == len(prefix.ids)
        if model.config.model_type == "smolvlm":
            assert state.position == len(prefix.ids)
            continue
        grid = {k: v for k, v in prefix.extras.items() if k != "pixel_values_videos"}
        grid["mm_token_type_ids"] = torch.nn.functional.pad(grid["mm_token_type_ids"], (0, 1))
        positions, _ = model.model.get_rope_index(torch.tensor([[*prefix.ids, 0]]), **grid)
        assert positions[:, 0, -1].tolist() == [state.position] * 3


def test_extending_is_one_plain_forward(ready, states):
    model, processor, decoder, prefixes = ready
    for prefix, state, suffix in zip(prefixes, states, suffixes(processor)):
        logits = plain(model, prefix, suffix)
        torch.testing.assert_close(state.logits, logits[0], **CLOSE)
        [after], [[score]] = decoder.extend([state], [suffix]), decoder.score([state], [suffix])
        torch.testing.assert_close(after.logits, logits[-1], **CLOSE)
        each = logits[:-1].log_softmax(-1)[range(len(suffix)), suffix]
        assert score == pytest.approx(float(each.sum()), rel=1e-4)
        assert score < 0


def test_scores_sum_token_log_probabilities(ready, states):
    model, processor, decoder, prefixes = ready
    texts = [text_ids(processor, t) for t in (RETRIEVAL, NO_RETRIEVAL, "x")]
    expected = [[float(plain(model, p, t)[:-1].log_softmax(-1)[range(len(t)), t].sum()) for t in texts] for p in prefixes]
    torch.testing.assert_close(torch.tensor(decoder.score(states, texts)), torch.tensor(expected), **CLOSE)


def test_greedy_decoding_is_generate(ready, states):
    model, _, decoder, prefixes = ready
    for prefix, state in zip(prefixes, states):
        expected = generate(model, prefix, None, 24)
        _, [written] = decoder.decode([state], 24, end=-1)
        assert written == expected
        end = expected[5]
        _, [written] = decoder.decode([state], 24, end=end)
        assert [*written, end] == generate(model, prefix, end, 24)


def test_a_ragged_batch_is_each_alone(ready, states):
    _, processor, decoder, _ = ready
    end = decoder.decode(states[:1], 6, end=-1)[1][0][-1]  # so that rows end at different times
    together, written = decoder.decode(states, 20, end)
    extended, scores = decoder.extend(states, suffixes(processor)), decoder.score(states, suffixes(processor))
    assert len({len(w) for w in written}) > 1
    for i, suffix in enumerate(suffixes(processor)):
        [alone], [words] = decoder.decode([states[i]], 20, end)
        assert words == written[i]
        assert_same(together[i], alone)
        assert_same(extended[i], decoder.extend([states[i]], [suffix])[0])
        assert scores[i][i] == pytest.approx(decoder.score([states[i]], [suffix])[0][0], rel=1e-4)


def test_a_decoded_state_is_the_state_that_read_the_words(ready, states):
    _, _, decoder, _ = ready
    decoded, written = decoder.decode(states, 7, end=-1)
    read = decoder.extend(states, written)
    for mine, its in zip(decoded, read):
        assert_same(mine, its)


def test_two_pieces_are_one(ready, states):
    _, processor, decoder, _ = ready
    for state, suffix in zip(states, suffixes(processor)):
        [whole], [first] = decoder.extend([state], [suffix]), decoder.extend([state], [suffix[:1]])
        if len(suffix) > 1:
            [second] = decoder.extend([first], [suffix[1:]])
            assert_same(second, whole)
            parts = decoder.score([state], [suffix[:1]])[0][0] + decoder.score([first], [suffix[1:]])[0][0]
            assert parts == pytest.approx(decoder.score([state], [suffix])[0][0], rel=1e-4)


def test_siblings_do_not_see_each_other(ready, states):
    _, processor, decoder, _ = ready
    for parent in states:
        together = decoder.extend([parent] * 3, suffixes(processor))
        [scores] = decoder.score([parent], suffixes(processor))
        for branch, score, suffix in zip(together, scores, suffixes(processor)):
            assert_same(branch, decoder.extend([parent], [suffix])[0])
            assert score == pytest.approx(decoder.score([parent], [suffix])[0][0], rel=1e-4)


def test_scores_keep_float32_apart_where_bfloat16_has_them_equal(ready):
    model, processor, _, prefixes = ready
    half = copy.deepcopy(model).to(torch.bfloat16)
    halves = {k: v.bfloat16() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in prefixes[0].extras.items()}
    state = Decoder(half, models.quirks(half, processor).axes).prefill(dataclasses.replace(prefixes[0], extras=halves))
    assert state.logits.dtype == torch.float32
    assert not torch.equal(state.logits, state.logits.bfloat16().float())


def test_branching_leaves_the_parent_as_it_was(ready, states):
    _, processor, decoder, _ = ready
    kept = [tensor.clone() for tensor in (*states[0].keys, *states[0].values, states[0].logits)]
    decoder.extend([states[0]] * 3, suffixes(processor))
    decoder.decode([states[0]], 4, end=-1)
    for before, now in zip(kept, (*states[0].keys, *states[0].values, states[0].logits)):
        assert torch.equal(before, now)


def test_a_cropped_state_reads_on_like_a_fresh_one(ready, states):
    _, processor, decoder, _ = ready
    first, second, _ = suffixes(processor)
    [astray] = decoder.extend([states[0]], [first])
    [back] = decoder.extend([astray.cropped(len(first) - 1)], [second])
    [fresh] = decoder.extend([states[0]], [[first[0], *second]])
    assert_same(back, fresh)


def test_no_states_no_work(ready):
    decoder = ready[2]
    assert decoder.extend([], []) == []
    assert decoder.score([], [[1], [2]]) == []
    assert decoder.decode([], 4, end=-1) == ([], [])


def test_sampling_repeats_by_seed(ready, states):
    _, _, decoder, _ = ready
    def sampled(seed):
        return decoder.decode(states, 12, end=-1, temperature=1.0, seed=seed)[1]
    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert decoder.decode(states, 12, end=-1, temperature=1e-4, seed=1)[1] == decoder.decode(states, 12, end=-1)[1]


def test_reading_again_gives_the_same_scores_and_tokens(ready, states):
    model, processor, decoder, prefixes = ready
    again = RereadingDecoder(model, decoder.axes)
    unread = [again.prefill(prefix) for prefix in prefixes]
    added = [text_ids(processor, "<Narration>\nIt glows.\n")] * len(states)
    ours, theirs = decoder.extend(states, added), again.extend(unread, added)
    controls = [text_ids(processor, text) for text in (RETRIEVAL, NO_RETRIEVAL)]
    torch.testing.assert_close(torch.tensor(decoder.score(ours, controls)), torch.tensor(again.score(theirs, controls)), **CLOSE)
    (_, written), (unread_after, rewritten) = decoder.decode(ours, 6, end=-1), again.decode(theirs, 6, end=-1)
    assert written == rewritten
    assert [len(u.ids) for u in unread_after] == [len(added[0]) + 6] * 3
    assert again.decode([unread_after[0].cropped(6)], 6, end=-1)[1] == [written[0]]


def test_the_runner_up_is_the_token_that_came_nearest(ready, states):
    model, _, decoder, prefixes = ready
    written = [decoder.decode([state], count, end=-1)[1][0] for state, count in zip(states, (1, 6, 9))]
    found = decoder.runners_up(states, written)
    for prefix, tokens, (place, other, nats) in zip(prefixes, written, found, strict=True):
        logits = plain(model, prefix, tokens)[:len(tokens)]
        two = logits.topk(2)
        gaps = two.values[:, 0] - two.values[:, 1]
        assert two.indices[:, 0].tolist() == tokens
        assert nats == pytest.approx(float(gaps.min()), abs=1e-3)
        assert gaps[place] == pytest.approx(float(gaps.min()), abs=1e-3)
        assert logits[place, other] == pytest.approx(float(two.values[place, 1]), abs=1e-3)
    again = RereadingDecoder(model, decoder.axes)
    for (place, other, nats), (its_place, its_other, its_nats) in zip(
            found, again.runners_up([again.prefill(prefix) for prefix in prefixes], written), strict=True):
        assert (place, other) == (its_place, its_other)
        assert nats == pytest.approx(its_nats, abs=1e-3)
    assert decoder.runners_up([], []) == []


def test_judging_in_one_pass_is_extending_and_scoring(ready, states):
    """Suffixes and continuations of different lengths; the states that come back know nothing of the continuations."""
    _, processor, decoder, _ = ready
    added = suffixes(processor)
    controls = [text_ids(processor, text) for text in (RETRIEVAL, NO_RETRIEVAL, "x")]
    assert len({len(c) for c in controls}) > 1
    behind = decoder.extend(states, added)
    judged, scores = decoder.judge(states, added, controls)
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(decoder.score(behind, controls)), **CLOSE)
    for one, other in zip(judged, behind, strict=True):
        assert_same(one, other)
    assert decoder.judge([], [], controls) == ([], [])


def test_an_attention_that_takes_no_mask_of_branches_judges_as_well(ready, states, monkeypatch):
    """flash-attention 2 cannot show a row's continuations apart; then they are scored in rows of their own."""
    _, processor, decoder, _ = ready
    added, controls = suffixes(processor), [text_ids(processor, text) for text in (RETRIEVAL, NO_RETRIEVAL)]
    before, expected = decoder.judge(states, added, controls)
    monkeypatch.setattr(type(decoder), "one_pass", False)
    behind, scores = decoder.judge(states, added, controls)
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected), **CLOSE)
    for one, other in zip(behind, before, strict=True):
        assert_same(one, other)

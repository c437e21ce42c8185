"""Attention in causal blocks gives what the stock attention gives, forward and backward, in every family."""

import pytest
import torch

from expstar_utils import models
from expstar_utils.attention import NAME, causal_attention, causal_blocks
from expstar_utils.encoding import IGNORED, encode_dialogue, merge_extras, pad_right
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import MINIATURES, noise_clip
from expstar_utils.records import Message


@pytest.mark.parametrize(("rows", "heads", "groups", "length", "block"), [
    (1, 1, 1, 1, 128), (2, 6, 2, 37, 8), (2, 9, 3, 128, 128), (1, 4, 4, 129, 128), (3, 4, 1, 50, 200), (1, 3, 3, 16, 1)])
def test_equals_masked_attention(rows, heads, groups, length, block):
    torch.manual_seed(0)
    q, k, v = (torch.randn(rows, n, length, 8, dtype=torch.float64, requires_grad=True) for n in (heads, groups, groups))
    ours = causal_attention(q, k, v, 8 ** -0.5, block)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    gradients = [torch.autograd.grad((found * weight).sum(), (q, k, v)) for found in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("family", MINIATURES)
def test_a_padded_batch_has_the_same_loss(family, tmp_path):
    model, processor = models.load(str(MINIATURES[family](tmp_path / family)))
    clip = noise_clip(tmp_path / "a.mp4", 2, 0)
    frames = sample_frames(clip, fps=1.0, max_frames=2, size_px=(56, 56))
    end = models.quirks(model, processor).turn_end
    rows = [encode_dialogue(processor, [Message(role="user", content="<video>What happens?"),
                                        Message(role="assistant", content=text)], frames, end)
            for text in ("It glows.", "A yellow flame, then a long silence, and a little smoke.")]
    lengths = [len(row.ids) for row in rows]
    batch = {"input_ids": pad_right([row.ids for row in rows], processor.tokenizer.pad_token_id),
             "attention_mask": pad_right([[1] * n for n in lengths], 0),
             "labels": pad_right([row.labels for row in rows], IGNORED), **merge_extras([row.extras for row in rows], lengths)}
    before = model.config.text_config._attn_implementation
    stock = model(**batch).loss
    with causal_blocks(model):
        assert model.config.text_config._attn_implementation == NAME
        blocks = model(**batch, use_cache=False).loss
    assert model.config.text_config._attn_implementation == before
    torch.testing.assert_close(blocks, stock, rtol=1e-5, atol=1e-6)


def test_it_says_what_it_is_for(tmp_path):
    model, processor = models.load(str(MINIATURES["smolvlm"](tmp_path / "base")))
    ids = torch.tensor([[1, 2, 3]])
    with causal_blocks(model), pytest.raises(ValueError, match="without dropout and cache"):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3)


def test_switched_off_it_changes_nothing(tmp_path):
    model, _ = models.load(str(MINIATURES["smolvlm"](tmp_path / "base")))
    before = model.config.text_config._attn_implementation
    with causal_blocks(model, active=False):
        assert model.config.text_config._attn_implementation == before

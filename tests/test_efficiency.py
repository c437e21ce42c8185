"""Compiled layers compute what plain ones do, and go where there is no compiler; what is too much for memory is said."""

import pytest
import torch
from peft import get_peft_model
from small_runs import COMPILER, small_profile
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from expstar_utils import models
from expstar_utils.adapters import lora
from expstar_utils.efficiency import compiled_layers, memory_advice
from expstar_utils.records import ExpStarError


def gradients(model, ids):
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@COMPILER
def test_compiled_layers_have_the_same_gradients_whatever_the_rows(base):
    model, _ = models.load(str(base))
    model.requires_grad_(False)
    tuned = get_peft_model(model, lora(small_profile(base), model))
    torch.manual_seed(0)
    rows = [torch.randint(50, 60, size) for size in ((2, 9), (1, 70), (3, 31))]
    expected = [gradients(tuned, ids) for ids in rows]
    counters.clear()
    with compiled_layers(model, bf16=False):
        compiled_before = counters["stats"]["unique_graphs"]
        found = [gradients(tuned, ids) for ids in rows]
    assert compiled_before == counters["stats"]["unique_graphs"] > 0
    for plain, compiled in zip(expected, found, strict=True):
        assert plain.keys() == compiled.keys()
        for name, gradient in plain.items():
            assert torch.allclose(gradient, compiled[name], rtol=1e-4, atol=1e-6), name
    assert not any(part._compiled_call_impl for part in model.modules())


def test_without_a_compiler_layers_stay_as_they_are(smolvlm, monkeypatch, capsys):
    model, _ = smolvlm
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    with fresh_cache(), compiled_layers(model, bf16=False):
        assert not any(part._compiled_call_impl for part in model.modules())
    assert "layers are not compiled: " in capsys.readouterr().out


@pytest.mark.parametrize("error", [MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_running_out_of_memory_says_what_to_lower(error):
    with pytest.raises(ExpStarError, match="memory does not suffice .*; lower the profile's batch_size"), memory_advice():
        raise error
    with pytest.raises(RuntimeError, match="shapes"), memory_advice():
        raise RuntimeError("shapes do not match")

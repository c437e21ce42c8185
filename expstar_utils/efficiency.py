"""How a trainer's model is run: attention in blocks, compiled layers, no casts to and fro, advice when memory or disk run out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import torch
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel, Trainer

from expstar_utils.attention import causal_blocks
from expstar_utils.files import explained
from expstar_utils.records import ExpStarError

# Rows and tokens that parts are compiled on before a run, so that a resumed one has the same code; a length that is no
# model's width, for torch takes equal sizes to be the same.
TRIED = ((1, 61), (2, 61))


@contextmanager
def efficient(trainer: Trainer, packed: bool, compiled: bool = False) -> Iterator[None]:
    """Run a trainer's model as fast as it can be, and as before again at the end.

    The casts cost a twelfth of a step, the stock attention a fifth of one on a CPU, what compiling saves stands in `LOG.md`.
    """
    model = trainer.model.get_base_model()
    with ExitStack() as stack:
        stack.enter_context(disable_input_dtype_casting(trainer.model, active=trainer.args.bf16))
        stack.enter_context(causal_blocks(model, active=trainer.args.use_cpu or packed))
        stack.enter_context(compiled_layers(model, trainer.args.bf16, active=compiled))
        stack.enter_context(memory_advice())
        stack.enter_context(explained(Path(trainer.args.output_dir)))
        yield


@contextmanager
def compiled_layers(model: PreTrainedModel, bf16: bool, active: bool = True) -> Iterator[None]:
    """Let torch compile the feed-forward parts and norms of the language model's layers, while the context lasts.

    Beside the large products of a LoRA step stand many small ones, sums and casts, each of which goes through memory; compiled,
    they are one pass. All layers share one code, for rows of any length, which torch keeps on disk for the next run. Where there
    is no compiler a line says so, and the layers stay as they are.
    """
    if active:
        torch._inductor.config.compile_threads = 1  # no further processes: a killed run must leave none
        torch.compiler.reset()  # only so many codes of one function are kept, then none is made: begin with none
    layers = model.get_decoder().layers if active else []
    parts = [part for layer in layers for part in (layer.input_layernorm, layer.post_attention_layernorm, layer.mlp)]
    try:
        for part in parts:
            part.compile(dynamic=True)
        if parts and (problem := _problem(parts[-3:], model.config.get_text_config().hidden_size, bf16)):
            print(f"layers are not compiled: {problem}; a C++ compiler such as g++ makes training faster")
            _restore(parts)
        yield
    finally:
        _restore(parts)


def _problem(parts: Sequence[nn.Module], width: int, bf16: bool) -> str:
    """What keeps the parts of a layer from being compiled; empty where they were, for one row and for several.

    What comes into the first layer may need no gradient, and torch makes other code of that.
    """
    weight = next(parts[0].parameters())
    try:
        for shape, needed in product(TRIED, (False, True)):
            states = torch.zeros(*shape, width, device=weight.device, dtype=weight.dtype, requires_grad=needed)
            with torch.autocast(weight.device.type, dtype=torch.bfloat16, enabled=bf16):
                tried = [part(states) for part in parts]
            for out in tried:
                if out.requires_grad:
                    out.sum().backward()
    except (RuntimeError, ImportError) as error:  # what dynamo and inductor raise comes from RuntimeError
        return str(error).splitlines()[0]
    finally:
        for part in parts:
            part.zero_grad(set_to_none=True)
    return ""


def _restore(parts: Sequence[nn.Module]) -> None:
    for part in parts:
        part._compiled_call_impl = None


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turns running out of memory into a sentence that says what to lower.

    Raises:
        ExpStarError: instead of what torch raises on a GPU or a CPU.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ExpStarError(f"memory does not suffice ({str(error).splitlines()[0][:120]}); lower the profile's batch_size "
                           "(and raise accumulation), max_frames_sft, frame_size or max_length, or set "
                           "gradient_checkpointing") from None

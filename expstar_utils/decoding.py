"""States of a model that has read a prefix: branch them, extend them, score strings, decode; each prefix is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from expstar_utils.encoding import Encoded, pad_right


@dataclass(frozen=True)
class State:
    """What a model knows after reading some tokens.

    keys, values: one tensor a layer, [1, heads, length, head size]. position: rotary position of the next token.
    logits: float32 [vocabulary], for the next token.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    position: int
    logits: torch.Tensor

    @property
    def length(self) -> int:
        return self.keys[0].shape[2]

    def cropped(self, dropped: int) -> State:
        """The state `dropped` tokens earlier; its logits are stale, so extend it before you use them."""
        keep = self.length - dropped
        return State(tuple(k[:, :, :keep] for k in self.keys), tuple(v[:, :, :keep] for v in self.values),
                     self.position - dropped, self.logits)


class Decoder:
    """Runs one model over batches of states; scores in float32 whatever the model's own precision.

    In bfloat16 scores near 32 lie 0.25 apart, so that many probabilities would be equal.

    Args:
        model: any AutoModelForImageTextToText, with or without adapter.
        axes: rows of position ids that the family takes (1, or 3 for mRoPE).
    """

    def __init__(self, model: PreTrainedModel, axes: int = 1):
        self.axes = axes
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.inner, self.device = whole.model, model.device
        head = whole.get_output_embeddings()
        self._weight = head.weight.detach().float()
        self._bias = None if head.bias is None else head.bias.detach().float()

    @property
    def one_pass(self) -> bool:
        """Whether branches can stand in one row: flash-attention 2 takes no mask of them."""
        return self.inner.config.get_text_config()._attn_implementation != "flash_attention_2"

    def _logits(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(features.float(), self._weight, self._bias)

    @torch.inference_mode()
    def prefill(self, prefix: Encoded) -> State:
        """Read a prompt with its frames."""
        ids = torch.tensor([prefix.ids], device=self.device)
        extras = {k: torch.as_tensor(v).to(self.device) for k, v in prefix.extras.items()}
        out = self.inner(input_ids=ids, attention_mask=torch.ones_like(ids), **extras, use_cache=True)
        position = len(prefix.ids)
        if self.axes > 1:  # mRoPE: go on from the last token; `rope_deltas` counts from the video's end when that is later
            position = int(self.inner.get_rope_index(ids, **extras)[0][0, 0, -1]) + 1
        layers = out.past_key_values.layers
        logits = self._logits(out.last_hidden_state[0, -1])
        return State(tuple(x.keys for x in layers), tuple(x.values for x in layers), position, logits)

    @torch.inference_mode()
    def extend(self, states: Sequence[State], suffixes: Sequence[Sequence[int]]) -> list[State]:
        """Read one suffix behind each state; returns the states behind the suffixes."""
        if not states:
            return []
        batch, features, lengths = self._read(states, suffixes)
        ends = self._logits(torch.stack([features[i, n - 1] for i, n in enumerate(lengths)]))
        return batch.split(lengths, list(ends))

    @torch.inference_mode()
    def score(self, states: Sequence[State], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of every continuation behind every state, [states][continuations], nats."""
        flat, suffixes = [s for s in states for _ in continuations], [list(c) for _ in states for c in continuations]
        if not flat:
            return [[] for _ in states]
        _, features, lengths = self._read(flat, suffixes)
        # one product for all rows: the head's weights are most of what is read from memory here
        behind = self._logits(torch.cat([features[i, :n - 1] for i, n in enumerate(lengths)])).split([n - 1 for n in lengths])
        scores = []
        for state, suffix, logits in zip(flat, suffixes, behind, strict=True):
            logprobs = torch.cat([state.logits[None], logits]).log_softmax(-1)
            scores.append(float(logprobs[torch.arange(len(suffix)), torch.tensor(suffix)].sum()))
        n = len(continuations)
        return [scores[i:i + n] for i in range(0, len(scores), n)]

    @torch.inference_mode()
    def runners_up(self, states: Sequence[State], written: Sequence[Sequence[int]]) -> list[tuple[int, int, float]]:
        """Where another token came nearest to being said in each text of one token or more, written behind a state.

        Returns:
            for each text (place, the other token, nats by which it was less likely than the one that was said).
        """
        found = []
        _, features, lengths = self._read(states, written) if states else (None, (), ())
        for state, tokens, read, n in zip(states, written, features, lengths, strict=True):
            logits = torch.cat([state.logits[None], self._logits(read[:n - 1])])
            spoken = torch.tensor(tokens, device=logits.device)[:, None]
            best, other = logits.scatter(1, spoken, -torch.inf).max(1)
            nats = logits.gather(1, spoken)[:, 0] - best
            place = int(nats.argmin())
            found.append((place, int(other[place]), float(nats[place])))
        return found

    @torch.inference_mode()
    def judge(self, states: Sequence[State], suffixes: Sequence[Sequence[int]],
              continuations: Sequence[Sequence[int]]) -> tuple[list[State], list[list[float]]]:
        """`extend`, and `score` behind it, in one pass: the continuations stand side by side in a row and do not see each other.

        Returns:
            (states behind the suffixes; log-probability of every continuation there, [states][continuations], nats).
        """
        if not states:
            return [], []
        if not self.one_pass:
            behind = self.extend(states, suffixes)
            return behind, self.score(behind, continuations)
        batch, lengths = _Batch(states), [len(s) for s in suffixes]
        heads = [list(c[:-1]) for c in continuations]  # the last token of each is said, not read
        rows = [[*suffix, *(t for head in heads for t in head)] for suffix in suffixes]
        steps = [[*range(n), *(n + i for head in heads for i in range(len(head)))] for n in lengths]
        seen = _branches_seen(lengths, [len(head) for head in heads])
        past = torch.cat([batch.mask.bool()[:, None, :].expand(-1, seen.shape[1], -1), seen], 2)[:, None]
        positions = batch.positions[:, None] + pad_right(steps, 0)
        features = self._run(batch, pad_right(rows, 0), past, positions)
        places = [self._places(n, heads) for n in lengths]
        logits = self._logits(torch.cat([features[i, at] for i, at in enumerate(places)])).log_softmax(-1)
        ends = self._logits(torch.stack([features[i, n - 1] for i, n in enumerate(lengths)]))
        said = torch.tensor([t for c in continuations for t in c] * len(states))
        each = logits[torch.arange(len(said)), said].view(len(states), -1).split([len(c) for c in continuations], dim=1)
        scores = torch.stack([part.sum(1) for part in each], dim=1).tolist()
        return batch.split(lengths, list(ends)), scores

    @staticmethod
    def _places(length: int, heads: Sequence[Sequence[int]]) -> list[int]:
        """Where in a row of `judge` each token of each continuation is said."""
        places, at = [], length
        for head in heads:
            places += [length - 1, *range(at, at + len(head))]
            at += len(head)
        return places

    def _read(self, states: Sequence[State], suffixes: Sequence[Sequence[int]]) -> tuple[_Batch, torch.Tensor, list[int]]:
        """(states side by side with the suffixes read, features of the suffixes [rows, longest, width], their lengths)."""
        batch, lengths = _Batch(states), [len(s) for s in suffixes]
        return batch, self._forward(batch, pad_right(suffixes, 0), pad_right([[1] * n for n in lengths], 0)), lengths

    @torch.inference_mode()
    def decode(self, states: Sequence[State], max_new_tokens: int, end: int, temperature: float = 0.0,
               seed: int = 0) -> tuple[list[State], list[list[int]]]:
        """Write behind each state until the token `end` or `max_new_tokens`.

        Args:
            temperature: 0 is greedy; above it samples, repeatably by `seed`.

        Returns:
            (states behind what was written, without `end`; the tokens written, without `end`).
        """
        if not states:
            return [], []
        batch, generator = _Batch(states), torch.Generator().manual_seed(seed)
        logits = torch.stack([s.logits for s in states])
        written: list[list[int]] = [[] for _ in states]
        latest = [s.logits for s in states]
        open_rows = set(range(len(states)))
        for _ in range(max_new_tokens):
            chosen = _choose(logits, temperature, generator)
            open_rows = {i for i in open_rows if int(chosen[i]) != end}
            if not open_rows:
                break
            for i in open_rows:
                written[i].append(int(chosen[i]))
            features = self._forward(batch, chosen[:, None], torch.ones(len(states), 1, dtype=torch.long))
            logits = self._logits(features[:, -1])
            for i in open_rows:
                latest[i] = logits[i]
        return batch.split([len(w) for w in written], latest), written

    def _forward(self, batch: _Batch, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        positions = batch.positions[:, None] + torch.arange(ids.shape[1])
        batch.positions = batch.positions + ids.shape[1]
        batch.mask = torch.cat([batch.mask, mask], 1)
        return self._run(batch, ids, batch.mask, positions)

    def _run(self, batch: _Batch, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self.axes > 1:
            positions = positions.expand(self.axes, *positions.shape)
        return self.inner(input_ids=ids.to(self.device), attention_mask=mask.to(self.device),
                          position_ids=positions.to(self.device), past_key_values=batch.cache, use_cache=True).last_hidden_state


def _branches_seen(lengths: Sequence[int], heads: Sequence[int]) -> torch.Tensor:
    """Which token of a row of `judge` sees which: bool [rows, longest, longest]; padding sees itself alone."""
    longest = max(lengths) + sum(heads)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(lengths), 1, 1)
    for row, n in enumerate(lengths):
        seen[row, :n, :n] = torch.ones(n, n).tril().bool()
        at = n
        for size in heads:
            seen[row, at:at + size, :n] = True
            seen[row, at:at + size, at:at + size] = torch.ones(size, size).tril().bool()
            at += size
    return seen


class _Batch:
    """States side by side: caches filled on the left to one length."""

    def __init__(self, states: Sequence[State]):
        self.lengths = [s.length for s in states]
        self.past = max(self.lengths)
        self.start = [s.position for s in states]
        self.positions = torch.tensor(self.start)
        self.mask = torch.tensor([[0] * (self.past - n) + [1] * n for n in self.lengths])
        self.cache = DynamicCache()
        for layer in range(len(states[0].keys)):
            self.cache.update(self._stack([s.keys[layer] for s in states]), self._stack([s.values[layer] for s in states]), layer)

    def _stack(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([pad(t, (0, 0, self.past - t.shape[2], 0)) for t in tensors])

    def split(self, added: Sequence[int], logits: Sequence[torch.Tensor]) -> list[State]:
        """One state a row again, `added[i]` tokens longer than it came."""
        states = []
        for i, n in enumerate(added):
            part = (slice(i, i + 1), slice(None), slice(self.past - self.lengths[i], self.past + n))
            states.append(State(tuple(x.keys[part] for x in self.cache.layers), tuple(x.values[part] for x in self.cache.layers),
                                self.start[i] + n, logits[i]))
        return states


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    if temperature <= 0:
        return logits.argmax(-1).cpu()
    return torch.multinomial((logits / temperature).softmax(-1).cpu(), 1, generator=generator)[:, 0]

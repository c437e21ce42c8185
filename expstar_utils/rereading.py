"""A decoder that reads everything anew in every call, as clients without a prefix cache do: what `Decoder` is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from expstar_utils.decoding import Decoder
from expstar_utils.encoding import Encoded


@dataclass(frozen=True)
class Unread:
    """A prompt and what follows it, as tokens alone; stands where `State` stands, for `RereadingDecoder`."""

    prefix: Encoded
    ids: tuple[int, ...] = ()

    def cropped(self, dropped: int) -> Unread:
        """See `State.cropped`."""
        return Unread(self.prefix, self.ids[:len(self.ids) - dropped])

    def with_more(self, ids: Sequence[int]) -> Unread:
        """The same with `ids` behind it."""
        return Unread(self.prefix, (*self.ids, *ids))

    def whole(self) -> Encoded:
        """The prompt with what follows it."""
        extras = {k: pad(torch.as_tensor(v), (0, len(self.ids))) if k == "mm_token_type_ids" else v
                  for k, v in self.prefix.extras.items()}
        return Encoded([*self.prefix.ids, *self.ids], [], extras)


class RereadingDecoder(Decoder):
    """Reads the whole prompt in every call, as clients without a prefix cache do: what `Decoder` is checked against."""

    def prefill(self, prefix: Encoded) -> Unread:
        """See `Decoder`; nothing is read yet."""
        return Unread(prefix)

    def extend(self, states: Sequence[Unread], suffixes: Sequence[Sequence[int]]) -> list[Unread]:
        """See `Decoder`; nothing is read yet."""
        return [state.with_more(suffix) for state, suffix in zip(states, suffixes, strict=True)]

    def score(self, states: Sequence[Unread], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Decoder`."""
        return [super(RereadingDecoder, self).score([super(RereadingDecoder, self).prefill(s.whole())], continuations)[0]
                for s in states]

    def runners_up(self, states: Sequence[Unread], written: Sequence[Sequence[int]]) -> list[tuple[int, int, float]]:
        """See `Decoder`."""
        return super().runners_up([super(RereadingDecoder, self).prefill(s.whole()) for s in states], written)

    def judge(self, states: Sequence[Unread], suffixes: Sequence[Sequence[int]],
              continuations: Sequence[Sequence[int]]) -> tuple[list[Unread], list[list[float]]]:
        """See `Decoder`; a call for every state."""
        behind = self.extend(states, suffixes)
        return behind, self.score(behind, continuations)

    def decode(self, states: Sequence[Unread], max_new_tokens: int, end: int, temperature: float = 0.0,
               seed: int = 0) -> tuple[list[Unread], list[list[int]]]:
        """See `Decoder`."""
        read = [super(RereadingDecoder, self).prefill(state.whole()) for state in states]
        _, written = super().decode(read, max_new_tokens, end, temperature, seed)
        return [state.with_more(tokens) for state, tokens in zip(states, written, strict=True)], written

"""From rows to batches: frames and tokens of a row, rows of like length together, what is too long or has no film left out."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import ProcessorMixin

from expstar_utils.augmentation import augmented
from expstar_utils.clips import clip_frames, clip_outline, clip_path
from expstar_utils.content import digest
from expstar_utils.encoding import IGNORED, Encoded, encode_prefix, encode_turns, merge_extras, pad_right
from expstar_utils.files import dump_line, read_json, write_json
from expstar_utils.media import Frames
from expstar_utils.packing import Layout, encode_group, opening, shared_groups
from expstar_utils.profiles import Profile
from expstar_utils.records import ExpStarError, Problem, Sample, VirtualClip

KEPT_BYTES = 2**31  # of frames, in every process that trains
KEPT_PROMPTS = 1000  # whose length is known


def clip_of(sample: Sample) -> str | VirtualClip:
    """A row's clip. Raises ExpStarError when it has none."""
    if not sample.videos:
        raise ExpStarError(f"row {sample.id}: found no clip in `videos`, expected one; build the rows with notebook 02")
    return sample.videos[0]


@dataclass
class VideoCollator:
    """Rows of a dataset (`{"row": position in groups}`) -> one padded batch.

    Frames are sampled by the project's one sampler, and those used last are kept in memory, up to KEPT_BYTES; with the profile's
    `augment`, a batch holds them changed, for every row in another way. Rows are never cut.
    groups: positions in samples of what is packed into one row; as long as it is not set, every sample is a row of its own.
    telling: token ids by sample id that count for the profile's `telling_weight` each (`captions.telling_tokens`).
    """

    processor: ProcessorMixin
    samples: Sequence[Sample]
    root: Path
    profile: Profile
    turn_end: str
    groups: list[list[int]] | None = None
    telling: Mapping[str, set[int]] | None = None

    def __post_init__(self) -> None:
        self._frames: OrderedDict[str, Frames] = OrderedDict()
        self._kept_bytes = 0
        self._asked_tokens: OrderedDict[tuple, int] = OrderedDict()

    def _sampling(self) -> dict[str, Any]:
        return {"fps": self.profile.fps, "max_frames": self.profile.max_frames_sft, "size_px": self.profile.frame_size}

    def frames(self, sample: Sample) -> Frames:
        """Frames of a row's clip. Raises ExpStarError when it has none."""
        clip = clip_of(sample)
        key = str(clip)
        if key not in self._frames:
            self._frames[key] = clip_frames(clip, self.root, **self._sampling())
            self._kept_bytes += self._frames[key].pixels.nbytes
            while len(self._frames) > 1 and self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= self._frames.popitem(last=False)[1].pixels.nbytes
        self._frames.move_to_end(key)
        return self._frames[key]

    def outline(self, sample: Sample) -> Frames:
        """As many grey frames of the same size, for what depends on no picture: its file's head is read alone."""
        return clip_outline(clip_of(sample), self.root, **self._sampling())

    def encode(self, position: int) -> Encoded:
        """Tokens, labels and frames of one sample."""
        return self.encode_group([position])[0]

    def encode_group(self, group: Sequence[int], augment: bool = False) -> tuple[Encoded, Layout]:
        """Tokens, labels and frames of samples that share all but their branches."""
        samples = [self.samples[i] for i in group]
        frames = self.frames(samples[0])
        shown = augmented(frames, group[0]) if augment else frames
        return encode_group(self.processor, samples, shown, self.turn_end, self.profile.frame_times)

    def layout(self, group: Sequence[int]) -> Layout:
        """How long samples are that share all but their branches; prompts that differ in their pictures alone are read once."""
        samples = [self.samples[i] for i in group]
        frames, times = self.outline(samples[0]), self.profile.frame_times
        first = opening(samples[0])
        asked = samples[0].messages[:first - 1]
        key = (*(m.model_dump_json() for m in asked), frames.pixels.shape, frames.fps, frames.end_s - frames.start_s)
        if key not in self._asked_tokens:
            self._asked_tokens[key] = len(encode_prefix(self.processor, asked, frames, times).ids)
            if len(self._asked_tokens) > KEPT_PROMPTS:
                self._asked_tokens.popitem(last=False)
        answer, *branches = (len(encode_turns(self.processor, messages, self.turn_end)[0]) for messages in
                             (samples[0].messages[first - 1:first], *(sample.messages[first:] for sample in samples)))
        return Layout(self._asked_tokens[key] + answer, tuple(branches))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        groups = [[row["row"]] if self.groups is None else self.groups[row["row"]] for row in rows]
        encoded, layouts = zip(*(self.encode_group(group, self.profile.augment) for group in groups), strict=True)
        ids = pad_right([e.ids for e in encoded], self.processor.tokenizer.pad_token_id)
        labels = pad_right([e.labels for e in encoded], IGNORED)
        mask = pad_right([[1] * len(e.ids) for e in encoded], 0)
        extras = merge_extras([e.extras for e in encoded], [len(e.ids) for e in encoded])
        if self.groups is not None:
            extras["layouts"] = list(layouts)
        if self.telling is not None:
            telling = [self.telling.get(self.samples[group[0]].id, ()) for group in groups]
            weights = [[self.profile.telling_weight if t in its else 1.0 for t in e.labels]
                       for its, e in zip(telling, encoded, strict=True)]
            extras["weights"] = pad_right(weights, 1.0)
        names = [self.samples[group[0]].id for group in groups]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "ids": names, **extras}


class LengthBatches(Sampler):
    """Row positions in an order whose batches hold rows of like length and follow each other by chance.

    The stock sampler sorts each fifty batches by length. Long rows are those that look something up, so that order teaches the
    gate yes for a while and then no for a while, and it never settles.

    Args:
        lengths: of every row. batch: rows an optimiser step. pool: batches whose rows are sorted together.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int = 42, pool: int = 50):
        self.lengths, self.batch, self.seed, self.pool, self.epoch = list(lengths), batch, seed, pool, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        order = rng.sample(range(len(self)), len(self))
        size = self.pool * self.batch
        ranked = [i for at in range(0, len(self), size) for i in sorted(order[at:at + size], key=self.lengths.__getitem__)]
        batches = [ranked[at:at + self.batch] for at in range(0, len(self), self.batch)]
        whole, rest = batches[:len(self) // self.batch], batches[len(self) // self.batch:]
        rng.shuffle(whole)
        yield from (i for group in whole + rest for i in group)

    def set_epoch(self, epoch: int) -> None:
        """Another order for every epoch, the same one for a resumed run."""
        self.epoch = epoch


def row_lengths(collator: VideoCollator, groups: Sequence[Sequence[int]] | None = None) -> list[tuple[int, int] | str]:
    """Length of every sample in tokens: (up to the end of its first answer, behind it); or why its clip cannot be read.

    Args:
        groups: positions of the samples, those together that are read together; None takes those that share a prompt.
    """
    lengths: list[tuple[int, int] | str] = [""] * len(collator.samples)
    for group in tqdm(shared_groups(collator.samples) if groups is None else groups, desc="lengths", unit="row"):
        try:
            layout = collator.layout(group)
            found = [(layout.shared, branch) for branch in layout.branches]
        except ExpStarError as error:
            found = [str(error)] * len(group)
        for position, length in zip(group, found, strict=True):
            lengths[position] = length
    return lengths


def counted_once(path: Path, collator: VideoCollator, count: Callable[[], list]) -> list:
    """What `count` says of every sample's length, kept in a file: it reads every clip's head, a killed run need not do so again.

    Args:
        path: of the file; it is passed over where it is damaged, or was made of other rows, clips, frames or tokens.
    """
    profile, processor = collator.profile, collator.processor
    clips = {clip_path(sample.videos[0], collator.root) for sample in collator.samples if sample.videos}
    dates = [(str(clip), clip.stat().st_size, clip.stat().st_mtime_ns) for clip in sorted(clips) if clip.is_file()]
    of = digest([[dump_line(sample) for sample in collator.samples], dates, type(processor).__name__, len(processor.tokenizer),
                 processor.tokenizer.chat_template, profile.fps, profile.max_frames_sft, profile.frame_size, profile.packed,
                 profile.frame_times])
    with suppress(ExpStarError, KeyError, TypeError):
        known = read_json(path)
        if known["of"] == of and known["sha256"] == digest(known["lengths"]):
            return known["lengths"]
    lengths = count()
    write_json(path, {"of": of, "sha256": digest(lengths), "lengths": lengths}, indent=None)
    return lengths


def left_out(samples: Sequence[Sample], lengths: Sequence[int | str], limit: int, problems: Path) -> set[int]:
    """Positions of rows longer than `limit` tokens, never cut, and of those whose clip cannot be read; listed in `problems`.

    Args:
        lengths: of every row in tokens, or why its clip cannot be read.
    """
    listed = {}
    for i, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
        if isinstance(length, str):
            listed[i] = Problem(file=sample.id, field="row", found=f"none that can be read ({length})",
                                expected="one with a whole film", todo="mend it; the row was left out")
        elif length > limit:
            listed[i] = Problem(file=sample.id, field="length", found=f"{length} tokens", expected=f"at most {limit}",
                                todo="raise max_length or shorten the passage; the row was left out")
    write_json(problems, [problem.model_dump() for problem in listed.values()])
    if listed:
        print(f"{len(listed)} of {len(samples)} rows are left out; {problems} says why")
    return set(listed)

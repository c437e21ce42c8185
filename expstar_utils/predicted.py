"""A file of predictions: what stands in it or in the files of its shards, what is left to do, in which order its rows come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from expstar_utils.datasets import Case, by_experiment
from expstar_utils.decisions import Settings
from expstar_utils.files import read_jsonl, write_jsonl
from expstar_utils.records import ExpStarError, Prediction
from expstar_utils.sharing import shard_files, share

Turn = list[tuple[list[Case], int]]


def turns(cases: Sequence[Case], together: int) -> Iterator[Turn]:
    """What goes through the model side by side, one turn after the other: (steps of an experiment, which of them).

    Args:
        together: experiments side by side, >= 1; the next ones begin when the last steps of these are done.
    """
    for group in _groups(cases, together):
        for index in range(max(map(len, group))):
            yield [(steps, index) for steps in group if index < len(steps)]


def _groups(cases: Sequence[Case], together: int) -> list[list[list[Case]]]:
    experiments = list(by_experiment(cases))
    return [experiments[at:at + together] for at in range(0, len(experiments), together)]


def cases_of_shard(cases: Sequence[Case], together: int, shard: int, num_shards: int) -> list[Case]:
    """A shard's cases: whole experiments, and those that go side by side in a run without shards stay together.

    What stands beside a row moves the last digits of its probabilities: so a shard's rows are those of the whole, to the byte.

    Args:
        together: see `turns`. shard, num_shards: see `sharing.share`.

    Raises:
        ExpStarError: a shard that is none.
    """
    return [case for group in share(_groups(cases, together), shard, num_shards) for steps in group for case in steps]


def read_predictions(out: Path, settings: Settings) -> dict[str, Prediction]:
    """Predictions of a file by id, in its order; none where there is no such file.

    Raises:
        ExpStarError: some were made with other settings; names the first.
    """
    done = {p.id: p for p in read_jsonl(out, Prediction)} if Path(out).is_file() else {}
    for prediction in done.values():
        if wrong := _differing(prediction, settings):
            key, found, wanted = wrong
            raise ExpStarError(f"{out}: holds predictions made with {key}={found!r}, expected {key}={wanted!r}; give another "
                               "run_dir, or remove the file to start again")
    return done


def _differing(prediction: Prediction, settings: Settings) -> tuple[str, object, object] | None:
    """(name, found, wanted) of the first setting that a prediction was not made with."""
    found = prediction.evaluation_data.get("settings", {})
    return next(((key, found.get(key), value) for key, value in asdict(settings).items() if found.get(key) != value), None)


def gathered(out: Path, cases: Sequence[Case], settings: Settings, together: int) -> dict[str, Prediction]:
    """Predictions of a file by id, after it took over what its shards' files hold; those files stay.

    Rows of shards that were made with other settings are left out, and so are all of a turn that was not written to its end:
    done again it comes to what an undisturbed run gives.

    Args:
        cases: of the whole file. together: see `turns`.

    Raises:
        ExpStarError: the file itself holds predictions made with other settings.
    """
    done, found = read_predictions(out, settings), {}
    for path in shard_files(out):
        found |= {p.id: p for p in read_jsonl(path, Prediction) if not _differing(p, settings)}
    known, mine = found | done, {case.id for case in cases}
    whole = {i: prediction for i, prediction in done.items() if i not in mine}
    for turn in turns(cases, together):
        ids = [steps[index].id for steps, index in turn]
        whole |= {i: known[i] for i in ids} if all(i in known for i in ids) else {}
    if whole.keys() == done.keys():
        return done
    write_jsonl(out, whole.values())
    return whole


def settled(out: Path, done: Mapping[str, Prediction], cases: Sequence[Case], together: int) -> list[Prediction]:
    """Predictions of cases, in their order, when a run has come to its end; `out` has its rows as an undisturbed run writes them.

    Args:
        done: what `out` holds, by id and in its order. together: see `turns`.
    """
    order = [steps[index].id for turn in turns(cases, together) for steps, index in turn if steps[index].id in done]
    sorts = len(order) == len(done) and order != list(done)  # a file that holds more than these cases stays as it is
    if sorts or not (cases or done):  # a shard without a share leaves an empty file
        write_jsonl(out, (done[case_id] for case_id in order))
    return [done[case.id] for case in cases if case.id in done]

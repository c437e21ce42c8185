"""Locks that the system lets go when the process that holds them ends, however it ends; and what such a process leaves behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from expstar_utils.files import explained
from expstar_utils.records import ExpStarError

_held: dict[Path, TextIO] = {}


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs.

    Raises:
        ExpStarError: another process holds it; names its number.
    """
    with _open(path, what):
        yield


def hold(path: Path, what: str) -> None:
    """Hold a lock until `let_go`, or until this process ends; what it holds already it may hold again.

    Raises:
        ExpStarError: another process holds it; names its number.
    """
    path = Path(path).resolve()
    if path not in _held:
        _held[path] = _open(path, what)


def let_go(path: Path) -> None:
    """Let go of a lock of `hold`, if it is held."""
    if file := _held.pop(Path(path).resolve(), None):
        file.close()


def _open(path: Path, what: str) -> TextIO:
    """The open file of a lock, with this process's number in it; closing it lets go of the lock."""
    with explained(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf8")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        number = file.read().strip()
        file.close()
        raise ExpStarError(f"{what} is being run by process {number or 'unknown'} already; wait for it, or name another "
                           "run") from None
    file.truncate(0)
    try:
        file.write(str(os.getpid()))
        file.flush()
    except OSError:  # of a full disk: the lock is held all the same
        pass
    return file


def remove_unused(paths: Iterable[Path], seconds: float) -> None:
    """Remove files and folders that nobody has changed for so long."""
    for path in paths:
        with suppress(OSError):  # another process was first
            if time.time() - path.stat().st_mtime > seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

"""Small disks and read-only ones, where mounting is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096


def _mounts(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting needs root's rights ({done.stderr.strip()[:80]})")


@contextmanager
def small_disk(folder: Path, holding: Path) -> Iterator[Path]:
    """A disk at `folder` with a copy of what is in `holding`, and much room; see `leave`."""
    folder.mkdir(parents=True)
    _mounts("-t", "tmpfs", "-o", "size=4g", "none", str(folder))
    try:
        shutil.copytree(holding, folder, dirs_exist_ok=True, symlinks=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, room: int) -> None:
    """Make a small disk so small, or so large, that `room` bytes are free."""
    about = os.statvfs(disk)
    used = (about.f_blocks - about.f_bfree) * about.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={used + max(room, PAGE) // PAGE * PAGE}", str(disk)], check=True)


def read_only(*folders: Path) -> list[str]:
    """Words before a command that runs it where these folders cannot be written to; nothing outside it sees that."""
    bound = "".join('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && ' for _ in folders)
    words = ["unshare", "--mount", "sh", "-c", f'{bound}exec "$@"', "sh", *map(str, folders)]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("binding a folder read-only needs root's rights")
    return words

"""Reading and writing files: atomic, line by line, with one clear sentence for what is wrong."""

from __future__ import annotations

import errno
import json
import os
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from pydantic import ValidationError

from expstar_utils.records import ExpStarError, Record

R = TypeVar("R", bound=Record)
UNION_TAGS = ("str", "int", "float", "tuple", "Pixels")  # pydantic names the branch of a union as if it were a field
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # how a cell begins that a spreadsheet would run
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes, characters
LITTLE = 2**16  # bytes of free space, with which nothing is written
SHORT = reprlib.Repr()  # shows the beginning of a value, however large it is
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 3, 20, 20, 200, 80, 200


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an error of writing to a file, or into a folder, into one sentence; for what libraries write, too.

    safetensors, faiss and torch raise errors of their own where the disk is full, which are known by the disk.

    Raises:
        ExpStarError: instead of an `OSError`, or of any error while the disk is full.
    """
    try:
        yield
    except ExpStarError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) and error.strerror) and not _is_full(Path(path), error):
            raise
        why = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC)
        raise ExpStarError(f"{path}: cannot be written ({why}); free space or choose another run_dir, "
                           "what was there before is unchanged") from error


def _is_full(path: Path, error: Exception) -> bool:
    """Whether an error tells of a full disk, or the disk has no room left."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    return os.strerror(errno.ENOSPC) in str(error) or (there is not None and shutil.disk_usage(there).free < LITTLE)


@contextmanager
def writing(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that writes text to a file, part by part: under a temporary name, renamed when the block ends without an error.

    Readers see the old file or the new one, whole.

    Raises:
        ExpStarError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    path, temporary = Path(path), None
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile("w", encoding="utf8", newline="", dir=path.parent,  # noqa: SIM115
                                               prefix=f".{path.name[:40]}.", suffix=".part", delete=False)
        temporary = Path(file.name)

        def write(text: str) -> None:
            with explained(path):
                file.write(text)
        try:
            yield write
            with explained(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with suppress(OSError):  # of a full disk, which was said already
                file.close()
        with explained(path):
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path for a file or a folder that takes the place of `path` when the block ends without an error.

    Raises:
        ExpStarError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        with suppress(OSError):  # there is none, or no folder for it
            unfinished.unlink()


def write_text(path: Path, text: str) -> Path:
    """Write a text file; see `writing`."""
    with writing(path) as write:
        write(text)
    return Path(path)


def write_json(path: Path, data: Any, indent: int | None = 2) -> Path:
    """Write JSON atomically; records are written as they were read."""
    plain = data.to_dict() if isinstance(data, Record) else data
    return write_text(path, json.dumps(plain, ensure_ascii=False, indent=indent, default=str))


def dump_line(row: Record | dict) -> str:
    """One JSONL line without its line end."""
    return json.dumps(row.to_dict() if isinstance(row, Record) else row, ensure_ascii=False)


def write_jsonl(path: Path, rows: Iterable[Record | dict]) -> Path:
    """Write JSONL row by row; see `writing`."""
    with writing(path) as write:
        for row in rows:
            write(dump_line(row) + "\n")
    return Path(path)


def append_jsonl(path: Path, row: Record | dict) -> None:
    """Append one whole line; a torn last line of a killed writer is dropped first.

    Raises:
        ExpStarError: the disk is full or the file cannot be written; the lines before are untouched.
    """
    path, line = Path(path), dump_line(row).encode("utf8") + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            if file.read(1) not in (b"", b"\n"):
                _mend_last_line(file)
            file.write(line)
    except OSError as error:
        raise ExpStarError(f"{path}: cannot be appended to ({error.strerror}); free space or choose another run_dir, "
                           "the lines before are unchanged") from error


def _mend_last_line(file: BinaryIO) -> None:
    """End a last line that lacks only its line end (`read_jsonl` takes it as a row); drop a torn one."""
    file.seek(0)
    last = file.read().rpartition(b"\n")[2]
    try:
        json.loads(last)
        file.write(b"\n")
    except (ValueError, RecursionError):
        file.truncate(file.tell() - len(last))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ExpStarError: missing, not UTF-8 or not JSON; names the file and the place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file; run the notebook that writes it first") from None
    except OSError as error:
        raise ExpStarError(f"{path}: cannot be read ({error.strerror}), expected a JSON file; check the path") from None
    except (ValueError, RecursionError) as error:  # also numbers and nesting that Python refuses
        raise ExpStarError(f"{path}: found text that is not JSON ({error}), expected one JSON value") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values: no tags, and no aliases, by which a few lines become gigabytes.

    Raises:
        ExpStarError: missing, not UTF-8, not YAML, or with a tag or an alias in it.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Plain)  # noqa: S506  (a SafeLoader)
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file, expected YAML; check the path") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ExpStarError(f"{path}: found text that cannot be read as YAML ({' '.join(str(error).split())[:200]}), expected "
                           "plain values; correct it") from None


class _Plain(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """The stock node; an alias is refused."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias, *{self.peek_event().anchor}")
        return super().compose_node(parent, index)


def read_named(kind: str, name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A YAML file of settings by its name in a folder, or by its path: (path, its values).

    Args:
        kind: what it is, for the sentence, such as "profile".

    Raises:
        ExpStarError: there is none, or it holds no mapping; see `read_yaml` too.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(folder) / f"{name}.yaml"
    if not os.path.isfile(path):  # also of a name that no file can have
        known = sorted(p.stem for p in Path(folder).glob("*.yaml"))
        raise ExpStarError(f"{kind} {name[:200]!r} was not found, expected one of {known} or the path of a YAML file")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ExpStarError(f"{kind} {path}: found no settings, expected a YAML mapping like those in {folder}")
    return path, values


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record from a JSON file; see `read_json`. A wrong field is named in the error."""
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise ExpStarError(f"{path}: {describe(error)}") from None


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Records of a JSONL file, one by one. A torn last line (no line end, no JSON) is left out.

    Raises:
        ExpStarError: names file, line and field of the first bad line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; opening fails before the first row)
    except FileNotFoundError:
        raise ExpStarError(f"{path}: no such file; run the notebook that writes it first") from None
    except OSError as error:
        raise ExpStarError(f"{path}: cannot be read ({error.strerror}), expected a JSONL file; check the path") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate(json.loads(line.decode("utf-8-sig")))
            except ValidationError as error:
                raise ExpStarError(f"{path}, line {number}: {describe(error)}") from None
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return  # torn, perhaps inside a character
                raise ExpStarError(f"{path}, line {number}: found text that is not JSON ({error})") from None


def describe(error: ValidationError) -> str:
    """First fault of a pydantic error as `field is X, expected Y`."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"] if part not in UNION_TAGS) or "value"
    found = "missing" if fault["type"] == "missing" else SHORT.repr(fault["input"])
    return f"{field} is {found[:80]}, expected: {fault['msg'].removeprefix('Value error, ')}"


def inside(root: Path, path: str | Path) -> Path:
    """`path` under `root`, refused when it leaves it.

    Raises:
        ExpStarError: the path points outside the data set.
    """
    root = Path(root).resolve()
    try:
        full = (root / path).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL in the name, links that go round
        raise ExpStarError(f"{str(path)!r}: not a usable path ({error}), expected one inside the data set; correct it") from None
    if not full.is_relative_to(root):
        raise ExpStarError(f"{str(path)[:200]}: found a path outside {root}, expected one inside the data set; correct it")
    if any(len(part.encode("utf8", "replace")) > LONGEST_NAME for part in full.parts) or len(str(full)) > LONGEST_PATH:
        raise ExpStarError(f"{str(path)[:80]!r}…: found a name that no file can have, expected one inside the data set; "
                           "correct it")
    return full


def guarded(text: str) -> str:
    """Text of a table's cell that a spreadsheet shows and does not run: an apostrophe stands before what looks like a formula."""
    text = text.replace("\r", " ")  # the csv module leaves it unquoted, and readers take it as the end of a row
    return f"'{text}" if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA) else text

"""What a result depends on, as hashes of content: code without its comments, data files, the part of a profile that is read."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from expstar_utils.records import ExpStarError
from expstar_utils.runlog import ROOT, content_hash, file_hash

PACKAGE = Path(__file__).parent


def digest(value: Any) -> str:
    """sha256 of a value's JSON text, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode("utf8")).hexdigest()


@cache
def notebook_hash(path: Path) -> str:
    """Hash of a notebook's code cells and of every module of this package that they reach; prose and comments do not count.

    Raises:
        ExpStarError: no such notebook, or a cell that is no Python.
    """
    try:
        trees = [ast.parse(cell.source) for cell in _cells(path) if cell.cell_type == "code"]
    except (OSError, ValueError, SyntaxError) as error:
        raise ExpStarError(f"{path}: found no notebook of Python cells ({str(error)[:120]}); check the path") from None
    return digest([[_bare(tree) for tree in trees], modules_hash(frozenset().union(*map(_imported, trees)))])


def _cells(path: Path) -> list[Any]:
    import nbformat  # a second and more, which every training would wait for
    try:
        return nbformat.read(path, as_version=4).cells
    except nbformat.ValidationError as error:
        raise ValueError(error.message) from None


@cache
def parameters_of(path: Path) -> frozenset[str]:
    """Names of a notebook's own parameters, those of the cell that is tagged so."""
    cells = [cell for cell in _cells(path) if "parameters" in cell.metadata.get("tags", [])]
    return frozenset(target.id for cell in cells for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)
                     for target in node.targets if isinstance(target, ast.Name))


@cache
def modules_hash(names: frozenset[str]) -> str:
    """Hash of modules of this package, by their names within it, and of all that they import from it."""
    return digest({name: _module_hash(name) for name in sorted(_reached(names))})


def _reached(names: Iterable[str]) -> set[str]:
    found, todo = set(), list(names)
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += _imported_by(name)
    return found


@cache
def _imported_by(name: str) -> frozenset[str]:
    return _imported(_tree(name))


def _imported(tree: ast.Module) -> frozenset[str]:
    """Modules of this package that are imported anywhere in a tree, such as `files` and `figures.style`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.removeprefix("expstar_utils.") for name in found if name.startswith("expstar_utils.")}
    return frozenset(name for name in inside if _file(name))


def _file(name: str) -> Path | None:
    place = PACKAGE.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _module_hash(name: str) -> str:
    return digest(_bare(_tree(name)))


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_file(name).read_text(encoding="utf8"))


def _bare(tree: ast.Module) -> str:
    """A tree as text, from which docstrings are taken; comments and layout are not in it anyway."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


@cache
def data_hash(patterns: tuple[str, ...]) -> str:
    """Hash of the repository's files that match patterns, such as `data/mini/*.yaml`."""
    return digest({str(path.relative_to(ROOT)): file_hash(path) for path in sorted(set(_matching(ROOT, patterns)))})


@cache
def listing_hash(folder: Path) -> str:
    """Hash of a folder's files by name and size: raw videos are too many to be read for it."""
    return digest(sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()))


def _matching(root: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in root.glob(pattern) if path.is_file())


def result_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Files below a folder that match patterns, sorted; unfinished ones (hidden) are left out."""
    return sorted({path for path in _matching(Path(root), patterns) if not path.name.startswith(".")})


def result_hash(path: Path) -> str:
    """sha256 of a result file; of a stage's metrics only what was measured counts, not when, how fast or by which commit.

    Raises:
        ExpStarError: metrics that are no JSON.
    """
    if not path.name.endswith("metrics.json"):
        return content_hash([path])
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ExpStarError(f"{path}: found no metrics ({error}); run its job again") from None
    return digest(record.get("metrics") if isinstance(record, Mapping) else record)

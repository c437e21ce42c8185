"""The things a scene can show, by name. A sprite draws itself about its origin; 1 unit is its `size`.

A sprite is a function `name(c, **parameters)` marked with `@sprite`. Its origin is the middle of its bottom edge
unless its docstring says otherwise. Every parameter has a default; numbers and colours may be animated by the scene.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

SPRITES: dict[str, Callable] = {}


def sprite(function: Callable) -> Callable:
    """Register a drawing function under its own name; two sprites of one name are an error."""
    name = function.__name__
    if name in SPRITES and SPRITES[name].__module__ != function.__module__:
        raise ValueError(f"sprite {name!r} is defined in {SPRITES[name].__module__} and {function.__module__}")
    SPRITES[name] = function
    return function


def parameters(name: str) -> set[str]:
    """Names of the parameters that a sprite takes."""
    return set(inspect.signature(SPRITES[name]).parameters) - {"c"}


for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

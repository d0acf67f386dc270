"""Recipes of `datasets/` by name, and their tables."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from graphfusion.data.recipe import SPLITS, load_script

SHELF = Path(__file__).parents[1] / "datasets"
STAMP = "made.json"
"""File beside the tables that says what they were made by."""


def load_recipe(name: str) -> ModuleType:
    """`datasets/<name>/convert.py` as a module."""
    return load_script(SHELF / name / "convert.py")


def make_tables(name: str, source: Path | None, folder: Path, options: Sequence[str] = ()) -> Path:
    """The folder with the tables that the recipe's `FIT` is for, at or below `folder`; converted where one is missing, with a
    stamp beside them. Tables that are there are taken as they are, which is said where a source is given, unless their stamp
    tells of another version of the recipe or of other options. Older ones have no stamp.

    Raises:
        SystemExit: 2, once it is said why: the source is not there, the recipe failed, or the stamp is another.
    """
    recipe = load_recipe(name)
    if source and not source.exists():
        _stop(f"{source}: no such file or folder.")
    tables = folder / getattr(recipe, "TABLES", "")
    made = {"recipe": _digest(recipe), "options": [*options]}
    if not all((tables / f"{split}.parquet").is_file() for split in SPLITS):
        given = ["--source", str(source)] if source else []
        status = recipe.main(["--out", str(folder), *given, *options])
        if status:
            raise SystemExit(status)
        (tables / STAMP).write_text(f"{json.dumps(made)}\n")
    elif difference := _difference(tables / STAMP, made):
        _stop(f"{tables}: tables are there, but {difference}; delete the folder to convert anew, or name another.")
    elif source:
        print(
            f"{tables}: tables are there, {source} is not read (delete the folder to convert it anew)", file=sys.stderr
        )
    return tables


def _digest(recipe: ModuleType) -> str:
    """SHA-256 of the recipe's script; empty for a module that has none."""
    script = getattr(recipe, "__file__", None)
    return hashlib.sha256(Path(script).read_bytes()).hexdigest() if script else ""


def _difference(stamp: Path, made: Mapping[str, Any]) -> str:
    """How the tables beside `stamp` were made otherwise than `made` says; empty if they were not, or if there is no stamp."""
    if not stamp.is_file():
        return ""
    try:
        found = json.loads(stamp.read_bytes())
        recipe, options = found["recipe"], [*found["options"]]
    except (ValueError, KeyError, TypeError):
        return f"{stamp.name} beside them cannot be read"
    differing = []
    if recipe != made["recipe"]:
        differing.append("by another version of the recipe (its convert.py has changed)")
    if options != made["options"]:
        differing.append(f"with other options ({_spelt(options)}; now {_spelt(made['options'])})")
    return f"they were made {' and '.join(differing)}" if differing else ""


def _spelt(options: Sequence[Any]) -> str:
    return " ".join(map(str, options)) or "none"


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)

"""Recipes of `datasets/` by name, and their tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from graphfusion.data.recipe import SPLITS, load_script

SHELF = Path(__file__).parents[1] / "datasets"


def load_recipe(name: str) -> ModuleType:
    """`datasets/<name>/convert.py` as a module."""
    return load_script(SHELF / name / "convert.py")


def make_tables(name: str, source: Path | None, folder: Path, options: Sequence[str] = ()) -> Path:
    """The folder with the tables that the recipe's `FIT` is for, at or below `folder`; converted where one is missing. Tables that
    are there are taken as they are, which is said where a source is given.

    Raises:
        SystemExit: the recipe failed; it has said why.
    """
    recipe = load_recipe(name)
    tables = folder / getattr(recipe, "TABLES", "")
    if not all((tables / f"{split}.parquet").is_file() for split in SPLITS):
        given = ["--source", str(source)] if source else []
        status = recipe.main(["--out", str(folder), *given, *options])
        if status:
            raise SystemExit(status)
    elif source:
        print(
            f"{tables}: tables are there, {source} is not read (delete the folder to convert it anew)", file=sys.stderr
        )
    return tables

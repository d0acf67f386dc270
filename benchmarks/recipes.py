"""Recipes of `datasets/` by name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from graphfusion.data.recipe import load_script

SHELF = Path(__file__).parents[1] / "datasets"


def load_recipe(name: str) -> ModuleType:
    """`datasets/<name>/convert.py` as a module."""
    return load_script(SHELF / name / "convert.py")

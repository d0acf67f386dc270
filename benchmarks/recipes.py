"""Recipes of `datasets/` as modules. The shelf is not a package: one of that name would shadow Hugging Face's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SHELF = Path(__file__).parents[1] / "datasets"


def load_recipe(name: str) -> ModuleType:
    """`datasets/<name>/convert.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", SHELF / name / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

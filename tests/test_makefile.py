"""The Makefile names what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_table_is_made_again() -> None:
    """`make tables` runs every script that says it can make its table from the CSV alone."""
    able = {p.name for p in (ROOT / "benchmarks").glob("*.py") if f"{p.name} --table  " in p.read_text()}
    target = re.search(r"^tables:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target
    assert set(re.findall(r"benchmarks/(\w+\.py) --table$", target[1], re.MULTILINE)) == able
    assert len(able) >= 5

"""Every recipe's card and the README state the rows that the converter insists on, and what a card has to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.recipes import SHELF, load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent.name for path in SHELF.glob("*/CARD.md"))
SPLITS = ("train", "valid", "test")


def rows_of(name: str) -> dict[str, Mapping[str, int]]:
    """Variant → split → rows; one without variants is called "" (digit_ops has two)."""
    rows = load_recipe(name).ROWS
    return rows if all(isinstance(r, dict) for r in rows.values()) else {"": rows}


def card_of(name: str) -> str:
    return (SHELF / name / "CARD.md").read_text()


def test_every_recipe_has_a_card() -> None:
    assert sorted(path.parent.name for path in SHELF.glob("*/convert.py")) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_the_card_s_table_has_the_converter_s_rows(name: str) -> None:
    for rows in rows_of(name).values():
        side_by_side = " / ".join(f"{rows[s]:,}" for s in SPLITS)
        lines = [line for line in card_of(name).splitlines() if line.startswith("| ")]
        stacked = all(any(re.match(rf"\| {s} \|(.*\|)? {rows[s]:,} \|", line) for line in lines) for s in SPLITS)
        assert stacked or any(f"| {side_by_side} |" in line for line in lines)


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_s_table_has_the_converter_s_rows(name: str) -> None:
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| [{name}]"))
    rows = next(iter(rows_of(name).values()))
    assert " / ".join(f"{rows[s]:,}" for s in SPLITS) in line


@pytest.mark.parametrize("name", RECIPES)
def test_a_card_states_source_splits_limits_licence_and_command(name: str) -> None:
    card = card_of(name)
    for part in (r"\*\*Sources?\.\*\*", r"\*\*Splits\.\*\*", r"\*\*Known limits\.\*\*", r"\b[Cc]ite\b"):
        assert re.search(part, card), part
    assert re.search(r"[Ll]icen[cs]e|CC BY|\bMIT\b|GPL|research", card)
    assert f"benchmarks/train.py {name}" in card

"""One fit on the tables of a recipe, with the settings that the recipe names: the documented command of every card.

    python benchmarks/train.py esc10 --source ../shared/data/esc10.tar
    python benchmarks/train.py esc10 --source esc10.tar --set epochs=3 dim=32

Converts first where the tables are not there; tables that another version of the recipe made are refused. The epoch is chosen on
valid.parquet (where the card says that it is blind, the last one is kept); test.parquet is sealed during the fit and read once
after it; an answer that no training row has counts as answered wrongly. Try settings with `--no-test`: what is chosen by test
scores is no longer measured by them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.recipes import SHELF, load_recipe, make_tables
from graphfusion import FusionPredictor
from graphfusion.data import sealed
from graphfusion.errors import ConfigError, GraphFusionError

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where something given cannot be used."""
    options = make_parser().parse_args(arguments)
    try:
        scores = fit_and_score(options)
    except (GraphFusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plain = {s: {k: v for k, v in found.items() if isinstance(v, int | float)} for s, found in scores.items()}
    print(json.dumps(plain, indent=2))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    names = sorted(p.parent.name for p in SHELF.glob("*/convert.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=names)
    parser.add_argument(
        "--source", type=Path, help="as the recipe takes it; without it the recipe downloads, if it can"
    )
    parser.add_argument("--tables", type=Path, help="folder for the converted tables (default build/<recipe>)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings of FusionPredictor, as JSON",
    )
    parser.add_argument("--no-test", action="store_true", help="scores of validation rows alone")
    return parser


def fit_and_score(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Split → its scores. What is wrong with the options is told before anything is converted."""
    recipe = load_recipe(options.recipe)
    predictor = FusionPredictor(seed=options.seed, **{**recipe.FIT, **settings(options.set)})
    chosen = getattr(recipe, "CHOOSE_EPOCH", True)  # validation rows may be blind: then the last epoch is kept
    splits = [*(["valid"] if chosen else []), *([] if options.no_test else ["test"])]
    if not splits:
        raise ConfigError(
            f"--no-test: {options.recipe} scores no validation rows, since they are blind (datasets/{options.recipe}/CARD.md "
            "says why), so nothing would be scored. Leave --no-test out."
        )
    tables = make_tables(options.recipe, options.source, options.tables or ROOT / "build" / options.recipe)
    with sealed(tables / "test.parquet"):
        predictor.fit(tables / "train.parquet", valid=tables / "valid.parquet" if chosen else None)
    return {s: predictor.evaluate(tables / f"{s}.parquet", unseen="wrong") for s in splits}


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """What `--set` gives to FusionPredictor; of a name that comes twice the last value.

    Raises:
        ConfigError: it is the seed, which has an option of its own.
    """
    found = dict(map(setting, texts))
    if "seed" in found:
        raise ConfigError(f"--set seed: the seed has an option of its own; use --seed {found['seed']}.")
    return found


def setting(text: str) -> tuple[str, object]:
    """`name=value` → name and value; a value that is no JSON is text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())

"""One fit on the tables of a recipe, with the settings that the recipe names: the documented command of every card.

    python benchmarks/train.py esc10 --source ../shared/data/esc10.tar
    python benchmarks/train.py esc10 --source esc10.tar --set epochs=3 dim=32

Converts first where the tables are not there. The epoch is chosen on valid.parquet (where the card says that it is blind, the last
one is kept); test.parquet is sealed during the fit and read once after it; an answer that no training row has counts as answered
wrongly. Try settings with `--no-test`: what is chosen by test scores is no longer measured by them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.recipes import SHELF, load_recipe, make_tables
from graphfusion import FusionPredictor
from graphfusion.data import sealed
from graphfusion.errors import GraphFusionError

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    names = sorted(p.parent.name for p in SHELF.glob("*/convert.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=names)
    parser.add_argument(
        "--source", type=Path, help="as the recipe takes it; without it the recipe downloads, if it can"
    )
    parser.add_argument("--tables", type=Path, help="folder for the converted tables (default build/<recipe>)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of FusionPredictor, as JSON"
    )
    parser.add_argument("--no-test", action="store_true", help="scores of validation rows alone")
    options = parser.parse_args(arguments)
    tables = make_tables(options.recipe, options.source, options.tables or ROOT / "build" / options.recipe)
    try:
        recipe = load_recipe(options.recipe)
        settings = {**recipe.FIT, **dict(map(setting, options.set))}
        predictor = FusionPredictor(seed=options.seed, **settings)
        chosen = getattr(recipe, "CHOOSE_EPOCH", True)  # validation rows may be blind: then the last epoch is kept
        with sealed(tables / "test.parquet"):
            predictor.fit(tables / "train.parquet", valid=tables / "valid.parquet" if chosen else None)
        splits = [*(["valid"] if chosen else []), *([] if options.no_test else ["test"])]
        scores = {s: predictor.evaluate(tables / f"{s}.parquet", unseen="wrong") for s in splits}
    except GraphFusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plain = {s: {k: v for k, v in found.items() if isinstance(v, int | float)} for s, found in scores.items()}
    print(json.dumps(plain, indent=2))
    return 0


def setting(text: str) -> tuple[str, object]:
    """`name=value` → name and value; a value that is no JSON is text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())

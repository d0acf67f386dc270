"""`graphfusion predict`."""

from __future__ import annotations

import argparse
from typing import Any

from graphfusion.cli import answers
from graphfusion.cli.answers import Columns, answer, plain_numbers
from graphfusion.cli.parser import Parser, row_options

SENTENCE = "Answer for each row of a table; answers line up with the rows."
EXAMPLE = "graphfusion predict runs/a new.csv --out answers.csv"


def add_options(parser: Parser) -> None:
    """Model and table, what to answer and where."""
    group = answers.add_options(parser)
    group.add_argument("--proba", action="store_true", help="the probability of each class in place of the answer")


def run(options: argparse.Namespace) -> int:
    """Write a column a target (or a class, with --proba); a row left out has an empty answer."""
    made = _probabilities if options.proba else _outputs
    return answer(options, lambda predictor: _names(predictor, options.proba), made)


def _names(predictor: Any, proba: bool) -> list[str]:
    """Of the columns of the answers."""
    if not proba:
        return list(predictor.targets)
    classes = {target: getattr(predictor.schema.targets[target], "classes", ()) for target in predictor.targets}
    return [f"{target}={name}" for target, names in classes.items() for name in names]


def _outputs(predictor: Any, options: argparse.Namespace) -> Columns:
    found = predictor.predict(options.table, **row_options(options))
    return {predictor.targets[0]: found} if len(predictor.targets) == 1 else found


def _probabilities(predictor: Any, options: argparse.Namespace) -> Columns:
    """`target=class` → probability of each row."""
    found = predictor.predict_proba(options.table, **row_options(options))
    found = found if isinstance(found, dict) else {predictor.targets[0]: found}
    return {
        f"{target}={name}": plain_numbers(array[:, i])
        for target, array in found.items()
        for i, name in enumerate(predictor.schema.targets[target].classes)
    }

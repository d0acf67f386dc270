"""`graphfusion predict`."""

from __future__ import annotations

import argparse
from typing import Any

from graphfusion.cli.answers import add_answer_options, format_of, kept_columns, plain_numbers, write_answers
from graphfusion.cli.parser import (
    Parser,
    add_model_and_table,
    add_row_options,
    check_incidents,
    row_options,
    write_incidents,
)

SENTENCE = "Answer for each row of a table; answers line up with the rows."
EXAMPLE = "graphfusion predict runs/a new.csv --out answers.csv"


def add_options(parser: Parser) -> None:
    """Model and table, what to answer and where."""
    add_model_and_table(parser)
    answers = add_answer_options(parser)
    answers.add_argument("--proba", action="store_true", help="the probability of each class in place of the answer")
    add_row_options(parser)


def run(options: argparse.Namespace) -> int:
    """Write a column a target (or a class, with --proba); a row left out has an empty answer."""
    format_of(options)
    check_incidents(options)
    from graphfusion.predictor import FusionPredictor

    predictor = FusionPredictor.load(options.model).to(options.device)
    kept = kept_columns(options, _names(predictor, options.proba))
    columns = _probabilities(predictor, options) if options.proba else _outputs(predictor, options)
    write_incidents(predictor, options)
    write_answers(columns, options, kept)
    return 0


def _names(predictor: Any, proba: bool) -> list[str]:
    """Of the columns of the answers."""
    if not proba:
        return list(predictor.targets)
    classes = {target: getattr(predictor.schema.targets[target], "classes", ()) for target in predictor.targets}
    return [f"{target}={name}" for target, names in classes.items() for name in names]


def _outputs(predictor: Any, options: argparse.Namespace) -> dict[str, Any]:
    found = predictor.predict(options.table, **row_options(options))
    return {predictor.targets[0]: found} if len(predictor.targets) == 1 else found


def _probabilities(predictor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """`target=class` → probability of each row."""
    found = predictor.predict_proba(options.table, **row_options(options))
    found = found if isinstance(found, dict) else {predictor.targets[0]: found}
    return {
        f"{target}={name}": plain_numbers(array[:, i])
        for target, array in found.items()
        for i, name in enumerate(predictor.schema.targets[target].classes)
    }

"""`graphfusion weigh`."""

from __future__ import annotations

import argparse

from graphfusion.cli.answers import add_answer_options, format_of, kept_columns, plain_numbers, write_answers
from graphfusion.cli.parser import (
    Parser,
    add_model_and_table,
    add_row_options,
    check_incidents,
    row_options,
    write_incidents,
)

SENTENCE = "How much each modality counted for each row, where the way of fusing weighs them."
EXAMPLE = "graphfusion weigh runs/a new.csv --out weights.csv"


def add_options(parser: Parser) -> None:
    """Model and table, where the weights go."""
    add_model_and_table(parser)
    add_answer_options(parser)
    add_row_options(parser)


def run(options: argparse.Namespace) -> int:
    """Write a column `target/modality` for each modality of a target: 0 where it is missing, empty in a row left out."""
    format_of(options)
    check_incidents(options)
    from graphfusion.predictor import FusionPredictor

    predictor = FusionPredictor.load(options.model).to(options.device)
    names = [f"{target}/{modality}" for target in predictor.targets for modality in predictor.pipeline.modalities]
    kept = kept_columns(options, names)
    found = predictor.modality_weights(options.table, **row_options(options))
    found = found if len(predictor.targets) > 1 else {predictor.targets[0]: found}
    write_incidents(predictor, options)
    columns = {
        f"{target}/{modality}": plain_numbers(weights)
        for target, each in found.items()
        for modality, weights in each.items()
    }
    write_answers(columns, options, kept)
    return 0

"""`graphfusion embed`."""

from __future__ import annotations

import argparse

from graphfusion.cli.answers import Columns, add_answer_options, format_of, kept_columns, plain_numbers, write_answers
from graphfusion.cli.parser import (
    Parser,
    add_model_and_table,
    add_row_options,
    check_incidents,
    row_options,
    write_incidents,
)

SENTENCE = "The unified representation of each row of a table: one vector of numbers."
EXAMPLE = "graphfusion embed runs/a new.csv --out vectors.parquet"


def add_options(parser: Parser) -> None:
    """Model and table, where the vectors go."""
    add_model_and_table(parser)
    add_answer_options(parser)
    add_row_options(parser)


def run(options: argparse.Namespace) -> int:
    """Write a list of numbers a row, in CSV a column a number (e0, e1, …); a row left out has an empty one."""
    ending = format_of(options)
    check_incidents(options)
    from graphfusion.predictor import FusionPredictor

    predictor = FusionPredictor.load(options.model).to(options.device)
    kept = kept_columns(options, ["embedding", *(f"e{i}" for i in range(predictor.config.model.dim))])
    vectors = predictor.embed(options.table, **row_options(options))
    write_incidents(predictor, options)
    columns: Columns
    if ending == ".csv":
        columns = {f"e{i}": plain_numbers(column) for i, column in enumerate(vectors.T)}
    else:
        columns = {"embedding": [None if v[0] != v[0] else plain_numbers(v) for v in vectors]}
    write_answers(columns, options, kept)
    return 0

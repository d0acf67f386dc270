"""`graphfusion embed`."""

from __future__ import annotations

import argparse
from typing import Any

from graphfusion.cli.answers import Columns, add_options, answer, format_of, plain_numbers
from graphfusion.cli.parser import row_options

__all__ = ["EXAMPLE", "SENTENCE", "add_options", "run"]

SENTENCE = "The unified representation of each row of a table: one vector of numbers."
EXAMPLE = "graphfusion embed runs/a new.csv --out vectors.parquet"


def run(options: argparse.Namespace) -> int:
    """Write a list of numbers a row, in CSV a column a number (e0, e1, …); a row left out has an empty one."""
    return answer(options, lambda p: ["embedding", *(f"e{i}" for i in range(p.config.model.dim))], _vectors)


def _vectors(predictor: Any, options: argparse.Namespace) -> Columns:
    vectors = predictor.embed(options.table, **row_options(options))
    if format_of(options) == ".csv":
        return {f"e{i}": plain_numbers(column) for i, column in enumerate(vectors.T)}
    return {"embedding": [None if v[0] != v[0] else plain_numbers(v) for v in vectors]}

"""`graphfusion evaluate`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphfusion.cli.parser import (
    Parser,
    add_model_and_table,
    add_row_options,
    check_incidents,
    row_options,
    write_incidents,
)
from graphfusion.cli.streams import to_stdout

SENTENCE = "Metrics over the rows of a table that have the target."
EXAMPLE = "graphfusion evaluate runs/a test.csv --json"


def add_options(parser: Parser) -> None:
    """Model and table, how to score."""
    add_model_and_table(parser)
    group = parser.add_argument_group("metrics")
    group.add_argument("--json", action="store_true", help="print JSON in place of a table")
    group.add_argument("--unseen", choices=("error", "wrong"), default="error",
                       help="a class that no training row had: stop, or count it as answered wrongly")  # fmt: skip
    add_row_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the metrics."""
    check_incidents(options)
    from graphfusion.predictor import FusionPredictor

    predictor = FusionPredictor.load(options.model).to(options.device)
    scores = predictor.evaluate(options.table, options.unseen, **row_options(options))
    write_incidents(predictor, options)
    with to_stdout():
        print(json.dumps(_finite(scores), indent=1, ensure_ascii=False) if options.json else as_table(scores))
    return 0


def as_table(scores: Mapping[str, Any]) -> str:
    """Metrics one a line, then a table for each metric that has several rows (a class each)."""
    single = [[name, value] for name, value in scores.items() if not isinstance(value, Mapping)]
    blocks = [_aligned(single)]
    for name, rows in scores.items():
        if isinstance(rows, Mapping) and rows:
            head = list(next(iter(rows.values())))
            blocks.append(_aligned([[name, *head], *([key, *row.values()] for key, row in rows.items())]))
    return "\n\n".join(blocks)


def _aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as text, the first column to the left and the others to the right."""
    texts = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    wide = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(wide[0]), *(cell.rjust(w) for cell, w in zip(row[1:], wide[1:], strict=True))])
        for row in texts
    )


def _finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""`graphfusion weigh`."""

from __future__ import annotations

import argparse
from typing import Any

from graphfusion.cli.answers import Columns, add_options, answer, plain_numbers
from graphfusion.cli.parser import row_options

__all__ = ["EXAMPLE", "SENTENCE", "add_options", "run"]

SENTENCE = "How much each modality counted for each row, where the way of fusing weighs them."
EXAMPLE = "graphfusion weigh runs/a new.csv --out weights.csv"


def run(options: argparse.Namespace) -> int:
    """Write a column `target/modality` for each modality of a target: 0 where it is missing, empty in a row left out."""
    return answer(options, _names, _weights)


def _names(predictor: Any) -> list[str]:
    return [f"{target}/{modality}" for target in predictor.targets for modality in predictor.pipeline.modalities]


def _weights(predictor: Any, options: argparse.Namespace) -> Columns:
    found = predictor.modality_weights(options.table, **row_options(options))
    found = found if len(predictor.targets) > 1 else {predictor.targets[0]: found}
    return dict(
        zip(_names(predictor), (plain_numbers(w) for each in found.values() for w in each.values()), strict=True)
    )

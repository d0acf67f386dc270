"""How many parameters a model has, and the width at which it has as many as another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from graphfusion.data import Table, counted_rng, read_table
from graphfusion.errors import ConfigError
from graphfusion.model import make_model
from graphfusion.predictor import FusionPredictor, text_columns

FEW = 500
"""Rows that modalities are fitted on for comparing sizes."""
CLOSE = 0.05
"""Share by which two numbers of parameters may differ."""


def count_parameters(predictor: FusionPredictor, table: Any, media_root: str | os.PathLike[str] | None = None) -> int:
    """The number of parameters that a fit to these training rows would give the model, frozen ones included.

    `table` and `media_root` are what `FusionPredictor.fit` takes, all rows for training (`valid=None`). Vocabularies and classes
    are learned from them, no weight is; the predictor stays as it is.

    Raises:
        TableError, SchemaError, CellError, ConfigError: as in `fit`.
    """
    return _parameters(predictor.build(table, media_root).model)


def matched_feedforward(
    predictor: FusionPredictor, like: FusionPredictor, table: Any, media_root: str | os.PathLike[str] | None = None
) -> int:
    """The `feedforward` with which `predictor` has as many parameters as `like`, within 5 %.

    `table` and `media_root` are what `FusionPredictor.fit` takes. Of more than 500 rows, 500 are drawn, always the same:
    vocabularies grow with more, alike in both predictors where they read the same columns. The predictors stay as they are.

    Of any two strategies with equal settings and layers, one can be given the parameters of the other: the smaller those of the
    larger. The reverse often cannot: `feedforward=1` still has the parts that it does not widen; the error says so.

    Raises:
        ConfigError: no width comes within 5 %, or one of the two is no predictor.
        TableError, SchemaError, CellError: as in `fit`.
    """
    for given in (predictor, like):
        if not isinstance(given, FusionPredictor):
            raise ConfigError(f"matched_feedforward: expected two predictors, then the table; got {given!r}.")
    size, wanted = _sizes(predictor, table, media_root), _sizes(like, table, media_root)(like.config.model.feedforward)
    width = _nearest_width(size, wanted)
    if abs(size(width) / wanted - 1) <= CLOSE:
        return width
    where = "any feedforward" if size(2 * width) == size(width) else f"feedforward={width}"
    advice = "give the other one its size (exchange the two)" if size(width) > wanted else "change dim or layers of one"
    raise ConfigError(
        f"feedforward: expected within {CLOSE:.0%} of the {wanted:,} parameters of fusion={like.config.model.fusion!r}, "
        f"got {size(width):,} at best, of fusion={predictor.config.model.fusion!r} with {where}; {advice}."
    )


def _nearest_width(size: Callable[[int], int], wanted: int) -> int:
    """The width from 1 whose size is nearest to `wanted`. Sizes may grow with the width or not, never shrink; where they no
    longer grow, the search ends.
    """
    low, high = 1, 16
    while size(low) < size(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - wanted))


def _sizes(predictor: FusionPredictor, table: Any, media_root: str | os.PathLike[str] | None) -> Callable[[int], int]:
    """`feedforward` → number of parameters; modalities are fitted once."""
    made = predictor.build(_drawn(read_table(table, media_root, text_columns(predictor.columns))))

    @cache
    def size(width: int) -> int:
        config = replace(predictor.config.model, feedforward=width)
        with torch.device("meta"):  # shapes alone: neither memory nor random numbers
            return _parameters(make_model(made.modalities, made.builder, made.tasks, config))

    return size


def _drawn(table: Table) -> Table:
    """At most `FEW` rows, from anywhere in the table: it may be sorted by class."""
    if len(table) <= FEW:
        return table
    return table.take(sorted(counted_rng(0, "sizing").permutation(len(table))[:FEW].tolist()))


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

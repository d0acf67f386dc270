"""Controls with as many parameters as the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

FEW = 500
"""Training rows that modalities are fitted on for counting."""
CLOSE = 0.05


def matched_width(engine: Mapping[str, Any], control: Mapping[str, Any], train: Any) -> int:
    """The `feedforward` with which a predictor of the arguments `control` has as many parameters as one of `engine`.

    Raises:
        ValueError: no width comes within 5 %.
    """
    few = train.take(range(min(len(train), FEW)))  # embeddings grow with more rows, alike in both
    wanted = _counter(engine, few)(int(engine.get("feedforward", 0)))
    count = _counter(control, few)
    low, high = 1, 16
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    best = min((low, high), key=lambda width: abs(count(width) - wanted))
    if abs(count(best) / wanted - 1) > CLOSE:
        raise ValueError(
            f"{dict(control)}: no feedforward has about {wanted:,} parameters; {best} has {count(best):,}."
        )
    return best


def _counter(arguments: Mapping[str, Any], rows: Any) -> Callable[[int], int]:
    """Width of hidden layers → parameters; modalities are fitted once."""
    from graphfusion import FusionPredictor
    from graphfusion.model import make_model

    predictor = FusionPredictor(**arguments)
    made = predictor.build(rows)

    def count(width: int) -> int:
        config = replace(predictor.config.model, feedforward=width)
        model = make_model(made.modalities, made.builder, made.tasks, config)
        return sum(p.numel() for p in model.parameters())

    return count

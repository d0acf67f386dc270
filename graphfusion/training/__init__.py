"""The loop, its rows and optimisers, checkpoints as verified folders."""

from graphfusion.training.loop import (
    DEVICES,
    PRECISIONS,
    Fit,
    FitState,
    predict_logits,
    run_fit,
    score_logits,
    start_fit,
)
from graphfusion.training.optimizer import OPTIMIZERS
from graphfusion.training.rows import Batches, Collate, Noise

__all__ = [
    "DEVICES",
    "OPTIMIZERS",
    "PRECISIONS",
    "Batches",
    "Collate",
    "Fit",
    "FitState",
    "Noise",
    "predict_logits",
    "run_fit",
    "score_logits",
    "start_fit",
]

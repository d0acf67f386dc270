"""The loop, its rows and optimisers, checkpoints as verified folders."""

from graphfusion.training.fit import DEVICES, PRECISIONS, Fit, FitState, start_fit
from graphfusion.training.loop import Surroundings, run_fit
from graphfusion.training.optimizer import OPTIMIZERS
from graphfusion.training.rows import Batches, Collate, Noise
from graphfusion.training.scoring import predict_logits, score_logits, unified

__all__ = [
    "DEVICES",
    "OPTIMIZERS",
    "PRECISIONS",
    "Batches",
    "Collate",
    "Fit",
    "FitState",
    "Noise",
    "Surroundings",
    "predict_logits",
    "run_fit",
    "score_logits",
    "start_fit",
    "unified",
]

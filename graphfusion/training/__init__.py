"""The loop, its rows and optimisers, checkpoints as verified folders."""

from graphfusion.training.fit import DEVICES, PRECISIONS, Fit, FitState, check_device, refuse_launchers, start_fit
from graphfusion.training.loop import Surroundings, run_fit
from graphfusion.training.optimizer import OPTIMIZERS
from graphfusion.training.rows import Batches, Collate, Noise
from graphfusion.training.scoring import embed_rows, fit_votes, predict_logits, score_logits, weigh_rows, weigh_tokens

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
    "check_device",
    "embed_rows",
    "fit_votes",
    "predict_logits",
    "refuse_launchers",
    "run_fit",
    "score_logits",
    "start_fit",
    "weigh_rows",
    "weigh_tokens",
]

"""Attention over all relations of a typed graph at once. README.md beside this file has the formulas."""

from graphfusion.ops.hetero_attention.operators import (
    BACKENDS,
    MODES,
    attention_weights,
    backends,
    hetero_attention,
    hetero_project,
)
from graphfusion.ops.hetero_attention.pairs import Bitmask, Broadcast, Dense, EdgeList, Grid, Pairs, Window
from graphfusion.ops.hetero_attention.plan import Plan, make_plan

__all__ = [
    "BACKENDS", "MODES", "Bitmask", "Broadcast", "Dense", "EdgeList", "Grid", "Pairs", "Plan", "Window",
    "attention_weights", "backends", "hetero_attention", "hetero_project", "make_plan",
]  # fmt: skip

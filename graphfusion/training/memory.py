"""How much a batch may hold, and when memory is short."""

from __future__ import annotations

from dataclasses import replace

import torch

from graphfusion.data import Budget

OPEN = 2**62
"""Nodes or edges of a batch that only memory bounds."""
SHARE = 0.5
"""Of free memory that a batch may take: batches of as many nodes differ, and one more is on its way."""


def on_gpu(device: str) -> bool:
    """Whether a fit with this setting runs on a GPU."""
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def room(budget: Budget, nodes: int, edges: int, held: int, free: int) -> Budget:
    """`budget` with what is `OPEN` in it bounded: a batch of `nodes` and `edges` holds `held` bytes, and `free` are free."""
    times = SHARE * free / max(1, held)
    open_ = {"nodes": nodes, "edges": edges}
    bounded = {name: max(1, int(times * n)) for name, n in open_.items() if getattr(budget, name) == OPEN}
    return replace(budget, **bounded)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        said in text for said in ("can't allocate memory", "not enough memory", "CUDA out of memory")
    )

"""Batches of samples packed under a budget of samples, nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphfusion.data.random import counted_rng


@dataclass(frozen=True)
class Budget:
    """What one batch may hold at most."""

    samples: int
    nodes: int
    edges: int


def pack(order: Sequence[int], nodes: Sequence[int], edges: Sequence[int], budget: Budget) -> list[list[int]]:
    """Cut `order` into consecutive batches within `budget`; a sample above the budget is a batch of its own."""
    batches: list[list[int]] = []
    room = Budget(0, 0, 0)
    for i in order:
        if room.samples < 1 or room.nodes < nodes[i] or room.edges < edges[i]:
            batches.append([])
            room = budget
        batches[-1].append(i)
        room = Budget(room.samples - 1, room.nodes - nodes[i], room.edges - edges[i])
    return batches


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` samples in an epoch."""
    order: list[int] = counted_rng(seed, "shuffle", epoch).permutation(count).tolist()
    return order

"""How large a program is: static, by the numbers of a row, so that nothing is tuned (or compiled) while a fit runs.

Compiled ahead of time for sm_80, sm_90 and sm_100 these spill next to nothing (`tests/ops/test_triton.py`). On a GPU they have
not been timed yet.
"""

from __future__ import annotations

import torch

from graphfusion.ops.hetero_attention.gpu import interpreted

NUMBERS = 2_048
"""Numbers that a program of four warps holds of its rows: 16 registers a thread."""
EDGES = 8
"""Edges of a node that are looked at together, where rows are short enough."""


def power(number: int) -> int:
    """The power of two from `number` on."""
    return 1 << max(0, number - 1).bit_length()


def walked(row: int) -> dict[str, int]:
    """Of a walk: nodes `M` and edges of each `K` of a program, and its warps, for rows of `row` numbers (a power of two).
    Interpreted, larger ones: there each operation costs the same, however many numbers it is of.
    """
    if interpreted():
        return {"M": 64, "K": 16, "num_warps": 1}
    edges = max(1, min(EDGES, NUMBERS // row))
    nodes = max(1, min(16, NUMBERS // (row * edges)))
    return {"M": nodes, "K": edges, "num_warps": max(1, min(4, row * edges * nodes // 512))}


def tiled(columns: int) -> dict[str, int]:
    """Of a tile: nodes `M` of a program's block, nodes `K` of the other end that it looks at together, and its warps, for heads
    of `columns` numbers.
    """
    if interpreted():
        return {"M": 16, "K": 16, "num_warps": 1}
    return {"M": 64 if columns <= 64 else 32, "K": 32, "num_warps": 8}


def scanned() -> dict[str, int]:
    """Of the linear form: nodes `M` of a program's block, nodes `K` that are added up together, and warps."""
    return {"M": 16, "K": 16, "num_warps": 1} if interpreted() else {"M": 32, "K": 64, "num_warps": 4}


def precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply: numbers stored in half precision as they are, float32 in three parts."""
    return "tf32x3" if dtype == torch.float32 else "tf32"


def grouped() -> dict[str, int]:
    """Of grouped products: rows `M` and columns `N` of a block, numbers `K` of an inner step, and warps."""
    if interpreted():
        return {"M": 64, "N": 64, "K": 64, "num_warps": 1}
    return {"M": 64, "N": 64, "K": 32, "num_warps": 4}

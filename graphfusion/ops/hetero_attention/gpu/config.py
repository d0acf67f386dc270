"""How large a program is: static, by the architecture and the numbers of a row, so that nothing is tuned (or compiled) while a
fit runs.

Chosen by what the compiler says of registers, stack and shared memory for sm_80, sm_90 and sm_100 (`tests/ops/test_triton.py`
holds them to it). On a GPU they have not been timed yet.
"""

from __future__ import annotations

from functools import cache

import torch

from graphfusion.ops.hetero_attention.gpu import interpreted

TILES = {
    (80, 2): {32: (64, 32, 8), 64: (32, 32, 8), 128: (32, 16, 8)},
    (90, 2): {32: (64, 32, 8), 64: (64, 32, 8), 128: (32, 32, 8)},
    (100, 2): {32: (64, 32, 8), 64: (64, 32, 8), 128: (32, 16, 8)},
    (80, 4): {32: (32, 32, 8), 64: (32, 16, 8), 128: (16, 16, 8)},
    (90, 4): {32: (64, 32, 8), 64: (32, 16, 8), 128: (16, 16, 8)},
    (100, 4): {32: (64, 32, 8), 64: (32, 16, 8), 128: (16, 16, 8)},
}
"""Of a tile by architecture and bytes of a stored number, then by columns of a head at most: nodes of a program's block, nodes of
the other end that it looks at together, warps. On sm_80 the factors of a product pass through registers, in float32 each has three
parts: blocks are smaller there. Heads of 128 columns in float32 keep up to 360 bytes a thread on the stack even so (`gatv2`; 168
`dot`). Other programs do not depend on the architecture: all three have as many registers, which is what bounds those.
"""
ARCHITECTURES = tuple(dict.fromkeys(arch for arch, _ in TILES))

NUMBERS = 2_048
"""Numbers that a program of four warps holds of its rows: 16 registers a thread."""
EDGES = 8
"""Edges of a node that are looked at together, where rows are short enough."""


@cache
def architecture(device: torch.device) -> int:
    """The newest of the table that is not newer than the device's; the oldest, if all are; the H200's where there is none."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return max((arch for arch in ARCHITECTURES if arch <= 10 * major + minor), default=min(ARCHITECTURES))


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


def tiled(columns: int, size: int, arch: int) -> dict[str, int]:
    """Of a tile: nodes `M` of a program's block, nodes `K` of the other end, and warps, for heads of `columns` numbers that are
    stored in `size` bytes.
    """
    if interpreted():
        return {"M": 16, "K": 16, "num_warps": 1}
    nodes, others, warps = next(sizes for most, sizes in TILES[arch, size].items() if columns <= most)
    return {"M": nodes, "K": others, "num_warps": warps}


def scanned(columns: int = 1) -> dict[str, int]:
    """Of the linear form: nodes `M` of a program's block, nodes `K` that are added up together, and warps, for heads of `columns`
    numbers.
    """
    if interpreted():
        return {"M": 16, "K": 16, "num_warps": 1}
    return {"M": 32, "K": 64 if columns <= 64 else 32, "num_warps": 4}


def precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply: numbers stored in half precision as they are, float32 in three parts."""
    return "tf32x3" if dtype == torch.float32 else "tf32"


def grouped() -> dict[str, int]:
    """Of grouped products: rows `M` and columns `N` of a block, numbers `K` of an inner step, and warps."""
    if interpreted():
        return {"M": 64, "N": 64, "K": 64, "num_warps": 1}
    return {"M": 64, "N": 64, "K": 32, "num_warps": 4}

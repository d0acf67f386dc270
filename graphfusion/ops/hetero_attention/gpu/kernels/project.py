# mypy: ignore-errors
"""Many matrix products in one launch: all linear maps of a layer, and both of their gradients.

`out[p]` = Σ over the parts of p of A B (+ bias), A of (down, inner), B of (inner, across). `PRODUCTS` has for each product, all
known to the compiler: down and across, its first part and the end of its parts; `PARTS` for each part: inner, strides of A (down,
inner) and of B (inner, across). A down or inner below 0 is the number of nodes, `nodes[p]`: a float, since no kernel is compiled
anew for one.
"""

from __future__ import annotations

import triton
import triton.language as tl

DOWN, ACROSS, FIRST, END = (tl.constexpr(i) for i in range(4))
INNER, A_DOWN, A_INNER, B_INNER, B_ACROSS = (tl.constexpr(i) for i in range(5))


@triton.jit
def added(total, a, b, down, inner, row, column, part: tl.constexpr, ACROSS_: tl.constexpr, K: tl.constexpr, WHOLE: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """`total` (M, N) and a part's product of rows `row` and columns `column`. `WHOLE`: numbers in half precision are made float32
    first, for the interpreter, which multiplies their bits.
    """
    for k0 in range(0, inner, K):
        k = k0 + tl.arange(0, K)
        at = row[:, None].to(tl.int64) * part[A_DOWN] + k[None, :].to(tl.int64) * part[A_INNER]
        left = tl.load(a + at, mask=(row < down)[:, None] & (k < inner)[None, :], other=0.0)
        at = k[:, None].to(tl.int64) * part[B_INNER] + column[None, :].to(tl.int64) * part[B_ACROSS]
        right = tl.load(b + at, mask=(k < inner)[:, None] & (column < ACROSS_)[None, :], other=0.0)
        if left.dtype != right.dtype:  # features in float32, a map in half precision
            if left.dtype == tl.float32:
                left = left.to(right.dtype)
            else:
                right = right.to(left.dtype)
        if WHOLE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total += tl.dot(left, right, input_precision=PRECISION)
    return total


@triton.jit
def product(a, b, PARTS: tl.constexpr, begin: tl.constexpr, end: tl.constexpr, count, down, row, column, ACROSS_: tl.constexpr,
            M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """(M, N) of the sum of the parts from `begin` to `end`."""
    total = tl.zeros([M, N], tl.float32)
    for q in tl.static_range(begin, end):
        inner = count
        if PARTS[q][INNER] >= 0:
            inner = count * 0 + PARTS[q][INNER]
        total = added(total, a[q], b[q], down, inner, row, column, PARTS[q], ACROSS_, K, WHOLE, PRECISION)
    return total


@triton.jit
def grouped(a, b, bias, out, nodes, PRODUCTS: tl.constexpr, PARTS: tl.constexpr, BIAS: tl.constexpr, M: tl.constexpr,
            N: tl.constexpr, K: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A block of (M, N) of one product: a program of the grid (Σ ⌈down / M⌉ ⌈across / N⌉,)."""
    own = tl.program_id(0)
    begin = own * 0
    for p in tl.static_range(len(PRODUCTS)):
        count = (nodes[p] + own * 0.0).to(tl.int32)  # interpreted, a number in a tuple stays one of Python
        down = count
        if PRODUCTS[p][DOWN] >= 0:
            down = count * 0 + PRODUCTS[p][DOWN]
        beside = (PRODUCTS[p][ACROSS] + N - 1) // N
        end = begin + (down + M - 1) // M * beside
        if (own >= begin) & (own < end):
            row = (own - begin) // beside * M + tl.arange(0, M)
            column = (own - begin) % beside * N + tl.arange(0, N)
            total = product(
                a, b, PARTS, PRODUCTS[p][FIRST], PRODUCTS[p][END], count, down, row, column, PRODUCTS[p][ACROSS],
                M, N, K, WHOLE, PRECISION,
            )  # fmt: skip
            if BIAS:
                total += tl.load(bias[p] + column, mask=column < PRODUCTS[p][ACROSS], other=0.0).to(tl.float32)[None, :]
            at = row[:, None].to(tl.int64) * PRODUCTS[p][ACROSS] + column[None, :]
            tl.store(out[p] + at, total, mask=(row < down)[:, None] & (column < PRODUCTS[p][ACROSS])[None, :])
        begin = end

# mypy: ignore-errors
"""Kernels of the dense `gat` relation in linear time: README.md, section 4, whose letters they use.

`rank` sorts the nodes of a sample by their logits, `running` adds up weighted rows in that order from both ends, `combine` takes
from the sums what a target needs. The backward pass does the same with the roles of targets and sources exchanged. Sums are kept
at the places start + sample + k for k = 0 … n, so a table has N + B rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from graphfusion.ops.hetero_attention.gpu.kernels.tiles import (
    block,
    numbers_of,
    others,
    rows_of,
    store_numbers,
    store_rows,
)
from graphfusion.ops.hetero_attention.gpu.kernels.walk import leaky

FREE = ("slope", "samples", "steps", "halvings")
"""Arguments whose values no kernel is compiled anew for."""


@triton.jit
def logits_at(table, order, start, place, inside, head, SLOT: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr):
    """Logits of the nodes that stand at places of the order of a sample."""
    node = start + tl.load(order + (start + place).to(tl.int64) * H + head, mask=inside, other=0)
    return numbers_of(table, node, SLOT, SLOTS, inside, head, H)


@triton.jit
def above(
    table, order, start, count, logit, inside, head, steps, SLOT: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr
):
    """How many nodes of a sample have a logit whose sum with `logit` is above 0: they are the first of its order."""
    low = tl.zeros_like(logit).to(tl.int32)
    high = low + count
    for _ in range(steps):
        middle = (low + high) // 2
        open_ = inside & (low < high)
        yes = open_ & (logit + logits_at(table, order, start, middle, open_, head, SLOT, SLOTS, H) > 0)
        low = tl.where(yes, middle + 1, low)
        high = tl.where(open_ & (yes == 0), middle, high)
    return low


@triton.jit
def sums_at(rows, numbers, place, inside, head, column, H: tl.constexpr, C: tl.constexpr):
    """Running sums of rows (M, CP) and of numbers (M,) at places."""
    return rows_of(rows, place, 0, 1, inside, head, column, H, C), numbers_of(numbers, place, 0, 1, inside, head, H)


@triton.jit
def comparable(logit):
    """NaN as −∞: every node has a place of its own in the order, whatever a diverged fit gives."""
    return tl.where(logit == logit, logit, float("-inf"))


@triton.jit(do_not_specialize=FREE)
def rank(logit, ptr, order, samples, steps, SLOT: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr, M: tl.constexpr,
         K: tl.constexpr):  # fmt: skip
    """Write the order of each sample's nodes, largest logit first, equal ones as they stand: a program of the grid
    (⌊N / M⌋ + B, H). By counting: n² comparisons, which cost less than a sort up to several thousand nodes.
    """
    sample, start, here, inside = block(tl.program_id(0), ptr, samples, steps, M)
    head = tl.program_id(1)
    count = others(ptr, sample, here, inside)[1]
    own = comparable(numbers_of(logit, start + here, SLOT, SLOTS, inside, head, H))
    place = tl.zeros([M], tl.int32)
    for k0 in range(0, count, K):
        k = k0 + tl.arange(0, K)
        each = comparable(numbers_of(logit, start + k, SLOT, SLOTS, k < count, head, H))
        before = (each[None, :] > own[:, None]) | ((each[None, :] == own[:, None]) & (k[None, :] < here[:, None]))
        place += tl.sum((before & (k < count)[None, :]).to(tl.int32), 1)
    tl.store(order + (start + place).to(tl.int64) * H + head, here, mask=inside)


@triton.jit
def weights_of(table, order, start, place, inside, head, top, slope, first, second, third, SLOT: tl.constexpr,
               SLOTS: tl.constexpr, SOURCES: tl.constexpr, H: tl.constexpr):  # fmt: skip
    """Nodes at places of the order, their weights from the front and from the back, and the number beside their rows: for
    sources e1, e2 and 1, for targets U1, U2 and μ.
    """
    node = start + tl.load(order + (start + place).to(tl.int64) * H + head, mask=inside, other=0)
    if SOURCES:
        under = numbers_of(table, node, SLOT, SLOTS, inside, head, H) - top
        front, back = tl.exp(under), tl.exp(slope * under)
        number = inside.to(tl.float32)
    else:
        front = numbers_of(first, node, 0, 1, inside, head, H)
        back = numbers_of(second, node, 0, 1, inside, head, H)
        number = numbers_of(third, node, 0, 1, inside, head, H)
    return node, tl.where(inside, front, 0.0), tl.where(inside, back, 0.0), number


@triton.jit(do_not_specialize=FREE)
def running(rows, logit, order, ptr, first, second, third, front, front_number, back, back_number, slope,
            ROW: tl.constexpr, ROWS: tl.constexpr, SLOT: tl.constexpr, SLOTS: tl.constexpr, SOURCES: tl.constexpr,
            H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, K: tl.constexpr):  # fmt: skip
    """Sums of weighted rows of the first k nodes of the order (`front`) and of the others (`back`) for k = 0 … n, and of the
    numbers beside them: a program of the grid (B, H), `K` nodes at a time, a base added to sums of at most `K`.
    """
    sample, head, column = tl.program_id(0), tl.program_id(1), tl.arange(0, CP)
    start = tl.load(ptr + sample)
    count = tl.load(ptr + sample + 1) - start
    base = (start + sample).to(tl.int64)
    nothing = tl.arange(0, K) == 0
    top = tl.sum(logits_at(logit, order, start, tl.arange(0, K), nothing & (count > 0), head, SLOT, SLOTS, H), 0)
    sofar, number_sofar = tl.zeros([1, CP], tl.float32), tl.zeros([1], tl.float32)
    store_rows(front, base + tl.arange(0, K), 0, 1, nothing, tl.zeros([K, CP], tl.float32), head, column, H, C)
    store_numbers(front_number, base + tl.arange(0, K), 0, 1, nothing, tl.zeros([K], tl.float32), head, H)
    for k0 in range(0, count, K):
        place = k0 + tl.arange(0, K)
        node, weight, _, number = weights_of(
            logit, order, start, place, place < count, head, top, slope, first, second, third, SLOT, SLOTS, SOURCES, H
        )
        row = rows_of(rows, node, ROW, ROWS, place < count, head, column, H, C) * weight[:, None]
        number = number * weight
        at = base + place + 1
        store_rows(front, at, 0, 1, place < count, sofar + tl.cumsum(row, 0), head, column, H, C)
        store_numbers(front_number, at, 0, 1, place < count, number_sofar + tl.cumsum(number, 0), head, H)
        sofar += tl.sum(row, 0)[None, :]
        number_sofar += tl.sum(number, 0)
    sofar, number_sofar = tl.zeros([1, CP], tl.float32), tl.zeros([1], tl.float32)
    end = base + count + tl.arange(0, K)
    store_rows(back, end, 0, 1, nothing, tl.zeros([K, CP], tl.float32), head, column, H, C)
    store_numbers(back_number, end, 0, 1, nothing, tl.zeros([K], tl.float32), head, H)
    for k0 in range(0, count, K):
        place = count - 1 - k0 - tl.arange(0, K)
        node, _, weight, number = weights_of(
            logit, order, start, place, place >= 0, head, top, slope, first, second, third, SLOT, SLOTS, SOURCES, H
        )
        row = rows_of(rows, node, ROW, ROWS, place >= 0, head, column, H, C) * weight[:, None]
        number = number * weight
        at = base + place
        store_rows(back, at, 0, 1, place >= 0, sofar + tl.cumsum(row, 0), head, column, H, C)
        store_numbers(back_number, at, 0, 1, place >= 0, number_sofar + tl.cumsum(number, 0), head, H)
        sofar += tl.sum(row, 0)[None, :]
        number_sofar += tl.sum(number, 0)


@triton.jit
def shares(
    key, order, start, count, own, inside, head, slope, SLOT: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr
):
    """u1 and u2 of targets with logits `own`."""
    first = tl.zeros_like(own).to(tl.int32)
    t = own + logits_at(key, order, start, first, inside & (count > 0), head, SLOT, SLOTS, H)
    largest = leaky(t, slope)
    return tl.exp(t - largest), tl.exp(slope * t - largest)


@triton.jit
def of_targets(key, query, order, source_ptr, front, front_number, back, back_number, slope, halvings, sample, target, here,
               inside, head, column, LEAVES: tl.constexpr, LEAVING: tl.constexpr, ENTERS: tl.constexpr,
               ENTERING: tl.constexpr, H: tl.constexpr, C: tl.constexpr):  # fmt: skip
    """u1 and u2 of targets, and S1, Z1, S2 and Z2 at their k."""
    start, count = others(source_ptr, sample, here, inside)
    own = numbers_of(query, target, ENTERS, ENTERING, inside, head, H)
    k = above(key, order, start, count, own, inside, head, halvings, LEAVES, LEAVING, H)
    u1, u2 = shares(key, order, start, count, own, inside, head, slope, LEAVES, LEAVING, H)
    place = start + sample + k
    s1, z1 = sums_at(front, front_number, place, inside, head, column, H, C)
    s2, z2 = sums_at(back, back_number, place, inside, head, column, H, C)
    return u1, u2, s1, z1, s2, z2


@triton.jit(do_not_specialize=FREE)
def combine(key, query, order, source_ptr, target_ptr, front, front_number, back, back_number, out, slope, samples, steps,
            halvings, LEAVES: tl.constexpr, LEAVING: tl.constexpr, ENTERS: tl.constexpr, ENTERING: tl.constexpr,
            OUT: tl.constexpr, OUTS: tl.constexpr, ADD: tl.constexpr, H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
            M: tl.constexpr):  # fmt: skip
    """Outputs of a block of targets and a head, written or (`ADD`) added to what is there: a program of the grid
    (⌊N / M⌋ + B, H).
    """
    sample, begin, here, inside = block(tl.program_id(0), target_ptr, samples, steps, M)
    head, target, column = tl.program_id(1), begin + here, tl.arange(0, CP)
    u1, u2, s1, z1, s2, z2 = of_targets(
        key, query, order, source_ptr, front, front_number, back, back_number, slope, halvings, sample, target, here,
        inside, head, column, LEAVES, LEAVING, ENTERS, ENTERING, H, C,
    )  # fmt: skip
    total = u1 * z1 + u2 * z2
    found = (u1[:, None] * s1 + u2[:, None] * s2) / tl.where(total > 0, total, 1.0)[:, None]
    if ADD:
        found += rows_of(out, target, OUT, OUTS, inside, head, column, H, C)
    store_rows(out, target, OUT, OUTS, inside, found, head, column, H, C)


@triton.jit(do_not_specialize=FREE)
def backward_targets(key, query, order, source_ptr, target_ptr, front, front_number, back, back_number, grad, dquery, first,
                     second, mean_of, slope, samples, steps, halvings, LEAVES: tl.constexpr, LEAVING: tl.constexpr,
                     ENTERS: tl.constexpr, ENTERING: tl.constexpr, OUT: tl.constexpr, OUTS: tl.constexpr,
                     H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, M: tl.constexpr):  # fmt: skip
    """Gradient of the query, and U1, U2 and μ (N, H), of a block of targets and a head: a program of the grid as `combine`."""
    sample, begin, here, inside = block(tl.program_id(0), target_ptr, samples, steps, M)
    head, target, column = tl.program_id(1), begin + here, tl.arange(0, CP)
    u1, u2, s1, z1, s2, z2 = of_targets(
        key, query, order, source_ptr, front, front_number, back, back_number, slope, halvings, sample, target, here,
        inside, head, column, LEAVES, LEAVING, ENTERS, ENTERING, H, C,
    )  # fmt: skip
    total = u1 * z1 + u2 * z2
    divisor = tl.where(total > 0, total, 1.0)
    u1, u2 = u1 / divisor, u2 / divisor
    g = rows_of(grad, target, OUT, OUTS, inside, head, column, H, C)
    p, q = tl.sum(g * s1, 1), tl.sum(g * s2, 1)
    mean = u1 * p + u2 * q
    moved = u1 * (p - mean * z1) + slope * u2 * (q - mean * z2)
    store_numbers(dquery, target, ENTERS, ENTERING, inside, moved, head, H)
    store_numbers(first, target, 0, 1, inside, u1, head, H)
    store_numbers(second, target, 0, 1, inside, u2, head, H)
    store_numbers(mean_of, target, 0, 1, inside, mean, head, H)


@triton.jit(do_not_specialize=FREE)
def backward_sources(value, key, query, order, ranked, target_ptr, source_ptr, front, front_number, back, back_number,
                     dvalue, dkey, slope, samples, steps, halvings, LEAVES: tl.constexpr, LEAVING: tl.constexpr,
                     ENTERS: tl.constexpr, ENTERING: tl.constexpr, H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
                     M: tl.constexpr):  # fmt: skip
    """Gradients of value and key of a block of sources and a head: a program of the grid (⌊N / M⌋ + B, H). `order` is that of
    the sources, `ranked` that of the targets, over which the sums run.
    """
    sample, begin, here, inside = block(tl.program_id(0), source_ptr, samples, steps, M)
    head, source, column = tl.program_id(1), begin + here, tl.arange(0, CP)
    start, count = others(target_ptr, sample, here, inside)
    own = numbers_of(key, source, LEAVES, LEAVING, inside, head, H)
    k = above(query, ranked, start, count, own, inside, head, halvings, ENTERS, ENTERING, H)
    under = own - logits_at(key, order, begin, here * 0, inside, head, LEAVES, LEAVING, H)
    e1, e2 = tl.exp(under), tl.exp(slope * under)
    place = start + sample + k
    g1, m1 = sums_at(front, front_number, place, inside, head, column, H, C)
    g2, m2 = sums_at(back, back_number, place, inside, head, column, H, C)
    row = rows_of(value, source, LEAVES, LEAVING, inside, head, column, H, C)
    moved = e1 * (tl.sum(row * g1, 1) - m1) + slope * e2 * (tl.sum(row * g2, 1) - m2)
    store_rows(dvalue, source, LEAVES, LEAVING, inside, e1[:, None] * g1 + e2[:, None] * g2, head, column, H, C)
    store_numbers(dkey, source, LEAVES, LEAVING, inside, moved, head, H)

# mypy: ignore-errors
"""Kernels for relations that tie most targets of a sample to most of its sources (dense ones and bit masks): tiles of targets ×
sources, whose products run on tensor cores (Dao et al. 2022). Formulas: README.md, sections 1 and 2.

A program has a block of one sample's nodes and one head. Scores are never written; sums are float32; every number is written by one
program in one order, and nothing is added atomically. `RELATIONS`, `TYPES` and letters as in `walk`; tiles are (T targets, S
sources).
"""

from __future__ import annotations

import triton
import triton.language as tl

from graphfusion.ops.hetero_attention.gpu.kernels.walk import (
    BITMASK,
    ENTERING,
    ENTERS,
    FREE,
    KIND,
    LEAVES,
    LEAVING,
    NUMBER,
    leaky,
    mixed,
    ones,
    steep,
)


@triton.jit
def block(own, ptr, samples, steps, M: tl.constexpr):
    """Sample of a type's program `own`, its first node, and the places in it of the block's nodes (M,) and whether they are there.

    Sample `b` has the programs from ⌊ptr[b] / M⌋ + b on: enough for its nodes, and known without a look at `ptr` from the
    host.
    """
    low = own * 0
    high = low + samples
    for _ in range(steps):
        middle = (low + high) // 2
        before = tl.load(ptr + middle) // M + middle <= own
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    start = tl.load(ptr + low)
    here = (own - start // M - low) * M + tl.arange(0, M)
    return low, start, here, here < tl.load(ptr + low + 1) - start


@triton.jit
def others(ptr, sample, here, inside):
    """First node of a sample, and how many it has; 0 for a program without nodes."""
    start = tl.load(ptr + sample)
    return start, tl.where(tl.sum(inside.to(tl.int32), 0) > 0, tl.load(ptr + sample + 1) - start, 0)


@triton.jit
def tied(relation: tl.constexpr, first, second, target, here, there, is_target, source, is_source, DROP: tl.constexpr):
    """(T, S) whether there is an edge, and its place among the edges of its target. `target` (T,) nodes, `here` and `source`
    their places in the sample.
    """
    inside = is_target[:, None] & is_source[None, :]
    k, place = source[None, :], here[:, None] * 0 + source[None, :]
    if relation[KIND] == BITMASK:
        begin = tl.load(second + target, mask=is_target, other=0)[:, None]
        word = tl.load(first + begin + k // 32, mask=inside, other=0)
        if DROP:
            place = ones(word & ((1 << (k % 32)) - 1))
            for w in range(tl.max(source) // 32):
                whole = tl.load(first + begin + w, mask=inside & (w < k // 32), other=0)
                place += ones(whole)
        valid = inside & (((word >> (k % 32)) & 1) != 0)
    else:
        valid = inside & ((k != here[:, None]) | (relation[1] != 0))
        if DROP and not relation[1]:
            place = place - (k > here[:, None]).to(tl.int32)
    return valid, place


@triton.jit
def kept(seed, number: tl.constexpr, target, place, head, threshold, H: tl.constexpr):
    """(T, S) whether dropout keeps: `walk.kept` for one head."""
    low = tl.load(seed).to(tl.uint32)
    high = (tl.load(seed) >> 32).to(tl.uint32)
    base = mixed(low ^ ((number * 0x9E3779B9) & 0xFFFFFFFF))
    each = mixed(mixed(base ^ high) ^ target.to(tl.uint32))[:, None]
    return mixed(each ^ (place * H + head).to(tl.uint32)) >= threshold.to(tl.uint32)


@triton.jit
def rows_of(
    table, node, slot: tl.constexpr, slots: tl.constexpr, inside, head, column, H: tl.constexpr, C: tl.constexpr
):
    """(·, CP) float32 of one head of a table (N, slots, H, C); 0 where there is no node or column."""
    at = ((node.to(tl.int64) * slots + slot) * H + head)[:, None] * C + column[None, :]
    return tl.load(table + at, mask=inside[:, None] & (column < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def numbers_of(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, head, H: tl.constexpr):
    """(·,) float32 of one head of a table (N, slots, H); 0 where there is no node."""
    at = (node.to(tl.int64) * slots + slot) * H + head
    return tl.load(table + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_rows(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, found, head, column, H: tl.constexpr,
               C: tl.constexpr):  # fmt: skip
    """Write (·, CP) to one head of a table (N, slots, H, C)."""
    at = ((node.to(tl.int64) * slots + slot) * H + head)[:, None] * C + column[None, :]
    tl.store(table + at, found, mask=inside[:, None] & (column < C)[None, :])


@triton.jit
def store_numbers(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, found, head, H: tl.constexpr):
    """Write (·,) to one head of a table (N, slots, H)."""
    tl.store(table + (node.to(tl.int64) * slots + slot) * H + head, found, mask=inside)


@triton.jit
def column_of(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, head, c, H: tl.constexpr, C: tl.constexpr):
    """(·,) float32 of one head and column of a table (N, slots, H, C)."""
    return tl.load(table + ((node.to(tl.int64) * slots + slot) * H + head) * C + c, mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def ends_of(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, head, column, MODE: tl.constexpr, H: tl.constexpr,
            C: tl.constexpr):  # fmt: skip
    """What `scored` takes of the nodes of one end, from the table of keys or of queries: (·,) in mode `gat`, (·, CP) in mode
    `dot`; `gatv2` reads by columns.
    """
    if MODE == "gat":
        found = numbers_of(table, node, slot, slots, inside, head, H)
    elif MODE == "dot":
        found = rows_of(table, node, slot, slots, inside, head, column, H, C)
    else:
        found = 0.0
    return found


@triton.jit
def grads_of(relation: tl.constexpr, grad, target, inside, head, column, MERGED: tl.constexpr, H: tl.constexpr,
             C: tl.constexpr):  # fmt: skip
    """(T, CP) gradients of the outputs of targets."""
    if MERGED:
        found = rows_of(grad, target, 0, 1, inside, head, column, H, C)
    else:
        found = rows_of(grad, target, relation[ENTERS], relation[ENTERING], inside, head, column, H, C)
    return found


@triton.jit
def scored(relation: tl.constexpr, value, query, att, left, right, target, is_target, source, is_source, head, slope, scale,
           MODE: tl.constexpr, H: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Scores (T, S), and what the leaky rectifier was given (in mode `gat`)."""
    if MODE == "gat":
        before = left[None, :] + right[:, None]
        score = leaky(before, slope)
    elif MODE == "dot":
        score = tl.dot(right, tl.trans(left), input_precision=PRECISION) * scale
        before = score
    else:
        score = (target[:, None] + source[None, :]).to(tl.float32) * 0.0
        for c in range(C):
            x = column_of(query, target, relation[ENTERS], relation[ENTERING], is_target, head, c, H, C)[:, None]
            x = x + column_of(value, source, relation[LEAVES], relation[LEAVING], is_source, head, c, H, C)[None, :]
            score += tl.load(att + (relation[NUMBER] * H + head) * C + c) * leaky(x, slope)
        before = score
    return score, before


@triton.jit
def softened(score, top, total):
    """One block more of a running softmax (Milakov and Gimelshein 2018): the largest score (T,) so far, exponentials below it of
    the block (T, S), what sums so far shrink by (T,), and the sum of exponentials (T,).
    """
    higher = tl.maximum(top, tl.max(score, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher)
    weight = tl.exp(score - base[:, None])
    before = tl.exp(top - base)
    return higher, weight, before, total * before + tl.sum(weight, 1)


@triton.jit
def spread(relation: tl.constexpr, value, query, att, dscore, target, is_target, source, is_source, head, column, slope,
           H: tl.constexpr, C: tl.constexpr):  # fmt: skip
    """Mode `gatv2`: from ∂L/∂s (T, S) the gradients of the query (T, CP), of the value by way of the scores (S, CP), and of
    att (CP,).
    """
    dquery = target[:, None].to(tl.float32) * 0.0 + column[None, :].to(tl.float32) * 0.0
    dvalue = source[:, None].to(tl.float32) * 0.0 + column[None, :].to(tl.float32) * 0.0
    datt = column.to(tl.float32) * 0.0
    for c in range(C):
        x = column_of(query, target, relation[ENTERS], relation[ENTERING], is_target, head, c, H, C)[:, None]
        x = x + column_of(value, source, relation[LEAVES], relation[LEAVING], is_source, head, c, H, C)[None, :]
        dx = dscore * tl.load(att + (relation[NUMBER] * H + head) * C + c) * steep(x, slope)
        here = column == c
        dquery += tl.where(here[None, :], tl.sum(dx, 1)[:, None], 0.0)
        dvalue += tl.where(here[None, :], tl.sum(dx, 0)[:, None], 0.0)
        datt += tl.where(here, tl.sum(tl.sum(dscore * leaky(x, slope), 1), 0), 0.0)
    return dquery, dvalue, datt


@triton.jit
def outputs(own, FIRST: tl.constexpr, END: tl.constexpr, ADD: tl.constexpr, value, key, query, att, first, second, source_ptr,
            target_ptr, out, seed, threshold, rescale, slope, scale, samples, steps, RELATIONS: tl.constexpr,
            MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
            M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Outputs of a block of targets of one type and a head, by its program `own`."""
    sample, begin, here, is_target = block(own, target_ptr, samples, steps, M)
    head, target, column = tl.program_id(1), begin + here, tl.arange(0, CP)
    merged = tl.zeros([M, CP], tl.float32)
    for r in tl.static_range(FIRST, END):
        start, count = others(source_ptr[r], sample, here, is_target)
        right = ends_of(
            query, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, head, column, MODE, H, C
        )
        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        found = tl.zeros([M, CP], tl.float32)
        for k0 in range(0, count, K):
            there = k0 + tl.arange(0, K)
            source, is_source = start + there, there < count
            valid, place = tied(
                RELATIONS[r], first[r], second[r], target, here, count, is_target, there, is_source, DROP
            )
            left = ends_of(
                key[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, MODE, H, C
            )
            score = scored(
                RELATIONS[r], value[r], query, att, left, right, target, is_target, source, is_source, head, slope, scale,
                MODE, H, C, PRECISION,
            )[0]  # fmt: skip
            score = tl.where(valid, score, float("-inf"))
            top, weight, before, total = softened(score, top, total)
            if DROP:
                keep = kept(seed, RELATIONS[r][NUMBER], target, place, head, threshold, H)
                weight = tl.where(keep, weight * rescale, 0.0)
            row = rows_of(value[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, H, C)
            found = found * before[:, None] + tl.dot(weight, row, input_precision=PRECISION)
        found = found / tl.where(total > 0, total, 1.0)[:, None]
        if MERGED:
            merged += found
        else:
            store_rows(out, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, found, head, column, H, C)
    if MERGED:
        if ADD:
            merged += rows_of(out, target, 0, 1, is_target, head, column, H, C)
        store_rows(out, target, 0, 1, is_target, merged, head, column, H, C)


@triton.jit(do_not_specialize=FREE)
def forward(value, key, query, att, first, second, source_ptr, target_ptr, out, seed, threshold, rescale, slope, scale, samples,
            steps, RELATIONS: tl.constexpr, TYPES: tl.constexpr, MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr,
            H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """Outputs of all types: a program of the grid (Σ ⌊N / M⌋ + B, H)."""
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        programs = tl.load(target_ptr[t] + samples) // M + samples
        if (own >= 0) & (own < programs):
            outputs(
                own, TYPES[t][0], TYPES[t][1], TYPES[t][2], value, key, query[t], att, first, second, source_ptr,
                target_ptr[t], out[t], seed, threshold, rescale, slope, scale, samples, steps, RELATIONS, MODE, DROP, MERGED,
                H, C, CP, M, K, PRECISION,
            )  # fmt: skip
        own -= programs


@triton.jit
def of_targets(own, FIRST: tl.constexpr, END: tl.constexpr, value, key, query, att, first, second, source_ptr, target_ptr, grad,
               seed, threshold, rescale, slope, scale, samples, steps, dquery, log_sum, mean_of, datt, RELATIONS: tl.constexpr,
               RELATED: tl.constexpr, MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr,
               C: tl.constexpr, CP: tl.constexpr, M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """`backward_targets` for a block of targets of one type, by its program `own`."""
    sample, begin, here, is_target = block(own, target_ptr, samples, steps, M)
    head, target, column = tl.program_id(1), begin + here, tl.arange(0, CP)
    for r in tl.static_range(FIRST, END):
        start, count = others(source_ptr[r], sample, here, is_target)
        right = ends_of(
            query, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, head, column, MODE, H, C
        )
        g = grads_of(RELATIONS[r], grad, target, is_target, head, column, MERGED, H, C)
        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        mean = tl.zeros([M], tl.float32)
        for k0 in range(0, count, K):
            there = k0 + tl.arange(0, K)
            source, is_source = start + there, there < count
            valid, place = tied(
                RELATIONS[r], first[r], second[r], target, here, count, is_target, there, is_source, DROP
            )
            left = ends_of(
                key[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, MODE, H, C
            )
            score = scored(
                RELATIONS[r], value[r], query, att, left, right, target, is_target, source, is_source, head, slope, scale,
                MODE, H, C, PRECISION,
            )[0]  # fmt: skip
            score = tl.where(valid, score, float("-inf"))
            row = rows_of(value[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, H, C)
            product = tl.dot(g, tl.trans(row), input_precision=PRECISION)
            if DROP:
                keep = kept(seed, RELATIONS[r][NUMBER], target, place, head, threshold, H)
                product = tl.where(keep, product * rescale, 0.0)
            top, weight, before, total = softened(score, top, total)
            mean = mean * before + tl.sum(weight * product, 1)
        divisor = tl.where(total > 0, total, 1.0)
        mean = mean / divisor
        logarithm = tl.where(total > 0, top + tl.log(divisor), 0.0)
        store_numbers(mean_of, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, mean, head, H)
        store_numbers(log_sum, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, logarithm, head, H)
        dnumber = tl.zeros([M], tl.float32)
        drow = tl.zeros([M, CP], tl.float32)
        datt_here = tl.zeros([CP], tl.float32)
        for k0 in range(0, count, K):
            there = k0 + tl.arange(0, K)
            source, is_source = start + there, there < count
            valid, place = tied(
                RELATIONS[r], first[r], second[r], target, here, count, is_target, there, is_source, DROP
            )
            left = ends_of(
                key[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, MODE, H, C
            )
            score, unbent = scored(
                RELATIONS[r], value[r], query, att, left, right, target, is_target, source, is_source, head, slope, scale,
                MODE, H, C, PRECISION,
            )  # fmt: skip
            row = rows_of(value[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, H, C)
            product = tl.dot(g, tl.trans(row), input_precision=PRECISION)
            if DROP:
                keep = kept(seed, RELATIONS[r][NUMBER], target, place, head, threshold, H)
                product = tl.where(keep, product * rescale, 0.0)
            alpha = tl.where(valid, tl.exp(score - logarithm[:, None]), 0.0)
            dscore = alpha * (product - mean[:, None])
            if MODE == "gat":
                dnumber += tl.sum(dscore * steep(unbent, slope), 1)
            elif MODE == "dot":
                drow += tl.dot(dscore, left, input_precision=PRECISION) * scale
            else:
                moved, _, more = spread(
                    RELATIONS[r], value[r], query, att, dscore, target, is_target, source, is_source, head, column, slope,
                    H, C,
                )  # fmt: skip
                drow += moved
                datt_here += more
        if MODE == "gat":
            store_numbers(dquery, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, dnumber, head, H)
        else:
            store_rows(
                dquery, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, drow, head, column, H, C
            )
        if MODE == "gatv2":
            at = ((own.to(tl.int64) * RELATED + RELATIONS[r][NUMBER]) * H + head) * C + column
            tl.store(datt + at, datt_here, mask=column < C)


@triton.jit(do_not_specialize=FREE)
def backward_targets(value, key, query, att, first, second, source_ptr, target_ptr, grad, seed, threshold, rescale, slope,
                     scale, samples, steps, dquery, log_sum, mean_of, datt, RELATIONS: tl.constexpr, TYPES: tl.constexpr,
                     RELATED: tl.constexpr, MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr,
                     C: tl.constexpr, CP: tl.constexpr, M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Gradients of query and att, and what `backward_sources` needs of each target, relation and head (see `walk`): a program
    of the grid (Σ ⌊N / M⌋ + B, H). Each writes its own row of `datt` (programs of a type, RELATED, H, C).
    """
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        programs = tl.load(target_ptr[t] + samples) // M + samples
        if (own >= 0) & (own < programs):
            of_targets(
                own, TYPES[t][0], TYPES[t][1], value, key, query[t], att, first, second, source_ptr, target_ptr[t], grad[t],
                seed, threshold, rescale, slope, scale, samples, steps, dquery[t], log_sum[t], mean_of[t], datt, RELATIONS,
                RELATED, MODE, DROP, MERGED, H, C, CP, M, K, PRECISION,
            )  # fmt: skip
        own -= programs


@triton.jit
def of_sources(own, FIRST: tl.constexpr, END: tl.constexpr, value, key, query, att, first, second, target_ptr, source_ptr, grad,
               log_sum, mean_of, seed, threshold, rescale, slope, scale, samples, steps, dvalue, dkey, RELATIONS: tl.constexpr,
               MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
               M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """`backward_sources` for a block of sources of one type, by its program `own`."""
    sample, begin, there, is_source = block(own, source_ptr, samples, steps, M)
    head, source, column = tl.program_id(1), begin + there, tl.arange(0, CP)
    for r in tl.static_range(FIRST, END):
        start, count = others(target_ptr[r], sample, there, is_source)
        left = ends_of(key, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, MODE, H, C)
        row = rows_of(value, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, head, column, H, C)
        drow = tl.zeros([M, CP], tl.float32)
        dkey_row = tl.zeros([M, CP], tl.float32)
        dnumber = tl.zeros([M], tl.float32)
        for k0 in range(0, count, K):
            here = k0 + tl.arange(0, K)
            target, is_target = start + here, here < count
            valid, place = tied(
                RELATIONS[r], first[r], second[r], target, here, count, is_target, there, is_source, DROP
            )
            right = ends_of(
                query[r], target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, head, column, MODE, H, C
            )
            score, unbent = scored(
                RELATIONS[r], value, query[r], att, left, right, target, is_target, source, is_source, head, slope, scale,
                MODE, H, C, PRECISION,
            )  # fmt: skip
            logarithm = numbers_of(log_sum[r], target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, head, H)
            mean = numbers_of(mean_of[r], target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], is_target, head, H)
            g = grads_of(RELATIONS[r], grad[r], target, is_target, head, column, MERGED, H, C)
            alpha = tl.where(valid, tl.exp(score - logarithm[:, None]), 0.0)
            product = tl.dot(g, tl.trans(row), input_precision=PRECISION)
            passed = alpha
            if DROP:
                keep = kept(seed, RELATIONS[r][NUMBER], target, place, head, threshold, H)
                product = tl.where(keep, product * rescale, 0.0)
                passed = tl.where(keep, alpha * rescale, 0.0)
            dscore = alpha * (product - mean[:, None])
            drow += tl.dot(tl.trans(passed), g, input_precision=PRECISION)
            if MODE == "gat":
                dnumber += tl.sum(dscore * steep(unbent, slope), 0)
            elif MODE == "dot":
                dkey_row += tl.dot(tl.trans(dscore), right, input_precision=PRECISION) * scale
            else:
                drow += spread(
                    RELATIONS[r], value, query[r], att, dscore, target, is_target, source, is_source, head, column, slope,
                    H, C,
                )[1]  # fmt: skip
        store_rows(dvalue, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, drow, head, column, H, C)
        if MODE == "gat":
            store_numbers(dkey, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, dnumber, head, H)
        elif MODE == "dot":
            store_rows(
                dkey, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_source, dkey_row, head, column, H, C
            )


@triton.jit(do_not_specialize=FREE)
def backward_sources(value, key, query, att, first, second, target_ptr, source_ptr, grad, log_sum, mean_of, seed, threshold,
                     rescale, slope, scale, samples, steps, dvalue, dkey, RELATIONS: tl.constexpr, TYPES: tl.constexpr,
                     MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
                     CP: tl.constexpr, M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Gradients of value and key of a block of sources and a head: a program of the grid (Σ ⌊N / M⌋ + B, H)."""
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        programs = tl.load(source_ptr[t] + samples) // M + samples
        if (own >= 0) & (own < programs):
            of_sources(
                own, TYPES[t][0], TYPES[t][1], value[t], key[t], query, att, first, second, target_ptr, source_ptr[t], grad,
                log_sum, mean_of, seed, threshold, rescale, slope, scale, samples, steps, dvalue[t], dkey[t], RELATIONS, MODE,
                DROP, MERGED, H, C, CP, M, K, PRECISION,
            )  # fmt: skip
        own -= programs

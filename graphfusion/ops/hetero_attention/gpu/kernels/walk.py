# mypy: ignore-errors
"""Kernels that walk the pairs of targets, or of sources, one relation after another. Formulas: README.md, sections 1 and 2.

One launch serves all node types. A program holds `M` nodes × `K` edges of each × all heads × the width of a head at a time; sums
are float32, every number is written by one program in one order, and nothing is added atomically. `RELATIONS` has for each
relation, all known to the compiler: kind, four parameters, its number, slot among those that leave the source type, their number,
slot among those that enter the target type, their number, whether it has edge features. `TYPES` has for each type that a launch
serves: the first of its relations, the one after its last, and whether outputs are added to what is there; its programs come
after those of the types before it.

Letters: `H` heads, `C` width of a head, both rounded up to `HP` and `CP`, powers of two; `V` value rows a node (`H`, or 1).
"""

from __future__ import annotations

import triton
import triton.language as tl

CSR, DENSE, BROADCAST, WINDOW, GRID, BITMASK = (tl.constexpr(i) for i in range(6))
"""Kinds, as `pairs.KINDS` counts them: Triton 3.6 takes no text in a tuple."""
KIND, NUMBER, LEAVES, LEAVING, ENTERS, ENTERING, HAS_EDGE = (tl.constexpr(i) for i in (0, 5, 6, 7, 8, 9, 10))
"""Places in an entry of `RELATIONS`; parameters are at 1 to 4."""
FREE = ("threshold", "rescale", "slope", "scale", "samples", "steps")
"""Arguments whose values no kernel is compiled anew for."""


@triton.jit
def owner(ptr, node, inside, samples, steps):
    """(M,) sample of each node: the last one that begins at or before it. `steps`: halvings that `samples` take."""
    low = tl.zeros_like(node)
    high = low + samples
    for _ in range(steps):
        middle = (low + high) // 2
        before = tl.load(ptr + middle, mask=inside, other=0) <= node
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def extent(ptr, sample, inside):
    """First node of each sample, and how many it has; 0 outside."""
    start = tl.load(ptr + sample, mask=inside, other=0)
    return start, tl.load(ptr + sample + 1, mask=inside, other=0) - start


@triton.jit
def candidates(relation: tl.constexpr, first, second, target, inside, count):
    """How many candidates for a source each target has (M,), and where its list or mask begins. `count`: nodes that the
    sample has of the source type.
    """
    begin = tl.zeros_like(count)
    number = count
    if relation[KIND] == CSR:
        begin = tl.load(first + target, mask=inside, other=0)
        number = tl.load(first + target + 1, mask=inside, other=0) - begin
    elif relation[KIND] == BITMASK:
        begin = tl.load(second + target, mask=inside, other=0)
    elif relation[KIND] == WINDOW:
        number = tl.where(inside, relation[2] - relation[1] + 1, 0)
    elif relation[KIND] == GRID:
        number = tl.where(inside, (2 * relation[1] + 1) * (2 * relation[1] + 1), 0)
    return begin, number


@triton.jit
def neighbours(relation: tl.constexpr, down, right):
    """Whether an offset in a raster is one of the relation's."""
    valid = down == down
    if not relation[2]:
        valid = valid & (tl.abs(down) + tl.abs(right) <= relation[1])
    if not relation[3]:
        valid = valid & ((down != 0) | (right != 0))
    return valid


@triton.jit
def sources(relation: tl.constexpr, first, second, begin, number, here, start, count, sample, k):
    """(M, K) source of each candidate `k` (1, K), and whether there is an edge; the rest is (M, 1). `here`: place of the
    target in its sample, `start`: first source of the sample.
    """
    inside = k < number
    if relation[KIND] == CSR:
        source = tl.load(second + begin + k, mask=inside, other=0)
        valid = inside
    elif relation[KIND] == WINDOW:
        step = relation[1] + k
        local = here + step * relation[3]
        valid = inside & (local >= 0) & (local < count) & ((step != 0) | (relation[4] != 0))
        source = start + local
    elif relation[KIND] == GRID:
        columns = tl.load(first + sample)
        side: tl.constexpr = 2 * relation[1] + 1
        down, right = k // side - relation[1], k % side - relation[1]
        row, column = here // columns + down, here % columns + right
        local = row * columns + column
        valid = (
            inside
            & (row >= 0)
            & (column >= 0)
            & (column < columns)
            & (local < count)
            & neighbours(relation, down, right)
        )
        source = start + local
    elif relation[KIND] == BITMASK:
        word = tl.load(first + begin + k // 32, mask=inside, other=0)
        valid = inside & (((word >> (k % 32)) & 1) != 0)
        source = start + k
    else:
        valid = inside & ((k != here) | (relation[1] != 0))
        source = start + k
    return source, valid


@triton.jit
def ones(word):
    """How many bits of 32 are set."""
    x = word.to(tl.uint32)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def receivers(relation: tl.constexpr, first, second, third, begin, number, here, start, count, there, sample, k,
              DROP: tl.constexpr):  # fmt: skip
    """(M, K) target of each candidate `k` (1, K) of a source, whether there is an edge, its number in the list, and its place
    among the edges of the target; the rest is (M, 1). `here`: place of the source in its sample; `start`, `count`: first target
    of the sample, and how many; `there`: how many sources. For a list `first`, `second`, `third` are: where each target's edges
    begin, targets by source, edges by source; `begin` is where those of the source begin.
    """
    inside = k < number
    at = tl.zeros_like(k)
    place = tl.zeros_like(here + k)
    if relation[KIND] == CSR:
        valid = inside
        target = tl.load(second + begin + k, mask=valid, other=0)
        at = tl.load(third + begin + k, mask=valid, other=0)
        if DROP:
            place = at - tl.load(first + target, mask=valid, other=0)
    elif relation[KIND] == WINDOW:
        step = relation[1] + k
        local = here - step * relation[3]
        valid = inside & (local >= 0) & (local < count) & ((step != 0) | (relation[4] != 0))
        target = start + local
        if DROP:
            below = tl.maximum(relation[1], -(local // relation[3]))  # the first step that stays in the sample
            place = step - below
            if not relation[4]:
                place = place - ((step > 0) & (below <= 0) & (local < there)).to(tl.int32)
    elif relation[KIND] == GRID:
        columns = tl.load(first + sample)
        side: tl.constexpr = 2 * relation[1] + 1
        down, right = k // side - relation[1], k % side - relation[1]
        row, column = here // columns - down, here % columns - right
        local = row * columns + column
        valid = (
            inside
            & (row >= 0)
            & (column >= 0)
            & (column < columns)
            & (local < count)
            & neighbours(relation, down, right)
        )
        target = start + local
        if DROP:
            for q in range(side * side):
                r, c = row + (q // side - relation[1]), column + (q % side - relation[1])
                earlier = (q < k) & (r >= 0) & (c >= 0) & (c < columns) & (r * columns + c < there)
                wanted = neighbours(relation, k * 0 + (q // side - relation[1]), k * 0 + (q % side - relation[1]))
                place += (earlier & wanted).to(tl.int32)
    elif relation[KIND] == BITMASK:
        target = start + k
        word_begin = tl.load(second + target, mask=inside, other=0)
        word = tl.load(first + word_begin + here // 32, mask=inside, other=0)
        if DROP:
            for w in range(tl.max(here) // 32):
                whole = tl.load(first + word_begin + w, mask=inside & (w < here // 32), other=0)
                place += ones(whole)
            place += ones(word & ((1 << (here % 32)) - 1))
        valid = inside & (((word >> (here % 32)) & 1) != 0)
    else:
        valid = inside & ((k != here) | (relation[1] != 0))
        target = start + k
        if DROP:
            place = here + tl.zeros_like(k)
            if not relation[1]:
                place = place - (here > k).to(tl.int32)
    return target, valid, at, place


@triton.jit
def mixed(x):
    """Chris Wellons' lowbias32."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def kept(seed, number: tl.constexpr, target, place, head, threshold, H: tl.constexpr):
    """Whether dropout keeps (M, K, HP): see `reference.counted_uniform`. `threshold`: p · 2³² rounded up, at most 2³² − 1."""
    low = tl.load(seed).to(tl.uint32)
    high = (tl.load(seed) >> 32).to(tl.uint32)
    base = mixed(low ^ ((number * 0x9E3779B9) & 0xFFFFFFFF))
    each = mixed(mixed(base ^ high) ^ target.to(tl.uint32))[:, :, None]
    counter = (place[:, :, None] * H + head[None, None, :]).to(tl.uint32)
    return mixed(each ^ counter) >= threshold.to(tl.uint32)


@triton.jit
def rows_of(
    table, node, slot: tl.constexpr, slots: tl.constexpr, valid, head, column, ROWS: tl.constexpr, C: tl.constexpr
):
    """(·, ·, HP or 1, CP) float32 of a table (N, slots, ROWS, C) at nodes (·, ·); 0 where there is no node, head or column."""
    place = (node.to(tl.int64)[:, :, None, None] * slots + slot) * (ROWS * C)
    at = place + column[None, None, None, :]
    mask = valid[:, :, None, None] & (column < C)[None, None, None, :]
    if ROWS > 1:
        at = at + head[None, None, :, None] * C
        mask = mask & (head < ROWS)[None, None, :, None]
    return tl.load(table + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def numbers_of(table, node, slot: tl.constexpr, slots: tl.constexpr, valid, head, H: tl.constexpr):
    """(·, ·, HP) float32 of a table (N, slots, H); 0 where there is no node or head."""
    at = (node.to(tl.int64)[:, :, None] * slots + slot) * H + head[None, None, :]
    return tl.load(table + at, mask=valid[:, :, None] & (head < H)[None, None, :], other=0.0).to(tl.float32)


@triton.jit
def store_rows(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, found, head, column, ROWS: tl.constexpr,
               C: tl.constexpr):  # fmt: skip
    """Write (M, HP or 1, CP) to a table (N, slots, ROWS, C)."""
    at = (node.to(tl.int64)[:, None, None] * slots + slot) * (ROWS * C) + column[None, None, :]
    mask = inside[:, None, None] & (column < C)[None, None, :]
    if ROWS > 1:
        at = at + head[None, :, None] * C
        mask = mask & (head < ROWS)[None, :, None]
    tl.store(table + at, found, mask=mask)


@triton.jit
def store_numbers(table, node, slot: tl.constexpr, slots: tl.constexpr, inside, found, head, H: tl.constexpr):
    """Write (M, HP) to a table (N, slots, H)."""
    at = (node.to(tl.int64)[:, None] * slots + slot) * H + head[None, :]
    tl.store(table + at, found, mask=inside[:, None] & (head < H)[None, :])


@triton.jit
def leaky(x, slope):
    """X above 0, else slope · x."""
    return tl.where(x > 0, x, slope * x)


@triton.jit
def steep(x, slope):
    """Its derivative: 1 above 0, else the slope."""
    return tl.where(x > 0, 1.0, slope)


@triton.jit
def scored(left, right, extra, att, slope, scale, MODE: tl.constexpr):
    """Scores (M, K, HP) of keys `left` and queries `right`, and what the leaky rectifier was given."""
    if MODE == "dot":
        score = tl.sum(left * right, 3) * scale + extra
        before = score
    else:
        before = left + right + extra
        score = leaky(before, slope)
        if MODE == "gatv2":
            score = tl.sum(score * att, 3)
    return score, before


@triton.jit
def keys_of(relation: tl.constexpr, value, key, node, valid, head, column, MODE: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
            V: tl.constexpr):  # fmt: skip
    """Keys of source nodes, (·, ·, HP) in mode `gat`, else (·, ·, HP, CP)."""
    if MODE == "gat":
        found = numbers_of(key, node, relation[LEAVES], relation[LEAVING], valid, head, H)
    elif MODE == "gatv2":
        found = rows_of(value, node, relation[LEAVES], relation[LEAVING], valid, head, column, V, C)
    else:
        found = rows_of(key, node, relation[LEAVES], relation[LEAVING], valid, head, column, H, C)
    return found


@triton.jit
def queries_of(relation: tl.constexpr, query, node, valid, head, column, MODE: tl.constexpr, H: tl.constexpr,
               C: tl.constexpr):  # fmt: skip
    """Queries of target nodes, shaped as `keys_of`."""
    if MODE == "gat":
        found = numbers_of(query, node, relation[ENTERS], relation[ENTERING], valid, head, H)
    else:
        found = rows_of(query, node, relation[ENTERS], relation[ENTERING], valid, head, column, H, C)
    return found


@triton.jit
def extras_of(relation: tl.constexpr, edge, at, valid, head, column, MODE: tl.constexpr, H: tl.constexpr,
              C: tl.constexpr):  # fmt: skip
    """Edge features of edges `at`, shaped as `keys_of`; 0 where a relation has none."""
    if not relation[HAS_EDGE]:
        found = 0.0
    elif MODE == "gatv2":
        found = rows_of(edge, at, 0, 1, valid, head, column, H, C)
    else:
        found = numbers_of(edge, at, 0, 1, valid, head, H)
    return found


@triton.jit
def att_of(relation: tl.constexpr, att, head, column, MODE: tl.constexpr, H: tl.constexpr, C: tl.constexpr):
    """(1, 1, HP, CP) of `gatv2`."""
    if MODE == "gatv2":
        node = tl.zeros([1, 1], tl.int32) + relation[NUMBER]
        found = rows_of(att, node, 0, 1, node >= 0, head, column, H, C)
    else:
        found = 0.0
    return found


@triton.jit
def weighed(score, valid, head, top, total, H: tl.constexpr):
    """Softmax over edges of which `top` is the largest score and `total` the sum (M, HP): weights (M, K, HP)."""
    mask = valid[:, :, None] & (head < H)[None, None, :]
    return tl.where(mask, tl.exp(score - top[:, None, :]) / total[:, None, :], 0.0)


@triton.jit
def gathered(relation: tl.constexpr, value, key, edge, first, second, right, att, grad, target, begin, number, here, start,
             count, sample, head, column, seed, threshold, rescale, slope, scale, top, total, mean, MODE: tl.constexpr,
             DROP: tl.constexpr, BACK: tl.constexpr, H: tl.constexpr, C: tl.constexpr, V: tl.constexpr,
             K: tl.constexpr):  # fmt: skip
    """Largest score, sum of exponentials, and (for a gradient) Σ exp(s) m (g · v), each (M, HP), over what was there before
    and the edges of one relation into each target.
    """
    seen = tl.zeros_like(number)
    for k0 in range(0, tl.max(number), K):
        k = k0 + tl.arange(0, K)[None, :]
        source, valid = sources(relation, first, second, begin, number, here, start, count, sample, k)
        left = keys_of(relation, value, key, source, valid, head, column, MODE, H, C, V)
        extra = extras_of(relation, edge, begin + k, valid, head, column, MODE, H, C)
        score = scored(left, right, extra, att, slope, scale, MODE)[0]
        score = tl.where(valid[:, :, None] & (head < H)[None, None, :], score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        before = tl.exp(top - base)
        weight = tl.exp(score - base[:, None, :])
        total = total * before + tl.sum(weight, 1)
        if BACK:
            row = rows_of(value, source, relation[LEAVES], relation[LEAVING], valid, head, column, V, C)
            product = tl.sum(row * grad, 3)
            if DROP:
                place = seen + tl.cumsum(valid.to(tl.int32), 1) - 1
                keep = kept(seed, relation[NUMBER], target, place, head, threshold, H)
                product = tl.where(keep, product * rescale, 0.0)
                seen += tl.sum(valid.to(tl.int32), 1)[:, None]
            mean = mean * before + tl.sum(weight * product, 1)
        top = higher
    return top, total, mean


@triton.jit
def outputs(own, nodes, FIRST: tl.constexpr, END: tl.constexpr, ADD: tl.constexpr, value, key, query, att, edge, first, second,
            source_ptr, target_ptr, out, seed, threshold, rescale, slope, scale, samples, steps, RELATIONS: tl.constexpr,
            MODE: tl.constexpr, ACROSS: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr,
            HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, V: tl.constexpr, M: tl.constexpr,
            K: tl.constexpr):  # fmt: skip
    """Outputs of `M` target nodes of one type, by its program `own`."""
    target = own * M + tl.arange(0, M)
    inside = target < nodes
    sample = owner(target_ptr, target, inside, samples, steps)
    here = target - extent(target_ptr, sample, inside)[0]
    head, column = tl.arange(0, HP), tl.arange(0, CP)
    node, is_node = target[:, None], inside[:, None]
    top = tl.full([M, HP], float("-inf"), tl.float32)
    total = tl.zeros([M, HP], tl.float32)
    if ACROSS:
        for r in tl.static_range(FIRST, END):
            start, count = extent(source_ptr[r], sample, inside)
            begin, number = candidates(RELATIONS[r], first[r], second[r], target, inside, count)
            right = queries_of(RELATIONS[r], query, node, is_node, head, column, MODE, H, C)
            weight = att_of(RELATIONS[r], att, head, column, MODE, H, C)
            top, total, _ = gathered(
                RELATIONS[r], value[r], key[r], edge[r], first[r], second[r], right, weight, 0.0, node, begin[:, None],
                number[:, None], here[:, None], start[:, None], count[:, None], sample[:, None], head, column, seed, threshold,
                rescale, slope, scale, top, total, 0.0, MODE, False, False, H, C, V, K,
            )  # fmt: skip
    merged = tl.zeros([M, HP, CP], tl.float32)
    for r in tl.static_range(FIRST, END):
        start, count = extent(source_ptr[r], sample, inside)
        begin, number = candidates(RELATIONS[r], first[r], second[r], target, inside, count)
        right = queries_of(RELATIONS[r], query, node, is_node, head, column, MODE, H, C)
        weight = att_of(RELATIONS[r], att, head, column, MODE, H, C)
        if not ACROSS:
            top, total, _ = gathered(
                RELATIONS[r], value[r], key[r], edge[r], first[r], second[r], right, weight, 0.0, node, begin[:, None],
                number[:, None], here[:, None], start[:, None], count[:, None], sample[:, None], head, column, seed, threshold,
                rescale, slope, scale, tl.full([M, HP], float("-inf"), tl.float32), tl.zeros([M, HP], tl.float32), 0.0,
                MODE, False, False, H, C, V, K,
            )  # fmt: skip
        found = tl.zeros([M, HP, CP], tl.float32)
        seen = tl.zeros_like(number)[:, None]
        for k0 in range(0, tl.max(number), K):
            k = k0 + tl.arange(0, K)[None, :]
            source, valid = sources(
                RELATIONS[r], first[r], second[r], begin[:, None], number[:, None], here[:, None], start[:, None],
                count[:, None], sample[:, None], k,
            )  # fmt: skip
            left = keys_of(RELATIONS[r], value[r], key[r], source, valid, head, column, MODE, H, C, V)
            extra = extras_of(RELATIONS[r], edge[r], begin[:, None] + k, valid, head, column, MODE, H, C)
            score = scored(left, right, extra, weight, slope, scale, MODE)[0]
            alpha = weighed(score, valid, head, top, total, H)
            if DROP:
                place = seen + tl.cumsum(valid.to(tl.int32), 1) - 1
                keep = kept(seed, RELATIONS[r][NUMBER], node, place, head, threshold, H)
                alpha = tl.where(keep, alpha * rescale, 0.0)
                seen += tl.sum(valid.to(tl.int32), 1)[:, None]
            row = rows_of(value[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], valid, head, column, V, C)
            found += tl.sum(alpha[:, :, :, None] * row, 1)
        if MERGED:
            merged += found
        else:
            store_rows(out, target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], inside, found, head, column, H, C)
    if MERGED:
        if ADD:
            merged += tl.sum(rows_of(out, node, 0, 1, is_node, head, column, H, C), 1)
        store_rows(out, target, 0, 1, inside, merged, head, column, H, C)


@triton.jit(do_not_specialize=FREE)
def forward(value, key, query, att, edge, first, second, source_ptr, target_ptr, out, seed, threshold, rescale, slope, scale,
            samples, steps, RELATIONS: tl.constexpr, TYPES: tl.constexpr, MODE: tl.constexpr, ACROSS: tl.constexpr,
            DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
            V: tl.constexpr, M: tl.constexpr, K: tl.constexpr):  # fmt: skip
    """Outputs of all types: a program of the grid (Σ ⌈N / M⌉,)."""
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        nodes = tl.load(target_ptr[t] + samples)
        programs = tl.cdiv(nodes, M)
        if (own >= 0) & (own < programs):
            outputs(
                own, nodes, TYPES[t][0], TYPES[t][1], TYPES[t][2], value, key, query[t], att, edge, first, second, source_ptr,
                target_ptr[t], out[t], seed, threshold, rescale, slope, scale, samples, steps, RELATIONS, MODE, ACROSS, DROP,
                MERGED, H, HP, C, CP, V, M, K,
            )  # fmt: skip
        own -= programs


@triton.jit
def of_targets(own, nodes, FIRST: tl.constexpr, END: tl.constexpr, value, key, query, att, edge, first, second, source_ptr,
               target_ptr, grad, seed, threshold, rescale, slope, scale, samples, steps, dquery, log_sum, mean_of, dedge, datt,
               RELATIONS: tl.constexpr, RELATED: tl.constexpr, MODE: tl.constexpr, ACROSS: tl.constexpr, DROP: tl.constexpr,
               MERGED: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, V: tl.constexpr,
               M: tl.constexpr, K: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """`backward_targets` for `T` times `M` target nodes of one type, by its program `own`."""
    head, column = tl.arange(0, HP), tl.arange(0, CP)
    entering: tl.constexpr = RELATIONS[FIRST][ENTERING]
    grads: tl.constexpr = 1 if MERGED else entering
    for n in range(T):
        target = (own * T + n) * M + tl.arange(0, M)
        inside = target < nodes
        sample = owner(target_ptr, target, inside, samples, steps)
        here = target - extent(target_ptr, sample, inside)[0]
        node, is_node = target[:, None], inside[:, None]
        top = tl.full([M, HP], float("-inf"), tl.float32)
        total = tl.zeros([M, HP], tl.float32)
        mean = tl.zeros([M, HP], tl.float32)
        if ACROSS:
            for r in tl.static_range(FIRST, END):
                start, count = extent(source_ptr[r], sample, inside)
                begin, number = candidates(RELATIONS[r], first[r], second[r], target, inside, count)
                right = queries_of(RELATIONS[r], query, node, is_node, head, column, MODE, H, C)
                weight = att_of(RELATIONS[r], att, head, column, MODE, H, C)
                g = rows_of(grad, node, 0 if MERGED else RELATIONS[r][ENTERS], grads, is_node, head, column, H, C)
                top, total, mean = gathered(
                    RELATIONS[r], value[r], key[r], edge[r], first[r], second[r], right, weight, g, node, begin[:, None],
                    number[:, None], here[:, None], start[:, None], count[:, None], sample[:, None], head, column, seed,
                    threshold, rescale, slope, scale, top, total, mean, MODE, DROP, True, H, C, V, K,
                )  # fmt: skip
        for r in tl.static_range(FIRST, END):
            start, count = extent(source_ptr[r], sample, inside)
            begin, number = candidates(RELATIONS[r], first[r], second[r], target, inside, count)
            right = queries_of(RELATIONS[r], query, node, is_node, head, column, MODE, H, C)
            weight = att_of(RELATIONS[r], att, head, column, MODE, H, C)
            g = rows_of(grad, node, 0 if MERGED else RELATIONS[r][ENTERS], grads, is_node, head, column, H, C)
            if not ACROSS:
                top, total, mean = gathered(
                    RELATIONS[r], value[r], key[r], edge[r], first[r], second[r], right, weight, g, node, begin[:, None],
                    number[:, None], here[:, None], start[:, None], count[:, None], sample[:, None], head, column, seed,
                    threshold, rescale, slope, scale, tl.full([M, HP], float("-inf"), tl.float32),
                    tl.zeros([M, HP], tl.float32), tl.zeros([M, HP], tl.float32), MODE, DROP, True, H, C, V, K,
                )  # fmt: skip
            there = total > 0
            mu = tl.where(there, mean / tl.where(there, total, 1.0), 0.0)
            logarithm = tl.where(there, top + tl.log(tl.where(there, total, 1.0)), 0.0)
            store_numbers(log_sum, target, RELATIONS[r][ENTERS], entering, inside, logarithm, head, H)
            store_numbers(mean_of, target, RELATIONS[r][ENTERS], entering, inside, mu, head, H)
            dright = right * 0.0
            datt_here = weight * 0.0
            seen = tl.zeros_like(number)[:, None]
            for k0 in range(0, tl.max(number), K):
                k = k0 + tl.arange(0, K)[None, :]
                source, valid = sources(
                    RELATIONS[r], first[r], second[r], begin[:, None], number[:, None], here[:, None], start[:, None],
                    count[:, None], sample[:, None], k,
                )  # fmt: skip
                left = keys_of(RELATIONS[r], value[r], key[r], source, valid, head, column, MODE, H, C, V)
                extra = extras_of(RELATIONS[r], edge[r], begin[:, None] + k, valid, head, column, MODE, H, C)
                score, before = scored(left, right, extra, weight, slope, scale, MODE)
                alpha = weighed(score, valid, head, top, total, H)
                row = rows_of(value[r], source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], valid, head, column, V, C)
                product = tl.sum(row * g, 3)
                if DROP:
                    place = seen + tl.cumsum(valid.to(tl.int32), 1) - 1
                    keep = kept(seed, RELATIONS[r][NUMBER], node, place, head, threshold, H)
                    product = tl.where(keep, product * rescale, 0.0)
                    seen += tl.sum(valid.to(tl.int32), 1)[:, None]
                dscore = alpha * (product - mu[:, None, :])
                if MODE == "gat":
                    dbefore = dscore * steep(before, slope)
                    dright += tl.sum(dbefore, 1)[:, None, :]
                elif MODE == "gatv2":
                    dbefore = dscore[:, :, :, None] * weight * steep(before, slope)
                    dright += tl.sum(dbefore, 1)[:, None, :, :]
                    datt_here += tl.sum(tl.sum(dscore[:, :, :, None] * leaky(before, slope), 1), 0)[None, None, :, :]
                else:
                    dbefore = dscore
                    dright += tl.sum(dscore[:, :, :, None] * left, 1)[:, None, :, :] * scale
                if RELATIONS[r][HAS_EDGE]:
                    at = (begin[:, None] + k).to(tl.int64)[:, :, None] * H + head[None, None, :]
                    mask = valid[:, :, None] & (head < H)[None, None, :]
                    if MODE == "gatv2":
                        at = at[:, :, :, None] * C + column[None, None, None, :]
                        mask = mask[:, :, :, None] & (column < C)[None, None, None, :]
                    tl.store(dedge[r] + at, dbefore, mask=mask)
            if MODE == "gat":
                store_numbers(dquery, target, RELATIONS[r][ENTERS], entering, inside, tl.sum(dright, 1), head, H)
            else:
                store_rows(
                    dquery, target, RELATIONS[r][ENTERS], entering, inside, tl.sum(dright, 1), head, column, H, C
                )
            if MODE == "gatv2":
                begins = (own.to(tl.int64) * RELATED + RELATIONS[r][NUMBER]) * (H * C)
                at = begins + head[:, None] * C + column[None, :]
                mask = (head < H)[:, None] & (column < C)[None, :]
                sofar = tl.load(datt + at, mask=mask, other=0.0)
                tl.store(datt + at, sofar + tl.sum(tl.sum(datt_here, 0), 0), mask=mask)


@triton.jit(do_not_specialize=FREE)
def backward_targets(value, key, query, att, edge, first, second, source_ptr, target_ptr, grad, seed, threshold, rescale, slope,
                     scale, samples, steps, dquery, log_sum, mean_of, dedge, datt, RELATIONS: tl.constexpr, TYPES: tl.constexpr,
                     RELATED: tl.constexpr, MODE: tl.constexpr, ACROSS: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr,
                     H: tl.constexpr, HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, V: tl.constexpr, M: tl.constexpr,
                     K: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """Gradients of query, edge features and att, and what `backward_sources` needs of each target, relation and head: the
    logarithm of the softmax's sum, and Σ α m (g · v). A program of the grid (Σ ⌈N / T M⌉,) adds to its own row of `datt`
    (programs of a type, RELATED, H, C), which begins as zeros; `RELATED` counts the relations of the plan.
    """
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        nodes = tl.load(target_ptr[t] + samples)
        programs = tl.cdiv(nodes, T * M)
        if (own >= 0) & (own < programs):
            of_targets(
                own, nodes, TYPES[t][0], TYPES[t][1], value, key, query[t], att, edge, first, second, source_ptr,
                target_ptr[t], grad[t], seed, threshold, rescale, slope, scale, samples, steps, dquery[t], log_sum[t],
                mean_of[t], dedge, datt, RELATIONS, RELATED, MODE, ACROSS, DROP, MERGED, H, HP, C, CP, V, M, K, T,
            )  # fmt: skip
        own -= programs


@triton.jit
def of_sources(own, nodes, FIRST: tl.constexpr, END: tl.constexpr, value, key, query, att, edge, first, second, third, begins,
               target_ptr, source_ptr, grad, log_sum, mean_of, seed, threshold, rescale, slope, scale, samples, steps, dvalue,
               dkey, RELATIONS: tl.constexpr, MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr,
               HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, V: tl.constexpr, M: tl.constexpr,
               K: tl.constexpr):  # fmt: skip
    """`backward_sources` for `M` source nodes of one type, by its program `own`."""
    source = own * M + tl.arange(0, M)
    inside = source < nodes
    sample = owner(source_ptr, source, inside, samples, steps)
    begun, there = extent(source_ptr, sample, inside)
    here = source - begun
    head, column = tl.arange(0, HP), tl.arange(0, CP)
    node, is_node = source[:, None], inside[:, None]
    for r in tl.static_range(FIRST, END):
        start, count = extent(target_ptr[r], sample, inside)
        if RELATIONS[r][KIND] == BITMASK:
            begin, number = tl.zeros_like(count), count
        else:
            begin, number = candidates(RELATIONS[r], begins[r], second[r], source, inside, count)
        left = keys_of(RELATIONS[r], value, key, node, is_node, head, column, MODE, H, C, V)
        row = rows_of(value, node, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], is_node, head, column, V, C)
        weight = att_of(RELATIONS[r], att, head, column, MODE, H, C)
        dleft = left * 0.0
        drow = tl.zeros([M, HP, CP], tl.float32)
        for k0 in range(0, tl.max(number), K):
            k = k0 + tl.arange(0, K)[None, :]
            target, valid, at, place = receivers(
                RELATIONS[r], first[r], second[r], third[r], begin[:, None], number[:, None], here[:, None], start[:, None],
                count[:, None], there[:, None], sample[:, None], k, DROP,
            )  # fmt: skip
            right = queries_of(RELATIONS[r], query[r], target, valid, head, column, MODE, H, C)
            extra = extras_of(RELATIONS[r], edge[r], at, valid, head, column, MODE, H, C)
            score, before = scored(left, right, extra, weight, slope, scale, MODE)
            logarithm = numbers_of(log_sum[r], target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], valid, head, H)
            alpha = tl.where(valid[:, :, None] & (head < H)[None, None, :], tl.exp(score - logarithm), 0.0)
            g = rows_of(
                grad[r],
                target,
                0 if MERGED else RELATIONS[r][ENTERS],
                1 if MERGED else RELATIONS[r][ENTERING],
                valid,
                head,
                column,
                H,
                C,
            )
            product = tl.sum(row * g, 3)
            passed = alpha
            if DROP:
                keep = kept(seed, RELATIONS[r][NUMBER], target, place, head, threshold, H)
                product = tl.where(keep, product * rescale, 0.0)
                passed = tl.where(keep, alpha * rescale, 0.0)
            dscore = alpha * (
                product - numbers_of(mean_of[r], target, RELATIONS[r][ENTERS], RELATIONS[r][ENTERING], valid, head, H)
            )
            drow += tl.sum(passed[:, :, :, None] * g, 1)
            if MODE == "gat":
                dleft += tl.sum(dscore * steep(before, slope), 1)[:, None, :]
            elif MODE == "gatv2":
                drow += tl.sum(dscore[:, :, :, None] * weight * steep(before, slope), 1)
            else:
                dleft += tl.sum(dscore[:, :, :, None] * right, 1)[:, None, :, :] * scale
        if V == 1:
            drow = tl.sum(drow, 1)[:, None, :]
        store_rows(dvalue, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], inside, drow, head, column, V, C)
        if MODE == "gat":
            store_numbers(dkey, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], inside, tl.sum(dleft, 1), head, H)
        elif MODE == "dot":
            store_rows(
                dkey, source, RELATIONS[r][LEAVES], RELATIONS[r][LEAVING], inside, tl.sum(dleft, 1), head, column, H, C
            )


@triton.jit(do_not_specialize=FREE)
def backward_sources(value, key, query, att, edge, first, second, third, begins, target_ptr, source_ptr, grad, log_sum, mean_of,
                     seed, threshold, rescale, slope, scale, samples, steps, dvalue, dkey, RELATIONS: tl.constexpr,
                     TYPES: tl.constexpr, MODE: tl.constexpr, DROP: tl.constexpr, MERGED: tl.constexpr, H: tl.constexpr,
                     HP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, V: tl.constexpr, M: tl.constexpr,
                     K: tl.constexpr):  # fmt: skip
    """Gradients of value and key of all types: a program of the grid (Σ ⌈N / M⌉,). `begins`: where the edges of each source
    begin in a list.
    """
    own = tl.program_id(0)
    for t in tl.static_range(len(TYPES)):
        nodes = tl.load(source_ptr[t] + samples)
        programs = tl.cdiv(nodes, M)
        if (own >= 0) & (own < programs):
            of_sources(
                own, nodes, TYPES[t][0], TYPES[t][1], value[t], key[t], query, att, edge, first, second, third, begins,
                target_ptr, source_ptr[t], grad, log_sum, mean_of, seed, threshold, rescale, slope, scale, samples, steps,
                dvalue[t], dkey[t], RELATIONS, MODE, DROP, MERGED, H, HP, C, CP, V, M, K,
            )  # fmt: skip
        own -= programs

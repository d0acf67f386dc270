"""What the operators mean, in plain PyTorch: any device, any float type, any order of derivatives. Never optimised.

Letters: `N` nodes of a type, `E` edges of a relation, `R` relations leaving a type, `Q` relations entering it, `O`
outputs of a type (merged: 1 if anything enters it; else Q), `H` heads, `C` width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

from graphfusion.ops.hetero_attention.plan import Row, outputs_of, read_layout, width_of
from graphfusion.ops.hetero_attention.tracing import exporting


def project(x: Sequence[Tensor], weight: Sequence[Tensor], bias: Sequence[Tensor], of: Sequence[int]) -> list[Tensor]:
    """See `hetero_project`."""
    shifts: list[Tensor | None] = [*bias] if bias else [None] * len(weight)
    return [linear(x[t].to(w.dtype), w, b) for t, w, b in zip(of, weight, shifts, strict=True)]


def attention(
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    att: Tensor | None,
    edge: Sequence[Tensor],
    index: Sequence[Tensor],
    layout: Sequence[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs (N, O, H, C) of each type; attention weights (E, H) of each relation, before dropout. See `hetero_attention`."""
    rows = read_layout(layout, index)
    heads = query[0].shape[2]
    ends = [row.edge_index(index) for row in rows]
    if not exporting():
        for row in rows:
            row.check_samples(index)
    scores = []
    for r, (row, (source, target)) in enumerate(zip(rows, ends, strict=True)):
        extra = edge[r] if edge and edge[r].numel() else None
        scores.append(_scores(row, r, source, target, value, key, query, att, extra, mode, slope))
    if top_k:
        scores = [_keep_best(s, e[1], top_k) for s, e in zip(scores, ends, strict=True)]
    outs = [_zeros(q, value, outputs_of(q.shape[1], bool(layout[2]))) for q in query]
    weights: list[Tensor] = [s.new_empty(0) for s in scores]
    for t in range(layout[0]):
        entering = [r for r, row in enumerate(rows) if row.target == t]
        groups = [entering] if across and entering else [[r] for r in entering]
        for group in groups:
            target = torch.cat([ends[r][1] for r in group])
            alpha = _softmax(torch.cat([scores[r] for r in group]), target, query[t].shape[0])
            for r, part in zip(group, torch.split(alpha, [len(scores[r]) for r in group]), strict=True):
                weights[r] = part
    for r, (row, (source, target)) in enumerate(zip(rows, ends, strict=True)):
        alpha = weights[r]
        if dropout:
            kept = counted_uniform(seed, r, target, place_in_segment(target), heads) >= dropout
            alpha = alpha * kept / (1 - dropout)
        message = alpha[:, :, None] * value[row.source][source, row.leaves].to(alpha.dtype)
        place = 0 if layout[2] else row.enters
        width = outs[row.target].shape[1]
        flat = outs[row.target].flatten(0, 1)
        outs[row.target] = flat.index_add(0, target * width + place, message).view_as(outs[row.target])
    return outs, weights


def _scores(
    row: Row,
    relation: int,
    source: Tensor,
    target: Tensor,
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    att: Tensor | None,
    edge: Tensor | None,
    mode: str,
    slope: float,
) -> Tensor:
    """(E, H) logits of the edges of one relation."""
    there = value if mode == "gatv2" else key
    k, q = there[row.source][source, row.leaves], query[row.target][target, row.enters]
    if mode == "dot":
        dots = (k.to(q.dtype) * q).sum(2) / math.sqrt(k.shape[2])
        return dots if edge is None else dots + edge
    total = k.to(q.dtype) + q
    total = leaky_relu(total if edge is None else total + edge, slope)
    if mode == "gat":
        return total
    assert att is not None
    return (total * att[relation]).sum(2)


def _softmax(scores: Tensor, target: Tensor, count: int) -> Tensor:
    """(E, H) weights that sum to 1 for each target."""
    top = scores.new_full((count, scores.shape[1]), -torch.inf)
    spread = target[:, None].expand_as(scores)
    top = top.scatter_reduce(0, spread, scores.detach(), "amax")
    weight = (scores - top[target]).exp()
    total = scores.new_zeros(count, scores.shape[1]).index_add(0, target, weight)
    return weight / total[target]


def _keep_best(scores: Tensor, target: Tensor, k: int) -> Tensor:
    """Scores with −∞ for all but the `k` largest of each (target, head); equal ones go to the earlier edge."""
    by_score = scores.detach().argsort(dim=0, descending=True, stable=True)
    order = by_score.gather(0, target[by_score].argsort(dim=0, stable=True))
    rank = torch.empty_like(order).scatter(0, order, place_in_segment(target)[:, None].expand_as(order))
    return torch.where(rank < k, scores, -torch.inf)


def place_in_segment(target: Tensor) -> Tensor:
    """(E,) how many edges before each have its target, for targets in ascending order."""
    return torch.arange(len(target), device=target.device) - torch.searchsorted(target, target)


def counted_uniform(seed: Tensor, relation: int, target: Tensor, place: Tensor, heads: int) -> Tensor:
    """(E, H) numbers from [0, 1) that depend on (seed, relation, target, place in its segment, head) alone.

    A 32-bit mixing function (xor-shift-multiply, the constants of Chris Wellons' lowbias32) applied in a chain.
    """
    low, high = (int(seed) & 0xFFFFFFFF, (int(seed) >> 32) & 0xFFFFFFFF)
    base = _mix(torch.tensor(low ^ (relation * 0x9E3779B9 & 0xFFFFFFFF), device=target.device))
    base = _mix(base ^ high)
    each = _mix(base ^ target)[:, None]
    counter = place[:, None] * heads + torch.arange(heads, device=target.device)
    return _mix(each ^ counter).double() / 2**32


def _mix(x: Tensor) -> Tensor:
    mask = 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)


def _zeros(query: Tensor, value: Sequence[Tensor], outputs: int) -> Tensor:
    width = width_of(value)
    return query.new_zeros(query.shape[0], outputs, query.shape[2], width)

"""Messages of a group of relations that share a mode: projections and attention in one call each.

Letters: `N` nodes of a type, `D` features, `R` relations leaving a type, `Q` entering it, `H` heads, `C` width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphfusion.graph_builder import EdgeType
from graphfusion.ops.hetero_attention import Pairs, Plan, hetero_attention, hetero_project, make_plan

Maps = Sequence[Tensor | None]
"""A linear map for each node type; None where it has no relation."""


class OnePlan:
    """Modules whose relations share one mode, and so one plan."""

    edge_types: Sequence[EdgeType]

    def plans(
        self, sizes: Mapping[str, int], pairs: Mapping[EdgeType, Pairs], ptr: Mapping[str, Tensor] | None
    ) -> list[Plan]:
        """What `forward` walks; see `make_plan`."""
        return [make_plan(sizes, {t: pairs[t] for t in self.edge_types}, ptr)]


@dataclass(frozen=True)
class Projections:
    """Stacked linear maps of each node type.

    `value` (R·H·C, D); `key` `gat` (R·H, D), `dot` (R·H·C, D), `gatv2` none; `query` `gat` (Q·H, D), else (Q·H·C, D).
    """

    value: Maps
    key: Maps
    query: Maps
    value_bias: Maps = field(default_factory=tuple)
    query_bias: Maps = field(default_factory=tuple)


def messages(
    x: Sequence[Tensor], plan: Plan, maps: Projections, heads: int, width: int, mode: str, **options: Any
) -> list[Tensor]:
    """X (N, D) of each node type → messages (N, O, H, C); `options` are those of `hetero_attention`.

    Under autocast values are made in its dtype; logits and sums stay in float32.
    """
    low = value_dtype(x[0])
    high = torch.promote_types(x[0].dtype, torch.float32)
    tail = (heads,) if mode == "gat" else (heads, width)
    parts = [(maps.value, maps.value_bias, (heads, width), low), (maps.query, maps.query_bias, tail, high)]
    if mode != "gatv2":
        parts.append((maps.key, (), tail, high))
    value, query, *key = _project(x, parts, options.get("backend", "auto"))
    return hetero_attention(value, key[0] if key else [], query, plan, mode=mode, **options)


def messages_into_few(
    x: Sequence[Tensor], plan: Plan, key: Maps, query: Maps, weight: Sequence[Tensor], heads: int, **options: Any
) -> dict[str, Tensor]:
    """The same in mode `gat` for relations into few nodes: Σ_j α_ij (W x_j) = W (Σ_j α_ij x_j), so rows are gathered
    first and projected after. `weight`: (H, C, D) of each relation; the plan is not merged. → (N, H·C) of each type that
    is entered.
    """
    high = torch.promote_types(x[0].dtype, torch.float32)
    leaving = [len(plan.leaving(name)) for name in plan.node_types]
    width = next((a.shape[1] for a, count in zip(x, leaving, strict=True) if count), 0)
    value = [
        a.to(value_dtype(a))[:, None, None].expand(-1, count, 1, -1)
        if count
        else a.new_empty(a.shape[0], 0, 1, width, dtype=value_dtype(a))
        for a, count in zip(x, leaving, strict=True)
    ]
    keys, queries = _project(
        x, [(key, (), (heads,), high), (query, (), (heads,), high)], options.get("backend", "auto")
    )
    gathered = hetero_attention(value, keys, queries, plan, mode="gat", **options)  # (N, Q, H, D)
    return {
        name: torch.einsum("nqhd,qhcd->nhc", rows, _weights(plan, name, weight).to(rows.dtype)).flatten(1)
        for (name, _), rows in zip(_typed(plan, x), gathered, strict=True)
        if plan.entering(name)
    }


def _weights(plan: Plan, name: str, weight: Sequence[Tensor]) -> Tensor:
    """(Q, H, C, D) of the relations that enter a type."""
    return torch.stack([weight[plan.relations.index(r)] for r in plan.entering(name)])


def _typed(plan: Plan, x: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    return list(zip(plan.node_types, x, strict=True))


def value_dtype(x: Tensor) -> torch.dtype:
    """What values are made in: autocast's dtype, or that of `x`."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _project(
    x: Sequence[Tensor], parts: Sequence[tuple[Maps, Maps, tuple[int, ...], torch.dtype]], backend: str
) -> list[list[Tensor]]:
    """For each (maps, biases, tail, dtype): (N, slots, *tail) of each type, all made in one call."""
    weight = [w.to(dtype) for maps, _, _, dtype in parts for w in maps if w is not None]
    of = [t for maps, *_ in parts for t, w in enumerate(maps) if w is not None]
    bias = [b.to(dtype) for maps, shifts, _, dtype in parts for b in _biases(maps, shifts)] if parts[0][1] else []
    made = iter(hetero_project(x, weight, of, bias, backend))
    return [
        [
            a.new_empty(a.shape[0], 0, *tail, dtype=dtype)
            if w is None
            else next(made).view(a.shape[0], w.shape[0] // math.prod(tail), *tail)
            for a, w in zip(x, maps, strict=True)
        ]
        for maps, _, tail, dtype in parts
    ]


def _biases(maps: Maps, bias: Maps) -> list[Tensor]:
    """A bias for each map; zeros for maps without, since a call has one for every map or none at all."""
    if bias:
        return [b for b in bias if b is not None]
    return [w.new_zeros(w.shape[0]) for w in maps if w is not None]

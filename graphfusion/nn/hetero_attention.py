"""Message passing along all relations of a typed graph: one attention operator per mode.

Letters: `N` nodes of a type, `E` edges of a relation, `D` features, `H` heads, `C` width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError, unknown_name
from graphfusion.graph_builder import EdgeType
from graphfusion.nn.messages import Projections, messages, messages_into_few
from graphfusion.ops.hetero_attention import MODES, Pairs, Plan, make_plan


class HeteroAttention(nn.Module):
    """Graph attention per relation, summed over the relations into a node, over all relations at once.

    `gat`: Veličković et al. 2018 (static: all targets rank the sources alike); `gatv2`: Brody et al. 2022; `dot`:
    Vaswani et al. 2017. The softmax runs over the edges of one relation into one node. Equal to PyG's
    `HeteroConv(GATConv)` and `HeteroConv(GATv2Conv)`; a `gat` target's projection is held as the map to its logits,
    which is all that GAT uses of it.

    Args:
        node_types, edge_types: the frozen vocabulary; every call carries all of them, with 0 rows where absent.
        dim, heads: `heads` heads of width `dim / heads` each.
        mode: one of `MODES`, or one for each edge type.
        edge_dims: width of the edge features of the relations that have some.
        few: node types with a handful of nodes a sample (hubs): `gat` relations into them gather before they project, but for
            on a GPU.

    Raises:
        ConfigError: an unknown mode, or a `dim` that `heads` does not divide.
    """

    def __init__(
        self,
        node_types: Sequence[str],
        edge_types: Sequence[EdgeType],
        dim: int,
        heads: int,
        mode: str | Mapping[EdgeType, str] = "gat",
        dropout: float = 0.0,
        edge_dims: Mapping[EdgeType, int] | None = None,
        few: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        modes = {t: mode if isinstance(mode, str) else mode[t] for t in edge_types}
        for name in modes.values():
            if name not in MODES:
                raise ConfigError(unknown_name("attention mode", name, MODES))
        self.node_types = tuple(node_types)
        dims = edge_dims or {}
        groups: dict[tuple[str, bool], list[EdgeType]] = {}
        for t in edge_types:
            first = modes[t] == "gat" and t[2] in few and t[0] not in few and t not in dims
            groups.setdefault((modes[t], first), []).append(t)
        self.relations = tuple(groups.values())
        self.groups = nn.ModuleList(
            (IntoFew if first else Group)(self.node_types, relations, dim, heads, name, dropout, dims)
            for (name, first), relations in groups.items()
        )
        self.targets = tuple(dict.fromkeys(t[2] for t in edge_types))
        self.bias = nn.ParameterList(torch.zeros(dim) for _ in self.targets)

    def plans(
        self, sizes: Mapping[str, int], pairs: Mapping[EdgeType, Pairs], ptr: Mapping[str, Tensor] | None
    ) -> list[Plan]:
        """What `forward` walks; the same for all layers over one vocabulary. See `make_plan`."""
        return [
            make_plan(sizes, {t: pairs[t] for t in relations}, ptr, merged=not isinstance(g, IntoFew))
            for g, relations in zip(self.groups, self.relations, strict=True)
        ]

    def forward(
        self, x: Mapping[str, Tensor], plans: Sequence[Plan], edge_features: Mapping[EdgeType, Tensor]
    ) -> dict[str, Tensor]:
        """x[type] (N, D), edge_features[t] (E, width), listed as its edges are → messages (N, D) of the receiving types."""
        rows = [x[name] for name in self.node_types]
        parts = [g(rows, plan, edge_features) for g, plan in zip(self.groups, plans, strict=True)]
        out = {}
        for name, bias in zip(self.targets, self.bias, strict=True):
            first, *rest = [part[name] for part in parts if name in part]
            out[name] = sum(rest, start=first).to(x[name].dtype) + bias
        return out


class Group(nn.Module):
    """The relations of one mode: projections stacked per node type. Arguments as in `HeteroAttention`."""

    def __init__(
        self,
        node_types: Sequence[str],
        relations: Sequence[EdgeType],
        dim: int,
        heads: int,
        mode: str,
        dropout: float,
        edge_dims: Mapping[EdgeType, int],
    ) -> None:
        super().__init__()
        self.relations, self.mode, self.dropout = tuple(relations), mode, dropout
        self.heads, self.width = heads, dim // heads
        leaving = [[r for r, t in enumerate(relations) if t[0] == name] for name in node_types]
        entering = [[r for r, t in enumerate(relations) if t[2] == name] for name in node_types]
        self.leaving, self.types = leaving, len(node_types)
        self.value = _stack([_glorot(dim, dim) for _ in each] for each in leaving)
        narrow = heads if mode == "gat" else dim
        self.query = _stack([_glorot(narrow, dim) for _ in each] for each in entering)
        self.key = _stack([_glorot(dim, dim) for _ in each] for each in leaving if mode == "dot")
        att = torch.stack([_glorot(heads, self.width) for _ in relations])
        self.att = nn.Parameter(att) if mode != "dot" else None
        self.has_value = [bool(each) for each in leaving]
        self.has_query = [bool(each) for each in entering]
        v2 = mode == "gatv2"
        self.value_bias = nn.ParameterList(torch.zeros(len(w)) for w in self.value if v2)
        self.query_bias = nn.ParameterList(torch.zeros(len(w)) for w in self.query if v2)
        self.with_edges = tuple(t for t in relations if t in edge_dims)
        self.edge = nn.ParameterList(_glorot(dim if v2 else heads, edge_dims[t]) for t in self.with_edges)

    def forward(self, x: Sequence[Tensor], plan: Plan, edge_features: Mapping[EdgeType, Tensor]) -> dict[str, Tensor]:
        """X (N, D) of each node type → (N, D) of each type that is entered."""
        value, query = _spread(self.value, self.has_value), _spread(self.query, self.has_query)
        biases: tuple[Any, Any] = ((), ())
        if self.mode == "gatv2":
            biases = (_spread(self.value_bias, self.has_value), _spread(self.query_bias, self.has_query))
        maps = Projections(value, self._keys(value), query, *biases)
        att = self.att if self.mode == "gatv2" else None
        dropout = self.dropout if self.training else 0.0
        edge = self._edges(plan, edge_features)
        out = messages(x, plan, maps, self.heads, self.width, self.mode, att=att, edge=edge, dropout=dropout)
        return {name: o.flatten(1) for name, o in zip(plan.node_types, out, strict=True) if plan.entering(name)}

    def _keys(self, value: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """`gat`: the map to the source's logits, att · (W x) = (att W) x."""
        if self.mode == "dot":
            return _spread(self.key, self.has_value)
        if self.mode == "gatv2":
            return ()
        assert self.att is not None
        return [None if w is None else fold(w, self.att[each]) for w, each in zip(value, self.leaving, strict=True)]

    def _edges(self, plan: Plan, edge_features: Mapping[EdgeType, Tensor]) -> list[Tensor] | None:
        if not self.with_edges:
            return None
        found = []
        tail = (self.heads, self.width) if self.mode == "gatv2" else (self.heads,)
        for t in self.relations:
            if t not in self.with_edges:
                found.append(self.edge[0].new_empty(0))
                continue
            rows = nn.functional.linear(edge_features[t], self.edge[self.with_edges.index(t)])
            found.append(rows[plan.order[t]].view(-1, *tail).float())
        return found


class IntoFew(nn.Module):
    """`gat` relations into few nodes, gathered before they are projected. Arguments as in `HeteroAttention`."""

    def __init__(
        self,
        node_types: Sequence[str],
        relations: Sequence[EdgeType],
        dim: int,
        heads: int,
        mode: str,
        dropout: float,
        edge_dims: Mapping[EdgeType, int],
    ) -> None:
        super().__init__()
        self.relations, self.dropout, self.heads, self.width = tuple(relations), dropout, heads, dim // heads
        self.leaving = [[r for r, t in enumerate(relations) if t[0] == name] for name in node_types]
        entering = [[r for r, t in enumerate(relations) if t[2] == name] for name in node_types]
        self.value = nn.Parameter(torch.stack([_glorot(dim, dim) for _ in relations]))
        self.att = nn.Parameter(torch.stack([_glorot(heads, self.width) for _ in relations]))
        self.query = _stack([_glorot(heads, dim) for _ in each] for each in entering)
        self.has_query = [bool(each) for each in entering]

    def forward(self, x: Sequence[Tensor], plan: Plan, edge_features: Mapping[EdgeType, Tensor]) -> dict[str, Tensor]:
        """X (N, D) of each node type → (N, D) of each type that is entered."""
        value = [self.value[each].flatten(0, 1) if each else None for each in self.leaving]
        key = [None if w is None else fold(w, self.att[each]) for w, each in zip(value, self.leaving, strict=True)]
        dropout = self.dropout if self.training else 0.0
        query = _spread(self.query, self.has_query)
        if self.gathers_first(x[0].device):
            weight = self.value.view(-1, self.heads, self.width, self.value.shape[2]).unbind()
            return messages_into_few(x, plan, key, query, weight, self.heads, dropout=dropout)
        out = messages(x, plan, Projections(value, key, query), self.heads, self.width, "gat", dropout=dropout)
        return {n: o.sum(1).flatten(1) for n, o in zip(plan.node_types, out, strict=True) if plan.entering(n)}

    @staticmethod
    def gathers_first(device: torch.device) -> bool:
        """Not on a GPU: it would walk whole rows, for all heads, in as few programs as there are nodes to gather into; projected
        rows go in tiles.
        """
        return device.type != "cuda"


def fold(weight: Tensor, att: Tensor) -> Tensor:
    """The map to logits: weight (R·H·C, D), att (R, H, C) → (R·H, D) with att · (W x) = fold x."""
    count, heads, width = att.shape
    return (weight.view(count * heads, width, -1) * att.reshape(count * heads, width, 1)).sum(1)


def _glorot(rows: int, columns: int) -> Tensor:
    weight = torch.empty(rows, columns)
    nn.init.xavier_uniform_(weight)
    return weight


def _stack(parts: Any) -> nn.ParameterList:
    """One parameter for each node type that has relations."""
    return nn.ParameterList(torch.cat(each) for each in parts if each)


def _spread(parameters: Iterable[Tensor], there: Sequence[bool]) -> list[Tensor | None]:
    found = iter(parameters)
    return [next(found) if yes else None for yes in there]

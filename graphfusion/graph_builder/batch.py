"""The packed typed graph of many samples.

Letters: `B` samples, `N` nodes of a type, `E` edges of a relation, `P` coordinates, `S` numbers of a span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from graphfusion.errors import GraphError
from graphfusion.ops.hetero_attention.pairs import Bitmask, EdgeList, Grid, Pairs, Window

EdgeType = tuple[str, str, str]
"""(source node type, relation, target node type)."""


def owner_of_row(ptr: Tensor, rows: int) -> Tensor:
    """(rows,) sample that owns each row, from ptr (B + 1,)."""
    return torch.repeat_interleave(torch.arange(len(ptr) - 1, device=ptr.device), ptr.diff(), output_size=rows)


@dataclass(frozen=True)
class NodeStore:
    """All nodes of one type: sample `b` owns rows `ptr[b]` to `ptr[b + 1]`.

    `values` (N, …); `ptr` (B + 1,) int64; `position` (N, P) int64; `span` (N, S) float64.
    """

    values: Tensor
    ptr: Tensor
    position: Tensor
    span: Tensor

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __repr__(self) -> str:
        return f"NodeStore({len(self)} nodes of {len(self.ptr) - 1} samples, values {tuple(self.values.shape)})"

    @property
    def sample(self) -> Tensor:
        """(N,) sample of each node."""
        return owner_of_row(self.ptr, len(self))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> NodeStore:
        """The same nodes on another device."""
        return NodeStore(*(t.to(device, non_blocking=non_blocking) for t in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """values, ptr, position, span."""
        return self.values, self.ptr, self.position, self.span


@dataclass(frozen=True)
class GraphBatch:
    """Many samples as one graph over a frozen vocabulary of node and edge types.

    Every node type is in `nodes` and every edge type in `edges`, absent = 0 rows, in the order that the model was made
    for. `edges[t]` is (2, E) int64, row 0 source and row 1 target, counted over the whole batch, sorted by target; or a
    rule (`Dense`, `Window`, `Grid` …) that kernels walk without a list. `edge_index(t)` gives the list in both cases.
    `ids` are the row numbers of the samples; `targets` the encoded targets by name, (B,) or (B, C), for a loss.

    Raises:
        GraphError: types are missing or unknown, `ptr` is not ascending from 0 to N, an edge is out of range,
            unsorted, or ties two samples. Values are checked on the CPU, where batches are built.
    """

    nodes: Mapping[str, NodeStore]
    edges: Mapping[EdgeType, Tensor | Pairs]
    ids: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, store in self.nodes.items():
            _check_nodes(name, store, len(self))
        for edge_type, edges in self.edges.items():
            _check_edges(edge_type, edges, self.nodes, len(self))
        for name, target in self.targets.items():
            if len(target) != len(self):
                raise GraphError(f"target {name!r}: expected {len(self)} rows, one for each sample, got {len(target)}.")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        nodes = ", ".join(f"{name} {len(store):,}" for name, store in self.nodes.items())
        return f"GraphBatch({len(self):,} samples; nodes: {nodes}; {len(self.edges)} edge types)"

    @property
    def node_types(self) -> tuple[str, ...]:
        """The vocabulary of node types, in order."""
        return tuple(self.nodes)

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """The vocabulary of edge types, in order."""
        return tuple(self.edges)

    @property
    def pairs(self) -> dict[EdgeType, Pairs]:
        """The pairs of each edge type, as operators take them."""
        return {t: EdgeList(e) if isinstance(e, Tensor) else e for t, e in self.edges.items()}

    def edge_index(self, edge_type: EdgeType) -> Tensor:
        """(2, E) int64 of an edge type, sorted by target; laid out here where the batch holds a rule."""
        edges = self.edges[edge_type]
        if isinstance(edges, Tensor):
            return edges
        source, _, target = edge_type
        return edges.edge_index(self.nodes[source].ptr, self.nodes[target].ptr)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.ids.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """The same batch on another device."""
        return replace(
            self,
            nodes={name: store.to(device, non_blocking) for name, store in self.nodes.items()},
            edges={t: e.to(device, non_blocking=non_blocking) for t, e in self.edges.items()},
            ids=self.ids.to(device, non_blocking=non_blocking),
            targets={name: t.to(device, non_blocking=non_blocking) for name, t in self.targets.items()},
        )

    def pin_memory(self) -> GraphBatch:
        """The same batch in page-locked memory, for overlapped transfer (called by torch's DataLoader)."""
        return replace(
            self,
            nodes={name: NodeStore(*(t.pin_memory() for t in store.tensors())) for name, store in self.nodes.items()},
            edges={t: e.pin_memory() for t, e in self.edges.items()},
            ids=self.ids.pin_memory(),
            targets={name: t.pin_memory() for name, t in self.targets.items()},
        )

    def with_targets(self, targets: Mapping[str, Tensor]) -> GraphBatch:
        """The same graph with other targets."""
        return replace(self, targets=dict(targets))

    def with_edges(self, edges: Mapping[EdgeType, Tensor | Pairs]) -> GraphBatch:
        """The same nodes with other edges, over the same edge types.

        Raises:
            GraphError: an edge type is missing or new.
        """
        if set(edges) != set(self.edges):
            changed = sorted(set(edges) ^ set(self.edges))
            raise GraphError(f"the vocabulary of edge types is frozen; missing or new: {changed}.")
        return replace(self, edges={t: edges[t] for t in self.edges})

    def to_pyg(self) -> Any:
        """See `graph_builder.convert.to_pyg`."""
        from graphfusion.graph_builder.convert import to_pyg

        return to_pyg(self)

    def to_networkx(self, sample: int = 0) -> Any:
        """See `graph_builder.convert.to_networkx`."""
        from graphfusion.graph_builder.convert import to_networkx

        return to_networkx(self, sample)


def _check_nodes(name: str, store: NodeStore, samples: int) -> None:
    lengths = {"values": len(store), "position": len(store.position), "span": len(store.span)}
    if len(set(lengths.values())) > 1:
        raise GraphError(f"node type {name!r}: arrays differ in length: {lengths}.")
    if store.ptr.shape != (samples + 1,) or store.ptr.dtype != torch.int64:
        found = f"{tuple(store.ptr.shape)} {store.ptr.dtype}"
        raise GraphError(f"node type {name!r}: expected ptr ({samples + 1},) torch.int64, got {found}.")
    if len({t.device for t in store.tensors()}) > 1:
        raise GraphError(f"node type {name!r}: tensors lie on different devices; move the batch with .to(device).")
    if store.ptr.device.type == "cpu":
        ends = (int(store.ptr[0]), int(store.ptr[-1]))
        if ends != (0, len(store)) or bool((store.ptr.diff() < 0).any()):
            raise GraphError(
                f"node type {name!r}: ptr must ascend from 0 to {len(store)}, got {store.ptr.tolist()[:8]}…"
            )


def _check_edges(edge_type: EdgeType, edges: Tensor | Pairs, nodes: Mapping[str, NodeStore], samples: int) -> None:
    source, _, target = edge_type
    for name in (source, target):
        if name not in nodes:
            raise GraphError(f"edge type {edge_type}: the node type {name!r} is not in the batch: {', '.join(nodes)}.")
    if not isinstance(edges, Tensor):
        _check_rule(edge_type, edges, samples, len(nodes[target]))
        return
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.dtype != torch.int64:
        raise GraphError(f"edge type {edge_type}: expected (2, E) torch.int64, got {tuple(edges.shape)} {edges.dtype}.")
    if edges.device != nodes[target].ptr.device:
        raise GraphError(f"edge type {edge_type}: edges on {edges.device}, nodes on {nodes[target].ptr.device}.")
    if edges.device.type == "cpu" and edges.numel():
        _check_ends(edge_type, edges, nodes)


def _check_ends(edge_type: EdgeType, edges: Tensor, nodes: Mapping[str, NodeStore]) -> None:
    source, _, target = edge_type
    for row, name in ((0, source), (1, target)):
        low, high, count = int(edges[row].min()), int(edges[row].max()), len(nodes[name])
        if low < 0 or high >= count:
            bad = low if low < 0 else high
            raise GraphError(f"edge type {edge_type}: node {bad} is out of range, {name!r} has {count} nodes.")
    if bool((edges[1].diff() < 0).any()):
        raise GraphError(f"edge type {edge_type}: edges must be sorted by target (row 1); sort them first.")
    apart = nodes[source].sample[edges[0]] != nodes[target].sample[edges[1]]
    if bool(apart.any()):
        bad = int(apart.nonzero()[0])
        raise GraphError(f"edge type {edge_type}: edge {bad} ({edges[:, bad].tolist()}) ties two samples.")


def _check_rule(edge_type: EdgeType, rule: Pairs, samples: int, targets: int) -> None:
    if isinstance(rule, Window | Grid) and edge_type[0] != edge_type[2]:
        raise GraphError(f"edge type {edge_type}: a {rule.kind} ties nodes of one type, these are two.")
    if isinstance(rule, Grid) and rule.columns.shape != (samples,):
        raise GraphError(f"edge type {edge_type}: expected columns ({samples},), got {tuple(rule.columns.shape)}.")
    if isinstance(rule, Grid) and rule.columns.device.type == "cpu" and bool((rule.columns < 1).any()):
        raise GraphError(f"edge type {edge_type}: expected columns from 1, got {rule.columns.tolist()[:8]}.")
    if isinstance(rule, Bitmask) and rule.start.shape != (targets + 1,):
        raise GraphError(
            f"edge type {edge_type}: expected a bitmask with starts ({targets + 1},), got {tuple(rule.start.shape)}."
        )

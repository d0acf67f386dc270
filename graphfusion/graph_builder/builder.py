"""Tokens of many samples → `GraphBatch`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graphfusion.errors import GraphError, unknown_name
from graphfusion.graph_builder.batch import EdgeType, GraphBatch, NodeStore
from graphfusion.graph_builder.nodes import Nodes, by_target, pack
from graphfusion.graph_builder.relations import Regular, Relation, relation_from_dict, relation_to_dict
from graphfusion.modalities import NodeType, Tokens
from graphfusion.modalities.tokens import no_span, sequence
from graphfusion.ops.hetero_attention.pairs import Broadcast, Dense, Pairs, Window
from graphfusion.schema import TABLE

HUB = "hub"
"""Node type of the hub nodes: `hubs` in every sample, also in one without any modality."""
COUNTED_ROWS, COUNTED_TOKENS = 256, 32_768
"""How much is counted at once: edges that follow no rule are listed for it."""


class GraphBuilder:
    """Lays nodes of typed tokens and ties them by relation policies.

    Args:
        node_types: layout of each node type, in the order of the batch's vocabulary.
        relations: policies; each makes one edge type (source, name, target).
        hubs: hub nodes per sample (node type `hub`); 0 for none.

    Raises:
        GraphError: a relation names an unknown node type, or two relations make the same edge type.
    """

    def __init__(self, node_types: Mapping[str, NodeType], relations: Sequence[Relation], hubs: int = 0) -> None:
        if HUB in node_types:
            raise GraphError(f"the node type {HUB!r} is made by the builder; rename the column and set hubs=.")
        self.hubs = hubs
        self.node_types = {**node_types, **({HUB: NodeType(HUB, (), "int64")} if hubs else {})}
        self.relations: dict[EdgeType, Relation] = {}
        for relation in relations:
            edge_type = (relation.source, relation.name, relation.target)
            for name in (relation.source, relation.target):
                if name not in self.node_types:
                    hint = f" A column of numbers is part of {TABLE!r}." if TABLE in self.node_types else ""
                    raise GraphError(
                        f"relation {relation.name!r}: {unknown_name('node type', name, self.node_types)}{hint}"
                    )
            if edge_type in self.relations:
                raise GraphError(f"two relations make the edge type {edge_type}; give one of them another name=.")
            self.relations[edge_type] = relation

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """The vocabulary of edge types, in order."""
        return tuple(self.relations)

    def build(self, rows: Sequence[Mapping[str, Tokens]], ids: Sequence[int] | None = None) -> GraphBatch:
        """One batch of samples, each a mapping of node type → tokens; a type that is not in it is missing there.

        `ids` default to 0, 1, 2 …
        """
        if not rows:
            raise GraphError("a batch needs at least one sample, got none.")
        packed = self._pack(rows)
        return GraphBatch(
            nodes={name: _store(nodes) for name, nodes in packed.items()},
            edges={t: self._pairs(relation, packed) for t, relation in self.relations.items()},
            ids=torch.as_tensor(list(range(len(rows)) if ids is None else ids), dtype=torch.int64),
        )

    def sizes(self, rows: Sequence[Mapping[str, Tokens]]) -> tuple[list[int], list[int]]:
        """(nodes, edges) of each sample, without building batches; learned relations count k edges a target."""
        nodes, edges = [], []
        for part in _chunks(rows):
            packed = self._pack(part)
            nodes += np.sum([np.diff(n.ptr) for n in packed.values()], axis=0).tolist()
            total = np.zeros(len(part), np.int64)
            for relation in self.relations.values():
                target = packed[relation.target]
                if relation.learned:
                    total += np.diff(target.ptr) * np.minimum(relation.k, np.diff(packed[relation.source].ptr))  # type: ignore[attr-defined]
                else:
                    total += self._count(relation, packed)
            edges += total.tolist()
        return nodes, edges

    def summary(self, rows: Sequence[Mapping[str, Tokens]]) -> str:
        """A table of nodes per type and edges per relation over some samples, for printing before a fit."""
        packed = self._pack(rows)
        lines = [f"graph of {len(rows)} samples"]
        for name, nodes in packed.items():
            counts = np.diff(nodes.ptr)
            missing = int((counts == 0).sum())
            note = f"  missing in {missing}" if missing else ""
            lines.append(f"  node {name:<28} {len(nodes):>9,}  {counts.mean():>8.1f} a sample{note}")
        for (source, name, target), relation in self.relations.items():
            if relation.learned:
                lines.append(f"  edge {f'{source} -{name}-> {target}':<28} chosen in the model")
                continue
            count = int(self._count(relation, packed).sum())
            each = count / max(len(packed[target]), 1)
            lines.append(f"  edge {f'{source} -{name}-> {target}':<28} {count:>9,}  {each:>8.1f} a target")
        reached = {target for _, _, target in self.relations}
        alone = [name for name in packed if name not in reached and name != HUB]
        if reached and alone:
            lines.append(f"  no edge leads to {', '.join(alone)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary and its policies in plain JSON types."""
        return {
            "node_types": {name: t.to_dict() for name, t in self.node_types.items() if name != HUB},
            "relations": [relation_to_dict(r) for r in self.relations.values()],
            "hubs": self.hubs,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> GraphBuilder:
        """Read what `to_dict` wrote."""
        node_types = {name: NodeType.from_dict(t) for name, t in document["node_types"].items()}
        return cls(node_types, [relation_from_dict(r) for r in document["relations"]], document["hubs"])

    def _pack(self, rows: Sequence[Mapping[str, Tokens]]) -> dict[str, Nodes]:
        for i, row in enumerate(rows):
            for name in row:
                if name not in self.node_types or name == HUB:
                    raise GraphError(f"sample {i}: {unknown_name('node type', name, self.node_types)}")
        empty = {name: Tokens.empty(layout) for name, layout in self.node_types.items()}
        hubs = Tokens(np.arange(self.hubs, dtype=np.int64), sequence(self.hubs), no_span(self.hubs))
        return {
            name: pack(name, layout, [hubs if name == HUB else row.get(name, empty[name]) for row in rows])
            for name, layout in self.node_types.items()
        }

    def _pairs(self, relation: Relation, packed: Mapping[str, Nodes]) -> torch.Tensor | Pairs:
        """The rule of a regular relation, else its edge list."""
        ends = (packed[relation.source], packed[relation.target])
        rule = relation.rule(*ends) if isinstance(relation, Regular) else None
        if rule is None:
            return torch.from_numpy(np.stack(self._edges(relation, packed)))
        if isinstance(rule, Dense) and HUB in (relation.source, relation.target):
            return Broadcast(rule.loops)
        return rule

    def _count(self, relation: Relation, packed: Mapping[str, Nodes]) -> np.ndarray:
        """(B,) edges of a relation in each sample, without a list where a rule tells."""
        source, target = packed[relation.source], packed[relation.target]
        n, m = np.diff(source.ptr), np.diff(target.ptr)
        rule = relation.rule(source, target) if isinstance(relation, Regular) else None
        if isinstance(rule, Dense):
            every: np.ndarray = n * m - (0 if rule.loops else np.minimum(n, m))
            return every
        if isinstance(rule, Window):
            steps = np.arange(rule.low, rule.high + 1)
            steps = rule.step * np.abs(steps if rule.loops else steps[steps != 0])
            near: np.ndarray = np.maximum(n[:, None] - steps, 0).sum(1)
            return near
        return np.bincount(target.sample[self._edges(relation, packed)[1]], minlength=len(m))

    def _edges(self, relation: Relation, packed: Mapping[str, Nodes]) -> tuple[np.ndarray, np.ndarray]:
        source, target = packed[relation.source], packed[relation.target]
        return by_target(relation.edges(source, target), len(source))


def _chunks(rows: Sequence[Mapping[str, Tokens]]) -> Iterator[list[Mapping[str, Tokens]]]:
    """Consecutive rows, as many as are counted at once."""
    part: list[Mapping[str, Tokens]] = []
    tokens = 0
    for row in rows:
        more = sum(map(len, row.values()))
        if part and (len(part) == COUNTED_ROWS or tokens + more > COUNTED_TOKENS):
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += more
    if part:
        yield part


def _store(nodes: Nodes) -> NodeStore:
    return NodeStore(*(torch.from_numpy(a) for a in (nodes.values, nodes.ptr, nodes.position, nodes.span)))

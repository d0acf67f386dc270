"""Sets of relations by name, made for whatever node types a schema has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphfusion.errors import GraphError, unknown_name
from graphfusion.graph_builder.builder import HUB
from graphfusion.graph_builder.relations import (
    AlignedInTime,
    Full,
    GridNeighbourhood,
    Relation,
    SameSpan,
    SequenceWindow,
    Shuffled,
    TopKSimilarity,
)
from graphfusion.modalities import NodeType

Layouts = Mapping[str, NodeType]


def within(node_types: Layouts) -> list[Relation]:
    """Each modality for itself: ±4 tokens of a sequence, 8 neighbours of a patch, all columns of a row; in a video, the 4
    patches beside a patch and the same place one picture before and after.
    """
    return [_neighbours(name, layout) for name, layout in node_types.items()]


def _neighbours(name: str, layout: NodeType) -> Relation:
    if layout.kind == "tabular":
        return Full(name, name)
    if layout.coordinates == 1:
        return SequenceWindow(name)
    return GridNeighbourhood(name, corners=layout.coordinates == 2)


def hub(node_types: Layouts) -> list[Relation]:
    """`within`, and hub nodes that every node sends to and receives from."""
    into: list[Relation] = [Full(name, HUB) for name in node_types]
    back: list[Relation] = [Full(HUB, name) for name in node_types]
    return [*within(node_types), *into, *back, Full(HUB, HUB)]


def full(node_types: Layouts) -> list[Relation]:
    """`hub`, and every node of a modality to every node of every other."""
    pairs = [(a, b) for a in node_types for b in node_types if a != b]
    return [*hub(node_types), *(Full(a, b) for a, b in pairs)]


def temporal(node_types: Layouts) -> list[Relation]:
    """`hub`, and the nodes of two modalities that share time, where both know their seconds."""
    timed = [name for name, layout in node_types.items() if layout.span == "seconds"]
    return [*hub(node_types), *(AlignedInTime(a, b) for a in timed for b in timed if a != b)]


def top_k(node_types: Layouts) -> list[Relation]:
    """`hub`, and for each node the 8 most similar nodes of every other modality in a learned space."""
    pairs = [(a, b) for a in node_types for b in node_types if a != b]
    return [*hub(node_types), *(TopKSimilarity(a, b) for a, b in pairs)]


def hub_shuffled(node_types: Layouts) -> list[Relation]:
    """`hub`, its neighbours shuffled: the control of every claim about who is tied to whom. Relations of all pairs, the hub's
    among them, have nothing to shuffle.
    """
    return _shuffled(hub(node_types))


def full_shuffled(node_types: Layouts) -> list[Relation]:
    """`full`, likewise."""
    return _shuffled(full(node_types))


def temporal_shuffled(node_types: Layouts) -> list[Relation]:
    """`temporal`, likewise."""
    return _shuffled(temporal(node_types))


def _shuffled(relations: list[Relation]) -> list[Relation]:
    return [r if isinstance(r, Full) else Shuffled(r) for r in relations]


def no_edges(node_types: Layouts) -> list[Relation]:
    """No relation at all: the control of every claim about edges."""
    return []


GRAPHS: dict[str, Callable[[Layouts], list[Relation]]] = {
    "hub": hub,
    "full": full,
    "temporal": temporal,
    "top_k": top_k,
    "within": within,
    "hub_shuffled": hub_shuffled,
    "full_shuffled": full_shuffled,
    "temporal_shuffled": temporal_shuffled,
    "none": no_edges,
}


def graph_preset(name: str, node_types: Layouts, one_text: Sequence[tuple[str, str]] = ()) -> list[Relation]:
    """The relations of the preset `name`, and in all but `none` those of tokens that share characters, between the pairs of node
    types `one_text` that tokenize the same text; GraphError if there is none of that name.
    """
    if name not in GRAPHS:
        raise GraphError(unknown_name("graph preset", name, GRAPHS))
    ties: list[Relation] = [SameSpan(a, b) for a, b in one_text] if name != "none" else []
    return [*GRAPHS[name](node_types), *(_shuffled(ties) if name.endswith("_shuffled") else ties)]

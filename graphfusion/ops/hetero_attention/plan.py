"""What an attention operator walks: the relations of a typed graph as whole numbers and index tensors.

Letters: `B` samples, `N` nodes of a type, `E` edges of a relation, `R` relations leaving a type, `Q` relations entering it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from graphfusion.errors import GraphError
from graphfusion.ops.hetero_attention.index import index_edges, index_numbers, outside, refuse_out_of_range
from graphfusion.ops.hetero_attention.pairs import KINDS, Bitmask, EdgeList, Grid, Pairs, pairs_of

Relation = tuple[str, str, str]
"""(source node type, name, target node type)."""

HEADER, FIELDS, PARAMETERS = 3, 10, 4
TWO_SAMPLES = "an edge ties nodes of two samples, which ptr keeps apart; check edges against ptr."


@dataclass(frozen=True)
class Row:
    """One relation as an operator sees it: slot `leaves` among the relations that leave the source type, slot `enters`
    among those that enter the target type, both types by number.
    """

    kind: str
    source: int
    leaves: int
    target: int
    enters: int
    parameters: tuple[int, ...]
    tensors: tuple[Tensor, ...]

    def edge_index(self, index: Sequence[Tensor]) -> Tensor:
        """(2, E) of its edges, sorted by target; `index` is the plan's."""
        pairs = pairs_of(self.kind, self.parameters, self.tensors)
        return pairs.edge_index(index[self.source].long(), index[self.target].long())

    def check_samples(self, index: Sequence[Tensor]) -> None:
        """GraphError if an edge ties nodes of two samples, as the kernels raise it; no rule does. Waits for the device."""
        if self.kind in ("csr", "bitmask") and len(index[0]) > 2:
            source, target = self.edge_index(index)
            ends = ((source, self.source), (target, self.target))
            there, here = (torch.bucketize(nodes, index[t][1:].long(), right=True) for nodes, t in ends)
            if bool((there != here).any()):
                raise GraphError(TWO_SAMPLES)


@dataclass(frozen=True)
class Plan:
    """Relations of one batch, ready for an operator; made by `make_plan`.

    `layout`: [node types, relations, merged] and ten whole numbers a relation. `index`: `ptr` (B + 1,) int32 of each
    node type, then the tensors of each relation. `merged`: the messages of all relations into a node are added; else
    each relation has an output of its own. `sizes`: nodes N of each type. `order[r]`: for listed edges, the place in
    the given list of each edge in the order by target.
    """

    node_types: tuple[str, ...]
    relations: tuple[Relation, ...]
    layout: tuple[int, ...]
    index: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    order: Mapping[Relation, Tensor] = field(default_factory=dict)

    @property
    def merged(self) -> bool:
        """Whether the messages of all relations into a node are added."""
        return bool(self.layout[2])

    def leaving(self, node_type: str) -> tuple[Relation, ...]:
        """Relations that leave a type, in slot order."""
        return tuple(r for r in self.relations if r[0] == node_type)

    def entering(self, node_type: str) -> tuple[Relation, ...]:
        """Relations that enter a type, in slot order."""
        return tuple(r for r in self.relations if r[2] == node_type)

    def edge_index(self, relation: Relation) -> Tensor:
        """(2, E) int64 of the edges of a relation, in the order of its attention weights."""
        return read_layout(self.layout, self.index)[self.relations.index(relation)].edge_index(self.index)

    def listed(self) -> Plan:
        """The same edges, all as lists: what `torch.export` needs, since the number of edges of a rule follows from data."""
        rows = read_layout(self.layout, self.index)
        pairs: dict[Relation, Pairs] = {
            r: EdgeList(row.edge_index(self.index)) for r, row in zip(self.relations, rows, strict=True)
        }
        ptr = dict(zip(self.node_types, self.index, strict=False))
        made = make_plan(dict(zip(self.node_types, self.sizes, strict=True)), pairs, ptr, self.merged)
        return replace(made, order={r: self.order.get(r, made.order[r]) for r in made.order})


def read_layout(layout: Sequence[int], index: Sequence[Tensor]) -> list[Row]:
    """The relations of a plan."""
    rows = []
    for at in range(HEADER, len(layout), FIELDS):
        kind, source, leaves, target, enters, *parameters, first = layout[at : at + FIELDS]
        count = TENSORS[KINDS[kind]]
        tensors = tuple(index[first : first + count])
        rows.append(Row(KINDS[kind], source, leaves, target, enters, tuple(parameters), tensors))
    return rows


def outputs_of(entering: int, merged: bool) -> int:
    """How many outputs a node has that `entering` relations enter."""
    return min(entering, 1) if merged else entering


def width_of(value: Sequence[Tensor]) -> int:
    """C, by the types that a relation leaves; by the first type if there are none."""
    return next((v.shape[3] for v in value if v.shape[1]), value[0].shape[3])


TENSORS = {"csr": 5, "dense": 0, "broadcast": 0, "window": 0, "grid": 1, "bitmask": 2}
"""How many index tensors each kind of pairs has."""


def make_plan(
    sizes: Mapping[str, int],
    pairs: Mapping[Relation, Pairs],
    ptr: Mapping[str, Tensor] | None = None,
    merged: bool = True,
) -> Plan:
    """The plan of relations over node types with `sizes` nodes.

    Args:
        sizes: node type → number of nodes N; the order is the order of types in every call.
        pairs: relation → its pairs.
        ptr: node type → (B + 1,) first node of each sample; without it all nodes are one sample.
        merged: add the messages of all relations into a node.

    Raises:
        GraphError: an edge list is not (2, E) of whole numbers, names a node that is not there, lies on another device than
            `ptr` or, on a GPU, ties two samples (on a CPU an operator looks when it runs); `ptr`, the columns of a grid or the
            starts of a mask do not fit; a relation names an unknown type.
    """
    names = tuple(sizes)
    device = next((t.device for t in (ptr or {}).values()), None) or _device_of(pairs)
    for name, size in sizes.items():
        if size > MOST:
            raise GraphError(f"node type {name!r}: expected at most {MOST} nodes, got {size}; split the batch.")
    index = _pointers(sizes, ptr, device)
    layout: list[int] = [len(names), len(pairs), int(merged)]
    order: dict[Relation, Tensor] = {}
    left, entered = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for relation, what in pairs.items():
        source, _, target = relation
        for name in (source, target):
            if name not in sizes:
                raise GraphError(f"relation {relation}: unknown node type {name!r}; known: {', '.join(names)}.")
        numbers = what.parameters()
        layout += [KINDS.index(what.kind), names.index(source), left[source], names.index(target), entered[target]]
        layout += [*numbers, *[0] * (PARAMETERS - len(numbers)), len(index)]
        left[source] += 1
        entered[target] += 1
        if isinstance(what, EdgeList):
            check_edges(relation, what.index, device)
            first, found, order[relation], *turned = index_edges(
                what.index, sizes[source], sizes[target], str(relation)
            )
            index += [first, found, *turned]
        else:
            index += _rule_tensors(relation, what, sizes[target], len(index[0]) - 1)
    if device.type == "cuda" and not torch.compiler.is_compiling():  # on a CPU the kernels look
        _refuse_wrong_edges(pairs, names, tuple(sizes.values()), index)
    return Plan(names, tuple(pairs), tuple(layout), tuple(index), tuple(sizes.values()), order)


def _refuse_wrong_edges(
    pairs: Mapping[Relation, Pairs], names: Sequence[str], sizes: Sequence[int], index: Sequence[Tensor]
) -> None:
    """GraphError if a listed edge names a node that is not there or ties two samples; waits for the device once. A mask has bits
    for the sources of its own sample alone.
    """
    bad, listed = [], {r: p.index for r, p in pairs.items() if isinstance(p, EdgeList)}
    for (source, _, target), edges in listed.items():
        ends = [names.index(source), names.index(target)]
        there, here = (
            torch.bucketize(e.contiguous(), index[t][1:].to(e.dtype), right=True)
            for e, t in zip(edges, ends, strict=True)
        )
        bad.append((outside(edges, *(sizes[t] for t in ends)) | (there != here)).any())
    if not bad or not bool(torch.stack(bad).any()):
        return
    for relation, edges in listed.items():
        refuse_out_of_range(edges, sizes[names.index(relation[0])], sizes[names.index(relation[2])], str(relation))
    raise GraphError(TWO_SAMPLES)


MOST = 2**31 - 1
"""Nodes of a type and edges of a relation are numbered by int32."""


def check_edges(relation: Relation, edges: Tensor, device: torch.device) -> None:
    """GraphError unless `edges` is (2, E) of whole numbers on `device`."""
    if edges.dim() != 2 or edges.shape[0] != 2:
        raise GraphError(f"edges of {relation}: expected the shape (2, E), got {tuple(edges.shape)}.")
    if edges.dtype not in (torch.int64, torch.int32):
        raise GraphError(f"edges of {relation}: expected int64 node numbers, got {edges.dtype}; use .long().")
    if edges.shape[1] > MOST:
        raise GraphError(f"edges of {relation}: expected at most {MOST}, got {edges.shape[1]}; split the batch.")
    if edges.device != device:
        raise GraphError(f"edges of {relation}: expected them on {device}, got {edges.device}; move them with .to().")


def _device_of(pairs: Mapping[Relation, Pairs]) -> torch.device:
    lists = [p.index.device for p in pairs.values() if isinstance(p, EdgeList)]
    return lists[0] if lists else torch.device("cpu")


def _pointers(sizes: Mapping[str, int], ptr: Mapping[str, Tensor] | None, device: torch.device) -> list[Tensor]:
    """`ptr` of each type as int32, checked."""
    if ptr is None:
        return [torch.tensor([0, size], dtype=torch.int32, device=device) for size in sizes.values()]
    index = []
    for name, size in sizes.items():
        if name not in ptr:
            raise GraphError(f"ptr: the node type {name!r} has none; expected one for each of {', '.join(sizes)}.")
        if ptr[name].dim() != 1 or not len(ptr[name]) or len(ptr[name]) != len(next(iter(ptr.values()))):
            shapes = {n: tuple(p.shape) for n, p in ptr.items()}
            raise GraphError(f"ptr: expected (samples + 1,) for every type, as many samples in each; got {shapes}.")
        index.append(index_numbers(ptr[name], 0, size, f"ptr of {name!r}"))
    return index


def _rule_tensors(relation: Relation, rule: Pairs, targets: int, samples: int) -> list[Tensor]:
    """The index tensors of a rule, checked: kernels divide by columns and read where starts say."""
    if isinstance(rule, Grid):
        if rule.columns.shape != (samples,):
            raise GraphError(f"grid of {relation}: expected columns ({samples},), got {tuple(rule.columns.shape)}.")
        return [index_numbers(rule.columns, 1, -1, f"columns of the grid of {relation}")]
    if isinstance(rule, Bitmask):
        if rule.start.shape != (targets + 1,):
            found = tuple(rule.start.shape)
            raise GraphError(f"bitmask of {relation}: expected starts ({targets + 1},) of the mask, got {found}.")
        start = index_numbers(rule.start, 0, len(rule.words), f"starts of the mask of {relation}")
        return [rule.words.to(torch.int32).contiguous(), start]
    return [t.to(torch.int32) for t in rule.tensors()]

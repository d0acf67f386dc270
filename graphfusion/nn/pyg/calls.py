"""What one call of a `HeteroConv` says of each relation.

Letters: `N` nodes of a type, `E` edges of a relation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphfusion.nn.pyg.convs import accepts, runs_itself, source_map, target_map, why_not
from graphfusion.ops.hetero_attention.plan import Relation

Given = tuple[list[Any], dict[str, Any]]
_MISSING = object()


@dataclass(frozen=True)
class Call:
    """One relation of one call: its `place` among the convs, edges (2, E), edge features (E, ·) or None. `lone`: nothing
    is known of its targets, as many as there are sources.
    """

    place: int
    relation: Relation
    conv: Any
    edges: Tensor
    features: Tensor | None
    lone: bool
    dtype: torch.dtype

    @property
    def mode(self) -> str:
        """`gat` or `gatv2`."""
        return "gatv2" if hasattr(self.conv, "lin_l") else "gat"

    @property
    def dropout(self) -> float:
        """Of this call."""
        return float(self.conv.dropout) if self.conv.training else 0.0

    @property
    def kind(self) -> tuple[Any, ...]:
        """What relations must share to run in one operator."""
        c = self.conv
        return (
            self.mode,
            c.heads,
            c.out_channels,
            c.negative_slope,
            self.dropout,
            c.concat,
            self.dtype,
            self.edges.device,
        )


def arguments_of(
    relation: Relation, args: Sequence[Mapping[Any, Any]], kwargs: Mapping[str, Mapping[Any, Any]]
) -> Given | None:
    """What `HeteroConv` would hand to the conv of a relation; None if it would skip it."""
    for name in kwargs:
        if not name.endswith("_dict"):
            raise ValueError(f"HeteroConv: keyword arguments end with '_dict', got {name!r}.")
    if not any(relation in values for values in (*args, *kwargs.values())):
        return None
    by_place = [_lookup(relation, values) for values in args]
    by_name = {name.removesuffix("_dict"): _lookup(relation, values) for name, values in kwargs.items()}
    return [v for v in by_place if v is not _MISSING], {n: v for n, v in by_name.items() if v is not _MISSING}


def _lookup(relation: Relation, values: Mapping[Any, Any]) -> Any:
    source, _, target = relation
    if relation in values:
        return values[relation]
    if source == target:
        return values.get(source, _MISSING)
    if source in values or target in values:
        return values.get(source), values.get(target)
    return _MISSING


def take(place: int, relation: Relation, conv: Any, given: Given, rows: dict[str, Tensor]) -> Call | None:
    """The relation as a `Call`, its features entered in `rows`; None if its conv must run (and raise its errors)."""
    args, kwargs = given
    names = ("x", "edge_index", "edge_attr")
    said = dict(zip(names, args, strict=False)) | kwargs
    if len(said) != len(args) + len(kwargs) or not {"x", "edge_index"} <= said.keys() <= set(names):
        return None
    if why_not(conv) or runs_itself(conv):
        return None
    ends = _ends(said["x"], conv)
    edges = _edge_list(said["edge_index"], ends)
    if ends is None or edges is None:
        return None
    fits, features = _features(conv, said.get("edge_attr"), edges)
    lone = ends[1] is None
    source, target = ends[0], ends[0].new_empty(ends[0].shape[0], 0) if ends[1] is None else ends[1]
    if not fits or not _enter(rows, relation[0], source) or not _enter(rows, relation[2], target):
        return None
    return Call(place, relation, conv, edges, features, lone, source.dtype)


def _ends(x: Any, conv: Any) -> tuple[Tensor, Tensor | None] | None:
    """Features of both sides, if the conv's maps take them."""
    both = (x, x) if isinstance(x, Tensor) else x
    if not isinstance(both, tuple | list) or len(both) != 2:
        return None
    source, target = both
    if not accepts(source_map(conv), source):
        return None
    if target is None and not hasattr(conv, "lin_l"):
        return source, None
    if not accepts(target_map(conv), target) or target.dtype != source.dtype or target.device != source.device:
        return None
    return source, target


def _edge_list(edges: Any, ends: tuple[Tensor, Tensor | None] | None) -> Tensor | None:
    """(2, E) int64, if that is what was given."""
    from torch_geometric import EdgeIndex

    if not isinstance(edges, Tensor) or ends is None:
        return None
    if isinstance(edges, EdgeIndex):
        sizes = [len(x) for x in ends if x is not None]
        if any(n not in (None, size) for n, size in zip(edges.sparse_size(), sizes, strict=False)):
            return None
        edges = edges.as_tensor()
    right = edges.layout == torch.strided and edges.dim() == 2 and edges.shape[0] == 2 and edges.dtype == torch.int64
    return edges if right and edges.device == ends[0].device else None


def _features(conv: Any, attr: Any, edges: Tensor) -> tuple[bool, Tensor | None]:
    """Whether edge features are as expected, and those that count."""
    if attr is None or (conv.lin_edge is None and not hasattr(conv, "lin_l")):
        return True, None  # GATConv without `edge_dim` ignores them
    if conv.lin_edge is None or not isinstance(attr, Tensor) or attr.dim() not in (1, 2):
        return False, None
    wide = attr[:, None] if attr.dim() == 1 else attr
    return wide.shape[0] == edges.shape[1] and accepts(conv.lin_edge, wide), attr


def _enter(rows: dict[str, Tensor], name: str, x: Tensor) -> bool:
    """Notes the features of a type; False if another relation gave it others (PyG allows features per relation)."""
    known = rows.setdefault(name, x)
    return known is x or (known.shape == x.shape and x.shape[1] == 0)

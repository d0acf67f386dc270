"""`accelerate`: the GAT relations of PyG's `HeteroConv` on one attention operator per group, with PyG's own parameters.

Letters: `N` nodes of a type, `E` edges of a relation, `D` features, `R` relations leaving a type, `Q` entering it,
`H` heads, `C` width of a head.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate as running_sum
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from graphfusion.errors import ConfigError
from graphfusion.nn.hetero_attention import fold
from graphfusion.nn.messages import Projections, messages, messages_into_few
from graphfusion.ops.hetero_attention import EdgeList, Plan, make_plan

Relation = tuple[str, str, str]

MOST_EDGES = 30_000_000
"""With more edges the search for samples would cost more than it saves."""
MOST_BLOCKS = 65_536

_LINEARS = ("lin", "lin_src", "lin_dst", "lin_l", "lin_r", "lin_edge", "res")
_STEPS = ("forward", "message", "edge_update", "aggregate", "update", "propagate", "edge_updater")
_CALL_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MESSAGE_HOOKS = tuple(
    f"_{step}_forward{when}_hooks"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("", "_pre")
)


def accelerate(module: nn.Module) -> nn.Module:
    """An equal, faster module: in a PyG `HeteroConv`, or anywhere in a model, `GATConv` (Veličković et al. 2018) and
    `GATv2Conv` (Brody et al. 2022) run together, one operator for all relations of a kind.

    The result is a structural copy that holds the same `Parameter` and buffer objects: optimisers, `state_dict` keys
    and `load_state_dict` work across both, and the original stays as it was, with a training flag and hooks of its own.
    It is called as the original is. x_dict[type] (N, D), edge_index_dict[relation] (2, E) int64 in any order,
    edge_attr_dict[relation] (E,) or (E, width) → {target type: (N, H·C)}, (N, C) for heads that are averaged.

    What cannot be taken is named in a warning and stays on PyG; so do, silently and for that call, relations whose
    arguments are unusual (attention weights asked for, sparse matrices, hooks on a conv, lazy weights at first call).
    What is derived from edges is kept while their tensors live and PyTorch's version counters say that they are
    unchanged; writing through `.data` or NumPy memory escapes those counters. First derivatives only: for second ones
    use the original.

    Raises:
        ConfigError: nothing in `module` can be accelerated.
        GraphError: (in a call) an edge names a node that is not there.
    """
    from torch_geometric.nn import HeteroConv

    memo = _kept_as_they_are(module)
    left: list[str] = []
    taken = 0
    for path, hetero in reversed(list(module.named_modules())):  # inner ones first, so that outer copies hold them
        if not isinstance(hetero, HeteroConv):
            continue
        where = f"{type(module).__name__}{'.' if path else ''}{path}"
        if type(hetero) is not HeteroConv or "forward" in vars(hetero):
            left.insert(0, f"{where}: {type(hetero).__name__} is no plain HeteroConv, its forward may differ")
            continue
        reasons = {relation: why_not(conv) for relation, conv in hetero.convs.items()}
        left[:0] = [f"{where} {relation}: {reason}" for relation, reason in reasons.items() if reason]
        if not all(reasons.values()):
            memo[id(hetero)] = _swapped(hetero, memo)
            taken += 1
    if not taken:
        raise ConfigError(_nothing_in(module, left))
    if left:
        warnings.warn("accelerate: these stay on PyG:\n  " + "\n  ".join(left), stacklevel=2)
    result: nn.Module = copy.deepcopy(module, memo)
    return result


def _kept_as_they_are(module: nn.Module) -> dict[int, Any]:
    """The memo of a copy that shares parameters, buffers and linear maps that still wait for their width: those set
    `in_channels` in the module whose weight they make.
    """
    shared: list[Any] = [*module.parameters(), *module.buffers()]
    shared += [m for m in module.modules() if isinstance(getattr(m, "weight", None), nn.UninitializedParameter)]
    return {id(t): t for t in shared}


def _swapped(hetero: nn.Module, memo: dict[int, Any]) -> AcceleratedHeteroConv:
    like = copy.deepcopy(hetero, memo)
    fast = AcceleratedHeteroConv(like.convs, like.aggr)  # type: ignore[arg-type]
    vars(fast).update(vars(like))  # its training flag, hooks and whatever its owner has set on it
    return fast


def _nothing_in(module: nn.Module, left: Sequence[str]) -> str:
    if any(isinstance(m, AcceleratedHeteroConv) for m in module.modules()):
        return f"accelerate: {type(module).__name__} is accelerated already; use it as it is."
    found = "; ".join(left) if left else "no HeteroConv"
    return (
        f"accelerate: nothing to accelerate in {type(module).__name__}: found {found}. It takes PyG's HeteroConv "
        "over GATConv or GATv2Conv; use the module as it is, or put such a layer into it."
    )


def why_not(conv: nn.Module) -> str:
    """Why a conv can never be taken; "" if it can."""
    from torch_geometric.nn import GATConv, GATv2Conv
    from torch_geometric.nn.dense.linear import Linear

    name = type(conv).__name__
    if type(conv) not in (GATConv, GATv2Conv):
        if isinstance(conv, GATConv | GATv2Conv):
            return f"{name} is a subclass, whose messages may differ"
        return f"{name} is neither GATConv nor GATv2Conv"
    c: Any = conv
    if getattr(c, "normalize", False):  # in PyG after 2.8: weights by attention and degree
        return f"{name} normalizes by degree"
    if set(_STEPS) & vars(c).keys():
        return f"{name} has a method of its own in place of the class's"
    if c.aggr not in ("add", "sum"):
        return f"it aggregates by {c.aggr!r}, expected 'add'"
    if c.flow != "source_to_target" or c.node_dim != 0 or c.decomposed_layers != 1:
        return f"flow {c.flow!r}, node_dim {c.node_dim}, decomposed_layers {c.decomposed_layers}, expected the defaults"
    odd = [n for n in _LINEARS if getattr(c, n, None) is not None and type(getattr(c, n)) is not Linear]
    return f"{odd[0]} is a {type(getattr(c, odd[0])).__name__}, expected PyG's Linear" if odd else ""


def _why_not_now(conv: Any) -> bool:
    """Whether a conv's own forward must run in this call: somebody listens in, or weights have no width yet (which is a
    hook too), or everything is dropped.
    """
    if conv.explain or (conv.training and conv.dropout >= 1):
        return True
    if any(getattr(conv, name) for name in (*_CALL_HOOKS, *_MESSAGE_HOOKS)):
        return True
    linears = [m for m in conv._modules.values() if m is not None]
    return any(getattr(m, name) for m in linears for name in _CALL_HOOKS)


class AcceleratedHeteroConv(nn.Module):
    """What `accelerate` puts in the place of a `HeteroConv`.

    Args:
        convs: relation → conv, a PyG `ModuleDict`; whatever cannot be taken runs as it is.
        aggr: as in `HeteroConv`.
    """

    def __init__(self, convs: nn.Module, aggr: str | None = "sum") -> None:
        super().__init__()
        self.convs = convs
        self.aggr = aggr

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for conv in self.convs.values():  # type: ignore[operator]
            conv.reset_parameters()

    def forward(self, *args_dict: Mapping[Any, Any], **kwargs_dict: Mapping[Any, Any]) -> dict[str, Tensor]:
        """x_dict, edge_index_dict, edge_attr_dict (see `accelerate`) → {target type: (N, features)}, as PyG gives it.

        A relation without edge-level arguments is skipped; a type that no relation reaches is not in the answer.
        """
        rows: dict[str, Tensor] = {}
        calls: list[Call] = []
        parts: list[Part] = []
        for place, (relation, conv) in enumerate(self.convs.items()):  # type: ignore[operator]
            given = _arguments(relation, args_dict, kwargs_dict)
            if given is None:
                continue
            call = _take(place, relation, conv, given, rows)
            if call is None:
                parts.append(Part(place, relation[2], conv(*given[0], **given[1])))
            else:
                calls.append(call)
        parts += _run(calls, rows, merged=self.aggr in ("sum", "mean"))
        return _combine(parts, self.aggr)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_relations={len(self.convs)})"  # type: ignore[arg-type]


# --- what a call says -------------------------------------------------------------------------------------------------

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


def _arguments(
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


def _take(place: int, relation: Relation, conv: Any, given: Given, rows: dict[str, Tensor]) -> Call | None:
    """The relation as a `Call`, its features entered in `rows`; None if its conv must run (and raise its errors)."""
    args, kwargs = given
    names = ("x", "edge_index", "edge_attr")
    said = dict(zip(names, args, strict=False)) | kwargs
    if len(said) != len(args) + len(kwargs) or not {"x", "edge_index"} <= said.keys() <= set(names):
        return None
    if why_not(conv) or _why_not_now(conv):
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
    if not _accepts(_source_map(conv), source):
        return None
    if target is None and not hasattr(conv, "lin_l"):
        return source, None
    if not _accepts(_target_map(conv), target) or target.dtype != source.dtype or target.device != source.device:
        return None
    return source, target


def _source_map(conv: Any) -> Any:
    return conv.lin_l if hasattr(conv, "lin_l") else conv.lin_src if conv.lin is None else conv.lin


def _target_map(conv: Any) -> Any:
    return conv.lin_r if hasattr(conv, "lin_l") else conv.lin_dst if conv.lin is None else conv.lin


def _accepts(lin: Any, x: Any) -> bool:
    """Whether `lin(x)` is what it seems: rows of the right width and dtype."""
    if not isinstance(x, Tensor) or x.dim() != 2 or x.layout != torch.strided:
        return False
    low = torch.is_autocast_enabled(x.device.type) and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    same = x.dtype == lin.weight.dtype or (low and lin.weight.dtype == torch.float32)
    return same and x.shape[1] == lin.weight.shape[1] and x.device == lin.weight.device


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
    return wide.shape[0] == edges.shape[1] and _accepts(conv.lin_edge, wide), attr


def _enter(rows: dict[str, Tensor], name: str, x: Tensor) -> bool:
    """Notes the features of a type; False if another relation gave it others (PyG allows features per relation)."""
    known = rows.setdefault(name, x)
    return known is x or (known.shape == x.shape and x.shape[1] == 0)


# --- what is derived from edges ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """Relations that run in one operator; `few`: gathered before they are projected."""

    few: bool
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Prepared:
    """A plan for each bundle; of each relation with self loops the edges without them, their places in the list."""

    plans: tuple[Plan, ...]
    plain: Mapping[Relation, tuple[Tensor, Tensor]] = field(default_factory=dict)


class PlanCache:
    """The last few `Prepared`, found by the edge tensors they were made from.

    An entry counts only while each tensor is the same object (weak references: an address may be used again) at the
    same version (in-place writes raise it), and goes when one of them dies.
    """

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self._entries: OrderedDict[Any, tuple[list[weakref.ref[Tensor]], Prepared]] = OrderedDict()

    def get(self, key: Any, edges: Sequence[Tensor], build: Callable[[], Prepared]) -> Prepared:
        """What `build` gave for these edges and this key."""
        if torch.compiler.is_compiling() or any(e.is_inference() for e in edges):  # no identity or no version to go by
            return build()
        full = (key, tuple((id(e), e._version, e.shape) for e in edges))
        found = self._entries.pop(full, None)
        if found is None or any(ref() is not e for ref, e in zip(found[0], edges, strict=True)):
            with torch.inference_mode(False):  # a plan made while predicting may serve in training
                found = self._references(full, edges), build()
        self._entries[full] = found
        while len(self._entries) > self.size:
            self._entries.popitem(last=False)
        return found[1]

    def _references(self, full: Any, edges: Sequence[Tensor]) -> list[weakref.ref[Tensor]]:
        entries = self._entries
        return [weakref.ref(e, lambda _: entries.pop(full, None)) for e in edges]


_PLANS = PlanCache()
"""One for all layers: those that see the same relations share a plan."""


def _bundles(calls: Iterable[Call], rows: Mapping[str, Tensor], merged: bool) -> list[Bundle]:
    groups: dict[tuple[Any, ...], list[Call]] = {}
    for call in calls:
        few = merged and _gathers_first(call, rows)
        gathered = rows[call.relation[0]].shape[1] if few else None  # rows that are gathered share a width
        groups.setdefault((few, gathered, *call.kind), []).append(call)
    return [Bundle(few, tuple(group)) for (few, *_), group in groups.items()]


def _gathers_first(call: Call, rows: Mapping[str, Tensor]) -> bool:
    """Whether counted work says to project gathered rows at the targets and not every source."""
    if call.mode != "gat" or call.features is not None:
        return False
    sources, wide = rows[call.relation[0]].shape
    targets, other = rows[call.relation[2]].shape
    if wide != other:  # the operator's backward pass takes features of one width for all types of a plan
        return False
    heads, width = call.conv.heads, call.conv.out_channels
    edges = call.edges.shape[1] + (min(sources, targets) if call.conv.add_self_loops else 0)
    return bool(edges * heads * wide * 3 + targets * heads * width * wide < sources * wide * heads * width)


def _prepared(bundles: Sequence[Bundle], rows: Mapping[str, Tensor], merged: bool) -> Prepared:
    sizes = {name: len(x) for name, x in rows.items()}
    calls = [c for b in bundles for c in b.calls]
    split = tuple((b.few, tuple((c.relation, bool(c.conv.add_self_loops)) for c in b.calls)) for b in bundles)
    return _PLANS.get(
        (merged, split, tuple(sizes.items())), [c.edges for c in calls], lambda: _prepare(bundles, sizes, merged)
    )


def _prepare(bundles: Sequence[Bundle], sizes: Mapping[str, int], merged: bool) -> Prepared:
    edges: dict[Relation, Tensor] = {}
    plain = {}
    for call in (c for b in bundles for c in b.calls):
        edges[call.relation] = call.edges
        if call.conv.add_self_loops:
            edges[call.relation], plain[call.relation] = _with_loops(call, sizes)
    ptr = None if torch.compiler.is_compiling() else sample_blocks(sizes, edges)
    plans = []
    for bundle in bundles:
        relations = [c.relation for c in bundle.calls]
        types = [name for name in sizes if any(name in (r[0], r[2]) for r in relations)]
        blocks = None if ptr is None else {name: ptr[name] for name in types}
        lists = {r: EdgeList(edges[r]) for r in relations}
        plans.append(make_plan({name: sizes[name] for name in types}, lists, blocks, merged and not bundle.few))
    return Prepared(tuple(plans), plain)


def _with_loops(call: Call, sizes: Mapping[str, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    from torch_geometric.utils import add_self_loops, remove_self_loops

    places = torch.arange(call.edges.shape[1], device=call.edges.device)
    plain = remove_self_loops(call.edges, places)
    return add_self_loops(plain[0], num_nodes=_loops(call, sizes))[0], plain


def _loops(call: Call, sizes: Mapping[str, int]) -> int:
    return min(sizes[call.relation[0]], sizes[call.relation[2]])


def sample_blocks(sizes: Mapping[str, int], edges: Mapping[Relation, Tensor]) -> dict[str, Tensor] | None:
    """Node type → (B + 1,) first node of each of B blocks that no edge leaves; None if all nodes are one block.

    A packed batch is a graph whose components lie one after another, in one order for all types. Nodes without edges
    join the block before them.
    """
    count = sum(e.shape[1] for e in edges.values())
    if not 0 < count <= MOST_EDGES or any(_strays(e, sizes[r[0]], sizes[r[2]]) for r, e in edges.items()):
        return None
    start = dict(zip(sizes, running_sum([0, *sizes.values()]), strict=False))
    ends = [(e.cpu() + torch.tensor([[start[r[0]]], [start[r[2]]]])).numpy() for r, e in edges.items()]
    labels = _components(np.concatenate(ends, axis=1), sum(sizes.values()))
    of_type = {name: labels[start[name] : start[name] + n] for name, n in sizes.items()}
    rank = _one_order([_runs(own[own >= 0]) for own in of_type.values()])
    if rank is None or len(rank) < 2:
        return None
    device = next(iter(edges.values())).device
    return {name: torch.from_numpy(_first_nodes(own, rank)).to(device) for name, own in of_type.items()}


def _strays(edges: Tensor, sources: int, targets: int) -> bool:
    """Whether an edge names a node that is not there: `make_plan` says so better."""
    if not edges.numel():
        return False
    low, high = edges.aminmax(dim=1)
    return bool((low < 0).any()) or int(high[0]) >= sources or int(high[1]) >= targets


def _components(ends: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The component of each of `count` nodes, −1 for those without edges."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(ends.shape[1]), (ends[0], ends[1])), (count, count))
    labels = connected_components(graph, directed=False)[1]
    linked = np.zeros(count, dtype=bool)
    linked[ends] = True
    return np.where(linked, labels, -1)


def _runs(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels without repetitions of the one before."""
    return labels[np.flatnonzero(np.diff(labels, prepend=-1))]


def _one_order(runs: Sequence[np.ndarray[Any, Any]]) -> dict[int, int] | None:
    """Component → place in an order that every type keeps; None if there is none, or a component is in two pieces."""
    if any(len(run) > MOST_BLOCKS or len(np.unique(run)) < len(run) for run in runs):
        return None
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for run in runs:
        for first in run[:1].tolist():
            sorter.add(first)
        for before, after in pairwise(run.tolist()):
            sorter.add(after, before)
    try:
        return {component: place for place, component in enumerate(sorter.static_order())}
    except CycleError:
        return None


def _first_nodes(labels: np.ndarray[Any, Any], rank: Mapping[int, int]) -> np.ndarray[Any, Any]:
    """(B + 1,) int32 from the component of each node."""
    places = np.zeros(max(rank) + 2, dtype=np.int64)  # the last one, which −1 finds, is 0
    places[list(rank)] = list(rank.values())
    block = np.maximum.accumulate(places[labels])
    return np.searchsorted(block, np.arange(len(rank) + 1)).astype(np.int32)


# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A share (N, features) of the answer for `target`: the sum of `count` relations, the first at `place`."""

    place: int
    target: str
    value: Tensor
    count: int = 1


def _run(calls: Sequence[Call], rows: Mapping[str, Tensor], merged: bool) -> list[Part]:
    if not calls:
        return []
    used = {name: rows[name] for name in dict.fromkeys(n for c in calls for n in (c.relation[0], c.relation[2]))}
    bundles = _bundles(calls, used, merged)
    made = _prepared(bundles, used, merged)
    parts: list[Part] = []
    for bundle, plan in zip(bundles, made.plans, strict=True):
        parts += _run_bundle(bundle, plan, made, used, merged)
    return parts


Grouped = Sequence[Sequence[Call]]
"""Of each node type the calls that leave it, or enter it, in slot order."""


@dataclass(frozen=True)
class Job:
    """A bundle with its plan: features `x` of the plan's types, options of the operator."""

    x: Sequence[Tensor]
    plan: Plan
    calls: Sequence[Call]
    leaving: Grouped
    entering: Grouped
    options: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, C)."""
        return self.calls[0].conv.heads, self.calls[0].conv.out_channels


def _run_bundle(bundle: Bundle, plan: Plan, made: Prepared, rows: Mapping[str, Tensor], merged: bool) -> list[Part]:
    calls = {c.relation: c for c in bundle.calls}
    leaving = [[calls[r] for r in plan.leaving(name)] for name in plan.node_types]
    entering = [[calls[r] for r in plan.entering(name)] for name in plan.node_types]
    first = bundle.calls[0]
    options = {"slope": first.conv.negative_slope, "dropout": first.dropout}
    if not bundle.few:
        options["edge"] = _edge_terms(bundle.calls, plan, made, rows)
    job = Job([rows[name] for name in plan.node_types], plan, bundle.calls, leaving, entering, options)
    run = _into_few if bundle.few else _gatv2 if first.mode == "gatv2" else _gat
    parts = []
    for name, out, into in zip(plan.node_types, run(job), entering, strict=True):
        shares = [into] if merged and into else [[c] for c in into]
        parts += [_part(name, out[:, slot], share, rows[name]) for slot, share in enumerate(shares)]
    return parts


def _gat(job: Job) -> Sequence[Tensor]:
    value = _values(job)
    maps = Projections(value, _source_logits(value, job.leaving), _target_logits(job.entering))
    return messages(job.x, job.plan, maps, *job.shape, "gat", **job.options)


def _into_few(job: Job) -> Sequence[Tensor]:
    heads, width = job.shape
    key, query = _source_logits(_values(job), job.leaving), _target_logits(job.entering)
    weight = [_source_map(c.conv).weight.view(heads, width, -1) for c in job.calls]
    found = messages_into_few(job.x, job.plan, key, query, weight, heads, **job.options)
    return [
        found[name].view(-1, 1, heads, width) if name in found else rows  # nothing enters: it is not looked at
        for name, rows in zip(job.plan.node_types, job.x, strict=True)
    ]


def _gatv2(job: Job) -> Sequence[Tensor]:
    left = [[c.conv.lin_l for c in each] for each in job.leaving]
    right = [[c.conv.lin_r for c in each] for each in job.entering]
    value, query = ([_stack(lin.weight for lin in each) for each in side] for side in (left, right))
    shifts: list[list[Tensor | None]] = [[], []]
    if any(lin.bias is not None for side in (left, right) for each in side for lin in each):
        shifts = [[_stack(_bias(lin) for lin in each) for each in side] for side in (left, right)]
    maps = Projections(value, (), query, *shifts)
    att = torch.cat([c.conv.att for c in job.calls]).to(_high(job.x[0]))
    return messages(job.x, job.plan, maps, *job.shape, "gatv2", att=att, **job.options)


def _values(job: Job) -> list[Tensor | None]:
    """For each type the stacked maps (R·H·C, D) of the relations that leave it."""
    return [_stack(_source_map(c.conv).weight for c in each) for each in job.leaving]


def _source_logits(value: Sequence[Tensor | None], leaving: Grouped) -> list[Tensor | None]:
    """For each type the map to the logits of all relations that leave it: att · (W x) = (att W) x."""
    return [
        None if w is None else _fold(w, torch.cat([c.conv.att_src for c in each]))
        for w, each in zip(value, leaving, strict=True)
    ]


def _target_logits(entering: Grouped) -> list[Tensor | None]:
    return [_stack(_target_logit(c) for c in each) for each in entering]


def _target_logit(call: Call) -> Tensor:
    """(H, D); nothing is known of lone targets, so theirs is (H, 0), which gives 0."""
    if call.lone:
        empty: Tensor = call.conv.att_dst.new_empty(call.conv.heads, 0)
        return empty
    return _fold(_target_map(call.conv).weight, call.conv.att_dst)


def _fold(weight: Tensor, att: Tensor) -> Tensor:
    high = _high(weight)
    return fold(weight.to(high), att.to(high))


def _edge_terms(calls: Sequence[Call], plan: Plan, made: Prepared, rows: Mapping[str, Tensor]) -> list[Tensor] | None:
    """What edge features add to the logits (`gat`) or under the rectifier (`gatv2`), sorted as the plan's edges."""
    if all(c.features is None for c in calls):
        return None
    empty = rows[calls[0].relation[0]].new_empty(0, dtype=_high(rows[calls[0].relation[0]]))
    return [empty if c.features is None else _edge_term(c, plan, made, rows) for c in calls]


def _edge_term(call: Call, plan: Plan, made: Prepared, rows: Mapping[str, Tensor]) -> Tensor:
    from torch_geometric.utils import add_self_loops

    conv, attr = call.conv, call.features
    assert attr is not None
    if call.relation in made.plain:
        edges, places = made.plain[call.relation]
        loops = min(len(rows[call.relation[0]]), len(rows[call.relation[2]]))
        attr = add_self_loops(edges, attr[places], fill_value=conv.fill_value, num_nodes=loops)[1]
    attr = (attr[:, None] if attr.dim() == 1 else attr)[plan.order[call.relation]]
    weight = conv.lin_edge.weight
    if call.mode == "gatv2":
        return linear(attr, weight).view(-1, conv.heads, conv.out_channels).to(_high(attr))
    return linear(attr, fold(weight, conv.att_edge)).to(_high(attr))


def _part(target: str, out: Tensor, calls: Sequence[Call], x: Tensor) -> Part:
    """Heads joined, then what each conv adds: its bias, its map of the targets themselves."""
    total = out.flatten(1) if calls[0].conv.concat else out.mean(1)
    if not torch.is_autocast_enabled(x.device.type):
        total = total.to(x.dtype)
    bias = [c.conv.bias for c in calls if c.conv.bias is not None]
    skip = [c.conv.res.weight for c in calls if c.conv.res is not None and not c.lone]
    if skip:
        total = total + linear(x, _sum(skip))
    if bias:
        total = total + _sum(bias)
    return Part(calls[0].place, target, total, len(calls))


def _combine(parts: Sequence[Part], aggr: str | None) -> dict[str, Tensor]:
    """Types in order of first appearance among the convs, relations joined by PyG's own rule."""
    from torch_geometric.nn.conv.hetero_conv import group

    of_target: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda p: p.place):
        of_target.setdefault(part.target, []).append(part)
    out = {}
    for target, own in of_target.items():
        joined = group([p.value for p in own], "sum" if aggr == "mean" else aggr)
        count = sum(p.count for p in own)
        out[target] = joined / count if aggr == "mean" and count > 1 else joined
    return out


def _stack(weights: Iterable[Tensor]) -> Tensor | None:
    found = list(weights)
    return None if not found else found[0] if len(found) == 1 else torch.cat(found)


def _bias(lin: Any) -> Tensor:
    zero: Tensor = lin.weight.new_zeros(len(lin.weight)) if lin.bias is None else lin.bias
    return zero


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, tensors)


def _high(x: Tensor) -> torch.dtype:
    """Logits are made in float32 or better."""
    return torch.promote_types(x.dtype, torch.float32)


__all__ = ["AcceleratedHeteroConv", "accelerate"]

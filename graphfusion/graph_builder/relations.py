"""Relation policies: which source nodes send to which target nodes of the same sample.

Each is a frozen dataclass of plain values with `source` and `target` node types and a `name`; the triple of the three
is the edge type. `edges` gives pairs in any order; the builder sorts them and drops duplicates. No policy ever ties two
samples. Those with `learned = True` choose their edges inside the model, from node states.
"""

from __future__ import annotations

import dataclasses
import math
import typing
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from graphfusion.config import check_value
from graphfusion.errors import GraphError, unknown_name
from graphfusion.graph_builder.nodes import Edges, Index, Nodes, by_target, expand, match, microseconds
from graphfusion.ops.hetero_attention.pairs import Dense, Grid, Pairs, Window


class Relation(Protocol):
    """One typed way in which nodes are tied."""

    kind: ClassVar[str]
    learned: ClassVar[bool]

    @property
    def source(self) -> str:
        """Node type that sends."""

    @property
    def target(self) -> str:
        """Node type that receives."""

    @property
    def name(self) -> str:
        """Name of the relation, unique between its two node types."""

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """(source, target) index of each edge in the packed nodes."""


@runtime_checkable
class Regular(Relation, Protocol):
    """A relation whose edges follow from a rule, so that kernels need no list of them."""

    def rule(self, source: Nodes, target: Nodes) -> Pairs | None:
        """The rule that gives the same edges as `edges`, or None where these nodes do not follow it."""


@dataclass(frozen=True)
class SequenceWindow:
    """Neighbours in a sequence: j → i for j = i ± dilation·s, s = 1 … size, both in the sample.

    `direction`: `past` keeps the sources before i, `future` those after it, `both` all.
    """

    node_type: str
    size: int = 4
    dilation: int = 1
    direction: str = "both"
    name: str = "window"
    kind: ClassVar[str] = "sequence_window"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _at_least_one(self, "size", "dilation")
        if self.direction not in ("past", "future", "both"):
            raise GraphError(unknown_name("direction", self.direction, ("past", "future", "both")))

    source = target = property(lambda self: self.node_type)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        steps = self.dilation * np.arange(1, self.size + 1)
        offsets = {"past": -steps, "future": steps, "both": np.concatenate([-steps[::-1], steps])}[self.direction]
        found = np.arange(len(target))[:, None] + offsets
        low, high = source.ptr[target.sample][:, None], source.ptr[target.sample + 1][:, None]
        node, step = np.nonzero((found >= low) & (found < high))
        return found[node, step], node

    def rule(self, source: Nodes, target: Nodes) -> Window:
        """See `Regular`."""
        low, high = (0 if self.direction == way else self.size for way in ("future", "past"))
        return Window(-low, high, self.dilation, loops=False)


@dataclass(frozen=True)
class GridNeighbourhood:
    """Neighbours in a grid: j → i, j ≠ i, with |Δrow| ≤ radius and |Δcolumn| ≤ radius (`corners`), or
    |Δrow| + |Δcolumn| ≤ radius (without); in a video likewise with |Δframe|. Holes in the grid are allowed.
    """

    node_type: str
    radius: int = 1
    corners: bool = True
    name: str = "grid"
    kind: ClassVar[str] = "grid_neighbourhood"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _at_least_one(self, "radius")

    source = target = property(lambda self: self.node_type)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        axes = target.position.shape[1]
        if axes < 2:
            raise GraphError(
                f"relation {self.name!r} needs (row, column) positions; {self.node_type!r} nodes have none."
            )
        if not len(target):
            return _none()
        step = np.arange(-self.radius, self.radius + 1)
        offsets = np.stack(np.meshgrid(*[step] * axes, indexing="ij"), -1).reshape(-1, axes)
        reach = np.abs(offsets).max(1) if self.corners else np.abs(offsets).sum(1)
        offsets = offsets[(reach > 0) & (reach <= self.radius)]
        place = target.position - target.position.min(0) + self.radius
        sides = place.max(0) + self.radius + 1
        strides = np.append(np.cumprod(sides[:0:-1])[::-1], 1)
        keys = target.sample * sides.prod() + place @ strides
        queries = keys[:, None] + offsets @ strides
        found, query = match(keys, queries.ravel())
        return found, query // len(offsets)

    def rule(self, source: Nodes, target: Nodes) -> Grid | None:
        """Only where the nodes of every sample fill a raster, row by row. See `Regular`."""
        if target.position.shape[1] != 2:
            return None
        first, count = target.ptr[:-1], np.diff(target.ptr)
        columns = np.ones(len(count), np.int64)
        some = count > 0
        columns[some] = target.position[target.ptr[1:][some] - 1, 1] + 1
        if (columns < 1).any():
            return None
        place = np.arange(len(target)) - first[target.sample]
        raster = np.stack([place // columns[target.sample], place % columns[target.sample]], 1)
        if not np.array_equal(raster, target.position) or (count % columns).any():
            return None
        return Grid(torch.from_numpy(columns.astype(np.int32)), self.radius, self.corners, loops=False)


@dataclass(frozen=True)
class Full:
    """Every source node of the sample → every target node; within one node type, all but the node itself."""

    source: str
    target: str
    name: str = "full"
    kind: ClassVar[str] = "full"
    learned: ClassVar[bool] = False

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        found = expand(source.ptr[target.sample], np.diff(source.ptr)[target.sample])
        return _without_self(found) if self.source == self.target else found

    def rule(self, source: Nodes, target: Nodes) -> Dense:
        """See `Regular`."""
        return Dense(loops=self.source != self.target)


@dataclass(frozen=True)
class SelfLoops:
    """Every node → itself."""

    node_type: str
    name: str = "self"
    kind: ClassVar[str] = "self_loops"
    learned: ClassVar[bool] = False

    source = target = property(lambda self: self.node_type)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        return np.arange(len(target)), np.arange(len(target))

    def rule(self, source: Nodes, target: Nodes) -> Window:
        """See `Regular`."""
        return Window(0, 0)


@dataclass(frozen=True)
class TimeWindow:
    """j → i when the middles of their spans lie at most `seconds` apart (to the microsecond, bounds included); within
    one node type, j ≠ i. Both need spans in seconds.
    """

    source: str
    target: str
    seconds: float
    name: str = "time_window"
    kind: ClassVar[str] = "time_window"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise GraphError(f"TimeWindow.seconds: expected a number from 0, got {self.seconds!r}.")

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        # twice the middle in microseconds: start + end stays a whole number
        there, here = (microseconds(n.spans("seconds", self.name)).sum(1) for n in (source, target))
        reach = 2 * int(microseconds(np.array(self.seconds)))
        low, wide = _range(there, here, margin=reach)
        keys, queries = there - low + source.sample * wide, here - low + target.sample * wide
        order = np.argsort(keys, kind="stable")
        first = np.searchsorted(keys[order], queries - reach, "left")
        found, node = expand(first, np.searchsorted(keys[order], queries + reach, "right") - first)
        pairs = order[found], node
        return _without_self(pairs) if self.source == self.target else pairs


@dataclass(frozen=True)
class AlignedInTime:
    """j → i when their half-open spans overlap: start(j) < end(i) and start(i) < end(j), to the microsecond. Both need
    spans in seconds; within one node type, j ≠ i.
    """

    source: str
    target: str
    name: str = "aligned"
    kind: ClassVar[str] = "aligned_in_time"
    learned: ClassVar[bool] = False

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        there, here = (microseconds(n.spans("seconds", self.name)) for n in (source, target))
        pairs = _overlapping(source, there, target, here)
        return _without_self(pairs) if self.source == self.target else pairs


@dataclass(frozen=True)
class SameSpan:
    """j → i when they cover a common character of one text, tokenized in two ways. The two columns must hold the same
    text; spans are half-open, in characters.
    """

    source: str
    target: str
    name: str = "same_span"
    kind: ClassVar[str] = "same_span"
    learned: ClassVar[bool] = False

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        there, here = (n.spans("characters", self.name).astype(np.int64) for n in (source, target))
        pairs = _overlapping(source, there, target, here)
        return _without_self(pairs) if self.source == self.target else pairs


@dataclass(frozen=True)
class PositionKNN:
    """The `k` source nodes of the sample nearest to i by Euclidean distance of positions; equal distances go to the
    lower index; within one node type, j ≠ i.
    """

    source: str
    target: str
    k: int = 8
    name: str = "near"
    kind: ClassVar[str] = "position_knn"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _at_least_one(self, "k")

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        return _nearest(self, source, source.position.astype(np.float64), target, target.position.astype(np.float64))


@dataclass(frozen=True)
class FeatureKNN:
    """The `k` source nodes of the sample nearest to i by Euclidean distance of raw values (precomputed features, say);
    equal distances go to the lower index; within one node type, j ≠ i. For learned similarity: `TopKSimilarity`.
    """

    source: str
    target: str
    k: int = 8
    name: str = "similar"
    kind: ClassVar[str] = "feature_knn"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _at_least_one(self, "k")

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        there, here = (n.values.reshape(len(n), math.prod(n.layout.shape)).astype(np.float64) for n in (source, target))
        return _nearest(self, source, there, target, here)


@dataclass(frozen=True)
class TopKSimilarity:
    """The `k` source nodes of the sample that are most similar to i in a learned space of `width` dimensions; chosen in
    the model at every pass, so the builder lays no edges. Equal similarities go to the lower index.
    """

    source: str
    target: str
    k: int = 8
    width: int = 16
    name: str = "top_k"
    kind: ClassVar[str] = "top_k_similarity"
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one(self, "k", "width")

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """None: see the class."""
        return _none()


@dataclass(frozen=True)
class SameSpeaker:
    """j → i, j ≠ i, when both have the same `speaker`; with `window` > 0 only if |j − i| ≤ window in the sequence."""

    node_type: str
    window: int = 0
    name: str = "same_speaker"
    kind: ClassVar[str] = "same_speaker"
    learned: ClassVar[bool] = False

    source = target = property(lambda self: self.node_type)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        if not len(target):
            return _none()
        speaker = target.attribute("speaker", self.name)
        if not self.window:
            numbers = np.unique(speaker, return_inverse=True)[1]
            own = target.sample * (numbers.max() + 1) + numbers
            return _without_self(match(own, own))
        there, here = SequenceWindow(self.node_type, self.window).edges(source, target)
        same = speaker[there] == speaker[here]
        return there[same], here[same]


@dataclass(frozen=True)
class OtherSpeaker:
    """j → i when their `speaker` differs; with `window` > 0 only if |j − i| ≤ window in the sequence."""

    node_type: str
    window: int = 0
    name: str = "other_speaker"
    kind: ClassVar[str] = "other_speaker"
    learned: ClassVar[bool] = False

    source = target = property(lambda self: self.node_type)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        if not len(target):
            return _none()
        name, speaker = self.node_type, target.attribute("speaker", self.name)
        near: Relation = SequenceWindow(name, self.window) if self.window else Full(name, name)
        there, here = near.edges(source, target)
        other = speaker[there] != speaker[here]
        return there[other], here[other]


@dataclass(frozen=True)
class KnowledgePairs:
    """j → i when (entity of j, entity of i) is one of the `pairs` (head, tail): one relation of a knowledge graph.

    Entities are compared as lower-case words: the word that a text token lies in, or the `entity` of features.
    `knowledge_triples` makes these from (head, relation, tail) triples.
    """

    source: str
    target: str
    name: str
    pairs: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "knowledge_pairs"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple((str(h).lower(), str(t).lower()) for h, t in self.pairs))

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        if not len(source) or not len(target) or not self.pairs:
            return _none()
        heads, tails = np.array(self.pairs, np.str_).T
        words = np.unique(np.concatenate([heads, tails]))
        there, here = (_lookup(words, n.attribute("entity", self.name)) for n in (source, target))
        pair, node = match(np.searchsorted(words, heads), there)
        wanted = source.sample[node] * len(words) + np.searchsorted(words, tails)[pair]
        held = np.where(here >= 0, target.sample * len(words) + here, -1)
        found, want = match(held, wanted)
        return node[want], found


@dataclass(frozen=True)
class Union:
    """The edges of several policies between the same two node types as one relation, each pair once.

    With `cap`, a target keeps at most that many edges: those of earlier policies first, then lower source index.
    """

    relations: tuple[Relation, ...]
    name: str = "union"
    cap: int = 0
    kind: ClassVar[str] = "union"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        ends = {(r.source, r.target) for r in self.relations}
        if len(ends) != 1:
            raise GraphError(f"Union: expected policies between the same two node types, got {sorted(ends)}.")
        if any(r.learned for r in self.relations):
            raise GraphError("Union: a learned relation chooses its edges in the model and cannot be part of a union.")

    @property
    def source(self) -> str:
        """Node type that sends."""
        return self.relations[0].source

    @property
    def target(self) -> str:
        """Node type that receives."""
        return self.relations[0].target

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        parts = [by_target(r.edges(source, target), len(source)) for r in self.relations]
        there, here = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
        rank = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
        order = np.lexsort((there, rank, here))
        _, first = np.unique((here * max(len(source), 1) + there)[order], return_index=True)
        order = order[np.sort(first)]
        there, here = there[order], here[order]
        if self.cap:
            within = np.arange(len(here)) - np.searchsorted(here, here, "left")
            there, here = there[within < self.cap], here[within < self.cap]
        return there, here


@dataclass(frozen=True)
class Shuffled:
    """The edges of another relation between the wrong nodes: the sources of each sample are permuted; what would tie a node
    to itself is left out. A control: where it does as well as the relation itself, who is tied to whom does not matter. The
    permutation follows from `seed` and the values of the sample's source nodes, never from the batch: nodes that are
    augmented are tied anew in every epoch.

    Raises:
        GraphError: the relation chooses its edges in the model.
    """

    relation: Relation
    seed: int = 0
    kind: ClassVar[str] = "shuffled"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.relation.learned:
            raise GraphError(f"relation {self.relation.name!r} chooses its edges in the model; it cannot be shuffled.")

    source = property(lambda self: self.relation.source)
    target = property(lambda self: self.relation.target)
    name = property(lambda self: self.relation.name)

    def edges(self, source: Nodes, target: Nodes) -> Edges:
        """See the class."""
        found, node = self.relation.edges(source, target)
        moved = np.arange(len(source))
        for first, last in zip(source.ptr[:-1], source.ptr[1:], strict=True):
            content = zlib.crc32(np.ascontiguousarray(source.values[first:last]).tobytes())
            moved[first:last] = first + np.random.default_rng((self.seed, content)).permutation(last - first)
        shuffled = moved[found], node
        return _without_self(shuffled) if self.source == self.target else shuffled


RELATIONS: dict[str, type[Any]] = {
    c.kind: c
    for c in (
        SequenceWindow, GridNeighbourhood, Full, SelfLoops, TimeWindow, AlignedInTime, SameSpan, PositionKNN,
        FeatureKNN, TopKSimilarity, SameSpeaker, OtherSpeaker, KnowledgePairs, Union, Shuffled,
    )
}  # fmt: skip


def relation_to_dict(relation: Relation) -> dict[str, Any]:
    """A policy in plain JSON types."""
    values = {f.name: getattr(relation, f.name) for f in dataclasses.fields(relation)}  # type: ignore[arg-type]
    if isinstance(relation, Union):
        values["relations"] = [relation_to_dict(r) for r in relation.relations]
    if isinstance(relation, KnowledgePairs):
        values["pairs"] = [list(pair) for pair in relation.pairs]
    if isinstance(relation, Shuffled):
        values["relation"] = relation_to_dict(relation.relation)
    return {"kind": relation.kind, **values}


def relation_from_dict(document: Mapping[str, Any]) -> Relation:
    """Read what `relation_to_dict` wrote.

    Raises:
        GraphError, ConfigError: a kind or option is unknown, missing or of the wrong type; the message names it.
    """
    options = dict(document)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in RELATIONS:
        raise GraphError(unknown_name("relation", kind, RELATIONS))
    _check_options(kind, options)
    if kind == Union.kind:
        options["relations"] = tuple(relation_from_dict(r) for r in options["relations"])
    if kind == KnowledgePairs.kind:
        options["pairs"] = tuple((head, tail) for head, tail in options["pairs"])
    if kind == Shuffled.kind:
        options["relation"] = relation_from_dict(options["relation"])
    relation: Relation = RELATIONS[kind](**options)
    return relation


_WRITTEN = {
    "relations": tuple[Mapping[str, Any], ...],
    "relation": Mapping[str, Any],
    "pairs": tuple[tuple[str, ...], ...],
}
"""Type of the options that are written in another form than the one that they have in the policy."""


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    known = dataclasses.fields(RELATIONS[kind])
    hints = {**typing.get_type_hints(RELATIONS[kind]), **_WRITTEN}
    for name, value in options.items():
        if name not in [f.name for f in known]:
            raise GraphError(f"relation {kind}: {unknown_name('option', name, (f.name for f in known))}")
        check_value(f"relation {kind}, {name}", value, hints[name])
    for option in known:
        if option.name not in options and option.default is dataclasses.MISSING:
            raise GraphError(f"relation {kind}: the option {option.name!r} is missing.")
    if any(len(pair) != 2 for pair in options.get("pairs", ())):
        raise GraphError(f"relation {kind}, pairs: expected two words in each.")


def knowledge_triples(source: str, target: str, triples: Iterable[tuple[str, str, str]]) -> list[KnowledgePairs]:
    """One `KnowledgePairs` for each relation that occurs in (head, relation, tail) triples."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for head, relation, tail in triples:
        grouped.setdefault(relation, []).append((head, tail))
    return [KnowledgePairs(source, target, name, tuple(pairs)) for name, pairs in sorted(grouped.items())]


def _at_least_one(relation: object, *names: str) -> None:
    for name in names:
        value = getattr(relation, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise GraphError(f"{type(relation).__name__}.{name}: expected a whole number from 1, got {value!r}.")


def _none() -> Edges:
    return np.empty(0, np.int64), np.empty(0, np.int64)


def _without_self(edges: Edges) -> Edges:
    keep = edges[0] != edges[1]
    return edges[0][keep], edges[1][keep]


def _range(*arrays: Index, margin: int = 0) -> tuple[int, int]:
    """(smallest value less `margin`, width of all values with margins): shifts samples apart in one sorted array."""
    low = min((int(a.min()) for a in arrays if a.size), default=0) - margin
    high = max((int(a.max()) for a in arrays if a.size), default=0) + margin
    return low, high - low + 1


def _overlapping(source: Nodes, there: Index, target: Nodes, here: Index) -> Edges:
    """Pairs of half-open intervals (n, 2) that overlap. Sorted by start, candidates are one range a target: from the
    first source that reaches beyond its start to the last that starts before its end.
    """
    low, wide = _range(there, here, margin=1)
    shift = source.sample * wide - low
    order = np.argsort(there[:, 0] + shift, kind="stable")
    start = (there[:, 0] + shift)[order]
    reach = np.maximum.accumulate((there[:, 1] + shift)[order])
    begin, end = (here[:, i] + target.sample * wide - low for i in (0, 1))
    first = np.searchsorted(reach, begin, "right")
    count = np.maximum(np.searchsorted(start, end, "left") - first, 0)
    found, node = expand(first, count)
    found = order[found]
    overlap = (there[found, 1] > here[node, 0]) & (source.sample[found] == target.sample[node])
    return found[overlap], node[overlap]


def _nearest(
    relation: PositionKNN | FeatureKNN,
    source: Nodes,
    there: NDArray[np.float64],
    target: Nodes,
    here: NDArray[np.float64],
) -> Edges:
    """K nearest neighbours sample by sample with a k-d tree; ties at the k-th distance are settled by index."""
    from scipy.spatial import cKDTree

    if there.shape[1] != here.shape[1]:
        raise GraphError(
            f"relation {relation.name!r}: {relation.source!r} has {there.shape[1]} coordinates and {relation.target!r} "
            f"{here.shape[1]}; distances need as many on both sides."
        )
    own = relation.source == relation.target
    parts = []
    for b in range(len(target.ptr) - 1):
        first, last = source.ptr[b], source.ptr[b + 1]
        mine = np.arange(target.ptr[b], target.ptr[b + 1])
        if first == last or not len(mine):
            continue
        tree = cKDTree(there[first:last])
        rank = min(relation.k + own, int(last - first))
        reach = tree.query(here[mine], k=[rank])[0][:, 0]
        near = tree.query_ball_point(here[mine], reach * (1 + 1e-9))
        node = np.repeat(mine, [len(n) for n in near])
        found = np.concatenate(near).astype(np.int64) + first
        distance = ((there[found] - here[node]) ** 2).sum(1)
        if own:
            other = found != node
            found, node, distance = found[other], node[other], distance[other]
        order = np.lexsort((found, distance, node))
        found, node = found[order], node[order]
        within = np.arange(len(node)) - np.searchsorted(node, node, "left")
        parts.append((found[within < relation.k], node[within < relation.k]))
    if not parts:
        return _none()
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _lookup(words: NDArray[np.str_], entities: NDArray[Any]) -> Index:
    """Index of each entity among sorted words, −1 where it is none of them."""
    entities = np.char.lower(entities.astype(np.str_))
    found = np.minimum(np.searchsorted(words, entities), len(words) - 1)
    return np.where(words[found] == entities, found, -1)

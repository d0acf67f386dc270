"""Which pairs each rule gives, against loops that say its docstring; and batches that hold rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphfusion.errors import GraphError
from graphfusion.graph_builder import (
    Full,
    GraphBatch,
    GraphBuilder,
    GridNeighbourhood,
    Relation,
    SelfLoops,
    SequenceWindow,
    from_pyg,
    to_networkx,
    to_pyg,
)
from graphfusion.graph_builder import builder as builder_module
from graphfusion.graph_builder.nodes import by_target
from graphfusion.graph_builder.relations import Regular
from graphfusion.modalities import NodeType, Tokens
from graphfusion.nn import HeteroAttention
from graphfusion.ops.hetero_attention import (
    Bitmask,
    Broadcast,
    Dense,
    EdgeList,
    Grid,
    Pairs,
    Window,
    hetero_attention,
    make_plan,
)
from graphfusion.ops.hetero_attention.pairs import KINDS, pairs_of

COUNTS = st.lists(st.integers(0, 7), min_size=1, max_size=5)
Wanted = Callable[[int, int, int], bool]
"""Whether source j of sample b (counted in the sample) sends to target i."""


def pointer(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def brute_force(sources: list[int], targets: list[int], wanted: Wanted) -> list[list[int]]:
    """[[source …], [target …]] by target, then by source: the one order of a rule."""
    there, here = pointer(sources).tolist(), pointer(targets).tolist()
    found = [
        (there[b] + j, here[b] + i)
        for b in range(len(targets))
        for i in range(targets[b])
        for j in range(sources[b])
        if wanted(b, j, i)
    ]
    return [[j for j, _ in found], [i for _, i in found]]


def check(pairs: Pairs, sources: list[int], targets: list[int], wanted: Wanted) -> None:
    """`edge_index`, the same from what a plan keeps of the pairs, and from a plan."""
    ptr = pointer(sources), pointer(targets)
    expected = brute_force(sources, targets, wanted)
    found = pairs.edge_index(*ptr)
    assert found.dtype == torch.int64
    assert found.shape[0] == 2
    assert found.tolist() == expected
    if not isinstance(pairs, EdgeList):
        again = pairs_of(pairs.kind, pairs.parameters(), pairs.tensors())
        assert type(again) is type(pairs)
        assert again.edge_index(*ptr).tolist() == expected
    relation = ("a", "x", "b")
    plan = make_plan({"a": int(ptr[0][-1]), "b": int(ptr[1][-1])}, {relation: pairs}, {"a": ptr[0], "b": ptr[1]})
    assert plan.edge_index(relation).tolist() == expected


def some(counts: list[int], seed: int) -> list[int]:
    """As many other counts."""
    return np.random.default_rng(seed).integers(0, 7, len(counts)).tolist()


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.integers(0, 2**31), st.booleans())
def test_dense_and_broadcast_equal_a_loop(targets: list[int], seed: int, loops: bool) -> None:
    for sources in (targets, some(targets, seed)):
        for rule in (Dense(loops), Broadcast(loops)):
            check(rule, sources, targets, lambda b, j, i: loops or j != i)


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.integers(0, 2**31), st.integers(-4, 4), st.integers(0, 5), st.integers(1, 3), st.booleans())
def test_window_equals_a_loop(targets: list[int], seed: int, low: int, wide: int, step: int, loops: bool) -> None:
    rule = Window(low, low + wide, step, loops)
    steps = [step * s for s in range(low, low + wide + 1) if loops or s]
    for sources in (targets, some(targets, seed)):
        check(rule, sources, targets, lambda b, j, i: j - i in steps)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(1, 3), st.booleans(), st.booleans(),
)  # fmt: skip
def test_grid_equals_a_loop(rasters: list[tuple[int, int]], radius: int, corners: bool, loops: bool) -> None:
    columns = [c for _, c in rasters]
    counts = [r * c for r, c in rasters]

    def near(b: int, j: int, i: int) -> bool:
        rows, across = abs(j // columns[b] - i // columns[b]), abs(j % columns[b] - i % columns[b])
        return (loops or j != i) and (max(rows, across) if corners else rows + across) <= radius

    check(Grid(torch.tensor(columns, dtype=torch.int32), radius, corners, loops), counts, counts, near)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 5, 31, 32, 33, 64, 65, 70]), st.integers(0, 4)), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**31),
)  # fmt: skip
def test_bitmask_of_edges_gives_the_edges(counts: list[tuple[int, int]], density: float, seed: int) -> None:
    """More than 32 and 64 sources take two and three words; shuffled, and some edges twice."""
    sources, targets = [n for n, _ in counts], [m for _, m in counts]
    rng = np.random.default_rng(seed)
    chosen = {
        (b, j, i) for b, (n, m) in enumerate(counts) for j, i in product(range(n), range(m)) if rng.random() < density
    }
    there, here = pointer(sources).tolist(), pointer(targets).tolist()
    listed = [(there[b] + j, here[b] + i) for b, j, i in chosen]
    listed = [listed[k] for k in rng.permutation(len(listed))] + listed[:2]
    index = torch.tensor(listed, dtype=torch.int64).reshape(-1, 2).T
    mask = Bitmask.from_edges(index, pointer(sources), pointer(targets))
    assert (mask.words.dtype, mask.start.dtype) == (torch.int32, torch.int32)
    check(mask, sources, targets, lambda b, j, i: (b, j, i) in chosen)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=20))
def test_edge_list_is_sorted_by_target_and_keeps_the_order_within(listed: list[tuple[int, int]]) -> None:
    index = torch.tensor(listed, dtype=torch.int64).reshape(-1, 2).T
    found = EdgeList(index).edge_index(torch.tensor([0, 6]), torch.tensor([0, 5]))
    assert found.T.tolist() == [list(e) for e in sorted(listed, key=lambda e: e[1])]
    plan = make_plan({"a": 6, "b": 5}, {("a", "x", "b"): EdgeList(index)})
    assert torch.equal(plan.edge_index(("a", "x", "b")), found)
    assert torch.equal(index[:, plan.order["a", "x", "b"]], found)
    ptr, source, *turned = plan.index[2:]
    assert not any(len(t) for t in turned)  # on a CPU kernels turn lists over themselves
    assert ptr.tolist() == [sum(i < t for _, i in listed) for t in range(6)]
    again = pairs_of("csr", (), (ptr, source))
    assert torch.equal(again.edge_index(torch.tensor([0, 6]), torch.tensor([0, 5])), found)


def test_every_kind_is_read_back_and_moved() -> None:
    ptr = torch.tensor([0, 4, 4, 10])
    rules: list[Pairs] = [
        EdgeList(torch.tensor([[0, 3, 5], [1, 1, 4]])),
        Dense(), Dense(loops=False), Broadcast(), Broadcast(loops=False),
        Window(-2, 3, 2, loops=False), Window(0, 0),
        Grid(torch.tensor([2, 1, 3], dtype=torch.int32), 2, corners=False, loops=False),
        Bitmask.from_edges(torch.tensor([[0, 3, 5], [1, 1, 4]]), ptr, ptr),
    ]  # fmt: skip
    assert {r.kind for r in rules} == set(KINDS)
    for rule in rules:
        moved = rule.to("cpu", non_blocking=True)
        assert type(moved) is type(rule)
        assert torch.equal(moved.edge_index(ptr, ptr), rule.edge_index(ptr, ptr))
        assert len(rule.parameters()) <= 4
        if rule.kind != "csr":
            again = pairs_of(rule.kind, [*rule.parameters(), *[0] * (4 - len(rule.parameters()))], rule.tensors())
            assert again.parameters() == rule.parameters()
        assert all(t.device.type == "meta" for t in rule.to("meta").tensors())


# --- the builder ----------------------------------------------------------------------------------------------------------

SEQUENCE = NodeType("features", (3,), "float32", 1, "none")
RASTER = NodeType("image", (3,), "float32", 2, "none")


def sequence(n: int) -> Tokens:
    return Tokens(np.ones((n, 3), np.float32), np.arange(n)[:, None], np.empty((n, 0)))


def raster(rows: int, columns: int, holes: tuple[int, ...] = ()) -> Tokens:
    place = np.array([p for k, p in enumerate(product(range(rows), range(columns))) if k not in holes], np.int64)
    return Tokens(np.ones((len(place), 3), np.float32), place.reshape(-1, 2), np.empty((len(place), 0)))


ROWS = [
    {"text": sequence(7), "other": sequence(3), "image": raster(3, 4)},
    {"text": sequence(1), "image": raster(1, 1)},
    {"other": sequence(2), "image": raster(2, 5)},
    {},
    {"text": sequence(4), "other": sequence(1), "image": raster(4, 1)},
]
TYPES = {"text": SEQUENCE, "other": SEQUENCE, "image": RASTER}
RULES: list[tuple[Relation, type]] = [
    *((SequenceWindow("text", s, d, way), Window) for s, d, way in product((1, 3), (1, 2), ("past", "future", "both"))),
    *((GridNeighbourhood("image", r, corners), Grid) for r, corners in product((1, 2), (True, False))),
    (Full("text", "other"), Dense),
    (Full("text", "text"), Dense),
    (Full("image", "text"), Dense),
    (SelfLoops("text"), Window),
    (SelfLoops("image"), Window),
    (Full("text", "hub"), Broadcast),
    (Full("hub", "image"), Broadcast),
    (Full("hub", "hub"), Broadcast),
]


def listed_by_the_policy(builder: GraphBuilder, relation: Relation, rows: list[dict[str, Tokens]]) -> np.ndarray:
    """What `relation.edges` says, sorted as the builder sorts lists."""
    packed = builder._pack(rows)
    source, target = packed[relation.source], packed[relation.target]
    return np.stack(by_target(relation.edges(source, target), len(source)))


@pytest.mark.parametrize(("relation", "kind"), RULES, ids=lambda x: str(x) if not isinstance(x, type) else x.__name__)
def test_the_rule_of_a_regular_relation_gives_its_edges(relation: Relation, kind: type) -> None:
    assert isinstance(relation, Regular)
    builder = GraphBuilder(TYPES, [relation], hubs=2)
    for rows in (ROWS, ROWS[3:4], ROWS[::-1], [{}, {}]):
        batch = builder.build(rows)
        (edge_type,) = batch.edge_types
        assert type(batch.edges[edge_type]) is kind
        assert batch.pairs[edge_type] is batch.edges[edge_type]
        assert batch.edge_index(edge_type).tolist() == listed_by_the_policy(builder, relation, rows).tolist()
        source, target = batch.nodes[relation.source], batch.nodes[relation.target]
        found = batch.edge_index(edge_type)
        assert torch.equal(source.sample[found[0]], target.sample[found[1]])


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    "image",
    [raster(3, 3, holes=(4,)), raster(3, 3, holes=(8,)), raster(3, 3, holes=(0,)), raster(2, 2, holes=(1, 2))],
    ids=["centre", "last", "first", "two"],
)
def test_a_grid_with_holes_is_listed(image: Tokens, corners: bool) -> None:
    relation = GridNeighbourhood("image", 1, corners)
    builder = GraphBuilder(TYPES, [relation])
    rows = [ROWS[0], {"image": image}]
    batch = builder.build(rows)
    found = batch.edges["image", "grid", "image"]
    assert isinstance(found, Tensor)
    assert found.tolist() == listed_by_the_policy(builder, relation, rows).tolist()
    place = batch.nodes["image"].position[12:]
    apart = (place[:, None] - place[None]).abs()
    near = (apart.amax(2) if corners else apart.sum(2)) == 1
    assert found[:, found[1] >= 12].T.tolist() == [[12 + j, 12 + i] for i, j in near.nonzero().tolist()]


def test_a_raster_that_is_not_laid_row_by_row_is_listed() -> None:
    whole = raster(3, 3)
    order = np.array([0, 3, 6, 1, 4, 7, 2, 5, 8])
    turned = Tokens(whole.values, whole.position[order], whole.span)
    shifted = Tokens(whole.values, whole.position + 1, whole.span)
    relation = GridNeighbourhood("image")
    builder = GraphBuilder(TYPES, [relation])
    for image in (turned, shifted):
        batch = builder.build([{"image": image}])
        assert isinstance(batch.edges["image", "grid", "image"], Tensor)
        assert (
            batch.edges["image", "grid", "image"].tolist()
            == listed_by_the_policy(builder, relation, [{"image": image}]).tolist()
        )


@pytest.mark.parametrize("limits", [(256, 32_768), (2, 32_768), (256, 1)])
def test_sizes_count_what_rules_give(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "COUNTED_ROWS", limits[0])
    monkeypatch.setattr(builder_module, "COUNTED_TOKENS", limits[1])
    once = {(r.source, r.name, r.target): r for r, _ in RULES}
    builder = GraphBuilder(TYPES, list(once.values()), hubs=2)
    _, counted = builder.sizes(ROWS)
    alone = [builder.build([row]) for row in ROWS]
    assert counted == [sum(b.edge_index(t).shape[1] for t in b.edge_types) for b in alone]


# --- batches that hold rules ------------------------------------------------------------------------------------------------


def ruled_batch() -> GraphBatch:
    relations = [
        SequenceWindow("text", 2),
        GridNeighbourhood("image"),
        Full("image", "text"),
        Full("text", "hub"),
        SelfLoops("other"),
    ]
    return GraphBuilder(TYPES, relations, hubs=1).build(ROWS).with_targets({"label": torch.arange(5)})


def lists(batch: GraphBatch) -> dict[Any, list[list[int]]]:
    return {t: batch.edge_index(t).tolist() for t in batch.edge_types}


def test_a_moved_batch_keeps_its_rules() -> None:
    batch = ruled_batch()
    moved = batch.to("cpu", non_blocking=True)
    assert [type(e) for e in moved.edges.values()] == [type(e) for e in batch.edges.values()]
    assert lists(moved) == lists(batch)
    away = batch.to("meta")
    assert away.device.type == "meta"
    assert away.edges["image", "grid", "image"].tensors()[0].device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_a_pinned_batch_keeps_its_rules() -> None:
    pinned = ruled_batch().pin_memory()
    assert pinned.nodes["text"].values.is_pinned()
    assert lists(pinned) == lists(ruled_batch())


def test_pyg_gets_lists_and_gives_them_back() -> None:
    batch = ruled_batch()
    data = to_pyg(batch)
    for edge_type in batch.edge_types:
        assert torch.equal(data[edge_type].edge_index, batch.edge_index(edge_type))
    again = from_pyg(data)
    assert all(isinstance(e, Tensor) for e in again.edges.values())
    assert lists(again) == lists(batch)
    assert torch.equal(again.targets["label"], batch.targets["label"])
    assert again.edge_types == batch.edge_types


def test_networkx_gets_the_edges_of_rules() -> None:
    batch = ruled_batch()
    for sample in range(len(ROWS)):
        graph = to_networkx(batch, sample)
        assert isinstance(graph, nx.MultiDiGraph)
        wanted = set()
        for source, relation, target in batch.edge_types:
            first = [int(batch.nodes[t].ptr[sample]) for t in (source, target)]
            for j, i in batch.edge_index((source, relation, target)).T.tolist():
                if int(batch.nodes[target].sample[i]) == sample:
                    wanted.add(((source, j - first[0]), (target, i - first[1]), relation))
        assert set(graph.edges(keys=True)) == wanted
        assert graph.number_of_edges() == len(wanted)


def test_edges_may_be_swapped_between_rules_and_lists() -> None:
    batch = ruled_batch()
    listed = batch.with_edges({t: batch.edge_index(t) for t in batch.edge_types})
    assert all(isinstance(p, EdgeList) for p in listed.pairs.values())
    assert lists(listed) == lists(batch)
    back = listed.with_edges(batch.edges)
    assert [type(e) for e in back.edges.values()] == [type(e) for e in batch.edges.values()]
    window = batch.with_edges({**batch.edges, ("text", "window", "text"): Window(-1, 0)})
    assert window.edge_index(("text", "window", "text")).shape[1] == 2 * 12 - 3  # 12 nodes in three sequences


def test_a_rule_and_its_list_give_the_same_messages() -> None:
    """Through the layer, with kernels that walk the rule and kernels that walk the list."""
    batch = ruled_batch()
    torch.manual_seed(0)
    sizes = {t: len(s) for t, s in batch.nodes.items()}
    ptr = {t: s.ptr for t, s in batch.nodes.items()}
    x = {t: torch.randn(n, 8) for t, n in sizes.items()}
    for mode in ("gat", "gatv2", "dot"):
        attention = HeteroAttention(batch.node_types, batch.edge_types, 8, 2, mode)
        by_rule = attention(x, attention.plans(sizes, batch.pairs, ptr), {})
        listed = {t: EdgeList(batch.edge_index(t)) for t in batch.edge_types}
        by_list = attention(x, attention.plans(sizes, listed, ptr), {})
        for name, message in by_rule.items():
            torch.testing.assert_close(message, by_list[name])


# --- errors -----------------------------------------------------------------------------------------------------------------


def refused(edge_type: tuple[str, str, str], rule: Pairs, *parts: str) -> None:
    batch = ruled_batch()
    with pytest.raises(GraphError) as error:
        replace(batch, edges={**batch.edges, edge_type: rule})
    for part in (str(edge_type), *parts):
        assert part in str(error.value)


def test_a_window_or_grid_between_two_types_is_named() -> None:
    refused(("image", "full", "text"), Window(-1, 1), "window", "one type")
    columns = torch.tensor([4, 1, 5, 1, 1], dtype=torch.int32)
    refused(("image", "full", "text"), Grid(columns), "grid", "one type")


@pytest.mark.parametrize("columns", [[4, 1, 5, 1], [4, 1, 5, 1, 1, 1], []])
def test_columns_of_a_wrong_length_are_named(columns: list[int]) -> None:
    given = torch.tensor(columns, dtype=torch.int32)
    refused(("image", "grid", "image"), Grid(given), "columns (5,)", f"({len(columns)},)")


@pytest.mark.parametrize("columns", [[4, 0, 5, 1, 1], [4, 1, -5, 1, 1]])
def test_columns_below_one_are_named(columns: list[int]) -> None:
    """A 0 would stop the process: the kernels divide by it."""
    refused(("image", "grid", "image"), Grid(torch.tensor(columns, dtype=torch.int32)), "columns")


def test_a_mask_for_other_nodes_is_named() -> None:
    """Its starts must be one more than the targets, or the kernels would read beyond them."""
    mask = Bitmask.from_edges(torch.tensor([[0], [0]]), torch.tensor([0, 2]), torch.tensor([0, 1]))
    refused(("image", "full", "text"), mask, "bitmask")


def test_a_rule_on_an_unknown_node_type_is_named() -> None:
    refused(("image", "full", "sound"), Dense(), "'sound'")


def test_hubs_of_samples_without_anything_else_get_nothing() -> None:
    builder = GraphBuilder({"text": SEQUENCE}, [Full("text", "hub")], hubs=2)
    batch = builder.build([{}, {"text": sequence(2)}])
    value = torch.ones(2, 1, 1, 4)
    plan = make_plan({"text": 2, "hub": 4}, batch.pairs, {t: s.ptr for t, s in batch.nodes.items()})
    out = hetero_attention(
        [value, torch.empty(4, 0, 1, 4)], [torch.zeros(2, 1, 1), torch.empty(4, 0, 1)],
        [torch.empty(2, 0, 1), torch.zeros(4, 1, 1)], plan,
    )  # fmt: skip
    assert out[1][:, 0, 0, 0].tolist() == [0, 0, 1, 1]

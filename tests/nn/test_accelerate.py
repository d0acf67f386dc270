"""`accelerate` against the PyG layers it replaces: outputs, every gradient by name, and what a module owes its owner."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv, GATv2Conv, HeteroConv, SAGEConv

import graphfusion
from graphfusion.errors import ConfigError, GraphError
from graphfusion.nn import accelerate
from graphfusion.nn.pyg import AcceleratedHeteroConv, parts, plans
from graphfusion.nn.pyg.blocks import sample_blocks
from graphfusion.nn.pyg.plans import PlanCache

CLASSES = [GATConv, GATv2Conv]
AGGREGATIONS = ["sum", "mean", "min", "max", "cat", None]
WIDTH = {"a": 6, "b": 5, "c": 4}
SIZES = {"a": 9, "b": 7, "c": 5}
RELATIONS = [
    ("a", "to", "b"),
    ("b", "to", "a"),
    ("c", "to", "a"),
    ("a", "self", "a"),
    ("b", "more", "a"),
    ("a", "to", "c"),
]

Features = dict[str, Tensor]
Edges = dict[tuple[str, str, str], Tensor]


def features(sizes: dict[str, int] = SIZES, dtype: torch.dtype = torch.float32) -> Features:
    return {name: torch.randn(n, WIDTH[name], dtype=dtype).requires_grad_() for name, n in sizes.items()}


def edges_between(sources: int, targets: int, count: int) -> Tensor:
    """Unsorted, some of them twice."""
    if not sources or not targets:
        return torch.empty(2, 0, dtype=torch.long)
    return torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])


def random_edges(relations: list[Any] = RELATIONS, sizes: dict[str, int] = SIZES, count: int = 14) -> Edges:
    return {r: edges_between(sizes[r[0]], sizes[r[2]], count) for r in relations}


def bipartite(cls: Any, relations: list[Any] = RELATIONS, **options: Any) -> dict[Any, nn.Module]:
    """A conv for each relation; options may be functions of the relation."""
    options = {"out_channels": 4, "heads": 2, "add_self_loops": False} | options
    return {
        r: cls((WIDTH[r[0]], WIDTH[r[2]]), **{k: v(r) if callable(v) else v for k, v in options.items()})
        for r in relations
    }


def hetero(convs: dict[Any, nn.Module], aggr: str | None = "sum", seed: int = 0) -> HeteroConv:
    """With biases that are not 0; larger ones cancel in the gradient of `att` until float32 has no 1e-5 left, PyG's neither."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyG's, about types that nothing enters
        made = HeteroConv(convs, aggr)
    generator = torch.Generator().manual_seed(seed)
    for name, p in made.named_parameters():
        if name.endswith("bias") and not isinstance(p, nn.UninitializedParameter):
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return made


def named(module: nn.Module, x: Features, attr: dict[Any, Tensor]) -> dict[str, Tensor]:
    """Everything that has a gradient."""
    inputs = {f"x[{k}]": t for k, t in x.items()} | {f"attr[{k}]": t for k, t in attr.items()}
    return {k: t for k, t in (dict(module.named_parameters()) | inputs).items() if t.requires_grad}


def gradients(out: dict[str, Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a fixed random projection of all outputs."""
    generator = torch.Generator().manual_seed(7)
    total = sum(
        (o * torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype)).sum() for o in out.values()
    )
    if not isinstance(total, Tensor) or not total.requires_grad:
        return {name: torch.zeros_like(t) for name, t in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(leaves.items(), found, strict=True)}


def assert_near(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the largest number of each tensor; of tensors that are nearly 0, to a hundredth of the largest of all."""
    assert list(got) == list(expected)
    got, expected = ({name: t.detach() for name, t in d.items()} for d in (got, expected))
    largest = max((float(e.abs().max()) for e in expected.values() if e.numel()), default=0.0)
    for name, e in expected.items():
        assert got[name].shape == e.shape, name
        assert got[name].dtype == e.dtype, name
        if e.numel():
            scale = max(float(e.abs().max()), largest / 100, 1e-30)
            assert float((got[name] - e).abs().max()) <= tolerance * scale, name


def assert_parity(
    pyg: nn.Module, x: Features, *args: Any, attr: dict[Any, Tensor] | None = None, fast: nn.Module | None = None
) -> dict[str, Tensor]:
    """Equal outputs and gradients."""
    attr = attr or {}
    fast = accelerate(pyg) if fast is None else fast
    given = {"edge_attr_dict": attr} if attr else {}
    leaves = named(pyg, x, attr)
    assert {k: id(p) for k, p in fast.named_parameters()} == {k: id(p) for k, p in pyg.named_parameters()}
    expected, got = pyg(x, *args, **given), fast(x, *args, **given)
    tolerance = 1e-10 if next(iter(x.values())).dtype == torch.float64 else 1e-5
    assert_near(got, expected, tolerance)
    assert_near(gradients(got, leaves), gradients(expected, leaves), tolerance)
    return got


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (1, 60), (3, 7), (3, 8), (3, 60), (8, 1), (8, 32)])
@pytest.mark.parametrize("cls", CLASSES)
def test_head_widths(cls: Any, heads: int, width: int, concat: bool, dtype: torch.dtype) -> None:
    pyg = hetero(bipartite(cls, out_channels=width, heads=heads, concat=concat)).to(dtype)
    assert_parity(pyg, features(dtype=dtype), random_edges())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aggr", AGGREGATIONS)
@pytest.mark.parametrize("cls", CLASSES)
def test_aggregations(cls: Any, aggr: str | None, dtype: torch.dtype) -> None:
    pyg = hetero(bipartite(cls), aggr).to(dtype)
    out = assert_parity(pyg, features(dtype=dtype), random_edges())
    assert list(out) == ["b", "a", "c"]


@pytest.mark.parametrize("aggr", AGGREGATIONS)
@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_at_once(cls: Any, aggr: str | None) -> None:
    share = {"share_weights": lambda r: r[1] == "self"} if cls is GATv2Conv else {}
    options: dict[str, Any] = {
        "add_self_loops": lambda r: r[1] == "self",
        "edge_dim": lambda r: 3 if r[1] == "self" else None,
        "bias": lambda r: r[1] != "more",
        "residual": lambda r: r[0] != "c",
        "negative_slope": lambda r: 0.1 if r[0] == "c" else 0.2,
    }
    pyg = hetero(bipartite(cls, **options, **share), aggr)
    attr = {r: torch.randn(14, 3).requires_grad_() for r in RELATIONS if r[1] == "self"}
    assert_parity(pyg, features(), random_edges(), attr=attr)
    assert_parity(pyg, features(), random_edges())  # and with nothing on the edges


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", ["mean", "add", 0.5])
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_self_loops_and_edge_features(cls: Any, loops: bool, fill: Any, dtype: torch.dtype) -> None:
    def looped(r: Any) -> bool:
        return loops and r[0] == r[2]

    pyg = hetero(bipartite(cls, add_self_loops=looped, edge_dim=2, fill_value=fill)).to(dtype)
    index = random_edges()
    index["a", "self", "a"][:, :3] = torch.tensor([0, 4, 4])  # some of its own
    attr = {r: torch.randn(14, 2, dtype=dtype).requires_grad_() for r in RELATIONS}
    assert_parity(pyg, features(dtype=dtype), index, attr=attr)


@pytest.mark.parametrize("cls", CLASSES)
def test_one_number_on_each_edge(cls: Any) -> None:
    pyg = hetero({("a", "self", "a"): cls(6, 4, heads=2, edge_dim=1, fill_value=torch.tensor([0.3]))})
    r = ("a", "self", "a")
    assert_parity(pyg, features({"a": 9}), random_edges([r]), attr={r: torch.randn(14).requires_grad_()})
    pyg = hetero({r: cls(6, 4, heads=2, edge_dim=1)})
    assert_parity(pyg, features({"a": 9}), random_edges([r]), attr={r: torch.randn(14).requires_grad_()})


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_one_width_for_both_sides(cls: Any, residual: bool) -> None:
    relations = [("a", "self", "a"), ("a", "to", "d"), ("d", "to", "a")]
    convs = {r: cls(6, 5, heads=3, add_self_loops=r[1] == "self", residual=residual) for r in relations}
    x = {"a": torch.randn(9, 6).requires_grad_(), "d": torch.randn(4, 6).requires_grad_()}
    assert_parity(hetero(convs, "mean"), x, random_edges(relations, {"a": 9, "d": 4}))


@pytest.mark.parametrize("concat", [True, False])
def test_gatv2_with_shared_weights(concat: bool) -> None:
    relations = [("a", "self", "a"), ("a", "other", "a")]
    convs = {r: GATv2Conv(6, 5, heads=3, share_weights=r[1] == "self", concat=concat) for r in relations}
    assert_parity(hetero(convs), features({"a": 9}), random_edges(relations))


@pytest.mark.parametrize("aggr", ["sum", "cat"])
@pytest.mark.parametrize("cls", CLASSES)
def test_one_conv_for_several_relations(cls: Any, aggr: str) -> None:
    shared, other = cls(6, 4, heads=2, add_self_loops=False), cls(6, 4, heads=2, add_self_loops=False)
    next(m for m in other.children() if hasattr(m, "weight")).weight = next(
        m for m in shared.children() if hasattr(m, "weight")
    ).weight
    relations = [("a", "x", "a"), ("a", "y", "d"), ("d", "z", "a"), ("d", "w", "a")]
    convs = dict(zip(relations, (shared, shared, shared, other), strict=True))
    x = {"a": torch.randn(9, 6).requires_grad_(), "d": torch.randn(4, 6).requires_grad_()}
    assert_parity(hetero(convs, aggr), x, random_edges(relations, {"a": 9, "d": 4}))


@pytest.mark.parametrize("aggr", AGGREGATIONS)
def test_mixed_kinds_and_a_conv_that_stays_on_pyg(aggr: str | None) -> None:
    convs: dict[Any, nn.Module] = bipartite(GATConv)
    convs["b", "to", "a"] = GATv2Conv((5, 6), 4, heads=2, add_self_loops=False, residual=True)
    convs["c", "to", "a"] = SAGEConv((4, 6), 8)
    pyg = hetero(convs, aggr)
    with pytest.warns(UserWarning, match=r"HeteroConv \('c', 'to', 'a'\): SAGEConv is neither GATConv nor GATv2Conv"):
        fast = accelerate(pyg)
    assert_parity(pyg, features(), random_edges(), fast=fast)


def test_concatenated_and_averaged_heads_of_one_width() -> None:
    convs = bipartite(GATConv, out_channels=8, heads=lambda r: 1 if r[0] == "c" else 3, concat=lambda r: r[0] == "c")
    convs["a", "self", "a"] = GATConv(6, 4, heads=2)
    assert_parity(hetero({r: c for r, c in convs.items() if r[2] == "a"}), features(), random_edges())


@pytest.mark.parametrize("cls", CLASSES)
def test_more_heads_than_the_kernels_take(cls: Any) -> None:
    assert_parity(hetero(bipartite(cls, heads=17, out_channels=2)), features(), random_edges())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_relations_into_few_nodes(aggr: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []
    real = parts.messages_into_few
    monkeypatch.setattr(parts, "messages_into_few", lambda *a, **k: gathered.append(1) or real(*a, **k))
    sizes = {"a": 60, "b": 2, "d": 3, "c": 5}
    relations = [
        ("a", "to", "b"),
        ("a", "more", "b"),
        ("a", "to", "d"),
        ("b", "to", "a"),
        ("a", "to", "c"),
        ("c", "to", "a"),
    ]
    monkeypatch.setitem(WIDTH, "b", 6)
    monkeypatch.setitem(WIDTH, "d", 6)
    pyg = hetero(bipartite(GATConv, relations, out_channels=16, heads=3, residual=True), aggr).to(dtype)
    assert_parity(pyg, features(sizes, dtype), random_edges(relations, sizes))
    assert bool(gathered) == (aggr != "max")


@pytest.mark.parametrize("aggr", ["sum", "mean", None])
@pytest.mark.parametrize("cls", CLASSES)
def test_twenty_seven_relations_and_one(cls: Any, aggr: str | None) -> None:
    types = ("a", "b", "c")
    relations = [(s, f"r{i}", t) for s in types for t in types for i in range(3)]
    assert_parity(hetero(bipartite(cls, relations), aggr), features(), random_edges(relations))
    assert_parity(hetero(bipartite(cls, relations[1:2]), aggr), features(), random_edges(relations))


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "cat"])
@pytest.mark.parametrize("cls", CLASSES)
def test_no_edges_no_nodes_and_absent_relations(cls: Any, aggr: str) -> None:
    pyg = hetero(bipartite(cls, edge_dim=2), aggr)
    index = random_edges()
    attr = {r: torch.randn(14, 2).requires_grad_() for r in RELATIONS}
    few = {r: index[r] for r in (("b", "to", "a"), ("a", "self", "a"))}
    out = assert_parity(pyg, features(), few, attr={r: attr[r] for r in few})
    assert list(out) == ["a"]
    assert_parity(pyg, features(), index | {("b", "to", "a"): torch.empty(2, 0, dtype=torch.long)})
    assert_parity(pyg, features(), {r: torch.empty(2, 0, dtype=torch.long) for r in RELATIONS})
    nobody = {"a": 9, "b": 0, "c": 5}
    assert_parity(pyg, features(nobody), random_edges(sizes=nobody))
    assert accelerate(pyg)(features(), {}) == pyg(features(), {}) == {}


def test_empty_edges_with_features_on_them() -> None:
    for cls in CLASSES:
        pyg = hetero(bipartite(cls, RELATIONS[:1], edge_dim=2))
        empty = {RELATIONS[0]: torch.empty(2, 0, dtype=torch.long)}
        assert_parity(pyg, features(), empty, attr={RELATIONS[0]: torch.empty(0, 2).requires_grad_()})


@pytest.mark.parametrize("cls", CLASSES)
def test_no_nodes_at_all(cls: Any) -> None:
    pyg = hetero({("a", "self", "a"): cls(6, 4, heads=2)})
    out = assert_parity(pyg, features({"a": 0}), {("a", "self", "a"): torch.empty(2, 0, dtype=torch.long)})
    assert out["a"].shape == (0, 8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.fixed_dictionaries({"a": st.integers(1, 12), "b": st.integers(0, 6), "c": st.integers(0, 40)}),
    chosen=st.lists(st.sampled_from(RELATIONS), min_size=1, unique=True),
    count=st.integers(0, 30),
    v2=st.booleans(),
    loops=st.booleans(),
    aggr=st.sampled_from(AGGREGATIONS),
    seed=st.integers(0, 10**6),
)
def test_random_graphs(
    sizes: dict[str, int], chosen: list[Any], count: int, v2: bool, loops: bool, aggr: str | None, seed: int
) -> None:
    torch.manual_seed(seed)
    convs = bipartite(
        CLASSES[v2], add_self_loops=lambda r: loops and r[0] == r[2], edge_dim=lambda r: 2 if r[0] == "c" else None
    )
    pyg = hetero(convs, aggr).double()
    index = random_edges(chosen, sizes, count)
    attr = {
        r: torch.randn(e.shape[1], 2, dtype=torch.float64).requires_grad_() for r, e in index.items() if r[0] == "c"
    }
    assert_parity(pyg, features(sizes, torch.float64), index, attr=attr)


# --- how a call may be put --------------------------------------------------------------------------------------------


def test_arguments_by_place_and_by_name() -> None:
    pyg = hetero(bipartite(GATConv, edge_dim=2))
    fast, x, index = accelerate(pyg), features(), random_edges()
    attr = {r: torch.randn(14, 2) for r in RELATIONS}
    expected = pyg(x, index, attr)
    assert_near(fast(x, index, attr), expected, 1e-5)
    assert_near(fast(x_dict=x, edge_index_dict=index, edge_attr_dict=attr), expected, 1e-5)
    assert_near(fast(x, index, edge_attr_dict=attr), expected, 1e-5)
    with pytest.raises(ValueError, match="_dict"):
        fast(x, edge_index=index)


def test_names_with_dots_and_a_printed_form() -> None:
    relation = ("src.paper", "to", "src.paper")
    pyg = hetero({relation: GATConv(6, 4)})
    x = {"src.paper": torch.randn(9, 6).requires_grad_()}
    fast = accelerate(pyg)
    assert_parity(pyg, x, {relation: edges_between(9, 9, 20)}, fast=fast)
    assert "num_relations=1" in repr(fast)


def test_unknown_targets() -> None:
    """PyG then hands (x, None) to a conv; it makes as many targets as there are sources."""
    relations = [("a", "to", "b"), ("a", "also", "b")]
    pyg = hetero(bipartite(GATConv, relations, residual=lambda r: r[1] == "also"))
    x = features({"a": 9})
    out = assert_parity(pyg, x, random_edges(relations, {"a": 9, "b": 7}))
    assert out["b"].shape == (9, 8)
    v2 = hetero(bipartite(GATv2Conv, relations))
    for module in (v2, accelerate(v2)):
        with pytest.raises(AssertionError):
            module(x, random_edges(relations, {"a": 9, "b": 7}))


def test_features_for_each_relation() -> None:
    """What no kernel takes goes to PyG: two relations that see other features of one type."""
    relations = [("a", "x", "a"), ("a", "y", "a"), ("a", "z", "a")]
    pyg = hetero(bipartite(GATConv, relations), "mean")
    given = {
        relations[0]: torch.randn(9, 6),
        relations[1]: (torch.randn(9, 6), torch.randn(9, 6)),
        "a": torch.randn(9, 6),
    }
    index = random_edges(relations)
    assert_near(accelerate(pyg)(given, index), pyg(given, index), 1e-5)


def test_what_only_pyg_does_is_left_to_it() -> None:
    relation = ("a", "self", "a")
    pyg = hetero({relation: GATConv(6, 4, heads=2)})
    fast, x, index = accelerate(pyg), features({"a": 9}), random_edges([relation])
    asked = {"return_attention_weights_dict": {relation: True}}
    out, (edges, alpha) = fast(x, index, **asked)["a"]
    expected, (other_edges, other_alpha) = pyg(x, index, **asked)["a"]
    assert torch.equal(out, expected)
    assert torch.equal(edges, other_edges)
    assert torch.equal(alpha, other_alpha)
    assert_near(fast(x, index, size_dict={relation: (9, 9)}), pyg(x, index), 1e-5)
    graph = index[relation].unique(dim=1)
    sparse = torch.sparse_coo_tensor(
        graph.flip(0), torch.ones(graph.shape[1]), (9, 9), check_invariants=True
    ).coalesce()
    convs = hetero({relation: GATConv(6, 4, heads=2, add_self_loops=False)})
    assert_near(accelerate(convs)(x, {relation: sparse}), convs(x, {relation: graph}), 1e-5)


def test_pyg_edge_index() -> None:
    relation = ("a", "self", "a")
    pyg = hetero({relation: GATConv(6, 4, heads=2)})
    fast, x, index = accelerate(pyg), features({"a": 9}), random_edges([relation])
    typed = EdgeIndex(index[relation], sparse_size=(9, 9))
    assert_near(fast(x, {relation: typed}), pyg(x, index), 1e-5)
    with pytest.raises(ValueError, match="size"):
        fast(x, {relation: EdgeIndex(index[relation], sparse_size=(12, 12))})


def test_wrong_calls_are_errors_as_they_were() -> None:
    relation = ("a", "self", "a")
    pyg = hetero({relation: GATConv(6, 4, heads=2, add_self_loops=False, edge_dim=2)})
    fast, x, index = accelerate(pyg), features({"a": 9}), random_edges([relation])
    for wrong in ({"a": torch.randn(9, 5)}, {"a": torch.randn(9, 6, dtype=torch.float64)}):
        with pytest.raises(RuntimeError):
            fast(wrong, index)
    with pytest.raises(RuntimeError):
        fast(x, index, edge_attr_dict={relation: torch.randn(13, 2)})
    with pytest.raises(ValueError, match="integer"):
        fast(x, {relation: index[relation].float()})
    with pytest.raises(GraphError, match="9 source"):
        fast(x, {relation: torch.tensor([[0, 9], [0, 1]])})


def test_hooks_of_a_conv_are_called() -> None:
    fast = accelerate(hetero(bipartite(GATConv)))
    seen = []
    fast.convs["b", "to", "a"].register_forward_hook(lambda *_: seen.append("conv"))
    fast.convs["c", "to", "a"].register_message_forward_hook(lambda *_: seen.append("message"))
    fast.convs["a", "to", "c"].lin_dst.register_forward_hook(lambda *_: seen.append("linear"))
    fast(features(), random_edges())
    assert sorted(seen) == ["conv", "linear", "message"]


# --- parameters, states, copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ours", "pyg"])
@pytest.mark.parametrize("cls", CLASSES)
def test_lazy_convs(cls: Any, first: str) -> None:
    convs = {r: cls((-1, -1), 4, heads=2, add_self_loops=False, residual=True) for r in RELATIONS}
    pyg = hetero(convs)
    fast, x, index = accelerate(pyg), features(), random_edges()
    (fast if first == "ours" else pyg)(x, index)
    assert_parity(pyg, x, index, fast=fast)
    assert not fast.convs[RELATIONS[0]].res._forward_pre_hooks  # so from now on it is taken
    before = copy.deepcopy(pyg.state_dict())
    for module in (fast, pyg):
        module.reset_parameters()
        assert not torch.equal(
            before["convs.<a___to___b>.res.weight"], pyg.state_dict()["convs.<a___to___b>.res.weight"]
        )
        before = copy.deepcopy(pyg.state_dict())


def test_states_go_both_ways() -> None:
    pyg, other = hetero(bipartite(GATConv)), hetero(bipartite(GATConv), seed=1)
    fast, x, index = accelerate(pyg), features(), random_edges()
    assert list(fast.state_dict()) == list(pyg.state_dict())
    fast.load_state_dict(other.state_dict())
    assert_near(fast(x, index), other(x, index), 1e-5)
    assert_near(pyg(x, index), other(x, index), 1e-5)  # the same parameters
    fresh = hetero(bipartite(GATConv), seed=2)
    fresh.load_state_dict(fast.state_dict())
    assert_near(fresh(x, index), fast(x, index), 1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_optimizer_of_either_moves_both(cls: Any) -> None:
    pyg = hetero(bipartite(cls))
    fast, x, index = accelerate(pyg), features(), random_edges()
    for owner in (fast, pyg):
        optimizer = torch.optim.AdamW(owner.parameters(), lr=0.1)
        before = pyg(x, index)["a"].detach()
        fast(x, index)["a"].pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert (pyg(x, index)["a"] - before).abs().max() > 1e-3
        assert_parity(pyg, x, index, fast=fast)


def test_the_original_keeps_its_flags_and_copies_work() -> None:
    pyg = hetero(bipartite(GATConv, dropout=0.5))
    fast, x, index = accelerate(pyg), features(), random_edges()
    assert isinstance(fast, AcceleratedHeteroConv)
    fast.eval()
    assert pyg.training
    assert pyg.convs[RELATIONS[0]].training
    again = pickle.loads(pickle.dumps(fast))
    for twin in (copy.deepcopy(fast), again):
        assert_near(twin(x, index), fast(x, index), 1e-6)
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in fast.parameters()}
    seen = []
    pyg.register_forward_hook(lambda *_: seen.append(1))
    accelerate(pyg)(x, index)
    assert seen == [1]
    assert_near(
        fast.double()({n: t.double() for n, t in x.items()}, index),
        pyg.eval()({n: t.double() for n, t in x.items()}, index),
        1e-10,
    )


class Model(nn.Module):
    """Two layers, linear heads, a norm with buffers."""

    def __init__(self, second: dict[Any, nn.Module] | None = None) -> None:
        super().__init__()
        self.one = hetero(bipartite(GATConv), "sum")
        wide = {r: GATv2Conv(8, 4, heads=2, add_self_loops=r[0] == r[2], residual=True) for r in RELATIONS}
        self.two = hetero(second or wide, "mean")
        self.norm = nn.BatchNorm1d(8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in WIDTH})
        self.layers = [self.one, self.two]  # a plain list, which holds the same objects

    def forward(self, x: Features, index: Edges) -> Features:
        for layer in self.layers:
            x = {name: rows.relu() for name, rows in layer(x, index).items()}
        return {name: self.heads[name](self.norm(rows)) for name, rows in x.items()}


def test_a_whole_model() -> None:
    model = Model()
    fast = accelerate(model)
    assert type(model.one) is HeteroConv
    assert isinstance(fast.one, AcceleratedHeteroConv)
    assert fast.layers == [fast.one, fast.two]
    assert fast.norm.running_mean is model.norm.running_mean
    assert list(fast.state_dict()) == list(model.state_dict())
    for dtype in (torch.float32, torch.float64):
        model = Model().to(dtype)
        fast = accelerate(model)
        # a norm over five rows loses 1e-5 in float32, in PyG as here, so training is compared in float64
        for train in (True, False) if dtype == torch.float64 else (False,):
            model.train(train)
            fast.train(train)
            assert_parity(model, features(dtype=dtype), random_edges(), fast=fast)


# --- what it refuses --------------------------------------------------------------------------------------------------


class Doubled(GATConv):
    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return 2 * super().message(x_j, alpha)


def test_what_it_cannot_take_is_named_and_runs_as_it_was() -> None:
    convs = bipartite(GATConv)
    convs["b", "to", "a"] = Doubled((5, 6), 4, heads=2, add_self_loops=False)
    convs["c", "to", "a"] = GATConv((4, 6), 4, heads=2, add_self_loops=False, aggr="max")
    convs["a", "self", "a"] = GATConv(6, 4, heads=2, flow="target_to_source")
    convs["b", "more", "a"].lin_src = nn.Linear(5, 8, bias=False)
    model = nn.Sequential(hetero(convs), hetero({("a", "self", "a"): SAGEConv(6, 8)}))
    with pytest.warns(UserWarning, match="these stay on PyG") as caught:
        fast = accelerate(model)
    text = str(caught[0].message)
    for said in (
        "Sequential.0 ('b', 'to', 'a'): Doubled is a subclass",
        "Sequential.0 ('c', 'to', 'a'): it aggregates by 'max'",
        "Sequential.0 ('a', 'self', 'a'): flow 'target_to_source'",
        "Sequential.0 ('b', 'more', 'a'): lin_src is a Linear, expected PyG's",
        "Sequential.1 ('a', 'self', 'a'): SAGEConv",
    ):
        assert said in text
    assert type(fast[1]) is HeteroConv
    assert_parity(model[0], features(), random_edges(), fast=fast[0])


class Own(HeteroConv):
    pass


def test_nothing_to_accelerate() -> None:
    sage = hetero({("a", "self", "a"): SAGEConv(6, 8)})
    for module, said in (
        (nn.Linear(2, 2), "found no HeteroConv"),
        (sage, r"\('a', 'self', 'a'\): SAGEConv"),
        (Own(bipartite(GATConv, RELATIONS[:2])), "Own is no plain HeteroConv"),
    ):
        with pytest.raises(ConfigError, match=said):
            accelerate(module)
    fast = accelerate(hetero(bipartite(GATConv)))
    assert accelerate(fast) is fast


def test_it_is_public_and_nn_needs_no_pyg() -> None:
    assert graphfusion.accelerate is accelerate
    code = "import sys, graphfusion.nn; sys.exit('torch_geometric' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


# --- what is not used -------------------------------------------------------------------------------------------------


def two_layers(cls: Any, **options: Any) -> nn.Module:
    """Two layers, of which a loss may look at one node type alone."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = hetero(bipartite(cls, **options))
            widths = dict.fromkeys(WIDTH, 12)
            self.second = HeteroConv(
                {r: cls((widths[r[0]], widths[r[2]]), 4, heads=3, add_self_loops=False) for r in RELATIONS}
            )

        def forward(self, x: Features, index: Edges) -> Features:
            hidden = self.first(x, index)
            return self.second({n: h.relu() for n, h in hidden.items()}, index)

    return Model()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_parameters_without_a_part_in_the_loss_get_no_gradient(cls: Any, target: str) -> None:
    """None and not zeros, as in PyG: momentum and weight decay go on with zeros."""
    pyg = two_layers(cls, heads=3, concat=True)
    fast, x, index = accelerate(pyg), features(), random_edges()
    found = []
    for model in (pyg, fast):
        model.zero_grad()
        leaves = {n: t.detach().requires_grad_() for n, t in x.items()}
        out = model(leaves, index)
        out[target].sum().backward()
        found.append({n: p.grad for n, p in [*model.named_parameters(), *leaves.items()]})
    assert {n for n, g in found[1].items() if g is None} == {n for n, g in found[0].items() if g is None}
    assert any(g is None for g in found[0].values())
    assert_near(*({n: g for n, g in f.items() if g is not None} for f in found[::-1]), 1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_backward_pass_reaches_its_own_parameters(cls: Any) -> None:
    pyg = two_layers(cls, heads=3, concat=True)
    fast, x, index = accelerate(pyg), features(), random_edges()
    found: list[list[set[str]]] = []
    for model in (pyg, fast):
        model.zero_grad()
        out = model(x, index)
        reached = []
        for target in ("b", "c", "a"):
            model.zero_grad()
            out[target].sum().backward(retain_graph=True)
            reached.append({n for n, p in model.named_parameters() if p.grad is not None})
        found.append(reached)
    assert found[0] == found[1]


@pytest.mark.parametrize("cls", CLASSES)
def test_outputs_may_be_changed_in_place(cls: Any) -> None:
    pyg = hetero(bipartite(cls, bias=False))
    x, index, found = features(), random_edges(), []
    for model in (pyg, accelerate(pyg)):
        leaves = {n: t.detach().requires_grad_() for n, t in x.items()}
        out = model(leaves, index)["a"]
        out.relu_().square().sum().backward()
        found.append({"out": out, **{n: t.grad for n, t in leaves.items() if t.grad is not None}})
    assert_near(found[1], found[0], 1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_training_on_one_node_type_goes_as_pyg_s(cls: Any) -> None:
    pyg = two_layers(cls, heads=3, concat=True)
    twin = copy.deepcopy(pyg)
    fast, x, index = accelerate(twin), features(), random_edges()
    for model in (pyg, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
        for step in range(6):
            optimizer.zero_grad()
            some = {r: e for r, e in index.items() if step % 2 == 0 or r[0] != "c"}
            model(x, some)["a"].square().mean().backward()
            optimizer.step()
    assert_near(dict(twin.named_parameters()), dict(pyg.named_parameters()), 1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_for_batches_of_any_size(cls: Any) -> None:
    torch._dynamo.reset()
    fast = accelerate(hetero(bipartite(cls)))
    compiled = torch.compile(fast, backend="aot_eager", dynamic=True)
    for sizes in (SIZES, {n: 2 * s + 1 for n, s in SIZES.items()}, {n: s + 3 for n, s in SIZES.items()}):
        x, index = features(sizes), random_edges(sizes=sizes)
        assert_near(compiled(x, index), fast(x, index), 1e-6)


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_dropout(cls: Any) -> None:
    pyg = hetero(bipartite(cls, dropout=0.4, bias=False))
    fast, x, index = accelerate(pyg), features(), random_edges()
    fast.eval()
    exact = fast(x, index)
    assert_near(exact, pyg.eval()(x, index), 1e-5)
    fast.train()
    torch.manual_seed(1)
    first = fast(x, index)["a"]
    assert not torch.allclose(first, exact["a"])
    torch.manual_seed(1)
    assert torch.equal(first, fast(x, index)["a"])
    with torch.no_grad():
        runs = torch.stack([fast(x, index)["a"] for _ in range(600)])
    error = runs.std(0) / 600**0.5
    assert ((runs.mean(0) - exact["a"]).abs() <= 5 * error + 1e-6).all()
    for conv in fast.convs.values():
        conv.dropout = 1.0
    assert not fast(x, index)["a"].any()


def test_dropout_keeps_the_right_fraction() -> None:
    """One edge a target has weight 1: it is dropped whole or scaled up whole."""
    relation = ("a", "self", "a")
    pyg = hetero({relation: GATConv(6, 1, heads=4, dropout=0.3, add_self_loops=False, bias=False)})
    x, index = {"a": torch.randn(5000, 6)}, {relation: torch.arange(5000).repeat(2, 1)}
    ratio = accelerate(pyg)(x, index)["a"] / accelerate(pyg).eval()(x, index)["a"]
    assert abs(float((ratio == 0).float().mean()) - 0.3) < 0.02
    assert torch.allclose(ratio[ratio != 0], torch.tensor(1 / 0.7))


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The plans made while a test runs."""
    made: list[Any] = []
    real = plans.make_plan
    monkeypatch.setattr(plans, "_PLANS", PlanCache())
    monkeypatch.setattr(plans, "make_plan", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    return made


def test_a_plan_is_built_once_for_the_same_edges(built: list[Any]) -> None:
    one, two = accelerate(hetero(bipartite(GATConv))), accelerate(hetero(bipartite(GATConv, heads=3)))
    x, index = features(), random_edges()
    one(x, index)
    made = len(built)
    one({n: t.detach() for n, t in x.items()}, dict(index))
    one.eval()(x, index)
    two(x, index)  # another layer over the same relations
    assert len(built) == made == 1
    one(x, {r: e.clone() for r, e in index.items()})
    assert len(built) == 2


def test_edges_changed_in_place(built: list[Any]) -> None:
    pyg = hetero(bipartite(GATConv, add_self_loops=lambda r: r[1] == "self"))
    fast, x, index = accelerate(pyg), features(), random_edges()
    for change in (
        lambda e: e.copy_(e.flip(1)),
        lambda e: e[:, :5].zero_(),
        lambda e: e.detach()[1].fill_(2),
        lambda e: e.resize_(2, 3).zero_(),
    ):
        assert_near(fast(x, index), pyg(x, index), 1e-5)
        change(index["a", "self", "a"])
        change(index["b", "to", "a"])
        assert_near(fast(x, index), pyg(x, index), 1e-5)
    with torch.inference_mode():
        index["a", "self", "a"].fill_(1)
        assert_near(fast(x, index), pyg(x, index), 1e-5)
    assert len(built) == 6


def test_an_address_used_again(built: list[Any]) -> None:
    relation = ("a", "self", "a")
    pyg = hetero({relation: GATConv(6, 4, heads=2)})
    fast, x = accelerate(pyg), features({"a": 9})
    seen = set()
    for _ in range(30):
        edges = edges_between(9, 9, 20)
        seen.add(id(edges))
        assert_near(fast(x, {relation: edges}), pyg(x, {relation: edges}), 1e-5)
        del edges
    assert len(seen) < 30  # addresses did come again
    assert len(built) == 30
    assert not plans._PLANS._entries  # and nothing outlives its edges


def test_the_cache_is_small_and_other_sizes_are_other_plans(built: list[Any]) -> None:
    relation = ("a", "self", "a")
    fast = accelerate(hetero({relation: GATConv(6, 4, heads=2)}))
    edges = {relation: edges_between(9, 9, 20)}
    for size in range(9, 30):
        assert fast(features({"a": size}), edges)["a"].shape == (size, 8)
    assert len(built) == 21
    assert len(plans._PLANS._entries) == 8


def test_inference_and_training_on_the_same_edges() -> None:
    pyg = hetero(bipartite(GATConv, edge_dim=2, add_self_loops=lambda r: r[1] == "self"))
    fast, x, index = accelerate(pyg), features(), random_edges()
    attr = {r: torch.randn(14, 2).requires_grad_() for r in RELATIONS}
    with torch.inference_mode():
        fast(x, index, attr)
        other = {r: e.clone() for r, e in index.items()}
        fast(x, other, attr)
    assert_parity(pyg, x, index, attr=attr, fast=fast)
    with warnings.catch_warnings():  # edges made in inference mode, which PyG cannot train on
        expected = pyg(x, {r: e.clone() for r, e in other.items()}, edge_attr_dict=attr)
        out = fast(x, other, edge_attr_dict=attr)
    assert_near(out, expected, 1e-5)
    leaves = named(pyg, x, attr)
    assert_near(gradients(out, leaves), gradients(expected, leaves), 1e-5)


def packed(samples: int) -> tuple[dict[str, int], Edges]:
    """Connected samples one after another, the second without any b."""
    counts = {"a": [3 + i % 4 for i in range(samples)], "b": [0 if i == 1 else 1 + i % 3 for i in range(samples)]}
    start = {"a": 0, "b": 0}
    parts: dict[Any, list[Tensor]] = {("a", "next", "a"): [], ("a", "to", "b"): [], ("b", "to", "a"): []}
    for a, b in zip(*counts.values(), strict=True):
        first = torch.arange(a - 1) + start["a"]
        parts["a", "next", "a"].append(torch.stack([first, first + 1]))
        every = torch.cartesian_prod(torch.arange(a) + start["a"], torch.arange(b) + start["b"]).T
        parts["a", "to", "b"].append(every)
        parts["b", "to", "a"].append(every.flip(0))
        start = {"a": start["a"] + a, "b": start["b"] + b}
    return {n: sum(c) for n, c in counts.items()}, {r: torch.cat(p, 1) for r, p in parts.items()}


@pytest.mark.parametrize("cls", CLASSES)
def test_the_samples_of_a_packed_batch_are_found(cls: Any, built: list[Any]) -> None:
    sizes, index = packed(6)
    pyg = hetero(bipartite(cls, list(index)))
    assert_parity(pyg, features(sizes), index)
    assert [len(p) - 1 for p in built[0].index[:2]] == [6, 6]
    for p, name in zip(built[0].index[:2], built[0].node_types, strict=True):
        assert p[0] == 0
        assert p[-1] == sizes[name]
    assert built[0].index[built[0].node_types.index("b")][1:3].diff() == 0  # nobody in the second


def test_one_graph_is_one_block(built: list[Any]) -> None:
    sizes, index = packed(1)
    accelerate(hetero(bipartite(GATConv, list(index))))(features(sizes), index)
    assert all(len(p) == 2 for p in built[0].index[:2])


def test_blocks() -> None:
    relation, other = ("a", "x", "a"), ("a", "y", "b")
    none = torch.empty(2, 0, dtype=torch.long)
    blocks = sample_blocks({"a": 7}, {relation: torch.tensor([[1, 3, 5], [2, 4, 5]])})
    assert blocks is not None
    assert blocks["a"].tolist() == [0, 3, 5, 7]  # nodes without edges join a neighbour
    assert sample_blocks({"a": 4}, {relation: torch.tensor([[0, 1], [2, 3]])}) is None  # interleaved
    crossed = {relation: torch.tensor([[0, 2], [1, 3]]), other: torch.tensor([[0, 2], [1, 0]])}
    assert sample_blocks({"a": 4, "b": 2}, crossed) is None  # other orders in a and b
    apart = {relation: torch.tensor([[0, 2], [1, 3]]), ("b", "z", "b"): torch.tensor([[0, 1], [0, 1]])}
    blocks = sample_blocks({"a": 4, "b": 2}, apart)
    assert blocks is not None
    assert {len(p) - 1 for p in blocks.values()} == {4}
    assert sample_blocks({"a": 4}, {relation: none}) is None
    assert sample_blocks({"a": 2}, {relation: torch.tensor([[0], [2]])}) is None  # a node that is not there


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 12))
def test_no_edge_leaves_its_block(seed: int, samples: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: torch.randint(0, 5, (samples,), generator=generator) for name in ("a", "b")}
    start = {name: torch.nn.functional.pad(n.cumsum(0), (1, 0)) for name, n in sizes.items()}
    index = {}
    for relation in (("a", "x", "a"), ("a", "y", "b"), ("b", "z", "b")):
        sample = torch.randint(samples, (count,), generator=generator)
        ends = []
        for name in (relation[0], relation[2]):
            place = (torch.rand(count, generator=generator) * sizes[name][sample]).long()
            ends.append(start[name][sample] + place)
        there = (sizes[relation[0]][sample] > 0) & (sizes[relation[2]][sample] > 0)
        index[relation] = torch.stack(ends)[:, there]
    totals = {name: int(n.sum()) for name, n in sizes.items()}
    blocks = sample_blocks(totals, index)
    if blocks is None:
        return
    for name, p in blocks.items():
        assert p[0] == 0
        assert p[-1] == totals[name]
        assert (p.diff() >= 0).all()
    for (source, _, target), e in index.items():
        owner = [torch.searchsorted(blocks[n], e[i].int(), right=True) for i, n in ((0, source), (1, target))]
        assert torch.equal(*owner)


def test_autocast_and_bfloat16() -> None:
    for cls in CLASSES:
        pyg = hetero(bipartite(cls, edge_dim=lambda r: 2 if r[0] == "c" else None))
        fast, x, index = accelerate(pyg), features(), random_edges()
        attr = {r: torch.randn(14, 2) for r in RELATIONS if r[0] == "c"}
        exact = pyg(x, index, edge_attr_dict=attr)
        with torch.autocast("cpu", torch.bfloat16):
            low, ours = pyg(x, index, edge_attr_dict=attr), fast(x, index, edge_attr_dict=attr)
        assert {n: t.dtype for n, t in low.items()} == {n: t.dtype for n, t in ours.items()}
        assert_near({n: t.float() for n, t in ours.items()}, exact, 0.03)
        half = {n: t.detach().bfloat16() for n, t in x.items()}
        ours = fast.bfloat16()(half, index, edge_attr_dict={r: t.bfloat16() for r, t in attr.items()})
        assert {t.dtype for t in ours.values()} == {torch.bfloat16}
        assert_near({n: t.float() for n, t in ours.items()}, exact, 0.05)

"""The reference against loops that say the formulas in Python, PyG's layers, PyTorch's attention, and numerical
derivatives.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch_geometric.nn import GATConv, GATv2Conv, HeteroConv

from graphfusion.ops.hetero_attention import Dense, EdgeList, Plan, hetero_attention, hetero_project, make_plan
from graphfusion.ops.hetero_attention.reference import counted_uniform, place_in_segment
from tests.ops.cases import Inputs, case, inputs_for, off

MODES = ("gat", "gatv2", "dot")
SIZES = {"a": 5, "b": 4}
RELATIONS: dict[tuple[str, str, str], list[tuple[int, int]]] = {
    ("a", "x", "b"): [(4, 3), (0, 0), (1, 0), (1, 0), (2, 3), (4, 0)],
    ("b", "y", "b"): [(0, 0), (1, 0), (2, 1), (3, 1), (0, 3)],
    ("a", "z", "b"): [(3, 2), (2, 0)],
    ("b", "u", "a"): [(0, 4), (1, 4), (2, 4), (3, 1)],
}
"""(source, target) of each edge: unsorted, one twice, some nodes without any."""


def plan_of(merged: bool) -> Plan:
    return make_plan(SIZES, {r: EdgeList(torch.tensor(e).T) for r, e in RELATIONS.items()}, merged=merged)


def by_hand(
    inputs: Inputs, mode: str, slope: float = 0.2, top_k: int = 0, across: bool = False
) -> tuple[list[Tensor], dict[tuple[int, int, int], float]]:
    """Outputs (N, O, H, C), and the weight of (relation, number of the edge in the list, head); a loop for everything."""
    names, relations = list(SIZES), list(RELATIONS)
    inputs = inputs.detached()
    heads, width = inputs.value[0].shape[2:]
    scores: dict[tuple[int, int, int], float] = {}
    for r, relation in enumerate(relations):
        a, b = names.index(relation[0]), names.index(relation[2])
        leaves = [x for x in relations if x[0] == relation[0]].index(relation)
        enters = [x for x in relations if x[2] == relation[2]].index(relation)
        ordered = sorted(range(len(RELATIONS[relation])), key=lambda e: RELATIONS[relation][e][1])
        for place, e in enumerate(ordered):
            j, i = RELATIONS[relation][e]
            for h in range(heads):
                extra = inputs.edge[r][place, h] if inputs.edge else torch.tensor(0.0)
                query = inputs.query[b][i, enters, h]
                there = (inputs.value if mode == "gatv2" else inputs.key)[a][j, leaves, h]
                if mode == "dot":
                    scores[r, e, h] = float(sum(there[c] * query[c] for c in range(width)) / math.sqrt(width) + extra)
                    continue
                x = (there + query + extra).reshape(-1).tolist()
                x = [v if v > 0 else slope * v for v in x]
                scores[r, e, h] = (
                    x[0] if mode == "gat" else sum(v * float(inputs.att[r, h, c]) for c, v in enumerate(x))
                )
    weights = dict.fromkeys(scores, 0.0)
    for h in range(heads):
        for name in names:
            for i in range(SIZES[name]):
                groups = []
                for r, relation in enumerate(relations):
                    if relation[2] != name:
                        continue
                    mine = [e for e, edge in enumerate(RELATIONS[relation]) if edge[1] == i]
                    mine.sort(key=lambda e: -scores[r, e, h])  # stable: equal ones in the order of the list
                    groups.append([(r, e, h) for e in (mine[:top_k] if top_k else mine)])
                for group in [list(chain(*groups))] if across else groups:
                    total = sum(math.exp(scores[k]) for k in group)
                    weights |= {k: math.exp(scores[k]) / total for k in group}
    merged = inputs.plan.merged
    entering = [[r for r in relations if r[2] == name] for name in names]
    out = [torch.zeros(SIZES[n], 1 if merged else len(entering[t]), heads, width).double() for t, n in enumerate(names)]
    for (r, e, h), weight in weights.items():
        relation = relations[r]
        a, b = names.index(relation[0]), names.index(relation[2])
        leaves = [x for x in relations if x[0] == relation[0]].index(relation)
        j, i = RELATIONS[relation][e]
        out[b][i, 0 if merged else entering[b].index(relation), h] += weight * inputs.value[a][j, leaves, h]
    return out, weights


def reference(inputs: Inputs, mode: str, **options: object) -> list[Tensor]:
    return hetero_attention(
        inputs.value, inputs.key, inputs.query, inputs.plan,
        mode=mode, att=inputs.att, edge=inputs.edge, backend="reference", **options,
    )  # fmt: skip


@pytest.mark.parametrize("edges", [True, False])
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_the_formula(mode: str, merged: bool, edges: bool) -> None:
    inputs = inputs_for(plan_of(merged), SIZES, 2, 3, mode, edges=edges).to(torch.float64)
    for options in ({}, {"across": True}, {"top_k": 1}, {"top_k": 2, "across": True}, {"slope": 0.5}):
        if mode == "dot" and "slope" in options:
            continue
        for found, wanted in zip(reference(inputs, mode, **options), by_hand(inputs, mode, **options)[0], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


def test_edge_features_go_to_the_edges_of_the_sorted_list() -> None:
    """`Plan.order` says where each edge of the sorted list stood: features permuted by it meet their edges."""
    plan = plan_of(merged=True)
    for relation, edges in RELATIONS.items():
        given = torch.tensor(edges).T
        assert torch.equal(plan.edge_index(relation), given[:, plan.order[relation]])
        assert plan.order[relation].tolist() == sorted(range(len(edges)), key=lambda e: edges[e][1])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ties_of_top_k_go_to_the_earlier_edge(k: int) -> None:
    """Sources 4, 1, 3, 0 with the scores 1, 2, 2, 2 in the order of the list."""
    plan = make_plan({"a": 5, "b": 1}, {("a", "x", "b"): EdgeList(torch.tensor([[4, 1, 3, 0], [0, 0, 0, 0]]))})
    key = torch.tensor([2.0, 2.0, 9.0, 2.0, 1.0]).view(5, 1, 1).double()
    value = torch.eye(5).view(5, 1, 1, 5).double()
    empty = torch.empty(1, 0, 1).double(), torch.empty(5, 0, 1).double()
    inputs = ([value, value.new_empty(1, 0, 1, 5)], [key, empty[0]], [empty[1], torch.zeros(1, 1, 1).double()])
    for backend in ("reference", "cpu"):
        value, key, query = ([t.float() for t in part] if backend == "cpu" else part for part in inputs)
        out = hetero_attention(value, key, query, plan, top_k=k, backend=backend)[1].flatten()
        wanted = torch.zeros(5, dtype=out.dtype)
        wanted[[1, 3, 0][:k]] = 1 / k
        torch.testing.assert_close(out, wanted)


# --- dropout ------------------------------------------------------------------------------------------------------------


def weights_under_dropout(dropout: float, seed: int, backend: str = "reference", relations: int = 1) -> list[Tensor]:
    """(targets, H, sources) weights of each relation from 64 sources to 70 targets, all scores equal: values are the
    identity, so the outputs are the weights.
    """
    pairs = {("a", f"r{r}", "b"): Dense() for r in range(relations)}
    plan = make_plan({"a": 64, "b": 70}, pairs, merged=False)
    value = torch.eye(64).view(64, 1, 1, 64).expand(64, relations, 4, 64)
    key, query = torch.zeros(64, relations, 4), torch.zeros(70, relations, 4)
    nothing = torch.empty(70, 0, 4, 64), torch.empty(70, 0, 4), torch.empty(64, 0, 4)
    out = hetero_attention(
        [value, nothing[0]], [key, nothing[1]], [nothing[2], query], plan,
        dropout=dropout, seed=torch.tensor([seed]), backend=backend,
    )  # fmt: skip
    return list(out[1].unbind(1))


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_fraction_and_scales_it_up(dropout: float) -> None:
    (weights,) = weights_under_dropout(dropout, seed=3)
    kept = weights != 0
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 64 / (1 - dropout)))
    deviation = math.sqrt(dropout * (1 - dropout) / kept.numel())
    assert abs(float(kept.double().mean()) - (1 - dropout)) < 4 * deviation
    for axis in range(3):  # no head, target or source is favoured
        others = [d for d in range(3) if d != axis]
        share = kept.double().mean(others)
        assert float((share - (1 - dropout)).abs().max()) < 5 * math.sqrt(
            dropout * (1 - dropout) * len(share) / kept.numel()
        )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_dropout_depends_on_the_seed_alone(backend: str) -> None:
    one = weights_under_dropout(0.5, 3, backend, relations=2)
    again = weights_under_dropout(0.5, 3, backend, relations=2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for other in (4, 3 + 2**32, -3):
        kept = [w != 0 for w in weights_under_dropout(0.5, other, backend, relations=2)]
        agreement = ((one[0] != 0) == kept[0]).double().mean()
        assert abs(float(agreement) - 0.5) < 0.02
    between = ((one[0] != 0) == (one[1] != 0)).double().mean()
    assert abs(float(between) - 0.5) < 0.02


def test_both_backends_drop_the_same_edges() -> None:
    for dropout in (0.1, 0.5, 0.7):
        for a, b in zip(
            weights_under_dropout(dropout, 11, "cpu", 3),
            weights_under_dropout(dropout, 11, "reference", 3),
            strict=True,
        ):
            assert torch.equal(a != 0, b != 0)


def test_a_seed_that_is_not_given_comes_from_pytorch() -> None:
    inputs = case(2, 8, "gat").to(torch.float32)
    torch.manual_seed(5)
    one, other = (reference(inputs, "gat", dropout=0.5) for _ in range(2))
    torch.manual_seed(5)
    again = reference(inputs, "gat", dropout=0.5)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("relation", [0, 1, 26])
@pytest.mark.parametrize("seed", [0, 1, -1, 123456789012345, 2**62 - 1])
def test_counted_numbers_are_uniform(seed: int, relation: int) -> None:
    target = torch.arange(300).repeat_interleave(20)
    found = counted_uniform(torch.tensor([seed]), relation, target, place_in_segment(target), heads=4)
    assert found.shape == (6000, 4)
    assert found.dtype == torch.float64
    assert float(found.min()) >= 0
    assert float(found.max()) < 1
    assert kstest(found.flatten().numpy(), "uniform").pvalue > 1e-4
    for lag in (1, 4, 20 * 4):  # neighbours in head, place and target are not alike
        x = found.flatten() - 0.5
        assert abs(float((x[lag:] * x[:-lag]).mean() * 12)) < 5 / math.sqrt(len(x))


def test_places_in_segments_count_from_zero() -> None:
    assert place_in_segment(torch.tensor([0, 0, 2, 2, 2, 5])).tolist() == [0, 1, 0, 1, 2, 0]
    assert place_in_segment(torch.tensor([], dtype=torch.int64)).tolist() == []


# --- PyG and PyTorch ----------------------------------------------------------------------------------------------------


def gat_as_ours(conv: GATConv, x: tuple[Tensor, Tensor], attr: Tensor | None, plan: Plan) -> Tensor:
    """A GATConv through both operators."""
    heads, width = conv.heads, conv.out_channels
    value, target = hetero_project(
        [x[0].double(), x[1].double()], [conv.lin_src.weight, conv.lin_dst.weight], [0, 1], ()
    )
    value, target = value.view(-1, 1, heads, width), target.view(-1, 1, heads, width)
    key, query = (value * conv.att_src[None]).sum(3), (target * conv.att_dst[None]).sum(3)
    edge = None
    if attr is not None:
        rows = conv.lin_edge(attr).view(-1, heads, width)
        edge = [(rows * conv.att_edge).sum(2)[plan.order["a", "x", "b"]]]
    n, m = len(x[0]), len(x[1])
    nothing = value.new_empty
    out = hetero_attention(
        [value, nothing(m, 0, heads, width)], [key, nothing(m, 0, heads)], [nothing(n, 0, heads), query], plan,
        edge=edge, slope=conv.negative_slope, backend="reference",
    )  # fmt: skip
    return out[1].flatten(1)


def gatv2_as_ours(conv: GATv2Conv, x: tuple[Tensor, Tensor], attr: Tensor | None, plan: Plan) -> Tensor:
    """A GATv2Conv through both operators."""
    heads, width = conv.heads, conv.out_channels
    weight, bias = [conv.lin_l.weight, conv.lin_r.weight], [conv.lin_l.bias, conv.lin_r.bias]
    value, query = (t.view(-1, 1, heads, width) for t in hetero_project(list(x), weight, [0, 1], bias))
    edge = None if attr is None else [conv.lin_edge(attr).view(-1, heads, width)[plan.order["a", "x", "b"]]]
    nothing = value.new_empty
    out = hetero_attention(
        [value, nothing(len(x[1]), 0, heads, width)], [], [nothing(len(x[0]), 0, heads, width), query], plan,
        mode="gatv2", att=conv.att, edge=edge, slope=conv.negative_slope, backend="reference",
    )  # fmt: skip
    return out[1].flatten(1)


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("conv", [GATConv, GATv2Conv])
def test_the_reference_is_pyg(conv: type[GATConv | GATv2Conv], heads: int, edge_dim: int | None) -> None:
    torch.manual_seed(0)
    layer = conv((6, 5), 4, heads=heads, add_self_loops=False, edge_dim=edge_dim).double()
    for name, bias in layer.named_parameters():
        if name in ("lin_l.bias", "lin_r.bias"):
            torch.nn.init.normal_(bias)
    x = (torch.randn(7, 6, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64))
    x[0].requires_grad_()
    x[1].requires_grad_()
    edges = torch.stack([torch.randint(7, (20,)), torch.randint(5, (20,))])
    attr = None if edge_dim is None else torch.randn(20, edge_dim, dtype=torch.float64, requires_grad=True)
    plan = make_plan({"a": 7, "b": 5}, {("a", "x", "b"): EdgeList(edges)})
    wanted = layer(x, edges, attr)
    ours = gat_as_ours if conv is GATConv else gatv2_as_ours
    found = ours(layer, x, attr, plan)
    assert off(found, wanted) <= 1e-10
    leaves = [*x, *(p for name, p in layer.named_parameters() if name != "bias"), *([] if attr is None else [attr])]
    grad = torch.randn(wanted.shape, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(found, leaves, grad), torch.autograd.grad(wanted, leaves, grad), strict=True):
        assert off(a, b, floor=0.1) <= 1e-10


def test_merged_relations_are_pyg_heteroconv_with_sum() -> None:
    torch.manual_seed(1)
    relations = [("a", "x", "b"), ("b", "y", "b"), ("a", "z", "b"), ("b", "w", "a")]
    convs = {r: GATv2Conv((6, 6), 4, heads=2, add_self_loops=False).double() for r in relations}
    x = {"a": torch.randn(7, 6, dtype=torch.float64), "b": torch.randn(5, 6, dtype=torch.float64)}
    edges = {r: torch.stack([torch.randint(len(x[r[0]]), (15,)), torch.randint(5, (15,))]) for r in relations}
    wanted = HeteroConv(convs, aggr="sum")(x, edges)
    plan = make_plan({"a": 7, "b": 5}, {r: EdgeList(e) for r, e in edges.items()})
    tail = (2, 4)
    value = [
        torch.stack([convs[r].lin_l(x[t]).unflatten(1, tail) for r in relations if r[0] == t], dim=1)
        for t in ("a", "b")
    ]
    query = [
        torch.stack([convs[r].lin_r(x[t]).unflatten(1, tail) for r in relations if r[2] == t], dim=1)
        for t in ("a", "b")
    ]
    att = torch.cat([convs[r].att for r in relations])
    found = hetero_attention(value, [], query, plan, mode="gatv2", att=att, backend="reference")
    for out, name in zip(found, ("a", "b"), strict=True):
        assert off(out.flatten(1), wanted[name]) <= 1e-10


@pytest.mark.parametrize("heads", [1, 4])
def test_dense_dot_is_scaled_dot_product_attention(heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(n, 1, heads, 8, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    plan = make_plan({"a": 7, "b": 5}, {("a", "x", "b"): Dense()})
    empty = q.new_empty(5, 0, heads, 8), q.new_empty(7, 0, heads, 8)
    found = hetero_attention([v, empty[0]], [k, empty[0]], [empty[1], q], plan, mode="dot", backend="reference")[1]
    wanted = scaled_dot_product_attention(*(t.permute(1, 2, 0, 3) for t in (q, k, v))).permute(2, 0, 1, 3)
    assert off(found, wanted) <= 1e-12
    grad = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(found, [q, k, v], grad), torch.autograd.grad(wanted, [q, k, v], grad), strict=True
    ):
        assert off(a, b) <= 1e-12


# --- derivatives --------------------------------------------------------------------------------------------------------

TINY = {"a": 3, "b": 2}


def tiny(mode: str, merged: bool = False) -> Inputs:
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 1, 1]])
    pairs = {("a", "x", "b"): EdgeList(edges), ("a", "y", "b"): Dense(), ("b", "z", "b"): Dense(loops=False)}
    return inputs_for(make_plan(TINY, pairs, merged=merged), TINY, 2, 2, mode).to(torch.float64)


def as_function(inputs: Inputs, mode: str, **options: object) -> tuple[object, list[Tensor]]:
    """Outputs as a function of all leaves that have numbers, for gradcheck."""
    leaves = {n: t for n, t in inputs.leaves().items() if t.numel()}

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        named = {**inputs.leaves(), **dict(zip(leaves, given, strict=True))}

        def part(what: str) -> list[Tensor]:
            return [named[f"{what}[{i}]"] for i in range(len(getattr(inputs, what)))]

        fresh = replace(
            inputs, value=part("value"), key=part("key"), query=part("query"), edge=part("edge"), att=named.get("att")
        )
        return tuple(o for o in reference(fresh, mode, **options) if o.requires_grad)

    return function, list(leaves.values())


@pytest.mark.parametrize(
    "options",
    [{}, {"across": True}, {"top_k": 1}, {"dropout": 0.4, "seed": torch.tensor([1])}],
    ids=["plain", "across", "top_k", "dropout"],
)
@pytest.mark.parametrize("mode", MODES)
def test_first_derivatives(mode: str, options: dict[str, object]) -> None:
    function, leaves = as_function(tiny(mode), mode, **options)
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives(mode: str, across: bool) -> None:
    function, leaves = as_function(tiny(mode, merged=True), mode, across=across)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_weights_before_dropout_sum_to_one_by_hand() -> None:
    inputs = inputs_for(plan_of(merged=True), SIZES, 2, 3, "gat").to(torch.float64)
    _, weights = by_hand(inputs, "gat")
    for r, edges in enumerate(RELATIONS.values()):
        for i in {i for _, i in edges}:
            for h in range(2):
                assert sum(weights[r, e, h] for e, edge in enumerate(edges) if edge[1] == i) == pytest.approx(1)

"""Blocks against formulas by hand, PyG, and their promises about empty types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_geometric
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import GATConv, GATv2Conv, HeteroConv

from graphfusion.errors import ConfigError
from graphfusion.nn import (
    READOUTS,
    AttentionReadout,
    HeteroAttention,
    HeteroLayer,
    HubReadout,
    MeanReadout,
    TypedModules,
    segment_mean,
    segment_softmax,
    segment_sum,
    sinusoids,
)
from graphfusion.nn.hetero_attention import IntoFew
from graphfusion.ops.hetero_attention import EdgeList

EDGE_TYPES = [("a", "to", "b"), ("b", "to", "a"), ("a", "self", "a")]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_segments_equal_a_loop_and_pyg(counts: list[int]) -> None:
    ptr = torch.tensor(np.concatenate([[0], np.cumsum(counts)]))
    x = torch.randn(int(ptr[-1]), 3, dtype=torch.float64)
    parts = [x[a:b] for a, b in zip(ptr[:-1], ptr[1:], strict=True)]
    torch.testing.assert_close(segment_sum(x, ptr), torch.stack([p.sum(0) for p in parts]))
    torch.testing.assert_close(
        segment_mean(x, ptr), torch.stack([p.mean(0) if len(p) else torch.zeros(3).double() for p in parts])
    )
    torch.testing.assert_close(segment_softmax(x * 50, ptr), torch_geometric.utils.softmax(x * 50, ptr=ptr))


def test_segments_have_right_gradients() -> None:
    ptr = torch.tensor([0, 2, 2, 5])
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    for function in (segment_sum, segment_mean, segment_softmax):
        assert torch.autograd.gradcheck(lambda t, f=function: f(t, ptr), x)


def test_readouts_by_hand() -> None:
    x, ptr = torch.randn(5, 4), torch.tensor([0, 2, 2, 5])
    mean = MeanReadout(4)
    torch.testing.assert_close(mean(x, ptr), torch.stack([x[:2].mean(0), mean.absent, x[2:].mean(0)]))
    attention = AttentionReadout(4, heads=2)
    out = attention(x, ptr)
    weight = attention.score(x[2:]).softmax(0)
    values = attention.value(x[2:])
    by_hand = torch.cat([weight[:, :1].T @ values[:, :2], weight[:, 1:].T @ values[:, 2:]], dim=1)
    torch.testing.assert_close(out[2:], by_hand)
    torch.testing.assert_close(out[1], attention.absent)
    hub = HubReadout(4, hubs=2)
    torch.testing.assert_close(
        hub(torch.arange(16.0).view(4, 4), torch.tensor([0, 2, 4])), hub.linear(torch.arange(16.0).view(2, 8))
    )


@pytest.mark.parametrize("name", sorted(READOUTS))
def test_readouts_of_no_nodes_at_all(name: str) -> None:
    readout = READOUTS[name](4, 2)
    out = readout(torch.empty(0, 4), torch.tensor([0, 0, 0]))
    torch.testing.assert_close(out, readout.absent.expand(2, 4))
    out.sum().backward()
    assert readout.absent.grad is not None


def test_sinusoids_by_hand() -> None:
    out = sinusoids(torch.tensor([[3, 7]]), 9)
    for column, value in enumerate((3, 7)):
        for k in range(2):
            angle = value * 10_000 ** (-k / 2)
            assert out[0, 4 * column + k] == pytest.approx(np.sin(angle), abs=1e-5)
            assert out[0, 4 * column + 2 + k] == pytest.approx(np.cos(angle), abs=1e-5)
    assert out[0, 8] == 0


def edges(count: int, sources: int, targets: int) -> torch.Tensor:
    found = torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])
    return found[:, found[1].argsort()]


def as_pyg(attention: HeteroAttention, mode: str, dims: dict) -> HeteroConv:
    """PyG's layers with the weights of ours. A map to logits becomes a projection of which att reads one column."""
    convolution = {"gat": GATConv, "gatv2": GATv2Conv}[mode]
    parts = {t: convolution((8, 8), 4, heads=2, add_self_loops=False, edge_dim=dims.get(t)) for t in EDGE_TYPES}

    def spread(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(logits[:, None], (0, 0, 0, 3)).flatten(0, 1)

    first = torch.tensor([1.0, 0, 0, 0]).expand(1, 2, 4)
    for group in attention.groups:
        into_few = not hasattr(group, "mode")
        for r, t in enumerate(group.relations):
            leaving = [x for x in group.relations if x[0] == t[0]]
            entering = [x for x in group.relations if x[2] == t[2]]
            sources, targets = sorted({x[0] for x in group.relations}), sorted({x[2] for x in group.relations})
            value = (
                group.value[r] if into_few else group.value[sources.index(t[0])].chunk(len(leaving))[leaving.index(t)]
            )
            query = group.query[targets.index(t[2])].chunk(len(entering))[entering.index(t)]
            state = {
                "lin_src.weight": value,
                "att_src": group.att[r : r + 1],
                "lin_dst.weight": spread(query),
                "att_dst": first,
            }
            if mode == "gatv2":
                biases = group.value_bias[sources.index(t[0])], group.query_bias[targets.index(t[2])]
                state = {"lin_l.weight": value, "lin_l.bias": biases[0].chunk(len(leaving))[leaving.index(t)],
                         "lin_r.weight": query, "lin_r.bias": biases[1].chunk(len(entering))[entering.index(t)],
                         "att": group.att[r : r + 1]}  # fmt: skip
            if t in dims:
                edge = group.edge[group.with_edges.index(t)]
                state |= (
                    {"lin_edge.weight": edge}
                    if mode == "gatv2"
                    else {"lin_edge.weight": spread(edge), "att_edge": first}
                )
            parts[t].load_state_dict({**state, "bias": torch.zeros(8)})
    return HeteroConv(parts)


@pytest.mark.parametrize(("few", "first"), [((), True), (("b",), True), (("b",), False)])
@pytest.mark.parametrize("mode", ["gat", "gatv2"])
def test_attention_equals_pyg(mode: str, few: tuple[str, ...], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`first`: into few nodes rows are gathered before they are projected, as not on a GPU."""
    monkeypatch.setattr(IntoFew, "gathers_first", lambda *_: first)
    torch.manual_seed(0)
    x = {"a": torch.randn(5, 8), "b": torch.randn(3, 8)}
    index = {t: edges(6, len(x[t[0]]), len(x[t[2]])) for t in EDGE_TYPES}
    dims = {EDGE_TYPES[2]: 1}
    features = {EDGE_TYPES[2]: torch.randn(6, 1)}
    ours = HeteroAttention(("a", "b"), EDGE_TYPES, 8, 2, mode, edge_dims=dims, few=few)
    for parameter in [*ours.bias, *(b for g in ours.groups for b in getattr(g, "value_bias", ()))]:
        torch.nn.init.normal_(parameter)
    assert len(ours.groups) == (2 if few and mode == "gat" else 1)
    expected = as_pyg(ours, mode, dims)(x, index, edge_attr_dict=features)
    plans = ours.plans({"a": 5, "b": 3}, {t: EdgeList(e) for t, e in index.items()}, None)
    for name, out in ours(x, plans, features).items():
        torch.testing.assert_close(out, expected[name] + ours.bias[ours.targets.index(name)])


def test_a_mode_per_relation_is_the_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    x = {"a": torch.randn(5, 8), "b": torch.randn(3, 8)}
    pairs = {t: EdgeList(edges(6, len(x[t[0]]), len(x[t[2]]))) for t in EDGE_TYPES}
    modes = dict(zip(EDGE_TYPES, ("gat", "gatv2", "dot"), strict=True))
    mixed = HeteroAttention(("a", "b"), EDGE_TYPES, 8, 2, modes)
    sizes = {"a": 5, "b": 3}
    out = mixed(x, mixed.plans(sizes, pairs, None), {})
    total = {"a": 0, "b": 0}
    for group, (t, mode) in zip(mixed.groups, modes.items(), strict=True):
        alone = HeteroAttention(("a", "b"), [t], 8, 2, mode)
        alone.groups[0].load_state_dict(group.state_dict())
        total[t[2]] = total[t[2]] + alone(x, alone.plans(sizes, {t: pairs[t]}, None), {})[t[2]]
    for name in out:
        torch.testing.assert_close(out[name], total[name])


def test_layer_by_hand() -> None:
    torch.manual_seed(0)
    layer = HeteroLayer(("a", "b"), [("a", "to", "b")], dim=8, heads=2)
    x = {"a": torch.randn(4, 8), "b": torch.randn(3, 8)}
    plans = layer.plans({"a": 4, "b": 3}, {("a", "to", "b"): EdgeList(edges(5, 4, 3))}, None)
    assert layer.attention is not None
    message = layer.attention({n: layer.norms[n](h) for n, h in x.items()}, plans, {})["b"]
    b = x["b"] + message
    out = layer(x, plans, {})
    torch.testing.assert_close(out["b"], b + layer.mlps["b"](b))
    torch.testing.assert_close(out["a"], x["a"] + layer.mlps["a"](x["a"]))


def test_layer_without_relations_or_nodes() -> None:
    layer = HeteroLayer(("a",), [], dim=4, heads=1)
    assert layer.attention is None
    assert layer.plans({"a": 0}, {}, None) == []
    assert layer({"a": torch.empty(0, 4)}, [], {})["a"].shape == (0, 4)
    with pytest.raises(ConfigError, match="gatv2"):
        HeteroAttention(("a", "b"), EDGE_TYPES, 8, 2, "gat2")


def test_typed_modules_take_any_name() -> None:
    names = ["type", "keys", "a.b", "", "forward", "ein Bild"]
    modules = TypedModules({n: torch.nn.Linear(1, i + 1) for i, n in enumerate(names)})
    assert [n for n, _ in modules.items()] == names
    assert all(modules[n].out_features == i + 1 for i, n in enumerate(names))
    again = TypedModules({n: torch.nn.Linear(1, i + 1) for i, n in enumerate(names)})
    again.load_state_dict(modules.state_dict())

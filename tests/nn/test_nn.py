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


@pytest.mark.parametrize(("mode", "convolution"), [("gat", GATConv), ("gatv2", GATv2Conv)])
def test_attention_equals_pyg(mode: str, convolution: type) -> None:
    torch.manual_seed(0)
    x = {"a": torch.randn(5, 8), "b": torch.randn(3, 8)}
    index = {t: edges(6, len(x[t[0]]), len(x[t[2]])) for t in EDGE_TYPES}
    features = {EDGE_TYPES[0]: torch.randn(6, 1)}
    ours = HeteroAttention(EDGE_TYPES, 8, 2, mode, edge_dims={EDGE_TYPES[0]: 1})
    dims = {EDGE_TYPES[0]: 1}
    theirs = HeteroConv(
        {t: convolution((8, 8), 4, heads=2, add_self_loops=False, edge_dim=dims.get(t)) for t in EDGE_TYPES}
    )
    theirs.load_state_dict(ours.convolution.state_dict())
    expected = theirs(x, index, edge_attr_dict=features)
    for name, out in ours(x, index, features).items():
        torch.testing.assert_close(out, expected[name])


def test_layer_by_hand() -> None:
    torch.manual_seed(0)
    layer = HeteroLayer(("a", "b"), [("a", "to", "b")], dim=8, heads=2)
    x = {"a": torch.randn(4, 8), "b": torch.randn(3, 8)}
    index = {("a", "to", "b"): edges(5, 4, 3)}
    assert layer.attention is not None
    message = layer.attention({n: layer.norms[n](h) for n, h in x.items()}, index, {})["b"]
    b = x["b"] + message
    out = layer(x, index, {})
    torch.testing.assert_close(out["b"], b + layer.mlps["b"](b))
    torch.testing.assert_close(out["a"], x["a"] + layer.mlps["a"](x["a"]))


def test_layer_without_relations_or_nodes() -> None:
    layer = HeteroLayer(("a",), [], dim=4, heads=1)
    assert layer.attention is None
    assert layer({"a": torch.empty(0, 4)}, {}, {})["a"].shape == (0, 4)
    with pytest.raises(ConfigError, match="gatv2"):
        HeteroAttention(EDGE_TYPES, 8, 2, "gat2")


def test_typed_modules_take_any_name() -> None:
    names = ["type", "keys", "a.b", "", "forward", "ein Bild"]
    modules = TypedModules({n: torch.nn.Linear(1, i + 1) for i, n in enumerate(names)})
    assert [n for n, _ in modules.items()] == names
    assert all(modules[n].out_features == i + 1 for i, n in enumerate(names))
    again = TypedModules({n: torch.nn.Linear(1, i + 1) for i, n in enumerate(names)})
    again.load_state_dict(modules.state_dict())

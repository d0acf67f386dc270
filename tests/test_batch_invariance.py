"""A sample's output is the same alone, first, last, and beside samples with any other modalities."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphfusion.errors import GraphError
from graphfusion.fusion import FUSIONS
from graphfusion.graph_builder import GRAPHS, HUB
from graphfusion.modalities import TokenizedSample
from graphfusion.schema import TABLE
from tests.conftest import SCHEMA

TYPES = SCHEMA.node_types
SUBSETS = [frozenset(s) for r in range(len(TYPES) + 1) for s in itertools.combinations(TYPES, r)]


def run(builder: Any, model: Any, rows: list[TokenizedSample]) -> Any:
    batch = builder.build([r.tokens for r in rows])
    with torch.no_grad():
        return batch, model.eval()(batch)


def kept(sample: TokenizedSample, types: frozenset[str]) -> TokenizedSample:
    return sample.without(frozenset(TYPES) - types)


@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_every_subset_at_every_place(
    graph: str, make_test_model: Callable[..., Any], samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model(graph)
    rows = [kept(samples[i % len(samples)], subset) for i, subset in enumerate(SUBSETS)]
    batch, together = run(builder, model, rows)
    _, backwards = run(builder, model, rows[::-1])
    for i, row in enumerate(rows):
        _, alone = run(builder, model, [row])
        torch.testing.assert_close(together.unified[i], alone.unified[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(backwards.unified[-1 - i], alone.unified[0], rtol=0, atol=1e-5)
        for name in (*TYPES, HUB):
            ptr = batch.nodes[name].ptr
            torch.testing.assert_close(
                together.states[name][ptr[i] : ptr[i + 1]], alone.states[name], rtol=0, atol=1e-5
            )
            torch.testing.assert_close(together.readouts[name][i], alone.readouts[name][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings_", [{"attention": "gatv2"}, {"attention": "dot"}, {"relation_attention": {"full": "dot"}}, {"readout": "mean"}, {"readout": "hub"},
                                       {"encoders": {"image": "linear", "audio": "linear"}}])  # fmt: skip
def test_other_parts(
    settings_: dict[str, Any], make_test_model: Callable[..., Any], samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model("full", **settings_)
    rows = [kept(samples[i % 8], s) for i, s in enumerate(SUBSETS)]
    _, together = run(builder, model, rows)
    for i, row in enumerate(rows):
        torch.testing.assert_close(together.unified[i], run(builder, model, [row])[1].unified[0], rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(SUBSETS)), min_size=1, max_size=12), st.randoms())
def test_any_batch_in_any_order(
    make_test_model: Callable[..., Any], samples: list[TokenizedSample], picks: list[Any], order: Any
) -> None:
    builder, model = make_test_model("top_k")
    rows = [kept(samples[i], s) for i, s in picks]
    place = list(range(len(rows)))
    order.shuffle(place)
    _, first = run(builder, model, rows)
    _, second = run(builder, model, [rows[i] for i in place])
    torch.testing.assert_close(second.unified, first.unified[place], rtol=0, atol=1e-5)


def test_missing_is_not_zero(make_test_model: Callable[..., Any], samples: list[TokenizedSample]) -> None:
    """No sound and a sound whose features are all zero are different inputs with different outputs."""
    builder, model = make_test_model("hub")
    sound = samples[0].tokens["sound"]
    silent = type(sound)(np.zeros_like(sound.values), sound.position, sound.span)
    rows = [samples[0].without(frozenset({"sound"})), TokenizedSample(0, {**samples[0].tokens, "sound": silent})]
    _, fused = run(builder, model, rows)
    assert (fused.unified[0] - fused.unified[1]).abs().max() > 1e-3


def test_gradients_do_not_depend_on_the_batch(
    make_test_model: Callable[..., Any], samples: list[TokenizedSample]
) -> None:
    """The gradient of one sample's output is the same when samples with other modalities lie beside it."""
    builder, model = make_test_model("full")
    rows = [kept(samples[i], s) for i, s in enumerate(SUBSETS[-8:])]
    for i in (0, 3, 7):
        grads = []
        for batch, place in ((rows, i), ([rows[i]], 0)):
            model.zero_grad()
            model(builder.build([r.tokens for r in batch])).unified[place].square().sum().backward()
            grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        for name, grad in grads[1].items():
            torch.testing.assert_close(grads[0][name], grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_the_order_of_features_is_the_vocabulary_s(
    fusion: str, make_test_model: Callable[..., Any], samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model("hub", fusion=fusion)
    batch = builder.build([s.tokens for s in samples])
    features = {name: encoder(batch.nodes[name]) for name, encoder in model.encoders.items()}
    backwards = dict(reversed(features.items()))
    torch.testing.assert_close(model.fusion(batch, features).unified, model.fusion(batch, backwards).unified)
    del backwards["sound"]
    with pytest.raises(GraphError, match="expected the node types"):
        model.fusion(batch, backwards)


def test_table_columns_are_nodes(samples: list[TokenizedSample]) -> None:
    assert samples[0].tokens[TABLE].position[:, 0].tolist() == [0, 1]

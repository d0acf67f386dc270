"""Rows above a batch's budget, memory that is short, numbers that are not finite, signals."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from graphfusion.data import Budget
from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBuilder
from graphfusion.graph_builder.relations import Full
from graphfusion.modalities import NodeType, TokenizedSample, Tokens
from graphfusion.training.cap import cap_rows
from graphfusion.training.diagnosis import check_gradients, check_weights, first_broken
from graphfusion.training.interruption import Interruption
from graphfusion.training.step import out_of_memory

VECTORS = NodeType("features", (2,))


def tokens(count: int) -> Tokens:
    return Tokens(np.ones((count, 2), np.float32), np.arange(count)[:, None], np.empty((count, 0)))


def test_rows_are_cut_to_the_budget_and_named() -> None:
    builder = GraphBuilder({"a": VECTORS, "b": VECTORS}, [Full("a", "b")])
    rows = [
        TokenizedSample(4, {"a": tokens(10), "b": tokens(3)}),
        TokenizedSample(7, {"a": tokens(1000), "b": tokens(3)}),
        TokenizedSample(9, {"a": tokens(40), "b": tokens(40)}),
    ]
    capped, incidents = cap_rows(rows, builder, Budget(64, 200, 900))
    assert capped[0] is rows[0]
    nodes, edges = builder.sizes([row.tokens for row in capped])
    assert max(nodes) <= 200
    assert max(edges) <= 900
    assert len(capped[1].tokens["a"]) == 125
    assert len(capped[1].tokens["b"]) == 3
    assert len(capped[2].tokens["a"]) * len(capped[2].tokens["b"]) == 800
    assert {i.row for i in incidents} == {7, 9}
    assert "1,000 tokens, of which the first 125 are kept" in str(incidents[0])
    assert str(incidents[0]).endswith("[cut]")


def test_what_counts_as_short_memory() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert out_of_memory(found.value)
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(ValueError("not enough memory"))


def test_the_first_broken_tensor_is_named() -> None:
    model = torch.nn.Linear(2, 1)
    check_weights(model, "now")
    model.bias.data[0] = float("inf")
    with pytest.raises(TrainingError, match="weight 'bias' is not finite now"):
        check_weights(model, "now")
    model.weight.grad = torch.tensor([[1.0, float("nan")]])
    with pytest.raises(TrainingError, match="gradient of 'weight' is not finite in a step over rows 3, 4"):
        check_gradients(model, float("nan"), [3, 4])
    check_gradients(model, 1.0, [3, 4])
    assert first_broken({"ids": torch.tensor([1])}) == ""


def test_signals_wait_for_the_step_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption(active=True) as interruption:
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.asked == "SIGUSR1"
        assert not interruption.stops
        signal.raise_signal(signal.SIGTERM)
        assert interruption.stops
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.asked == "SIGTERM"
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    with Interruption(active=False) as interruption, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert interruption.asked == ""

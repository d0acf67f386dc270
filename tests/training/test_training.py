"""The learning rate, the optimiser's state, modality dropout, and batches that no number of workers changes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graphfusion import FusionPredictor
from graphfusion.data import Budget
from graphfusion.errors import CheckpointError, ConfigError
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.modalities import TokenizedSample
from graphfusion.training import loop
from graphfusion.training.optimizer import (
    OPTIMIZERS,
    load_optimizer,
    make_optimizer,
    optimizer_tensors,
    warmup_cosine,
)
from graphfusion.training.rows import Batches, Collate, Noise, NoisyRows
from graphfusion.training.transfer import ahead
from tests.conftest import make_rows, tokenize


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_warmup_cosine(steps: int, warmup: float) -> None:
    rates = [warmup_cosine(s, steps, warmup) for s in range(steps)]
    rise = max(1, round(warmup * steps))
    assert rates[rise - 1] == 1
    assert all(a < b for a, b in zip(rates[: rise - 1], rates[1:rise], strict=True))
    assert all(a >= b for a, b in zip(rates[rise:], rates[rise + 1 :], strict=False))
    for s in range(rise, steps):
        assert rates[s] == pytest.approx((1 + math.cos(math.pi * (s - rise) / (steps - rise))) / 2)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimiser_state_survives(name: str) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for k in range(count):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(k + 1))).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(name, model, 0.01, 0.1)
    steps(model, optimizer, 3)
    again = nn.Linear(3, 2)
    again.load_state_dict(model.state_dict())
    other = make_optimizer(name, again, 0.01, 0.1)
    load_optimizer(other, optimizer_tensors(optimizer))
    steps(model, optimizer, 2)
    steps(again, other, 2)
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(model.bias, again.bias)
    with pytest.raises(CheckpointError, match="expected"):
        load_optimizer(make_optimizer(name, nn.Linear(4, 2), 0.01, 0.1), optimizer_tensors(optimizer))
    with pytest.raises(ConfigError, match="Did you mean 'adamw'"):
        make_optimizer("adam", model, 0.01, 0.0)


def test_weight_decay_is_for_matrices_only() -> None:
    groups = make_optimizer("adamw", nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), 0.01, 0.1).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.1, 1), (0.0, 3)]


def test_modality_dropout_is_counted_and_never_takes_all(samples: list[TokenizedSample]) -> None:
    rows = NoisyRows(samples * 40, Noise(dropout=0.6), seed=0, epoch=1)
    kept = [frozenset(rows[i].tokens) for i in range(len(rows))]
    assert all(kept)
    assert kept == [frozenset(rows[i].tokens) for i in range(len(rows))]
    other = NoisyRows(samples * 40, Noise(dropout=0.6), seed=0, epoch=2)
    assert kept != [frozenset(other[i].tokens) for i in range(len(rows))]
    untouched = NoisyRows(samples, Noise(), seed=0, epoch=1)
    assert all(untouched[i] is samples[i] for i in range(len(samples)))


def test_modality_dropout_has_its_rate() -> None:
    _, samples = tokenize(make_rows(60))
    lost = total = 0
    for epoch in range(10):
        rows = NoisyRows(samples, Noise(dropout=0.3), seed=0, epoch=epoch)
        lost += sum(len(samples[i].tokens) - len(rows[i].tokens) for i in range(60))
        total += sum(len(s.tokens) for s in samples)
    assert abs(lost / total - 0.3) < 0.03


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    modalities, samples = tokenize(make_rows(20))
    builder = GraphBuilder({n: m.node_type for n, m in modalities.items()}, [])
    batches = Batches.of(samples, Budget(6, 10_000, 10_000), Collate(builder, {}), Noise(modalities, 0.3, 1.0))
    alone = list(batches.epoch(0, 3, workers=0))
    shared = list(batches.epoch(0, 3, workers=workers))
    assert len(alone) == len(shared) == 4
    for (a,), (b,) in zip(alone, shared, strict=True):
        assert isinstance(b, GraphBatch)
        assert torch.equal(a.ids, b.ids)
        for name, store in a.nodes.items():
            assert torch.equal(store.values, b.nodes[name].values)
            assert torch.equal(store.ptr, b.nodes[name].ptr)
    assert sorted(i for (b,) in alone for i in b.ids.tolist()) == list(range(20))


def test_a_deterministic_fit_gives_the_bits_of_any_fit_on_a_cpu_and_leaves_torch_as_it_was() -> None:
    seen: list[bool] = []

    def fitted(**settings: object) -> np.ndarray:
        p = FusionPredictor("label", dim=8, heads=2, layers=1, epochs=2, device="cpu", **settings)
        with mock.patch.object(loop, "take_step", wraps=loop.take_step) as step:
            step.side_effect = lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()) or mock.DEFAULT
            p.fit(make_rows(12), valid=0.25, quiet=True)
        return p.embed(make_rows(3))

    with mock.patch.dict(os.environ):
        np.testing.assert_array_equal(fitted(deterministic=True), fitted())
    assert seen.count(True) == seen.count(False) > 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_a_cpu_batches_are_not_copied_ahead() -> None:
    """Each is asked for when it is used."""
    asked: list[int] = []

    def batches() -> Iterator[list[GraphBatch]]:
        for i in range(3):
            asked.append(i)
            yield []

    for i, _ in enumerate(ahead(batches(), torch.device("cpu"))):
        assert asked == list(range(i + 1))

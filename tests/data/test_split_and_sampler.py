"""Splits and batches depend on their arguments alone and lose no row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfusion.data import Budget, counted_rng, counted_seed, pack, shuffled, split_rows
from graphfusion.errors import ConfigError


@given(st.integers(2, 500), st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_split_loses_nothing(rows: int, share: float, seed: int) -> None:
    if not 0 < round(rows * share) < rows:
        with pytest.raises(ConfigError):
            split_rows(rows, share, seed)
        return
    train, valid = split_rows(rows, share, seed)
    assert sorted(train + valid) == list(range(rows))
    assert len(valid) == round(rows * share)
    assert (train, valid) == split_rows(rows, share, seed)


@pytest.mark.parametrize("share", [0.0, 1.0, -1, 2])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_rows(10, share, 0)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), max_size=60), st.integers(1, 9))
def test_batches_keep_order_and_budget(sizes: list[tuple[int, int]], samples: int) -> None:
    nodes, edges = [s[0] for s in sizes], [s[1] for s in sizes]
    budget = Budget(samples, 50, 100)
    batches = pack(range(len(sizes)), nodes, edges, budget)
    assert [i for b in batches for i in b] == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= samples
        assert len(batch) == 1 or (sum(nodes[i] for i in batch) <= 50 and sum(edges[i] for i in batch) <= 100)


def test_counted_randomness_has_no_state() -> None:
    assert counted_seed(0, "a", 1, 2) == counted_seed(0, "a", 1, 2)
    seeds = {counted_seed(s, p, e, i) for s in range(3) for p in "ab" for e in range(3) for i in range(3)}
    assert len(seeds) == 3 * 2 * 3 * 3
    assert counted_rng(1, "x").random() == counted_rng(1, "x").random()
    assert np.array_equal(sorted(shuffled(10, 0, 1)), range(10))
    assert shuffled(10, 0, 1) != shuffled(10, 0, 2)

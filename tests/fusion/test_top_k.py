"""Learned top-k edges against sorting by hand; their projections receive gradients."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfusion.fusion.top_k import LearnedTopK
from graphfusion.graph_builder import NodeStore, TopKSimilarity


def store(counts: list[int]) -> NodeStore:
    ptr = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])
    n = int(ptr[-1])
    return NodeStore(torch.empty(n), ptr, torch.empty(n, 1, dtype=torch.int64), torch.empty(n, 0))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=5), st.integers(1, 7), st.booleans()
)
def test_choice_equals_sorting(counts: list[tuple[int, int]], k: int, within: bool) -> None:
    torch.manual_seed(0)
    source = store([c[0] for c in counts])
    target = source if within else store([c[1] for c in counts])
    x = torch.randn(len(source), 8)
    y = x if within else torch.randn(len(target), 8)
    choose = LearnedTopK(TopKSimilarity("a", "a" if within else "b", k, width=4), 8)
    edges, similarity = choose(x, source, y, target)
    key = torch.nn.functional.normalize(choose.key(x), dim=1)
    query = torch.nn.functional.normalize(choose.query(y), dim=1)
    expected = set()
    for b in range(len(counts)):
        for i in range(int(target.ptr[b]), int(target.ptr[b + 1])):
            mine = [j for j in range(int(source.ptr[b]), int(source.ptr[b + 1])) if not (within and i == j)]
            mine.sort(key=lambda j, i=i: (-(query[i] @ key[j]).item(), j))
            expected |= {(j, i) for j in mine[:k]}
    assert set(map(tuple, edges.T.tolist())) == expected
    assert bool((edges[1].diff() >= 0).all())
    torch.testing.assert_close(similarity[:, 0], (query[edges[1]] * key[edges[0]]).sum(1))


def test_gradients_reach_the_projections(make_test_model, samples) -> None:  # type: ignore[no-untyped-def]
    builder, model = make_test_model("top_k")
    model(builder.build([s.tokens for s in samples])).unified.square().sum().backward()
    for choose in model.fusion.choosers:
        assert choose.query.weight.grad.abs().sum() > 0
        assert choose.key.weight.grad.abs().sum() > 0

"""HGT and R-GCN against PyG's own, over lists and over rules; sequences without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import HGTConv, RGCNConv

from graphfusion.errors import ConfigError
from graphfusion.fusion import HGTFusion, RGCNFusion
from graphfusion.nn import HGTAttention, RGCNConvolution, run_recurrent
from graphfusion.ops.hetero_attention import Dense, EdgeList, Pairs, Window

TYPES = ("a", "b", "c")
RELATIONS = [("a", "to", "b"), ("b", "back", "a"), ("a", "self", "a"), ("c", "far", "b"), ("a", "window", "a")]
SIZES = {"a": 5, "b": 3, "c": 0}
PTR = {"a": torch.tensor([0, 3, 5]), "b": torch.tensor([0, 1, 3]), "c": torch.tensor([0, 0, 0])}
DIM, HEADS = 8, 2


def graph() -> tuple[dict[str, Tensor], dict[Any, Pairs], dict[Any, Tensor]]:
    """Features, pairs by list or rule, and the same pairs as lists. Nothing ever comes from `c`; node 0 of `b` gets nothing by
    the list.
    """
    torch.manual_seed(0)
    x = {name: torch.randn(size, DIM) for name, size in SIZES.items()}
    pairs: dict[Any, Pairs] = {
        RELATIONS[0]: EdgeList(torch.tensor([[3, 4, 4, 3], [1, 1, 2, 2]])),
        RELATIONS[1]: Dense(),
        RELATIONS[2]: EdgeList(torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])),
        RELATIONS[3]: EdgeList(torch.empty(2, 0, dtype=torch.int64)),
        RELATIONS[4]: Window(-1, 1),
    }
    return x, pairs, {t: p.edge_index(PTR[t[0]], PTR[t[2]]) for t, p in pairs.items()}


def test_hgt_equals_pyg() -> None:
    x, pairs, lists = graph()
    ours = HGTAttention(TYPES, RELATIONS, DIM, HEADS)
    torch.nn.init.normal_(ours.prior)
    theirs = HGTConv(DIM, DIM, (list(TYPES), RELATIONS), HEADS)
    with torch.no_grad():
        for name in TYPES:
            kqv = theirs.kqv_lin.lins[name]
            for part, table in zip(range(3), (ours.key, ours.query, ours.value), strict=True):
                if name in table.names:
                    kqv.weight[part * DIM : (part + 1) * DIM] = table[name].weight
                    kqv.bias[part * DIM : (part + 1) * DIM] = table[name].bias
            if name in ours.targets:
                theirs.out_lin.lins[name].load_state_dict(ours.out[name].state_dict())
            theirs.skip[name].fill_(50.0)  # sigmoid 1: no skip connection
        for r, t in enumerate(RELATIONS):
            theirs.p_rel["__".join(t)].copy_(ours.prior[r][None])
            for h in range(HEADS):
                theirs.k_rel.weight[h * len(RELATIONS) + r] = ours.attend[r, h]
                theirs.v_rel.weight[h * len(RELATIONS) + r] = ours.message[r, h]
    found = ours(x, ours.plans(SIZES, pairs, PTR), {})
    expected = theirs(x, lists)
    assert set(found) == {"a", "b"}
    for name, message in found.items():
        torch.testing.assert_close(message, expected[name], rtol=1e-4, atol=1e-5)


def test_rgcn_equals_pyg() -> None:
    x, pairs, lists = graph()
    ours = RGCNConvolution(TYPES, RELATIONS, DIM, HEADS)
    first = {"a": 0, "b": SIZES["a"], "c": SIZES["a"] + SIZES["b"]}
    theirs = RGCNConv(DIM, DIM, len(RELATIONS), root_weight=False, bias=False)
    theirs.weight.data = ours.weight.detach().transpose(1, 2)
    index = torch.cat([e + torch.tensor([[first[t[0]]], [first[t[2]]]]) for t, e in lists.items()], dim=1)
    kind = torch.cat([torch.full((e.shape[1],), r) for r, e in enumerate(lists.values())])
    expected = theirs(torch.cat(list(x.values())), index, kind)
    found = ours(x, ours.plans(SIZES, pairs, PTR), {})
    for name, message in found.items():
        neighbours = expected[first[name] : first[name] + SIZES[name]]
        torch.testing.assert_close(message, ours.own[name](x[name]) + neighbours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "word"), [(HGTFusion, "hgt"), (RGCNFusion, "rgcn")])
def test_learned_relations_are_refused(kind: Any, word: str, make_test_model: Any) -> None:
    with pytest.raises(ConfigError, match=f"fusion='{word}': its edges have no features, which top_k needs"):
        make_test_model("top_k", fusion=word)
    with pytest.raises(ConfigError, match="dim: expected a multiple of heads=3, got 8"):
        HGTAttention(TYPES, RELATIONS, 8, 3)
    make_test_model("none", fusion=word)


@pytest.mark.parametrize("both", [False, True])
def test_recurrence_equals_one_sequence_at_a_time(both: bool) -> None:
    torch.manual_seed(0)
    counts = [3, 0, 7, 1, 7, 0]
    x, ptr = torch.randn(sum(counts), 4), torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])
    network = torch.nn.LSTM(4, 5, bidirectional=both)
    states, last = run_recurrent(network, x, ptr)
    for b, count in enumerate(counts):
        if not count:
            assert not last[b].any()
            continue
        each, (final, _) = network(x[ptr[b] : ptr[b + 1], None])
        torch.testing.assert_close(states[ptr[b] : ptr[b + 1]], each[:, 0])
        torch.testing.assert_close(last[b], final[:, 0].flatten())
    gru, start = torch.nn.GRU(4, 5), torch.randn(len(counts), 5)
    states, last = run_recurrent(gru, x, ptr, start)
    for b in (0, 2, 3):
        each, _ = gru(x[ptr[b] : ptr[b + 1], None], start[b][None, None])
        torch.testing.assert_close(states[ptr[b] : ptr[b + 1]], each[:, 0])
        torch.testing.assert_close(last[b], each[-1, 0])
    nothing = run_recurrent(gru, x[:0], torch.zeros(3, dtype=torch.int64))
    assert [t.shape for t in nothing] == [(0, 5), (2, 5)]

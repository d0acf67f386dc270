"""What a batch promises: a fixed vocabulary, valid edges, and a loss-free way to PyG and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from graphfusion.errors import GraphError
from graphfusion.graph_builder import (
    GRAPHS,
    Full,
    GraphBatch,
    GraphBuilder,
    NodeStore,
    SequenceWindow,
    draw,
    from_pyg,
    graph_preset,
    to_networkx,
    to_pyg,
)
from graphfusion.modalities import NodeType, TokenizedSample, Tokens
from graphfusion.nn import HeteroLayer

SEQUENCE = NodeType("features", (3,), "float32", 1, "none")


def tokens(n: int, seed: int = 0) -> Tokens:
    values = np.random.default_rng([seed, n]).normal(size=(n, 3)).astype(np.float32)
    return Tokens(values, np.arange(n)[:, None], np.empty((n, 0)))


def small_builder() -> GraphBuilder:
    relations = [SequenceWindow("text", 1), Full("image", "text"), Full("text", "image")]
    return GraphBuilder({"text": SEQUENCE, "image": SEQUENCE}, relations)


def same(a: GraphBatch, b: GraphBatch) -> None:
    assert a.node_types == b.node_types
    assert a.edge_types == b.edge_types
    for name in a.node_types:
        for x, y in zip(a.nodes[name].tensors(), b.nodes[name].tensors(), strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
    for edge_type in a.edge_types:
        assert torch.equal(a.edge_index(edge_type), b.edge_index(edge_type))
    assert torch.equal(a.ids, b.ids)
    assert a.targets.keys() == b.targets.keys()
    assert all(torch.equal(t, b.targets[n]) for n, t in a.targets.items())


def test_absent_types_are_there_with_no_rows() -> None:
    batch = small_builder().build([{"text": tokens(2)}, {"text": tokens(3)}])
    assert batch.node_types == ("text", "image")
    assert repr(batch) == f"GraphBatch(2 samples; nodes: text 5, image 0; {len(batch.edge_types)} edge types)"
    assert len(batch.nodes["image"]) == 0
    assert batch.nodes["image"].ptr.tolist() == [0, 0, 0]
    assert batch.edge_index(("image", "full", "text")).shape == (2, 0)
    assert batch.edge_index(("text", "window", "text")).tolist() == [[1, 0, 3, 2, 4, 3], [0, 1, 2, 3, 3, 4]]


@pytest.mark.parametrize("preset", sorted(GRAPHS))
def test_pyg_round_trip_loses_nothing(preset: str, samples: list[TokenizedSample]) -> None:
    rows = [dict(s.tokens) for s in samples]
    del rows[0]["sound"]
    rows[1] = {}
    layouts = {name: NodeType(*_layout(t)) for name, t in samples[0].tokens.items()}
    batch = GraphBuilder(layouts, graph_preset(preset, layouts), hubs=2).build(rows, ids=range(10, 18))
    batch = batch.with_targets({"label": torch.arange(8), "score": torch.randn(8, 2)})
    same(from_pyg(to_pyg(batch)), batch)


def _layout(t: Tokens) -> tuple[Any, ...]:
    unit = {0: "none", 2: "seconds", 4: "pixels"}[t.span.shape[1]]
    return (
        "image" if unit == "pixels" else "features",
        t.values.shape[1:],
        t.values.dtype.name,
        t.position.shape[1],
        unit,
    )


def test_pyg_data_of_others_is_taken() -> None:
    from torch_geometric.data import Batch, HeteroData

    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(2, 3), torch.randn(1, 4)
    data["a", "to", "b"].edge_index = torch.tensor([[1, 0], [0, 0]])
    one = from_pyg(data)
    assert len(one) == 1
    assert one.edge_index(("a", "to", "b")).tolist() == [[1, 0], [0, 0]]
    two = from_pyg(Batch.from_data_list([data, data]))
    assert two.nodes["a"].ptr.tolist() == [0, 2, 4]
    assert two.edge_index(("a", "to", "b")).tolist() == [[1, 0, 3, 2], [0, 0, 1, 1]]


def edges(pairs: list[list[int]]) -> torch.Tensor:
    return torch.tensor(pairs, dtype=torch.int64)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (edges([[9], [0]]), "node 9 is out of range"),
        (edges([[-1], [0]]), "node -1 is out of range"),
        (edges([[0, 1], [1, 0]]), "sorted by target"),
        (edges([[0], [2]]), "ties two samples"),
        (edges([[0, 1]]), r"expected \(2, E\)"),
        (torch.zeros(2, 1), "torch.int64"),
    ],
)
def test_bad_edges_are_refused(broken: torch.Tensor, message: str) -> None:
    batch = small_builder().build([{"text": tokens(2)}, {"text": tokens(3)}])
    with pytest.raises(GraphError, match=message):
        batch.with_edges({**batch.edges, ("text", "window", "text"): broken})


def test_bad_nodes_and_vocabularies_are_refused() -> None:
    batch = small_builder().build([{"text": tokens(2)}])
    store = batch.nodes["text"]
    for ptr in ([0, 3], [1, 2], [0, 1, 2]):
        with pytest.raises(GraphError, match="ptr"):
            replace(batch, nodes={**batch.nodes, "text": replace(store, ptr=torch.tensor(ptr))})
    with pytest.raises(GraphError, match="differ in length"):
        replace(batch, nodes={**batch.nodes, "text": NodeStore(store.values[:1], *store.tensors()[1:])})
    with pytest.raises(GraphError, match="frozen"):
        batch.with_edges({("text", "window", "text"): edges([[], []])})
    with pytest.raises(GraphError, match="'label'"):
        batch.with_targets({"label": torch.zeros(3)})
    with pytest.raises(GraphError, match="Did you mean 'text'"):
        small_builder().build([{"txt": tokens(1)}])
    with pytest.raises(GraphError, match="at least one sample"):
        small_builder().build([])
    with pytest.raises(GraphError, match="another name="):
        GraphBuilder({"a": SEQUENCE}, [Full("a", "a"), Full("a", "a")])
    with pytest.raises(GraphError, match="expected values"):
        small_builder().build(
            [{"text": Tokens(np.zeros((1, 4), np.float32), np.zeros((1, 1), np.int64), np.empty((1, 0)))}]
        )
    with pytest.raises(GraphError, match="token 1: values must be finite"):
        Tokens(np.array([[0.0], [np.nan]], np.float32), np.zeros((2, 1), np.int64), np.empty((2, 0)))


def test_builder_survives_json_and_counts_what_it_builds(samples: list[TokenizedSample]) -> None:
    layouts = {name: NodeType(*_layout(t)) for name, t in samples[0].tokens.items()}
    builder = GraphBuilder(layouts, graph_preset("full", layouts), hubs=3)
    rows = [s.tokens for s in samples]
    again = GraphBuilder.from_dict(builder.to_dict())
    same(again.build(rows), builder.build(rows))
    nodes, counted = builder.sizes(rows)
    for i, row in enumerate(rows):
        alone = builder.build([row])
        assert nodes[i] == sum(len(store) for store in alone.nodes.values())
        assert counted[i] == sum(alone.edge_index(t).shape[1] for t in alone.edge_types)
    assert f"{sum(len(r['caption']) for r in rows):,}" in builder.summary(rows)


def test_networkx_view_and_picture(tmp_path: Path) -> None:
    batch = small_builder().build([{"text": tokens(1)}, {"text": tokens(2), "image": tokens(3)}])
    graph = to_networkx(batch, 1)
    assert isinstance(graph, nx.MultiDiGraph)
    assert sorted(n for n in graph if n[0] == "image") == [("image", 0), ("image", 1), ("image", 2)]
    assert graph.number_of_edges() == 2 + 6 + 6
    assert graph.has_edge(("image", 2), ("text", 1), key="full")
    draw(batch, tmp_path / "graph.png", sample=1)
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(GraphError, match="out of range"):
        to_networkx(batch, 2)


# --- what PyG's own collate does with missing modalities (issues 7147, 10801, 2895), and what ours does ---------------


def hetero(text: int, image: int) -> Any:
    """One sample as PyG users write it: a store only for what is there."""
    from torch_geometric.data import HeteroData

    data = HeteroData()
    for name, count in (("text", text), ("image", image)):
        if count:
            data[name].x = torch.from_numpy(tokens(count).values)
    if text and image:
        data["image", "full", "text"].edge_index = torch.cartesian_prod(torch.arange(image), torch.arange(text)).T
    return data


ROWS: list[tuple[int, int]] = [(2, 0), (3, 2)]


def ours(rows: list[tuple[int, int]]) -> GraphBatch:
    return small_builder().build(
        [{n: tokens(c) for n, c in zip(("text", "image"), row, strict=True) if c} for row in rows]
    )


def test_issue_7147_a_modality_missing_first_is_lost_for_all() -> None:
    """PyG 7147: the stores of the first sample decide; here the images of the second sample vanish."""
    from torch_geometric.data import Batch

    theirs = Batch.from_data_list([hetero(*row) for row in ROWS])
    assert "image" not in theirs.node_types
    assert len(ours(ROWS).nodes["image"]) == 2


def test_issue_10801_a_modality_missing_later_goes_to_the_wrong_sample() -> None:
    """PyG 10801 (and the discussion of 7156): which types survive depends on the sample that comes first, and with the
    image missing in the second of three samples the third one's is counted as the second's."""
    from torch_geometric.data import Batch

    rows = [(1, 2), (1, 0), (1, 3)]
    theirs = Batch.from_data_list([hetero(*row) for row in rows])
    assert theirs["image"].batch.tolist() == [0, 0, 1, 1, 1]
    swapped = Batch.from_data_list([hetero(*rows[1]), hetero(*rows[0]), hetero(*rows[2])])
    assert "image" not in swapped.node_types
    assert ours(rows).nodes["image"].sample.tolist() == [0, 0, 2, 2, 2]


def test_issue_2895_a_batch_without_one_modality_still_has_states() -> None:
    """After PyG's collate of samples without images, HeteroConv has no output for the texts that wait for them, and the
    next layer fails; here the texts keep their state."""
    from torch_geometric.data import Batch
    from torch_geometric.nn import GATConv, HeteroConv

    edge_type = ("image", "full", "text")
    with pytest.warns(UserWarning, match="do not get updated"):
        convolution = HeteroConv({edge_type: GATConv((3, 3), 4, add_self_loops=False)})
    theirs = Batch.from_data_list([hetero(2, 0), hetero(3, 0)])
    with pytest.raises(KeyError, match="edge_index"):
        convolution(theirs.x_dict, theirs.edge_index_dict)
    assert convolution(theirs.x_dict, {}) == {}
    batch = ours([(2, 0)])
    x = {"text": torch.randn(2, 4), "image": torch.randn(0, 4)}
    layer = HeteroLayer(batch.node_types, [edge_type], dim=4, heads=1)
    sizes, ptr = {n: len(h) for n, h in x.items()}, {n: store.ptr for n, store in batch.nodes.items()}
    out = layer(x, layer.plans(sizes, {edge_type: batch.pairs[edge_type]}, ptr), {})
    assert out["image"].shape == (0, 4)
    assert out["text"].shape == (2, 4)

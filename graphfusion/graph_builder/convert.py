"""`GraphBatch` to and from PyG's `HeteroData`, and to networkx for analysis and pictures."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graphfusion.errors import GraphError
from graphfusion.graph_builder.batch import GraphBatch, NodeStore

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import HeteroData


IDS = "graphfusion_ids"
TARGET = "graphfusion_target_"


def to_pyg(batch: GraphBatch) -> HeteroData:
    """All of a batch as `HeteroData`: per node type `x`, `ptr`, `batch`, `position`, `span`; per edge type
    `edge_index`; graph attributes `graphfusion_ids` and `graphfusion_target_<name>`. Absent types stay, with 0 rows.
    """
    from torch_geometric.data import HeteroData

    data = HeteroData()
    for name, store in batch.nodes.items():
        data[name].x = store.values
        data[name].ptr = store.ptr
        data[name].batch = store.sample
        data[name].position = store.position
        data[name].span = store.span
        data[name].num_nodes = len(store)
    for edge_type in batch.edge_types:
        data[edge_type].edge_index = batch.edge_index(edge_type)
    data[IDS] = batch.ids
    for name, target in batch.targets.items():
        data[TARGET + name] = target
    return data


def from_pyg(data: HeteroData) -> GraphBatch:
    """A batch from `HeteroData`, whether `to_pyg` made it, PyG's own collate did (`ptr` or `batch`), or it is one
    sample. Edges are sorted by target; edge attributes are not taken.

    Raises:
        GraphError: the stores disagree about the number of samples, or an edge is invalid.
    """
    owners = [data[name].batch for name in data.node_types if data[name].get("batch") is not None]
    samples = max((int(o.max()) + 1 for o in owners if len(o)), default=1)
    nodes = {name: _store_of(data[name], samples) for name in data.node_types}
    counts = {name: len(store.ptr) - 1 for name, store in nodes.items()}
    if len(set(counts.values())) > 1:
        raise GraphError(f"node types differ in their number of samples: {counts}.")
    samples = next(iter(counts.values()), 0)
    values = {key: value for key, value in data.stores[0].items() if torch.is_tensor(value)}
    return GraphBatch(
        nodes=nodes,
        edges={t: _sorted(data[t].edge_index) for t in data.edge_types},
        ids=values.get(IDS, torch.arange(samples, device=next(iter(nodes.values())).ptr.device)),
        targets={key.removeprefix(TARGET): value for key, value in values.items() if key.startswith(TARGET)},
    )


def _store_of(store: Any, samples: int) -> NodeStore:
    values = store.x
    count = len(values)
    if "ptr" in store:
        ptr = store.ptr
    elif "batch" in store and store.batch is not None:
        ptr = torch.nn.functional.pad(torch.bincount(store.batch, minlength=samples).cumsum(0), (1, 0))
    else:
        ptr = torch.tensor([0, count], device=values.device)
    index = torch.arange(count, device=ptr.device) - torch.repeat_interleave(ptr[:-1], ptr.diff())
    position = store.position if "position" in store else index[:, None]
    span = store.span if "span" in store else torch.empty(count, 0, dtype=torch.float64, device=ptr.device)
    return NodeStore(values, ptr.to(torch.int64), position, span)


def _sorted(edges: torch.Tensor) -> torch.Tensor:
    if bool((edges[1].diff() >= 0).all()):
        return edges.contiguous()
    return edges[:, torch.argsort(edges[1], stable=True)].contiguous()


def to_networkx(batch: GraphBatch, sample: int = 0) -> nx.MultiDiGraph:
    """One sample as a `MultiDiGraph`: nodes (type, index in the sample) with `type`, `position` and `span`; edges keyed
    by relation name.
    """
    import networkx as nx

    if not 0 <= sample < len(batch):
        raise GraphError(f"sample {sample} is out of range: the batch has {len(batch)}.")
    graph = nx.MultiDiGraph()
    first = {name: int(store.ptr[sample]) for name, store in batch.nodes.items()}
    for name, store in batch.nodes.items():
        for i in range(first[name], int(store.ptr[sample + 1])):
            place = {"position": tuple(store.position[i].tolist()), "span": tuple(store.span[i].tolist())}
            graph.add_node((name, i - first[name]), type=name, **place)
    for source, relation, target in batch.edge_types:
        edges = batch.edge_index((source, relation, target))
        end = int(batch.nodes[target].ptr[sample + 1])
        mine = edges[:, (edges[1] >= first[target]) & (edges[1] < end)]
        for there, here in mine.T.tolist():
            graph.add_edge((source, there - first[source]), (target, here - first[target]), key=relation)
    return graph


def draw(batch: GraphBatch, path: str | os.PathLike[str], sample: int = 0, title: str = "") -> None:
    """Draw one sample's graph to a picture file (the ending decides the format): each node type a block, sequences as
    columns, grids as grids; one colour a relation.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    graph = to_networkx(batch, sample)
    places = _layout(batch, graph)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots()
    colours = [f"C{i % 10}" for i in range(len(batch.edges))]
    legend = []
    for colour, (source, relation, target) in zip(colours, batch.edges, strict=True):
        ends = [
            (places[a], places[b])
            for a, b, key in graph.edges(keys=True)
            if key == relation and a[0] == source and b[0] == target
        ]
        for (x0, y0), (x1, y1) in ends:
            arrow = {"arrowstyle": "-|>", "color": colour, "alpha": 0.35, "lw": 0.8, "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", (x1, y1), (x0, y0), arrowprops={**arrow, "connectionstyle": "arc3,rad=0.12"})
        if ends:
            legend.append(Line2D([], [], color=colour, label=f"{source} –{relation}→ {target} ({len(ends)})"))
    for name in batch.nodes:
        mine = np.array([places[n] for n in graph if n[0] == name]).reshape(-1, 2)
        axes.scatter(mine[:, 0], mine[:, 1], s=160, zorder=3, edgecolors="black", linewidths=0.6)
        centre = mine[:, 0].mean() if len(mine) else 0.0
        if len(mine):
            axes.text(centre, mine[:, 1].max() + 0.06, f"{name} ({len(mine)})", ha="center", va="bottom", fontsize=11)
    axes.set_title(title or f"sample {int(batch.ids[sample])}")
    axes.margins(0.08)
    axes.axis("off")
    axes.legend(handles=legend, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(os.fspath(path), dpi=110)


def _layout(batch: GraphBatch, graph: nx.MultiDiGraph) -> dict[tuple[str, int], tuple[float, float]]:
    """Place of each node: types side by side, each in a block of height 1."""
    places: dict[tuple[str, int], tuple[float, float]] = {}
    left = 0.0
    for name in batch.nodes:
        mine = [n for n in graph if n[0] == name]
        spots = np.array([graph.nodes[n]["position"] for n in mine], dtype=np.float64).reshape(len(mine), -1)
        if spots.shape[1] == 2:
            size = max(spots.max() if len(mine) else 0.0, 1.0)
            spots = np.stack([spots[:, 1] / size, 1 - spots[:, 0] / size], 1)
        else:
            rank = np.arange(len(mine)) / max(len(mine) - 1, 1)
            spots = np.stack([0.12 * (np.arange(len(mine)) % 2), 1 - rank], 1)
        for node, (x, y) in zip(mine, spots.tolist(), strict=True):
            places[node] = (left + x, y)
        left += (spots[:, 0].max() if len(mine) else 0.0) + 0.55
    return places

"""The graph engine: message passing over all modalities at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import TokenFusion
from graphfusion.fusion.top_k import LearnedTopK
from graphfusion.graph_builder import HUB, EdgeType, GraphBatch, GraphBuilder, TopKSimilarity
from graphfusion.nn import HeteroLayer, HGTLayer, HubReadout, RGCNLayer, TypedModules
from graphfusion.ops.hetero_attention import EdgeList, Pairs, Plan


class GraphFusion(TokenFusion):
    """`layers` layers x_i ← x_i + Σ_r Σ_j a_rij W_r x_j of attention along typed relations (`HeteroLayer`; by `attention` that of
    Veličković et al. 2018, Brody et al. 2022 or Vaswani et al. 2017; summed over relations as in Schlichtkrull et al. 2018), a
    readout per node type, and one vector from all readouts.

    `readout`: `mean` or `attention` per type, joined by two layers; `hub` takes the unified vector from the hub nodes
    alone (and means per type). `attention`: a mode of `HeteroAttention`, or one for each edge type. `feedforward`: as in
    `HeteroLayer`. Absent modality: 0 rows in every layer; its readout is a learned vector.

    Raises:
        ConfigError: `readout` is unknown, or `hub` where nothing reaches hub nodes.
    """

    edges = True
    layer = HeteroLayer
    mode = ""
    """Of every relation, whatever `attention` says."""

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        attention: str | Mapping[EdgeType, str] = "gat",
        readout: str = "mean",
        dropout: float = 0.0,
        feedforward: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(builder, **settings)
        if readout == "hub":
            _check_hub_readout(builder, layers)
        learned = {t: r for t, r in builder.relations.items() if isinstance(r, TopKSimilarity)}
        self.learned = tuple(learned)
        self.choosers = nn.ModuleList(LearnedTopK(r, dim) for r in learned.values())
        options: dict[str, Any] = {
            "mode": self.mode or attention,
            "dropout": dropout,
            "edge_dims": dict.fromkeys(learned, 1),
            # gathering first costs hubs · dim a head and node, projecting first dim · dim / heads at about three times the rate
            "few": (HUB,) if 0 < 3 * builder.hubs <= dim // heads else (),
            "feedforward": feedforward,
        }
        self.layers = nn.ModuleList(
            self.layer(self.types, builder.edge_types, dim, heads, **options) for _ in range(layers)
        )
        self.norms = TypedModules({name: nn.LayerNorm(dim) for name in self.types})
        self.hub: HubReadout | None = None
        if readout == "hub":
            self.add_readouts(dim, heads, readout)
            self.hub = HubReadout(dim, builder.hubs)
        else:
            self.add_unifier(dim, heads, readout=readout)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        states = in_order(features, self.types)
        pairs, scores = self._pairs(batch, states)
        sizes, ptr = {n: h.shape[0] for n, h in states.items()}, {n: batch.nodes[n].ptr for n in states}
        plans: list[Plan] = next((layer.plans(sizes, pairs, ptr) for layer in self.layers), [])  # type: ignore[operator]
        for layer in self.layers:
            states = layer(states, plans, scores)
        states = {name: self.norms[name](h) for name, h in states.items()}
        if self.hub is None:
            return self.unify(states, batch)
        return FusedGraph(states, self.read(states, batch), self.hub(states[HUB], batch.nodes[HUB].ptr))

    def _pairs(
        self, batch: GraphBatch, states: Mapping[str, Tensor]
    ) -> tuple[dict[EdgeType, Pairs], dict[EdgeType, Tensor]]:
        """The batch's pairs with those of learned relations filled in, and their similarities."""
        pairs, scores = batch.pairs, {}
        for edge_type, choose in zip(self.learned, self.choosers, strict=True):
            a, _, b = edge_type
            edges, scores[edge_type] = choose(states[a], batch.nodes[a], states[b], batch.nodes[b])
            pairs[edge_type] = EdgeList(edges)
        return pairs, scores


def _check_hub_readout(builder: GraphBuilder, layers: int) -> None:
    """ConfigError unless hub nodes are there and hear of other nodes."""
    if not builder.hubs:
        raise ConfigError("readout='hub' needs hub nodes: set hubs to 1 or more.")
    if not layers:
        raise ConfigError("readout='hub' reads what hub nodes have heard, and layers=0 lets them hear nothing.")
    if not any(target == HUB != source for source, _, target in builder.edge_types):
        raise ConfigError(
            "readout='hub' reads what hub nodes have heard, and no relation leads to them: take a graph with hubs, such as 'hub', "
            "or another readout."
        )


class GATFusion(GraphFusion):
    """`GraphFusion` with the attention of Veličković et al. 2018 along every relation:
    a_ij = softmax_j(leaky(a · W x_j + b · W x_i)). Absent modality: as in `GraphFusion`.
    """

    mode = "gat"
    ignores = ("attention", "relation_attention")


class GATv2Fusion(GraphFusion):
    """`GraphFusion` with the attention of Brody et al. 2022 along every relation:
    a_ij = softmax_j(a · leaky(W x_j + U x_i)). Absent modality: as in `GraphFusion`.
    """

    mode = "gatv2"
    ignores = ("attention", "relation_attention")


class HGTFusion(GraphFusion):
    """`GraphFusion` with the messages of the heterogeneous graph transformer (Hu et al. 2020): a_ij = softmax over the edges of
    all relations of (K_s x_j) A_r (Q_t x_i) μ_r / √C (`HGTAttention`). Norms, mlps and readouts are the engine's, so that the
    messages alone differ; dropout leaves a_ij alone. Absent modality: as in `GraphFusion`.

    Raises:
        ConfigError: a learned relation.
    """

    layer = HGTLayer
    ignores = ("attention", "relation_attention")


class RGCNFusion(GraphFusion):
    """`GraphFusion` with the messages of the relational graph convolution (Schlichtkrull et al. 2018):
    W_0 x_i + Σ_r mean_j W_r x_j, no attention (`RGCNConvolution`). Norms, mlps and readouts are the engine's, so that the messages
    alone differ. Absent modality: as in `GraphFusion`.

    Raises:
        ConfigError: a learned relation.
    """

    layer = RGCNLayer
    ignores = ("attention", "relation_attention")

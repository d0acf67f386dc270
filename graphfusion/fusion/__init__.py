"""Fusion strategies by name, one file each. Contract: made from (builder, dim, layers, heads, attention, readout,
dropout, feedforward); `forward(GraphBatch, features) -> FusedGraph`.
"""

from graphfusion.fusion.concat import ConcatFusion
from graphfusion.fusion.fused_graph import FusedGraph
from graphfusion.fusion.graph import GraphFusion
from graphfusion.fusion.transformer import TransformerFusion

FUSIONS: dict[str, type[GraphFusion] | type[ConcatFusion] | type[TransformerFusion]] = {
    "graph": GraphFusion,
    "concat": ConcatFusion,
    "transformer": TransformerFusion,
}

__all__ = ["FUSIONS", "ConcatFusion", "FusedGraph", "GraphFusion", "TransformerFusion"]

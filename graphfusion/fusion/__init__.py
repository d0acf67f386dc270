"""Fusion strategies by name, one file each. Contract: made from (builder, dim, layers, heads, attention, readout,
dropout); `forward(GraphBatch, features) -> FusedGraph`.
"""

from graphfusion.fusion.concat import ConcatFusion
from graphfusion.fusion.fused_graph import FusedGraph
from graphfusion.fusion.graph import GraphFusion

FUSIONS: dict[str, type[GraphFusion] | type[ConcatFusion]] = {"graph": GraphFusion, "concat": ConcatFusion}

__all__ = ["FUSIONS", "ConcatFusion", "FusedGraph", "GraphFusion"]

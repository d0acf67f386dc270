"""Tokens → `GraphBatch`: relation policies, the builder, presets, conversions."""

from graphfusion.graph_builder.batch import EdgeType, GraphBatch, NodeStore
from graphfusion.graph_builder.builder import HUB, GraphBuilder
from graphfusion.graph_builder.convert import draw, from_pyg, to_networkx, to_pyg
from graphfusion.graph_builder.presets import GRAPHS, graph_preset
from graphfusion.graph_builder.relations import (
    RELATIONS,
    AlignedInTime,
    FeatureKNN,
    Full,
    GridNeighbourhood,
    KnowledgePairs,
    OtherSpeaker,
    PositionKNN,
    Relation,
    SameSpan,
    SameSpeaker,
    SelfLoops,
    SequenceWindow,
    Shuffled,
    TimeWindow,
    TopKSimilarity,
    Union,
    knowledge_triples,
    relation_from_dict,
    relation_to_dict,
)

__all__ = [
    "GRAPHS", "HUB", "RELATIONS", "AlignedInTime", "EdgeType", "FeatureKNN", "Full", "GraphBatch", "GraphBuilder",
    "GridNeighbourhood", "KnowledgePairs", "NodeStore", "OtherSpeaker", "PositionKNN", "Relation", "SameSpan",
    "SameSpeaker", "SelfLoops", "SequenceWindow", "Shuffled", "TimeWindow", "TopKSimilarity", "Union", "draw", "from_pyg",
    "graph_preset", "knowledge_triples", "relation_from_dict", "relation_to_dict", "to_networkx", "to_pyg",
]  # fmt: skip

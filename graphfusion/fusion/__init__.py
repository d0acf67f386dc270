"""Every way of fusing, one word each, one small file a family. All take the same batch and give the same `FusedGraph`; the
contract is `FusionStrategy`.
"""

from graphfusion.fusion.bilinear import BilinearFusion
from graphfusion.fusion.co_attention import AlternatingCoAttentionFusion, CoAttentionFusion
from graphfusion.fusion.concat import ConcatFusion
from graphfusion.fusion.cross_attention import CrossAttentionFusion
from graphfusion.fusion.fused_graph import FusedGraph
from graphfusion.fusion.gated import GatedFusion
from graphfusion.fusion.graph import GATFusion, GATv2Fusion, GraphFusion, HGTFusion, RGCNFusion
from graphfusion.fusion.low_rank_tensor import LowRankTensorFusion
from graphfusion.fusion.lstm import LSTMFusion
from graphfusion.fusion.modality_attention import ModalityAttentionFusion
from graphfusion.fusion.output import HardVoteFusion, OutputFusion, SoftVoteFusion, WeightedVoteFusion
from graphfusion.fusion.projection import ProjectionFusion
from graphfusion.fusion.shared_trunk import SharedTrunkFusion
from graphfusion.fusion.split_sequence import SplitSequenceFusion
from graphfusion.fusion.strategy import FusionStrategy, options_of
from graphfusion.fusion.tensor import TensorFusion
from graphfusion.fusion.transformer import DotTransformerFusion, TransformerFusion
from graphfusion.fusion.weighted_sum import MeanFusion, WeightedSumFusion

FUSIONS: dict[str, type[FusionStrategy]] = {
    "graph": GraphFusion,
    "gat": GATFusion,
    "gatv2": GATv2Fusion,
    "hgt": HGTFusion,
    "rgcn": RGCNFusion,
    "transformer": TransformerFusion,
    "dot_transformer": DotTransformerFusion,
    "shared_trunk": SharedTrunkFusion,
    "split_sequence": SplitSequenceFusion,
    "co_attention": CoAttentionFusion,
    "alternating_co_attention": AlternatingCoAttentionFusion,
    "cross_attention": CrossAttentionFusion,
    "modality_attention": ModalityAttentionFusion,
    "gated": GatedFusion,
    "tensor": TensorFusion,
    "low_rank_tensor": LowRankTensorFusion,
    "bilinear": BilinearFusion,
    "projection": ProjectionFusion,
    "concat": ConcatFusion,
    "weighted_sum": WeightedSumFusion,
    "mean": MeanFusion,
    "output_average": OutputFusion,
    "soft_vote": SoftVoteFusion,
    "hard_vote": HardVoteFusion,
    "weighted_vote": WeightedVoteFusion,
    "lstm": LSTMFusion,
}

__all__ = ["FUSIONS", "FusedGraph", "FusionStrategy", "options_of", *sorted(f.__name__ for f in FUSIONS.values())]

"""Blocks: hetero attention, HGT and R-GCN messages and their layers, dense attention over packed
sequences, readouts, position encodings, segments. Plain PyTorch modules.
"""

from graphfusion.nn.hetero_attention import HeteroAttention
from graphfusion.nn.hetero_layer import HeteroLayer, HGTLayer, RGCNLayer
from graphfusion.nn.hgt import HGTAttention
from graphfusion.nn.packing import Packing
from graphfusion.nn.position import PositionEncoding, sinusoids
from graphfusion.nn.pyg import accelerate
from graphfusion.nn.readout import READOUTS, AttentionReadout, HubReadout, MeanReadout
from graphfusion.nn.recurrent import run_recurrent
from graphfusion.nn.rgcn import RGCNConvolution
from graphfusion.nn.segment import segment_mean, segment_softmax, segment_sum
from graphfusion.nn.self_attention import DotAttention, TransformerLayer, cross_plan, self_plan
from graphfusion.nn.typed import TypedModules

__all__ = [
    "READOUTS", "AttentionReadout", "DotAttention", "HGTAttention", "HGTLayer", "HeteroAttention", "HeteroLayer",
    "HubReadout", "MeanReadout", "Packing", "PositionEncoding", "RGCNConvolution", "RGCNLayer", "TransformerLayer",
    "TypedModules", "accelerate", "cross_plan", "run_recurrent", "segment_mean", "segment_softmax", "segment_sum",
    "self_plan", "sinusoids",
]  # fmt: skip

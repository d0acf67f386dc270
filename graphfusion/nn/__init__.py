"""Blocks: hetero attention and its layer, readouts, position encodings, segments. Plain PyTorch modules."""

from graphfusion.nn.hetero_attention import HeteroAttention
from graphfusion.nn.hetero_layer import HeteroLayer
from graphfusion.nn.position import PositionEncoding, sinusoids
from graphfusion.nn.pyg import accelerate
from graphfusion.nn.readout import READOUTS, AttentionReadout, HubReadout, MeanReadout
from graphfusion.nn.segment import segment_mean, segment_softmax, segment_sum
from graphfusion.nn.typed import TypedModules

__all__ = [
    "READOUTS", "AttentionReadout", "HeteroAttention", "HeteroLayer", "HubReadout", "MeanReadout",
    "PositionEncoding", "TypedModules", "accelerate", "segment_mean", "segment_softmax", "segment_sum", "sinusoids",
]  # fmt: skip

"""PyG's `HeteroConv` on the fused attention, with PyG's own parameters."""

from graphfusion.nn.pyg.accelerate import accelerate
from graphfusion.nn.pyg.hetero_conv import AcceleratedHeteroConv

__all__ = ["AcceleratedHeteroConv", "accelerate"]

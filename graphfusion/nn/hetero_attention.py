"""Message passing along all relations of a typed graph. The one seam where another implementation can be put in.

Letters: `N` nodes of a type, `E` edges of a relation, `D` features.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

with warnings.catch_warnings():  # torch-geometric 2.8 uses torch.jit.script, which torch 2.15 deprecates
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    from torch_geometric.nn import GATConv, GATv2Conv, HeteroConv

from graphfusion.errors import ConfigError, unknown_name
from graphfusion.graph_builder import EdgeType

MODES: dict[str, type[nn.Module]] = {"gat": GATConv, "gatv2": GATv2Conv}


class HeteroAttention(nn.Module):
    """Graph attention per relation, summed over the relations into a node.

    `gat`: Veličković et al. 2018 (static: all targets rank the sources alike); `gatv2`: Brody et al. 2022. The softmax
    runs over the edges of one relation into one node.

    Args:
        edge_types: the frozen vocabulary; every call carries all of them, with 0 edges where absent.
        dim, heads: `heads` heads of width `dim / heads` each.
        mode: a key of `MODES`.
        edge_dims: width of the edge features of the relations that have some.
    """

    def __init__(
        self,
        edge_types: Sequence[EdgeType],
        dim: int,
        heads: int,
        mode: str = "gat",
        dropout: float = 0.0,
        edge_dims: Mapping[EdgeType, int] | None = None,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ConfigError(unknown_name("attention mode", mode, MODES))
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        dims = edge_dims or {}
        options = {"heads": heads, "dropout": dropout, "add_self_loops": False}
        parts = {t: MODES[mode]((dim, dim), dim // heads, edge_dim=dims.get(t), **options) for t in edge_types}
        with warnings.catch_warnings():  # a type that no relation reaches is meant: it keeps its state
            warnings.filterwarnings("ignore", message="There exist node types", category=UserWarning)
            self.convolution = HeteroConv(parts, aggr="sum")

    def forward(
        self, x: Mapping[str, Tensor], edges: Mapping[EdgeType, Tensor], edge_features: Mapping[EdgeType, Tensor]
    ) -> dict[str, Tensor]:
        """x[type] (N, D), edges[t] (2, E), edge_features[t] (E, width) → messages (N, D) of the types that receive."""
        out: dict[str, Tensor] = self.convolution(dict(x), dict(edges), edge_attr_dict=dict(edge_features))
        return out

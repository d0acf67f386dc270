"""One layer of the engine: messages along all relations, then a small network per node type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.graph_builder import EdgeType
from graphfusion.nn.hetero_attention import HeteroAttention
from graphfusion.nn.hgt import HGTAttention
from graphfusion.nn.rgcn import RGCNConvolution
from graphfusion.nn.typed import TypedModules
from graphfusion.ops.hetero_attention import Pairs, Plan


class HeteroLayer(nn.Module):
    """x ← x + messages(norm(x)), then x ← x + mlp(norm(x)), norms and mlp per node type (pre-norm, Xiong et al. 2020).

    A node type that no relation reaches keeps its first part unchanged; a type with 0 rows passes through. `feedforward`:
    hidden width of the mlp, 0 for 2 · dim; the other arguments as in `HeteroAttention`.
    """

    def __init__(
        self,
        node_types: Sequence[str],
        edge_types: Sequence[EdgeType],
        dim: int,
        heads: int,
        mode: str | Mapping[EdgeType, str] = "gat",
        dropout: float = 0.0,
        edge_dims: Mapping[EdgeType, int] | None = None,
        few: Sequence[str] = (),
        feedforward: int = 0,
    ) -> None:
        super().__init__()
        self.norms = TypedModules({name: nn.LayerNorm(dim) for name in node_types})
        options = {"mode": mode, "dropout": dropout, "edge_dims": edge_dims, "few": few}
        self.attention = self.messages(node_types, edge_types, dim, heads, **options) if edge_types else None
        self.mlps = TypedModules({name: _mlp(dim, feedforward or 2 * dim, dropout) for name in node_types})
        self.dropout = nn.Dropout(dropout)

    def messages(
        self, node_types: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int, **options: Any
    ) -> nn.Module:
        """The module that makes the messages; `options` are those of `HeteroAttention`."""
        return HeteroAttention(node_types, edge_types, dim, heads, **options)

    def plans(
        self, sizes: Mapping[str, int], pairs: Mapping[EdgeType, Pairs], ptr: Mapping[str, Tensor] | None
    ) -> list[Plan]:
        """What `forward` walks; the same for all layers over one vocabulary."""
        if self.attention is None:
            return []
        found: list[Plan] = self.attention.plans(sizes, pairs, ptr)  # type: ignore[operator]
        return found

    def forward(
        self, x: Mapping[str, Tensor], plans: Sequence[Plan], edge_features: Mapping[EdgeType, Tensor]
    ) -> dict[str, Tensor]:
        """x[type] (N, D) → the same shapes."""
        x = dict(x)
        if self.attention is not None:
            normed = {name: self.norms[name](h) for name, h in x.items()}
            for name, message in self.attention(normed, plans, edge_features).items():
                x[name] = x[name] + self.dropout(message)
        return {name: h + self.mlps[name](h) for name, h in x.items()}


class HGTLayer(HeteroLayer):
    """`HeteroLayer` with the messages of `HGTAttention`; `mode` and `few` have no meaning here, `dropout` none on weights."""

    def messages(
        self, node_types: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int, **options: Any
    ) -> nn.Module:
        """See `HeteroLayer`; ConfigError if edges have features."""
        _refuse_edge_features("hgt", options)
        return HGTAttention(node_types, edge_types, dim, heads)


class RGCNLayer(HeteroLayer):
    """`HeteroLayer` with the messages of `RGCNConvolution`; `mode` and `few` have no meaning here, `dropout` none on weights."""

    def messages(
        self, node_types: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int, **options: Any
    ) -> nn.Module:
        """See `HeteroLayer`; ConfigError if edges have features."""
        _refuse_edge_features("rgcn", options)
        return RGCNConvolution(node_types, edge_types, dim, heads)


def _refuse_edge_features(fusion: str, options: Mapping[str, Any]) -> None:
    if options.get("edge_dims"):
        names = ", ".join(sorted({name for _, name, _ in options["edge_dims"]}))
        raise ConfigError(f"fusion={fusion!r}: its edges have no features, which {names} needs; choose another graph.")


def _mlp(dim: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.Dropout(dropout)
    )

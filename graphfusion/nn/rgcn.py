"""Messages of the relational graph convolution.

Letters: `N` nodes of a type, `D` features, `R` relations leaving a type, `H` heads, `C` width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.graph_builder import EdgeType
from graphfusion.nn.messages import OnePlan, value_dtype
from graphfusion.nn.typed import TypedModules
from graphfusion.ops.hetero_attention import Plan, hetero_attention, hetero_project


class RGCNConvolution(OnePlan, nn.Module):
    """out_i = W_0 x_i + Σ_r 1/|N_r(i)| Σ_{j ∈ N_r(i)} W_r x_j (Schlichtkrull et al. 2018, Modeling relational data with graph
    convolutional networks), W_0 of a node type; relations are few, so W_r is whole. The non-linearity is left to the layer.

    The mean is the engine's attention with equal scores, so rules are walked without edge lists.

    Raises:
        ConfigError: a `dim` that `heads` does not divide.
    """

    def __init__(self, node_types: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        self.node_types, self.edge_types, self.heads = tuple(node_types), tuple(edge_types), heads
        self.targets = tuple(dict.fromkeys(t[2] for t in edge_types))
        self.own = TypedModules({name: nn.Linear(dim, dim) for name in self.targets})
        weight = torch.empty(len(self.edge_types), dim, dim)
        for each in weight:
            nn.init.xavier_uniform_(each)
        self.weight = nn.Parameter(weight)

    def forward(
        self, x: Mapping[str, Tensor], plans: Sequence[Plan], edge_features: Mapping[EdgeType, Tensor]
    ) -> dict[str, Tensor]:
        """x[type] (N, D) → messages (N, D) of the receiving types."""
        (plan,) = plans
        rows = [x[name] for name in self.node_types]
        left = [[self.edge_types.index(r) for r in plan.leaving(name)] for name in self.node_types]
        weight = [self.weight[each].flatten(0, 1).to(value_dtype(rows[0])) for each in left if each]
        made = iter(hetero_project(rows, weight, [t for t, each in enumerate(left) if each]))
        width = self.weight.shape[1] // self.heads
        value = [
            (next(made) if each else a.new_empty(len(a), 0, dtype=value_dtype(a))).view(
                len(a), len(each), self.heads, width
            )
            for a, each in zip(rows, left, strict=True)
        ]
        high = torch.promote_types(rows[0].dtype, torch.float32)
        key = [v.new_zeros(v.shape[:3], dtype=high) for v in value]
        query = [
            a.new_zeros(len(a), len(plan.entering(name)), self.heads, dtype=high)
            for name, a in zip(self.node_types, rows, strict=True)
        ]
        found = hetero_attention(value, key, query, plan, mode="gat")
        return {
            name: self.own[name](a) + message.flatten(1).to(a.dtype)
            for name, a, message in zip(self.node_types, rows, found, strict=True)
            if plan.entering(name)
        }

"""Messages of the heterogeneous graph transformer.

Letters: `N` nodes of a type, `D` features, `R` relations leaving a type, `H` heads, `C` width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.graph_builder import EdgeType
from graphfusion.nn.messages import OnePlan, value_dtype
from graphfusion.nn.typed import TypedModules
from graphfusion.ops.hetero_attention import Plan, hetero_attention, hetero_project


class HGTAttention(OnePlan, nn.Module):
    """Heterogeneous mutual attention and message passing (Hu et al. 2020, Heterogeneous graph transformer):

    score_ij = (K_s x_j) A_r (Q_t x_i) · μ_r / √C, α = softmax over the edges of all relations into i,
    out_i = O_t GELU(Σ_j α_ij (V_s x_j) M_r), with K, Q, V, O of a node type, A, M (C × C a head) and μ (a head) of a relation.

    Equal to PyG's `HGTConv` without its skip connection. K_s A_r μ_r and V_s M_r are multiplied before they meet a node, so that
    the engine's operator does the rest. A node that no edge reaches gets O GELU(0).

    Raises:
        ConfigError: a `dim` that `heads` does not divide.
    """

    def __init__(self, node_types: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        self.node_types, self.edge_types = tuple(node_types), tuple(edge_types)
        self.heads, self.width = heads, dim // heads
        sources = dict.fromkeys(t[0] for t in edge_types)
        self.targets = tuple(dict.fromkeys(t[2] for t in edge_types))
        self.key = TypedModules({name: nn.Linear(dim, dim) for name in sources})
        self.value = TypedModules({name: nn.Linear(dim, dim) for name in sources})
        self.query = TypedModules({name: nn.Linear(dim, dim) for name in self.targets})
        self.out = TypedModules({name: nn.Linear(dim, dim) for name in self.targets})
        self.attend = nn.Parameter(_glorot(len(self.edge_types), heads, self.width))
        self.message = nn.Parameter(_glorot(len(self.edge_types), heads, self.width))
        self.prior = nn.Parameter(torch.ones(len(self.edge_types), heads))

    def forward(
        self, x: Mapping[str, Tensor], plans: Sequence[Plan], edge_features: Mapping[EdgeType, Tensor]
    ) -> dict[str, Tensor]:
        """x[type] (N, D) → messages (N, D) of the receiving types."""
        (plan,) = plans
        rows = [x[name] for name in self.node_types]
        value, key, query = self._project(rows, plan)
        found = hetero_attention(value, key, query, plan, mode="dot", across=True)
        return {
            name: self.out[name](nn.functional.gelu(message.flatten(1).to(a.dtype)))
            for name, a, message in zip(self.node_types, rows, found, strict=True)
            if plan.entering(name)
        }

    def _project(self, rows: Sequence[Tensor], plan: Plan) -> list[list[Tensor]]:
        """Values, keys (N, R, H, C) and queries (N, relations entering, H, C) of each type."""
        weight, bias, of, places = [], [], [], []
        low, high = value_dtype(rows[0]), torch.promote_types(rows[0].dtype, torch.float32)
        dtypes = (low, high, high)
        parts = [[a.new_empty(len(a), 0, self.heads, self.width, dtype=d) for a in rows] for d in dtypes]
        mu = self.attend * self.prior[:, :, None, None]
        for t, name in enumerate(self.node_types):
            leaving = [self.edge_types.index(r) for r in plan.leaving(name)]
            maps: list[tuple[int, Any, Any]] = []
            if leaving:
                maps += [(0, *self._composed(self.value[name], self.message[leaving]))]
                maps += [(1, *self._composed(self.key[name], mu[leaving]))]
            if plan.entering(name):
                maps += [(2, self.query[name].weight, self.query[name].bias)]
            for kind, w, b in maps:
                weight.append(w.to(dtypes[kind]))
                bias.append(b.to(dtypes[kind]))
                of.append(t)
                places.append((kind, t, len(w) // (self.heads * self.width)))
        made = hetero_project(rows, weight, of, bias)
        for (kind, t, count), m in zip(places, made, strict=True):
            parts[kind][t] = m.view(-1, count, self.heads, self.width)
        for t, name in enumerate(self.node_types):
            if plan.entering(name):
                parts[2][t] = parts[2][t].expand(-1, len(plan.entering(name)), -1, -1).contiguous()
        return parts

    def _composed(self, linear: nn.Module, relation: Tensor) -> tuple[Tensor, Tensor]:
        """The map of a node type followed by that of each relation (R, H, C, C): (R·H·C, D), bias (R·H·C,)."""
        weight, bias = linear.weight, linear.bias
        by_head = weight.view(self.heads, self.width, -1)  # type: ignore[operator,union-attr]
        with torch.autocast(relation.device.type, enabled=False):  # keys are logits' and stay whole
            w = torch.einsum("hcd,rhce->rhed", by_head, relation).flatten(0, 2)
            b = torch.einsum("hc,rhce->rhe", bias.view(self.heads, self.width), relation).flatten()  # type: ignore[operator,union-attr]
        return w, b


def _glorot(relations: int, heads: int, width: int) -> Tensor:
    bound = (3.0 / width) ** 0.5
    return torch.empty(relations, heads, width, width).uniform_(-bound, bound)

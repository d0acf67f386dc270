"""Attention of tokens among themselves and to others, over sequences of any lengths packed one after the other.

Letters: `N` tokens, `S` sequences, `D` features, `H` heads, `C` width of a head; sequence `s` owns the tokens `ptr[s]` to
`ptr[s + 1]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.ops.hetero_attention import Dense, Plan, hetero_attention, make_plan

TOKEN, CONTEXT = "token", "context"


class DotAttention(nn.Module):
    """Multi-head attention of each token to all tokens of a context: a_ij = softmax_j(q_i · k_j / √C), out_i = W Σ_j a_ij v_j
    (Vaswani et al. 2017); without `scaled`, a_ij = softmax_j(q_i · k_j) (Luong et al. 2015). Sequences are packed, so that
    there is no padding; the attention is one call of the engine's own operator. A token whose context is empty gets W 0 + b.
    `dropout`: share of the weights a_ij that is left out in training, the rest scaled up.

    Raises:
        ConfigError: a `dim` that `heads` does not divide.
    """

    def __init__(self, dim: int, heads: int, scaled: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        self.heads, self.width, self.dropout = heads, dim // heads, dropout
        self.scale = 1.0 if scaled else self.width**0.5  # the operator divides by √C
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor | None, plan: Plan) -> Tensor:
        """X (N, D), context (M, D) or None for `x` itself, `plan` from `self_plan` or `cross_plan` → (N, D)."""
        source = x if context is None else context
        tail = (1, self.heads, self.width)
        high = torch.promote_types(x.dtype, torch.float32)  # logits, under autocast too
        query = (self.query(x) * self.scale).view(-1, *tail).to(high)
        key, value = self.key(source).view(-1, *tail).to(high), self.value(source).view(-1, *tail)
        dropout = self.dropout if self.training else 0.0
        if context is None:
            found = hetero_attention([value], [key], [query], plan, mode="dot", dropout=dropout)
        else:
            values, keys = [value.new_empty(len(x), *tail)[:, :0], value], [query[:, :0], key]
            found = hetero_attention(values, keys, [query, key[:, :0]], plan, mode="dot", dropout=dropout)
        out: Tensor = self.out(found[0].flatten(1).to(x.dtype))
        return out


class TransformerLayer(nn.Module):
    """x ← x + attention(norm(x)), then x ← x + mlp(norm(x)) over packed sequences (pre-norm: Xiong et al. 2020).

    `feedforward`: hidden width of the mlp, 0 for 4 · dim.
    """

    def __init__(self, dim: int, heads: int, feedforward: int = 0, dropout: float = 0.0, scaled: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = DotAttention(dim, heads, scaled, dropout)
        wide = feedforward or 4 * dim
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, wide), nn.GELU(), nn.Dropout(dropout), nn.Linear(wide, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, plan: Plan) -> Tensor:
        """X (N, D), plan from `self_plan` → (N, D)."""
        x = x + self.dropout(self.attention(self.norm(x), None, plan))
        out: Tensor = x + self.dropout(self.mlp(x))
        return out


def self_plan(rows: int, ptr: Tensor) -> Plan:
    """Every token to every token of its sequence; ptr (S + 1,)."""
    return make_plan({TOKEN: rows}, {(TOKEN, "all", TOKEN): Dense()}, {TOKEN: ptr})


def cross_plan(rows: int, ptr: Tensor, context_rows: int, context_ptr: Tensor) -> Plan:
    """Every token of a context to every token of the sequence of the same number."""
    return make_plan(
        {TOKEN: rows, CONTEXT: context_rows},
        {(CONTEXT, "all", TOKEN): Dense()},
        {TOKEN: ptr, CONTEXT: context_ptr},
    )

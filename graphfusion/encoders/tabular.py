"""Encoder of table columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore


class TabularEncoder(nn.Module):
    """(N, 2) of column number and value → (N, dim): a vector per column, plus value · vector for a number or the
    category's vector (the feature tokenizer of Gorishniy et al. 2021).

    `numeric` says of each column whether it holds a number; `categories` is the number of category ids.
    """

    numeric: Tensor

    def __init__(self, dim: int, numeric: list[bool], categories: int) -> None:
        super().__init__()
        self.register_buffer("numeric", torch.tensor(numeric), persistent=False)
        self.column = nn.Embedding(len(numeric), dim)
        self.slope = nn.Embedding(len(numeric), dim)
        self.category = nn.Embedding(categories, dim)
        self.mix = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        column, value = nodes.position[:, 0], nodes.values[:, 1:]
        numeric = self.numeric[column]
        ids = torch.where(numeric, torch.zeros_like(column), nodes.values[:, 1].long())
        content = torch.where(numeric[:, None], value * self.slope(column), self.category(ids))
        h = self.column(column) + content
        out: Tensor = self.norm(h + self.mix(h))
        return out

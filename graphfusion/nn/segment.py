"""Sums, means and softmax over packed segments, exact for empty ones.

Letters: `N` rows, `B` segments; segment `b` owns rows `ptr[b]` to `ptr[b + 1]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphfusion.graph_builder.batch import owner_of_row


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """(N, …) → (B, …); an empty segment gives 0."""
    index = owner_of_row(ptr, len(x))
    return x.new_zeros(len(ptr) - 1, *x.shape[1:]).index_add(0, index, x)


def segment_mean(x: Tensor, ptr: Tensor) -> Tensor:
    """(N, …) → (B, …); an empty segment gives 0."""
    count = ptr.diff().clamp_min(1).to(x.dtype)
    return segment_sum(x, ptr) / count.view(-1, *[1] * (x.dim() - 1))


def segment_softmax(logits: Tensor, ptr: Tensor) -> Tensor:
    """(N, …) → (N, …), positive and with sum 1 in each segment that is not empty."""
    index = owner_of_row(ptr, len(logits))
    top = logits.new_full((len(ptr) - 1, *logits.shape[1:]), -torch.inf)
    spread = index.view(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    top = top.scatter_reduce(0, spread, logits.detach(), "amax")
    weight = (logits - top[index]).exp()
    return weight / segment_sum(weight, ptr)[index]

"""Matrix products of the projections.

`torch.mm` in float32 on a CPU calls MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN, which PyTorch
ships too, uses AVX-512 there and was 2.3 times faster (benchmarks/attention.py prints both rates).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


@cache
def _onednn() -> bool:
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _takes(*tensors: Tensor) -> bool:
    return _onednn() and all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in tensors)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, D), (K, D) → x @ weight.T + bias (N, K)."""
    if _takes(x, weight):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return torch.nn.functional.linear(x, weight, bias)


def add_product(total: Tensor | None, grad: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Total (N, D) + grad (N, K) @ weight (K, D), in `dtype`."""
    if _takes(grad, weight) and dtype == torch.float32:
        if total is None:
            return linear(grad, weight.t())
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(grad, total, weight.t(), None, "add")
        return out
    product = (grad @ weight).to(dtype)
    return product if total is None else total.add_(product)


def outers(grads: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """(N, K) each, (N, D) → grad.T @ x (K, D) each."""
    # on narrow features oneDNN splits the long sum among threads, so that their number would change bits; MKL does not
    if not _takes(x, *grads) or x.shape[1] < 128:
        return [g.t() @ x for g in grads]
    packed = x.to_mkldnn()
    out = []
    for g in grads:
        shape = x.new_empty(g.shape[1], x.shape[1]).to_mkldnn()  # of the weight only the shape is read
        out.append(torch.ops.aten.mkldnn_linear_backward_weights(g.to_mkldnn(), packed, shape, False)[0].to_dense())
    return out

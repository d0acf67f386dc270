"""All linear maps of a layer in one launch, their gradients in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from triton.language import constexpr

from graphfusion.ops.hetero_attention.gpu import interpreted
from graphfusion.ops.hetero_attention.gpu.config import grouped
from graphfusion.ops.hetero_attention.gpu.kernels import project as kernels

NODES = -1
"""A size that is the number of nodes."""


@dataclass(frozen=True)
class Part:
    """A (down, inner) times B (inner, across), with the strides of both; see `kernels.project`."""

    a: Tensor
    b: Tensor
    inner: int
    strides: tuple[int, int, int, int]


@dataclass(frozen=True)
class Product:
    """The sum of its parts, to be written to `out` (down, across)."""

    out: Tensor
    down: int
    nodes: int
    parts: Sequence[Part]
    bias: Tensor | None = None


def forward(x: Sequence[Tensor], weight: Sequence[Tensor], bias: Sequence[Tensor], of: Sequence[int]) -> list[Tensor]:
    """Output k: x[of[k]] @ weight[k].T (+ bias[k])."""
    x, weight = [t.contiguous() for t in x], [w.contiguous() for w in weight]
    out = [w.new_empty(len(x[t]), len(w)) for t, w in zip(of, weight, strict=True)]
    _launch([
        Product(out[k], NODES, len(x[t]), [Part(x[t], w, w.shape[1], (w.shape[1], 1, 1, w.shape[1]))], bias[k] if bias else None)
        for k, (t, w) in enumerate(zip(of, weight, strict=True))
    ])  # fmt: skip
    return out


def backward(grad: Sequence[Tensor], x: Sequence[Tensor], weight: Sequence[Tensor], of: Sequence[int]) -> list[Tensor]:
    """Gradients of x, zeros for features that no map reads, and of weight."""
    grad = [g.contiguous() for g in grad]
    x, weight = [t.contiguous() for t in x], [w.contiguous() for w in weight]
    dx = [torch.empty_like(t) if k in of else torch.zeros_like(t) for k, t in enumerate(x)]
    dweight = [torch.empty_like(w) for w in weight]
    rows = []
    for t, features in enumerate(x):
        parts = [Part(grad[k], w, len(w), (len(w), 1, w.shape[1], 1)) for k, w in enumerate(weight) if of[k] == t]
        if parts:
            rows.append(Product(dx[t], NODES, len(features), parts))
    _launch(rows)
    _launch([
        Product(dweight[k], len(w), len(x[t]), [Part(grad[k], x[t], NODES, (1, len(w), w.shape[1], 1))])
        for k, (t, w) in enumerate(zip(of, weight, strict=True))
    ])  # fmt: skip
    return [*dx, *dweight]


def _launch(products: Sequence[Product]) -> None:
    products = [p for p in products if p.out.shape[1]]  # not by rows: kernels are compiled for the list
    sizes = grouped()
    parts = [part for p in products for part in p.parts]
    first = [sum(len(p.parts) for p in products[:i]) for i in range(len(products))]
    blocks = sum(-(-len(p.out) // sizes["M"]) * -(-p.out.shape[1] // sizes["N"]) for p in products)
    if not blocks:
        return
    biased = products[0].bias is not None
    kernels.grouped[(blocks,)](
        tuple(part.a for part in parts), tuple(part.b for part in parts),
        tuple(p.out if p.bias is None else p.bias for p in products), tuple(p.out for p in products),
        tuple(float(p.nodes) for p in products),
        PRODUCTS=tuple(
            constexpr((p.down, p.out.shape[1], first[i], first[i] + len(p.parts))) for i, p in enumerate(products)
        ),
        PARTS=tuple(constexpr((part.inner, *part.strides)) for part in parts),
        BIAS=biased, WHOLE=interpreted(), PRECISION="tf32x3", **sizes,
    )  # fmt: skip

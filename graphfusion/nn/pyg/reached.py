"""Which outputs a backward pass came through. Parameters of the others keep no gradient, as in PyG: an optimiser passes over
None, but gives momentum and decay their way with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Reached = set[str]
"""Node types whose output has had a gradient; filled while a backward pass runs."""


def watched(out: Tensor, node_type: str, reached: Reached) -> Tensor:
    """The same, noting in `reached` when a gradient comes by."""
    if torch.compiler.is_compiling() or not out.requires_grad:
        return out
    found: Tensor = _Watch.apply(out, node_type, reached)
    return found


def stacked(parts: Sequence[Tensor], targets: Sequence[str], reached: Reached) -> Tensor:
    """The parts one after another along their first dimension; part k gets a gradient only if `targets[k]` was reached."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return torch.cat(list(parts))
    found: Tensor = _Stack.apply(tuple(targets), reached, *parts)
    return found


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, node_type: str, reached: Reached) -> Tensor:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        ctx.node_type, ctx.reached = node_type, reached
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:  # type: ignore[override]
        if grad is not None:
            ctx.reached.add(ctx.node_type)
        return grad, None, None


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, targets: tuple[str, ...], reached: Reached, *parts: Tensor) -> Tensor:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        ctx.targets, ctx.reached, ctx.lengths = targets, reached, [len(part) for part in parts]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:  # type: ignore[override]
        if grad is None:
            return None, None, *[None] * len(ctx.lengths)
        parts = torch.split(grad, ctx.lengths)
        return None, None, *(p if t in ctx.reached else None for p, t in zip(parts, ctx.targets, strict=True))

"""Which outputs a backward pass came through. Parameters of the others keep no gradient, as in PyG: an optimiser passes over
None, but gives momentum and decay their way with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Reached = set[tuple[str, int]]
"""Node type whose output has had a gradient, and the backward pass in which it had; filled while a pass runs."""


def watch(out: Tensor, node_type: str, reached: Reached) -> None:
    """Note in `reached` when a gradient comes by."""
    if not torch.compiler.is_compiling() and out.requires_grad:

        def note(grad: Tensor | None) -> None:
            if grad is not None:
                reached.add((node_type, _this_pass()))

        out.register_hook(note)  # type: ignore[no-untyped-call]


def _this_pass() -> int:
    """Number of the backward pass that runs."""
    number: int = torch._C._current_graph_task_id()
    return number


def stacked(parts: Sequence[Tensor], targets: Sequence[str], reached: Reached) -> Tensor:
    """The parts one after another along their first dimension; part k gets a gradient only if `targets[k]` was reached."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return torch.cat(list(parts))
    found: Tensor = _Stack.apply(tuple(targets), reached, *parts)
    return found


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
        now = _this_pass()
        return None, None, *(p if (t, now) in ctx.reached else None for p, t in zip(parts, ctx.targets, strict=True))

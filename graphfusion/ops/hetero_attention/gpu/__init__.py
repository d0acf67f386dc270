"""The GPU backend: Triton kernels, which `calls` loads when they are first needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_ROWS = 2**24
"""The grouped projection is told of numbers of nodes as float32, which counts so far."""


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU (`TRITON_INTERPRET=1`): slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def where(tensor: Tensor) -> AbstractContextManager[None]:
    """Launches go to the device of a tensor; Triton's go to the current one."""
    found: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return found


def why_not() -> str:
    """Why kernels cannot run here; "" if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed (on Linux it comes with torch)"
    if not (torch.cuda.is_available() or interpreted()):
        return "there is no GPU"
    return ""


def why_not_this(value: Sequence[Tensor], query: Sequence[Tensor], top_k: int) -> str:
    """Why the kernels cannot take these tensors; "" if they can."""
    if why_not():
        return why_not()
    if any(t.device.type != "cuda" for t in (*value, *query)) and not interpreted():
        return "it runs on CUDA tensors only"
    if any(v.dtype not in DTYPES for v in value) or any(q.dtype != torch.float32 for q in query):
        return "it takes float32, bfloat16 or float16 values and float32 queries"
    return "it does not choose the largest scores (top_k)" if top_k else ""


def why_not_these_maps(x: Sequence[Tensor], weight: Sequence[Tensor]) -> str:
    """Why the grouped projection cannot take these features and maps; "" if it can."""
    if why_not():
        return why_not()
    if any(t.device.type != "cuda" for t in (*x, *weight)) and not interpreted():
        return "it runs on CUDA tensors only"
    if any(t.dtype not in DTYPES for t in (*x, *weight)):
        return "it takes float32, bfloat16 or float16"
    return f"it takes at most {MOST_ROWS:,} nodes" if any(len(t) > MOST_ROWS for t in x) else ""


def project_forward(
    x: Sequence[Tensor], weight: Sequence[Tensor], bias: Sequence[Tensor], of: Sequence[int]
) -> list[Tensor]:
    """All linear maps of `hetero_project` in one launch."""
    from graphfusion.ops.hetero_attention.gpu.project import forward

    with where(x[0]):
        return forward(x, weight, bias, of)


def project_backward(
    grad: Sequence[Tensor], x: Sequence[Tensor], weight: Sequence[Tensor], of: Sequence[int]
) -> list[Tensor]:
    """Gradients of x and of the maps, in two launches."""
    from graphfusion.ops.hetero_attention.gpu.project import backward

    with where(x[0]):
        return backward(grad, x, weight, of)


class Backend:
    """Triton kernels as a backend; `form`: how every relation is evaluated that can be (see `forms`), "" for the cheapest."""

    def __init__(self, form: str = "") -> None:
        self.form = form

    def forward(self, *arguments: Any) -> list[Tensor]:
        """Outputs of each node type; arguments as of `reference.attention`."""
        from graphfusion.ops.hetero_attention.gpu.calls import Call

        return Call(self.form, *arguments).forward()

    def backward(self, grad: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
        """Gradients of value, key, query, att (if there is one) and edge, one after another."""
        from graphfusion.ops.hetero_attention.gpu.calls import Call

        return Call(self.form, *arguments).backward(grad)

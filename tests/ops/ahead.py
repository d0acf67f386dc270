"""Compiles the Triton kernels of one call ahead of time, without a GPU: `python -m tests.ops.ahead MODE` prints a JSON line for each
kernel and architecture.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

HEADS, WIDTH = 8, 32
DTYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


class Compiled:
    """Stands in for a kernel: what would be launched is compiled."""

    def __init__(self, kernel: Any, archs: tuple[int, ...]) -> None:
        self.kernel, self.archs = kernel, archs

    def __getitem__(self, grid: Any) -> Any:
        return self.compile

    def compile(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
        """Print what became of it."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        signature = {n: kind(a) for n, a in zip(names, arguments, strict=False)} | dict.fromkeys(constants, "constexpr")
        places = {(names.index(name),): value for name, value in constants.items()}
        for arch in self.archs:
            source = ASTSource(self.kernel, signature=signature, constexprs=places)
            made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": num_warps})
            used = usage(made.asm["cubin"])
            print(json.dumps({"kernel": self.kernel.__name__, "arch": arch, "shared": made.metadata.shared, **used}))


def kind(argument: Any) -> Any:
    """How a signature names the type of an argument."""
    if isinstance(argument, torch.Tensor):
        return f"*{DTYPES[argument.dtype]}"
    if isinstance(argument, tuple):
        return tuple(map(kind, argument))
    return "fp32" if isinstance(argument, float) else "i64" if abs(argument) >= 2**31 else "i32"


def usage(cubin: bytes) -> dict[str, int]:
    """Registers and bytes of stack of a thread."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        told = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return {
        name: int(re.findall(rf"{word}:(\d+)", told)[-1]) for name, word in (("registers", "REG"), ("stack", "STACK"))
    }


def main(mode: str) -> None:
    """Forward and both passes of the backward over listed edges and hub nodes, values in bfloat16."""
    from graphfusion.ops.hetero_attention import Broadcast, EdgeList, make_plan
    from graphfusion.ops.hetero_attention.gpu import calls, walk
    from tests.ops.cases import inputs_for

    archs = {"forward": (80, 90, 100) if mode == "gat" else (90,), "backward_targets": (90,), "backward_sources": (90,)}
    calls.walk = SimpleNamespace(**{name: Compiled(getattr(walk, name), a) for name, a in archs.items()})
    sizes = {"a": 9, "hub": 2}
    pairs = {("a", "near", "a"): EdgeList(torch.tensor([[0, 1], [1, 2]])), ("hub", "all", "a"): Broadcast(),
             ("a", "all", "hub"): Broadcast()}  # fmt: skip
    x = inputs_for(make_plan(sizes, pairs), sizes, HEADS, WIDTH, mode).stored(torch.bfloat16)
    parts = (x.value, x.key, x.query, x.att, [], list(x.plan.index), list(x.plan.layout))
    call = calls._Call(*parts, mode, 0.2, 0.1, torch.zeros(1, dtype=torch.int64), False)
    call.outputs(0)
    call.grad = [torch.zeros(len(q), 1, HEADS, WIDTH) for q in call.query]
    call.dedge, call.datt = [], None if call.att is None else torch.zeros_like(call.att)
    call.log_sum = call.mean = [torch.zeros(len(q), q.shape[1], HEADS) for q in call.query]
    call._of_targets(0)
    call._of_sources(0)


if __name__ == "__main__":
    main(sys.argv[1])

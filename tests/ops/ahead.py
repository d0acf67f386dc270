"""Compiles the Triton kernels of one call ahead of time, without a GPU: `python -m tests.ops.ahead FORM MODE DTYPE WIDTH
ARCH …`, values in DTYPE and heads of WIDTH numbers, prints a JSON line for each kernel and architecture.
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
from unittest import mock

import torch

HEADS = 8
PASSES = ("forward", "backward_targets", "backward_sources", "rank", "running", "combine")
"""Kernels that are launched; the others are parts of them."""
DTYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


class Device:
    """Stands in for a GPU: kernels are compiled for it as they are before a launch, with what their arguments are."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> Any:
        """Its architecture."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, _: int = 0) -> int:
        """The only one."""
        return 0


class Compiled:
    """Stands in for a kernel: what would be launched is compiled, the first time or `every` time."""

    def __init__(self, kernel: Any, arch: int, every: bool = False) -> None:
        self.kernel, self.arch, self.every, self.done = kernel, arch, every, False

    def __getitem__(self, grid: Any) -> Any:
        return self.compile

    def compile(self, *arguments: Any, **constants: Any) -> None:
        """Print what became of it."""
        from triton.runtime import driver

        if self.done and not self.every:
            return
        self.done = True
        driver.set_active(Device(self.arch))
        self.kernel.device_caches.clear()
        made = self.kernel.warmup(*arguments, grid=(1,), **constants)
        used = usage(made.asm["cubin"])
        told = {"kernel": self.kernel.__name__, "arch": self.arch, "shared": made.metadata.shared, **used}
        print(json.dumps(told), flush=True)


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


def main(form: str, mode: str, dtype: str, width: int, archs: tuple[int, ...]) -> None:
    """Every kernel of a form, forward and backward: over listed edges and hub nodes (`walk`), over rules without
    lists (`rules`, walked too), or over a dense relation and a mask (`tiles`).
    """
    for arch in archs:
        if form == "project":
            projections(getattr(torch, dtype), width, arch)
        else:
            attention(form, mode, getattr(torch, dtype), width, arch)


def attention(form: str, mode: str, dtype: torch.dtype, width: int, arch: int) -> None:
    """The kernels of one call."""
    from graphfusion.ops.hetero_attention import Bitmask, Broadcast, Dense, EdgeList, Grid, Window, make_plan
    from graphfusion.ops.hetero_attention.gpu import calls
    from tests.ops.cases import inputs_for

    sizes = {"a": 9, "hub": 2}
    listed = torch.tensor([[0, 1], [1, 2]])
    ptr = {n: torch.tensor([0, size]) for n, size in sizes.items()}
    pairs = {
        "walk": {
            ("a", "near", "a"): EdgeList(listed),
            ("hub", "all", "a"): Broadcast(),
            ("a", "all", "hub"): Broadcast(),
        },
        "rules": {
            ("a", "window", "a"): Window(-2, 2),
            ("a", "grid", "a"): Grid(torch.tensor([3], dtype=torch.int32)),
            ("a", "all", "a"): Dense(loops=False),
            ("a", "mask", "a"): Bitmask.from_edges(listed, ptr["a"], ptr["a"]),
        },
        "tiles": {("a", "all", "a"): Dense(), ("a", "mask", "a"): Bitmask.from_edges(listed, ptr["a"], ptr["a"])},
        "scan": {("a", "all", "a"): Dense()},
    }[form]
    form = "walk" if form == "rules" else form
    launches = getattr(calls, form)
    found = vars(launches.kernels).items()
    compiled = SimpleNamespace(**{n: Compiled(k, arch) for n, k in found if hasattr(k, "arg_names") and n in PASSES})
    x = inputs_for(make_plan(sizes, pairs, ptr), sizes, HEADS, width, mode).stored(dtype)
    parts = (x.value, x.key, x.query, x.att, [], list(x.plan.index), list(x.plan.layout))
    dropout = 0.0 if form == "scan" else 0.1
    with (
        mock.patch.object(launches, "kernels", compiled),
        mock.patch.object(calls.tiles, "architecture", return_value=arch),
    ):
        call = calls.Call(form, *parts, mode, 0.2, dropout, torch.zeros(1, dtype=torch.int64), 0, False)
        call.forward()
        call.backward([torch.zeros(len(q), min(1, q.shape[1]), HEADS, width) for q in call.query])


def projections(dtype: torch.dtype, width: int, arch: int) -> None:
    """The grouped projection, forward, and backward to features and to maps: two types, logits in float32."""
    from graphfusion.ops.hetero_attention.gpu import project

    columns = HEADS * width
    x, of = [torch.zeros(9, columns), torch.zeros(2, columns)], [0, 1, 0, 1]
    rows = [2 * columns, columns, 2 * HEADS, HEADS]
    weight = [torch.zeros(n, columns, dtype=dtype if n > 2 * HEADS else torch.float32) for n in rows]
    compiled = SimpleNamespace(grouped=Compiled(project.kernels.grouped, arch, every=True))
    with mock.patch.object(project, "kernels", compiled):
        made = project.forward(x, weight, [], of)
        project.backward(made, x, weight, of)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), tuple(map(int, sys.argv[5:])))

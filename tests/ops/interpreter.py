"""Triton's interpreter, fast enough for tests: it patches its language anew at each call of a helper, which takes longer than the
call; once a launch is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock


@contextmanager
def interpreted_kernels() -> Iterator[ModuleType]:
    """The module of the GPU backend's calls; its kernels are interpreted, since `tests/conftest.py` has set TRITON_INTERPRET."""
    import triton.runtime.interpreter as interpreter

    from graphfusion.ops.hetero_attention.gpu import calls

    patched: set[int] = set()
    launch = interpreter.GridExecutor.__call__

    def launch_once(self: Any, *args: Any, **options: Any) -> Any:
        patched.clear()
        patched.add(id(self.fn.__globals__))
        return launch(self, *args, **options)

    def call(self: Any, *args: Any, **options: Any) -> Any:
        if id(self.fn.__globals__) not in patched:
            patched.add(id(self.fn.__globals__))
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **options)

    with (
        mock.patch.object(interpreter.GridExecutor, "__call__", launch_once),
        mock.patch.object(interpreter.InterpretedFunction, "__call__", call),
    ):
        yield calls

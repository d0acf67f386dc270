"""The C++ kernels as a loaded library: plain C, by ctypes.

Nothing is compiled or loaded at import. A machine without a C++ compiler has no kernels: `why_not` says so.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from graphfusion.errors import GraphError


@cache
def _library() -> ctypes.CDLL | str:
    """The loaded kernels, or why there are none."""
    found = [f for f in (Path(__file__).with_name("_kernels" + end) for end in EXTENSION_SUFFIXES) if f.is_file()]
    if not found:
        return "the C++ kernels were not built: they need a C++ compiler with OpenMP at installation; `pip install -v .` says more"
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return f"the C++ kernels in {found[0]} cannot be loaded: {error}"
    library.graphfusion_index.restype = ctypes.c_int64
    return library


def why_not() -> str:
    """Why the kernels cannot run on this machine; "" if they can."""
    found = _library()
    return found if isinstance(found, str) else ""


def lanes() -> int:
    """Floats in a vector of the kernels in use: 16 (AVX-512), 8 (AVX2) or 4."""
    return int(kernels().graphfusion_lanes())


def kernels() -> ctypes.CDLL:
    """The library.

    Raises:
        GraphError: there is none.
    """
    found = _library()
    if isinstance(found, str):
        raise GraphError(f"backend 'cpu' cannot run: {found}.")
    return found

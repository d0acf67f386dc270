"""A function in a process of its own: what it ends with, and what it took."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ending:
    """`signal` that ended the process (0: none), what the function gave back, by how many bytes memory grew at its peak, and
    how many seconds of processor time it took.
    """

    signal: int
    value: Any = None
    grown: int = 0
    seconds: float = 0.0


def peak_mb() -> float:
    """Largest memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # that of getrusage counts the parent's too
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def fork(action: Callable[[int], None]) -> tuple[int, int]:
    """Start `action(pipe)` in a copy of this process; the copy's number, and the end of the pipe to read from."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the copy runs plain Python only
        child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        action(writing)
        status = 0
    except BaseException:  # it must end here: what called `fork` is the parent's
        traceback.print_exc()
    finally:
        os._exit(status)


def apart(function: Callable[[], Any]) -> Ending:
    """How a function ends in a copy of this process; what it gives back must be JSON."""
    _trim()
    child, pipe = fork(lambda writing: _report(function, writing))
    with os.fdopen(pipe, "rb") as reading:
        told = reading.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return Ending(os.WTERMSIG(status))
    return Ending(0, *json.loads(told or b"[null, 0, 0]"))


def _trim() -> None:
    """Give freed memory back, so that a copy of this process cannot grow into it unseen (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _report(function: Callable[[], Any], pipe: int) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    value = function()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    os.write(pipe, json.dumps([value, grown * 1024, time.process_time() - began]).encode())

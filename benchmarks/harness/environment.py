"""Where a run was made, and what it took."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from graphfusion.cli.doctor import processor

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Machine, versions, commit and command; to be taken when a command begins, before anything is edited meanwhile."""
    names = ("torch", "torch-geometric", "numpy")
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": " ".join(f"{n}={version(n)}" for n in names) + f" python={platform.python_version()}",
        "commit": _commit(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
    }


def _commit() -> str:
    """Short hash; `-dirty` if a tracked file is not as committed, but for results, which a table appends to, or if there is Python
    code that is not tracked.
    """
    lines = _git("status", "--porcelain", "--untracked-files=all", "--", ".", ":!benchmarks/results").splitlines()
    changed = [line for line in lines if not line.startswith("??") or line.endswith(".py")]
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip()


def memory_mb(name: str) -> float:
    """`VmHWM` (peak) or `VmRSS` (now) of this process; NaN where Linux's /proc is not there."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), float("nan"))


def end_with_the_parent() -> None:
    """A worker whose parent is killed goes too (Linux), in place of working on for nobody."""
    import ctypes
    import signal

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

"""`graphfusion doctor`."""

from __future__ import annotations

import argparse
import os
import platform
import re
from importlib import metadata
from pathlib import Path

from graphfusion.cli.parser import Parser
from graphfusion.cli.streams import to_stdout

SENTENCE = "What this machine can run, and what to do about what is missing."
EXAMPLE = "graphfusion doctor"


def add_options(parser: Parser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    with to_stdout():
        print("\n".join([*machine(), *backends(), *packages()]))
    return 0


def machine() -> list[str]:
    """Versions of graphfusion, Python and torch; processor."""
    import torch

    import graphfusion

    return [
        f"graphfusion {graphfusion.__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        f"machine: {platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads in use",
    ]


def processor() -> str:
    """What the processor is called where Linux's /proc says so, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def backends() -> list[str]:
    """Backends of the attention and devices, each with the reason why it cannot run."""
    import torch

    from graphfusion.ops.hetero_attention import backends, library

    lines = []
    for name, reason in backends().items():
        width = f", {library.lanes()} floats a vector" if name == "cpu" and not reason else ""
        lines.append(f"attention backend {name:<10} {f'cannot run: {reason}' if reason else f'ready{width}'}")
    lines.append(f"attention tried: {_attention()}")
    if not torch.cuda.is_available():
        return [*lines, f"CUDA device: none ({_why_no_gpu()}); everything runs on the CPU"]
    return [
        *lines,
        f"CUDA device: {torch.cuda.get_device_name()}",
        "on CUDA attention runs in plain PyTorch (reference), or with GRAPHFUSION_ATTENTION=triton in the environment on kernels "
        "that wait to be measured",
    ]


def _attention() -> str:
    """What came of a few odd graphs on every backend that is ready."""
    import tempfile
    from pathlib import Path

    from graphfusion.selftest import CHECKS

    with tempfile.TemporaryDirectory() as folder:
        figure = CHECKS["I50"](Path(folder), False)
    return f"{figure.passed} of {figure.total} graphs right {figure.note}"


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    return f"this torch is built for CUDA {torch.version.cuda}, but finds no GPU or no driver"


def packages() -> list[str]:
    """Versions of the libraries that graphfusion uses, by what they are for; what is missing, and how to get it."""
    needed: dict[str, list[str]] = {}
    for line in metadata.requires("graphfusion") or ():
        marker = re.search(r"extra == ['\"]([\w-]+)", line)
        needed.setdefault(marker[1] if marker else "", []).append(re.split(r"[^\w.-]", line)[0])
    lines = []
    for extra, names in needed.items():
        versions = {name: _version(name) for name in names}
        there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        missing = ", ".join(name for name, version in versions.items() if not version)
        what = f"extra {extra!r}" if extra else "libraries"
        advice = f"pip install '.[{extra}]' in a clone" if extra else "pip install . in a clone"
        lines.append(f"{what}: {there or 'none'}" + (f"; missing: {missing} ({advice})" if missing else ""))
    return lines


def _version(name: str) -> str:
    """Version of an installed package, empty if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""

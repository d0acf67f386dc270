"""The command line: `graphfusion doctor` says what this machine can run."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence


def doctor() -> str:
    """Versions, devices and backends of this machine, and what to do about what is missing."""
    import torch

    import graphfusion
    from graphfusion.ops.hetero_attention import backends, library

    lines = [
        f"graphfusion {graphfusion.__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        f"machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
    ]
    for name, reason in backends().items():
        lines.append(f"attention backend {name:<10} {f'cannot run: {reason}' if reason else 'ready'}")
    if not library.why_not():
        lines[-2] += f", {library.lanes()} floats a vector"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; everything runs on the CPU"
    lines.append(f"CUDA device: {gpu}")
    if torch.cuda.is_available():
        lines.append("on CUDA attention runs in plain PyTorch (reference); there are no kernels for it yet")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `graphfusion` command."""
    parser = argparse.ArgumentParser(prog="graphfusion", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what this machine can run")
    parser.parse_args(arguments)
    print(doctor())


if __name__ == "__main__":
    main()

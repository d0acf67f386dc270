"""What traces a call, if anything does."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether `torch.export` does. `torch.compiler.is_exporting` says so too, but as torch 2.11 compiles it, it is always true."""
    found: bool = torch.compiler._is_exporting_flag
    return found

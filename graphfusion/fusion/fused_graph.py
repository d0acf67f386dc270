"""What a fusion strategy gives: node states, a vector per modality, one vector per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from graphfusion.errors import GraphError


@dataclass(frozen=True)
class FusedGraph:
    """`states[type]` (N, D) of each node, `readouts[type]` (B, D) of each modality, `unified` (B, D) of each sample.

    Raises:
        GraphError: a readout does not have one row for each sample.
    """

    states: Mapping[str, Tensor]
    readouts: Mapping[str, Tensor]
    unified: Tensor

    def __post_init__(self) -> None:
        for name, readout in self.readouts.items():
            if len(readout) != len(self.unified):
                raise GraphError(f"readout {name!r}: expected {len(self.unified)} rows, got {len(readout)}.")

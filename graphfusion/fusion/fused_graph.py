"""What a fusion strategy gives: node states, a vector per modality, one vector per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def in_order(features: Mapping[str, Tensor], types: Sequence[str]) -> dict[str, Tensor]:
    """Features in the order of the vocabulary, whatever order they come in; GraphError unless they are of these types."""
    if set(features) != set(types):
        raise GraphError(f"features: expected the node types {', '.join(types)}; got {', '.join(features) or 'none'}.")
    return {name: features[name] for name in types}

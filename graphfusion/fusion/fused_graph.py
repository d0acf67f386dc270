"""What a fusion strategy gives: node states, a vector per modality, one vector per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphfusion.errors import GraphError


@dataclass(frozen=True)
class FusedGraph:
    """`states[type]` (N, D) of each node, `readouts[type]` (B, D) of each modality, `unified` (B, D) of each sample;
    `weights[modality]` (B,) how much it counts in `unified`, as the strategy says (a share, a mean gate), and
    `token_weights[modality]` (N,) each of its tokens in its readout, where the strategy has such a thing; 0 where the modality is
    absent.

    Raises:
        GraphError: a readout or weight does not have one row for each sample.
    """

    states: Mapping[str, Tensor]
    readouts: Mapping[str, Tensor]
    unified: Tensor
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    token_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, found in (("readout", self.readouts), ("weight", self.weights)):
            for name, rows in found.items():
                if len(rows) != len(self.unified):
                    raise GraphError(f"{what} {name!r}: expected {len(self.unified)} rows, got {len(rows)}.")


def in_order(features: Mapping[str, Tensor], types: Sequence[str]) -> dict[str, Tensor]:
    """Features in the order of the vocabulary, whatever order they come in; GraphError unless they are of these types."""
    if set(features) != set(types):
        raise GraphError(f"features: expected the node types {', '.join(types)}; got {', '.join(features) or 'none'}.")
    return {name: features[name] for name in types}

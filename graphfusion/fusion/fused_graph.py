"""What a fusion strategy gives: node states, a vector per modality, one vector per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphfusion.errors import GraphError


@dataclass(frozen=True)
class FusedGraph:
    """`states[type]` (N, D) of each node, `readouts[type]` (B, D) of each modality, `unified` (B, D) of each sample.

    Where the strategy has such a thing: `weights[modality]` (B,), how much it counts in `unified` as the strategy says (a share, a
    mean gate), 0 where it is absent; `token_weights[modality]` (N,), each of its tokens in what is read from it. The weights of a
    vote are those of `unified`, which is no more than an embedding there; what each answer weighs is the task's (`VotingTask`).

    Raises:
        GraphError: a readout or weight does not have a row for each sample (or node), or a readout is not as wide as `unified`.
    """

    states: Mapping[str, Tensor]
    readouts: Mapping[str, Tensor]
    unified: Tensor
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    token_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rows in self.readouts.items():
            _check_shape(f"readout {name!r}", rows, tuple(self.unified.shape))
        for name, rows in self.weights.items():
            _check_shape(f"weight {name!r}", rows, (len(self.unified),))
        for name, rows in self.token_weights.items():
            _check_shape(f"token weight {name!r}", rows, (len(self.states[name]),))


def _check_shape(what: str, rows: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(rows.shape) != expected:
        raise GraphError(f"{what}: expected the shape {expected}, got {tuple(rows.shape)}.")


def in_order(features: Mapping[str, Tensor], types: Sequence[str]) -> dict[str, Tensor]:
    """Features in the order of the vocabulary, whatever order they come in; GraphError unless they are of these types."""
    if set(features) != set(types):
        raise GraphError(f"features: expected the node types {', '.join(types)}; got {', '.join(features) or 'none'}.")
    return {name: features[name] for name in types}

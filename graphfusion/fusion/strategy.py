"""What fusion strategies share: the contract, a readout of each node type, shares of modalities.

Letters: `B` samples, `M` modalities, `N` nodes of a type, `D` features.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError, unknown_name
from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.graph_builder import HUB, GraphBatch, GraphBuilder
from graphfusion.nn import READOUTS, TypedModules

SETTINGS = ("layers", "heads", "attention", "readout", "dropout", "feedforward")
"""What every strategy is given; it takes those that it has a use for."""


EDGE_SETTINGS = ("graph", "relations", "attention", "relation_attention", "hubs")
"""Settings that speak of edges."""
MOST = 1_000_000
"""Of an option that counts."""


class FusionStrategy(nn.Module):
    """Contract: `Strategy(builder, dim, **settings)`, then `forward(GraphBatch, features) -> FusedGraph`.

    Every strategy has a part whose width is `feedforward` (0: its own choice; where that part is its layers, `layers` must not
    be 0), so that any two can be given the same number of parameters. `readout`: `mean` or `attention`; strategies without hub
    nodes take `hub` as `mean`.

    Raises:
        ConfigError: a setting that no strategy has.
    """

    edges = False
    """Whether edges are looked at; where not, neither they nor hub nodes are built."""
    weighs = False
    """Whether `FusedGraph.weights` has the weights of modalities."""
    weighs_tokens = False
    """Whether `FusedGraph.token_weights` has the weights of tokens."""
    ignores: tuple[str, ...] = ()
    """Settings that it has no use for, beside those of edges where it looks at none."""
    not_options: tuple[str, ...] = ()
    """Options of the class that it is made from which it sets itself."""
    checks: ClassVar[Mapping[str, Callable[[str, Any], None]]] = {}
    """Option → what refuses a value that no table could make right: (name, value)."""
    leaves_out = False
    """Whether an absent modality is left out of what is made: its readout is zeros, since nothing could learn a vector for it."""
    vote = ""
    """How a task joins the answers of the modalities, where each has one of its own; see `VotingTask`."""

    def __init__(self, builder: GraphBuilder, **settings: Any) -> None:
        super().__init__()
        for name in settings:
            if name not in SETTINGS:
                raise ConfigError(
                    unknown_name("option of the fusion strategy", name, (*options_of(type(self)), *SETTINGS))
                )
        self.types = tuple(builder.node_types)
        self.modalities = tuple(name for name in self.types if name != HUB)

    def add_readouts(self, dim: int, heads: int = 4, readout: str = "mean", **_: Any) -> None:
        """`self.readouts`, one for each node type, for strategies whose vectors of modalities are such."""
        if readout not in (*READOUTS, "hub"):
            raise ConfigError(unknown_name("readout", readout, (*READOUTS, "hub")))
        kind = READOUTS["mean" if readout == "hub" else readout]
        self.readouts = TypedModules({name: kind(dim, heads) for name in self.types})
        for part in self.readouts.parts if self.leaves_out else ():
            del part.absent
            part.register_buffer("absent", torch.zeros(dim), persistent=False)

    def read(self, states: Mapping[str, Tensor], batch: GraphBatch) -> dict[str, Tensor]:
        """states[type] (N, D) → a vector of each type and sample (B, D). Where the sample has no node a learned one, or zeros
        (`leaves_out`).
        """
        return {name: self.readouts[name](h, batch.nodes[name].ptr) for name, h in states.items()}

    def present(self, batch: GraphBatch) -> Tensor:
        """(B, M) whether a sample has a modality."""
        return torch.stack([batch.nodes[name].ptr.diff() > 0 for name in self.modalities], dim=1)


def ignored_by(kind: type[FusionStrategy]) -> tuple[str, ...]:
    """The settings of a `ModelConfig` that change nothing for a strategy."""
    return kind.ignores if kind.edges else (*EDGE_SETTINGS, *kind.ignores)


def from_one(name: str, value: int) -> None:
    """ConfigError unless the option is a whole number from 1 that a machine can count to."""
    if not 1 <= value <= MOST:
        raise ConfigError(f"fusion_options.{name}: expected a whole number from 1 to {MOST:,}, got {value}.")


def options_of(kind: type[FusionStrategy]) -> dict[str, Any]:
    """The options that a strategy has beside `SETTINGS`: name → type."""
    found: dict[str, Any] = {}
    for one in kind.__mro__:
        if issubclass(one, FusionStrategy) and "__init__" in vars(one):
            hints = typing.get_type_hints(one.__init__)
            named = [n for n, p in inspect.signature(one).parameters.items() if p.kind is not p.VAR_KEYWORD]
            found = {n: hints[n] for n in named} | found
    return {n: hint for n, hint in found.items() if n not in ("builder", "dim", *SETTINGS, *kind.not_options)}


class TokenFusion(FusionStrategy):
    """Strategies whose tokens meet: what they make of the nodes is read out by type, and two layers make one vector of all
    readouts, 8 · dim wide whatever `feedforward` says, without dropout. A subclass calls `add_unifier` in its constructor and
    `unify` on its states.
    """

    def add_unifier(self, dim: int, heads: int, **settings: Any) -> None:
        """The readouts, and the layers on them."""
        self.add_readouts(dim, heads, **settings)
        self.join = two_layers(dim * len(self.types), 8 * dim, 0.0, dim)

    def unify(self, states: Mapping[str, Tensor], batch: GraphBatch) -> FusedGraph:
        """states[type] (N, D) → `FusedGraph`."""
        readouts = self.read(states, batch)
        return FusedGraph(states, readouts, self.join(torch.cat(list(readouts.values()), dim=1)))


class PooledFusion(FusionStrategy):
    """Strategies that join one vector a modality, read out straight from the encoders: tokens do not meet. A subclass has
    `join`.
    """

    ignores: tuple[str, ...] = ("layers",)

    def __init__(self, builder: GraphBuilder, dim: int, **settings: Any) -> None:
        super().__init__(builder, **settings)
        self.add_readouts(dim, **settings)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features."""
        features = in_order(features, self.types)
        readouts = self.read(features, batch)
        vectors = torch.stack([readouts[name] for name in self.modalities], dim=1)
        unified, weights = self.join(vectors, self.present(batch))
        each = {} if weights is None else dict(zip(self.modalities, weights.unbind(1), strict=True))
        return FusedGraph(features, readouts, unified, each)

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors (B, M, D), present (B, M) → unified (B, D), and the weight of each modality (B, M) where there is one."""
        raise NotImplementedError


def shares(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax of scores (M,) or (B, M) over the modalities that are there: (B, M), 0 for the others."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a sample without any modality would give NaN
    return scores.expand(present.shape).masked_fill(~present, lowest).softmax(dim=1) * present


def equal_shares(present: Tensor, like: Tensor) -> Tensor:
    """One share for each modality that is there: (B, M), in the dtype of `like`."""
    return shares(like.new_zeros(present.shape[1]), present)


def map_each(maps: TypedModules, vectors: Tensor) -> Tensor:
    """Vectors (B, M, D), each through the map of its modality: (B, M, …)."""
    return torch.stack([f(h) for f, h in zip(maps.parts, vectors.unbind(1), strict=True)], dim=1)


def two_layers(dim: int, hidden: int, dropout: float, into: int = 0) -> nn.Module:
    """Width `dim`, then `hidden`, then `into` (0: `dim`)."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, into or dim))


def learned_absences(count: int, dim: int) -> nn.ParameterList:
    """A vector for each modality that stands for it where it is absent; vectors, so that weight decay spares them."""
    return nn.ParameterList(0.02 * torch.randn(dim) for _ in range(count))

"""Co-attention: what is read from a modality depends on the others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import FusionStrategy, learned_absences, two_layers
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import TypedModules, segment_softmax, segment_sum


class CoAttentionFusion(FusionStrategy):
    """Parallel co-attention (Lu et al. 2016, Hierarchical question-image co-attention), for any number of modalities:

    C_mn = tanh(X_m W_mn X_nᵀ) = C_nmᵀ, H_m = tanh(X_m V_m + b_m + Σ_{n ≠ m} C_mn X_n V_n / T_n), a_m = softmax(H_m w_m),
    x̂_m = Σ_i a_mi x_mi, s = Σ_m x̂_m, h = s + MLP(s), whose hidden layer is `feedforward` wide (0: 2 · dim). The paper's sum over
    the T_n tokens of n is a mean here, and W begins 1/√dim as large: else both tanh are flat from the start where tokens are many.
    Samples are gone through one by one, without padding.
    Absent modality: no part in the others' H; its vector is a learned one.
    """

    weighs_tokens = True
    ignores = ("layers", "heads", "readout")

    def __init__(
        self, builder: GraphBuilder, dim: int, dropout: float = 0.0, feedforward: int = 0, **settings: Any
    ) -> None:
        super().__init__(builder, **settings)
        self.pairs = tuple(combinations(self.modalities, 2))
        self.affinity = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in self.pairs)
        for affinity in self.affinity:
            affinity.weight.data /= dim**0.5
        self.maps = TypedModules({m: nn.Linear(dim, dim, bias=False) for m in self.modalities})
        self.bias = nn.ParameterList(torch.zeros(dim) for _ in self.modalities)
        self.score = TypedModules({m: nn.Linear(dim, 1, bias=False) for m in self.modalities})
        self.absent = learned_absences(len(self.modalities), dim)
        self.join = two_layers(dim, feedforward or 2 * dim, dropout)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features."""
        features = in_order(features, self.types)
        mapped = {m: self.maps[m](features[m]) for m in self.modalities}
        hidden = {m: mapped[m] + b for m, b in zip(self.modalities, self.bias, strict=True)}
        for (m, n), affinity in zip(self.pairs, self.affinity, strict=True):
            left, right = _exchanged(affinity(features[m]), features[n], mapped[m], mapped[n], batch, m, n)
            hidden[m], hidden[n] = hidden[m] + left, hidden[n] + right
        vectors, weights = {}, {}
        for m in self.modalities:
            ptr = batch.nodes[m].ptr
            weight = segment_softmax(self.score[m](hidden[m].tanh()), ptr)
            vectors[m], weights[m] = segment_sum(weight * features[m], ptr), weight[:, 0]
        return _joined(features, vectors, weights, self.absent, self.present(batch), self.join)


class AlternatingCoAttentionFusion(FusionStrategy):
    """Alternating co-attention (Lu et al. 2016), for any number of modalities, texts first as there: each is read under the
    guidance of the one before, the first without any; then all but the last once more, the first guided by the last, with the
    same weights.

    H = tanh(X_m V_m + b_m + 1 (U_m g)ᵀ), a = softmax(H w_m), x̂_m = Σ_i a_i x_mi with guidance g; s = Σ_m x̂_m, h = s + MLP(s), whose
    hidden layer is `feedforward` wide (0: 2 · dim). Absent modality: guidance passes it by, so that one that is there alone, unless
    it is the last, is guided by its own first reading; its vector is a learned one.
    """

    weighs_tokens = True
    ignores = ("layers", "heads", "readout")

    def __init__(
        self, builder: GraphBuilder, dim: int, dropout: float = 0.0, feedforward: int = 0, **settings: Any
    ) -> None:
        super().__init__(builder, **settings)
        kinds = {m: builder.node_types[m].kind for m in self.modalities}
        self.turns = tuple(sorted(self.modalities, key=lambda m: kinds[m] != "text"))
        self.maps = TypedModules({m: nn.Linear(dim, dim) for m in self.modalities})
        self.guides = TypedModules({m: nn.Linear(dim, dim, bias=False) for m in self.modalities})
        self.score = TypedModules({m: nn.Linear(dim, 1, bias=False) for m in self.modalities})
        self.absent = learned_absences(len(self.modalities), dim)
        self.join = two_layers(dim, feedforward or 2 * dim, dropout)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features."""
        features = in_order(features, self.types)
        present = self.present(batch)
        vectors: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        guide = next(iter(features.values())).new_zeros(len(batch), len(self.absent[0]))
        for m in (*self.turns, *self.turns[:-1]):
            there = present[:, self.modalities.index(m)][:, None]
            store = batch.nodes[m]
            hidden = self.maps[m](features[m]) + self.guides[m](guide)[store.sample]
            weight = segment_softmax(self.score[m](hidden.tanh()), store.ptr)
            vectors[m], weights[m] = segment_sum(weight * features[m], store.ptr), weight[:, 0]
            guide = torch.where(there, vectors[m], guide)
        vectors, weights = ({m: found[m] for m in self.modalities} for found in (vectors, weights))
        return _joined(features, vectors, weights, self.absent, present, self.join)


def _exchanged(
    weighed: Tensor, x: Tensor, mapped_m: Tensor, mapped_n: Tensor, batch: GraphBatch, m: str, n: str
) -> tuple[Tensor, Tensor]:
    """What tokens of m and n give each other: C X_n V_n / T_n (N_m, D) and Cᵀ X_m V_m / T_m (N_n, D); 0 where the
    other is absent.
    """
    first, second = (batch.nodes[name].ptr.diff().tolist() for name in (m, n))
    cut = ((weighed, first), (mapped_m, first), (x, second), (mapped_n, second))
    parts = zip(*(torch.split(rows, counts) for rows, counts in cut), strict=True)
    left, right = [], []
    for a, own, b, other in parts:
        affinity = torch.tanh(a @ b.T)  # (tokens of m, tokens of n) of one sample
        left.append(affinity @ other / max(1, len(other)))
        right.append(affinity.T @ own / max(1, len(own)))
    return torch.cat(left), torch.cat(right)


def _joined(
    features: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    absent: nn.ParameterList,
    present: Tensor,
    join: nn.Module,
) -> FusedGraph:
    """The vectors, learned ones where a modality is absent, as readouts; their sum through `join` as the whole."""
    parts = zip(vectors.items(), absent, present.unbind(1), strict=True)
    readouts = {m: torch.where(there[:, None], v, own.to(v.dtype)) for (m, v), own, there in parts}
    total = torch.stack(list(readouts.values())).sum(0)
    return FusedGraph(features, readouts, total + join(total), token_weights=weights)

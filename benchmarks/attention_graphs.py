"""The synthetic multimodal batches of `benchmarks/attention.py`, and the work that one layer over them cannot avoid.

Sixteen relations over text tokens, image patches, audio frames and hub nodes; every relation is there twice: as the list
of edges that PyG takes (listed here from masks, by no code of graphfusion), and as the kind of pairs that graphfusion takes.

Letters: `B` samples, `N` nodes of a type, `E` edges of a relation, `D` features, `H` heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from graphfusion.ops.hetero_attention import Broadcast, Dense, EdgeList, Grid, Pairs, Window

Relation = tuple[str, str, str]
MODALITIES = ("text", "image", "audio")
TYPES = (*MODALITIES, "hub")
REACH, TOP_K = 4, 8


@dataclass(frozen=True)
class Size:
    """Most nodes of a sample, samples, features and heads."""

    text: int
    side: int
    audio: int
    hubs: int
    samples: int
    dim: int
    heads: int


SIZES = {
    "S": Size(32, 7, 50, 4, samples=16, dim=128, heads=4),
    "M": Size(64, 14, 100, 4, samples=32, dim=256, heads=8),
    "L": Size(128, 14, 200, 4, samples=64, dim=256, heads=8),
    "L256": Size(128, 14, 200, 4, samples=256, dim=256, heads=8),
}
"""The last is for a GPU, and for "dense" alone: what goals G8 and G9 are about."""
CROSSES = ("topk", "dense")


def relations() -> list[Relation]:
    """Three within a modality, six across, three into the hub and three out of it, one among hub nodes."""
    within = [("text", "window", "text"), ("image", "grid", "image"), ("audio", "window", "audio")]
    across = [(a, "cross", b) for a in MODALITIES for b in MODALITIES if a != b]
    hubs = [(a, "into", "hub") for a in MODALITIES] + [("hub", "out", a) for a in MODALITIES]
    return [*within, *across, *hubs, ("hub", "among", "hub")]


@dataclass(frozen=True)
class Graph:
    """One batch.

    `x[type]` (N, D); `grad[type]` (N, D), the fixed gradient of the outputs; `ptr[type]` (B + 1,) first node of each
    sample; `edges[relation]` (2, E) int64, sorted by target; `pairs[relation]`: the same pairs as a kind; `exact`: made by
    `rounded`.
    """

    size: Size
    cross: str
    x: Mapping[str, Tensor]
    grad: Mapping[str, Tensor]
    ptr: Mapping[str, Tensor]
    edges: Mapping[Relation, Tensor]
    pairs: Mapping[Relation, Pairs]
    exact: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Node type → N."""
        return {t: len(x) for t, x in self.x.items()}

    @property
    def nodes(self) -> int:
        """All nodes."""
        return sum(self.sizes.values())

    @property
    def edge_count(self) -> int:
        """All edges."""
        return sum(e.shape[1] for e in self.edges.values())

    def rounded(self) -> Graph:
        """Features in quarters up to ±3: with weights in 32nds all sums in front of a leaky rectifier are exact in float32,
        whatever their order, so that both sides see the same sign. Else one sum in some ten million falls on the other side
        of the kink, and gradients there differ by far more than rounding.
        """
        return replace(self, x={t: (4 * x).round().clamp(-12, 12) / 4 for t, x in self.x.items()}, exact=True)

    def to(self, device: str) -> Graph:
        """The same batch on another device."""

        def moved(tensors: Mapping) -> dict:
            return {k: t.to(device) for k, t in tensors.items()}

        parts = {name: moved(getattr(self, name)) for name in ("x", "grad", "ptr", "edges", "pairs")}
        return replace(self, **parts)


def make_graph(size: Size, cross: str, seed: int = 0) -> Graph:
    """Texts and sounds of half to full length, images of full size, `cross` "topk" or "dense" between modalities."""
    rng = np.random.default_rng(seed)
    count = node_counts(size, rng)
    ptr = {t: torch.from_numpy(np.concatenate([[0], n.cumsum()])) for t, n in count.items()}
    edges = {r: list_edges(r, size, cross, count, rng) for r in relations()}
    generator = torch.Generator().manual_seed(seed)

    def normal() -> dict[str, Tensor]:
        return {t: torch.randn(int(p[-1]), size.dim, generator=generator) for t, p in ptr.items()}

    pairs = {r: kind_of(r, size, cross, e) for r, e in edges.items()}
    return Graph(size, cross, normal(), normal(), ptr, edges, pairs)


def node_counts(size: Size, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Node type → (B,) nodes of each sample."""
    samples = size.samples
    return {
        "text": rng.integers(size.text // 2, size.text + 1, samples),
        "image": np.full(samples, size.side**2),
        "audio": rng.integers(size.audio // 2, size.audio + 1, samples),
        "hub": np.full(samples, size.hubs),
    }


def kind_of(relation: Relation, size: Size, cross: str, edges: Tensor) -> Pairs:
    """The cheapest kind of pairs that says the same as the list."""
    name = relation[1]
    if name == "window":
        return Window(-REACH, REACH)
    if name == "grid":
        return Grid(torch.full((size.samples,), size.side, dtype=torch.int32))
    if name == "cross":
        return EdgeList(edges) if cross == "topk" else Dense()
    return Broadcast()


def list_edges(
    relation: Relation, size: Size, cross: str, count: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Tensor:
    """(2, E) of all samples, by target and then by source."""
    source, _, target = relation
    first_source, first_target = (np.cumsum(count[t]) - count[t] for t in (source, target))
    parts = []
    for b in range(size.samples):
        mask = sample_mask(relation, size, cross, int(count[source][b]), int(count[target][b]), rng)
        to, of = mask.nonzero()
        parts.append(np.stack([of + first_source[b], to + first_target[b]]))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def sample_mask(
    relation: Relation, size: Size, cross: str, sources: int, targets: int, rng: np.random.Generator
) -> np.ndarray:
    """(targets, sources) bool: who sends to whom in one sample."""
    name = relation[1]
    if name == "window":
        i = np.arange(sources)
        return abs(i[:, None] - i) <= REACH
    if name == "grid":
        row, column = np.divmod(np.arange(sources), size.side)
        return (abs(row[:, None] - row) <= 1) & (abs(column[:, None] - column) <= 1)
    if name == "cross" and cross == "topk":
        chosen = np.argpartition(rng.random((targets, sources)), min(TOP_K, sources) - 1, axis=1)[:, :TOP_K]
        mask = np.zeros((targets, sources), bool)
        np.put_along_axis(mask, chosen, True, axis=1)
        return mask
    return np.ones((targets, sources), bool)


@dataclass(frozen=True)
class Work:
    """Compulsory work of one forward pass: multiply-adds count as two."""

    gemm_flops: float
    edge_flops: float
    moved_bytes: float
    gathered_bytes: float

    def limit_ms(self, gemm: float, fused: float, bandwidth: float, passes: int = 1) -> float:
        """The shortest time: arithmetic or memory, whichever takes longer. Rates in flop/s and bytes/s."""
        arithmetic = self.gemm_flops / gemm + self.edge_flops / fused
        return 1e3 * passes * max(arithmetic, self.moved_bytes / bandwidth)


def work_of(graph: Graph, value_bytes: int) -> Work:
    """What the identities of GAT leave; see the docstring of `benchmarks/attention.py`. `value_bytes`: 4 or 2."""
    dim, heads, sizes = graph.size.dim, graph.size.heads, graph.sizes
    gemm = edge = 0.0
    projected = 0
    for relation, edges in graph.edges.items():
        source, target, count = sizes[relation[0]], sizes[relation[2]], edges.shape[1]
        gemm += 2 * (source + target) * dim * heads  # the folded logits
        per_pair = 2 * count * dim
        if graph.pairs[relation].kind == "dense":
            per_pair = min(per_pair, 8 * (source + target) * dim)
        project = 2 * source * dim * dim, per_pair
        gather = 2 * target * dim * dim, per_pair * heads  # each head gathers rows of its own
        first = sum(project) <= sum(gather)
        gemm, edge = (total + part for total, part in zip((gemm, edge), project if first else gather, strict=True))
        projected += source if first else 0
    moved = dim * (2 * 4 * graph.nodes + 2 * value_bytes * projected)
    return Work(gemm, edge, moved, float(graph.edge_count * dim * value_bytes))

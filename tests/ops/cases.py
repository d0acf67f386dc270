"""Random typed graphs with relations of every kind, and inputs of the operators over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphfusion.ops.hetero_attention import (
    Bitmask,
    Broadcast,
    Dense,
    EdgeList,
    Grid,
    Pairs,
    Plan,
    Window,
    hetero_attention,
    make_plan,
)

TYPES = ("text", "image", "hub")


@dataclass(frozen=True)
class Inputs:
    """One call of `hetero_attention`."""

    value: list[Tensor]
    key: list[Tensor]
    query: list[Tensor]
    att: Tensor | None
    edge: list[Tensor]
    plan: Plan

    def leaves(self) -> dict[str, Tensor]:
        """Every tensor with a gradient, by name."""
        named = {}
        for what in ("value", "key", "query", "edge"):
            named |= {f"{what}[{i}]": t for i, t in enumerate(getattr(self, what))}
        return named | ({} if self.att is None else {"att": self.att})

    def to(self, dtype: torch.dtype) -> Inputs:
        """Fresh leaves in another dtype."""

        def cast(t: Tensor) -> Tensor:
            return t.detach().to(dtype).requires_grad_()

        lists = {what: [cast(t) for t in getattr(self, what)] for what in ("value", "key", "query", "edge")}
        return replace(self, **lists, att=None if self.att is None else cast(self.att))

    def on(self, device: str) -> Inputs:
        """Fresh leaves and the plan on a device."""

        def moved(t: Tensor) -> Tensor:
            return t.detach().to(device).requires_grad_()

        lists = {what: [moved(t) for t in getattr(self, what)] for what in ("value", "key", "query", "edge")}
        plan = replace(self.plan, index=tuple(t.to(device) for t in self.plan.index))
        return replace(self, **lists, att=None if self.att is None else moved(self.att), plan=plan)

    def detached(self) -> Inputs:
        """The same numbers without a graph."""
        lists = {what: [t.detach() for t in getattr(self, what)] for what in ("value", "key", "query", "edge")}
        return replace(self, **lists, att=None if self.att is None else self.att.detach())

    def rounded(self) -> Inputs:
        """The same with values that bfloat16 can hold."""
        return replace(self, value=[v.bfloat16().to(v.dtype) for v in self.value])

    def stored(self, dtype: torch.dtype) -> Inputs:
        """Fresh leaves, the values in another dtype and the rest in float32."""
        fresh = self.to(torch.float32)
        return replace(fresh, value=[v.detach().to(dtype).requires_grad_() for v in self.value])

    def shared(self) -> Inputs:
        """The same with one value row for all heads."""
        return replace(self, value=[v[:, :, :1] for v in self.value])

    def on_grid(self, steps: int = 32) -> Inputs:
        """Everything rounded to multiples of 1 / steps: sums are exact in float32, so ties and zeros are ties and zeros."""

        def snap(t: Tensor) -> Tensor:
            return (t * steps).round() / steps

        lists = {what: [snap(t) for t in getattr(self, what)] for what in ("value", "key", "query", "edge")}
        return replace(self, **lists, att=None if self.att is None else snap(self.att))

    def run(self, mode: str, **options: object) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Outputs, and the gradients of a fixed random projection of them, by name."""
        out = hetero_attention(
            self.value, self.key, self.query, self.plan, mode=mode, att=self.att, edge=self.edge, **options
        )
        generator = torch.Generator().manual_seed(5)
        grad = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in out]
        leaves = self.leaves()
        reached = [(o, g) for o, g in zip(out, grad, strict=True) if o.requires_grad]
        found: list[Tensor | None] = [None] * len(leaves)
        if reached:
            found = list(
                torch.autograd.grad(
                    [o for o, _ in reached], list(leaves.values()), [g for _, g in reached], allow_unused=True
                )
            )
        return out, {
            n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(leaves.items(), found, strict=True)
        }


def pointers(counts: dict[str, list[int]]) -> dict[str, Tensor]:
    """`ptr` of each type from the number of its nodes in each sample."""
    return {name: torch.tensor([0, *n]).cumsum(0) for name, n in counts.items()}


def random_edges(source_ptr: Tensor, target_ptr: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Edges within samples, shuffled, some of them twice."""
    every = Dense().edge_index(source_ptr, target_ptr)
    kept = every[:, torch.rand(every.shape[1], generator=generator) < density]
    kept = torch.cat([kept, kept[:, :2]], dim=1)
    return kept[:, torch.randperm(kept.shape[1], generator=generator)]


def all_kinds(
    ptr: dict[str, Tensor], generator: torch.Generator, columns: list[int] | None = None
) -> dict[tuple[str, str, str], Pairs]:
    """A relation of every kind over the types of `ptr`; the images are full rasters where `columns` says how wide."""
    text, image = ptr["text"], ptr["image"]
    mask = Bitmask.from_edges(random_edges(text, image, 0.5, generator), text, image)
    pairs: dict[tuple[str, str, str], Pairs] = {
        ("text", "window", "text"): Window(-2, 1, 2),
        ("text", "self", "text"): Window(0, 0),
        ("image", "full", "image"): Dense(loops=False),
        ("image", "full", "text"): Dense(),
        ("text", "listed", "image"): EdgeList(random_edges(text, image, 0.4, generator)),
        ("text", "masked", "image"): mask,
        ("text", "into", "hub"): Broadcast(),
        ("hub", "out", "image"): Broadcast(),
        ("hub", "self", "hub"): Dense(),
    }
    if columns is not None:
        pairs["image", "grid", "image"] = Grid(torch.tensor(columns, dtype=torch.int32), loops=False)
        pairs["image", "cross", "image"] = Grid(torch.tensor(columns, dtype=torch.int32), radius=2, corners=False)
    return pairs


def inputs_for(
    plan: Plan,
    sizes: dict[str, int],
    heads: int,
    width: int,
    mode: str,
    seed: int = 0,
    edges: bool = True,
    scale: float = 1.0,
) -> Inputs:
    """Random inputs of a plan; listed relations get edge features if `edges`."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g) * scale

    tail = (heads,) if mode == "gat" else (heads, width)
    edge_tail = (heads, width) if mode == "gatv2" else (heads,)
    value = [normal(n, len(plan.leaving(t)), heads, width) for t, n in sizes.items()]
    key = [] if mode == "gatv2" else [normal(n, len(plan.leaving(t)), *tail) for t, n in sizes.items()]
    query = [normal(n, len(plan.entering(t)), *tail) for t, n in sizes.items()]
    att = normal(len(plan.relations), heads, width) if mode == "gatv2" else None
    listed = [plan.edge_index(r).shape[1] if r in plan.order else 0 for r in plan.relations]
    edge = [normal(n, *edge_tail) if n else torch.empty(0) for n in listed] if edges else []
    return Inputs(value, key, query, att, edge, plan)


def case(
    heads: int,
    width: int,
    mode: str,
    counts: dict[str, list[int]] | None = None,
    merged: bool = True,
    edges: bool = True,
    seed: int = 0,
    scale: float = 1.0,
) -> Inputs:
    """Inputs over relations of every kind, ten small samples (some without a type) unless `counts` says otherwise."""
    generator = torch.Generator().manual_seed(seed)
    columns = None
    if counts is None:
        columns = [3, 1, 2, 3, 4, 1, 2, 5, 3, 1]
        counts = {
            "text": [4, 1, 0, 7, 3, 2, 0, 5, 9, 1],
            "image": [6, 1, 4, 0, 8, 3, 2, 5, 9, 2],
            "hub": [2] * 10,
        }
    ptr = pointers(counts)
    plan = make_plan({t: int(p[-1]) for t, p in ptr.items()}, all_kinds(ptr, generator, columns), ptr, merged)
    return inputs_for(plan, {t: int(p[-1]) for t, p in ptr.items()}, heads, width, mode, seed, edges, scale)


Run = tuple[list[Tensor], dict[str, Tensor]]

SHARE = 0.1


def off(found: Tensor, truth: Tensor, floor: float = 0.0) -> float:
    """Largest difference, relative to the largest number of the truth (to `floor` at least)."""
    assert found.shape == truth.shape, f"{tuple(found.shape)} is not {tuple(truth.shape)}"
    apart = largest([found.detach().double() - truth.detach().double()])
    scale = max(largest([truth]), floor)
    return apart / scale if scale else apart


def largest(tensors: Iterable[Tensor]) -> float:
    """The largest absolute number; infinite if there is a NaN."""
    found = [float(t.detach().double().abs().max().nan_to_num(torch.inf)) for t in tensors if t.numel()]
    return max(found, default=0.0)


def disagreement(found: Run, truth: Run) -> dict[str, float]:
    """`off` of each output and each gradient, by name. A gradient that is 0 in truth comes out as the rounding of terms
    that are as large as other gradients: each is measured by `SHARE` of the largest one at least.
    """
    floor, steep = SHARE * largest(truth[0]), SHARE * largest(truth[1].values())
    outs = {f"out[{t}]": off(a, b, floor) for t, (a, b) in enumerate(zip(found[0], truth[0], strict=True))}
    return outs | {f"d{name}": off(g, truth[1][name], steep) for name, g in found[1].items()}


def agree(found: Run, truth: Run, limit: float = 1e-5, limits: dict[str, float] | None = None, where: str = "") -> None:
    """Assert that everything is at most `limit` off, or what `limits` says for names that begin so."""
    apart = disagreement(found, truth)
    allowed = {name: next((x for k, x in (limits or {}).items() if name.startswith(k)), limit) for name in apart}
    bad = {name: e for name, e in apart.items() if not e <= allowed[name]}
    assert not bad, f"{where}: {bad}"


def bits(run: Run) -> list[bytes]:
    """Everything, bit by bit."""
    tensors = [*run[0], *(run[1][name] for name in sorted(run[1]))]
    return [t.detach().contiguous().view(torch.uint8).numpy().tobytes() if t.numel() else b"" for t in tensors]


def random_plan(
    counts: dict[str, list[int]], relations: int, generator: torch.Generator, density: float = 0.4, merged: bool = True
) -> Plan:
    """`relations` listed relations (every third one a rule) over all pairs of types."""
    ptr = pointers(counts)
    ends = [(a, b) for a in counts for b in counts]
    pairs: dict[tuple[str, str, str], Pairs] = {}
    for r in range(relations):
        a, b = ends[r % len(ends)]
        listed = EdgeList(random_edges(ptr[a], ptr[b], density, generator))
        pairs[a, f"relation {r}", b] = Dense(loops=r % 2 == 0) if r % 3 == 2 else listed
    return make_plan(sizes_of(ptr), pairs, ptr, merged)


def sizes_of(ptr: dict[str, Tensor]) -> dict[str, int]:
    """Nodes of each type."""
    return {t: int(p[-1]) for t, p in ptr.items()}

"""Graphs that are odd but right, and graphs that are wrong, given to the attention operator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from graphfusion.errors import GraphError
from graphfusion.ops.hetero_attention import EdgeList, backends, hetero_attention, make_plan
from graphfusion.selftest.figure import Figure, count

RELATION = ("a", "to", "b")
HEADS, WIDTH = 2, 5
EDGES = torch.tensor([[0, 1, 2], [1, 0, 1]])
NONE = torch.empty(2, 0, dtype=torch.int64)


def _edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs).T


RIGHT: dict[str, tuple[Tensor, int, int]] = {
    "no edges": (NONE, 3, 2),
    "no nodes": (NONE, 0, 0),
    "no sources": (NONE, 0, 2),
    "no targets": (NONE, 3, 0),
    "isolated nodes": (_edges((0, 3), (2, 3)), 4, 5),
    "an edge twice": (_edges((0, 0), (0, 0), (1, 0)), 2, 1),
    "an edge many times": (_edges(*[(1, 1)] * 50, (0, 1)), 2, 3),
    "unsorted edges": (_edges((2, 1), (0, 0), (1, 1), (0, 1)), 3, 2),
    "one node a side": (_edges((0, 0)), 1, 1),
}
"""Name → edges (2, E), sources, targets."""
WRONG: dict[str, tuple[Tensor, tuple[str, ...]]] = {
    "a source out of range": (_edges((0, 0), (3, 1)), ("edge 1 is 3 → 1", "3 source")),
    "a target out of range": (_edges((0, 0), (1, 1), (2, 2)), ("edge 2 is 2 → 2", "2 target")),
    "a negative number": (_edges((0, 0), (-1, 0)), ("edge 1 is -1 → 0", "start at 0")),
    "numbers with a point": (EDGES.float(), ("int64", "torch.float32", ".long()")),
    "edges in columns": (EDGES.T, ("(2, E)", "(3, 2)")),
    "another device": (EDGES.to("meta"), ("cpu", "meta", ".to()")),
}
"""Name → edges between 3 sources and 2 targets, and what the message says beside the relation."""


def i50(work: Path, full: bool) -> Figure:
    """15 graphs: nine odd ones whose messages and gradients are within 1e-5 of a plain sum over edges, for each backend and
    mode; six wrong ones that are refused by relation and edge when the plan is made, before any kernel.
    """
    names = [name for name, why_not in backends().items() if not why_not]
    found = {name: _all_exact(graph, names, 20 if full else 1) for name, graph in RIGHT.items()}
    found |= {name: _refused(edges, parts) for name, (edges, parts) in WRONG.items()}
    return count("I50", "graphs: odd ones exact, wrong ones named before the kernel", found, f"on {', '.join(names)}")


def _all_exact(graph: tuple[Tensor, int, int], names: list[str], draws: int) -> str | None:
    for seed in range(draws):
        for name in names:
            for mode in ("gat", "dot"):
                off = _off(graph, name, mode, seed)
                if not off <= 1e-5:
                    return f"{name}, {mode}: {off:.1e} off"
    return None


def _off(graph: tuple[Tensor, int, int], backend: str, mode: str, seed: int) -> float:
    """Largest difference of messages and gradients to the plain ones, relative to the largest of each or 1."""
    edges, sources, targets = graph
    rng = torch.Generator().manual_seed(seed)
    tail = (HEADS, WIDTH) if mode == "dot" else (HEADS,)
    value = torch.randn(sources, HEADS, WIDTH, generator=rng)
    key, query = (torch.randn(n, *tail, generator=rng) for n in (sources, targets))
    mine, plain = ([t.to(d).requires_grad_() for t in (value, key, query)] for d in (torch.float32, torch.float64))
    out = _by_operator(mine, edges, backend, mode)
    truth = _by_hand(plain, edges, mode)
    weight = torch.randn(truth.shape, generator=rng, dtype=torch.float64)
    pairs = [(out, truth)]
    if truth.requires_grad and out.requires_grad:
        grads = (
            torch.autograd.grad((o * weight).sum(), p, allow_unused=True) for o, p in ((out, mine), (truth, plain))
        )
        pairs += [(g, t) for g, t in zip(*grads, strict=True) if g is not None and t is not None]
    return max(_apart(found, true) for found, true in pairs)


def _apart(found: Tensor, truth: Tensor) -> float:
    if found.shape != truth.shape:
        return float("inf")
    if not truth.numel():
        return 0.0
    apart = (found.detach().double() - truth.detach()).abs().max() / truth.detach().abs().max().clamp_min(1.0)
    return float(apart.nan_to_num(torch.inf))


def _by_operator(parts: list[Tensor], edges: Tensor, backend: str, mode: str) -> Tensor:
    """Messages (targets, HEADS, WIDTH) of value, key and query."""
    value, key, query = parts
    plan = make_plan({"a": len(value), "b": len(query)}, {RELATION: EdgeList(edges)})
    nothing = value.new_empty
    out = hetero_attention(
        [value[:, None], nothing(len(query), 0, HEADS, WIDTH)],
        [key[:, None], nothing(len(query), 0, *key.shape[1:])],
        [nothing(len(value), 0, *key.shape[1:]), query[:, None]],
        plan,
        mode=mode,
        backend=backend,
    )
    return out[1][:, 0]


def _by_hand(parts: list[Tensor], edges: Tensor, mode: str) -> Tensor:
    """The same as the formula has it: for each target, a softmax over the edges that arrive."""
    value, key, query = parts
    rows = []
    for target in range(len(query)):
        arrive = [s for s, t in edges.T.tolist() if t == target]
        if mode == "dot":
            scores = (key[arrive] * query[target]).sum(-1) / WIDTH**0.5
        else:
            scores = torch.nn.functional.leaky_relu(key[arrive] + query[target], 0.2)
        rows.append((scores.softmax(0)[..., None] * value[arrive]).sum(0))
    return torch.stack(rows) if rows else value.new_zeros(0, HEADS, WIDTH)


def _refused(edges: Tensor, parts: tuple[str, ...]) -> str | None:
    ptr = {"a": torch.tensor([0, 3]), "b": torch.tensor([0, 2])}
    try:
        make_plan({"a": 3, "b": 2}, {RELATION: EdgeList(edges)}, ptr)
    except GraphError as error:
        missing = [part for part in (str(RELATION), *parts) if part not in str(error)]
        return f"{missing[0]!r} is not in the message: {error}" if missing else None
    except Exception as error:  # whatever else comes out is what this looks for
        return f"{type(error).__name__}: {error}"
    return "a plan was made"

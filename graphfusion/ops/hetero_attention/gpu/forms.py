"""How a relation is evaluated on a GPU, and which way costs least.

`walk` looks at each edge on its own; `tiles` multiplies blocks of targets × sources, edges or not, on tensor cores; `scan` is
the linear form of dense `gat` relations. Costs are counted, not measured: what has to be moved and multiplied over what the
device does in a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, combinations

import torch

from graphfusion.ops.hetero_attention.gpu.config import architecture, tiled

FORMS = ("walk", "tiles", "scan")
WIDEST = 128
"""Columns of a head that a tile has registers for."""


@dataclass(frozen=True)
class Rates:
    """What a device does in a microsecond: bytes from its second-level cache and from its memory, products of matrices, and
    other operations; and microseconds from one launch to the next.
    """

    cache: float
    memory: float
    products: float
    operations: float
    launch: float


RATES = {
    80: Rates(cache=4.0e6, memory=1.5e6, products=50e6, operations=15e6, launch=4.0),
    90: Rates(cache=5.5e6, memory=4.0e6, products=160e6, operations=50e6, launch=4.0),
    100: Rates(cache=10e6, memory=7.0e6, products=400e6, operations=70e6, launch=4.0),
}
"""By architecture, from data sheets, a third of the peak for products (float32 in three tf32 parts)."""


@dataclass(frozen=True)
class Size:
    """Nodes of both ends over all samples, samples, heads, width of a head, bytes of a number of a value row. How many
    of the pairs are edges is not known: all count.
    """

    sources: float
    targets: float
    samples: float
    heads: int
    width: int
    bytes: int

    def about(self) -> Size:
        """Samples and nodes of a sample to the next power of four: kernels are compiled anew where a form changes, and batches of
        one fit are alike.
        """
        samples = _power_of_four(self.samples)
        sources, targets = (samples * _power_of_four(nodes / self.samples) for nodes in (self.sources, self.targets))
        return replace(self, sources=sources, targets=targets, samples=samples)

    @property
    def pairs(self) -> float:
        """Pairs within samples, if samples are alike."""
        return self.sources * self.targets / self.samples

    def padded(self, block: Mapping[str, int]) -> float:
        """The same with the nodes of a sample rounded up to whole blocks of `M` targets and `K` sources."""
        sides = ((self.targets, block["M"]), (self.sources, block["K"]))
        return self.samples * math.prod(math.ceil(nodes / (self.samples * size)) * size for nodes, size in sides)


def able_to(
    kind: str, mode: str, width: int, *, across: bool, shared: bool, dropout: bool, slope: float, loops: bool
) -> tuple[str, ...]:
    """Forms that can evaluate a relation; the first always can."""
    if across or shared or width > WIDEST or kind not in ("dense", "broadcast", "bitmask"):
        return FORMS[:1]
    linear = kind == "dense" and mode == "gat" and loops and not dropout and 0 <= slope <= 1
    return FORMS if linear else FORMS[:2]


def cost(form: str, size: Size, mode: str, arch: int) -> float:
    """Microseconds of a forward pass, without the launch that `walk` and `tiles` share with other relations."""
    columns, rates = max(16, size.width), RATES[arch]
    if form == "walk":  # a key and a row an edge, each target again; a score is a product where keys are rows
        edges = size.heads * size.pairs
        moved = edges * size.width * size.bytes * (1 if mode == "gat" else 2)
        return moved / rates.cache + edges * 2 * size.width / rates.operations
    if form == "tiles":
        block = tiled(columns, size.bytes, arch)
        pairs = size.heads * size.padded(block)
        products = pairs * 2 * columns * (2 if mode == "dot" else 1)
        others = pairs * (12 + (4 * size.width if mode == "gatv2" else 0))
        moved = pairs / block["M"] * size.width * size.bytes
        return products / rates.products + others / rates.operations + moved / rates.cache
    nodes = size.heads * (size.sources + size.targets)
    ranking = size.heads * size.sources * (size.sources / size.samples) * 3 / rates.operations
    chain = size.sources / size.samples / 64  # running sums go from block to block
    return 3 * rates.launch + ranking + nodes * size.width * 4 * 4 / rates.memory + chain


def cheapest(relations: Sequence[tuple[Sequence[str], Size]], mode: str, device: torch.device) -> list[str]:
    """A form for each relation, given which forms are able to evaluate it and its size: those with the least cost together,
    launches of `walk` and `tiles` included, of which one serves all relations of the form.
    """
    return list(_cheapest(tuple((tuple(able), size.about()) for able, size in relations), mode, architecture(device)))


@lru_cache(maxsize=1_024)  # asked in every call, and batches of one fit are about alike
def _cheapest(relations: tuple[tuple[tuple[str, ...], Size], ...], mode: str, arch: int) -> tuple[str, ...]:
    costs = [{form: cost(form, size, mode, arch) for form in able} for able, size in relations]
    best: list[str] = []
    least = math.inf
    for used in chain.from_iterable(combinations(FORMS, count) for count in (1, 2, 3)):
        if not all(set(used) & set(each) for each in costs):
            continue
        chosen = [min((f for f in used if f in each), key=each.__getitem__) for each in costs]
        total = sum(each[f] for each, f in zip(costs, chosen, strict=True))
        total += RATES[arch].launch * len({"walk", "tiles"} & set(chosen))
        if total < least:
            best, least = chosen, total
    return tuple(best)


def _power_of_four(number: float) -> float:
    return 4.0 ** math.ceil(math.log(max(number, 1.0), 4) - 1e-9)

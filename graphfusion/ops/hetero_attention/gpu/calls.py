"""A call on a GPU: which form evaluates which relation, and what all launches share.

Letters: `N` nodes of a type, `Q` relations that enter it, `H` heads, `C` width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton.language import constexpr

from graphfusion.ops.hetero_attention.gpu import scan, tiles, walk, where
from graphfusion.ops.hetero_attention.gpu.forms import FORMS, Size, able_to, cheapest
from graphfusion.ops.hetero_attention.gpu.group import Group, Static, each
from graphfusion.ops.hetero_attention.pairs import KINDS
from graphfusion.ops.hetero_attention.plan import Row, outputs_of, read_layout, width_of


class Call:
    """Tensors of one call, contiguous, and what all launches share. `form`: how every relation is to be evaluated that can be,
    "" leaves the choice to counted cost; the other arguments as of `reference.attention`.
    """

    def __init__(
        self,
        form: str,
        value: Sequence[Tensor],
        key: Sequence[Tensor],
        query: Sequence[Tensor],
        att: Tensor | None,
        edge: Sequence[Tensor],
        index: Sequence[Tensor],
        layout: Sequence[int],
        mode: str,
        slope: float,
        dropout: float,
        seed: Tensor,
        top_k: int,
        across: bool,
    ) -> None:
        assert not top_k
        self.value, self.key, self.query = ([t.contiguous() for t in part] for part in (value, key, query))
        self.att = None if att is None else att.float().contiguous()
        self.edge = [e.float().contiguous() for e in edge]
        self.given = (value, key, query, att, edge)
        self.index, self.mode, self.merged = [t.contiguous() for t in index], mode, bool(layout[2])
        self.rows = read_layout(layout, self.index)
        self.across, self.slope = across, float(slope)
        self.heads, self.width = query[0].shape[2], width_of(value)
        self.device = query[0].device
        self.shared = any(v.shape[1] and v.shape[2] == 1 for v in value) and self.heads > 1
        self.samples = samples = len(index[0]) - 1
        self.numbers = (
            seed.to(self.device, non_blocking=True), min(math.ceil(dropout * 2**32), 2**32 - 1), 1 / (1 - dropout), self.slope,
            self.width**-0.5, samples, samples.bit_length(),
        )  # fmt: skip
        self.sizes: dict[str, Any] = {
            "DROP": dropout > 0,
            "MERGED": self.merged,
            "H": self.heads,
            "C": self.width,
            "MODE": mode,
        }
        self.leaving, self.entering = (
            [sum(getattr(row, end) == t for row in self.rows) for t in range(layout[0])] for end in ("source", "target")
        )
        self.forms = self._forms(form)

    def _forms(self, wanted: str) -> list[str]:
        """How each relation is evaluated: as wanted where it can be, else as counted cost has it; a walk of nothing where there are
        no samples.
        """
        if not self.samples:
            return [FORMS[0]] * len(self.rows)
        relations = []
        for row in self.rows:
            able = able_to(
                row.kind, self.mode, self.width, across=self.across, shared=self.shared, dropout=bool(self.sizes["DROP"]),
                slope=self.slope, loops=row.kind == "bitmask" or bool(row.parameters[0]),
            )  # fmt: skip
            size = Size(
                len(self.value[row.source]), len(self.query[row.target]), self.samples, self.heads, self.width,
                self.value[row.source].element_size(),
            )  # fmt: skip
            relations.append(((wanted,) if wanted in able else able, size))
        return cheapest(relations, self.mode, self.device)

    def forward(self) -> list[Tensor]:
        """Outputs of each node type.

        Raises:
            GraphError: an edge ties nodes of two samples.
        """
        if self.device.type == "cpu":  # interpreted; elsewhere the plan was checked when it was made
            for row in self.rows:
                row.check_samples(self.index)
        with where(self.query[0]):
            return self._forward()

    def _forward(self) -> list[Tensor]:
        out = [
            torch.empty(len(q), outputs_of(self.entering[t], self.merged), self.heads, self.width, device=self.device)
            for t, q in enumerate(self.query)
        ]
        begun: set[int] = set()
        for launch, rows in self._launches((walk.forward, tiles.forward, scan.forward)):
            launch(self, rows, out, begun if self.merged else ())
            begun |= {row.target for row in rows}
        return out

    def backward(self, grad: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of value, key, query, att (if there is one) and edge, one after another, from those of the outputs."""
        with where(self.query[0]):
            return self._backward(grad)

    def _backward(self, grad: Sequence[Tensor]) -> list[Tensor]:
        found = Gradients.of(self, grad)
        for launch, rows in self._launches((walk.of_targets, tiles.of_targets, scan.backward)):
            launch(self, rows, found)
        for launch, rows in self._launches((walk.of_sources, tiles.of_sources, None)):
            launch(self, rows, found)
        value, key, query, att, edge = self.given
        made = [*found.value, *found.key, *found.query, *([] if found.att is None else [found.att]), *found.edge]
        like = [*value, *key, *query, *([] if att is None else [att]), *edge]
        return [f.to(t.dtype).view(t.shape) for f, t in zip(made, like, strict=True)]

    def _launches(self, passes: Sequence[Any]) -> Iterator[tuple[Any, list[Row]]]:
        """What launches each form, with the relations that are to be evaluated so, where there are any."""
        for form, launch in zip(FORMS, passes, strict=True):
            own = [row for row, chosen in zip(self.rows, self.forms, strict=True) if chosen == form]
            if own and launch:
                yield launch, own

    def number(self, row: Row) -> int:
        """Place of a relation in the plan."""
        return self.rows.index(row)

    def entries(self, rows: Sequence[Row]) -> tuple[Static, ...]:
        """What kernels know of relations when they are compiled."""
        return tuple(
            constexpr((
                KINDS.index(row.kind), *row.parameters, self.number(row), row.leaves, self.leaving[row.source], row.enters,
                self.entering[row.target], self.has_edge(row),
            ))
            for row in rows
        )  # fmt: skip

    def has_edge(self, row: Row) -> bool:
        """Whether the edges of a relation have features."""
        return bool(self.edge) and self.edge[self.number(row)].numel() > 0

    def at_targets(self, group: Group) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Arguments that passes over targets share, `Group.of(…, "target")`: value, key, query and att; index tensors of each
        relation, `ptr` of sources and of targets.
        """
        value, query = each(self.value, group.others), each(self.query, group.own)
        keys = each(self.key, group.others) if self.key else value
        index = each(self.index, group.others), each(self.index, group.own)
        return (value, keys, query, self._att), (*self.lists(group.rows), *index)

    def at_sources(self, group: Group, found: Gradients) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """Arguments that passes over sources share, `Group.of(…, "source")`: value, key, query and att; `ptr` of targets and of
        sources, gradients of outputs and what passes over targets left; where gradients of value and key go.
        """
        value, query = each(self.value, group.own), each(self.query, group.others)
        left = (each(part, group.others) for part in (found.out, found.log_sum, found.mean))
        dvalue = each(found.value, group.own)
        return (
            (value, each(self.key, group.own) if self.key else value, query, self._att),
            (each(self.index, group.others), each(self.index, group.own), *left),
            (dvalue, each(found.key, group.own) if self.key else dvalue),
        )

    def partial_att(self, programs: int) -> Tensor:
        """Where each program of a type adds up its part of the gradient of att (programs, relations, H, C); any tensor if there is
        none.
        """
        return self._att if self.att is None else torch.zeros(programs, *self.att.shape, device=self.device)

    @property
    def _att(self) -> Tensor:
        """Any tensor where there is none."""
        return self.value[0] if self.att is None else self.att

    def lists(self, rows: Sequence[Row]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Two index tensors of each relation; any where it has none."""
        lists = [(*row.tensors, self.index[0], self.index[0])[:2] for row in rows]
        return tuple(a for a, _ in lists), tuple(b for _, b in lists)


@dataclass(frozen=True)
class Gradients:
    """Of a backward pass: those of the outputs (`out`), and where kernels write those of value, key, query, att (if there is one)
    and edge. Passes over targets leave for those over sources, of each target, relation and head (N, Q, H): the logarithm of the
    softmax's sum (`log_sum`), and Σ α m (g · v) (`mean`).
    """

    out: list[Tensor]
    value: list[Tensor]
    key: list[Tensor]
    query: list[Tensor]
    att: Tensor | None
    edge: list[Tensor]
    log_sum: list[Tensor]
    mean: list[Tensor]

    @classmethod
    def of(cls, call: Call, grad: Sequence[Tensor]) -> Gradients:
        """Nothing written yet; what programs add to begins as zeros."""
        value, key, query = ([torch.empty_like(t) for t in part] for part in (call.value, call.key, call.query))
        log_sum, mean = (
            [torch.empty(*q.shape[:2], call.heads, device=call.device) for q in call.query] for _ in range(2)
        )
        att = None if call.att is None else torch.zeros_like(call.att)
        edge = [torch.zeros_like(e) for e in call.edge]
        return cls([g.contiguous() for g in grad], value, key, query, att, edge, log_sum, mean)

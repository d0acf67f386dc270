"""The CPU backend: tensors in the shape that the C++ kernels take, and calls to them."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphfusion.errors import GraphError
from graphfusion.ops.hetero_attention.library import kernels, lanes, why_not
from graphfusion.ops.hetero_attention.pairs import KINDS
from graphfusion.ops.hetero_attention.plan import TWO_SAMPLES, Row, outputs_of, read_layout, width_of

MODES = ("gat", "gatv2", "dot")
MOST_HEADS = 16
TOO_MANY = 2


def why_not_this(value: Sequence[Tensor], query: Sequence[Tensor]) -> str:
    """Why the kernels cannot take these tensors; "" if they can."""
    if why_not():
        return why_not()
    if any(t.device.type != "cpu" for t in (*value, *query)):
        return "it runs on CPU tensors only"
    if any(v.dtype not in (torch.float32, torch.bfloat16) for v in value) or any(
        q.dtype != torch.float32 for q in query
    ):
        return "it takes float32 or bfloat16 values and float32 queries"
    if len({v.dtype for v in value}) > 1:
        return "it takes values of one dtype for all node types"
    if query and query[0].shape[2] > MOST_HEADS:
        return f"it takes at most {MOST_HEADS} heads"
    return ""


def forward(
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
) -> list[Tensor]:
    """Outputs of each node type; see `reference.attention`."""
    call = _Call(value, key, query, att, edge, index, layout, mode, slope, dropout, seed, top_k, across)
    call.run(back=False)
    return call.outputs()


def backward(
    grad: Sequence[Tensor],
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
) -> list[Tensor]:
    """Gradients of value, key, query, att (if there is one) and edge, one after another."""
    call = _Call(value, key, query, att, edge, index, layout, mode, slope, dropout, seed, top_k, across)
    call.take_gradients(grad)
    call.run(back=True)
    return call.gradients()


class _Call:
    """Tensors of one call in the shape that the kernels take: contiguous, head widths a multiple of the lanes, numbers
    of one a head padded to a power of two. What fits is passed as it is.
    """

    def __init__(
        self,
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
        self.heads = query[0].shape[2]
        self.width = width_of(value)
        widest = lanes()
        self.lanes = 16 if widest == 16 and self.width % 16 == 0 else min(widest, 8)
        self.columns = self.width + -self.width % self.lanes
        self.padded = 1 << (self.heads - 1).bit_length()
        self.mode, self.merged = mode, bool(layout[2])
        shared = any(v.shape[1] and v.shape[2] == 1 for v in value) and self.heads > 1
        self.value = [self._wide(v) for v in value]
        self.key, self.query = [self._logit(k) for k in key], [self._logit(q) for q in query]
        self.edge = [self._logit(e) if e.numel() else e for e in edge]
        self.att = None if att is None else self._wide(att).float()
        self.index = [t.contiguous() for t in index]
        self.rows = read_layout(layout, self.index)
        samples = len(index[0]) - 1
        options = (int(value[0].dtype == torch.bfloat16), int(across), top_k, torch.get_num_threads(), samples)
        heads = (self.heads, self.padded, 1 if shared else self.heads, self.columns)
        self.head = [layout[0], layout[1], layout[2], *heads, MODES.index(mode), *options]
        self.real = (slope, dropout, self.width**-0.5)
        self.seed = int(seed) if dropout else 0
        plain = mode == "gat" and not (across or dropout or top_k or shared) and 0 <= slope <= 1
        self.linear = [plain and row.kind == "dense" and bool(row.parameters[0]) for row in self.rows]
        self.linear = [yes and not (edge and edge[r].numel()) for r, yes in enumerate(self.linear)]
        self.out = [self._out(q) for q in self.query]
        self.grad: list[Tensor] = []
        self.dvalue: list[Tensor] = []
        self.dkey: list[Tensor] = []
        self.dquery: list[Tensor] = []
        self.dedge: list[Tensor] = []
        self.datt: Tensor | None = None

    def take_gradients(self, grad: Sequence[Tensor]) -> None:
        """What a backward call reads and writes besides."""
        self.out = []
        self.grad = [self._wide(g.float()) for g in grad]
        self.dvalue, self.dkey = [torch.empty_like(v) for v in self.value], [torch.empty_like(k) for k in self.key]
        self.dquery, self.dedge = [torch.empty_like(q) for q in self.query], [torch.zeros_like(e) for e in self.edge]
        self.datt = None if self.att is None else torch.zeros_like(self.att)

    def run(self, back: bool) -> None:
        """Call the kernels.

        Raises:
            GraphError: an edge ties nodes of two samples.
        """
        numbers = array("q", self._numbers())
        real = array("d", self.real)
        places = [ctypes.c_void_p(a.buffer_info()[0]) for a in (numbers, real)]
        failed = kernels().graphfusion_attention(*places, ctypes.c_int(back), ctypes.c_int(self.lanes))
        if failed == TOO_MANY:
            raise GraphError("a sample has 2³¹ pairs or more; use lists, windows, or dense relations in mode 'gat'.")
        if failed:
            raise GraphError(TWO_SAMPLES)

    def outputs(self) -> list[Tensor]:
        """(N, O, H, C) of each type."""
        return [self._narrow(o, self.width) for o in self.out]

    def gradients(self) -> list[Tensor]:
        """See `backward`."""
        logit = self.heads if self.mode == "gat" else self.width
        each = self.width if self.mode == "gatv2" else self.heads
        return [
            *(self._narrow(v, self.width) for v in self.dvalue),
            *(self._narrow(k, logit) for k in self.dkey),
            *(self._narrow(q, logit) for q in self.dquery),
            *([] if self.datt is None else [self._narrow(self.datt, self.width)]),
            *(self._narrow(e, each) if e.numel() else e for e in self.dedge),
        ]

    def _numbers(self) -> list[int]:
        numbers = [*self.head, self.seed, _place(self.att), _place(self.datt)]
        for t, query in enumerate(self.query):
            value = self.value[t]
            outputs = outputs_of(query.shape[1], self.merged)
            numbers += [query.shape[0], value.shape[1], query.shape[1], outputs]
            parts = (self.value, self.key, self.query, self.out, self.grad, self.dvalue, self.dkey, self.dquery)
            numbers += [_place(self.index[t]), *(_place(part[t] if part else None) for part in parts)]
        for r, row in enumerate(self.rows):
            numbers += [*_row_numbers(row), *(_place(t) for t in (*row.tensors, None, None)[:2])]
            has = bool(self.edge) and self.edge[r].numel() > 0
            numbers += [_place(self.edge[r]) if has else 0, _place(self.dedge[r]) if has and self.dedge else 0]
            numbers.append(int(self.linear[r]))
        return numbers

    def _wide(self, t: Tensor) -> Tensor:
        return (pad(t, (0, self.columns - self.width)) if self.columns != self.width else t).contiguous()

    def _logit(self, t: Tensor) -> Tensor:
        """Key, query or edge: one number a head, or a row of a head's width."""
        if t.dim() == 2 or (self.mode == "gat" and t.dim() == 3):
            return (pad(t, (0, self.padded - self.heads)) if self.padded != self.heads else t).contiguous().float()
        return self._wide(t).float()

    def _out(self, query: Tensor) -> Tensor:
        outputs = outputs_of(query.shape[1], self.merged)
        return query.new_empty(query.shape[0], outputs, self.heads, self.columns)

    @staticmethod
    def _narrow(t: Tensor, size: int) -> Tensor:
        return t if t.shape[-1] == size else t[..., :size].contiguous()


def _row_numbers(row: Row) -> tuple[int, ...]:
    return (KINDS.index(row.kind), row.source, row.leaves, row.target, row.enters, *row.parameters)


def _place(t: Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()

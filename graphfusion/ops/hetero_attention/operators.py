"""`hetero_project` and `hetero_attention` as PyTorch operators: fake kernels for tracing, explicit backward operators,
backends by name. See README.md beside this file for formulas and gradients.

Letters: `N` nodes of a type, `E` edges of a relation, `D` features, `R` relations leaving a type, `Q` entering it, `O`
outputs of a type (merged: 1 if anything enters it; else Q), `H` heads, `C` width of a head.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from graphfusion.errors import ConfigError, GraphError, unknown_name
from graphfusion.ops.hetero_attention import cpu, gemm, gpu, library, reference
from graphfusion.ops.hetero_attention.gpu.forms import FORMS
from graphfusion.ops.hetero_attention.plan import Plan, Relation, outputs_of, read_layout, width_of
from graphfusion.ops.hetero_attention.tracing import exporting

MODES = cpu.MODES
BACKENDS = ("cpu", "triton", "reference")
"""Backends by name. `auto` takes the one that the environment variable `PREFERRED` names, where it can run, else `cpu`, else
`reference`; `triton` must be asked for so, or by name, until it has been measured.
"""
PREFERRED = "GRAPHFUSION_ATTENTION"

KERNELS: dict[str, Any] = {
    "cpu": cpu, "triton": gpu.Backend(), **{f"triton-{form}": gpu.Backend(form) for form in FORMS},
}  # fmt: skip
"""Backends with `forward` and `backward` of their own; `triton` evaluates each relation the way that costs least, `triton-walk`,
`triton-tiles` and `triton-scan` as they say, where a relation can be evaluated so.
"""

_ARGUMENTS = (
    "Tensor[] value, Tensor[] key, Tensor[] query, Tensor? att, Tensor[] edge, Tensor[] index, int[] layout, str mode, "
    "float slope, float dropout, Tensor seed, int top_k, bool across, str backend"
)


def hetero_project(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    of: Sequence[int],
    bias: Sequence[Tensor] = (),
    backend: str = "auto",
) -> list[Tensor]:
    """All linear maps of a layer: output k is x[of[k]] @ weight[k].T (+ bias[k]), in the dtype of weight[k].

    Args:
        x: (N, D) features of each node type.
        weight: (K, D) stacked maps; those that make logits may be float32 while those that make values are bfloat16.
        of: the node type that each map reads.
        bias: (K,) each, or none at all.
        backend: `reference` gives derivatives of any order; any other name of `BACKENDS` the operator, which makes all maps in one
            launch where the environment prefers Triton and the tensors lie on a GPU.

    Raises:
        GraphError: widths do not fit.
        ConfigError: an unknown backend.
    """
    _check_backend("backend", backend)
    for k, (t, w) in enumerate(zip(of, weight, strict=True)):
        if x[t].dim() != 2 or x[t].shape[1] != w.shape[1]:
            raise GraphError(f"projection {k}: expected features (N, {w.shape[1]}), got {tuple(x[t].shape)}.")
    if exporting() or (backend == "reference" and not torch.compiler.is_compiling()):
        with _without_autocast(x):
            return reference.project(x, weight, bias, of)
    out: list[Tensor] = torch.ops.graphfusion.hetero_project(list(x), list(weight), list(bias), list(of))
    return out


def hetero_attention(
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    plan: Plan,
    *,
    mode: str = "gat",
    att: Tensor | None = None,
    edge: Sequence[Tensor] | None = None,
    slope: float = 0.2,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    top_k: int = 0,
    across: bool = False,
    backend: str = "auto",
) -> list[Tensor]:
    """Messages along all relations of a plan: for each node type (N, O, H, C), 0 in a node where no edge arrives.

    out_i = Σ_j softmax_j(score_ij) · value_j, the sum and the softmax over the edges j → i of one relation (`across`:
    of all relations into i). Scores: `gat` leaky(key_j + query_i + edge_ij) (Veličković et al. 2018), `gatv2`
    att · leaky(value_j + query_i + edge_ij) (Brody et al. 2022), `dot` key_j · query_i / √C + edge_ij (Vaswani et al. 2017).

    Args:
        plan: the relations; see `make_plan`.
        mode: `gat`, `gatv2` or `dot`.
        across: one softmax over the edges of all relations into a node.
        value: per node type (N, R, H, C) float32 or bfloat16 (Triton: or float16), slot r for the r-th relation that leaves it;
            (N, R, 1, C), then for all types, shares a row among all heads.
        key: `gat` (N, R, H), `dot` (N, R, H, C), `gatv2` none.
        query: `gat` (N, Q, H), else (N, Q, H, C), slot q for the q-th relation that enters the type.
        att: (relations, H, C), for `gatv2`.
        edge: one tensor a relation, in the order of `Plan.edge_index`: (E, H), for `gatv2` (E, H, C); empty where a
            relation has none; only for listed edges.
        slope: of the leaky rectifier below 0.
        dropout: probability with which a weight is zeroed (the rest scaled up); drawn from `seed` by counting.
        seed: (1,) int64; drawn from PyTorch's generator if not given.
        top_k: keep of each (target, relation, head) only the `top_k` largest scores; 0 keeps all.
        backend: `auto` (see `BACKENDS`), `cpu` (C++ kernels), `triton` (kernels for a GPU, each relation the way that costs least;
            `triton-walk`, `triton-tiles`, `triton-scan` for one way, where a relation can be evaluated so) or `reference`
            (plain PyTorch; derivatives of any order).

    Raises:
        GraphError: shapes, types or devices contradict the plan, or an edge ties two samples.
        ConfigError: an unknown mode or backend, an option that a mode does not have, a named backend that cannot run.
    """
    extra = list(edge or ())
    _check(value, key, query, plan, mode, att, extra, dropout, top_k)
    if exporting() and any(r not in plan.order for r in plan.relations):
        raise GraphError(
            "export: the plan walks rules, whose number of edges follows from data. Give a layer `plan.listed()`, a whole "
            "model a batch `batch.with_edges({t: batch.edge_index(t) for t in batch.edge_types})`."
        )
    chosen = _backend(backend, value, query, top_k)
    if seed is not None and seed.numel() != 1:
        raise GraphError(f"seed: expected one whole number (1,), got {tuple(seed.shape)}.")
    if seed is None:
        device = query[0].device if query else None  # on a GPU a number from elsewhere would have to be sent
        seed = (
            torch.randint(2**62, (1,), device=device) if dropout else torch.zeros(1, dtype=torch.int64, device=device)
        )
    rest = (att, extra, list(plan.index), list(plan.layout), mode, slope, dropout, seed, top_k, across)
    if chosen == "reference" and (exporting() or not torch.compiler.is_compiling()):
        return reference.attention(value, key, query, *rest)[0]
    out: list[Tensor] = torch.ops.graphfusion.hetero_attention(list(value), list(key), list(query), *rest, chosen)
    return out


def attention_weights(
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    plan: Plan,
    *,
    mode: str = "gat",
    att: Tensor | None = None,
    edge: Sequence[Tensor] | None = None,
    slope: float = 0.2,
    top_k: int = 0,
    across: bool = False,
) -> dict[Relation, tuple[Tensor, Tensor]]:
    """Edges (2, E), sorted by target, and weights (E, H) of each relation, as `hetero_attention` uses them without
    dropout. Evaluated by the reference, since no kernel ever holds all weights at once.
    """
    extra = list(edge or ())
    _check(value, key, query, plan, mode, att, extra, 0.0, top_k)
    seed = torch.zeros(1, dtype=torch.int64)
    options = (att, extra, plan.index, plan.layout, mode, slope, 0.0, seed, top_k, across)
    weights = reference.attention(value, key, query, *options)[1]
    rows = read_layout(plan.layout, plan.index)
    return {r: (row.edge_index(plan.index), w) for r, row, w in zip(plan.relations, rows, weights, strict=True)}


def backends() -> dict[str, str]:
    """Each backend and why it cannot run here; "" if it can."""
    return {"cpu": library.why_not(), "triton": gpu.why_not(), "reference": ""}


def _backend(name: str, value: Sequence[Tensor], query: Sequence[Tensor], top_k: int) -> str:
    _check_backend("backend", name)
    if name == "reference" or exporting():
        return "reference"
    if torch.compiler.is_compiling():
        return name  # a trace cannot look for kernels; the operator chooses when it runs
    if name in KERNELS:
        if reason := _why_not(name, value, query, top_k):
            raise ConfigError(f"backend {name!r} cannot run: {reason}.")
        return name
    preferred = _preferred()
    if preferred == "reference":
        return preferred
    able = (k for k in (preferred, "cpu") if k in KERNELS and not _why_not(k, value, query, top_k))
    return next(able, "reference")


def _preferred() -> str:
    """The backend that the environment prefers; ConfigError for a name that is none."""
    name = os.environ.get(PREFERRED, "auto")
    _check_backend(f"backend in {PREFERRED}", name)
    return name


def _check_backend(what: str, name: str) -> None:
    known = ("auto", "reference", *KERNELS)
    if name not in known:
        raise ConfigError(unknown_name(what, name, known))


def _why_not(name: str, value: Sequence[Tensor], query: Sequence[Tensor], top_k: int) -> str:
    """Why kernels cannot take these tensors; "" if they can."""
    triton = name.startswith("triton")
    return gpu.why_not_this(value, query, top_k) if triton else cpu.why_not_this(value, query)


def _check(
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    plan: Plan,
    mode: str,
    att: Tensor | None,
    edge: list[Tensor],
    dropout: float,
    top_k: int,
) -> None:
    """Everything about shapes, ahead of any kernel."""
    if mode not in MODES:
        raise ConfigError(unknown_name("attention mode", mode, MODES))
    if not 0 <= dropout < 1 or top_k < 0:
        raise ConfigError(f"expected 0 ≤ dropout < 1 and top_k ≥ 0, got {dropout} and {top_k}.")
    if (mode == "gatv2") != (att is not None):
        raise ConfigError(f"att: mode 'gatv2' needs it and no other mode takes it; got mode {mode!r}.")
    count = len(plan.node_types)
    if len(value) != count or len(query) != count or len(key) != (0 if mode == "gatv2" else count):
        raise GraphError(f"expected a value, key and query for each of the node types {', '.join(plan.node_types)}.")
    _check_dimensions("value", value, plan, "(N, R, H, C)")
    _check_dimensions("query", query, plan, "(N, Q, H)" if mode == "gat" else "(N, Q, H, C)")
    heads = query[0].shape[2]
    width = width_of(value)
    for t, name in enumerate(plan.node_types):
        nodes, leaving, entering = plan.sizes[t], len(plan.leaving(name)), len(plan.entering(name))
        rows = [(nodes, leaving, heads, width), (nodes, leaving, heads if mode == "gatv2" else 1, width)]
        if (leaving or value[t].numel()) and tuple(value[t].shape) not in rows:
            raise GraphError(f"value of {name!r}: expected {rows[0]}, got {tuple(value[t].shape)}.")
        tail = (heads,) if mode == "gat" else (heads, width)
        if tuple(query[t].shape) != (nodes, entering, *tail):
            raise GraphError(f"query of {name!r}: expected {(nodes, entering, *tail)}, got {tuple(query[t].shape)}.")
        if key and tuple(key[t].shape) != (nodes, leaving, *tail):
            raise GraphError(f"key of {name!r}: expected {(nodes, leaving, *tail)}, got {tuple(key[t].shape)}.")
    _check_together([*value, *key, *query, *edge, *([] if att is None else [att]), *plan.index], value)
    _check_edges(plan, edge, (heads, width) if mode == "gatv2" else (heads,), att, width)


def _check_together(tensors: Sequence[Tensor], value: Sequence[Tensor]) -> None:
    if len({v.shape[2] for v in value if v.shape[1]}) > 1:
        raise GraphError("value: expected a row for each head in all node types, or one for all heads in all of them.")
    devices = sorted({str(t.device) for t in tensors})
    if len(devices) > 1:
        raise GraphError(f"tensors lie on several devices: {devices}; move them with .to().")


def _check_dimensions(what: str, tensors: Sequence[Tensor], plan: Plan, shape: str) -> None:
    for name, t in zip(plan.node_types, tensors, strict=True):
        if t.dim() != shape.count(",") + 1:
            raise GraphError(f"{what} of {name!r}: expected the shape {shape}, got {tuple(t.shape)}.")


def _check_edges(plan: Plan, edge: list[Tensor], tail: tuple[int, ...], att: Tensor | None, width: int) -> None:
    if att is not None and tuple(att.shape) != (len(plan.relations), tail[0], width):
        raise GraphError(f"att: expected {(len(plan.relations), tail[0], width)}, got {tuple(att.shape)}.")
    if edge and len(edge) != len(plan.relations):
        raise GraphError(f"edge: expected one tensor for each of {len(plan.relations)} relations, got {len(edge)}.")
    for relation, row, e in zip(
        plan.relations, read_layout(plan.layout, plan.index) if edge else [], edge, strict=False
    ):
        if not e.numel():
            continue
        if row.kind != "csr":
            raise GraphError(f"edge of {relation}: only listed edges take features, these are {row.kind}.")
        if tuple(e.shape) != (len(row.tensors[1]), *tail):
            raise GraphError(f"edge of {relation}: expected {(len(row.tensors[1]), *tail)}, got {tuple(e.shape)}.")


def _in_one_launch(x: Sequence[Tensor], weight: Sequence[Tensor]) -> bool:
    """Whether the grouped kernel makes the projections: where Triton is preferred, and it takes them."""
    return _preferred().startswith("triton") and not gpu.why_not_these_maps(x, weight)


@torch.library.custom_op(
    "graphfusion::hetero_project",
    mutates_args=(),
    schema="(Tensor[] x, Tensor[] weight, Tensor[] bias, int[] of) -> Tensor[]",
)
def _project(x: list[Tensor], weight: list[Tensor], bias: list[Tensor], of: list[int]) -> list[Tensor]:
    if _in_one_launch(x, weight):
        return gpu.project_forward(x, weight, bias, of)
    cast = {(t, w.dtype): x[t].to(w.dtype) for t, w in zip(of, weight, strict=True)}
    with _without_autocast(x):
        return [
            gemm.linear(cast[t, w.dtype], w, bias[k] if bias else None)
            for k, (t, w) in enumerate(zip(of, weight, strict=True))
        ]


@_project.register_fake
def _(x: list[Tensor], weight: list[Tensor], bias: list[Tensor], of: list[int]) -> list[Tensor]:
    return [w.new_empty(x[t].shape[0], w.shape[0]) for t, w in zip(of, weight, strict=True)]


@torch.library.custom_op(
    "graphfusion::hetero_project_backward",
    mutates_args=(),
    schema="(Tensor[] grad, Tensor[] x, Tensor[] weight, bool bias, int[] of) -> Tensor[]",
)
def _project_backward(
    grad: list[Tensor], x: list[Tensor], weight: list[Tensor], bias: bool, of: list[int]
) -> list[Tensor]:
    with _without_autocast(x):
        return _project_gradients(grad, x, weight, bias, of)


def _project_gradients(
    grad: list[Tensor], x: list[Tensor], weight: list[Tensor], bias: bool, of: list[int]
) -> list[Tensor]:
    shifts = [g.sum(0) for g in grad] if bias else []
    if _in_one_launch(x, weight):
        return [*gpu.project_backward(grad, x, weight, of), *shifts]
    dx: list[Tensor | None] = [None] * len(x)
    same: dict[tuple[int, torch.dtype], list[int]] = {}
    for k, (g, w, t) in enumerate(zip(grad, weight, of, strict=True)):
        dx[t] = gemm.add_product(dx[t], g, w, x[t].dtype)
        same.setdefault((t, w.dtype), []).append(k)
    dweight = list(weight)
    for (t, dtype), maps in same.items():
        for k, found in zip(maps, gemm.outers([grad[k] for k in maps], x[t].to(dtype)), strict=True):
            dweight[k] = found
    whole = [torch.zeros_like(a) if d is None else d for a, d in zip(x, dx, strict=True)]
    return [*whole, *dweight, *shifts]


@_project_backward.register_fake
def _(grad: list[Tensor], x: list[Tensor], weight: list[Tensor], bias: bool, of: list[int]) -> list[Tensor]:
    shifts = [g.new_empty(g.shape[1]) for g in grad] if bias else []
    return [*(torch.empty_like(a) for a in x), *(torch.empty_like(w) for w in weight), *shifts]


def _project_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, weight, bias, ctx.of = inputs
    ctx.set_materialize_grads(False)
    ctx.types, ctx.has_bias = len(x), bool(bias)
    ctx.save_for_backward(*x, *weight)


def _project_gradient(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """None for what only maps without a gradient read, or are: autograd passes over it."""
    saved = ctx.saved_tensors
    x, weight = list(saved[: ctx.types]), list(saved[ctx.types :])
    live = [k for k, g in enumerate(grads) if g is not None]
    of = [ctx.of[k] for k in live]
    found = torch.ops.graphfusion.hetero_project_backward(
        [grads[k] for k in live], x, [weight[k] for k in live], ctx.has_bias, of
    )
    dx = [d if t in of else None for t, d in enumerate(found[: ctx.types])]
    dweight = _placed(found[ctx.types : ctx.types + len(live)], live, len(weight))
    return dx, dweight, _placed(found[ctx.types + len(live) :], live, len(weight) if ctx.has_bias else 0), None


def _placed(found: Sequence[Tensor], places: Sequence[int], count: int) -> list[Tensor | None]:
    out: list[Tensor | None] = [None] * count
    for k, tensor in zip(places, found, strict=False):
        out[k] = tensor
    return out


_project.register_autograd(_project_gradient, setup_context=_project_setup)


@torch.library.custom_op("graphfusion::hetero_attention", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor[]")
def _attention(
    value: list[Tensor],
    key: list[Tensor],
    query: list[Tensor],
    att: Tensor | None,
    edge: list[Tensor],
    index: list[Tensor],
    layout: list[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
    backend: str,
) -> list[Tensor]:
    rest = (att, edge, index, layout, mode, slope, dropout, seed, top_k, across)
    kernels = KERNELS.get(_backend(backend, value, query, top_k))
    if kernels:
        made: list[Tensor] = kernels.forward(value, key, query, *rest)
        return made
    return reference.attention(value, key, query, *rest)[0]


@_attention.register_fake
def _(
    value: list[Tensor],
    key: list[Tensor],
    query: list[Tensor],
    att: Tensor | None,
    edge: list[Tensor],
    index: list[Tensor],
    layout: list[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
    backend: str,
) -> list[Tensor]:
    heads, width = query[0].shape[2], width_of(value)
    return [q.new_empty(q.shape[0], outputs_of(q.shape[1], bool(layout[2])), heads, width) for q in query]


@torch.library.custom_op(
    "graphfusion::hetero_attention_backward",
    mutates_args=(),
    schema=f"(Tensor[] grad, {_ARGUMENTS}) -> Tensor[]",
)
def _attention_backward(
    grad: list[Tensor],
    value: list[Tensor],
    key: list[Tensor],
    query: list[Tensor],
    att: Tensor | None,
    edge: list[Tensor],
    index: list[Tensor],
    layout: list[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
    backend: str,
) -> list[Tensor]:
    rest = (index, layout, mode, slope, dropout, seed, top_k, across)
    kernels = KERNELS.get(_backend(backend, value, query, top_k))
    if kernels:
        gradients: list[Tensor] = kernels.backward(grad, value, key, query, att, edge, *rest)
        return gradients
    parts = (value, key, query, [] if att is None else [att], edge)
    # an operator runs below autograd, which the reference needs back for its own graph
    below = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with torch.enable_grad(), below:
        leaves = [[t.detach().requires_grad_() for t in part] for part in parts]
        v, k, q, a, e = leaves
        outs = reference.attention(v, k, q, a[0] if a else None, e, *rest)[0]
        flat = [t for part in leaves for t in part]
        found = torch.autograd.grad(outs, flat, grad, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(flat, found, strict=True)]


@_attention_backward.register_fake
def _(
    grad: list[Tensor],
    value: list[Tensor],
    key: list[Tensor],
    query: list[Tensor],
    att: Tensor | None,
    edge: list[Tensor],
    index: list[Tensor],
    layout: list[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
    backend: str,
) -> list[Tensor]:
    return [torch.empty_like(t) for t in (*value, *key, *query, *([] if att is None else [att]), *edge)]


def _attention_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    value, key, query, att, edge, index, ctx.layout, *options = inputs
    ctx.set_materialize_grads(False)
    ctx.mode, ctx.slope, ctx.dropout, seed, ctx.top_k, ctx.across, ctx.backend = options
    ctx.shape = [(o.shape, o.dtype, o.device) for o in output]
    ctx.counts = [len(value), len(key), len(query), int(att is not None), len(edge), len(index)]
    ctx.save_for_backward(*value, *key, *query, *([] if att is None else [att]), *edge, *index, seed)


def _attention_gradient(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    *saved, seed = ctx.saved_tensors
    value, key, query, att, edge, index = _split(saved, ctx.counts)
    filled = _filled(grads, ctx.shape)
    options = (ctx.mode, ctx.slope, ctx.dropout, seed, ctx.top_k, ctx.across, ctx.backend)
    weight = att[0] if att else None
    found = torch.ops.graphfusion.hetero_attention_backward(
        filled, value, key, query, weight, edge, index, ctx.layout, *options
    )
    dvalue, dkey, dquery, datt, dedge = _split(list(found), ctx.counts[:5])
    rows = read_layout(ctx.layout, index)
    # what no gradient came back to has none itself
    sent = {row.source for row in rows if grads[row.target] is not None}
    return (
        [g if t in sent else None for t, g in enumerate(dvalue)],
        [g if t in sent else None for t, g in enumerate(dkey)],
        [None if grads[t] is None else g for t, g in enumerate(dquery)],
        datt[0] if datt else None,
        [None if grads[row.target] is None else g for row, g in zip(rows, dedge, strict=False)],
        [None] * len(index),
        *[None] * 8,
    )


_attention.register_autograd(_attention_gradient, setup_context=_attention_setup)


def _without_autocast(x: Sequence[Tensor]) -> Any:
    """The dtype of a map is chosen by its weight: logits stay float32 under autocast, also of a type without rows."""
    device = x[0].device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _split(flat: Sequence[Tensor], counts: Sequence[int]) -> list[list[Tensor]]:
    parts, at = [], 0
    for count in counts:
        parts.append(list(flat[at : at + count]))
        at += count
    return parts


def _filled(grads: Sequence[Tensor | None], shapes: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Gradients with zeros where an output was not used."""
    return [
        torch.zeros(shape, dtype=dtype, device=device) if g is None else g
        for g, (shape, dtype, device) in zip(grads, shapes, strict=True)
    ]

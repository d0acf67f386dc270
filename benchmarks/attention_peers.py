"""The rows of `benchmarks/attention.py`: modules from x[type] (N, D) to messages[type] (N, D), ours and their peers.

`ROWS` names them. Ours hold the weights of PyG's layers, which `carried_over` rewrites, so that `compare` can hold outputs
and every gradient against PyG's, each under PyG's own name.

Letters: `N` nodes of a type, `B` samples, `L` most tokens of a sample, `D` features, `H` heads.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad, scaled_dot_product_attention

from benchmarks.attention_graphs import TYPES, Graph, Relation, relations

Rows = dict[str, Tensor]


class NotHereError(Exception):
    """A row that this machine cannot run, and why."""


# PyG


class OnEdges(nn.Module):
    """A layer of PyG over the edge lists of a graph."""

    def __init__(self, layer: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.layer, self.edges = layer, dict(graph.edges)

    def forward(self, x: Rows) -> Rows:
        return self.layer(x, self.edges)


def hetero_conv(graph: Graph, mode: str) -> nn.Module:
    """PyG's `HeteroConv(sum)` of one convolution a relation, biases drawn too; weights in 32nds if the graph is `exact`."""
    from torch_geometric.nn import GATConv, GATv2Conv, HeteroConv, TransformerConv

    torch.manual_seed(0)
    dim, heads = graph.size.dim, graph.size.heads
    kind, options = {
        "gat": (GATConv, {"add_self_loops": False}),
        "gatv2": (GATv2Conv, {"add_self_loops": False}),
        "dot": (TransformerConv, {"root_weight": False, "bias": False}),
    }[mode]
    convs = {r: kind((dim, dim), dim // heads, heads=heads, **options) for r in relations()}
    with torch.no_grad():
        for name, parameter in nn.ModuleList(convs.values()).named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
            if graph.exact:  # half a unit more in one of two biases: no sum is 0
                parameter.mul_(32).round_().div_(32).add_(1 / 256 if name.endswith("lin_l.bias") else 0)
    return HeteroConv(convs, aggr="sum").to(graph.x["hub"].device)


def pyg(mode: str) -> Callable[[Graph], nn.Module]:
    """Makes the eager layer."""
    return lambda graph: OnEdges(hetero_conv(graph, mode), graph)


_compiled: dict[tuple[int, int, str], nn.Module] = {}


def pyg_compiled(mode: str) -> Callable[[Graph], nn.Module]:
    """Makes the layer compiled for dynamic shapes; one for all graphs of a width, as a user would keep it."""

    def make(graph: Graph) -> nn.Module:
        import torch._dynamo
        import torch._inductor.config

        torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would go on eagerly, in silence
        torch._inductor.config.force_disable_caches = True  # else the compile time of a second run is not one
        key = graph.size.dim, graph.size.heads, mode
        if key not in _compiled:
            _compiled[key] = torch.compile(hetero_conv(graph, mode), dynamic=True)
        return OnEdges(_compiled[key], graph)

    return make


def compiled_before(graph: Graph, mode: str) -> bool:
    """Whether a layer of this width has been compiled for another graph, so that anything more is a recompilation."""
    return (graph.size.dim, graph.size.heads, mode) in _compiled


def graphs_compiled() -> int:
    """How many graphs `torch.compile` has made so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def pyg_hgt(graph: Graph) -> nn.Module:
    """PyG's heterogeneous graph transformer."""
    from torch_geometric.nn import HGTConv

    torch.manual_seed(0)
    dim = graph.size.dim
    return OnEdges(HGTConv(dim, dim, (list(TYPES), relations()), heads=graph.size.heads), graph)


# DGL


class OnDGL(nn.Module):
    """DGL's `HeteroGraphConv(GATConv)`, its sparse formats made beforehand."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        dgl = import_dgl()
        convolution = importlib.import_module("dgl.nn.pytorch")
        torch.manual_seed(0)
        dim, heads = graph.size.dim, graph.size.heads
        edges = {(a, f"{a}-{name}-{b}", b): tuple(e) for (a, name, b), e in graph.edges.items()}
        self.graph = dgl.heterograph(edges, num_nodes_dict=graph.sizes)
        self.graph.create_formats_()
        convs = {
            name: convolution.GATConv((dim, dim), dim // heads, heads, allow_zero_in_degree=True)
            for _, name, _ in edges
        }
        self.layer = convolution.HeteroGraphConv(convs, aggregate="sum")

    def forward(self, x: Rows) -> Rows:
        return {name: rows.flatten(1) for name, rows in self.layer(self.graph, x).items()}


def import_dgl() -> ModuleType:
    """DGL without `graphbolt`, its data loader, which is built for one version of PyTorch and not used here.

    Raises:
        NotHereError: it is not installed.
    """
    if importlib.util.find_spec("dgl") is None:
        raise NotHereError("dgl is not installed (pip install --no-deps --target FOLDER dgl, then PYTHONPATH=FOLDER)")
    os.environ.setdefault("DGLBACKEND", "pytorch")
    sys.modules.setdefault("dgl.graphbolt", _AnyName("dgl.graphbolt"))
    try:
        return importlib.import_module("dgl")
    except Exception as error:
        raise NotHereError(f"dgl cannot be imported: {type(error).__name__}: {error}") from error


class _AnyName(ModuleType):
    """A module in which every public name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


# All tokens of a sample attend to each other


def token_places(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) sample and (N,) place in it of every token, types one after another; (B,) tokens of each sample."""
    counts = torch.stack([graph.ptr[t].diff() for t in TYPES])
    before = counts.cumsum(0) - counts
    samples, places = [], []
    for t, count in enumerate(counts):
        sample = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        within = torch.arange(len(sample), device=count.device) - graph.ptr[TYPES[t]][sample]
        samples.append(sample)
        places.append(within + before[t][sample])
    return torch.cat(samples), torch.cat(places), counts.sum(0)


class Padded(nn.Module):
    """Tokens padded to (B, L, D), a block over them, and back. `block(tokens, padding)`: padding (B, L) true."""

    def __init__(self, graph: Graph, block: nn.Module) -> None:
        super().__init__()
        self.block, self.counts = block, list(graph.sizes.values())
        sample, place, tokens = token_places(graph)
        self.shape = len(tokens), int(tokens.max()), graph.size.dim
        self.places = sample * self.shape[1] + place
        self.padding = torch.ones(self.shape[:2], dtype=torch.bool, device=place.device)
        self.padding[sample, place] = False

    def forward(self, x: Rows) -> Rows:
        rows = torch.cat([x[t] for t in TYPES])
        padded = rows.new_zeros(self.padding.numel(), self.shape[2]).index_copy(0, self.places, rows)
        out = self.block(padded.view(self.shape), self.padding).flatten(0, 1)[self.places]
        return dict(zip(TYPES, out.split(self.counts), strict=True))


class Attend(nn.Module):
    """Query, key and value, scaled dot-product attention, output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.inward, self.outward = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        query, key, value = self.inward(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(query, key, value, attn_mask=~padding[:, None, None])
        return self.outward(out.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """PyTorch's Transformer encoder layer: attention and a feed-forward of width 4 D."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.layer(x, src_key_padding_mask=padding)


def padded(block: type[nn.Module]) -> Callable[[Graph], nn.Module]:
    """Makes a block over padded tokens."""

    def make(graph: Graph) -> nn.Module:
        torch.manual_seed(0)
        return Padded(graph, block(graph.size.dim, graph.size.heads))

    return make


class Varlen(nn.Module):
    """The same block over packed tokens with `varlen_attn`: no padding at all. Needs a GPU and half precision."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        torch.manual_seed(0)
        dim, self.heads = graph.size.dim, graph.size.heads
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        sample, place, tokens = token_places(graph)
        ends = tokens.cumsum(0)
        self.places = (ends - tokens)[sample] + place
        self.order = torch.argsort(self.places)
        self.ends = pad(ends, (1, 0)).int()
        self.longest, self.counts = int(tokens.max()), list(graph.sizes.values())

    def forward(self, x: Rows) -> Rows:
        from torch.nn.attention.varlen import varlen_attn

        packed = torch.cat([x[t] for t in TYPES])[self.order]
        query, key, value = self.inward(packed).unflatten(1, (3, self.heads, -1)).unbind(1)
        out = varlen_attn(query, key, value, self.ends, self.ends, self.longest, self.longest)
        out = self.outward(out.flatten(1))[self.places]
        return dict(zip(TYPES, out.split(self.counts), strict=True))


# Ours


class Ours(nn.Module):
    """`HeteroAttention` with its plans made beforehand, as the masks of the padded peers are."""

    def __init__(self, graph: Graph, mode: str) -> None:
        super().__init__()
        from graphfusion.nn import HeteroAttention

        dim, heads = graph.size.dim, graph.size.heads
        self.layer = HeteroAttention(TYPES, relations(), dim, heads, mode, few=("hub",))
        weights = carried_over(hetero_conv(graph, mode), self.layer)
        self.layer.load_state_dict({**self.layer.state_dict(), **{n: w.detach() for n, w in weights.items()}})
        self.graph, self.mode = graph, mode
        self.plans = self.make_plans()

    def make_plans(self) -> list:
        """What goal G11 times."""
        return self.layer.plans(self.graph.sizes, self.graph.pairs, self.graph.ptr)

    def forward(self, x: Rows) -> Rows:
        return self.layer(x, self.plans, {})


def ours(mode: str) -> Callable[[Graph], nn.Module]:
    """Makes our layer with PyG's weights."""
    return lambda graph: Ours(graph, mode)


CAPTURED = "CUDA graph of graphfusion gat bf16"


class Captured(nn.Module):
    """Ours, forward and backward recorded as CUDA graphs in the first call: nothing is launched from Python after it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.layer = Ours(graph, "gat")
        self.recorded: Callable[..., tuple[Tensor, ...]] | None = None

    def forward(self, x: Rows) -> Rows:
        if self.recorded is None:
            example = tuple(rows.detach().clone().requires_grad_() for rows in x.values())
            low = torch.is_autocast_enabled("cuda")  # its cache of cast weights cannot be recorded
            with torch.enable_grad(), torch.autocast("cuda", torch.bfloat16, enabled=low, cache_enabled=False):
                self.recorded = torch.cuda.make_graphed_callables(_Positional(self.layer, tuple(x)), example)
        return dict(zip(x, self.recorded(*x.values()), strict=True))


class _Positional(nn.Module):
    """A layer that takes and gives tensors in the order of `names`, as recording wants it."""

    def __init__(self, layer: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.layer, self.names = layer, names

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        out = self.layer(dict(zip(self.names, rows, strict=True)))
        return tuple(out[name] for name in self.names)


class Accelerated(nn.Module):
    """PyG's own layer under `accelerate`, over plain edge lists; its plan is made in the first call."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        try:
            accelerate = importlib.import_module("graphfusion.nn").accelerate
        except ModuleNotFoundError as error:
            raise NotHereError(f"accelerate is not there: {error}") from error
        self.layer = accelerate(hetero_conv(graph, "gat"))
        self.edges = dict(graph.edges)

    def forward(self, x: Rows) -> Rows:
        return self.layer(x, self.edges)


# The rows


@dataclass(frozen=True)
class Row:
    """How a row is made and run.

    `mode`: "gat" or "gatv2" if its speed is set against PyG's layer of that mode; `bf16`: under autocast; `quick`: in a
    quick run too; `device`: the only kind of device that it runs on; `sizes`: the only sizes; `footprint`: about how many
    times E × D numbers a forward + backward holds at once (a row that would not fit in memory is left out).
    """

    make: Callable[[Graph], nn.Module]
    mode: str = ""
    bf16: bool = False
    quick: bool = True
    device: str = ""
    sizes: tuple[str, ...] = ("S", "M", "L")
    footprint: float = 0.0


EVERY_SIZE = (*Row.sizes, "L256")
BASE, BASE_V2, MINE = "PyG GAT", "PyG GATv2", "graphfusion gat"
ROWS: dict[str, Row] = {
    BASE: Row(pyg("gat"), "gat", sizes=EVERY_SIZE, footprint=2.15),
    "PyG GAT bf16": Row(pyg("gat"), "gat", bf16=True, device="cuda", footprint=2.15),
    BASE_V2: Row(pyg("gatv2"), "gatv2", footprint=4.3),
    "PyG HGT": Row(pyg_hgt, quick=False, footprint=7.5),
    "PyG GAT compiled": Row(pyg_compiled("gat"), "gat", quick=False, sizes=("M", "L"), footprint=2.15),
    "PyG GATv2 compiled": Row(pyg_compiled("gatv2"), "gatv2", quick=False, sizes=("M", "L"), footprint=4.3),
    "DGL GAT": Row(OnDGL, "gat"),
    "padded SDPA block": Row(padded(Attend)),
    "padded SDPA block bf16": Row(padded(Attend), bf16=True, quick=False),
    "Transformer encoder layer": Row(padded(EncoderLayer)),
    "Transformer encoder layer bf16": Row(padded(EncoderLayer), bf16=True, device="cuda"),
    "varlen_attn block bf16": Row(Varlen, bf16=True, device="cuda"),
    MINE: Row(ours("gat"), "gat", sizes=EVERY_SIZE),
    "graphfusion gat bf16": Row(ours("gat"), "gat", bf16=True, sizes=EVERY_SIZE),
    "graphfusion gatv2": Row(ours("gatv2"), "gatv2"),
    "graphfusion dot": Row(ours("dot")),
    CAPTURED: Row(Captured, "gat", bf16=True, device="cuda"),
    "accelerate(HeteroConv)": Row(Accelerated, "gat"),
}
"""Name in the table → row, in the table's order."""


def run_forward(module: nn.Module, graph: Graph, bf16: bool = False) -> Rows:
    """Inference."""
    with torch.no_grad(), torch.autocast(graph.x["hub"].device.type, torch.bfloat16, enabled=bf16):
        return module(dict(graph.x))


def run_both(module: nn.Module, graph: Graph, bf16: bool = False) -> tuple[Rows, Rows]:
    """Forward + backward: outputs and inputs; gradients are left in `.grad` of the inputs and the parameters."""
    x = {t: rows.detach().requires_grad_() for t, rows in graph.x.items()}
    module.zero_grad(set_to_none=True)
    with torch.autocast(graph.x["hub"].device.type, torch.bfloat16, enabled=bf16):
        out = module(x)
    torch.autograd.backward(list(out.values()), [graph.grad[t].to(rows.dtype) for t, rows in out.items()])
    return out, x


# Parity


def carried_over(conv: nn.Module, layer: nn.Module) -> dict[str, Tensor]:
    """The parameters of a `HeteroAttention` from those of PyG's layer: name → tensor, differentiable.

    The target's projection of a GAT is folded into its logits: att · (W x) = (att W) x.
    """
    parts = {r: dict(conv.convs[r].named_parameters()) for r in relations()}
    found: dict[str, Tensor] = {}
    for g, group in enumerate(layer.groups):
        of = {r: parts[r] for r in group.relations}
        into_few = not hasattr(group, "mode")
        found |= {f"groups.{g}.{n}": t for n, t in _group_weights(of, layer.node_types, into_few).items()}
    if "bias" in parts[relations()[0]]:
        for k, name in enumerate(layer.targets):
            found[f"bias.{k}"] = sum(p["bias"] for r, p in parts.items() if r[2] == name)
    return found


def _group_weights(
    of: Mapping[Relation, Mapping[str, Tensor]], types: Sequence[str], into_few: bool
) -> dict[str, Tensor]:
    """The parameters of the relations of one mode, stacked by node type."""

    def stacked(name: str, end: int, get: Callable[[Mapping[str, Tensor]], Tensor]) -> dict[str, Tensor]:
        per_type = [[get(p) for r, p in of.items() if r[end] == t] for t in types]
        return {f"{name}.{k}": torch.cat(each) for k, each in enumerate(each for each in per_type if each)}

    first = next(iter(of.values()))
    if "lin_key.weight" in first:
        names = {"value": ("lin_value.weight", 0), "key": ("lin_key.weight", 0), "query": ("lin_query.weight", 2)}
    elif "lin_l.weight" in first:
        names = {"value": ("lin_l.weight", 0), "value_bias": ("lin_l.bias", 0),
                 "query": ("lin_r.weight", 2), "query_bias": ("lin_r.bias", 2)}  # fmt: skip
    else:
        value = {"value": torch.stack([p["lin_src.weight"] for p in of.values()])}
        value = value if into_few else stacked("value", 0, lambda p: p["lin_src.weight"])
        query = stacked("query", 2, lambda p: _fold(p["lin_dst.weight"], p["att_dst"]))
        return {**value, **query, "att": torch.cat([p["att_src"] for p in of.values()])}
    found: dict[str, Tensor] = {}
    for name, (theirs, end) in names.items():
        found |= stacked(name, end, lambda p, theirs=theirs: p[theirs])
    return found | ({"att": torch.cat([p["att"] for p in of.values()])} if "att" in first else {})


def _fold(weight: Tensor, att: Tensor) -> Tensor:
    """(H · C, D), (1, H, C) → (H, D)."""
    return (weight.unflatten(0, att.shape[1:]) * att[0, :, :, None]).sum(1)


LIMIT = 1e-5
"""Largest difference in float32, as a share of the largest number in the tensor."""
BF16_LIMITS = {"output": 0.01, "gradient": 0.02}
"""The same for bfloat16 (8 significant bits: one rounding is up to 0.004) against float32."""


class ParityError(Exception):
    """Two rows that must agree do not."""


def passed_through(module: nn.Module, graph: Graph, bf16: bool = False) -> dict[str, Tensor]:
    """Outputs and gradients of one forward + backward by name; of ours under the names of PyG's parameters."""
    out, x = run_both(module, graph, bf16)
    found = {f"output of {t}": rows.detach() for t, rows in out.items()}
    found |= {f"gradient of x of {t}": rows.grad for t, rows in x.items()}
    module = module.layer if isinstance(module, Captured) else module
    gradients = _in_pyg_s_terms(module) if isinstance(module, Ours) else _gradients(module.layer)
    return found | {f"gradient of {name}": g for name, g in gradients.items()}


def _gradients(layer: nn.Module) -> dict[str, Tensor]:
    """Gradient of each parameter; a relation's name in PyG reads <source___name___target>."""
    return {n.removeprefix("convs."): p.grad for n, p in layer.named_parameters() if p.grad is not None}


def _in_pyg_s_terms(module: Ours) -> dict[str, Tensor]:
    """The gradients of our parameters, carried back through `carried_over` to PyG's."""
    conv = hetero_conv(module.graph, module.mode)
    weights = carried_over(conv, module.layer)
    mine = dict(module.layer.named_parameters())
    torch.autograd.backward(list(weights.values()), [mine[n].grad for n in weights])
    return _gradients(conv)


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest difference of each tensor as a share of its largest number."""
    if set(expected) != set(found):
        raise ParityError(f"only one side has {sorted(set(expected) ^ set(found))}.")
    errors = {}
    for name, right in expected.items():
        scale = float(right.abs().max()) or 1.0
        errors[name] = float((found[name].to(right.dtype) - right).abs().max()) / scale
    return errors


def refuse_differences(row: str, errors: Mapping[str, float], limit_of: Callable[[str], float]) -> float:
    """The largest error.

    Raises:
        ParityError: one is above its limit, or not a number; the message names all of them.
    """
    bad = [f"{n}: {e:.1e} > {limit_of(n):.0e}" for n, e in errors.items() if not e <= limit_of(n)]
    if bad:
        raise ParityError(f"{row} differs in {len(bad)} of {len(errors)} tensors: {'; '.join(bad)}.")
    return max(errors.values())


def bf16_limit(name: str) -> float:
    """The limit of a tensor by its name."""
    return BF16_LIMITS[name.split(" ")[0]]


def check_parity(graph: Graph, rows: Sequence[str]) -> dict[str, float]:
    """Row → its largest error against its reference of the same weights; rows that are not here are left out.

    Raises:
        ParityError: see `refuse_differences`.
    """
    device, found = graph.x["hub"].device, {}
    for reference, exact, names in COMPARED:
        on = graph.rounded() if exact else graph
        present = made([n for n in names if n in rows], on)
        expected = passed_through(reference(on).to(device), on) if present else {}
        for name, module in present.items():
            low = ROWS[name].bf16
            errors = differences(expected, passed_through(module.to(device), on, low))
            found[name] = refuse_differences(name, errors, bf16_limit if low else lambda _: LIMIT)
    return found


def made(names: Sequence[str], graph: Graph) -> dict[str, nn.Module]:
    """The rows that can run here."""
    found = {}
    for name in names:
        if ROWS[name].device not in ("", graph.x["hub"].device.type):
            continue
        with contextlib.suppress(NotHereError):
            found[name] = ROWS[name].make(graph)
    return found


COMPARED = (
    (pyg("gat"), True, (MINE, "accelerate(HeteroConv)")),
    (ours("gat"), False, ("graphfusion gat bf16", CAPTURED)),
    (pyg("gatv2"), True, ("graphfusion gatv2",)),
    (pyg("dot"), False, ("graphfusion dot",)),
)
"""Reference, whether on rounded numbers, our rows that must agree with it. bfloat16 is held against our float32, which is held
against PyG's; `dot` against `TransformerConv` without a root weight.
"""


# Operators alone: no projections


@dataclass(frozen=True)
class Problem:
    """A call and the tensors that it derives."""

    call: Callable[[], list[Tensor]]
    leaves: list[Tensor]

    def forward(self) -> list[Tensor]:
        """Inference."""
        with torch.no_grad():
            return self.call()

    def both(self) -> list[Tensor]:
        """Forward + backward; gradients of the leaves for outputs' gradients of `weights_like`."""
        out = self.call()
        return list(torch.autograd.grad(out, self.leaves, [weights_like(o) for o in out]))


def weights_like(t: Tensor) -> Tensor:
    """A fixed gradient that costs next to nothing: cosines of the places in the last axis."""
    return torch.arange(t.shape[-1], device=t.device, dtype=t.dtype).cos().expand_as(t)


def dense_inputs(
    nodes: int, samples: int, dim: int, heads: int, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Value (N, 1, H, C), key (N, 1, H) and query (N, 1, H) of one relation over `samples` samples of `nodes` nodes."""
    g = torch.Generator().manual_seed(0)
    count = nodes * samples
    shapes = (count, 1, heads, dim // heads), (count, 1, heads), (count, 1, heads)
    value, key, query = (torch.randn(*shape, generator=g).to(device, dtype).requires_grad_() for shape in shapes)
    return value, key, query


def dense_ours(nodes: int, samples: int, dim: int, heads: int, device: str) -> Problem:
    """One `Dense` relation from one type to another in mode `gat`."""
    from graphfusion.ops.hetero_attention import Dense, hetero_attention, make_plan

    value, key, query = dense_inputs(nodes, samples, dim, heads, device)
    sizes = {"source": nodes * samples, "target": nodes * samples}
    ptr = torch.arange(samples + 1, device=device) * nodes
    plan = make_plan(sizes, {("source", "all", "target"): Dense()}, dict.fromkeys(sizes, ptr))
    nothing = value.new_empty(len(value), 0, heads, dim // heads), key.new_empty(len(key), 0, heads)

    def call() -> list[Tensor]:
        return hetero_attention([value, nothing[0]], [key, nothing[1]], [nothing[1], query], plan)[1:]

    return Problem(call, [value, key, query])


def dense_by_definition(nodes: int, samples: int, dim: int, heads: int, device: str) -> Problem:
    """The same in float64, with every weight written out."""
    value, key, query = dense_inputs(nodes, samples, dim, heads, device, torch.float64)

    def call() -> list[Tensor]:
        b, a, v = (t[:, 0].unflatten(0, (samples, nodes)) for t in (key, query, value))
        weight = leaky_relu(a[:, :, None] + b[:, None], 0.2).softmax(2)  # (samples, targets, sources, H)
        return [torch.einsum("btsh,bshc->bthc", weight, v).flatten(0, 1)[:, None]]

    return Problem(call, [value, key, query])


def check_dense(nodes: int, dim: int, heads: int, device: str) -> float:
    """The largest error of `dense_ours` on one sample; of one head where all would not fit.

    Raises:
        ParityError: see `refuse_differences`.
    """
    if nodes > 1024:
        dim, heads = dim // heads, 1
    names = ("output", "gradient of value", "gradient of key", "gradient of query")
    sides = (make(nodes, 1, dim, heads, device) for make in (dense_by_definition, dense_ours))
    expected, found = (dict(zip(names, [*side.forward(), *side.both()], strict=True)) for side in sides)
    return refuse_differences(f"Dense of {nodes} nodes", differences(expected, found), lambda _: LIMIT)


def dense_sdpa(nodes: int, samples: int, dim: int, heads: int, device: str) -> Problem:
    """`scaled_dot_product_attention` of the same shape."""
    g = torch.Generator().manual_seed(0)
    shape = samples, heads, nodes, dim // heads
    parts = [torch.randn(*shape, generator=g).to(device).requires_grad_() for _ in range(3)]
    return Problem(lambda: [scaled_dot_product_attention(*parts)], parts)


def many_relations(types: int, each: int, fan: int, samples: int, dim: int, heads: int, device: str) -> Problem:
    """The operator over types³ relations of listed edges: `types` names between all pairs of `types` node types, `each`
    nodes of every type in a sample, `fan` edges of every relation into a node.
    """
    from graphfusion.ops.hetero_attention import EdgeList, hetero_attention, make_plan

    g = torch.Generator().manual_seed(0)
    kinds = [f"type {t}" for t in range(types)]
    slots, count = types**2, each * samples
    target = torch.arange(count).repeat_interleave(fan)
    pairs = {}
    for relation in ((a, f"name {n}", b) for n in range(types) for a in kinds for b in kinds):
        source = target // each * each + torch.randint(each, (len(target),), generator=g)
        pairs[relation] = EdgeList(torch.stack([source, target]).to(device))
    ptr = torch.arange(samples + 1, device=device) * each
    plan = make_plan(dict.fromkeys(kinds, count), pairs, dict.fromkeys(kinds, ptr))

    def normal(*tail: int) -> list[Tensor]:
        return [torch.randn(count, slots, *tail, generator=g).to(device).requires_grad_() for _ in kinds]

    value, key, query = normal(heads, dim // heads), normal(heads), normal(heads)
    return Problem(lambda: hetero_attention(value, key, query, plan), [*value, *key, *query])

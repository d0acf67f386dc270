"""The operators as PyTorch sees them: same bits, tracing, compiling, exporting, autocast, backends by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError, GraphError
from graphfusion.fusion import GraphFusion
from graphfusion.graph_builder import AlignedInTime, Full, GraphBatch, GraphBuilder, SequenceWindow
from graphfusion.modalities import NodeType, Tokens
from graphfusion.nn import HeteroLayer
from graphfusion.ops.hetero_attention import (
    BACKENDS,
    MODES,
    Bitmask,
    Broadcast,
    Dense,
    EdgeList,
    Grid,
    Pairs,
    Plan,
    Window,
    attention_weights,
    backends,
    gpu,
    hetero_attention,
    hetero_project,
    library,
    make_plan,
)
from tests.ops.cases import Inputs, agree, bits, case, off, pointers, sizes_of

ROOT = Path(__file__).parents[2]
SEED = torch.tensor([123456789012345])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads; the suite's one comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# --- same bits ----------------------------------------------------------------------------------------------------------

BATCHES: dict[str, dict[str, list[int]] | None] = {
    "ten samples": None,
    "one sample": {"text": [530], "image": [40], "hub": [3]},
    "three samples": {"text": [30, 4, 2], "image": [300, 0, 2], "hub": [3, 3, 3]},
}


@pytest.mark.parametrize("counts", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("mode", MODES)
def test_same_bits_in_two_runs_and_for_one_or_two_threads(
    mode: str, counts: dict[str, list[int]] | None, threads: Callable[[int], None]
) -> None:
    """With a dense `gat` relation among them: the linear form too."""
    options = {"dropout": 0.2, "seed": SEED} if mode == "gatv2" else {}
    inputs = case(3, 24, mode, counts).to(torch.float32)
    found = []
    for count in (1, 2, 2, 1):
        threads(count)
        found.append(bits(inputs.run(mode, backend="cpu", **options)))
    assert all(f == found[0] for f in found)


def project_bits(x: list[Tensor], weight: list[Tensor], bias: list[Tensor], of: list[int]) -> list[bytes]:
    """Outputs and gradients of `hetero_project`."""
    out = hetero_project(x, weight, of, bias)
    grad = [torch.sin(torch.arange(o.numel(), dtype=torch.float32)).view_as(o).to(o.dtype) for o in out]
    names = [f"{k}" for k in range(len(x) + len(weight) + len(bias))]
    return bits((out, dict(zip(names, torch.autograd.grad(out, [*x, *weight, *bias], grad), strict=True))))


def projections(rows: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[int]]:
    """Two types, values of the first in `dtype` and logits in float32."""
    g = torch.Generator().manual_seed(rows)

    def leaf(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=g).to(kind).requires_grad_()

    x = [leaf(rows, 64), leaf(rows // 2, 64)]
    weight = [leaf(192, 64, kind=dtype), leaf(8, 64), leaf(16, 64)]
    return x, weight, [leaf(192, kind=dtype), leaf(8), leaf(16)], [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 40, 900, 10_000])
def test_projections_have_the_same_bits_in_two_runs(
    rows: int, dtype: torch.dtype, threads: Callable[[int], None]
) -> None:
    for count in (1, 2):
        threads(count)
        assert project_bits(*projections(rows, dtype)) == project_bits(*projections(rows, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "rows",
    [
        1,
        40,
        900,
        10_000,
    ],
)
def test_projections_have_the_same_bits_for_one_or_two_threads(
    rows: int, dtype: torch.dtype, threads: Callable[[int], None]
) -> None:
    threads(1)
    one = project_bits(*projections(rows, dtype))
    threads(2)
    assert project_bits(*projections(rows, dtype)) == one


@pytest.mark.parametrize("rows", [0, 1, 37])
def test_projections_are_linear_maps(rows: int) -> None:
    """Each map on its own type, in the dtype of its weight; also of a type without rows, and one that no map reads."""
    x, weight, bias, of = projections(2 * rows, torch.float32)
    x.append(torch.randn(4, 3, requires_grad=True))
    for shifts in (bias, []):
        found = hetero_project(x, weight, of, shifts)
        leaves = [*x, *weight, *shifts]
        exact = [t.detach().double().requires_grad_() for t in leaves]
        shifted = [*exact[6:]] or [None] * 3
        wanted = [nn.functional.linear(exact[t], exact[3 + k], shifted[k]) for k, t in enumerate(of)]
        grad = [torch.randn(o.shape) for o in found]
        ours = torch.autograd.grad(found, leaves, grad, allow_unused=True)
        truth = torch.autograd.grad(wanted, exact, [g.double() for g in grad], allow_unused=True)
        for a, b in zip((*found, *ours), (*wanted, *truth), strict=True):
            assert (a is None) == (b is None)
            assert a is None or off(a, b) < 1e-6


def test_projections_in_bfloat16_beside_logits_in_float32() -> None:
    x, weight, bias, of = projections(20, torch.bfloat16)
    value, logits, _ = hetero_project(x, weight, of, bias)
    assert (value.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    assert off(logits, x[0].double() @ weight[1].double().T + bias[1].double()) < 1e-6
    assert (
        off(value, x[0].double() @ weight[0].double().T + bias[0].double()) < 2e-2
    )  # sums of 64 products, 8 bits each
    found = torch.autograd.grad(
        [value, logits], [*x[:1], *weight[:2]], [torch.ones_like(value), torch.ones_like(logits)]
    )
    assert [g.dtype for g in found] == [torch.float32, torch.bfloat16, torch.float32]


# --- opcheck: schema, autograd registration, fake tensors, tracing with symbolic sizes ------------------------------------

OPS = torch.ops.graphfusion
OPCHECK = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of its own tensors


@OPCHECK
def test_opcheck_of_the_index() -> None:
    torch.library.opcheck(OPS.index_edges, (torch.tensor([[0, 1, 2], [1, 0, 1]]), 3, 2, "r"))
    torch.library.opcheck(OPS.index_edges, (torch.empty(2, 0, dtype=torch.int64), 0, 0, "r"))


@OPCHECK
def test_opcheck_of_the_projection() -> None:
    x, weight, bias, of = projections(6, torch.float32)
    torch.library.opcheck(OPS.hetero_project, (x, weight, bias, of))
    torch.library.opcheck(OPS.hetero_project, (x, weight, [], of))


def arguments(
    inputs: Inputs, mode: str, backend: str, dropout: float = 0.0, across: bool = False
) -> tuple[object, ...]:
    plan = inputs.plan
    lists = (inputs.value, inputs.key, inputs.query, inputs.att, inputs.edge, list(plan.index), list(plan.layout))
    return (*lists, mode, 0.2, dropout, SEED, 0, across, backend)


@OPCHECK
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_opcheck_of_the_attention(mode: str, backend: str) -> None:
    inputs = case(2, 8, mode, {"text": [3, 2], "image": [4, 0], "hub": [1, 1]}).to(torch.float32)
    torch.library.opcheck(OPS.hetero_attention, arguments(inputs, mode, backend))


@OPCHECK
def test_opcheck_of_options() -> None:
    counts = {"text": [3, 0], "image": [4, 0], "hub": [1, 1]}
    inputs = case(3, 5, "gat", counts, merged=False).to(torch.float32)
    torch.library.opcheck(OPS.hetero_attention, arguments(inputs, "gat", "cpu", dropout=0.3, across=True))


def test_a_second_derivative_of_the_kernels_is_refused_not_wrong() -> None:
    inputs = case(1, 8, "gat").to(torch.float32)
    out = hetero_attention(inputs.value, inputs.key, inputs.query, inputs.plan, backend="cpu")
    loss = torch.stack([o.pow(2).sum() for o in out]).sum()
    (first,) = torch.autograd.grad(loss, inputs.query[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(first.sum(), inputs.value[:1])


def test_outputs_that_are_not_used_count_as_zero_gradients() -> None:
    for mode in MODES:
        for backend in BACKENDS:
            inputs = case(2, 8, mode, edges=False).to(torch.float64 if backend == "reference" else torch.float32)
            out = hetero_attention(
                inputs.value, inputs.key, inputs.query, inputs.plan, mode=mode, att=inputs.att, backend=backend
            )
            some = torch.autograd.grad(out[1].sum(), inputs.value, retain_graph=True, allow_unused=True)
            every = torch.autograd.grad([o.sum() * (t == 1) for t, o in enumerate(out)], inputs.value)
            for a, b in zip(some, every, strict=True):
                assert off(torch.zeros_like(b) if a is None else a, b) < 1e-6


# --- torch.compile --------------------------------------------------------------------------------------------------------

AB = {("a", "x", "b"): Dense(), ("b", "y", "b"): None, ("b", "z", "a"): Window(-1, 1)}


def project_plan_attend(
    xa: Tensor, xb: Tensor, wide: Sequence[Tensor], narrow: Sequence[Tensor], ptr: Sequence[Tensor], edges: Tensor
) -> list[Tensor]:
    """What a layer does: project, make a plan, attend. Two heads of width 8."""
    pairs: dict[tuple[str, str, str], Pairs] = {r: p or EdgeList(edges) for r, p in AB.items()}
    plan = make_plan({"a": xa.shape[0], "b": xb.shape[0]}, pairs, {"a": ptr[0], "b": ptr[1]})
    value = hetero_project([xa, xb], wide, [0, 1])
    logits = hetero_project([xa, xb], narrow, [0, 1])
    key, query = zip(*(t.unflatten(1, (-1, 2)).chunk(2, 1) for t in logits), strict=True)
    return hetero_attention([t.unflatten(1, (-1, 2, 8)) for t in value], key, query, plan)


def some_arguments(a: int, b: int) -> list[object]:
    """Two samples; all of b's nodes in the first."""
    g = torch.Generator().manual_seed(100 * a + b)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, requires_grad=True)

    edges = torch.randint(b, (2, 2 * b), generator=g)
    ptr = [torch.tensor([0, a // 2, a]), torch.tensor([0, b, b])]
    return [leaf(a, 6), leaf(b, 6), [leaf(16, 6), leaf(32, 6)], [leaf(4, 6), leaf(8, 6)], ptr, edges]


def compare(
    function: Callable[..., object], compiled: Callable[..., object], given: list[object], limit: float
) -> None:
    """Outputs and gradients of a compiled function and of the one it was made from."""
    leaves = [given[0], given[1], *given[2], *given[3]]
    found = []
    for f in (compiled, function):
        out = f(*given)
        found.append((*out, *torch.autograd.grad([o.sin().sum() for o in out], leaves)))
    for a, b in zip(*found, strict=True):
        assert off(a, b) <= limit


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_in_one_graph_and_of_any_size() -> None:
    compiled = torch.compile(project_plan_attend, backend="aot_eager", fullgraph=True)
    for a, b in ((5, 4), (9, 7), (3, 11), (1, 1), (0, 4)):
        compare(project_plan_attend, compiled, some_arguments(a, b), 0.0)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_by_inductor() -> None:
    """To the end and not only traced; small, since it calls a C++ compiler for whatever is not an operator."""
    pairs = {("a", "x", "a"): Window(-1, 1), ("a", "y", "a"): Dense()}

    def attend(x: Tensor, value: Tensor, logits: Tensor) -> Tensor:
        plan = make_plan({"a": x.shape[0]}, pairs)
        made = hetero_project([x], [value, logits, logits], [0, 0, 0])
        key, query = (t.unflatten(1, (2, 2)) for t in made[1:])
        return hetero_attention([made[0].unflatten(1, (2, 2, 8))], [key], [query], plan)[0]

    compiled = torch.compile(attend, fullgraph=True, dynamic=True)
    for nodes in (5, 9):
        g = torch.Generator().manual_seed(nodes)
        given = [torch.randn(n, 6, generator=g, requires_grad=True) for n in (nodes, 32, 4)]
        found, wanted = compiled(*given), attend(*given)
        grad = torch.randn(found.shape, generator=g)
        ours, truth = (torch.autograd.grad(o, given, grad) for o in (found, wanted))
        for a, b in zip((found, *ours), (wanted, *truth), strict=True):
            assert off(a, b) < 1e-6


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("options", [{"backend": "reference"}, {}], ids=["by name", "auto, in float64"])
def test_the_reference_is_compiled_with_its_gradient(options: dict[str, str]) -> None:
    """What runs where the kernels cannot: float64, more than 16 heads, no compiler, another device."""
    plan = make_plan({"a": 3}, {("a", "x", "a"): Dense()})
    value = torch.randn(3, 1, 2, 8, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)

    def attend(value: Tensor, logits: Tensor) -> Tensor:
        return hetero_attention([value], [logits], [logits], plan, **options)[0].sin().sum()

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    found, wanted = (torch.autograd.grad(f(value, logits), [value, logits]) for f in (compiled, attend))
    for a, b in zip(found, wanted, strict=True):
        assert off(a, b) < 1e-12


TYPES = ("a", "b", "hub")
PTR = {"a": torch.tensor([0, 3, 7]), "b": torch.tensor([0, 4, 4]), "hub": torch.tensor([0, 1, 2])}
LAYER_PAIRS: dict[tuple[str, str, str], Pairs] = {
    ("a", "window", "a"): Window(-1, 1),
    ("a", "listed", "b"): EdgeList(torch.tensor([[0, 2, 1], [3, 0, 0]])),
    ("b", "dense", "a"): Dense(),
    ("a", "into", "hub"): Broadcast(),
    ("hub", "out", "b"): Broadcast(),
    ("b", "mask", "b"): Bitmask.from_edges(torch.tensor([[0, 1], [2, 3]]), PTR["b"], PTR["b"]),
    ("b", "grid", "b"): Grid(torch.tensor([2, 1], dtype=torch.int32)),
}
SIZES = sizes_of(PTR)


def layer_of(mode: str, few: Sequence[str] = (), dim: int = 16) -> tuple[HeteroLayer, list[Plan], dict[str, Tensor]]:
    torch.manual_seed(0)
    layer = HeteroLayer(TYPES, list(LAYER_PAIRS), dim, 2, mode, few=few)
    x = {t: torch.randn(n, dim, requires_grad=True) for t, n in SIZES.items()}
    return layer, layer.plans(SIZES, LAYER_PAIRS, PTR), x


def gradients(out: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad([o.float().sin().sum() for o in out], list(leaves)))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("mode", "few"), [("gat", ("hub",)), ("gatv2", ()), ("dot", ())])
def test_a_layer_is_compiled_in_one_graph(mode: str, few: tuple[str, ...]) -> None:
    layer, plans, x = layer_of(mode, few)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    leaves = [*x.values(), *layer.parameters()]
    found, wanted = compiled(x, plans, {}), layer(x, plans, {})
    ours, truth = gradients(found.values(), leaves), gradients(wanted.values(), leaves)
    assert list(found) == list(wanted)
    for a, b in zip((*found.values(), *ours), (*wanted.values(), *truth), strict=True):
        assert off(a, b) < 1e-6


FRAMES = NodeType("features", shape=(16,), span="seconds")


def track(n: int, seconds: float) -> Tokens:
    start = np.arange(n) * seconds
    values = np.random.default_rng(n).normal(size=(n, 16)).astype(np.float32)
    return Tokens(values, np.arange(n)[:, None], np.stack([start, start + seconds], 1))


def make_batch(builder: GraphBuilder, audio: int, video: int) -> GraphBatch:
    return builder.build([{"audio": track(audio, 0.1), "video": track(video, 0.5)}, {"audio": track(audio + 1, 0.1)}])


@pytest.mark.usefixtures("fresh_compiler")
def test_the_engine_is_compiled_in_one_graph_for_batches_of_any_size() -> None:
    relations = [
        SequenceWindow("audio", size=2),
        AlignedInTime("video", "audio"),
        Full("audio", "video"),
        Full("audio", "hub"),
        Full("hub", "audio"),
    ]
    builder = GraphBuilder({"audio": FRAMES, "video": FRAMES}, relations, hubs=2)
    torch.manual_seed(0)
    fusion = GraphFusion(builder, 16, layers=1, heads=2)
    hubs = nn.Embedding(2, 16)

    def unified(batch: GraphBatch) -> Tensor:
        features = {t: hubs(s.values) if t == "hub" else s.values for t, s in batch.nodes.items()}
        return fusion(batch, features).unified

    compiled = torch.compile(unified, backend="aot_eager", fullgraph=True)
    leaves = [*fusion.parameters(), hubs.weight]
    for audio, video in ((5, 3), (9, 2), (7, 7)):
        batch = make_batch(builder, audio, video)
        found, wanted = compiled(batch), unified(batch)
        assert off(found, wanted) < 1e-6
        ours, truth = (torch.autograd.grad(o.sin().sum(), leaves, allow_unused=True) for o in (found, wanted))
        assert [g is None for g in ours] == [g is None for g in truth]
        assert all(off(a, b) < 1e-6 for a, b in zip(ours, truth, strict=True) if a is not None)


# --- torch.export ---------------------------------------------------------------------------------------------------------


class WithPlans(nn.Module):
    """A layer over plans that are part of the module, or whose tensors are passed."""

    def __init__(self, layer: HeteroLayer, plans: Sequence[Plan]) -> None:
        super().__init__()
        self.layer, self.plans = layer, plans

    def forward(self, x: dict[str, Tensor], index: list[list[Tensor]] | None = None) -> dict[str, Tensor]:
        plans = self.plans
        if index is not None:
            plans = [replace(p, index=tuple(i)) for p, i in zip(plans, index, strict=True)]
        out: dict[str, Tensor] = self.layer(x, plans, {})
        return out


@pytest.mark.parametrize("passed", [False, True], ids=["plans closed over", "plans passed"])
@pytest.mark.parametrize(("mode", "few"), [("gat", ("hub",)), ("gatv2", ()), ("dot", ())])
def test_an_exported_layer_is_aten_only(mode: str, few: tuple[str, ...], passed: bool) -> None:
    layer, made, x = layer_of(mode, few)
    plans = [p.listed() for p in made]
    x = {t: h.detach() for t, h in x.items()}
    module = WithPlans(layer, plans)
    given = (x, [list(p.index) for p in plans]) if passed else (x,)
    program = torch.export.export(module, given)
    called = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert {name.split(".")[0] for name in called} <= {"aten", "<built-in function getitem>"}
    other = {t: h.cos() for t, h in x.items()}
    for values in (x, other):
        found, wanted = program.module()(values, *given[1:]), layer(values, made, {})
        assert all(off(found[t], wanted[t]) < 1e-6 for t in wanted)


def test_export_of_rules_says_what_to_do() -> None:
    layer, plans, x = layer_of("gat")
    with pytest.raises(GraphError, match=r"Give a layer `plan\.listed\(\)`"):
        torch.export.export(WithPlans(layer, plans), (x,))


@pytest.mark.parametrize("mode", MODES)
def test_a_listed_plan_gives_the_same_messages(mode: str) -> None:
    """Also with edge features, which stay in the order of the edges that they were given for."""
    inputs = case(2, 8, mode)
    listed = inputs.plan.listed()
    for relation in inputs.plan.relations:
        assert torch.equal(listed.edge_index(relation), inputs.plan.edge_index(relation))
    assert all(torch.equal(listed.order[r], order) for r, order in inputs.plan.order.items())
    found = replace(inputs, plan=listed).to(torch.float32).run(mode, backend="cpu")
    agree(found, inputs.to(torch.float64).run(mode, backend="reference"))


# --- autocast -------------------------------------------------------------------------------------------------------------

AUTOCAST = 0.01
"""Of the largest output: values and maps have 8 bits of mantissa there (2^-8 = 0.004), sums and logits 24."""


@pytest.mark.parametrize(("mode", "few"), [("gat", ()), ("gat", ("hub",)), ("gatv2", ()), ("dot", ())])
def test_autocast_stays_close_and_gives_gradients_in_float32(mode: str, few: tuple[str, ...]) -> None:
    layer, plans, x = layer_of(mode, few, dim=64)
    leaves = [*x.values(), *layer.parameters()]
    wanted = layer(x, plans, {})
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x, plans, {})
    assert all(off(found[t], wanted[t]) < AUTOCAST for t in wanted)
    ours, truth = gradients(found.values(), leaves), gradients(wanted.values(), leaves)
    assert all(g.dtype == torch.float32 for g in ours)
    assert all(bool(g.isfinite().all()) for g in ours)
    a, b = (torch.cat([g.flatten() for g in each]) for each in (ours, truth))
    assert float((a - b).norm() / b.norm()) < 0.05  # rounded sums x of `gatv2` may change side of the leaky rectifier


# --- attention weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"across": True}, {"top_k": 2}], ids=["plain", "across", "top_k"])
@pytest.mark.parametrize("mode", MODES)
def test_attention_weights_sum_to_one_and_give_the_output(mode: str, options: dict[str, object]) -> None:
    inputs = case(3, 8, mode, merged=False).to(torch.float32)
    call = {"mode": mode, "att": inputs.att, "edge": inputs.edge, **options}
    weights = attention_weights(inputs.value, inputs.key, inputs.query, inputs.plan, **call)
    out = hetero_attention(inputs.value, inputs.key, inputs.query, inputs.plan, backend="cpu", **call)
    assert list(weights) == list(inputs.plan.relations)
    types = list(inputs.plan.node_types)
    sums = {t: torch.zeros(len(q), q.shape[1], 3) for t, q in zip(types, inputs.query, strict=True)}
    for relation, ((source, target), weight) in weights.items():
        a, enters = types.index(relation[0]), inputs.plan.entering(relation[2]).index(relation)
        leaves = inputs.plan.leaving(relation[0]).index(relation)
        assert torch.equal(torch.stack([source, target]), inputs.plan.edge_index(relation))
        assert bool((weight >= 0).all())
        sums[relation[2]][:, enters].index_add_(0, target, weight.detach())
        made = torch.zeros_like(out[types.index(relation[2])][:, enters])
        made = made.index_add(0, target, weight[:, :, None] * inputs.value[a][source, leaves])
        assert off(out[types.index(relation[2])][:, enters], made, floor=0.1) < 1e-5
        if "top_k" in options:
            kept = torch.zeros(len(made), 3).index_add_(0, target, (weight > 0).float())
            assert float(kept.amax()) <= 2
    for total in sums.values():
        total = total.sum(1) if "across" in options else total
        assert bool(((total - 1).abs() < 1e-5).logical_or(total == 0).all())


# --- backends by name -----------------------------------------------------------------------------------------------------


def attend(inputs: Inputs, backend: str) -> list[Tensor]:
    return hetero_attention(inputs.value, inputs.key, inputs.query, inputs.plan, backend=backend)


def test_an_unknown_backend_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown backend 'referense'\. Did you mean 'reference'"):
        attend(case(1, 8, "gat", edges=False), "referense")


def test_kernels_are_the_first_choice() -> None:
    inputs = case(3, 8, "gat", edges=False)
    assert backends() == {"cpu": "", "triton": gpu.why_not(), "reference": ""}
    for a, b in zip(attend(inputs, "auto"), attend(inputs, "cpu"), strict=True):
        assert torch.equal(a, b)


def test_auto_takes_what_the_environment_prefers_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = case(2, 8, "gat", edges=False).to(torch.float32)
    plain, reference = bits(inputs.run("gat")), bits(inputs.run("gat", backend="reference"))
    assert plain != reference
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for preferred, wanted in (("reference", reference), ("triton", plain), ("cpu", plain), ("auto", plain)):
        monkeypatch.setenv("GRAPHFUSION_ATTENTION", preferred)
        assert bits(inputs.run("gat")) == wanted
        assert bits(inputs.run("gat", backend="reference")) == reference
    monkeypatch.setenv("GRAPHFUSION_ATTENTION", "tritn")
    with pytest.raises(ConfigError, match=r"unknown backend in GRAPHFUSION_ATTENTION 'tritn'\. Did you mean 'triton'"):
        inputs.run("gat")


def test_a_named_backend_that_cannot_run_says_why() -> None:
    inputs = case(1, 8, "gat", edges=False)
    with pytest.raises(ConfigError, match="'cpu' cannot run: it takes float32 or bfloat16 values"):
        attend(inputs.to(torch.float64), "cpu")
    with pytest.raises(ConfigError, match="'cpu' cannot run: it takes at most 16 heads"):
        attend(case(17, 2, "gat", edges=False), "cpu")
    on_meta = replace(
        inputs,
        **{what: [t.to("meta") for t in getattr(inputs, what)] for what in ("value", "key", "query")},
        plan=replace(inputs.plan, index=tuple(t.to("meta") for t in inputs.plan.index)),
    )
    with pytest.raises(ConfigError, match="'cpu' cannot run: it runs on CPU tensors only"):
        attend(on_meta, "cpu")


@pytest.mark.parametrize("make", [lambda: case(17, 2, "gat", edges=False), lambda: case(2, 8, "gat", edges=False).to(torch.float64)])  # fmt: skip
def test_auto_takes_the_reference_for_what_the_kernels_cannot(make: Callable[[], Inputs]) -> None:
    inputs = make()
    for a, b in zip(attend(inputs, "auto"), attend(inputs, "reference"), strict=True):
        assert torch.equal(a, b)


REASON = "the C++ kernels were not built (as this test pretends)"


def test_without_kernels_auto_takes_the_reference_and_cpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = case(3, 8, "gat")
    monkeypatch.setattr(library, "_library", lambda: REASON)
    assert backends()["cpu"] == REASON
    found = inputs.to(torch.float32).run("gat")
    wanted = inputs.to(torch.float32).run("gat", backend="reference")
    assert bits(found) == bits(wanted)
    with pytest.raises(ConfigError, match=r"not built \(as this test pretends"):
        inputs.run("gat", backend="cpu")


def test_without_kernels_plans_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels = case(1, 1, "gat").plan
    monkeypatch.setattr(library, "_library", lambda: REASON)
    without = case(1, 1, "gat").plan
    assert with_kernels.layout == without.layout
    for a, b in zip(with_kernels.index, without.index, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert all(torch.equal(with_kernels.order[r], without.order[r]) for r in without.order)
    with pytest.raises(GraphError, match="edge 1 is 7 → 0, but there are 3 source and 2 target"):
        make_plan({"a": 3, "b": 2}, {("a", "x", "b"): EdgeList(torch.tensor([[0, 7], [0, 0]]))})


def test_kernels_that_are_missing_or_broken_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    look = library._library.__wrapped__
    assert "need a C++ compiler" in look()
    (tmp_path / "_kernels.so").write_text("not a library")
    assert "cannot be loaded" in look()
    assert "_kernels.so" in look()


LOADED = """
import torch
import graphfusion.ops.hetero_attention as ops
def loaded():
    return "_kernels" in open("/proc/self/maps").read()
at_import = loaded()
plan = ops.make_plan({"a": 2}, {("a", "x", "a"): ops.Dense()})
value, key = torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1)
ops.hetero_attention([value], [key], [key], plan, backend="cpu")
print(at_import, loaded())
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux which files are mapped")
def test_nothing_is_loaded_at_import() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_pointers_of_the_test_cases_are_what_they_say() -> None:
    assert {t: p.tolist() for t, p in pointers({"a": [2, 0, 1], "b": []}).items()} == {"a": [0, 2, 2, 3], "b": [0]}

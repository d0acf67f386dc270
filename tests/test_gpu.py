"""What only a machine with a GPU can show; `make gpu` runs these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import graphfusion as gf
from graphfusion.data import Budget, read_table
from graphfusion.errors import GraphError
from graphfusion.modalities import TokenizedSample
from graphfusion.nn import HeteroAttention
from graphfusion.ops.hetero_attention import Bitmask, Dense, EdgeList, Grid, Pairs, Window, hetero_project, make_plan
from graphfusion.ops.hetero_attention.index import by_source
from graphfusion.training.fit import measured_budget, start_fit
from graphfusion.training.memory import OPEN
from graphfusion.training.rows import Batches, Collate
from graphfusion.training.transfer import ahead
from tests.conftest import SCHEMA, make_rows
from tests.ops.cases import agree, inputs_for, off, pointers, random_edges

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
COLUMNS = {**SCHEMA.inputs, **SCHEMA.targets}


@pytest.mark.parametrize("graph", ["hub", "full", "temporal", "top_k"])
def test_the_gpu_gives_the_cpu_s_states_and_gradients(
    graph: str, make_test_model: Callable[..., Any], samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model(graph)
    batch = builder.build([s.tokens for s in samples])
    found = []
    for device in ("cpu", "cuda"):
        model.zero_grad()
        model.to(device)(batch.to(device)).unified.square().sum().backward()
        grads = {n: p.grad.cpu().clone() for n, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            found.append((model(batch.to(device)).unified.cpu(), grads))
    (one, cpu), (two, cuda) = found
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    assert cpu.keys() == cuda.keys()
    for name, grad in cpu.items():
        torch.testing.assert_close(cuda[name], grad, rtol=1e-3, atol=1e-3, msg=name)


DROPPED = {"dropout": 0.3, "seed": torch.tensor([5])}
CALLS = [
    ("walk", "gat", True, {}), ("walk", "gatv2", True, {}), ("walk", "dot", True, {}),
    ("walk", "gat", False, {**DROPPED, "across": True}),
    ("tiles", "gat", True, {}), ("tiles", "gatv2", True, {}), ("tiles", "dot", True, {}), ("tiles", "dot", False, DROPPED),
    ("scan", "gat", True, {}), ("scan", "gat", False, {}),
]  # fmt: skip
"""Few, since each is compiled anew."""


@pytest.mark.parametrize(("form", "mode", "merged", "options"), CALLS, ids=str)
def test_triton_kernels_agree_with_the_reference_and_give_the_same_bits_twice(
    form: str, mode: str, merged: bool, options: dict[str, Any]
) -> None:
    ptr = pointers({"text": [0, 3, 70], "image": [6, 0, 96]})
    sizes = {name: int(p[-1]) for name, p in ptr.items()}
    listed = random_edges(ptr["image"], ptr["text"], 0.3, torch.Generator().manual_seed(2))
    pairs: dict[tuple[str, str, str], Pairs] = {
        ("image", "full", "text"): Dense(),
        ("text", "others", "text"): Dense(False),
        ("image", "masked", "text"): Bitmask.from_edges(listed, ptr["image"], ptr["text"]),
        ("image", "listed", "text"): EdgeList(listed),
        ("text", "full", "image"): Dense(),
    }
    if form == "walk":
        columns = torch.tensor([3, 1, 12], dtype=torch.int32)
        pairs = {
            ("text", "window", "text"): Window(-2, 1, 2),
            ("image", "grid", "image"): Grid(columns, loops=False),
            ("image", "listed", "text"): EdgeList(listed),
        }
    inputs = inputs_for(make_plan(sizes, pairs, ptr, merged), sizes, 8, 32, mode, edges=form == "walk")
    truth = inputs.to(torch.float64).run(mode, backend="reference", **options)
    on_gpu = inputs.to(torch.float32).on("cuda")
    one, two = (on_gpu.run(mode, backend=f"triton-{form}", **options) for _ in range(2))
    agree(([o.cpu() for o in one[0]], {n: g.cpu() for n, g in one[1].items()}), truth, 1e-4)
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_tiles_of_half_precision_round_no_more_than_tensor_cores_do() -> None:
    sizes = {"a": 130, "b": 70}
    plan = make_plan(sizes, {("a", "all", "b"): Dense(), ("b", "all", "a"): Dense()})
    inputs = inputs_for(plan, sizes, 4, 32, "dot")
    rounded = replace(inputs, value=[v.bfloat16().double() for v in inputs.value])
    truth = rounded.to(torch.float64).run("dot", backend="reference")
    found = rounded.stored(torch.bfloat16).on("cuda").run("dot", backend="triton-tiles")
    agree(([o.cpu() for o in found[0]], {n: g.cpu().float() for n, g in found[1].items()}), truth, 1e-2)


@pytest.mark.parametrize("nodes", [130, 2_000])
@pytest.mark.parametrize("form", ["walk", "tiles", "scan"])
def test_large_dense_relations_agree_with_the_reference(form: str, nodes: int) -> None:
    ptr = {"a": torch.tensor([0, nodes]), "b": torch.tensor([0, nodes // 2])}
    sizes = {"a": nodes, "b": nodes // 2}
    plan = make_plan(sizes, {("a", "all", "b"): Dense(), ("b", "all", "a"): Dense()}, ptr)
    inputs = inputs_for(plan, sizes, 4, 32, "gat").to(torch.float32)
    truth = inputs.to(torch.float64).on("cuda").run("gat", backend="reference")
    found = inputs.on("cuda").run("gat", backend=f"triton-{form}")
    agree(found, truth, 1e-4)


@pytest.mark.parametrize(("low", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_grouped_projections_agree_with_the_libraries(
    low: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, of = [torch.randn(n, 64, device="cuda", requires_grad=True) for n in (300, 5)], [0, 1, 0, 1]
    weight = [
        torch.randn(n, 64, device="cuda", dtype=d)
        for n, d in ((192, low), (64, low), (8, torch.float32), (3, torch.float32))
    ]
    leaves, found = [*x, *(w.requires_grad_() for w in weight)], []
    for attention in ("triton", "auto"):
        monkeypatch.setenv("GRAPHFUSION_ATTENTION", attention)
        out = hetero_project(x, weight, of)
        grads = torch.autograd.grad(sum(o.float().square().sum() for o in out), leaves)
        found.append([o.detach().float() for o in (*out, *grads)])
    assert all(off(a, b) <= limit for a, b in zip(*found, strict=True))


def test_a_plan_on_the_gpu_is_that_of_the_cpu_and_refuses_what_ties_samples() -> None:
    ptr = {"a": torch.tensor([0, 3, 5])}
    edges = torch.tensor([[2, 0, 0, 4, 3], [0, 2, 1, 3, 3]])
    plans = [
        make_plan({"a": 5}, {("a", "r", "a"): EdgeList(edges.to(d))}, {"a": ptr["a"].to(d)}) for d in ("cpu", "cuda")
    ]
    for cpu, cuda in zip(plans[0].index[:3], plans[1].index[:3], strict=True):
        assert torch.equal(cpu, cuda.cpu())
    turned = by_source(plans[0].index[1], plans[0].index[2], 5)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(turned, plans[1].index[3:], strict=True))
    with pytest.raises(GraphError, match="ties nodes of two samples"):
        wrong = EdgeList(torch.tensor([[0], [4]], device="cuda"))
        make_plan({"a": 5}, {("a", "r", "a"): wrong}, {"a": ptr["a"].cuda()})


def test_a_layer_is_recorded_as_a_cuda_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward without a launch from Python give what they give with them."""
    monkeypatch.setenv("GRAPHFUSION_ATTENTION", "triton")
    ptr = {"a": torch.tensor([0, 40, 70], device="cuda")}
    edges = torch.stack([torch.randint(40, (200,)), torch.randint(40, (200,))]).cuda()
    pairs = {("a", "near", "a"): Window(-2, 2), ("a", "all", "a"): Dense(), ("a", "listed", "a"): EdgeList(edges)}
    layer = HeteroAttention(["a"], list(pairs), 32, 4, "gat").cuda()
    plans = layer.plans({"a": 70}, pairs, ptr)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer({"a": x}, plans, {})["a"]

    x = torch.randn(70, 32, device="cuda", requires_grad=True)
    plain = Step()(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    recorded = torch.cuda.make_graphed_callables(Step(), (torch.randn_like(x, requires_grad=True),))
    found = recorded(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("attention", ["reference", "triton"])
def test_the_whole_model_compiles_and_takes_autocast(
    attention: str, make_test_model: Callable[..., Any], samples: list[TokenizedSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHFUSION_ATTENTION", attention)
    builder, model = make_test_model("hub")
    batch = builder.build([s.tokens for s in samples]).to("cuda")
    model.to("cuda").eval()
    expected = model(batch).unified
    with torch.autocast("cuda", torch.bfloat16):
        low = model(batch).unified
    torch.testing.assert_close(low.float(), expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(torch.compile(model)(batch).unified, expected, rtol=1e-3, atol=1e-3)


def test_a_fit_on_the_gpu_answers_and_loads_on_the_cpu(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "epochs": 2}
    p = gf.FusionPredictor("label", columns=COLUMNS, device="cuda", **settings)
    p.fit(make_rows(24), valid=0.25, quiet=True, save_path=tmp_path)
    again = gf.FusionPredictor.load(tmp_path)
    assert next(again.pipeline.model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(again.embed(make_rows(4)), p.embed(make_rows(4)), atol=1e-3)
    assert next(again.to("cuda").pipeline.model.parameters()).device.type == "cuda"
    np.testing.assert_allclose(again.embed(make_rows(4)), p.embed(make_rows(4)), atol=1e-6)


def test_pinned_batches_arrive(samples: list[TokenizedSample], make_test_model: Callable[..., Any]) -> None:
    builder, _ = make_test_model("hub")
    batch = builder.build([s.tokens for s in samples]).pin_memory()
    moved = batch.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert moved.device.type == "cuda"
    assert all(torch.equal(moved.edge_index(t).cpu(), batch.edge_index(t)) for t in batch.edge_types)


def test_batches_are_copied_ahead(samples: list[TokenizedSample], make_test_model: Callable[..., Any]) -> None:
    builder, _ = make_test_model("hub")
    batches = [[builder.build([s.tokens]).pin_memory()] for s in samples]
    moved = list(ahead(iter(batches), torch.device("cuda")))
    torch.cuda.synchronize()
    assert len(moved) == len(batches)
    for (one,), (two,) in zip(batches, moved, strict=True):
        assert two.device.type == "cuda"
        assert all(torch.equal(one.nodes[n].values, two.nodes[n].values.cpu()) for n in one.node_types)


def test_a_deterministic_fit_gives_the_same_bits_twice() -> None:
    settings: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "epochs": 2, "deterministic": True}
    found = []
    for _ in range(2):
        p = gf.FusionPredictor("label", columns=COLUMNS, device="cuda", **settings)
        found.append(p.fit(make_rows(24), valid=0.25, quiet=True).embed(make_rows(4)))
    np.testing.assert_array_equal(*found)


def test_memory_bounds_what_a_budget_leaves_open() -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, device="cuda", dim=16, heads=2, max_nodes=0, max_edges=0)
    made, config = p.build(make_rows(24)), p.config.training
    rows, _ = made.tokenize(read_table(make_rows(24)), "error", True, Budget(64, OPEN, OPEN))
    found = measured_budget(
        start_fit(made.model, config, 0), Batches.of(rows, Budget(64, OPEN, OPEN), Collate(made.builder, made.tasks))
    )
    assert 10_000 < found.nodes < OPEN
    assert found.edges > found.nodes
    assert p.fit(make_rows(24), valid=0.25, quiet=True).predict(make_rows(2))

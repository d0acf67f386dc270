"""What only a machine with a GPU can show; `make gpu` runs these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import graphfusion as gf
from graphfusion.graph_builder import GRAPHS
from graphfusion.modalities import TokenizedSample
from tests.conftest import SCHEMA, make_rows
from tests.ops.cases import agree, case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
COLUMNS = {**SCHEMA.inputs, **SCHEMA.targets}


@pytest.mark.parametrize("graph", sorted(GRAPHS))
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


@pytest.mark.parametrize("options", [{}, {"across": True}, {"dropout": 0.3, "seed": torch.tensor([5])}], ids=str)
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_triton_kernels_agree_with_the_reference(mode: str, merged: bool, options: dict[str, Any]) -> None:
    for heads, width in ((3, 7), (8, 32), (1, 64)):
        inputs = case(heads, width, mode, merged=merged)
        truth = inputs.to(torch.float64).run(mode, backend="reference", **options)
        found = inputs.to(torch.float32).on("cuda").run(mode, backend="triton", **options)
        agree(([o.cpu() for o in found[0]], {n: g.cpu() for n, g in found[1].items()}), truth, 1e-4)


def test_triton_kernels_give_the_same_bits_twice() -> None:
    inputs = case(8, 32, "gatv2").to(torch.float32).on("cuda")
    one, two = (inputs.run("gatv2", backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_a_fit_on_the_gpu_answers_and_loads_on_the_cpu(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "epochs": 2}
    p = gf.FusionPredictor("label", columns=COLUMNS, device="cuda", **settings)
    p.fit(make_rows(24), valid=0.25, quiet=True, save_path=tmp_path)
    again = gf.FusionPredictor.load(tmp_path)
    assert next(again.pipeline.model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(again.embed(make_rows(4)), p.embed(make_rows(4)), atol=1e-3)


def test_pinned_batches_arrive(samples: list[TokenizedSample], make_test_model: Callable[..., Any]) -> None:
    builder, _ = make_test_model("hub")
    batch = builder.build([s.tokens for s in samples]).pin_memory()
    moved = batch.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert moved.device.type == "cuda"
    assert all(torch.equal(moved.edge_index(t).cpu(), batch.edge_index(t)) for t in batch.edge_types)

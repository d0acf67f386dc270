"""The Triton kernels without a GPU: interpreted, against the reference in float64; and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graphfusion.errors import ConfigError
from graphfusion.ops.hetero_attention import Dense, EdgeList, gpu, make_plan
from tests.ops.cases import Inputs, agree, case, inputs_for, pointers
from tests.ops.interpreter import interpreted_kernels

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: tests/test_gpu.py runs them on it")
LIMIT = 1e-5
SEED = torch.tensor([123456789012345])
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "across": {"across": True},
    "dropout": {"dropout": 0.3, "seed": SEED},
    "dropout across": {"dropout": 0.5, "seed": torch.tensor([-7]), "across": True},
}


@pytest.fixture(autouse=True)
def interpreter() -> Iterator[None]:
    """Every test here but those of compiled kernels interprets them."""
    with interpreted_kernels():
        yield


def check(inputs: Inputs, mode: str, limit: float = LIMIT, **options: object) -> None:
    """Kernels in float32 against the reference in float64: outputs and every gradient by name."""
    found = inputs.to(torch.float32).run(mode, backend="triton", **options)
    agree(found, inputs.to(torch.float64).run(mode, backend="reference", **options), limit)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_every_kind_of_relation_in_every_mode(mode: str, options: dict[str, object]) -> None:
    """Ten samples, some without a type; merged and not, with edge features and without."""
    check(case(3, 7, mode, merged=True, edges=True), mode, **options)
    check(case(1, 8, mode, merged=False, edges=False), mode, **options)


@pytest.mark.parametrize("mode", ["gat", "dot"])
def test_one_value_row_for_all_heads(mode: str) -> None:
    check(case(3, 5, mode).shared(), mode)
    check(case(2, 8, mode, merged=False).shared(), mode, dropout=0.2, seed=SEED)


@pytest.mark.parametrize("slope", [0.0, 1.5, -0.5])
def test_other_slopes(slope: float) -> None:
    check(case(2, 4, "gat", edges=False), "gat", slope=slope)
    check(case(2, 4, "gatv2", edges=False), "gatv2", slope=slope)


@pytest.mark.parametrize(
    "counts",
    [
        {"text": [0, 0], "image": [0, 0], "hub": [0, 0]},
        {"text": [3, 5], "image": [0, 0], "hub": [0, 0]},
        {"text": [0, 1, 0, 1], "image": [0, 0, 1, 1], "hub": [1, 0, 0, 1]},
        {"text": [], "image": [], "hub": []},
        {"text": [40, 3], "image": [33, 65], "hub": [1, 2]},
    ],
    ids=["nothing", "one type", "none or one", "no sample", "more than a chunk"],
)
def test_odd_samples(counts: dict[str, list[int]]) -> None:
    ptr = pointers(counts)
    sizes = {name: int(p[-1]) for name, p in ptr.items()}
    pairs = {
        ("text", "full", "image"): Dense(),
        ("image", "full", "text"): Dense(False),
        ("hub", "all", "text"): Dense(),
    }
    for mode in ("gat", "dot"):
        check(inputs_for(make_plan(sizes, pairs, ptr), sizes, 2, 4, mode), mode, across=True)


def test_stored_in_half_precision() -> None:
    """Only storage is rounded: outputs and the gradients of logits are those of the rounded numbers."""
    for dtype in (torch.bfloat16, torch.float16):
        inputs = case(2, 8, "gat", edges=False)
        rounded = replace(inputs, value=[v.to(dtype).to(v.dtype) for v in inputs.value])
        found = rounded.stored(dtype).run("gat", backend="triton")
        truth = rounded.to(torch.float64).run("gat", backend="reference")
        value = {name for name in truth[1] if name.startswith("value")}
        agree((found[0], {n: g for n, g in found[1].items() if n not in value}),
              (truth[0], {n: g for n, g in truth[1].items() if n not in value}), LIMIT)  # fmt: skip
        agree(([], {n: found[1][n].float() for n in value}), ([], {n: truth[1][n] for n in value}), 1e-2)


def test_the_same_bits_twice() -> None:
    inputs = case(3, 7, "gatv2").to(torch.float32)
    one, two = (inputs.run("gatv2", backend="triton", dropout=0.3, seed=SEED) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_what_it_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = case(2, 4, "gat").to(torch.float32)
    with pytest.raises(
        ConfigError, match=r"backend 'triton' cannot run: it does not choose the largest scores \(top_k\)"
    ):
        inputs.run("gat", backend="triton", top_k=2)
    with pytest.raises(ConfigError, match="float32 queries"):
        inputs.to(torch.float64).run("gat", backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert gpu.why_not() == ("" if torch.cuda.is_available() else "there is no GPU")
    with pytest.raises(ConfigError, match=r"there is no GPU|CUDA tensors only"):
        inputs.run("gat", backend="triton")


def test_an_edge_list_that_names_an_edge_twice_counts_it_twice() -> None:
    plan = make_plan({"a": 3}, {("a", "r", "a"): EdgeList(torch.tensor([[0, 0, 2, 1], [1, 1, 1, 0]]))})
    for mode in ("gat", "gatv2", "dot"):
        check(inputs_for(plan, {"a": 3}, 2, 4, mode), mode)


@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_kernels_compile_ahead_of_time_without_spilling(mode: str) -> None:
    """For the H200's architecture all passes, in mode `gat` the forward pass for those before and after it too: at most 168
    registers a thread (four warps, three programs a multiprocessor at least) and next to no stack.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.ahead", mode],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    made = [json.loads(line) for line in done.stdout.splitlines()]
    expected = {("forward", 90), ("backward_targets", 90), ("backward_sources", 90)}
    others = {("forward", 80), ("forward", 100)} if mode == "gat" else set()
    assert {(m["kernel"], m["arch"]) for m in made} == expected | others
    for m in made:
        assert m["registers"] <= 168, m
        assert m["stack"] <= 64, m

"""The Triton kernels without a GPU: interpreted, against the reference in float64; and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch

from graphfusion.errors import ConfigError
from graphfusion.ops.hetero_attention import Bitmask, Dense, EdgeList, Pairs, gpu, hetero_project, make_plan
from graphfusion.ops.hetero_attention.gpu import config, forms
from tests.ops.cases import Inputs, agree, case, inputs_for, off, pointers, random_edges
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
    """Every test here but those of compiled kernels interprets them. What no kernel writes is not a number."""
    torch.use_deterministic_algorithms(True)
    with interpreted_kernels():
        yield
    torch.use_deterministic_algorithms(False)


def calls() -> ModuleType:
    """The module of calls, which loads Triton."""
    from graphfusion.ops.hetero_attention.gpu import calls

    return calls


def check(inputs: Inputs, mode: str, limit: float = LIMIT, form: str = "walk", **options: object) -> None:
    """Kernels in float32 against the reference in float64: outputs and every gradient by name."""
    found = inputs.to(torch.float32).run(mode, backend=f"triton-{form}", **options)
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
        found = rounded.stored(dtype).run("gat", backend="triton-walk")
        truth = rounded.to(torch.float64).run("gat", backend="reference")
        value = {name for name in truth[1] if name.startswith("value")}
        agree((found[0], {n: g for n, g in found[1].items() if n not in value}),
              (truth[0], {n: g for n, g in truth[1].items() if n not in value}), LIMIT)  # fmt: skip
        agree(([], {n: found[1][n].float() for n in value}), ([], {n: truth[1][n] for n in value}), 1e-2)


def test_the_same_bits_twice() -> None:
    inputs = case(3, 7, "gatv2").to(torch.float32)
    one, two = (inputs.run("gatv2", backend="triton-walk", dropout=0.3, seed=SEED) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_what_it_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = case(2, 4, "gat").to(torch.float32)
    with pytest.raises(
        ConfigError, match=r"backend 'triton-walk' cannot run: it does not choose the largest scores \(top_k\)"
    ):
        inputs.run("gat", backend="triton-walk", top_k=2)
    with pytest.raises(ConfigError, match="float32 queries"):
        inputs.to(torch.float64).run("gat", backend="triton-walk")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert gpu.why_not() == ("" if torch.cuda.is_available() else "there is no GPU")
    with pytest.raises(ConfigError, match=r"there is no GPU|CUDA tensors only"):
        inputs.run("gat", backend="triton-walk")


def test_an_edge_list_that_names_an_edge_twice_counts_it_twice() -> None:
    plan = make_plan({"a": 3}, {("a", "r", "a"): EdgeList(torch.tensor([[0, 0, 2, 1], [1, 1, 1, 0]]))})
    for mode in ("gat", "gatv2", "dot"):
        check(inputs_for(plan, {"a": 3}, 2, 4, mode), mode)


def blocks(mode: str, heads: int, width: int, merged: bool = True) -> Inputs:
    """Three samples of which one has no text and one more nodes than a block; all forms into the same type."""
    ptr = pointers({"text": [0, 3, 21], "image": [2, 17, 5]})
    sizes = {name: int(p[-1]) for name, p in ptr.items()}
    listed = random_edges(ptr["image"], ptr["text"], 0.3, torch.Generator().manual_seed(2))
    pairs: dict[tuple[str, str, str], Pairs] = {
        ("image", "full", "text"): Dense(),
        ("text", "others", "text"): Dense(False),
        ("image", "masked", "text"): Bitmask.from_edges(listed, ptr["image"], ptr["text"]),
        ("image", "listed", "text"): EdgeList(listed),
        ("text", "full", "image"): Dense(),
    }
    return inputs_for(make_plan(sizes, pairs, ptr, merged), sizes, heads, width, mode, edges=False)


@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_tiles_give_what_pairs_give(mode: str) -> None:
    with mock.patch.object(calls().tiles, "forward", wraps=calls().tiles.forward) as launched:
        check(blocks(mode, 2, 5), mode, form="tiles")
        check(blocks(mode, 1, 3, merged=False), mode, form="tiles", dropout=0.3, seed=SEED)
    assert [len(call.args[1]) for call in launched.call_args_list] == [
        4,
        4,
    ]  # both types at once; the listed relation is walked


def test_the_linear_form_gives_what_pairs_give() -> None:
    """Merged and not, with a slope of 0, far apart logits, and logits that are equal or add up to 0."""
    two, one = blocks("gat", 2, 5), blocks("gat", 1, 3, merged=False)
    apart = replace(one, key=[30 * k for k in one.key], query=[30 * q for q in one.query])
    tied = replace(one, key=[k.round() for k in one.key], query=[q.round() for q in one.query])
    with mock.patch.object(calls().scan, "forward", wraps=calls().scan.forward) as launched:
        check(two, "gat", form="scan")
        check(apart, "gat", form="scan", slope=0.0)
        check(tied, "gat", form="scan", slope=1.0)
    assert [len(call.args[1]) for call in launched.call_args_list] == [2] * 3


def test_a_logit_that_is_not_a_number_stays_in_its_sample() -> None:
    inputs = blocks("gat", 2, 5, merged=False).to(torch.float32)
    with torch.no_grad():
        inputs.key[1][3] = float("nan")  # an image's node in the second sample
    out = inputs.run("gat", backend="triton-scan")[0][0]
    expected = inputs.to(torch.float64).run("gat", backend="reference")[0][0]
    assert bool(out[:3, 0].isnan().all())
    torch.testing.assert_close(out[3:].double(), expected[3:], rtol=1e-4, atol=1e-4)


def test_grouped_projections_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of several types, one without rows; the gradients of features, maps and biases."""
    monkeypatch.setenv("GRAPHFUSION_ATTENTION", "triton")
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    x, of = [normal(70, 33), normal(0, 33), normal(5, 33), normal(4, 33)], [0, 2, 0, 1, 2]
    weight = [normal(k, 33) for k in (96, 3, 8, 12, 70)]
    bias = [normal(len(w)) for w in weight]
    leaves = [*x[:3], *weight, *bias]
    found = []
    with mock.patch.object(gpu, "project_forward", wraps=gpu.project_forward) as launched:
        for backend in ("auto", "reference"):
            out = hetero_project(x, weight, of, bias, backend)
            loss = sum(o.square().sum() for o in out)
            found.append([o.detach() for o in (*out, *torch.autograd.grad(loss, leaves))])
    assert launched.call_count == 1
    for a, b in zip(*found, strict=True):
        assert off(a, b) <= LIMIT


@pytest.mark.parametrize(("form", "mode", "forward", "backward"), [("walk", "gat", 1, 2), ("tiles", "gatv2", 2, 4)])
def test_one_launch_a_form_and_pass_serves_all_node_types(form: str, mode: str, forward: int, backward: int) -> None:
    """Tiles leave listed relations to a walk."""
    import triton.runtime.interpreter as interpreter

    inputs = blocks(mode, 1, 3).to(torch.float32)
    with mock.patch.object(interpreter.GridExecutor, "__call__", autospec=True) as launched:
        out = inputs.run(mode, backend=f"triton-{form}")[0]
    assert len(out) == 2
    assert launched.call_count == forward + backward


def test_forms_take_samples_without_nodes() -> None:
    for counts in ({"a": [0, 0], "b": [3, 2]}, {"a": [3, 2], "b": [0, 0]}, {"a": [0], "b": [0]}, {"a": [], "b": []}):
        ptr = pointers(counts)
        sizes = {name: int(p[-1]) for name, p in ptr.items()}
        inputs = inputs_for(make_plan(sizes, {("a", "all", "b"): Dense()}, ptr), sizes, 2, 4, "gat")
        for form in ("tiles", "scan"):
            check(inputs, "gat", form=form)


def test_the_form_that_costs_least_is_taken() -> None:
    """Tiles where pairs are many, the linear form where they are very many, a walk over few pairs."""

    def chosen(sources: int, targets: int, mode: str = "gat", samples: int = 1) -> str:
        size = forms.Size(sources, targets, samples, 8, 32, 2)
        able = forms.FORMS if mode == "gat" else forms.FORMS[:2]
        return forms.cheapest([(able, size)], mode, torch.device("cpu"))[0]

    assert chosen(196 * 64, 196 * 64, samples=64) == "tiles"
    assert chosen(20_000, 20_000) == "scan"
    assert chosen(20_000, 20_000, "dot") == "tiles"
    assert chosen(64, 64, samples=64) == "walk"
    small = forms.Size(
        4 * 64, 64 * 64, 64, 8, 32, 2
    )  # tiles save less than the launch that a walk of others has anyway
    alone, beside = (
        forms.cheapest([(forms.FORMS[:2], small), *others], "gat", torch.device("cpu"))[0]
        for others in ([], [(forms.FORMS[:1], small)])
    )
    assert (alone, beside) == ("tiles", "walk")
    for more in (1, 60):  # a batch of a few samples or nodes more is evaluated alike, so that nothing is compiled anew
        assert (
            forms.Size(9 * 30 + more, 64 * 30, 30, 8, 32, 2).about()
            == forms.Size(9 * 30, 50 * 30, 30, 8, 32, 2).about()
        )
    plain = {"across": False, "shared": False, "dropout": False, "slope": 0.2, "loops": True}
    assert forms.able_to("dense", "gat", 32, **plain) == ("walk", "tiles", "scan")
    for change in ({"dropout": True}, {"slope": 1.5}, {"loops": False}):
        assert forms.able_to("dense", "gat", 32, **{**plain, **change}) == ("walk", "tiles")
    for change in ({"across": True}, {"shared": True}):
        assert forms.able_to("dense", "gat", 32, **{**plain, **change}) == ("walk",)
    assert tuple(forms.RATES) == config.ARCHITECTURES
    assert forms.able_to("csr", "gat", 32, **plain) == forms.able_to("dense", "gat", 256, **plain) == ("walk",)


REGISTERS = {"walk": 168, "rules": 168, "tiles": 255, "scan": 128, "project": 168}
"""A thread's, at most: three programs of four warps a multiprocessor, one of eight, four of four."""
MORE = {("scan", 128, 90): 168, ("project", 32, 80): 255}
"""Where it takes more: running sums of wide rows; products on sm_80, whose factors pass through registers. By form, width and
architecture.
"""
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of a program, at most; cards between sm_80 and sm_90, which run what is chosen for sm_80, have no more than that."""
SCAN = ["rank", "running", "combine", "backward_targets", "backward_sources"]
WALK = ["forward", "backward_targets", "backward_sources"]


@pytest.mark.parametrize(
    ("form", "mode", "dtype", "width", "archs", "kernels"),
    [
        ("walk", "gat", "bfloat16", 32, [80, 90, 100], WALK), ("walk", "gatv2", "float32", 32, [90], WALK),
        ("walk", "dot", "float16", 32, [90], WALK), ("rules", "gatv2", "bfloat16", 32, [90], WALK),
        ("project", "any", "bfloat16", 32, [80, 90, 100], ["grouped"] * 3),
        ("tiles", "gat", "bfloat16", 32, [90], WALK), ("tiles", "dot", "bfloat16", 32, [80, 90, 100], WALK),
        ("tiles", "gatv2", "float16", 32, [90], WALK), ("tiles", "gat", "bfloat16", 64, [80, 90], WALK),
        ("tiles", "gat", "bfloat16", 128, [80, 90, 100], WALK), ("tiles", "gat", "float32", 32, [80, 90], WALK),
        ("tiles", "gatv2", "float32", 32, [80, 100], WALK), ("tiles", "dot", "float32", 64, [80, 90, 100], WALK),
        ("scan", "gat", "bfloat16", 32, [80, 90, 100], SCAN), ("scan", "gat", "float32", 128, [90], SCAN),
    ],
)  # fmt: skip
def test_kernels_compile_ahead_of_time_without_spilling(
    form: str, mode: str, dtype: str, width: int, archs: list[int], kernels: list[str]
) -> None:
    """For the H200's architecture, some for those before and after it too: bounds on registers and shared memory, next to no stack
    (with wide heads or numbers the compiler puts up to 96 bytes there, so that two programs find registers).
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.ahead", form, mode, dtype, str(width), *map(str, archs)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((m["kernel"], m["arch"]) for m in made) == sorted((k, a) for k in kernels for a in archs)
    for m in made:
        assert m["registers"] <= MORE.get((form, width, m["arch"]), REGISTERS[form]), m
        assert m["stack"] <= (64 if width == 32 and dtype != "float32" else 96), m
        assert m["shared"] <= SHARED[m["arch"]], m

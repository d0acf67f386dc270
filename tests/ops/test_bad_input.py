"""Graphs and tensors that are odd but right are exact; what is wrong is refused by name before a kernel reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graphfusion.errors import ConfigError, GraphError
from graphfusion.ops.hetero_attention import (
    BACKENDS,
    Bitmask,
    Dense,
    EdgeList,
    Grid,
    Plan,
    Window,
    attention_weights,
    hetero_attention,
    hetero_project,
    make_plan,
)
from graphfusion.ops.hetero_attention.plan import _refuse_wrong_edges
from tests.ops.cases import off

A_TO_B, B_TO_A = ("a", "x", "b"), ("b", "y", "a")
EDGES = torch.tensor([[0, 1, 2], [1, 0, 1]])
NONE = torch.empty(2, 0, dtype=torch.int64)


def edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs).T


# --- odd, but right -------------------------------------------------------------------------------------------------------


def plan_of(given: Tensor, sources: int = 3, targets: int = 2) -> Plan:
    return make_plan({"a": sources, "b": targets}, {A_TO_B: EdgeList(given)})


def messages(given: Tensor, sources: int, targets: int, backend: str) -> Tensor:
    """(targets, C) where all scores are equal: each target gets the mean of its sources."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    value = torch.arange(1.0, sources * 5 + 1, dtype=dtype).view(sources, 1, 1, 5)
    there, here = torch.zeros(sources, 1, 1, dtype=dtype), torch.zeros(targets, 1, 1, dtype=dtype)
    empty = value.new_empty
    out = hetero_attention(
        [value, empty(targets, 0, 1, 5)], [there, empty(targets, 0, 1)], [empty(sources, 0, 1), here],
        plan_of(given, sources, targets), backend=backend,
    )  # fmt: skip
    return out[1][:, 0, 0]


ODD: dict[str, tuple[Tensor, int, int]] = {
    "1: no edges": (NONE, 3, 2),
    "2: no nodes": (NONE, 0, 0),
    "3: no sources": (NONE, 0, 2),
    "4: no targets": (NONE, 3, 0),
    "5: isolated nodes": (edges((0, 3)), 4, 5),
    "6: an edge twice": (edges((0, 0), (0, 0), (1, 0)), 2, 1),
    "7: an edge many times": (edges(*[(1, 1)] * 50, (0, 1)), 2, 3),
    "8: unsorted": (edges((2, 1), (0, 0), (1, 1), (0, 1)), 3, 2),
    "9: one node": (edges((0, 0)), 1, 1),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("given", "sources", "targets"), ODD.values(), ids=ODD)
def test_odd_graphs_are_exact(given: Tensor, sources: int, targets: int, backend: str) -> None:
    found = messages(given, sources, targets, backend)
    value = torch.arange(1.0, sources * 5 + 1, dtype=torch.float64).view(sources, 5)
    for i in range(targets):
        mine = [value[j] for j, t in given.T.tolist() if t == i]
        wanted = torch.stack(mine).mean(0) if mine else torch.zeros(5, dtype=torch.float64)
        assert off(found[i], wanted) < 1e-6
    assert len(found) == targets


def test_edges_in_int32_are_taken() -> None:
    a, b = plan_of(EDGES), plan_of(EDGES.int())
    assert all(torch.equal(x, y) for x, y in zip(a.index, b.index, strict=True))


# --- wrong edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (edges((0, 0), (3, 1)), ["edge 1 is 3 → 1", "3 source", "2 target"]),
        (edges((0, 0), (1, 1), (2, 2)), ["edge 2 is 2 → 2", "3 source", "2 target"]),
        (edges((-1, 0)), ["edge 0 is -1 → 0", "start at 0"]),
        (edges((0, -2)), ["edge 0 is 0 → -2", "start at 0"]),
        (edges((2**40, 0)), [f"edge 0 is {2**40} → 0"]),
        (EDGES.float(), ["expected int64", "torch.float32", ".long()"]),
        (EDGES.bool(), ["expected int64", "torch.bool"]),
        (EDGES.T, ["expected the shape (2, E)", "(3, 2)"]),
        (EDGES[0], ["expected the shape (2, E)", "(3,)"]),
        (EDGES[:, :, None], ["expected the shape (2, E)", "(2, 3, 1)"]),
    ],
    ids=lambda x: str(x) if isinstance(x, list) else "",
)
def test_wrong_edges_are_named(bad: Tensor, parts: list[str]) -> None:
    with pytest.raises(GraphError) as error:
        plan_of(bad)
    for part in [str(A_TO_B), *parts]:
        assert part in str(error.value)


def test_edges_on_another_device_are_named() -> None:
    ptr = {"a": torch.tensor([0, 3]), "b": torch.tensor([0, 2])}
    with pytest.raises(GraphError) as error:
        make_plan({"a": 3, "b": 2}, {A_TO_B: EdgeList(EDGES.to("meta"))}, ptr)
    for part in (str(A_TO_B), "expected them on cpu", "got meta", ".to()"):
        assert part in str(error.value)
    with pytest.raises(GraphError, match="meta"):
        make_plan({"a": 3, "b": 2}, {A_TO_B: EdgeList(EDGES), B_TO_A: EdgeList(NONE.to("meta"))})


@pytest.mark.parametrize("relation", [("a", "x", "c"), ("c", "x", "b")])
def test_a_relation_with_an_unknown_node_type_is_named(relation: tuple[str, str, str]) -> None:
    with pytest.raises(GraphError) as error:
        make_plan({"a": 3, "b": 2}, {relation: Dense()})
    for part in (str(relation), "unknown node type 'c'", "a, b"):
        assert part in str(error.value)


@pytest.mark.parametrize(("low", "high", "step"), [(1, 0, 1), (2, -2, 1), (0, 1, 0), (0, 1, -1)])
def test_a_window_that_is_upside_down_is_named(low: int, high: int, step: int) -> None:
    with pytest.raises(GraphError) as error:
        Window(low, high, step)
    for part in ("Window", "low ≤ high", "step ≥ 1", f"got {low}, {high}, {step}"):
        assert part in str(error.value)


# --- wrong tensors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """Arguments of one right call, of which tests spoil one: 3 nodes of a, 2 of b, two heads of width 8."""

    mode: str
    value: list[Any]
    key: list[Any]
    query: list[Any]
    plan: Plan
    options: dict[str, Any]

    def run(self, backend: str = "auto") -> list[Tensor]:
        return hetero_attention(
            self.value, self.key, self.query, self.plan, mode=self.mode, backend=backend, **self.options
        )

    def but(self, **options: Any) -> Call:
        return replace(self, options={**self.options, **options})


def right(mode: str) -> Call:
    plan = make_plan({"a": 3, "b": 2}, {A_TO_B: EdgeList(EDGES), B_TO_A: Dense()})
    tail = (2,) if mode == "gat" else (2, 8)
    value = [torch.randn(3, 1, 2, 8), torch.randn(2, 1, 2, 8)]
    key = [] if mode == "gatv2" else [torch.randn(3, 1, *tail), torch.randn(2, 1, *tail)]
    query = [torch.randn(3, 1, *tail), torch.randn(2, 1, *tail)]
    return Call(mode, value, key, query, plan, {"att": torch.randn(2, 2, 8)} if mode == "gatv2" else {})


def spoiled(call: Call, what: str, place: int, tensor: Any) -> Call:
    parts = list(getattr(call, what))
    parts[place] = tensor
    return replace(call, **{what: parts})


def refused(call: Call, error: type[Exception], *parts: str) -> None:
    """The same error of every backend, ahead of its kernel; the one that cannot crash goes first."""
    for backend in ("reference", "cpu", "auto"):
        with pytest.raises(error) as found:
            call.run(backend)
        for part in parts:
            assert part in str(found.value), backend


def refused_alike(call: Call, *parts: str) -> None:
    """`attention_weights` says the same."""
    refused(call, GraphError, *parts)
    with pytest.raises(GraphError) as found:
        attention_weights(call.value, call.key, call.query, call.plan, mode=call.mode, **call.options)
    for part in parts:
        assert part in str(found.value)


def test_the_call_that_the_others_spoil_is_right() -> None:
    for mode in ("gat", "gatv2", "dot"):
        for backend in BACKENDS:
            assert [tuple(o.shape) for o in right(mode).run(backend)] == [(3, 1, 2, 8), (2, 1, 2, 8)]


@pytest.mark.parametrize(
    "shape", [(4, 1, 2, 8), (3, 2, 2, 8), (3, 1, 3, 8), (3, 2, 8), (48,), (3, 1, 2, 8, 1), (0, 1, 2, 8)], ids=str
)  # fmt: skip
@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_a_value_of_a_wrong_shape_is_named(mode: str, shape: tuple[int, ...]) -> None:
    refused_alike(spoiled(right(mode), "value", 0, torch.zeros(shape)), "value of 'a'", str(shape))


@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
@pytest.mark.parametrize("place", [0, 1])
def test_values_of_different_widths_are_named(mode: str, place: int) -> None:
    """Which of the two is wrong nobody can know; the widths are both told."""
    shape = (3 - place, 1, 2, 9)
    refused_alike(spoiled(right(mode), "value", place, torch.zeros(shape)), "expected", "8)", "9)")


@pytest.mark.parametrize("shape", [(4, 1, 2), (3, 2, 2), (3, 1, 3), (3, 1, 2, 8), (3, 2), (6,)], ids=str)
def test_a_key_of_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    refused_alike(spoiled(right("gat"), "key", 0, torch.zeros(shape)), "key of 'a'", "(3, 1, 2)", str(shape))


@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 1, 2, 9), (3, 1, 16)], ids=str)
def test_a_key_of_dot_of_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    refused_alike(spoiled(right("dot"), "key", 0, torch.zeros(shape)), "key of 'a'", "(3, 1, 2, 8)", str(shape))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("shape", [(4, 1, 2), (3, 2, 2), (3, 1, 3), (3, 1, 2, 8), (3, 2), (6,)], ids=str)
def test_a_query_of_a_wrong_shape_is_named(shape: tuple[int, ...], place: int) -> None:
    """Of the first type too, from which the number of heads is read."""
    refused_alike(spoiled(right("gat"), "query", place, torch.zeros(shape)), f"{'ab'[place]}'", "expected")


@pytest.mark.parametrize("shape", [(3, 2, 8), (2, 1, 8), (2, 2, 9), (2, 8)], ids=str)
def test_an_att_of_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    refused_alike(right("gatv2").but(att=torch.zeros(shape)), "att", "(2, 2, 8)", str(shape))


def test_att_goes_with_gatv2_alone() -> None:
    refused(right("gatv2").but(att=None), ConfigError, "att", "'gatv2' needs it")
    refused(right("gat").but(att=torch.zeros(2, 2, 8)), ConfigError, "att", "no other mode takes it", "'gat'")


@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (3, 2, 9), (3,)], ids=str)
def test_edge_features_of_a_wrong_shape_are_named(mode: str, shape: tuple[int, ...]) -> None:
    expected = "(3, 2, 8)" if mode == "gatv2" else "(3, 2)"
    call = right(mode).but(edge=[torch.zeros(shape), torch.empty(0)])
    refused_alike(call, f"edge of {A_TO_B}", f"expected {expected}", f"got {shape}")


def test_edge_features_for_each_relation_or_none() -> None:
    refused_alike(right("gat").but(edge=[torch.zeros(3, 2)]), "edge", "each of 2 relations", "got 1")


def test_features_on_a_regular_relation_are_named() -> None:
    refused_alike(
        right("gat").but(edge=[torch.empty(0), torch.zeros(6, 2)]), f"edge of {B_TO_A}", "only listed", "dense"
    )


@pytest.mark.parametrize("what", ["value", "key", "query"])
def test_a_missing_type_is_named(what: str) -> None:
    call = right("gat")
    refused_alike(replace(call, **{what: getattr(call, what)[:1]}), "each of the node types a, b")


def test_an_unknown_mode_is_named_with_the_nearest() -> None:
    refused(replace(right("gat"), mode="gatv3"), ConfigError, "unknown attention mode 'gatv3'", "Did you mean 'gatv2'")


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
def test_a_dropout_out_of_range_is_named(dropout: float) -> None:
    refused(right("gat").but(dropout=dropout), ConfigError, "0 ≤ dropout < 1", f"got {dropout}")


def test_a_negative_top_k_is_named() -> None:
    refused(right("gat").but(top_k=-1), ConfigError, "top_k ≥ 0", "-1")


@pytest.mark.parametrize("what", ["value", "key", "query"])
def test_a_tensor_on_another_device_is_named(what: str) -> None:
    refused_alike(
        spoiled(right("gat"), what, 1, getattr(right("gat"), what)[1].to("meta")), "several devices", "cpu", "meta"
    )


def test_an_att_on_another_device_is_named() -> None:
    refused_alike(right("gatv2").but(att=torch.zeros(2, 2, 8, device="meta")), "several devices", "cpu", "meta")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edge_across_two_samples_is_refused(backend: str) -> None:
    ptr = {"a": torch.tensor([0, 2, 3]), "b": torch.tensor([0, 1, 2])}
    for wrong in (edges((0, 0), (0, 1)), edges((2, 0))):
        plan = make_plan({"a": 3, "b": 2}, {A_TO_B: EdgeList(wrong), B_TO_A: Dense()}, ptr)
        with pytest.raises(GraphError, match="two samples"):
            replace(right("gat"), plan=plan).run(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_across_two_samples_is_refused(backend: str) -> None:
    """A bit beyond the sources of its sample."""
    ptr = {"a": torch.tensor([0, 2, 3]), "b": torch.tensor([0, 1, 2])}
    mask = Bitmask(torch.tensor([3, 2], dtype=torch.int32), torch.tensor([0, 1, 2], dtype=torch.int32))
    plan = make_plan({"a": 3, "b": 2}, {A_TO_B: mask, B_TO_A: Dense()}, ptr)
    with pytest.raises(GraphError, match="two samples"):
        replace(right("gat"), plan=plan).run(backend)


def test_projections_of_a_wrong_width_are_named() -> None:
    with pytest.raises(GraphError) as error:
        hetero_project([torch.zeros(3, 4), torch.zeros(2, 6)], [torch.zeros(8, 4), torch.zeros(8, 5)], [0, 1])
    for part in ("projection 1", "expected features (N, 5)", "(2, 6)"):
        assert part in str(error.value)
    with pytest.raises(GraphError, match="projection 0"):
        hetero_project([torch.zeros(4)], [torch.zeros(8, 4)], [0])
    with pytest.raises(ConfigError, match=r"unknown backend 'tritn'. Did you mean 'triton'\?"):
        hetero_project([torch.zeros(3, 4)], [torch.zeros(8, 4)], [0], backend="tritn")


# --- plans that contradict themselves or the tensors: a kernel would read memory that is not theirs ------------------------


def refused_plan(make: Callable[[], Plan], *parts: str) -> None:
    with pytest.raises(GraphError) as error:
        make()
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("rows", [2, 4, 0])
@pytest.mark.parametrize("mode", ["gat", "gatv2", "dot"])
def test_tensors_of_a_plan_for_other_sizes_are_refused(mode: str, rows: int) -> None:
    """All tensors of a type agree with each other, but not with the plan."""
    call = right(mode)
    for what in ("value", "key", "query"):
        parts = getattr(call, what)
        if parts:
            call = spoiled(call, what, 0, torch.zeros(rows, *parts[0].shape[1:]))
    with pytest.raises(GraphError, match="'a'"):
        call.run("reference")


@pytest.mark.parametrize("ptr", [[0, 4], [0, 2], [1, 3], [0, 4, 3], [0, -1, 3]], ids=str)
def test_a_ptr_that_does_not_fit_its_type_is_refused(ptr: list[int]) -> None:
    both = {"a": torch.tensor(ptr), "b": torch.tensor([0] * (len(ptr) - 1) + [2])}
    refused_plan(lambda: make_plan({"a": 3, "b": 2}, {A_TO_B: Dense()}, both), "'a'")


def test_types_with_different_numbers_of_samples_are_refused() -> None:
    both = {"a": torch.tensor([0, 3]), "b": torch.tensor([0, 1, 2])}
    refused_plan(lambda: make_plan({"a": 3, "b": 2}, {A_TO_B: Dense()}, both), "samples")


def test_a_type_without_ptr_is_named() -> None:
    refused_plan(lambda: make_plan({"a": 3, "b": 2}, {A_TO_B: Dense()}, {"a": torch.tensor([0, 3])}), "'b'")


@pytest.mark.parametrize("columns", [[3], [3, 0], [3, -1], [3, 1, 1]], ids=str)
def test_columns_of_a_grid_that_do_not_fit_are_refused(columns: list[int]) -> None:
    """Two samples need two numbers from 1 (a 0 stops the process: a division)."""
    grid = Grid(torch.tensor(columns, dtype=torch.int32))
    ptr = {"a": torch.tensor([0, 6, 9])}
    refused_plan(lambda: make_plan({"a": 9}, {("a", "g", "a"): grid}, ptr), "('a', 'g', 'a')", "columns")


def test_a_mask_for_other_targets_is_refused() -> None:
    mask = Bitmask.from_edges(edges((0, 0)), torch.tensor([0, 3]), torch.tensor([0, 2]))
    refused_plan(lambda: make_plan({"a": 3, "b": 4}, {A_TO_B: mask}), str(A_TO_B), "mask")
    short = replace(mask, words=mask.words[:1])
    refused_plan(lambda: make_plan({"a": 3, "b": 2}, {A_TO_B: short}), str(A_TO_B), "mask")


def test_one_value_row_for_all_heads_is_refused_in_gatv2() -> None:
    """The value is the key there: kernels would read a row of one head as one of all."""
    call = right("gatv2")
    refused_alike(
        replace(call, value=[v[:, :, :1] for v in call.value]), "value of 'a'", "(3, 1, 2, 8)", "(3, 1, 1, 8)"
    )


@pytest.mark.parametrize("seed", [torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)], ids=str)
def test_a_seed_that_is_not_one_number_is_named(seed: Tensor) -> None:
    refused(right("gat").but(dropout=0.5, seed=seed), GraphError, "seed")


def test_a_mask_of_strided_words_and_att_of_another_dtype_are_right() -> None:
    """Kernels read memory as it lies: what is strided or of another dtype must be laid anew for them."""
    ptr = torch.tensor([0, 3])
    mask = Bitmask.from_edges(edges((0, 1), (2, 1), (1, 0)), ptr, ptr)
    wide = torch.zeros(2 * len(mask.words), dtype=torch.int32)
    wide[::2] = mask.words
    plans = [make_plan({"a": 3}, {("a", "m", "a"): m}) for m in (mask, replace(mask, words=wide[::2]))]
    value, query, att = torch.randn(3, 1, 2, 8), torch.randn(3, 1, 2, 8), torch.randn(1, 2, 8)
    one = hetero_attention([value], [], [query], plans[0], mode="gatv2", att=att, backend="cpu")[0]
    two = hetero_attention([value], [], [query], plans[1], mode="gatv2", att=att.double(), backend="cpu")[0]
    assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_what_a_plan_on_a_gpu_looks_at(dtype: torch.dtype) -> None:
    """There the kernels do not look; ranges and samples of all relations are looked at together."""
    index = [torch.tensor([0, 2, 3], dtype=torch.int32), torch.tensor([0, 1, 2], dtype=torch.int32)]

    def look(*pairs: tuple[int, int]) -> None:
        listed = {A_TO_B: EdgeList(edges(*pairs).to(dtype)), B_TO_A: Dense()}
        _refuse_wrong_edges(listed, ("a", "b"), (3, 2), index)

    look((0, 0), (1, 0), (2, 1))
    for wrong in ((3, 1), (-1, 0), (0, 2)):
        with pytest.raises(GraphError, match=r"edge 1 is -?\d → \d, but there are 3 source and 2 target nodes"):
            look((0, 0), wrong)
    with pytest.raises(GraphError, match="ties nodes of two samples"):
        look((0, 0), (0, 1))

"""The speed benchmark of the attention: its graphs, its parity gate, its limits, and its table from a file made by hand."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import attention, attention_graphs, attention_peers
from benchmarks.attention_graphs import SIZES, Size, Work, make_graph, relations, work_of
from benchmarks.attention_peers import MINE, ROWS, ParityError

TINY = Size(text=12, side=3, audio=10, hubs=2, samples=3, dim=16, heads=4)


@pytest.mark.parametrize(
    ("name", "cross", "nodes", "edges"),
    [("S", "topk", "1.9k", "57k"), ("S", "dense", "1.9k", "157k"), ("M", "topk", "10.4k", "332k"), ("M", "dense", "10.4k", "1953k"),
     ("L", "topk", "28.7k", "925k"), ("L", "dense", "28.7k", "8560k")],
)  # fmt: skip
def test_graphs_have_the_sizes_of_the_specification(name: str, cross: str, nodes: str, edges: str) -> None:
    graph = make_graph(SIZES[name], cross)
    assert f"{graph.nodes / 1e3:.1f}k" == nodes
    assert f"{graph.edge_count / 1e3:.0f}k" == edges
    assert len(graph.edges) == len(set(relations())) == 16


@pytest.mark.parametrize("cross", attention_graphs.CROSSES)
@pytest.mark.parametrize("size", [TINY, SIZES["S"]])
def test_kinds_say_what_the_lists_say(size: Size, cross: str) -> None:
    graph = make_graph(size, cross)
    for relation, pairs in graph.pairs.items():
        listed = graph.edges[relation]
        same = pairs.edge_index(graph.ptr[relation[0]], graph.ptr[relation[2]])
        assert listed[:, (listed[1] * 10_000 + listed[0]).argsort()].tolist() == listed.tolist()
        assert same[:, (same[1] * 10_000 + same[0]).argsort()].tolist() == listed.tolist(), relation


def test_lists_by_hand() -> None:
    graph = make_graph(TINY, "topk")
    grid = graph.edges["image", "grid", "image"]
    assert grid.shape[1] == 3 * (4 * 4 + 4 * 6 + 9)  # corners, sides, the middle
    assert sorted(grid[0, grid[1] == 9].tolist()) == [9, 10, 12, 13]  # the first corner of the second sample
    assert set(graph.edges["text", "cross", "image"][1].bincount().tolist()) <= {
        6,
        7,
        8,
    }  # at most 8, of at least 6 texts
    assert graph.edges["hub", "among", "hub"].T.tolist()[:4] == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_parity_holds_and_refuses_a_perturbed_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = make_graph(TINY, "dense")
    found = attention_peers.check_parity(graph, list(ROWS))
    assert {MINE, "graphfusion gatv2", "graphfusion dot", "graphfusion gat bf16"} <= set(found)
    assert all(error <= 1e-5 for name, error in found.items() if not ROWS[name].bf16)
    exact = attention_peers.carried_over

    def perturbed(*args: torch.nn.Module) -> dict[str, torch.Tensor]:
        weights = exact(*args)
        name = next(n for n in weights if n.endswith("query.1"))
        return weights | {name: weights[name] * 1.001}

    monkeypatch.setattr(attention_peers, "carried_over", perturbed)
    with pytest.raises(ParityError, match=rf"{MINE} differs in \d+ of \d+ tensors: .*lin_dst.weight: .* > 1e-05"):
        attention_peers.check_parity(graph, [MINE])


def test_a_missing_or_broken_tensor_is_refused() -> None:
    one = {"output of a": torch.tensor([2.0, -4.0])}
    assert attention_peers.differences(one, {"output of a": torch.tensor([2.0, -4.5])}) == {"output of a": 0.125}
    with pytest.raises(ParityError, match=r"only one side has .*b"):
        attention_peers.differences(one, one | {"gradient of b": torch.ones(1)})
    with pytest.raises(ParityError, match="output of a: nan"):
        attention_peers.refuse_differences("x", {"output of a": float("nan")}, lambda _: 1.0)
    assert attention_peers.bf16_limit("output of a") == 0.01
    assert attention_peers.bf16_limit("gradient of <a___b___c>.att_src") == 0.02


def test_a_run_without_parity_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise ParityError("att differs")

    monkeypatch.setattr(attention, "run_all", refuse)
    monkeypatch.setattr(sys, "argv", ["attention.py", "--quick", "--threads", str(torch.get_num_threads())])
    assert attention.main() == 1
    assert "no speed without parity: att differs" in capsys.readouterr().out


def test_rows_take_part_in_evenly_spread_rounds() -> None:
    calls: list[str] = []
    cases = {name: (lambda name=name: calls.append(name), count) for name, count in (("a", 6), ("b", 3), ("c", 2))}
    found = attention.interleave(cases, attention.Clock("cpu"))
    assert "".join(calls) == "aabacabaabc"
    assert {name: timing.rounds for name, timing in found.items()} == {"a": 6, "b": 3, "c": 2}
    assert attention.medians([(3.0, None), (1.0, None), (2.0, None)]) == attention.Timing(2.0, None, 3)


def test_work_and_limit_by_hand() -> None:
    work = Work(gemm_flops=600, edge_flops=40, moved_bytes=80, gathered_bytes=0)
    assert work.limit_ms(gemm=200, fused=20, bandwidth=10) == pytest.approx(8_000)  # memory: 8 s, arithmetic: 5 s
    assert work.limit_ms(gemm=200, fused=20, bandwidth=100, passes=3) == pytest.approx(15_000)
    graph = make_graph(TINY, "dense")
    x, pairs, edges = dict(graph.x), dict(graph.pairs), dict(graph.edges)
    one = ("text", "cross", "image")
    texts, patches, dim, heads = len(x["text"]), len(x["image"]), 16, 4
    object.__setattr__(graph, "edges", {one: edges[one]})
    found = work_of(graph, 4)
    rows = min(2 * edges[one].shape[1] * dim, 8 * (texts + patches) * dim)
    first, after = 2 * texts * dim**2 + rows, 2 * patches * dim**2 + heads * rows
    assert pairs[one].kind == "dense"
    assert first < after
    assert found.gemm_flops == 2 * (texts + patches) * dim * heads + 2 * texts * dim**2
    assert found.edge_flops == rows
    assert found.moved_bytes == dim * (8 * graph.nodes + 8 * texts)


def test_ratios_by_hand() -> None:
    ms = {"PyG GAT": 80.0, "PyG GATv2": 120.0, MINE: 10.0, "graphfusion gatv2": 30.0}
    records = [{"size": "M", "cross": "topk", "method": m, "pass": "forward", "ms": t} for m, t in ms.items()]
    records.append({"size": "M", "cross": "topk", "method": attention.PLAN, "pass": "plan", "ms": 0.4})
    records.append({"size": "M", "cross": "topk", "method": "PyG HGT", "pass": "", "note": "left out"})
    attention.add_ratios(records)
    by_name = {r["method"]: r for r in records}
    assert by_name["graphfusion gatv2"]["pyg_gatv2_over_this"] == 4
    assert by_name["graphfusion gatv2"]["pyg_gat_over_this"] == pytest.approx(80 / 30)
    assert by_name["graphfusion gatv2"]["this_over_graphfusion_gat"] == 3
    assert by_name[MINE]["pyg_gatv2_over_this"] == ""
    assert by_name[attention.PLAN]["this_over_graphfusion_gat"] == pytest.approx(0.04)
    assert "pyg_gat_over_this" not in by_name["PyG HGT"]


def written(folder: Path, device: str = "cpu") -> list[dict[str, str]]:
    """A CSV made by hand, read back."""
    ms = {"PyG GAT": (80.0, 200.0), MINE: (10.0, 25.0), "graphfusion gat bf16": (5.0, 10.0)}
    records = [
        {"size": "M", "cross": "topk", "method": m, "pass": p, "ms": t, "device_ms": t / 2, "memory_mb": 7.0, "fraction_of_limit": 0.5}
        for m, times in ms.items() for p, t in zip(attention.PASSES, times, strict=True)
    ]  # fmt: skip
    records.append({"size": "M", "cross": "topk", "method": "DGL GAT", "pass": "", "note": "left out: not here"})
    records.append({"size": "machine", "method": "copy", "pass": "rate", "rate": "3e10"})
    attention.add_ratios(records)
    around = {"machine": "AMD EPYC 9xx5 12-Core Processor", "device": device, "cores": 2, "threads": 1, "allocator": "keeping", "torch": "2.14",
              "torch_geometric": "2.8", "python": "3.11", "commit": "abc", "seed": 0, "date": "2026-11-25"}  # fmt: skip
    path = attention.save(records, around, folder)
    assert path == attention.newest(folder, "keeping")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_comes_from_the_file_alone(tmp_path: Path) -> None:
    text = attention.table(written(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["attention_amd-epyc-9xx5_2026-11-25_keeping.csv"]
    assert "| Times faster than PyG GAT | M topk |" in text
    assert f"| {MINE} | 8.00 / 8.00 |" in text
    assert "| graphfusion gat bf16 | 16.0 / 20.0 |" in text
    assert "| PyG GAT | 7.00 |" in text
    assert "| G1 | PyG GAT / graphfusion gat, M topk | 8.00 / 8.00 | ≥ 8 / 7 | yes / yes |" in text
    assert "| 16.0 / 20.0 | ≥ 20 / 15 | no / yes |" in text
    assert "copy 30 GB/s" in text
    assert "- DGL GAT: left out: not here (M topk)" in text
    assert "ms" not in text.split("| goal |")[0]  # on a CPU ratios alone


def test_the_table_of_a_gpu_has_times(tmp_path: Path) -> None:
    text = attention.table(written(tmp_path, "cuda"))
    assert "| Wall time, ms | M topk |" in text
    assert "| graphfusion gat bf16 | 5.00 / 10.0 |" in text
    assert "| graphfusion gat bf16 | 2.50 / 5.00 |" in text


def test_the_goals_of_a_gpu_by_hand() -> None:
    def row(size: str, cross: str, method: str, passed: str, **more: object) -> dict[str, str]:
        found = {"size": size, "cross": cross, "method": method, "pass": passed, "device": "cuda", **more}
        return {**dict.fromkeys(attention.COLUMNS, ""), **{k: str(v) for k, v in found.items()}}

    one, both = attention.PASSES
    rows = [
        row("machine", "", "copy", "rate", rate=4e12),
        row("M", "topk", attention_peers.CAPTURED, one, ms=0.10), row("L", "topk", attention_peers.CAPTURED, one, ms=0.13),
        row("M", "topk", attention_peers.CAPTURED, both, ms=0.35), row("M", "topk", attention.BF16, both, ms=1, launches=13),
        row("L256", "dense", attention.BF16, one, ms=2, fraction_of_limit=0.6), row("L256", "dense", attention_peers.BASE, one, ms=250),
        row(*attention.ONE_RELATION, one, ms=1, device_ms=0.2),
    ]  # fmt: skip
    text = attention.goals_table(rows)
    assert f"| G7 | wall ms of {attention_peers.CAPTURED}, forward | 0.13 | ≤ 0.12 | no |" in text
    assert f"| G7 | wall ms of {attention_peers.CAPTURED}, forward + backward | 0.35 | ≤ 0.35 | yes |" in text
    assert f"| G10 | launches of {attention.BF16}, forward + backward | 13.0 | ≤ 12 | no |" in text
    assert "| G8 | share of the layer's limit, graphfusion gat bf16, L256 dense | 0.60 | ≥ 0.5 | yes |" in text
    # 373,248 rows of 256 float32 are 382 MB, 95.6 µs at 4 TB/s
    assert "1 relation of listed edges, forward | 0.48 | ≥ 0.7 | no |" in text
    assert "| G9 | PyG GAT / graphfusion gat bf16, L256 dense | 125 / – | ≥ 100 / 100 | yes / no |" in text
    assert "G3" not in text


def test_the_largest_size_is_measured_dense_alone() -> None:
    options = attention.Options(("M", "L256"), ("topk", "dense"), 1, 1.0, "cuda", 1, False, False, ())
    assert attention.cells_of(options) == [("M", "topk"), ("M", "dense"), ("L256", "dense")]


@pytest.mark.parametrize(
    ("machine", "short"),
    [("AMD EPYC", "amd-epyc"), ("Intel(R) Xeon(R) Processor @ 2.80GHz", "intel-xeon"), ("NVIDIA H200", "nvidia-h200")],
)
def test_slugs(machine: str, short: str) -> None:
    assert attention.slug(machine) == short


def test_the_profile_tells_operators_apart() -> None:
    options = attention.Options(("S",), ("topk",), 1, 1.0, "cpu", 1, True, False, ())
    text = attention.profile(MINE, "S", "topk", options, calls=1)
    assert "graphfusion::hetero_attention_backward" in text
    shares = [float(line.split("|")[-2].strip().rstrip("%")) for line in text.splitlines()[2:-1]]
    assert 60 < sum(shares) <= 104  # the largest; each is rounded

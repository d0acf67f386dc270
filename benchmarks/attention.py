"""The fused heterogeneous attention beside its peers: PyG, DGL, and the Transformer block that one might take instead.

    python benchmarks/attention.py --quick                        # S and M top-k, the main peers; prints, under a minute
    python benchmarks/attention.py                                # everything; about 25 minutes on 2 cores
    python benchmarks/attention.py --table                        # the Markdown again, from the newest CSV alone
    python benchmarks/attention.py --profile "graphfusion gat" M topk    # where the time of one row goes
    PYTHONPATH=. python3 benchmarks/attention.py --device cuda    # on a GPU machine; attention runs on the Triton kernels

One layer is PyG's `HeteroConv(sum)` of one convolution for each of 16 relations (`attention_graphs.py`); every row takes
x[type] (N, D) and gives messages[type] (N, D) (`attention_peers.py`). Forward runs without gradients, forward + backward
derives all inputs and parameters for a fixed random gradient of the outputs. Rounds are interleaved (A B A B), medians are
compared. Slow rows take part in fewer rounds, three at least; a row whose single call takes over 30 s (PyG's GAT may), or that
would not fit into memory, is left out by name. No speed is printed unless outputs and every gradient agree with PyG's layer of the
same weights: in float32 to 1e-5 of the largest number of the tensor, on numbers rounded such that both meet the same side of
every leaky rectifier's kink (`Graph.rounded`); in bfloat16 to `BF16_LIMITS`. Else the exit status is 1.
Peak memory is what forward + backward adds to a fresh process (VmHWM less VmRSS before; on CUDA the allocator's peak).

Timings run with glibc's allocator as a process has it (`plain`). There E × D tensors of hundreds of megabytes are fresh pages in
every call: page faults make PyG's dense relations about 4 times slower, and hardly ours. `--allocator keeping` takes that away:
freed memory is kept. It has a file of its own, `..._keeping.csv`. Where all rows together might fill the machine, it gives memory
back after each call, and a call that is not timed goes before each that is.

Plans of ours are made before, as the masks of the padded peers and the formats of DGL are; their cost has a line of its own.
`compiled` is `torch.compile(dynamic=True)` with caches off, one module for all graphs of a width; it tells what compiling took.

The limit is the time of the compulsory work at rates measured in the same run:

    max((projections + logits) / GEMM rate + edges / float32 rate,  bytes / copy bandwidth),   3 × for forward + backward

- projections: for each relation the cheaper of "project first", 2 N_source D² and then 2 E D on edges, and "gather first",
  2 N_target D² and 2 E D H on edges (each head gathers rows of D); dense relations count min(2 E D, 8 (n + m) D): the linear
  form. Logits: 2 (N_source + N_target) D H a relation, since projections of targets fold into them.
- bytes: inputs read and outputs written once in float32, projected rows written and read once.
- on CUDA the share of the limit is that of the time on the device, at a row's own storage; what the host takes is in the wall time.
- GEMM rate: the better of `torch.mm` and oneDNN, 1024³ on a CPU; its float32 rate stands for multiply-adds on edges. Gathers
  are not held against memory, since the rows of one sample stay in cache; what they would take from memory is in the CSV.

Left out: FlexAttention has no backward on a CPU and finds no empty block in these graphs; RGATConv needs E × D × D memory.

Results: benchmarks/results/attention_<machine>_<date>.csv and .md; a quick run writes only with --out.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import datetime
import gc
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # a script sees its own folder only

import torch  # noqa: E402

warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")  # torch-geometric on a newer torch
warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")  # caches are off on purpose

from benchmarks import attention_peers as peers  # noqa: E402
from benchmarks.attention_graphs import CROSSES, SIZES, Graph, make_graph, work_of  # noqa: E402
from graphfusion.cli.doctor import processor  # noqa: E402
from graphfusion.errors import unknown_name  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PASSES = ("forward", "forward + backward")
COLUMNS = (
    "size", "cross", "method", "pass", "ms", "device_ms", "rounds", "pyg_gat_over_this", "pyg_gatv2_over_this",
    "this_over_graphfusion_gat", "memory_mb", "launches", "fraction_of_limit", "error", "rate", "note",
)  # fmt: skip
"""Of a row of the CSV; what `environment` gives comes after. `rate`: flop/s or bytes/s of the rows that measure the machine."""
KEEPING = {"trim": -1, "pad": 2**26, "mmaps": 0}
PLAIN = {"trim": 2**26, "pad": 2**17, "threshold": 2**25, "mmaps": 2**16}
GIVING_BACK = {"trim": 0, "pad": 0, "threshold": 2**16, "mmaps": 2**20}
"""Settings of glibc's allocator: freed memory is kept; what a process comes to by itself; freed memory is given back."""
ALLOCATORS = {"keeping": KEEPING, "plain": PLAIN}
ENDINGS = {"plain": ".csv", "keeping": "_keeping.csv"}
"""Of the names of results."""
SETTINGS = {"trim": -1, "pad": -2, "threshold": -3, "mmaps": -4}
TOO_SLOW = 30.0
"""Seconds of one call."""
DENSE_NODES, DENSE_TOKENS, FAR_NODES, DENSE_DIM, DENSE_HEADS = (64, 256, 1024, 4096), 8192, 65_536, 256, 8
PLAN = "plans of graphfusion gat"

Record = dict[str, Any]
Cases = dict[Hashable, tuple[Callable[[], object], int]]
"""(method, pass) → a call and in how many rounds it takes part."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    sizes: Sequence[str]
    crosses: Sequence[str]
    rounds: int
    budget: float
    device: str
    threads: int
    quick: bool
    memory: bool
    without: Sequence[str]
    allocator: str = "plain"
    seed: int = 0


# Time


class Clock:
    """Seconds of a call: on the wall and, on CUDA, on the device; there the second-level cache is flushed before."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.flush = torch.empty(2**28, dtype=torch.uint8, device=device) if self.cuda else None

    def __call__(self, run: Callable[[], object]) -> tuple[float, float | None]:
        if self.flush is None:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began, None
        self.flush.zero_()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        began = time.perf_counter()
        first.record()
        run()
        last.record()
        torch.cuda.synchronize()
        return time.perf_counter() - began, first.elapsed_time(last) / 1e3


@dataclass(frozen=True)
class Timing:
    """Medians in seconds."""

    wall: float
    device: float | None
    rounds: int


def due(turn: int, count: int, most: int) -> bool:
    """Whether a case that takes part in `count` of `most` rounds, evenly spread, does so in this one."""
    return (turn + 1) * count // most > turn * count // most


def interleave(cases: Cases, clock: Clock, tight: bool = False) -> dict[Hashable, Timing]:
    """All calls of a round one after another, round after round; `tight`: each in memory that only it has touched."""
    seen: dict[Hashable, list[tuple[float, float | None]]] = {key: [] for key in cases}
    most = max((count for _, count in cases.values()), default=0)
    for turn in range(most):
        for key, (run, count) in cases.items():
            if due(turn, count, most):
                if tight and not clock.cuda:
                    collect()
                    run()
                seen[key].append(clock(run))
    return {key: medians(found) for key, found in seen.items()}


def medians(found: Sequence[tuple[float, float | None]]) -> Timing:
    """Of (wall, device) seconds."""
    device = [d for _, d in found if d is not None]
    return Timing(statistics.median(w for w, _ in found), statistics.median(device) if device else None, len(found))


def rounds_for(seconds: float, options: Options) -> int:
    """As many rounds as the time for one case allows, three at least."""
    return max(3, min(options.rounds, int(options.budget / max(seconds, 1e-9))))


# The limit


@dataclass(frozen=True)
class Rates:
    """flop/s by dtype and way, bytes/s of a copy (read + written)."""

    gemm: Mapping[tuple[str, str], float]
    bandwidth: float

    def best(self, dtype: str) -> float:
        """The better way."""
        return max(rate for (name, _), rate in self.gemm.items() if name == dtype)

    def records(self) -> Iterator[Record]:
        """Rows of the CSV."""
        for (dtype, way), rate in self.gemm.items():
            yield {"size": "machine", "method": f"{way} {dtype}", "pass": "rate", "rate": f"{rate:.4g}"}
        yield {"size": "machine", "method": "copy", "pass": "rate", "rate": f"{self.bandwidth:.4g}"}


def measure_rates(clock: Clock, device: str) -> Rates:
    """The best of seven interleaved rounds."""
    from graphfusion.ops.hetero_attention.gemm import linear

    side, long = (8192, 2**28) if device == "cuda" else (1024, 2**26)
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        calls[name, "torch.mm"] = lambda a=a, b=b: torch.mm(a, b)
        if device == "cpu":
            calls[name, "oneDNN"] = lambda a=a, b=b: linear(a, b)
    source = torch.ones(long, device=device)
    copy = torch.empty_like(source)
    calls["", "copy"] = lambda: copy.copy_(source)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(7):
        for key, run in calls.items():
            wall, on_device = clock(run)
            best[key] = min(best[key], on_device or wall)
    bandwidth = 8 * long / best.pop(("", "copy"))
    return Rates({key: 2 * side**3 / seconds for key, seconds in best.items()}, bandwidth)


def limit_ms(graph: Graph, bf16: bool, both: bool, rates: Rates) -> float:
    """See the docstring of this file."""
    work = work_of(graph, 2 if bf16 else 4)
    gemm = rates.best("bfloat16" if bf16 else "float32")
    return work.limit_ms(gemm, rates.best("float32"), rates.bandwidth, 3 if both else 1)


def limit_records(graph: Graph, rates: Rates) -> list[Record]:
    """The limits as rows of the CSV, and one forward pass of gathers that all miss the cache."""
    found = [
        {"method": f"limit{' bf16' * bf16}", "pass": passed, "ms": limit_ms(graph, bf16, passed == PASSES[1], rates)}
        for bf16 in (False, True)
        for passed in PASSES
    ]
    for bf16 in (False, True):
        ms = 1e3 * work_of(graph, 2 if bf16 else 4).gathered_bytes / rates.bandwidth
        found.append({"method": f"gathers from memory{' bf16' * bf16}", "pass": PASSES[0], "ms": ms})
    return found


# One size


def measure_size(name: str, cross: str, options: Options, rates: Rates, clock: Clock) -> list[Record]:
    """All rows of one size.

    Raises:
        ParityError: one of ours differs from PyG.
    """
    graph = make_graph(SIZES[name], cross, options.seed).to(options.device)
    print(
        f"\n{name} {cross}: {graph.nodes:,} nodes, {graph.edge_count:,} edges, {len(graph.edges)} relations", flush=True
    )
    set_allocator(PLAIN)
    errors = check(graph, options)
    set_allocator(ALLOCATORS[options.allocator])
    tight = options.allocator == "keeping" and held_by_v2(graph) > free_bytes(options.device) / 6
    records, modules = warm_up(name, graph, options, clock)
    cases: Cases = {key: (run, rounds_for(seconds, options)) for key, (run, seconds) in modules.items()}
    records += [*measured(cases, clock, tight), *limit_records(graph, rates)]
    if options.memory and options.device == "cpu":
        add_memory_here(records, cases)
    for record in records:
        record |= {"size": name, "cross": cross, "error": errors.get(record["method"], "")}
        row = peers.ROWS.get(record["method"])
        if row and row.mode == "gat" and record.get("ms"):
            limit = limit_ms(graph, row.bf16, record["pass"] == PASSES[1], rates)
            record["fraction_of_limit"] = limit / float(record.get("device_ms") or record["ms"])
    return records


def held_by_v2(graph: Graph) -> float:
    """About how many bytes PyG's GATv2 holds in a forward + backward."""
    return 4 * graph.edge_count * graph.size.dim * peers.ROWS[peers.BASE_V2].footprint


def check(graph: Graph, options: Options) -> dict[str, float]:
    """Parity on the graph, or on its first samples where PyG's GATv2 would not fit into memory."""
    share = min(1.0, 0.5 * free_bytes(options.device) / held_by_v2(graph))
    samples = max(1, int(graph.size.samples * share))
    if samples < graph.size.samples:
        graph = make_graph(replace(graph.size, samples=samples), graph.cross, options.seed).to(options.device)
    here = [n for n, row in peers.ROWS.items() if n not in options.without and row.device in ("", options.device)]
    errors = peers.check_parity(graph, here)
    found = ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
    print(f"  parity on {samples} samples, largest errors: {found}", flush=True)
    collect()
    return errors


def compile_ahead(options: Options) -> None:
    """Compile what ours will launch, in several processes: Triton keeps kernels on disk; one by one they take minutes."""
    began = time.monotonic()
    ours = [n for n in peers.ROWS if n.startswith(("graphfusion", "accelerate")) and n not in options.without]
    jobs = [
        (n, s, c, options.seed, options.device) for s, c in cells_of(options) for n in ours if s in peers.ROWS[n].sizes
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), context) as pool:
        for job, error in zip(jobs, pool.map(called_once, jobs), strict=True):
            if error:
                print(f"  compiling {', '.join(job[:3])}: {error}", flush=True)
    print(f"kernels compiled in {time.monotonic() - began:.0f} s", flush=True)


def cells_of(options: Options) -> list[tuple[str, str]]:
    """(size, cross) in order; the largest is only measured dense."""
    return [(s, c) for s in options.sizes for c in options.crosses if s != "L256" or c == "dense"]


def called_once(job: tuple[str, str, str, int, str]) -> str:
    """One forward + backward of a row; what went wrong, or ""."""
    method, size, cross, seed, device = job
    try:
        graph = make_graph(SIZES[size], cross, seed).to(device)
        row = peers.ROWS[method]
        module = row.make(graph).to(device)
        peers.run_forward(module, graph, row.bf16)
        peers.run_both(module, graph, row.bf16)
    except Exception as error:  # it will be met again where it is measured
        return f"{type(error).__name__}: {error}"
    return ""


Warm = dict[tuple[str, str], tuple[Callable[[], object], float]]


def warm_up(name: str, graph: Graph, options: Options, clock: Clock) -> tuple[list[Record], Warm]:
    """Notes on rows that are left out, and for each (method, pass) its call and the seconds of one."""
    notes: list[Record] = []
    calls: Warm = {}
    for method, row in peers.ROWS.items():
        if row.device not in ("", options.device) or (options.quick and not row.quick):
            continue
        reason = why_not(method, row, name, options)
        if not reason:
            reason = first_calls(method, row, graph, options, clock, calls)
        if reason:
            print(f"  {method}: {reason}", flush=True)
            notes.append({"method": method, "pass": "", "note": reason})
    return notes, calls


def why_not(method: str, row: peers.Row, name: str, options: Options) -> str:
    """Why a row is left out before it is tried; "" if it is not."""
    if method in options.without:
        return "left out: --without"
    if name not in row.sizes:
        return f"left out: measured on {', '.join(row.sizes)} only"
    return ""


def does_not_fit(row: peers.Row, passed: str, graph: Graph, options: Options) -> str:
    """Why a pass is left out before it is tried; "" if it is not. A forward pass holds about half as much."""
    need = 4 * graph.edge_count * graph.size.dim * row.footprint * (1 if passed == PASSES[1] else 0.5)
    have = free_bytes(options.device)
    return f"{passed} left out: needs about {need / 1e9:.0f} GB, {have / 1e9:.0f} are free" if need > 0.8 * have else ""


def first_calls(method: str, row: peers.Row, graph: Graph, options: Options, clock: Clock, calls: Warm) -> str:
    """Make a row and call it until it is warm, into `calls`; why it is left out, or ""."""
    compiled = "compiled" in method
    again = compiled and peers.compiled_before(graph, row.mode)
    try:
        module = row.make(graph).to(options.device)
        before = peers.graphs_compiled() if compiled else 0
        spent = []
        for passed, run in zip(PASSES, (peers.run_forward, peers.run_both), strict=True):
            collect()
            if reason := does_not_fit(row, passed, graph, options):
                return reason
            call = bound(run, module, graph, row.bf16)
            first = clock(call)[0]
            warm = first if 0.5 < first < TOO_SLOW and not compiled else clock(call)[0]
            if warm > TOO_SLOW and method != peers.BASE:
                return f"{passed} left out: one call took {warm:.0f} s"
            calls[method, passed] = call, warm
            spent.append(first - warm)
        if compiled:
            return compile_note(peers.graphs_compiled() - before, spent, again)
    except peers.NotHereError as reason:
        return f"left out: {reason}"
    except torch.OutOfMemoryError:
        return "left out: out of memory"
    except Exception as error:
        if method.startswith(("graphfusion", "accelerate")):
            raise
        return f"left out, it failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if method == peers.MINE:
        calls[PLAN, "plan"] = module.make_plans, clock(module.make_plans)[0]
    return ""


def compile_note(graphs: int, seconds: Sequence[float], again: bool) -> str:
    """What compiling took in this size."""
    if not graphs:
        return "compiled before, nothing recompiled"
    spent = " + ".join(f"{s:.0f}" for s in seconds)
    return f"{'re' * again}compiled {graphs} graphs in {spent} s ({' and '.join(PASSES)})"


def bound(run: Callable[..., object], module: torch.nn.Module, graph: Graph, bf16: bool) -> Callable[[], object]:
    """A call without arguments."""
    return lambda: run(module, graph, bf16)


def measured(cases: Cases, clock: Clock, tight: bool = False) -> list[Record]:
    """Rows of the CSV for (method, pass) → (call, rounds); on CUDA with peak memory and launches."""
    records = []
    for (method, passed), timing in interleave(cases, clock, tight).items():
        record = {"method": method, "pass": passed, "ms": 1e3 * timing.wall, "rounds": timing.rounds}
        if timing.device is not None:
            run = cases[method, passed][0]
            peak, launches = peak_mb(run, "cuda"), device_calls(run)
            record |= {"device_ms": 1e3 * timing.device, "memory_mb": peak, "launches": launches}
        records.append(record)
    return records


def device_calls(run: Callable[[], object]) -> int:
    """Kernels, copies and fills that one call puts on the GPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def add_ratios(records: Sequence[Record]) -> None:
    """Of each row to PyG's rows and to ours, where size, cross and pass are the same."""
    ms = {place(r): float(r["ms"]) for r in records if r.get("ms")}
    for record in records:
        mine = ms.get(place(record))
        if not mine:
            continue
        size, cross, method, passed = place(record)
        passed = "forward" if passed == "plan" else passed
        base, base_v2, ours = (ms.get((size, cross, m, passed)) for m in (peers.BASE, peers.BASE_V2, peers.MINE))
        row = peers.ROWS.get(method)
        record["pyg_gat_over_this"] = base / mine if base else ""
        record["pyg_gatv2_over_this"] = base_v2 / mine if base_v2 and row and row.mode == "gatv2" else ""
        record["this_over_graphfusion_gat"] = mine / ours if ours else ""


def place(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What a row of the CSV is about."""
    return record.get("size", ""), record.get("cross", ""), record["method"], record["pass"]


# Operators alone


def measure_dense(options: Options, clock: Clock) -> list[Record]:
    """Goal G4: one dense relation of n nodes to n nodes in mode `gat`, beside SDPA; no projections."""
    records: list[Record] = []
    for nodes in DENSE_NODES[: 2 if options.quick else None]:
        error = peers.check_dense(nodes, DENSE_DIM, DENSE_HEADS, options.device)
        shape = nodes, max(1, DENSE_TOKENS // nodes), DENSE_DIM, DENSE_HEADS, options.device
        problems = {peers.MINE: peers.dense_ours(*shape), "SDPA": peers.dense_sdpa(*shape)}
        found = measure_problems(f"n = {nodes}", "one dense relation", problems, options, clock)
        records += [r | {"error": error if r["method"] == peers.MINE else ""} for r in found]
    if options.quick:
        return records
    shape = FAR_NODES, 1, DENSE_DIM, DENSE_HEADS, options.device
    far = {peers.MINE: peers.dense_ours(*shape)}
    return records + measure_problems(f"n = {FAR_NODES}", "one dense relation", far, options, clock)


def measure_relations(options: Options, clock: Clock) -> list[Record]:
    """Goal G11: 27 relations beside one of as many edges. "equal rows": as many projected rows and softmaxes, too;
    "equal nodes": as many nodes, so that there are nine times as many projected rows and softmaxes.
    """
    shapes = {"1 relation": (1, 324, 36), "27, equal rows": (3, 12, 36), "27, equal nodes": (3, 108, 4)}
    problems = {
        name: peers.many_relations(*shape, 32, DENSE_DIM, DENSE_HEADS, options.device) for name, shape in shapes.items()
    }
    return measure_problems("relations", "373,248 edges", problems, options, clock)


def measure_problems(
    size: str, cross: str, problems: Mapping[str, peers.Problem], options: Options, clock: Clock
) -> list[Record]:
    """Both passes of operators alone."""
    cases: Cases = {}
    records: list[Record] = []
    for name, problem in problems.items():
        try:
            for passed, run in zip(PASSES, (problem.forward, problem.both), strict=True):
                run()
                cases[name, passed] = run, rounds_for(clock(run)[0], options)
        except torch.OutOfMemoryError:
            records.append({"method": name, "pass": "", "note": "left out: out of memory"})
    records += measured(cases, clock)
    collect()
    return [record | {"size": size, "cross": cross} for record in records]


# Memory


def add_memory(records: Sequence[Record], options: Options) -> None:
    """Peak memory of each forward + backward, each in a process of its own."""
    for record in records:
        row = peers.ROWS.get(record["method"])
        if record["pass"] != PASSES[1] or "compiled" in record["method"]:
            continue
        if row or (record["method"] == peers.MINE and record["cross"] == "one dense relation"):
            record["memory_mb"] = in_a_process(record, options)


def add_memory_here(records: Sequence[Record], cases: Cases) -> None:
    """Of compiled rows, in this process: a fresh one would have to compile again."""
    set_allocator(GIVING_BACK)
    for record in records:
        if "compiled" in record["method"] and record["pass"] == PASSES[1]:
            record["memory_mb"] = peak_mb(cases[record["method"], PASSES[1]][0], "cpu")
    set_allocator(PLAIN)


def in_a_process(record: Record, options: Options) -> float | str:
    """MB that one row's forward + backward adds; "" if the process fails, which is printed."""
    what = [record["method"], record["size"], record["cross"]]
    command = [sys.executable, __file__, "--one", *what, "--device", options.device, "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  memory of {', '.join(what)}: {(done.stderr.splitlines() or ['it failed'])[-1]}", flush=True)
        return ""
    return float(json.loads(done.stdout.splitlines()[-1]))


def memory_of(method: str, size: str, cross: str, device: str) -> float:
    """MB, in this process; libraries are warmed up on one small sample before."""
    if size.startswith("n = "):
        nodes = int(size.removeprefix("n = "))
        samples = max(1, DENSE_TOKENS // nodes)
        peers.dense_ours(64, 1, DENSE_DIM, DENSE_HEADS, device).both()
        return peak_mb(peers.dense_ours(nodes, samples, DENSE_DIM, DENSE_HEADS, device).both, device)
    row, runs = peers.ROWS[method], []
    for samples in (1, SIZES[size].samples):
        graph = make_graph(replace(SIZES[size], samples=samples), cross).to(device)
        module = row.make(graph).to(device)
        runs.append(bound(peers.run_both, module, graph, row.bf16))
    runs[0]()
    return peak_mb(runs[1], device)


def peak_mb(run: Callable[[], object], device: str) -> float:
    """Peak of a call less what was held before, in MB."""
    collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    run()
    return status_mb("VmHWM") - before


def status_mb(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def set_allocator(settings: Mapping[str, int]) -> None:
    """Change glibc's allocator; elsewhere nothing happens."""
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        for name, value in settings.items():
            library.mallopt(SETTINGS[name], value)
    collect()


def collect() -> None:
    """Give back what is not held any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def free_bytes(device: str) -> float:
    """Memory that a row may take."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


# Files


def environment(options: Options) -> Record:
    """Machine, versions and commit of a run."""
    from importlib.metadata import version

    return {
        "machine": machine_name(options.device),
        "device": options.device,
        "cores": os.cpu_count(),
        "threads": options.threads,
        "attention": os.environ.get("GRAPHFUSION_ATTENTION", "auto"),
        "allocator": options.allocator,
        "torch": torch.__version__,
        "torch_geometric": version("torch-geometric"),
        "python": platform.python_version(),
        "commit": commit(),
        "seed": options.seed,
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }


def machine_name(device: str) -> str:
    """The model of the CPU or GPU."""
    return str(torch.cuda.get_device_name()) if device == "cuda" else processor()


def slug(machine: str) -> str:
    """A short name for files: "Intel(R) Xeon(R) Processor @ 2.8GHz" → "intel-xeon"."""
    plain = re.sub(r"\((R|TM|C)\)|@.*|\b(CPU|Processor)\b|\d+-Core", " ", machine, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def commit() -> str:
    """The commit, with a + where the tree has changes; "" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def save(records: Sequence[Record], around: Record, folder: Path) -> Path:
    """Write the CSV, over an earlier one of the same machine, day and allocator."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"attention_{slug(around['machine'])}_{around['date']}" + ENDINGS[around["allocator"]])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around], restval="")
        writer.writeheader()
        for record in records:
            rounded = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in record.items()}
            writer.writerow(rounded | around)
    return path


def newest(folder: Path, allocator: str) -> Path:
    """The CSV of the latest date."""
    ending = ENDINGS[allocator]
    dated = re.compile(rf"\d{{4}}-\d\d-\d\d{re.escape(ending)}$")
    found = [p for p in folder.glob("attention_*") if dated.search(p.name)]
    if not found:
        raise SystemExit(f"no attention_<machine>_<date>{ending} in {folder}; run without --table first.")
    return max(found, key=lambda p: (p.name.removesuffix(ending)[-10:], p.stat().st_mtime))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The table


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Markdown from the rows of a CSV: ratios; on a GPU times as well."""
    first = rows[0]
    cells = list(dict.fromkeys((r["size"], r["cross"]) for r in rows if r["cross"] in CROSSES))
    methods = [m for m in peers.ROWS if any(r["method"] == m and r["ms"] for r in rows)]
    v2 = [m for m in methods if peers.ROWS[m].mode == "gatv2"]
    fused = [m for m in methods if m.startswith(("graphfusion", "accelerate"))]
    parts = [
        f"{first['machine']}, {first['cores']} cores, {first['threads']} thread(s), allocator {first['allocator']}; "
        f"torch {first['torch']}, torch-geometric {first['torch_geometric']}, python {first['python']}; "
        f"commit {first['commit']}, seed {first['seed']}, {first['date']}. "
        "Cells: forward / forward + backward, medians of interleaved rounds.",
        matrix("Times faster than PyG GAT", "pyg_gat_over_this", rows, methods, cells),
        matrix("Times faster than PyG GATv2", "pyg_gatv2_over_this", rows, v2, cells),
        matrix(
            "Share of the limit", "fraction_of_limit", rows, [m for m in fused if peers.ROWS[m].mode == "gat"], cells
        ),
        matrix("Memory added by forward + backward, MB", "memory_mb", rows, methods, cells, PASSES[1:]),
    ]
    if first["device"] == "cuda":
        parts.append(matrix("Wall time, ms", "ms", rows, methods, cells))
        parts.append(matrix("Device time, ms", "device_ms", rows, methods, cells))
        parts.append(matrix("Launches", "launches", rows, methods, cells))
    return "\n\n".join(part for part in [*parts, goals_table(rows), machine_lines(rows), notes(rows)] if part) + "\n"


def matrix(
    title: str,
    column: str,
    rows: Sequence[Mapping[str, str]],
    methods: Sequence[str],
    cells: Sequence[tuple[str, str]],
    passes: Sequence[str] = PASSES,
) -> str:
    """One table: methods × sizes; "" if there is nothing to show."""
    value = {place(r): r[column] for r in rows if r[column]}
    if not any((*cell, m, p) in value for cell in cells for m in methods for p in passes):
        return ""
    lines = [f"| {title} | " + " | ".join(f"{s} {c}" for s, c in cells) + " |", "| --- |" + " --- |" * len(cells)]
    for method in methods:
        shown = [" / ".join(number(value.get((*cell, method, p), "")) for p in passes) for cell in cells]
        lines.append(f"| {method} | " + " | ".join("" if set(s) <= {" ", "/", "–"} else s for s in shown) + " |")
    return "\n".join(lines)


def number(text: str) -> str:
    """Three digits; – for none."""
    if not text:
        return "–"
    value = float(text)
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


BIG, BIG_DENSE = [("M", "topk"), ("L", "topk")], [("M", "dense"), ("L", "dense")]
BF16, FUSED_V2 = "graphfusion gat bf16", "graphfusion gatv2"
ONE_RELATION = ("relations", "373,248 edges", "1 relation")
SPEED_GOALS = {
    "cpu": [
        ("G1", peers.MINE, peers.BASE, BIG, 8, 7),
        ("G1", peers.MINE, "PyG GAT compiled", BIG, 4, 4),
        ("G1", peers.MINE, "DGL GAT", BIG, 6, 5),
        ("G2", BF16, peers.BASE, BIG, 20, 15),
        ("G3", peers.MINE, peers.BASE, BIG_DENSE, 30, 25),
        ("G4", peers.MINE, "SDPA", [("n = 4096", "one dense relation")], 30, 40),
        ("G5", peers.MINE, "padded SDPA block", BIG + BIG_DENSE, 2, 2),
        ("G6", FUSED_V2, peers.BASE_V2, BIG, 7, 6),
        ("G6", FUSED_V2, peers.BASE_V2, BIG_DENSE, 25, 20),
        ("G11", "1 relation", "27, equal rows", [("relations", "373,248 edges")], 1.2, 1.2),
    ],
    "cuda": [
        ("G7", BF16, peers.BASE, BIG, 40, 27),
        ("G7", peers.CAPTURED, peers.BASE, BIG, 40, 27),
        ("G7", peers.CAPTURED, "PyG GAT compiled", BIG, 8, 8),
        ("G7", BF16, "varlen_attn block bf16", BIG, 1, 1),
        ("G7", peers.CAPTURED, "varlen_attn block bf16", BIG, 1, 1),
        ("G9", BF16, peers.BASE, [("L256", "dense")], 100, 100),
    ],
}
"""Goal, a row, its peer, sizes, and how many times faster the row should be in each pass (G11: the peer, at most)."""


def goals_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The goals that a file can judge; the worst of the sizes counts."""
    lines = []
    for goal, mine, peer, cells, *wanted in SPEED_GOALS[rows[0]["device"]]:
        worst = [worst_ratio(rows, mine, peer, cells, passed) for passed in PASSES]
        if all(w is None for w in worst):
            continue
        sign = "≤" if goal == "G11" else "≥"
        there = [c for c in cells if worst_ratio(rows, mine, peer, [c], PASSES[0]) is not None]
        over = f"{peer} / {mine}, {', '.join(' '.join(cell) for cell in there)}"
        lines.append((goal, over, worst, sign, wanted))
    judged = gpu_goals if rows[0]["device"] == "cuda" else share_goals
    lines += [(goal, what, [got], sign, [limit]) for goal, what, got, sign, limit in judged(rows)]
    if not lines:
        return ""
    return "\n".join([
        "| goal | what | measured, the worst | wanted | reached |", "| --- | --- | --- | --- | --- |",
        *(goal_line(*line) for line in lines),
    ])  # fmt: skip


def goal_line(goal: str, what: str, got: Sequence[float | None], sign: str, wanted: Sequence[float]) -> str:
    """One line of the goals."""
    reached = [g is not None and (g <= w if sign == "≤" else g >= w) for g, w in zip(got, wanted, strict=True)]
    shown = " / ".join("–" if g is None else number(str(g)) for g in got)
    return (
        f"| {goal} | {what} | {shown} | {sign} {' / '.join(f'{w:g}' for w in wanted)} | "
        f"{' / '.join('yes' if r else 'no' for r in reached)} |"
    )


def worst_ratio(
    rows: Sequence[Mapping[str, str]], mine: str, peer: str, cells: Sequence[tuple[str, str]], passed: str
) -> float | None:
    """The smallest time of the peer over that of the row, over the sizes that have both."""
    ms = {place(r): float(r["ms"]) for r in rows if r["ms"]}
    pairs = [(ms.get((*c, peer, passed)), ms.get((*c, mine, passed))) for c in cells]
    return min((theirs / ours for theirs, ours in pairs if theirs and ours), default=None)


def gpu_goals(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str, float, str, float]]:
    """Goals of a GPU that are no ratio of two rows: times, shares of the limits, launches."""
    value = {
        (*place(r), name): float(r[name])
        for r in rows
        for name in ("ms", "device_ms", "fraction_of_limit", "launches")
        if r[name]
    }
    found: list[tuple[str, str, float, str, float]] = []

    def judge(goal: str, what: str, keys: Sequence[tuple[str, str, str, str, str]], sign: str, limit: float) -> None:
        there = [value[key] for key in keys if key in value]
        if there:
            found.append((goal, what, max(there) if sign == "≤" else min(there), sign, limit))

    for passed, ms, launches in zip(PASSES, (0.12, 0.35), (8, 12), strict=True):
        judge(
            "G7", f"wall ms of {peers.CAPTURED}, {passed}", [(*c, peers.CAPTURED, passed, "ms") for c in BIG], "≤", ms
        )
        judge("G10", f"launches of {BF16}, {passed}", [(*c, BF16, passed, "launches") for c in BIG], "≤", launches)
    # of memory: 11 MB of rows lie in the second-level cache once they are read, so that more than all of it is possible
    copy = next((float(r["rate"]) for r in rows if r["method"] == "copy" and r["rate"]), 0.0)
    alone = value.get((*ONE_RELATION, PASSES[0], "device_ms"))
    if copy and alone:
        edges = int(ONE_RELATION[1].split()[0].replace(",", ""))
        share = 1e3 * edges * DENSE_DIM * 4 / copy / alone
        found.append(("G8", "gathers from memory / device time, 1 relation of listed edges, forward", share, "≥", 0.7))
    judge(
        "G8",
        f"share of the layer's limit, {BF16}, L256 dense",
        [("L256", "dense", BF16, p, "fraction_of_limit") for p in PASSES],
        "≥",
        0.5,
    )
    return found


def share_goals(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str, float, str, float]]:
    """Goals that are shares: memory and plans."""
    found = []
    plans = [
        float(r["this_over_graphfusion_gat"]) for r in rows if r["method"] == PLAN and r["this_over_graphfusion_gat"]
    ]
    if plans:
        found.append(("G11", "making plans / forward of graphfusion gat", max(plans), "≤", 0.05))
    memory = {place(r): float(r["memory_mb"]) for r in rows if r["memory_mb"]}
    for cell in BIG_DENSE:
        mine, theirs = (memory.get((*cell, m, PASSES[1])) for m in (peers.MINE, peers.BASE))
        if mine and theirs:
            found.append(("G3", f"memory of graphfusion gat / PyG GAT, {' '.join(cell)}", mine / theirs, "≤", 1 / 50))
    far = memory.get((f"n = {FAR_NODES}", "one dense relation", peers.MINE, PASSES[1]))
    return found + ([("G4", f"GB for {FAR_NODES:,} nodes a side", far / 1e3, "≤", 1.0)] if far else [])


def machine_lines(rows: Sequence[Mapping[str, str]]) -> str:
    """The rates of the machine."""
    rates = [
        f"{r['method']} {float(r['rate']) / 1e9:.0f} G{'B' if r['method'] == 'copy' else 'flop'}/s"
        for r in rows
        if r["rate"]
    ]
    return f"Rates in this run: {', '.join(rates)}." if rates else ""


def notes(rows: Sequence[Mapping[str, str]]) -> str:
    """What was left out, and what compiling took."""
    said: dict[str, list[str]] = {}
    for r in rows:
        if r["note"]:
            said.setdefault(f"{r['method']}: {r['note']}", []).append(f"{r['size']} {r['cross']}")
    return "\n".join(f"- {note} ({', '.join(where)})" for note, where in said.items())


# Command line


def run_all(options: Options, folder: Path | None) -> list[Record]:
    """Measure everything; after each size the CSV is written anew if there is a folder for it.

    Raises:
        ParityError: one of ours differs from PyG.
    """
    set_allocator(ALLOCATORS[options.allocator])
    clock, around = Clock(options.device), environment(options)
    if options.device == "cuda":
        compile_ahead(options)
    rates = measure_rates(clock, options.device)
    records = list(rates.records())
    for size, cross in cells_of(options):
        found = measure_size(size, cross, options, rates, clock)
        collect()
        records += finish(found, options, around, folder, records)
    set_allocator(ALLOCATORS[options.allocator])
    for measure in (measure_dense, measure_relations):
        records += finish(measure(options, clock), options, around, folder, records)
    return [record | around for record in records]


def finish(
    found: list[Record], options: Options, around: Record, folder: Path | None, before: Sequence[Record]
) -> list[Record]:
    """Ratios, memory, and the file."""
    add_ratios(found)
    if options.memory and options.device == "cpu":
        add_memory(found, options)
    if folder is not None:
        save([*before, *found], around, folder)
    return found


def profile(method: str, size: str, cross: str, options: Options, calls: int = 5) -> str:
    """Operators (on CUDA kernels) of a row's forward + backward by the time spent in them alone, ms a call."""
    graph = make_graph(SIZES[size], cross, options.seed).to(options.device)
    row = peers.ROWS[method]
    run = bound(peers.run_both, row.make(graph).to(options.device), graph, row.bf16)
    for _ in range(3):
        run()
    cuda = options.device == "cuda"
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if cuda else kinds.CPU]) as found:
        for _ in range(calls):
            run()
        if cuda:
            torch.cuda.synchronize()
    spent = {
        e.key: (e.self_device_time_total if cuda else e.self_cpu_time_total, e.count) for e in found.key_averages()
    }
    times = sorted(spent.items(), key=lambda e: -e[1][0])
    total = sum(mine for _, (mine, _) in times)
    lines = [f"| {method}, {size} {cross}, forward + backward | ms | calls | share |", "| --- | --- | --- | --- |"]
    for name, (mine, count) in times[:16]:
        lines.append(f"| {name} | {mine / calls / 1e3:.3g} | {count // calls} | {mine / total:.0%} |")
    return "\n".join([*lines, f"| all | {total / calls / 1e3:.1f} | | |"])


def as_text(records: Sequence[Record]) -> list[dict[str, str]]:
    """Records as a CSV gives them back."""
    return [{k: "" if r.get(k) is None else str(r.get(k, "")) for k in (*COLUMNS, *r)} for r in records]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="S and M top-k, the main peers, no compiling, no memory")
    parser.add_argument("--sizes", help="of S,M,L, on a GPU L256 too; default S,M,L, quick S,M")
    parser.add_argument("--cross", help="of topk,dense; default both, quick topk")
    parser.add_argument("--rounds", type=int, help="at most; default 7, quick 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder for the CSV and the table; default benchmarks/results")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, help="peak memory; default on, quick off")
    parser.add_argument(
        "--allocator", choices=tuple(ALLOCATORS), default="plain", help="what malloc does with freed memory"
    )
    parser.add_argument("--without", default="", help="names of rows to leave out, with commas")
    parser.add_argument("--table", action="store_true", help="no runs: the Markdown again, from the newest CSV")
    parser.add_argument(
        "--profile", nargs=3, metavar=("METHOD", "SIZE", "CROSS"), help="where the time of one row goes"
    )
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SIZE", "CROSS"), help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here.")
    for name in (found.sizes or "").split(",") if found.sizes else ():
        if name not in SIZES:
            parser.error(f"--sizes: {unknown_name('size', name, SIZES)}")
    return found


def options_of(a: argparse.Namespace) -> Options:
    """What the command line leaves open is filled in."""
    sizes, crosses = a.sizes or ("S,M" if a.quick else "S,M,L"), a.cross or ("topk" if a.quick else "topk,dense")
    rounds = a.rounds or (3 if a.quick else 7)
    memory = not a.quick if a.memory is None else a.memory
    without = tuple(a.without.split(",")) if a.without else ()
    budget = 3.0 if a.quick else 5.0
    chosen = sizes.split(","), crosses.split(","), rounds, budget
    return Options(*chosen, a.device, a.threads, a.quick, memory, without, a.allocator)


def show(text: str, path: Path | None) -> None:
    """Print the table and write it beside the CSV."""
    print(f"\n{text}")
    if path is not None:
        path.with_suffix(".md").write_text(text)


def main() -> int:
    """Exit status."""
    a = arguments()
    folder = a.out or (None if a.quick else RESULTS)
    if a.table:
        path = newest(a.out or RESULTS, a.allocator)
        show(table(read_csv(path)), path)
        return 0
    torch.set_num_threads(a.threads)
    if a.device == "cuda":
        os.environ.setdefault("GRAPHFUSION_ATTENTION", "triton")
    if a.profile:
        set_allocator(ALLOCATORS[a.allocator])
        print(profile(*a.profile, options_of(a)))
        return 0
    if a.one:
        set_allocator(GIVING_BACK)
        print(json.dumps(memory_of(*a.one, a.device)))
        return 0
    began = time.monotonic()
    try:
        records = run_all(options_of(a), folder)
    except peers.ParityError as error:
        print(f"refused, no speed without parity: {error}")
        return 1
    if folder is None:
        show(table(as_text(records)), None)
    else:  # from the file, whose numbers are rounded: the same table as --table gives
        path = newest(folder, a.allocator)
        show(table(read_csv(path)), path)
    print(f"{time.monotonic() - began:.0f} s in all; load of the machine at the end: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

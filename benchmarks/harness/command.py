"""The command line of a table: runs that are not in its CSV yet, in parallel processes, then the table and the plot."""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.controls import LATE, single_modalities
from benchmarks.harness.runs import ROOT, Data, Run, execute, late_fusion
from benchmarks.harness.tables import plot, table

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Entry:
    """A data set of a table: how to get it (given the folder of `--data`), and its runs for a seed."""

    name: str
    data: Callable[[Path | None], Data]
    runs: Callable[[Data, int], list[Run]]
    seeds: int = 3


def main(name: str, doc: str | None, entries: Sequence[Entry], arguments: Sequence[str] | None = None) -> int:
    """`name`: of the files in benchmarks/results."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the sources; without it recipes download what they can")
    parser.add_argument("--only", nargs="+", choices=[e.name for e in entries], help="these data sets")
    parser.add_argument("--models", nargs="+", help="these models")
    parser.add_argument("--seeds", type=int, help="how many (default: what the table says)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="runs at a time, a thread each (default: cores)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="no runs: table and plot again, from the CSV alone")
    options = parser.parse_args(arguments)
    path = options.results / f"{name}.csv"
    if not options.table:
        _run_missing(path, [e for e in entries if not options.only or e.name in options.only], options)
    rows = read(path)
    if not rows:
        print(f"{path}: no runs yet")
        return 2
    text = table(rows)
    path.with_suffix(".md").write_text(text)
    plot(rows, path.with_suffix(".png"))
    print(text)
    return 0


def _run_missing(path: Path, entries: Sequence[Entry], options: argparse.Namespace) -> None:
    """Every run that the CSV lacks; one that fails ends the others, not what is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    todo: list[tuple[Run, Data]] = []
    late: list[tuple[Run, Data, list[Run]]] = []
    done = {_identity(r) for r in read(path)}
    for entry in entries:
        data = entry.data(options.data)
        for seed in range(options.seeds or entry.seeds):
            runs = [r for r in entry.runs(data, seed) if not options.models or r.model in options.models]
            missing = [r for r in runs if (data.name, r.model, str(seed), r.key(data)) not in done]
            todo += [(r, data) for r in missing if r.model != LATE]
            late += [(r, data, single_modalities(runs, seed)) for r in missing if r.model == LATE]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(execute, run, data): run for run, data in todo}
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                append(path, row)
                spent = time.monotonic() - began
                left = spent / count * (len(todo) - count)
                print(
                    f"{count}/{len(todo)} {row['data']}, {row['model']}, seed {row['seed']}: test {row['test_accuracy']:.4f}, "
                    f"valid {row['valid_accuracy']:.4f}, {row['fit_seconds']} s; about {left / 60:.0f} min left",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for run, data, members in late:
        append(path, late_fusion(run, data, members))


def _identity(row: Mapping[str, str]) -> tuple[str, str, str, str]:
    return row["data"], row["model"], row["seed"], row["key"]


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One more run, in place of an older one of the same data set, model and seed."""
    mine = str(row["data"]), str(row["model"]), str(row["seed"])
    rows = [r for r in read(path) if (r["data"], r["model"], r["seed"]) != mine]
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([*rows, row])
    part.replace(path)


def read(path: Path) -> list[dict[str, str]]:
    """The runs of a CSV; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

"""The command line of a table: runs that are not in its CSV yet, in parallel processes, then the table and the plot."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.controls import LATE, single_modalities
from benchmarks.harness.environment import ROOT, end_with_the_parent, environment
from benchmarks.harness.results import append, read
from benchmarks.harness.runs import Answers, Data, Run, answers_file, execute, late_fusion
from benchmarks.harness.tables import CONTROLS, plot, table

RESULTS = ROOT / "benchmarks" / "results"
Job = tuple[Run, Data]


@dataclass(frozen=True)
class Entry:
    """A data set of a table: how to get it (given the folder of `--data`), and its runs for a seed."""

    name: str
    data: Callable[[Path | None], Data]
    runs: Callable[[Data, int], list[Run]]
    seeds: int = 3


def main(
    name: str,
    doc: str | None,
    entries: Sequence[Entry],
    arguments: Sequence[str] | None = None,
    also: Callable[[Path], None] = lambda _: None,
    below: Callable[[Path], str] = lambda _: "",
    reference: str = "",
    columns: Sequence[str] = CONTROLS,
) -> int:
    """`name`: of the files in benchmarks/results; `also` draws more from the CSV; `below` gives what stands below the tables;
    `reference` and `columns`: see `table`. Exit status 1 if a run failed, 2 if there is nothing to show.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the sources; without it recipes download what they can")
    parser.add_argument("--only", nargs="+", choices=[e.name for e in entries], help="these data sets")
    parser.add_argument("--models", nargs="+", help="these models")
    parser.add_argument("--seeds", type=_count, help="how many (default: what the table says)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="runs at a time, a thread each (default: cores)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="no runs: table and plot again, from the CSV alone")
    options = parser.parse_args(arguments)
    chosen = [e for e in entries if not options.only or e.name in options.only]
    path = options.results / f"{name}.csv"
    failures = 0
    if not options.table:
        failures = _run_missing(path, chosen, options)
    rows = read(path)
    if not rows:
        print(f"{path}: no runs yet")
        return 2
    path.with_suffix(".md").write_text(table(rows, reference, columns) + below(path))
    plot(rows, path.with_suffix(".png"))
    also(path)
    names = {e.name for e in chosen} if options.only else {r["data"] for r in rows}
    print(table([r for r in rows if r["data"] in names], reference, columns))
    return 1 if failures else 0


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _run_missing(path: Path, entries: Sequence[Entry], options: argparse.Namespace) -> int:
    """Every run that the CSV lacks; how many failed. One that fails is told, the others go on (not where a worker was killed: the
    command is to be run again then). A run that another table has made is taken from there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    around, answers = environment(), path.parent / "answers"
    elsewhere = _elsewhere(path)
    todo: list[Job] = []
    late: list[Late] = []
    done = {_identity(r) for r in read(path)}
    unknown = set(options.models or ())
    for entry in entries:
        data = entry.data(options.data)
        for seed in range(options.seeds or entry.seeds):
            every = entry.runs(data, seed)
            unknown -= {r.model for r in every}
            chosen = [r for r in every if not options.models or r.model in options.models]
            missing = [r for r in chosen if (data.name, r.model, str(seed), r.key(data)) not in done]
            for run in list(missing):
                found = elsewhere.get(_what(data.name, run.model, str(seed), run.key(data)))
                if found:
                    append(path, {**found[1], "model": run.model})
                    print(f"{data.name}, {run.model}, seed {seed}: taken from {found[0]}", flush=True)
                    missing.remove(run)
            todo += [(r, data) for r in missing if r.model != LATE]
            members = single_modalities(every, data)
            renewed = any(m in missing for m in members)
            for run in (r for r in chosen if r.model == LATE and (r in missing or renewed)):
                needed = {answers_file(m, data, answers): (m, data) for m in members}
                todo += [job for file, job in needed.items() if job not in todo and Answers.load(file) is None]
                late.append(Late(run, data, list(needed), [job for job in needed.values() if job in todo]))
    if unknown:
        there = sorted({r.model for e in entries for r in e.runs(e.data(options.data), 0)})
        raise SystemExit(f"--models: no {', '.join(sorted(unknown))} here; there are {', '.join(there)}.")
    return _run_all(path, answers, todo, late, around, options.jobs)


@dataclass
class Late:
    """Late fusion that is to be made: the files of its members' answers, and which of these are yet to be fitted."""

    run: Run
    data: Data
    files: list[Path]
    waits: list[Job]

    def __str__(self) -> str:
        return f"{self.data.name}, {self.run.model}, seed {self.run.seed}"


def _run_all(
    path: Path, answers: Path, todo: Sequence[Job], late: Sequence[Late], around: Mapping[str, str], jobs: int
) -> int:
    """How many runs failed. Late fusion is made as soon as its last member is done, so that little is lost by a stop."""
    began, failures = time.monotonic(), 0
    failures += sum(not _join(path, one, around) for one in late if not one.waits)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, end_with_the_parent, max_tasks_per_child=1) as pool, _dropped(pool):
        futures = {pool.submit(execute, run, data): (run, data) for run, data in todo}
        for count, future in enumerate(as_completed(futures), start=1):
            job = run, data = futures[future]
            what = f"{count}/{len(todo)} {data.name}, {run.model}, seed {run.seed}"
            try:
                row, given = future.result()
            except Exception as error:
                failures += 1
                print(f"{what}: failed, {type(error).__name__}: {error}", flush=True)
            else:
                append(path, row | around | {"commit": _from_to(around["commit"], environment()["commit"])})
                given.save(answers_file(run, data, answers))
                left = (time.monotonic() - began) / count * (len(todo) - count) / 60
                print(
                    f"{what}: {row['split']} {row['accuracy']:.4f}, {row['fit_seconds']} s; about {left:.0f} min left",
                    flush=True,
                )
            for one in (one for one in late if job in one.waits):
                one.waits.remove(job)
                failures += not one.waits and not _join(path, one, around)
    return failures


def _join(path: Path, late: Late, around: Mapping[str, str]) -> bool:
    """Append a row of late fusion; False where a member has no answers."""
    members = [given for file in late.files if (given := Answers.load(file))]
    if len(members) < len(late.files):
        print(f"{late}: left out, a single modality has no answers")
        return False
    append(path, late_fusion(late.run, late.data, members) | around)
    return True


@contextmanager
def _dropped(pool: Executor) -> Iterator[None]:
    """What waits is given up where the command is stopped."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _from_to(began: str, ended: str) -> str:
    """The commit that a run is of; both where it is another one now, since a worker imports what lies there when it starts."""
    return began if began == ended else f"{began}..{ended}"


def _elsewhere(path: Path) -> dict[tuple[str, ...], tuple[str, dict[str, str]]]:
    """The runs of the other tables in the folder, each with the name of its file."""
    others = (other for other in sorted(path.parent.glob("*.csv")) if other != path)
    found = [(other.name, row) for other in others for row in read(other) if row.get("key")]
    return {_what(*_identity(row)): (name, row) for name, row in found}


def _what(data: str, model: str, seed: str, key: str) -> tuple[str, ...]:
    """What a run is whatever a table calls it: the key says all but whether it is a fit or late fusion, the seed and the data."""
    return data, str(model == LATE), seed, key


def _identity(row: Mapping[str, str]) -> tuple[str, str, str, str]:
    return row["data"], row["model"], row["seed"], row["key"]

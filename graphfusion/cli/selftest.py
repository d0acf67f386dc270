"""`graphfusion selftest`."""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from graphfusion.cli.doctor import machine
from graphfusion.cli.parser import Parser, check_writable
from graphfusion.errors import ConfigError, unknown_name

if TYPE_CHECKING:  # the checks bring torch and all else: imported when they run
    from graphfusion.selftest import Check, Figure

SENTENCE = "Try faults, bad inputs and attacks on this machine; exit code 1 if one is not stood."
EXAMPLE = "graphfusion selftest --only S02 S07 --report selftest.md"


def add_options(parser: Parser) -> None:
    """Which checks, how much of each, where the report goes."""
    parser.add_argument("--full", action="store_true", help="every case; without it a few of each kind")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these checks and no others")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="also write the figures as a Markdown table")


def run(options: argparse.Namespace) -> int:
    """Print each figure as it comes; 1 if one failed or there was none."""
    from graphfusion.selftest import CHECKS

    if options.report:
        check_writable("--report", options.report)
    results: list[tuple[Figure, float]] = []
    for name, check in choose(CHECKS, options.only).items():
        results.append(run_check(name, check, options.full))
        print(f"{results[-1][0]}  ({results[-1][1]:.1f} s)", flush=True)
    passed = sum(figure.ok for figure, _ in results)
    print(f"{passed} of {len(results)} checks passed in {sum(seconds for _, seconds in results):.0f} s")
    if options.report:
        options.report.write_text(report(results, command(options)), encoding="utf-8")
    return 0 if results and passed == len(results) else 1


def choose(checks: Mapping[str, Check], only: Sequence[str]) -> dict[str, Check]:
    """The named checks, or all; ConfigError for a name that is none."""
    for name in only:
        if name.upper() not in checks:
            raise ConfigError(unknown_name("check", name, checks))
    wanted = {name.upper() for name in only} or set(checks)
    return {name: check for name, check in checks.items() if name in wanted}


def run_check(name: str, check: Check, full: bool) -> tuple[Figure, float]:
    """Run a check in an empty folder of its own; one that raises has failed."""
    from graphfusion.selftest import Figure

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"graphfusion-{name}-") as folder:
        try:
            figure = check(Path(folder), full)
        except Exception as error:  # a check that cannot be carried out says nothing good
            figure = Figure(name, "could not be carried out", 0, 1, f"{type(error).__name__}: {error}")
    return figure, time.monotonic() - began


def command(options: argparse.Namespace) -> str:
    """The command that gives such a report."""
    parts = ["graphfusion", "selftest"] + ["--full"] * options.full
    parts += ["--only", *options.only] if options.only else []
    return shlex.join([*parts, "--report", str(options.report)])


def report(results: Sequence[tuple[Figure, float]], command: str) -> str:
    """Figures as Markdown, with what they were made by and on."""
    lines = [
        "# Selftest",
        "",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}.",
        *machine(),
        "",
        "| id | what | passed | of | seconds | note |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for figure, seconds in results:
        cells = [figure.id, figure.what, f"{figure.passed:,}", f"{figure.total:,}", f"{seconds:.1f}", figure.note]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    failed = sum(not figure.ok for figure, _ in results)
    return "\n".join([*lines, "", f"{len(results) - failed} of {len(results)} checks passed.", ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

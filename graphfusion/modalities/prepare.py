"""Samples → tokenized samples, with an account of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphfusion.config import POLICIES
from graphfusion.data.sample import Incident, Report, Sample
from graphfusion.errors import CellError, ConfigError, unknown_name
from graphfusion.modalities.tokens import NodeType, TokenizedSample, Tokens

SHOWN = 10
"""Cells that one error names."""
PATIENCE = 5.0
"""Seconds after a first cell that cannot be read in which others are looked for."""


class Modality(Protocol):
    """Makes the tokens of one node type from the raw values of a row.

    A modality is immutable: `fit` returns one that has learned from training rows. `tokens` is called with the columns
    that are not missing, at least one.
    """

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""

    def fit(self, rows: list[Mapping[str, Any]], root: Path) -> Modality:
        """Learn what `tokens` needs from training rows (column → raw value or None)."""

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Tokens of one row; CellError (MediaError) if a cell cannot be read."""

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """The tokens of a training row with a random change that keeps their meaning; their number and places stay."""


def prepare(
    samples: Iterable[Sample],
    modalities: Mapping[str, Modality],
    columns: Mapping[str, tuple[str, ...]],
    root: Path,
    on_error: str = "error",
    done: Callable[[], None] = lambda: None,
) -> tuple[list[TokenizedSample], Report]:
    """Tokenize rows. `columns` names the columns of each node type; `done` is called after each row.

    `on_error`: what a cell that cannot be read does: `error` stops, `skip` leaves the row out, `missing` takes the
    modality as missing; the report counts both. The error names up to ten cells, for which rows are looked at for a few
    seconds more.
    """
    if on_error not in POLICIES:
        raise ConfigError(unknown_name("on_error policy", on_error, POLICIES))
    report, found = Report(), []
    broken, end = _Broken(), float("inf")
    for sample in samples:
        if len(broken.cells) >= SHOWN or time.monotonic() > end:
            broken.more = True
            break
        report.seen += 1
        try:
            tokens, failed, kinds = _tokenize(sample, modalities, columns, root, on_error)
        except Exception:
            if broken.cells:  # what was found is told first
                broken.more = True
                break
            raise
        if kinds and on_error == "error":
            broken.cells += [i for i in failed if i.action != "cut"]
            broken.kind = broken.kind or kinds[0]
            end = min(end, time.monotonic() + PATIENCE)
        report.incidents.extend(failed)
        if not any(incident.action == "skipped" for incident in failed):
            found.append(TokenizedSample(sample.id, tokens, sample.targets))
        done()
    if broken.kind:
        raise broken.kind(str(broken))
    return found, report


@dataclass
class _Broken:
    """Cells that cannot be read; `more`: whether it was not looked at all rows. Kept as words: an error holds on to the file."""

    cells: list[Incident] = field(default_factory=list)
    kind: type[CellError] | None = None
    more: bool = False

    def __str__(self) -> str:
        told = [f"row {i.row}, column {i.column!r}: {i.reason}" for i in self.cells]
        advice = "Pass on_error='missing' or 'skip' to go on without "
        if len(told) == 1 and not self.more:
            return f"{told[0]} (Rows count from 0.) {advice}it."
        others = "".join(f"\n  {text}" for text in told[1:])
        more = "\n  Later rows were not looked at." if self.more else ""
        nor = f" Nor can these be read:{others}" if others else ""
        return f"{told[0]} (Rows count from 0.){nor}{more}\n{advice}them."


def _tokenize(
    sample: Sample,
    modalities: Mapping[str, Modality],
    columns: Mapping[str, tuple[str, ...]],
    root: Path,
    on_error: str,
) -> tuple[dict[str, Tokens], list[Incident], list[type[CellError]]]:
    """Tokens by node type, what was done about cells that are not used as they are, and kinds of errors."""
    tokens: dict[str, Tokens] = {}
    kinds: list[type[CellError]] = []
    failed: list[Incident] = []
    for name, modality in modalities.items():
        row = {c: sample.values[c] for c in columns[name] if sample.values.get(c) is not None}
        try:
            made = modality.tokens(row, root) if row else None
        except CellError:
            for column, error in _unreadable(modality, row, root).items():
                kinds.append(type(error))
                action = "skipped" if on_error == "skip" else "missing"
                failed.append(Incident(sample.id, column, str(error), action, getattr(error, "file", "")))
                del row[column]
            made = modality.tokens(row, root) if row else None
        if made is not None and len(made):
            tokens[name] = made
            failed += [Incident(sample.id, ", ".join(row), made.cut, "cut")] if made.cut else []
    return tokens, failed, kinds


def _unreadable(modality: Modality, row: Mapping[str, Any], root: Path) -> dict[str, CellError]:
    """Column → why its cell cannot be read."""
    found: dict[str, CellError] = {}
    for column, cell in row.items():
        try:
            modality.tokens({column: cell}, root)
        except CellError as error:
            found[column] = error
    return found

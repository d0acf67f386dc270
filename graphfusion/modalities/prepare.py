"""Samples → tokenized samples, with an account of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphfusion.config import POLICIES
from graphfusion.data.sample import Incident, Report, Sample
from graphfusion.errors import CellError, ConfigError, unknown_name
from graphfusion.modalities.tokens import NodeType, TokenizedSample, Tokens

LOOK_ON = 1_000
"""Rows after a first cell that cannot be read in which others are looked for, so that all are told at once."""
SHOWN = 10
"""Cells that one error names."""


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
    modality as missing; the report counts both.
    """
    if on_error not in POLICIES:
        raise ConfigError(unknown_name("on_error policy", on_error, POLICIES))
    report, found = Report(), []
    broken: dict[tuple[int, str], CellError] = {}
    looked = 0
    for sample in samples:
        looked += bool(broken)
        if looked > LOOK_ON:
            break
        report.seen += 1
        tokens, failed, errors = _tokenize(sample, modalities, columns, root, on_error)
        if on_error == "error":
            broken |= {(sample.id, column): error for column, error in errors.items()}
        report.incidents.extend(failed)
        if not any(incident.action == "skipped" for incident in failed):
            found.append(TokenizedSample(sample.id, tokens, sample.targets))
        done()
    if broken:
        raise _all_of(broken)
    return found, report


def _all_of(broken: Mapping[tuple[int, str], CellError]) -> CellError:
    """One error for all cells that cannot be read."""
    told = [f"row {row}, column {column!r}: {error}" for (row, column), error in broken.items()]
    advice = "Pass on_error='missing' or 'skip' to go on without "
    if len(told) == 1:
        message = f"{told[0]} (Rows count from 0.) {advice}it."
    else:
        shown = "".join(f"\n  {text}" for text in told[1:SHOWN])
        more = f"\n  … and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        message = f"{told[0]} (Rows count from 0.) Nor can these be read:{shown}{more}\n{advice}them."
    return type(next(iter(broken.values())))(message)


def _tokenize(
    sample: Sample,
    modalities: Mapping[str, Modality],
    columns: Mapping[str, tuple[str, ...]],
    root: Path,
    on_error: str,
) -> tuple[dict[str, Tokens], list[Incident], dict[str, CellError]]:
    """Tokens by node type, what was done about cells that are not used as they are, and why each cannot be read."""
    tokens: dict[str, Tokens] = {}
    errors: dict[str, CellError] = {}
    failed: list[Incident] = []
    for name, modality in modalities.items():
        row = {c: sample.values[c] for c in columns[name] if sample.values.get(c) is not None}
        try:
            made = modality.tokens(row, root) if row else None
        except CellError:
            for column, error in _unreadable(modality, row, root).items():
                errors[column] = error
                action = "skipped" if on_error == "skip" else "missing"
                failed.append(Incident(sample.id, column, str(error), action, getattr(error, "file", "")))
                del row[column]
            made = modality.tokens(row, root) if row else None
        if made is not None and len(made):
            tokens[name] = made
            failed += [Incident(sample.id, ", ".join(row), made.cut, "cut")] if made.cut else []
    return tokens, failed, errors


def _unreadable(modality: Modality, row: Mapping[str, Any], root: Path) -> dict[str, CellError]:
    """Column → why its cell cannot be read."""
    found: dict[str, CellError] = {}
    for column, cell in row.items():
        try:
            modality.tokens({column: cell}, root)
        except CellError as error:
            found[column] = error
    return found

"""The errors that graphfusion raises for what a user can mend: what, where, expected, got, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraphFusionError(ValueError):
    """Base of every error that graphfusion raises on purpose."""


class ConfigError(GraphFusionError):
    """A setting has an unknown name or a value out of range."""


class SchemaError(GraphFusionError):
    """A table and its schema do not fit: unknown column, wrong kind, unusable target."""


class TableError(GraphFusionError):
    """A table cannot be read: missing file, unknown format, ragged rows."""


class CellError(GraphFusionError):
    """The value of one cell does not fit its column."""


class MediaError(CellError):
    """An image or sound cell cannot be read safely; `file` is the path in the cell, if it holds one."""

    file: str = ""


class GraphError(GraphFusionError):
    """Nodes or edges contradict the graph they are part of."""


class TrainingError(GraphFusionError):
    """A fit cannot go on: a loss that is not finite, nothing to train on."""


class CheckpointError(GraphFusionError):
    """A saved folder is incomplete, altered or of another version."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Sentence for a name that is not among `known`, with the nearest one that is."""
    names = sorted(known)
    folded = {known_name.casefold(): known_name for known_name in names}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(names) or 'none'}."

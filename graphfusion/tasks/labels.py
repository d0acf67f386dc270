"""Labels, looked at by name before any of them reaches a device."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from graphfusion.errors import SchemaError

SEPARATORS = "|;,"
MANY = 20
"""Classes above which half as many as rows is worth a word."""


def plain_label(label: Any, name: str) -> Any:
    """A label that can be a class: a text, a number (a whole one as an integer) or a truth value.

    Raises:
        SchemaError: it is something else: a list, a mapping, NaN.
    """
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, float) and not math.isfinite(label):
        raise SchemaError(f"target {name!r}: {label} is no class; leave the cell empty if it is unknown.")
    if isinstance(label, str) and any("\ud800" <= character <= "\udfff" for character in label):
        raise SchemaError(f"target {name!r}: {label!r} holds half of a character (a lone surrogate); mend the text.")
    if isinstance(label, str | int | float):
        return label
    several = isinstance(label, Sequence | Set) or hasattr(label, "shape")
    advice = f"pass columns={{{name!r}: MultiLabel()}} if a row has several labels" if several else "write its name"
    raise SchemaError(
        f"target {name!r}: expected a text, a number or a truth value, got {type(label).__name__} {str(label)[:40]!r}; "
        f"{advice}."
    )


def split_labels(cell: Any, separator: str, name: str = "") -> list[Any]:
    """The labels of a cell: a list of them, or one text with separators; none for None or a blank text.

    Raises:
        SchemaError: the cell is a mapping, or one of its labels can be no class (see `plain_label`).
    """
    if cell is None:
        return []
    if isinstance(cell, str):
        return [part.strip() for part in cell.split(separator) if part.strip()]
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    labels = list(cell) if isinstance(cell, Sequence | Set) and not isinstance(cell, bytes) else [cell]
    return [plain_label(label, name) for label in labels]


def sorted_classes(labels: Iterable[Any], name: str) -> tuple[Any, ...]:
    """The different labels in order.

    Raises:
        SchemaError: they are of several kinds; the message counts them.
    """
    labels = list(labels)  # not a set yet: True and 1 are equal
    kinds = Counter(_kind(label) for label in labels)
    if len(kinds) > 1:
        told = ", ".join(f"{count} {kind}, as {_first(labels, kind)!r}" for kind, count in kinds.most_common())
        raise SchemaError(f"target {name!r}: classes are of mixed kinds ({told}); make them one kind.")
    return tuple(sorted(set(labels)))


def _kind(label: Any) -> str:
    return "text" if isinstance(label, str) else "truth value" if isinstance(label, bool) else "number"


def _first(labels: Sequence[Any], kind: str) -> Any:
    return next(label for label in labels if _kind(label) == kind)


def warn_of_odd_classes(name: str, counts: Mapping[Any, int]) -> None:
    """Warnings for classes (class → rows) that are probably not what is meant."""
    texts = [label for label in counts if isinstance(label, str)]
    for said in (_alike(texts), _several(name, texts), _unique(name, counts)):
        if said:
            warnings.warn(f"target {name!r}: {said}", stacklevel=5)


def _alike(texts: Sequence[str]) -> str:
    folded: dict[str, list[str]] = {}
    for text in texts:
        folded.setdefault(" ".join(text.split()).casefold(), []).append(text)
    groups = [" and ".join(map(repr, same)) for same in folded.values() if len(same) > 1]
    return (
        f"classes {', '.join(groups)} differ only in blanks or case and count as several; write them alike."
        if groups
        else ""
    )


def _several(name: str, texts: Sequence[str]) -> str:
    for separator in SEPARATORS:
        joined = [text for text in texts if separator in text]
        parts = {part.strip() for text in texts for part in text.split(separator)}
        if joined and len(parts) <= len(texts):
            return (
                f"cells such as {joined[0]!r} seem to hold several labels, and count as one class each; pass columns="
                f"{{{name!r}: MultiLabel(separator={separator!r})}} if they do."
            )
    return ""


def _unique(name: str, counts: Mapping[Any, int]) -> str:
    rows = sum(counts.values())
    if len(counts) <= max(MANY, rows / 2):
        return ""
    return (
        f"{len(counts)} different classes in {rows} rows, too many to learn; a number is meant by columns="
        f"{{{name!r}: Number()}}, and one mistyped cell makes a column of numbers one of texts."
    )

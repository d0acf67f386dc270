"""Scores of answers, and how a row of the CSV keeps which items were answered rightly."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scores(truth: Sequence[str], answers: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 and weighted F1 over the classes of `truth`, F1 of each class, and the items answered rightly."""
    from sklearn.metrics import f1_score

    classes = sorted(set(truth))
    each = f1_score(truth, answers, labels=classes, average=None, zero_division=0)
    right = np.array([t == a for t, a in zip(truth, answers, strict=True)])
    return {
        "accuracy": rounded(right.mean()),
        "macro_f1": rounded(each.mean()),
        "weighted_f1": rounded(f1_score(truth, answers, labels=classes, average="weighted", zero_division=0)),
        "per_class_f1": json.dumps({c: rounded(f) for c, f in zip(classes, each, strict=True)}),
        "right": f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}",
    }


def right_items(text: str) -> NDArray[np.bool_]:
    """The column `right` of the CSV as one truth value an item."""
    count, _, packed = text.partition(":")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))
    return bits[: int(count)].astype(bool)


def pack_clusters(clusters: Sequence[Sequence[str]]) -> str:
    """The column `clusters` of the CSV, from the names of the clusters of each item, one of each kind: for each kind a number for
    each item, equal where the cluster is; empty without clusters.
    """
    return " ".join(_packed(names) for names in zip(*clusters, strict=True))


def _packed(names: Sequence[str]) -> str:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    steps = np.diff(np.array([numbers[n] for n in names], "<i4"), prepend=np.int32(0))
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpack_clusters(text: str) -> NDArray[np.int32]:
    """The number of each item's cluster of each kind (kinds, items); (0, 0) if the column is empty."""
    kinds = [np.frombuffer(zlib.decompress(base64.b64decode(kind)), "<i4") for kind in text.split()]
    return np.stack(kinds).cumsum(axis=1, dtype=np.int32) if kinds else np.zeros((0, 0), np.int32)


def rounded(value: Any) -> float:
    """Five decimals."""
    return round(float(value), 5)

"""Small rows made up from counters, and the settings of a fit that takes a second."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from graphfusion.data import counted_rng
from graphfusion.predictor import FusionPredictor
from graphfusion.schema import Audio, Features, Image, Input, Tabular, Text

WORDS = ("red", "green", "small", "large", "old", "new", "fast", "slow")
COLUMNS: dict[str, Input] = {
    "caption": Text(vocab_size=300),
    "photo": Image(size=16, patch=8, channels=1),
    "sound": Audio(sample_rate=8_000, bands=16),
    "clip": Features(),
    "age": Tabular(),
}
SMALL: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "epochs": 3, "patience": 9, "lr": 0.01}


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with every kind of column; each lacks the cells that its number says, never all. `clip` begins with the number
    of the row.
    """
    rows = []
    for i in range(count):
        rng = counted_rng(seed, "selftest/row", i)
        row = {
            "caption": " ".join(rng.choice(WORDS, int(rng.integers(1, 8)))),
            "photo": rng.integers(0, 256, (20, 20), dtype=np.uint8),
            "sound": {"array": rng.normal(0, 0.1, 1600).astype(np.float32), "sampling_rate": 8_000},
            "clip": [float(i), *rng.normal(size=3).tolist()],
            "age": float(rng.integers(1, 90)),
        }
        lacking = [name for k, name in enumerate(row) if i % (k + 3) == k + 1]
        rows.append({**row, **dict.fromkeys(lacking), "clip": row["clip"], "label": "ab"[i % 2]})
    return rows


def predictor(**settings: Any) -> FusionPredictor:
    """An unfitted predictor of `label`."""
    return FusionPredictor("label", columns=COLUMNS, **{**SMALL, **settings})


def weights_hash(fitted: FusionPredictor) -> str:
    """SHA-256 over names and bits of all weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(fitted.pipeline.model.state_dict().items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    return total.hexdigest()

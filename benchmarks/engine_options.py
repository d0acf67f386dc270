"""What was tried to make the engine better on digit_ops, on validation rows: readouts, layers, graphs, dropout.

    python benchmarks/engine_options.py --data ../shared/data     # what the CSV lacks; may be stopped at any time
    python benchmarks/engine_options.py --table                   # the table and the plot again, from the CSV alone

The engine of `benchmarks/engine.py` with one thing changed, at as many parameters (by `feedforward`), beside the strategy `lstm`,
which is better there. All scores are of validation rows, on which the epoch is chosen too; no test row is scored.

Results: benchmarks/results/engine_options.csv (one row a run), .md, .png.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.engine import ENGINES, data_of
from benchmarks.harness.command import Entry, main
from benchmarks.harness.runs import Data, Run

OPTIONS: dict[str, dict[str, Any]] = {
    "graph": {},
    "attention readout": {"readout": "attention"},
    "hub readout": {"readout": "hub"},
    "1 layer": {"layers": 1},
    "3 layers": {"layers": 3},
    "dropout 0.1": {"dropout": 0.1},
    "lstm": {"fusion": "lstm"},
}


def options(data: Data, seed: int) -> list[Run]:
    """The engine first, which the others are as large as."""
    engine = ENGINES[data.name]
    return [
        Run(name, seed, {**engine, **changed}, split="valid", match=engine if changed else None)
        for name, changed in OPTIONS.items()
    ]


ENTRIES = [Entry("digit_ops", data_of("digit_ops"), options)]

if __name__ == "__main__":
    sys.exit(main("engine_options", __doc__, ENTRIES))

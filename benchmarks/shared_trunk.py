"""What a shared trunk saves and costs: one Transformer for all modalities beside one for each, equally wide and as large.

    python benchmarks/shared_trunk.py --data ../shared/data    # minutes
    python benchmarks/shared_trunk.py --table                  # the table and the plot again, from the CSV alone

On CMU-MOSI with the sentences around: a trunk for each of its columns. Fits and seeds as in `benchmarks/engine.py`; compare
`parameters`, `memory` and the accuracy.

Results: benchmarks/results/shared_trunk.csv (one row a run), .md, .png.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.engine import mosi_around
from benchmarks.harness.command import Entry, main
from benchmarks.harness.runs import Data, Run

NAME = "shared_trunk"
SHARED = {"fusion": "shared_trunk", "graph": "none"}
APART = {**SHARED, "fusion_options": {"shared": False}}


def trunks(data: Data, seed: int) -> list[Run]:
    """One trunk, one for each modality, and one that is as large as these together."""
    return [
        Run("one trunk", seed, SHARED),
        Run("a trunk each", seed, APART),
        Run("one trunk, as many parameters", seed, SHARED, match=APART),
    ]


ENTRIES = [Entry("cmu_mosi_around", mosi_around, trunks, 5)]


def run(arguments: Sequence[str] | None = None) -> int:
    """See the module; exit status as in `benchmarks.harness.command.main`."""
    return main(NAME, __doc__, ENTRIES, arguments, reference="one trunk")


if __name__ == "__main__":
    sys.exit(run())

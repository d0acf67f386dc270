"""What a task says of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.errors import GraphError


@dataclass(frozen=True)
class Prediction:
    """`output`: one entry a sample (a class, a list of labels, a number); `probability`: (samples, classes), or None for
    a number.

    Raises:
        GraphError: the two differ in length.
    """

    output: list[Any]
    probability: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and len(self.probability) != len(self.output):
            raise GraphError(f"{len(self.output)} outputs and {len(self.probability)} rows of probability.")

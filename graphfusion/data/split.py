"""Train / validation splits that depend only on a seed and the number of rows."""

from __future__ import annotations

from graphfusion.data.random import counted_rng
from graphfusion.errors import ConfigError


def split_rows(rows: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers (train, validation), each in ascending order, with `share` of the rows in the second.

    Raises:
        ConfigError: `share` is not between 0 and 1, or leaves one side without a row.
    """
    if not 0 < share < 1:
        raise ConfigError(
            f"valid: expected a share between 0 and 1, a table, or None for no validation, got {share!r}."
        )
    count = round(rows * share)
    if not 0 < count < rows:
        raise ConfigError(
            f"valid={share}: of {rows} rows this leaves {rows - count} to train on and {count} to validate on; "
            "pass valid=None for no validation."
        )
    order = counted_rng(seed, "split").permutation(rows)
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())

"""Arrow tables, as Parquet files hold them → columns of cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphfusion.data.tables.cell import plain_cell

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, Sequence[Any]]


def read_parquet(path: Path) -> pa.Table:
    """The table of a Parquet file."""
    from pyarrow import parquet

    return parquet.read_table(path)


def arrow_columns(table: pa.Table) -> Columns:
    """Column → cells; lists of numbers become arrays, which keeps a sound from becoming a list of objects."""
    return {name: [_value(cell) for chunk in table[name].chunks for cell in chunk] for name in table.column_names}


def _value(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if pa.types.is_struct(scalar.type):
        return {name: _value(scalar[name]) for name in scalar}
    if pa.types.is_list(scalar.type) or pa.types.is_large_list(scalar.type) or pa.types.is_fixed_size_list(scalar.type):
        return _list(scalar.values)
    return plain_cell(scalar.as_py())


def _list(values: pa.Array) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False)
    cells = [_value(v) for v in values]
    if cells and all(isinstance(c, np.ndarray) for c in cells) and len({c.shape for c in cells}) == 1:
        return np.stack(cells)
    return cells

"""Tables in: list of mappings, pandas, CSV, Parquet → rows in order, each a mapping of Python values."""

from __future__ import annotations

import difflib
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphfusion.data.sample import Sample
from graphfusion.errors import SchemaError, TableError, unknown_name

if TYPE_CHECKING:
    import pyarrow as pa

    from graphfusion.schema import Schema

FORMATS = (".csv", ".parquet")
_sealed: Counter[Any] = Counter()
_sealing = threading.Lock()


@contextmanager
def sealed(*paths: str | os.PathLike[str]) -> Iterator[None]:
    """Files that `read_table` refuses to read while this lasts, in all threads and by whatever name: the test split, during
    a fit. It is a guard against mistakes, not against code that opens the file by itself or in another process.
    """
    marks = [_mark(Path(p)) for p in paths]
    with _sealing:
        _sealed.update(marks)
    try:
        yield
    finally:
        with _sealing:
            _sealed.subtract(marks)


def _mark(path: Path) -> Any:
    """What tells a file from others: device and number, else its full path."""
    try:
        found = path.stat()
    except OSError:
        return str(path.resolve())
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Table:
    """Columns of equal length; a missing cell is None. `root` is the folder that media paths are relative to.

    `numbers` are the rows' numbers in the table that they were taken from; empty means 0, 1, 2 …
    """

    columns: Mapping[str, Sequence[Any]]
    root: Path
    numbers: Sequence[int] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Sequence[Any]:
        """The cells of one column; SchemaError if there is none of that name."""
        if name not in self.columns:
            raise SchemaError(f"the table has no column of this name: {unknown_name('column', name, self.columns)}")
        return self.columns[name]

    def take(self, rows: Sequence[int]) -> Table:
        """The table with the given rows, in the given order."""
        numbers = [self.numbers[i] if self.numbers else i for i in rows]
        return Table({name: [cells[i] for i in rows] for name, cells in self.columns.items()}, self.root, numbers)

    def samples(self, schema: Schema, targets: bool = True) -> Iterator[Sample]:
        """One `Sample` a row, its id the row's number.

        An absent input column is missing in every row; an absent target column is an error.

        Raises:
            SchemaError: `targets` is set and a target column is absent, or no input column is there at all.
        """
        present = [name for name in schema.inputs if name in self.columns]
        if not present:
            raise SchemaError(
                f"the table has none of the input columns: expected {', '.join(schema.inputs)}; "
                f"got {', '.join(self.columns) or 'no columns'}."
            )
        self._warn_of_near_misses(schema)
        wanted = {name: self.column(name) for name in schema.targets} if targets else {}
        for i in range(len(self)):
            values = {name: self.columns[name][i] if name in present else None for name in schema.inputs}
            number = self.numbers[i] if self.numbers else i
            yield Sample(number, values, {name: cells[i] for name, cells in wanted.items()})

    def _warn_of_near_misses(self, schema: Schema) -> None:
        """A column that is missing under its own name but there under a similar one is probably mistyped."""
        spare = [name for name in self.columns if name not in schema.inputs and name not in schema.targets]
        folded = {name.lower().strip(): name for name in spare}
        for name in schema.inputs:
            near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.8) if name not in self.columns else []
            if near:
                warnings.warn(f"column {name!r} is missing in every row; is {folded[near[0]]!r} meant?", stacklevel=3)


def read_table(source: Any, root: str | os.PathLike[str] | None = None, as_text: Collection[str] = ()) -> Table:
    """Read rows from a list of mappings, a mapping of columns, a pandas frame, a CSV or a Parquet file.

    A CSV does not say of what type its columns are, so they are guessed; those in `as_text` are read as they stand. Dates
    become days since 1970 (a number), durations seconds, decimals floats.

    Media paths in cells are relative to `root`: by default the file's folder, or the working directory for rows in
    memory. An empty cell is missing; so are None, NaN and NaT everywhere.

    Raises:
        TableError: the file is missing, unreadable or sealed, or rows in memory are not mappings.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if _sealed[_mark(path)] > 0:
            raise TableError(f"{path} is sealed: a test split is read once, after the fit and every choice.")
        return Table(_read_file(path, as_text), Path(root or path.parent).resolve())
    place = Path(root or ".").resolve()
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas, without importing it
        return Table({str(c): [_cell(v) for v in source[c].tolist()] for c in source.columns}, place)
    if isinstance(source, Mapping):
        for name, cells in source.items():
            if isinstance(cells, str | bytes) or not hasattr(cells, "__len__"):
                raise TableError(
                    f"column {name!r}: expected a list of cells, got {type(cells).__name__}; one row is [{{…}}]."
                )
        lengths = {name: len(cells) for name, cells in source.items()}
        if len(set(lengths.values())) > 1:
            raise TableError(f"columns differ in length: {lengths}.")
        return Table({str(name): [_cell(v) for v in cells] for name, cells in source.items()}, place)
    if isinstance(source, Sequence):
        return Table(_columns_of_rows(source), place)
    raise TableError(
        f"cannot read a table from {type(source).__name__}: expected a list of mappings, a mapping of columns, "
        "a pandas DataFrame, or the path of a .csv or .parquet file."
    )


def _columns_of_rows(rows: Sequence[Any]) -> dict[str, list[Any]]:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TableError(f"row {i}: expected a mapping of column → value, got {type(row).__name__}.")
    if rows and not any(rows):
        raise TableError(f"{len(rows)} rows without any column; name the columns of each row.")
    named = [{str(key): value for key, value in row.items()} for row in rows]
    names = dict.fromkeys(name for row in named for name in row)
    return {name: [_cell(row.get(name)) for row in named] for name in names}


def _read_file(path: Path, as_text: Collection[str]) -> dict[str, Sequence[Any]]:
    import pyarrow as pa

    if path.suffix.lower() not in FORMATS:
        ending = path.suffix or "no ending"
        raise TableError(
            f"{path}: expected a file ending in {' or '.join(FORMATS)}, got {ending}; read it with pandas and pass the frame."
        )
    if not path.is_file():
        raise TableError(f"{path}: no such file (looked from {Path.cwd()}).")
    try:
        table = _read_csv(path, as_text) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        raise TableError(f"{path}: column {sorted(doubled)[0]!r} appears more than once; rename one of them.")
    return {name: _arrow_cells(table[name]) for name in table.column_names}


def _read_csv(path: Path, as_text: Collection[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    missing = ["", "NaN", "nan", "NULL", "null", "N/A", "n/a", "NA", "#N/A"]
    types = {name: pa.string() for name in as_text}
    convert = csv.ConvertOptions(strings_can_be_null=True, null_values=missing, column_types=types)
    table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=convert)
    for field in table.schema:
        if pa.types.is_binary(field.type):
            raise TableError(f"{path}: column {field.name!r} is not UTF-8; save the file as UTF-8.")
    for delimiter in (";", "\t", "|"):
        if len(table.column_names) == 1 and delimiter in table.column_names[0]:
            raise TableError(f"{path}: expected commas between columns, got {delimiter!r}; save it as comma-separated.")
    return table


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    return parquet.read_table(path)


def _arrow_cells(column: pa.ChunkedArray) -> list[Any]:
    return [_arrow_value(scalar) for chunk in column.chunks for scalar in chunk]


def _arrow_value(scalar: pa.Scalar) -> Any:
    """Python value of a cell; lists of numbers become arrays, which keeps a sound from becoming a list of objects."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if pa.types.is_struct(scalar.type):
        return {name: _arrow_value(scalar[name]) for name in scalar}
    if pa.types.is_list(scalar.type) or pa.types.is_large_list(scalar.type) or pa.types.is_fixed_size_list(scalar.type):
        return _arrow_list(scalar.values)
    return _cell(scalar.as_py())


def _arrow_list(values: pa.Array) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False)
    cells = [_arrow_value(v) for v in values]
    if cells and all(isinstance(c, np.ndarray) for c in cells) and len({c.shape for c in cells}) == 1:
        return np.stack(cells)
    return cells


def _cell(value: Any) -> Any:
    """None for every spelling of "missing", else the value; numpy scalars become Python's."""
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    return _plain(value)


def as_number(cell: Any) -> float:
    """A number, also of a text that is one or that is an ISO date (days since 1970); ValueError or TypeError otherwise."""
    try:
        return float(cell)
    except ValueError:
        return float(_plain(datetime.fromisoformat(str(cell).strip())))


def _plain(value: Any) -> Any:
    """Numbers for dates (days since 1970), durations (seconds) and decimals; all else as it is."""
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return value.timestamp() / 86_400
    if isinstance(value, date):
        return float(value.toordinal() - date(1970, 1, 1).toordinal())
    if isinstance(value, time):
        return value.hour * 3600.0 + value.minute * 60 + value.second + value.microsecond / 1e6
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if isinstance(value, Decimal) else value

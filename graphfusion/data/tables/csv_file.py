"""CSV of any usual delimiter and encoding → an Arrow table.

Python's reader checks the shape of the file, because it knows lines and quotes; Arrow's tells the types of the columns.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from graphfusion.data.tables.text_file import read_text
from graphfusion.errors import TableError

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = (",", ";", "\t", "|")
MISSING = ["", "NaN", "nan", "NULL", "null", "N/A", "n/a", "NA", "#N/A"]
LOOK = 200
"""Rows by which the delimiter is chosen."""
BLOCK = 64 << 20
"""Bytes that are parsed at once; no row may be longer."""
DECIMAL_COMMA = r"^\s*[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?\s*$"


def read_csv(path: Path, as_text: Collection[str] = ()) -> pa.Table:
    """The table of a CSV file, its first line the names of the columns (blanks around a name are dropped).

    The delimiter is a comma, semicolon, tab or bar, whichever gives all rows the width of the header. Where it is no comma,
    a column of numbers may have decimal commas (`1.234,5`). Blank lines are passed over. Columns in `as_text` are taken for
    no numbers; `NA`, `null` and the like are missing there too.

    Raises:
        TableError: the rows differ in width, a name comes twice, a quote never closes, or the delimiter cannot be told;
            the message names line and fix.
    """
    text, told = _without_sep_line(read_text(path))
    # The limit is the process's, and 131,072 characters by default: less than one long text.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    where = _Where(path, int(bool(told)))
    delimiter = told or _delimiter(text, where)
    header, count = _check(text, delimiter, where)
    names = [name.strip() for name in header]
    _check_names(names, where)
    table = _parse(text, delimiter, [raw for raw, name in zip(header, names, strict=True) if name in as_text])
    if table.num_rows != count:
        raise TableError(f"{path}: {count} rows by one reader, {table.num_rows} by another; put odd cells into quotes.")
    table = _without_row_numbers(table.rename_columns(names), path)
    return table if delimiter == "," else _with_decimal_points(table, as_text)


@dataclass(frozen=True)
class _Where:
    """Path and line for messages; `before`: lines ahead of the header."""

    path: Path
    before: int

    def __call__(self, line: int) -> str:
        return f"{self.path}, line {line + self.before}"


def _without_sep_line(text: str) -> tuple[str, str]:
    """The text without a first line `sep=;`, as Excel writes it, and the delimiter that it names ("" if it is not there)."""
    found = re.match(r"\"?sep=([,;|\t])\"?(\r\n|\r|\n)", text, re.IGNORECASE)
    return (text[found.end() :], found[1]) if found else (text, "")


def _rows(text: str, delimiter: str, where: _Where) -> Iterator[tuple[int, list[str]]]:
    """(line that a row begins in, its cells); TableError for quotes that are not closed or end within a cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = 1
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"{where(first)}: the quotes of this row do not match ({error}); close them, and double those within a quoted "
            'cell ("").'
        ) from error


def _delimiter(text: str, where: _Where) -> str:
    """The delimiter that gives the first rows the width of the header; if none does, the one that comes nearest."""
    shares = {d: _share(text, d, where) for d in DELIMITERS}
    shares = {d: found for d, found in shares.items() if found is not None}
    whole = [d for d, share in shares.items() if share == 1.0]
    if len(whole) > 1:
        raise TableError(
            f"{where(1)}: cannot tell which of {' and '.join(map(repr, whole))} stands between the columns; put the names "
            "that hold the other into quotes."
        )
    return max(shares, key=lambda d: shares[d] or 0.0, default=",")


def _share(text: str, delimiter: str, where: _Where) -> float | None:
    """Share of the first rows that are as wide as the header; None if the header has no such delimiter."""
    rows = islice(_rows(text, delimiter, where), LOOK)
    widths: list[int] = []
    try:
        widths.extend(len(row) for _, row in rows)
    except TableError:
        widths.append(0)
    if widths[:1] in ([], [0], [1]):
        return None
    return sum(w == widths[0] for w in widths) / len(widths)


def _check(text: str, delimiter: str, where: _Where) -> tuple[list[str], int]:
    """The header and the number of rows below it.

    Raises:
        TableError: see `read_csv`.
    """
    header: list[str] = []
    count = 0
    for line, row in _rows(text, delimiter, where):
        if not header:
            header = row
            continue
        if len(row) != len(header):
            raise TableError(
                f"{where(line)}: expected {len(header)} cells as in the header, got {len(row)}: "
                f"{delimiter.join(row)[:80]!r}; put cells that hold {delimiter!r} or a line break into quotes, and give every "
                "row a cell for each column."
            )
        count += 1
    if not any(name.strip() for name in header):
        raise TableError(f"{where(1)}: no names of columns; the first line must hold them.")
    return header, count


def _check_names(names: Sequence[str], where: _Where) -> None:
    for name in names:
        if names.count(name) > 1:
            places = [i for i, other in enumerate(names, 1) if other == name]
            raise TableError(
                f"{where(1)}: column {name!r} appears more than once, as columns {', '.join(map(str, places))}; rename all "
                "but one."
            )


def _parse(text: str, delimiter: str, as_text: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    return arrow_csv.read_csv(
        io.BytesIO(text.encode()),
        # a thread of Arrow's that still holds the bytes when Python ends aborts the process
        read_options=arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            strings_can_be_null=True, null_values=MISSING, column_types={name: pa.string() for name in as_text}
        ),
    )


def _without_row_numbers(table: pa.Table, path: Path) -> pa.Table:
    """The table without a column that has no name and counts the rows, as pandas writes its index."""
    if "" not in table.column_names:
        return table
    cells = table[""].to_pylist()
    if not cells or cells not in (list(range(len(cells))), list(range(1, len(cells) + 1))):
        return table
    warnings.warn(f"{path}: the column without a name counts the rows and is left out.", stacklevel=5)
    return table.drop_columns([""])


def _with_decimal_points(table: pa.Table, as_text: Collection[str]) -> pa.Table:
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and field.name not in as_text:
            table = table.set_column(place, field.name, _decimal_points(table.column(place)))
    return table


def _decimal_points(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts most of which are numbers with decimal commas as numbers, or still as texts if some are none."""
    import pyarrow as pa
    from pyarrow import compute

    hits = compute.match_substring_regex(column, DECIMAL_COMMA)
    commas = compute.and_(hits, compute.match_substring(column, ","))
    count = compute.sum(hits).as_py() or 0
    if not compute.any(commas).as_py() or count <= (len(column) - column.null_count) / 2:
        return column
    dotted = compute.replace_substring(compute.replace_substring(column, ".", ""), ",", ".")
    mended = compute.if_else(hits, compute.utf8_trim_whitespace(dotted), column)
    try:
        return mended.cast(pa.float64())
    except pa.ArrowInvalid:
        return mended

"""Tables in: rows or columns in memory, files, folders of classes → columns of Python values, rows in order."""

from __future__ import annotations

import difflib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphfusion.data.sample import Sample
from graphfusion.data.tables.arrow_file import Columns, arrow_columns, read_parquet
from graphfusion.data.tables.cell import plain_cell
from graphfusion.data.tables.class_folder import read_class_folder
from graphfusion.data.tables.csv_file import read_csv
from graphfusion.data.tables.hub_dataset import is_hub_dataset, read_hub_dataset
from graphfusion.data.tables.json_lines import read_json_lines
from graphfusion.errors import SchemaError, TableError, unknown_name

if TYPE_CHECKING:
    from graphfusion.schema import Schema

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
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
            raise SchemaError(f"the table lacks a column: {unknown_name('column', name, self.columns)}")
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
        read = {name: schema.column_of(name) for name in schema.inputs}
        present = [name for name, column in read.items() if column in self.columns]
        if not present:
            lower = {name.lower() for name in self.columns}
            case = " Upper and lower case are told apart." if any(n.lower() in lower for n in read.values()) else ""
            raise SchemaError(
                f"the table has none of the input columns: expected {', '.join(dict.fromkeys(read.values()))}; "
                f"got {', '.join(self.columns) or 'no columns'}.{case}"
            )
        self._warn_of_near_misses(schema)
        for name in schema.targets if targets else ():
            if name not in self.columns:
                raise SchemaError(
                    f"the table lacks the target, which a fit and an evaluation need: {unknown_name('column', name, self.columns)}"
                )
        wanted = {name: self.column(name) for name in schema.targets} if targets else {}
        for i in range(len(self)):
            values = {name: self.columns[column][i] if name in present else None for name, column in read.items()}
            number = self.numbers[i] if self.numbers else i
            yield Sample(number, values, {name: cells[i] for name, cells in wanted.items()})

    def _warn_of_near_misses(self, schema: Schema) -> None:
        """A column that is missing under its own name but there under a similar one is probably mistyped."""
        read = [schema.column_of(name) for name in schema.inputs]
        spare = [name for name in self.columns if name not in read and name not in schema.targets]
        folded = {name.lower().strip(): name for name in spare}
        for name in dict.fromkeys(read):
            near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.65) if name not in self.columns else []
            if near:
                warnings.warn(f"column {name!r} is missing in every row; is {folded[near[0]]!r} meant?", stacklevel=3)


def read_table(source: Any, root: str | os.PathLike[str] | None = None, as_text: Collection[str] = ()) -> Table:
    """Read a table.

    `source`: a list of mappings, a mapping of columns, a pandas frame, a `datasets.Dataset`, the path of a CSV (`.csv`,
    `.tsv`), JSON (`.jsonl`, `.ndjson`, `.json`) or Parquet file, or that of a folder with a folder of media files for each
    class. See `read_csv`, `read_json_lines`, `read_class_folder`, `read_hub_dataset` for what each takes.

    A CSV does not say of what type its columns are, so they are guessed; those in `as_text` are no numbers. Dates
    become days since 1970 (a number), durations seconds, decimals floats.

    Media paths in cells are relative to `root`: by default the folder, that of the file, or the working directory for rows
    in memory. An empty cell is missing; so are None, NaN and NaT everywhere.

    Raises:
        TableError: the file is missing, unreadable or sealed, or rows in memory are not mappings.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if _sealed[_mark(path)] > 0:
            raise TableError(f"{path} is sealed: a test split is read once, after the fit and every choice.")
        if path.is_dir():
            return _of_folder(path, _root(root, path))
        return _checked(_read_file(path, as_text), _root(root, path.parent))
    return _checked(_of_memory(source), _root(root, Path()))


def _root(given: str | os.PathLike[str] | None, otherwise: Path) -> Path:
    """The folder that media paths are relative to; TableError if the given one is none."""
    if given is not None and not os.path.isdir(given):
        raise TableError(f"media_root: there is no folder {os.fspath(given)}.")
    return Path(given or otherwise).resolve()


def _checked(columns: Columns, root: Path) -> Table:
    """TableError for a column name that cannot be written to a file."""
    for name in columns:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise TableError(f"column {name!r}: half of a character (a lone surrogate) in its name; rename it.")
    return Table(columns, root)


def _of_memory(source: Any) -> Columns:
    if is_hub_dataset(source):
        return read_hub_dataset(source)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas, without importing it
        return _columns_of_frame(source)
    if isinstance(source, Mapping):
        return _columns_of_mapping(source)
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return _columns_of_rows(source)
    raise TableError(
        f"cannot read a table from {type(source).__name__}: expected a list of mappings, a mapping of columns, "
        f"a pandas DataFrame, a datasets.Dataset, a folder of classes, or the path of a file ({', '.join(FORMATS)})."
    )


def _of_folder(folder: Path, root: Path) -> Table:
    rows = read_class_folder(folder)
    prefix = Path(os.path.relpath(folder.resolve(), root))
    return _checked(
        _columns_of_rows([{n: c if n == "label" else str(prefix / c) for n, c in row.items()} for row in rows]), root
    )


def _columns_of_frame(frame: Any) -> Columns:
    names = [str(name) for name in frame.columns]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise TableError(f"column {doubled[0]!r} of the DataFrame appears more than once; rename one of them.")
    return {name: [plain_cell(v) for v in frame[key].tolist()] for name, key in zip(names, frame.columns, strict=True)}


def _columns_of_mapping(source: Mapping[Any, Any]) -> Columns:
    for name, cells in source.items():
        if isinstance(cells, str | bytes) or not hasattr(cells, "__len__"):
            raise TableError(
                f"column {name!r}: expected a list of cells, got {type(cells).__name__}; one row is [{{…}}]."
            )
    lengths = {name: len(cells) for name, cells in source.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"columns differ in length: {lengths}.")
    return {str(name): [plain_cell(v) for v in cells] for name, cells in source.items()}


def _columns_of_rows(rows: Sequence[Any]) -> Columns:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TableError(f"row {i}: expected a mapping of column → value, got {type(row).__name__}.")
    if rows and not any(rows):
        raise TableError(f"{len(rows)} rows without any column; name the columns of each row.")
    named = [{str(key): value for key, value in row.items()} for row in rows]
    names = dict.fromkeys(name for row in named for name in row)
    return {name: [plain_cell(row.get(name)) for row in named] for name in names}


def _read_file(path: Path, as_text: Collection[str]) -> Columns:
    import pyarrow as pa

    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise TableError(
            f"{path}: expected a file ending in {', '.join(FORMATS)}, got {path.suffix or 'no ending'}; read it with "
            "pandas and pass the frame."
        )
    if not path.is_file():
        raise TableError(f"{path}: no such file (looked from {Path.cwd()}).")
    try:
        if ending in (".jsonl", ".ndjson", ".json"):
            return _columns_of_rows(read_json_lines(path))
        table = read_csv(path, as_text) if ending in (".csv", ".tsv") else read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: cannot be read as {ending[1:]}: {error}") from error
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        raise TableError(f"{path}: column {sorted(doubled)[0]!r} appears more than once; rename one of them.")
    return arrow_columns(table)

"""Answers out: columns of equal length as CSV, JSON lines or Parquet, to a file or to stdout."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from graphfusion.cli.parser import (
    Parser,
    add_model_and_table,
    add_row_options,
    check_incidents,
    check_writable,
    write_incidents,
)
from graphfusion.cli.streams import to_stdout
from graphfusion.errors import TableError

if TYPE_CHECKING:
    from graphfusion.predictor import FusionPredictor

Columns = Mapping[str, Sequence[Any]]


def add_options(parser: Parser) -> argparse._ArgumentGroup:
    """Model and table, what to do about the rows, where answers go; the group of the last."""
    add_model_and_table(parser)
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--out", type=Path, metavar="FILE", help=f"file that ends in {', '.join(WRITERS)}; without it, stdout"
    )
    group.add_argument(
        "--keep", nargs="+", default=[], metavar="NAME", help="columns of the table to write beside the answers"
    )
    group.add_argument("--format", choices=("csv", "jsonl"), help="of what goes to stdout; without it, csv")
    add_row_options(parser)
    return group


def answer(
    options: argparse.Namespace,
    names: Callable[[FusionPredictor], Sequence[str]],
    made: Callable[[FusionPredictor, argparse.Namespace], Columns],
) -> int:
    """Load the model, answer with what `made` gives, and write it; `names` of its columns are checked before the work."""
    format_of(options)
    check_incidents(options)
    from graphfusion.predictor import FusionPredictor

    predictor = FusionPredictor.load(options.model).to(options.device)
    kept = kept_columns(options, names(predictor))
    columns = made(predictor, options)
    write_incidents(predictor, options)
    write_answers(columns, options, kept)
    return 0


def format_of(options: argparse.Namespace) -> str:
    """Ending of what is written.

    Raises:
        TableError: the file cannot be written to; so that this is known before the work.
    """
    if options.out is None:
        return f".{options.format or 'csv'}"
    if options.format:
        raise TableError(
            f"--format {options.format} is of what goes to stdout; the ending of --out says what a file is."
        )
    out: Path = options.out
    ending = out.suffix.lower()
    if ending not in WRITERS:
        raise TableError(
            f"--out {out}: expected a file that ends in {', '.join(WRITERS)}, got {ending or 'no ending'}."
        )
    check_writable("--out", out, options.table)
    return ending


def kept_columns(options: argparse.Namespace, answers: Sequence[str]) -> Columns:
    """The columns of `--keep` as they stand in the table; `answers`: names that the columns of the answers have.

    Raises:
        SchemaError: the table has no such column.
        TableError: its cells are not texts, or not numbers, or the answers have a column of this name.
    """
    if not options.keep:
        return {}
    from graphfusion.data import read_table

    for name in options.keep:
        if name == "row" or name in answers:
            raise TableError(f"--keep {name}: the answers have a column of this name; rename it in the table.")
    table = read_table(options.table, options.media_root, as_text=options.keep)
    kept = {name: table.column(name) for name in options.keep}
    for name, cells in kept.items():
        for row, cell in enumerate(cells):
            if not _writable(cell):
                raise TableError(f"--keep {name}: expected texts or numbers, row {row} has {str(cell)[:40]!r}.")
        kinds = {isinstance(cell, str) for cell in cells if cell is not None}
        if len(kinds) > 1:
            raise TableError(f"--keep {name}: expected texts or numbers, it has both.")
    return kept


def _writable(cell: Any) -> bool:
    """Whether every format can hold a cell: no half characters, no integers beyond 64 bits."""
    if isinstance(cell, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in cell)
    if isinstance(cell, int):
        return -(2**63) <= cell < 2**63
    return cell is None or isinstance(cell, float)


def write_answers(answers: Columns, options: argparse.Namespace, kept: Columns) -> None:
    """Write the answers beside the numbers of the rows (from 0) and the kept columns; a file is there as a whole or not at
    all.

    Raises:
        TableError: the file cannot be written.
    """
    count = len(next(iter(answers.values()), ()))
    columns = {"row": range(count), **kept, **answers}
    ending = format_of(options)
    if options.out is None:
        with to_stdout():
            WRITERS[ending](columns, sys.stdout)
        return
    part = options.out.with_name(f".{options.out.name}.part")
    try:
        with part.open("wb") if ending == ".parquet" else part.open("w", encoding="utf-8", newline="") as file:
            WRITERS[ending](columns, file)
        part.replace(options.out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TableError(f"--out {options.out}: cannot be written: {error.strerror}.") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _write_csv(columns: Columns, file: IO[Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in _rows(columns))


def _cell(value: Any) -> Any:
    """Several labels as one text, in the form that a table is read with; a bar alone for none (an empty cell is unknown)."""
    return ("|".join(map(str, value)) or "|") if isinstance(value, list) else value


def _write_json_lines(columns: Columns, file: IO[Any]) -> None:
    for row in _rows(columns):
        file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(columns: Columns, file: IO[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), file)


WRITERS: dict[str, Callable[[Columns, IO[Any]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}


def plain_numbers(values: Any) -> list[float | None]:
    """Numbers of a float array, None for NaN, in their shortest form: 0.3, not 0.30000001192092896."""
    return [None if value != value else float(str(value)) for value in values]

"""What the recipes of `datasets/` share: a source as a folder, verified contents, tables with the counts that a card states,
and a command line. A recipe is a script that turns a public data set into train.parquet, valid.parquet and test.parquet.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graphfusion.data.download import extract
from graphfusion.errors import GraphFusionError, TableError

Row = Mapping[str, Any]
SPLITS = ("train", "valid", "test")


def source_folder(
    source: Path | None, work: Path, fetch: Callable[[Path], None] | None = None, where: str = ""
) -> Path:
    """The source as a folder: `source` itself, the archive `source` unpacked below `work`, or what `fetch(work)` downloads
    into `work`. `where` says how to get a source that has no download.

    Raises:
        TableError: it is not there, or no archive; or none is given and there is no download.
    """
    if source is None:
        if fetch is None:
            raise TableError(f"this source cannot be downloaded by a script; pass --source PATH. {where}".strip())
        fetch(work)
        return work
    if source.is_dir():
        return source
    if not source.is_file():
        raise TableError(f"{source}: no such file or folder.")
    extract(source, work)
    return work


def read_files(root: Path, pattern: str) -> dict[str, bytes]:
    """Files below `root` whose names match, by their path below it.

    Raises:
        TableError: there are none.
    """
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob(pattern)) if p.is_file()}
    if not files:
        raise TableError(f"{root}: no {pattern} files; see the recipe's CARD.md for what the source looks like.")
    return files


def read_file(root: Path, name: str) -> bytes:
    """Contents of the file of that name at or below `root`; TableError if there is none."""
    return next(iter(read_files(root, name).values()))


def folder_with(root: Path, mark: str, advice: str) -> Path:
    """The folder at or below `root` that holds the file `mark` (a path below it); of several the one that lies highest.

    Raises:
        TableError: there is none; the message ends with `advice`.
    """
    found = sorted(root.rglob(mark), key=lambda path: (len(path.parts), path))
    if not found:
        raise TableError(f"{root}: expected {mark} in it or in a folder below it, got none. {advice}")
    return found[0].parents[mark.count("/")]


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names, sizes and contents, sorted by name: the same however the files were packed."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return total.hexdigest()


def verify(files: Mapping[str, bytes], expected: str, what: str) -> None:
    """TableError unless the `digest` of files is `expected`."""
    found = digest(files)
    if found != expected:
        raise TableError(f"{what}: {len(files)} files with digest {found}, expected {expected}; not the same data.")


def write_tables(
    out: Path, tables: Mapping[str, Iterable[Row]], counts: Mapping[str, int] | None = None, types: Any = None
) -> None:
    """Write each table to `out/<name>.parquet`; those that are there are replaced once all are written.

    Args:
        out: folder, made if need be.
        tables: name → rows, all with the same columns.
        counts: how many rows each must have.
        types: a pyarrow schema; inferred where not given.

    Raises:
        TableError: a table is empty, or has not as many rows as `counts` says.
    """
    made = {}
    for name, rows in tables.items():
        listed = list(rows)
        expected = (counts or {}).get(name, len(listed))
        if not listed or len(listed) != expected:
            wanted = f"{expected:,}" if expected else "some"
            raise TableError(f"{name}: expected {wanted} rows, got {len(listed):,}; the source is not complete.")
        made[name] = pa.Table.from_pylist(listed, schema=types)
    out.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        pq.write_table(table, out / f"{name}.part")
    for name, table in made.items():
        (out / f"{name}.part").replace(out / f"{name}.parquet")
        print(f"{out / name}.parquet: {len(table):,} rows")


def parser_of(doc: str | None, source: str) -> argparse.ArgumentParser:
    """The options that all recipes have: --out, --source (`source` says what it may be) and --seed."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for train.parquet, valid.parquet and test.parquet"
    )
    parser.add_argument("--source", type=Path, help=source)
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    return parser


def run_recipe(
    parser: argparse.ArgumentParser,
    convert: Callable[[argparse.Namespace, Path], None],
    arguments: Sequence[str] | None,
) -> int:
    """`convert(options, work)` with a temporary folder; 2, and what went wrong on standard error, where it cannot be done. What is
    wrong with a file that was unpacked or downloaded is said of the source.
    """
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        try:
            _check_place(options.out)
            convert(options, Path(work))
        except (GraphFusionError, OSError) as error:
            message = str(error).replace(work, str(options.source or "the download"))
            print(f"error: {message}", file=sys.stderr)
            return 2
    return 0


def _check_place(out: Path) -> None:
    """TableError unless a folder is at `out`, or can be made there, that takes files: told before a source is read."""
    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir():
        raise TableError(f"{out}: tables cannot be written there, {nearest} is not a folder; name another place.")
    if not os.access(nearest, os.W_OK):
        raise TableError(f"{out}: tables cannot be written there, {nearest} takes no files; name another place.")


def run_plain(
    doc: str | None, source: str, convert: Callable[[Path, Path | None, Path], None], arguments: Sequence[str] | None
) -> int:
    """`run_recipe` for a recipe without options of its own and without draws: `convert(out, source, work)`."""
    return run_recipe(
        parser_of(doc, source), lambda options, work: convert(options.out, options.source, work), arguments
    )


def load_script(path: Path) -> ModuleType:
    """A recipe as a module. The shelf is not a package: one named `datasets` would shadow Hugging Face's."""
    spec = importlib.util.spec_from_file_location(f"recipe_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise TableError(f"{path}: no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

"""Folders of files that are there as a whole or not at all.

A folder is written under a temporary name beside its target, synced, and renamed. `manifest.json` lists every file with its
SHA-256 and ends with the one of that list; whatever does not match is refused. Tensors are kept as safetensors, the rest as
JSON: nothing that is read can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from graphfusion.errors import CheckpointError, GraphFusionError

MANIFEST = "manifest.json"
FORMAT = 3
FILE_NAME = re.compile(r"\w[\w-]*\.(json|safetensors)", re.ASCII)
"""What a file of a saved folder is called; a manifest with any other name is refused."""
TENSOR_NAME = re.compile(r"[\w.-]+", re.ASCII)
MAX_HEADER = 2**20
"""Bytes of a safetensors header, enough for ten thousand tensors: reading it takes 20 times its size."""
LEFT = ".graphfusion-"
"""Ending, before `new`, `old` or `gone`, of the hidden names that a folder has while it is replaced or removed."""


def to_json(document: Any) -> bytes:
    """A document as JSON text."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def from_json(data: bytes, name: str) -> Any:
    """The document of a JSON text; CheckpointError if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON: {error}") from error


def to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as a safetensors file."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})


def from_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """Tensors by name; CheckpointError if the file is none, or names a tensor twice or as no weight is named."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        _check_header(data)
        return load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{name} is not a safetensors file: {error}") from error


def tensors_of(files: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    """Tensors of the file `<name>.safetensors`; CheckpointError if it is not there or none."""
    file = f"{name}.safetensors"
    if file not in files:
        raise CheckpointError(f"expected {file}, found {', '.join(files)}.")
    return from_safetensors(files[file], file)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files; one that is at `path` already stays whole until the new one is.

    Raises:
        CheckpointError: the place cannot be written to, or holds anything but a saved folder; what was there is
            untouched.
    """
    assert all(FILE_NAME.fullmatch(name) and name != MANIFEST for name in files), sorted(files)
    with _told(path, "cannot be written"):
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            _refuse_others(path, files)
            try:
                _replace(path, files)
            finally:
                _recover(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file; one that is at `path` already stays whole until the new one is.

    Raises:
        CheckpointError: it cannot be written; what was there is untouched.
    """
    with _told(path, "cannot be written"), _alone(path.parent):
        new = _beside(path, "new")
        try:
            _write_synced(new, data)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def read_folder(path: Path) -> dict[str, bytes]:
    """The files of a folder that `write_folder` wrote, by name, verified; other files in it are not looked at.

    Raises:
        CheckpointError: there is no such folder, or a file of the manifest is missing, a link or altered.
    """
    with _told(path, "cannot be read"):
        path = path.resolve()
        with _alone(path.parent):
            return {name: _verified(path / name, expected) for name, expected in _listed(path).items()}


def newest_folder(parent: Path, pattern: str) -> Path | None:
    """The last (by name) folder below `parent` that is whole; None if there is no folder at all.

    A damaged one is passed over with a warning; CheckpointError if all are damaged.
    """
    recover(parent)
    found = sorted(parent.glob(pattern), reverse=True)
    for path in found:
        try:
            read_folder(path)
        except CheckpointError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
            continue
        return path
    if found:
        raise CheckpointError(f"{parent}: every saved folder is damaged; remove {parent} to start anew.")
    return None


def remove_folder(path: Path) -> None:
    """Delete a folder of files, so that no moment leaves a half of it under its own name."""
    with _told(path, "cannot be removed"), _alone(path.parent):
        path.rename(_beside(path, "gone"))
        _recover(path.parent)


def recover(parent: Path) -> None:
    """Undo what a writer that was killed left below `parent`; a writer that lives is waited for."""
    with _told(parent, "cannot be read"), _alone(parent):
        pass


def prepare_folder(path: Path) -> None:
    """Make a folder and see that it takes files, so that a place which does not is known before hours of work.

    Raises:
        CheckpointError: it cannot be made or written to.
    """
    with _told(path, "cannot be written"):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))


def check_replaceable(path: Path, files: Iterable[str]) -> None:
    """See that nothing is at `path` but a saved folder, which `write_folder` of such `files` may replace.

    Raises:
        CheckpointError: something else is there.
    """
    with _told(path, "cannot be looked at"):
        _refuse_others(path, files)


@contextmanager
def as_checkpoint_error(what: str) -> Iterator[None]:
    """Errors of making objects from a file that is whole but not what graphfusion writes, as CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        GraphFusionError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        said = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{what}: not what graphfusion writes ({said[:500]}).") from error


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Errors of the file system as CheckpointError; ValueError is a name with NUL, RuntimeError a circle of links."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {what}: {error}") from error


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Keep other processes from reading or replacing folders below `parent` (where the file system knows locks), once what
    killed ones left is undone.
    """
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            import fcntl

            descriptor = os.open(parent, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _recover(parent)
        yield


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}{LEFT}{what}")


def _recover(parent: Path) -> None:
    """Undo replacements that were cut between their two renames, and remove what is left of any."""
    for rest in parent.glob(f".*{LEFT}*"):
        name, _, what = rest.name[1:].rpartition(LEFT)
        if what == "old" and not (parent / name).exists():
            rest.rename(parent / name)
        elif rest.is_dir():
            shutil.rmtree(rest, ignore_errors=True)
        else:
            rest.unlink(missing_ok=True)


def _replace(path: Path, files: Mapping[str, bytes]) -> None:
    new = _beside(path, "new")
    new.mkdir()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name, data in {**files, MANIFEST: _manifest(hashes)}.items():
        _write_synced(new / name, data)
    _sync(new)
    if path.exists():
        path.rename(_beside(path, "old"))
    new.rename(path)
    _sync(path.parent)


def _refuse_others(path: Path, files: Iterable[str]) -> None:
    """CheckpointError if there is something at `path` that a replacement by `files` would take along."""
    if not path.exists():
        return
    names = {p.name for p in path.iterdir()} if path.is_dir() else {path.name}
    known: set[str] = set()
    if MANIFEST in names:
        with suppress(CheckpointError):  # of a damaged folder only what has the new names is replaced
            known = set(_listed(path))
        known |= {MANIFEST, *files}
    if names - known:
        raise CheckpointError(
            f"{path} holds {sorted(names - known)[0]!r}, which is no part of a saved folder; choose another path."
        )


def _manifest(hashes: Mapping[str, str]) -> bytes:
    """The one text of a manifest: file → SHA-256, and the SHA-256 of that."""
    document = {"format": FORMAT, "sha256": dict(hashes)}
    return to_json({**document, "own_sha256": hashlib.sha256(to_json(document)).hexdigest()})


def _listed(path: Path) -> dict[str, str]:
    """File → SHA-256 of the manifest of a folder."""
    file = path / MANIFEST
    if not file.is_file():
        raise CheckpointError(f"{path}: no saved folder here ({MANIFEST} is missing).")
    data = _content(file)
    document = from_json(data, f"{file}")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{file}: expected format {FORMAT}; saved by another version, or altered.")
    hashes = document.get("sha256")
    listing: dict[str, str] = hashes if isinstance(hashes, dict) else {}
    for name in listing:
        if not FILE_NAME.fullmatch(name):
            raise CheckpointError(f"{file}: lists {name!r}, which graphfusion never writes; refused.")
    if not all(isinstance(h, str) and h.isascii() for h in listing.values()) or data != _manifest(listing):
        raise CheckpointError(f"{file}: its own SHA-256 does not match; the file is damaged or altered.")
    return listing


def _verified(file: Path, expected: str) -> bytes:
    data = _content(file)
    if hashlib.sha256(data).hexdigest() != expected:
        raise CheckpointError(f"{file}: its SHA-256 is not the one in the manifest; the file is damaged or altered.")
    return data


def _content(file: Path) -> bytes:
    if file.is_symlink():
        raise CheckpointError(f"{file}: a link to another file; refused.")
    if not file.is_file():
        raise CheckpointError(f"{file.parent}: the file {file.name!r} of the manifest is missing.")
    return file.read_bytes()


def _check_header(data: bytes) -> None:
    """ValueError for what the library lets pass: a header that takes much memory, a name twice, names of other things."""
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER, len(data) - 8):
        raise ValueError(f"its header claims {size:,} bytes")
    for name in json.loads(data[8 : 8 + size], object_pairs_hook=_unique):
        if not TENSOR_NAME.fullmatch(name):
            raise ValueError(f"tensor name {name!r}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Folders of files that are there as a whole or not at all.

A folder is written under a temporary name beside its target, synced, and renamed; `manifest.json` lists every file with
its SHA-256, and a folder that does not match it is refused. Tensors are kept as safetensors, the rest as JSON: nothing that
is read can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from graphfusion.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1


def to_json(document: Any) -> bytes:
    """A document as JSON text."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def from_json(data: bytes, name: str) -> Any:
    """The document of a JSON text; CheckpointError if it is none."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"{name} is not JSON: {error}") from error


def to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as a safetensors file."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})


def from_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """Tensors by name; CheckpointError if the file is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{name} is not a safetensors file: {error}") from error


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files; one that is at `path` already stays whole until the new one is.

    Raises:
        CheckpointError: the place cannot be written to, or holds anything but a saved folder; what was there is
            untouched.
    """
    path = path.resolve()
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        _refuse_others(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for name, data in {**files, MANIFEST: to_json({"format": FORMAT, "sha256": hashes})}.items():
            _write_synced(temporary / name, data)
        _sync(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


def read_folder(path: Path) -> dict[str, bytes]:
    """The files of a folder that `write_folder` wrote, by name, verified; other files in it are not looked at.

    Raises:
        CheckpointError: there is no such folder, or a file of the manifest is missing or altered.
    """
    path = path.resolve()
    _recover(path)
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path}: no saved folder here ({MANIFEST} is missing).")
    manifest = from_json((path / MANIFEST).read_bytes(), f"{path / MANIFEST}")
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("sha256"), dict)
    ):
        raise CheckpointError(f"{path / MANIFEST}: expected format {FORMAT}; saved by another version, or altered.")
    files = {}
    for name, expected in manifest["sha256"].items():
        file = path / name
        if file.parent != path or not file.is_file():
            raise CheckpointError(f"{path}: the file {name!r} of the manifest is missing.")
        files[name] = file.read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise CheckpointError(
                f"{file}: its SHA-256 is not the one in the manifest; the file is damaged or altered."
            )
    return files


def newest_folder(parent: Path, pattern: str) -> Path | None:
    """The last (by name) folder below `parent` that is whole; None if there is no folder at all.

    A damaged one is passed over with a warning; CheckpointError if all are damaged.
    """
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
    old = _beside(path, "gone")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _refuse_others(path: Path) -> None:
    """CheckpointError if there is something at `path` that a replacement would take along."""
    if not path.exists():
        return
    names = {p.name for p in path.iterdir()} if path.is_dir() else {path.name}
    listed: set[str] = set()
    if MANIFEST in names:
        document = from_json((path / MANIFEST).read_bytes(), MANIFEST)
        listed = {MANIFEST, *document.get("sha256", {})} if isinstance(document, dict) else set()
    if names - listed:
        raise CheckpointError(
            f"{path} holds {sorted(names - listed)[0]!r}, which is no part of a saved folder; choose another path."
        )


def _recover(path: Path) -> None:
    """Undo a replacement that was cut between its two renames."""
    old = _beside(path, "old")
    if old.is_dir():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)


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

"""Files from public sources: downloaded, verified by SHA-256, and taken apart without leaving their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.request
from pathlib import Path

from graphfusion.errors import TableError

MAX_MEMBERS = 200_000
MAX_EXTRACTED = 8 * 1024**3


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, sha256: str = "", timeout: float = 60.0) -> Path:
    """Fetch `url` to `target` unless a file with the right SHA-256 is there already.

    Leave `sha256` out only where the source packs its archives anew and the caller verifies their contents.

    Raises:
        TableError: the address is neither https nor on this machine, cannot be reached, or what it sends has another
            hash (nothing is kept then).
    """
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise TableError(f"{url}: only https addresses are downloaded from.")
    if sha256 and target.is_file() and sha256_of(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response, part.open("wb") as file:  # noqa: S310 - checked
            shutil.copyfileobj(response, file)
        found = sha256_of(part)
        if sha256 and found != sha256:
            raise TableError(f"{url}: expected SHA-256 {sha256}, got {found}; the file was not kept.")
        part.replace(target)
    except OSError as error:
        raise TableError(f"{url}: cannot be downloaded ({error}); fetch it by hand and pass --source PATH.") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def extract_tar(archive: Path, folder: Path) -> None:
    """Extract the regular files of a tar archive below `folder`.

    Raises:
        TableError: a member would leave the folder or is a link or device, or the archive is too large.
    """
    size = 0
    with tarfile.open(archive) as tar:
        for count, member in enumerate(tar, start=1):
            size += member.size
            if count > MAX_MEMBERS or size > MAX_EXTRACTED:
                raise TableError(f"{archive}: more than {MAX_MEMBERS:,} members or {MAX_EXTRACTED:,} bytes; refused.")
            if member.isdir():
                continue
            if not member.isreg():
                raise TableError(f"{archive}: member {member.name!r} is a link or device; refused.")
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise TableError(f"{archive}: member {member.name!r} refused: {error}") from error

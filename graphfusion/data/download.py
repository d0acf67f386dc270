"""Files from public sources: downloaded, verified by SHA-256, and taken apart without leaving their folder."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import urllib.request
import zipfile
import zlib
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


def extract_zip(archive: Path, folder: Path) -> None:
    """Extract the regular files of a zip archive below `folder`.

    Raises:
        TableError: a member would leave the folder, is a link or encrypted, or the archive is too large; sizes are those
            found while reading, whatever the archive says.
    """
    size = 0
    root = folder.resolve()
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        if len(members) > MAX_MEMBERS:
            raise TableError(f"{archive}: more than {MAX_MEMBERS:,} members; refused.")
        for member in members:
            if member.is_dir():
                continue
            target = (root / member.filename).resolve()
            kind = stat.S_IFMT(member.external_attr >> 16)
            if not target.is_relative_to(root) or kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
                raise TableError(
                    f"{archive}: member {member.filename!r} leaves the folder, is a link or encrypted; refused."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as source, target.open("wb") as out:
                while block := source.read(1 << 20):
                    size += len(block)
                    if size > MAX_EXTRACTED:
                        raise TableError(f"{archive}: more than {MAX_EXTRACTED:,} bytes; refused.")
                    out.write(block)


def extract(archive: Path, folder: Path) -> None:
    """Extract a tar (plain or compressed) or zip archive, whichever its contents say it is.

    Raises:
        TableError: it is neither, is damaged, or a member is refused.
    """
    try:
        if tarfile.is_tarfile(archive):  # first: a plain tar that ends with a zip looks like one
            extract_tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            extract_zip(archive, folder)
        else:
            raise TableError(f"{archive}: neither a tar nor a zip archive.")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, OSError) as error:
        raise TableError(f"{archive}: damaged archive, or packed in a way that is not known here ({error}).") from error

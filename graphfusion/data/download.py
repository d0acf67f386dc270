"""Files from public sources: downloaded, verified by SHA-256, and taken apart without leaving their folder."""

from __future__ import annotations

import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any

from graphfusion.errors import TableError

MAX_MEMBERS = 25_000
MAX_EXTRACTED = 8 * 1024**3
MAX_RATIO, SMALL = 100, 64 * 1024**2
"""An archive may hold this many times its own size, or `SMALL` bytes."""
MAX_DIRECTORY = 128 * MAX_MEMBERS
"""Bytes of the list of members at the end of a zip archive."""
MAX_HEADER = 64 * 1024
"""Bytes of a tar header, which is read into memory as a whole."""


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, sha256: str = "", timeout: float = 60.0) -> Path:
    """Fetch `url` to `target` unless a file with the right SHA-256 is there already.

    Leave `sha256` out only where the source packs its archives anew and the caller verifies their contents.

    Raises:
        TableError: the address, or one that it refers to, is neither https nor on this machine, cannot be reached, or what it
            sends is cut short or has another hash (nothing is kept then).
    """
    _refuse_plain(url)
    if sha256 and target.is_file() and sha256_of(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(url, timeout=timeout) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
            told = int(response.headers.get("Content-Length") or file.tell())
            if file.tell() < told:  # read in pieces, http.client does not say so
                raise OSError(f"{file.tell():,} of {told:,} bytes came")
        found = sha256_of(part)
        if sha256 and found != sha256:
            raise TableError(f"{url}: expected SHA-256 {sha256}, got {found}; the file was not kept.")
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise TableError(f"{url}: cannot be downloaded ({error}); fetch it by hand and pass --source PATH.") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _refuse_plain(url: str) -> None:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise TableError(f"{url}: only https addresses are downloaded from.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _refuse_plain(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of an archive. `odd` says why it is never extracted; `handle` is what its archive knows it by."""

    name: str
    size: int
    is_folder: bool
    odd: str
    handle: Any


def extract(archive: Path, folder: Path) -> None:
    """Extract a tar (plain or compressed) or zip archive, whichever its contents say it is. Nothing is written before the
    names and sizes of all members are known to be harmless.

    Raises:
        TableError: it is neither, is damaged, too large, or a member would leave the folder, meets another one, is a link, a
            device or encrypted.
    """
    try:
        if _is_tar(archive):  # first: a plain tar that ends with a zip looks like one
            extract_tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            extract_zip(archive, folder)
        else:
            raise TableError(f"{archive}: neither a tar nor a zip archive.")
    except TableError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise TableError(f"{archive}: damaged archive ({error}).") from error
    except (RuntimeError, ValueError, OverflowError, OSError) as error:
        raise TableError(f"{archive}: damaged archive, or packed in a way that is not known here ({error}).") from error


def extract_tar(archive: Path, folder: Path) -> None:
    """Extract the regular files of a tar archive below `folder`; TableError as in `extract`."""
    with tarfile.open(archive, tarinfo=_TarHeader) as tar:
        for member, target in _planned(archive, folder, map(_of_tar, tar)):
            source = tar.extractfile(member.handle)
            assert source is not None
            _write(source, target)


def extract_zip(archive: Path, folder: Path) -> None:
    """Extract the regular files of a zip archive below `folder`; TableError as in `extract`."""
    _refuse_long_directory(archive)
    with zipfile.ZipFile(archive) as file:
        for member, target in _planned(archive, folder, map(_of_zip, file.infolist())):
            with file.open(member.handle) as source:
                _write(source, target)


class _TarHeader(tarfile.TarInfo):
    """A header of a tar archive. Long names and PAX records are read into memory whole, so their size is looked at first;
    a negative size makes tarfile walk in a circle (CVE-2025-8194).
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarHeader:
        member = super().frombuf(buf, encoding, errors)
        plain = member.isreg() or member.isdir() or member.issym() or member.islnk() or member.isdev()
        if member.size < 0 or (not plain and member.size > MAX_HEADER) or member.type == tarfile.GNUTYPE_SPARSE:
            raise TableError(f"a header of type {member.type!r} claims {member.size:,} bytes; refused.")
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise TableError("a sparse file, whose list of holes has no end that is known before; refused.")


def _is_tar(archive: Path) -> bool:
    try:
        tarfile.open(archive, tarinfo=_TarHeader).close()
    except tarfile.TarError:
        return False
    return True


def _of_tar(info: tarfile.TarInfo) -> Member:
    odd = "" if info.isdir() or info.isreg() else "is a link or device"
    return Member(info.name, info.size, info.isdir(), odd, info)


def _of_zip(info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    odd = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or device"
    odd = "is encrypted" if info.flag_bits & 1 else odd
    return Member(info.orig_filename, info.file_size, info.is_dir(), odd, info)


def _refuse_long_directory(archive: Path) -> None:
    """TableError for a zip archive of too many members, before zipfile makes an object of each."""
    with archive.open("rb") as file:
        record = zipfile._EndRecData(file)  # type: ignore[attr-defined] # nothing public reads it
    if record and (record[4] > MAX_MEMBERS or record[5] > MAX_DIRECTORY):
        raise TableError(f"{archive}: more than {MAX_MEMBERS:,} members; refused.")


def _planned(archive: Path, folder: Path, members: Iterable[Member]) -> Iterator[tuple[Member, Path]]:
    """Each file of an archive and where it goes, once all of them are known to be harmless."""
    root = folder.resolve()
    most = min(MAX_EXTRACTED, max(SMALL, MAX_RATIO * archive.stat().st_size))
    files: dict[str, Member] = {}
    folders: set[PurePosixPath] = set()
    size = 0
    for count, member in enumerate(members, start=1):
        size += member.size
        if count > MAX_MEMBERS:
            raise TableError(f"{archive}: more than {MAX_MEMBERS:,} members; refused.")
        if size > most:
            raise TableError(f"{archive}: more than {most:,} bytes; refused.")
        path = PurePosixPath(member.name)
        key = _one_name(path)
        odd = member.odd or _oddity(member) or ("meets another one of its name" if key in files else "")
        if odd:
            raise TableError(f"{archive}: member {member.name!r} {odd}; refused.")
        folders.add(path if member.is_folder else path.parent)
        if not member.is_folder:
            files[key] = member
    _check_folders(archive, root, folders, files)
    return ((member, root / PurePosixPath(member.name)) for member in files.values())


def _oddity(member: Member) -> str:
    """Why a member's name is refused; empty if it is not."""
    name = member.name
    if "\0" in name or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "has a name of another system"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (not path.parts and not member.is_folder):
        return "leaves the folder"
    return "has a negative size" if member.size < 0 else ""


def _one_name(path: PurePosixPath) -> str:
    """The same for names that are one file on a system that ignores case or the composition of accents."""
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _check_folders(archive: Path, root: Path, folders: set[PurePosixPath], files: dict[str, Member]) -> None:
    """TableError if a folder is also a file of the archive, or lies outside `root` by a link that was there before."""
    for folder in {above for path in folders for above in (path, *path.parents)}:
        if not (root / folder).resolve().is_relative_to(root):
            raise TableError(f"{archive}: folder {str(folder)!r} leaves {root} by a link; refused.")
        if _one_name(folder) in files:
            raise TableError(f"{archive}: {str(folder)!r} is a file and a folder; refused.")


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link that is there is replaced, not followed
    with target.open("xb") as out:
        shutil.copyfileobj(source, out, 1 << 20)

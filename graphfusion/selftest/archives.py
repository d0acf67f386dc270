"""Attacks by archives: members that leave the folder, links, names that meet, bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from graphfusion.data.download import MAX_MEMBERS, SMALL, extract
from graphfusion.errors import TableError
from graphfusion.selftest.apart import apart
from graphfusion.selftest.figure import Figure, count

SECONDS, MEMORY = 5.0, 300 * 2**20
"""Of processor time, and bytes, that an archive may take."""
OUT = "graphfusion-selftest-canary"


def s04(work: Path, full: bool) -> Figure:
    """Tar and zip archives, each unpacked in a process of its own: `TableError`, no file of it anywhere but below the folder,
    `MEMORY` and, with `full`, `SECONDS`. Without `full` bombs hold 66 MB in place of 400, and the archives of a million
    members are of some more than are let pass.
    """
    bombs, crowds = _bombs(400 * 2**20 if full else 66 * 2**20), _crowds(1_000_000 if full else MAX_MEMBERS + 1)
    made = {**_names(), **_links(), **_meeting(), **bombs, **crowds}
    cases = {name: _attack(work / f"case-{i}", data, full) for i, (name, data) in enumerate(made.items())}
    return count("S04", "hostile archives refused, nothing outside the folder", cases)


def _attack(place: Path, data: bytes, timed: bool) -> str | None:
    root = place / "deep" / "root"
    root.mkdir(parents=True)
    (place / "archive").write_bytes(data)
    ending = apart(partial(_unpack, place / "archive", root))
    strays = [p for p in place.rglob("*") if p.is_file() and p.name != "archive" and not p.is_relative_to(root)]
    written = sum(p.lstat().st_size for p in root.rglob("*"))
    (place / "archive").unlink()
    wrong = {
        f"ended by signal {ending.signal}": ending.signal,
        str(ending.value): ending.value,
        f"wrote {strays}": strays or Path("/", OUT).exists(),
        "wrote a link": any(p.is_symlink() for p in root.rglob("*")),
        f"wrote {written:,} bytes": written > SMALL,
        f"took {ending.grown:,} bytes of memory": ending.grown > MEMORY,
        f"took {ending.seconds:.1f} s": timed and ending.seconds > SECONDS,
    }
    return next((what for what, is_so in wrong.items() if is_so), None)


def _unpack(archive: Path, root: Path) -> str | None:
    try:
        extract(archive, root)
    except TableError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def tar_of(*members: tarfile.TarInfo | str) -> bytes:
    """A tar archive of members, or files of 4 bytes by their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = 4 if info.isreg() else 0
            tar.addfile(info, io.BytesIO(b"evil"))
    return out.getvalue()


def zip_of(*members: zipfile.ZipInfo | str, data: bytes = b"evil", method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of members, each with `data`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for member in members:
            info = zipfile.ZipInfo(member) if isinstance(member, str) else member
            file.writestr(info, data, method)
    return out.getvalue()


def _names() -> dict[str, bytes]:
    """16: names out of the folder, of other systems, of nothing."""
    names = (
        "../" + OUT,
        f"a/../../{OUT}",
        f"./../../{OUT}",
        f"/{OUT}",
        f"//{OUT}",
        "..",
        f"..\\..\\{OUT}",
        f"C:\\{OUT}",
    )
    return {f"{kind} {name!r}": make(name) for kind, make in (("tar", tar_of), ("zip", zip_of)) for name in names}


def _links() -> dict[str, bytes]:
    """11: links, devices, an encrypted member."""

    def tie(kind: bytes, target: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo("tie")
        info.type, info.linkname = kind, target
        return info

    def zipped(kind: int, name: str = "tie") -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        return info

    locked = bytearray(zip_of("a"))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + place] |= 1
    return {
        "tar link out": tar_of(tie(tarfile.SYMTYPE, "../..")),
        "tar link, then through it": tar_of(tie(tarfile.SYMTYPE, "../.."), "tie/" + OUT),
        "tar link within": tar_of("a", tie(tarfile.SYMTYPE, "a")),
        "tar hard link": tar_of(tie(tarfile.LNKTYPE, "/etc/passwd")),
        "tar FIFO": tar_of(tie(tarfile.FIFOTYPE)),
        "tar character device": tar_of(tie(tarfile.CHRTYPE)),
        "tar block device": tar_of(tie(tarfile.BLKTYPE)),
        "zip link": zip_of(zipped(stat.S_IFLNK), data=b"../.."),
        "zip link, then through it": zip_of(zipped(stat.S_IFLNK), "tie/" + OUT, data=b"../.."),
        "zip FIFO": zip_of(zipped(stat.S_IFIFO)),
        "zip encrypted": bytes(locked),
    }


def _meeting() -> dict[str, bytes]:
    """8: two names that are one file on some system, or a file and a folder."""
    pairs = {
        "letter case": ("Data/a.txt", "data/A.TXT"),
        "accents": ("caf\u00e9", "cafe\u0301"),
        "dots": ("a/./b", "a/b"),
        "a file and a folder": ("a", "A/b"),
    }
    return {f"{kind} {name}": make(*pair) for kind, make in (("tar", tar_of), ("zip", zip_of))
            for name, pair in pairs.items()}  # fmt: skip


def _bombs(holds: int) -> dict[str, bytes]:
    """10: archives that hold, or say that they hold, much more than they are: `holds` bytes."""
    zeros = bytes(holds)
    one = tarfile.TarInfo("zeros")
    one.size = holds
    tar = one.tobuf() + zeros + bytes(1024)
    negative, sparse, long = tarfile.TarInfo("a"), tarfile.TarInfo("a"), tarfile.TarInfo("././@LongLink")
    negative.size, sparse.size, long.size = -1024, 0, holds
    sparse.type, long.type = tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME
    records = tarfile.TarInfo("pax")
    records.size, records.type = holds, tarfile.XHDTYPE
    deflated = zip_of("zeros", data=zeros, method=zipfile.ZIP_DEFLATED)
    return {
        "zip bomb": deflated,
        "zip bomb, bzip2": zip_of("zeros", data=zeros, method=zipfile.ZIP_BZIP2),
        "zip that says it is small": deflated.replace(struct.pack("<I", holds), struct.pack("<I", 9)),
        "zip of one place many times": _crowd_of_zip(deflated, 3000),
        "tar.gz bomb": gzip.compress(tar, 1),
        "tar.xz bomb": lzma.compress(tar, preset=0),
        "tar of a negative size": negative.tobuf(tarfile.GNU_FORMAT) + bytes(10_240),
        "tar of holes": sparse.tobuf(tarfile.GNU_FORMAT) + bytes(10_240),
        "tar.bz2, a long name": bz2.compress(long.tobuf(tarfile.GNU_FORMAT) + zeros, 1),
        "tar.gz, long records": gzip.compress(records.tobuf() + zeros, 1),
    }


def _crowds(many: int) -> dict[str, bytes]:
    """3: more members than are let pass."""
    empty = tarfile.TarInfo("d/")
    empty.type = tarfile.DIRTYPE
    crowd = _crowd_of_zip(zip_of("d/", data=b""), many)
    return {
        f"tar.gz of {many:,} members": gzip.compress(empty.tobuf() * many, 1),
        f"zip of {many:,} members": crowd,
        f"zip of {many:,} members that says it has one": _crowd_of_zip(zip_of("d/", data=b""), many, said=1),
    }


def _crowd_of_zip(one: bytes, many: int, said: int = 0) -> bytes:
    """A zip archive of one member, listed many times; `said`: how many it says it has."""
    begin, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entries, listed = one[begin:end] * many, said or many
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, listed, listed, len(entries), begin)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, begin + len(entries), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *([0xFFFF] * 2), *([0xFFFFFFFF] * 2), 0)
    return one[:begin] + entries + wide + locator + last

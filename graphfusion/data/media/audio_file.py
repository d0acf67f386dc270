"""Is the file of a sound whole? Told by its own lengths, end marks and checksums; libsndfile overlooks some."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from graphfusion.data.media.door import MOST_PARTS
from graphfusion.errors import MediaError

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF")
"""Sound formats that are decoded, by libsndfile's names; its others are hardly tested."""
UNKNOWN = 0xFFFFFFFF
"""Length in a WAV that was written to a pipe: up to the end of the file."""
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_sound(start: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a known format of sounds."""
    boxed = start[:4] + start[8:12] in (b"RIFFWAVE", b"RIFXWAVE", b"FORMAIFF", b"FORMAIFC")
    framed = start[:1] == b"\xff" and len(start) > 1 and start[1] & 0xE0 == 0xE0
    return boxed or framed or start.startswith((b"fLaC", b"OggS", b"ID3"))


def audio_format(file: BinaryIO) -> None:
    """MediaError if the start of `file` is that of no known format; `file` is then where it was."""
    start = file.read(12)
    file.seek(0)
    if not is_sound(start):
        raise MediaError(f"not a readable sound: it starts with {start!r}; expected WAV, FLAC, Ogg, MP3 or AIFF.")


def audio_damage(file: BinaryIO, format: str) -> str:  # noqa: A002 - libsndfile's word
    """Why a file is not whole; "" if nothing says so. `file` is then where it was.

    A cut is noticed in WAV, AIFF and Ogg here, in MP3 by `mp3_file`, in FLAC when fewer samples come than the header
    says; an altered bit in Ogg here and in FLAC by its decoder. WAV, AIFF and MP3 have no checksums.
    """
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(0)
    try:
        return CHECKS.get(format, _unchecked)(file, size)
    finally:
        file.seek(place)


def _unchecked(file: BinaryIO, size: int) -> str:
    return ""


def _wav(file: BinaryIO, size: int) -> str:
    order = "big" if file.read(4) == b"RIFX" else "little"
    file.seek(0)
    return _boxes(file, size, order, b"data")


def _aiff(file: BinaryIO, size: int) -> str:
    return _boxes(file, size, "big", b"SSND")


def _boxes(file: BinaryIO, size: int, order: Any, sound: bytes) -> str:
    """The chunks of a RIFF or IFF file fill it: four letters, the length of what follows, filled up to an even number."""
    stated = int.from_bytes(file.read(8)[4:], order)
    end = size if stated == UNKNOWN else 8 + stated
    if end > size:
        return f"{end} bytes by its header, {size} are there"
    place, found = 12, -1
    for _ in range(MOST_PARTS):
        if place + 8 > end:
            break
        file.seek(place)
        head = file.read(8)
        length = int.from_bytes(head[4:], order)
        if head[:4] == b"fmt " and not _is_even(file.read(16), order):
            return "the bytes of its frames do not fit its channels"
        if head[:4] == sound:
            found = length
            if stated == length == UNKNOWN:
                return ""
        if place + 8 + length > end:
            return f"chunk {head[:4]!r} has {length} bytes by its header, {end - place - 8} are there"
        place += 8 + length + length % 2
    if found < 0 or place + 8 <= end:
        return f"it has no chunk {sound!r}, or too many others"
    return f"no samples by its header, but {size - end} bytes follow" if not found and size > end + 1 else ""


def _is_even(format: bytes, order: Any) -> bool:  # noqa: A002 - the chunk's name
    """Whether the frames of a WAV of integers or floats have as many bytes as their channels."""
    kind, channels, frame, bits = (int.from_bytes(format[i : i + 2], order) for i in (0, 2, 12, 14))
    return kind not in (1, 3) or frame == channels * ((bits + 7) // 8)


def _ogg(file: BinaryIO, size: int) -> str:
    """RFC 3533: pages in order, each with its checksum, up to one that is marked as the last of its stream."""
    place, pages, open_streams = 0, dict[bytes, int](), set[bytes]()
    for _ in range(MOST_PARTS):
        if place >= size:
            break
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            return f"no page at byte {place}"
        lengths = file.read(head[26])
        body = file.read(sum(lengths))
        if ogg_checksum(head[:22] + b"\0\0\0\0" + head[26:] + lengths + body) != int.from_bytes(head[22:26], "little"):
            return f"the checksum of the page at byte {place} is wrong"
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != pages.get(stream, -1) + 1 and not head[5] & 2:
            return f"a page is missing before byte {place}"
        pages[stream] = number
        (open_streams.discard if head[5] & 4 else open_streams.add)(stream)
        place += 27 + len(lengths) + len(body)
    return "it ends before its last page" if open_streams or place < size else ""


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of Ogg: that of zlib with the bits of bytes and result in reverse, starting from 0 and not inverted."""
    mirrored = zlib.crc32(page.translate(REVERSED), UNKNOWN) ^ UNKNOWN
    return int(f"{mirrored:032b}"[::-1], 2)


CHECKS: dict[str, Callable[[BinaryIO, int], str]] = {"WAV": _wav, "WAVEX": _wav, "AIFF": _aiff, "OGG": _ogg}

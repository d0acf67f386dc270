"""The containers of videos that are read: told by their first bytes, and held to the length that they declare.

FFmpeg shows what is left of a file that was cut short and keeps silent; each container says somewhere how long it is.
"""

from __future__ import annotations

from collections.abc import Callable

from graphfusion.data.media.audio_file import ogg_checksum
from graphfusion.data.media.door import MOST_PARTS
from graphfusion.errors import MediaError

BOXES = {
    b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"free", b"skip", b"wide", b"meta", b"uuid",
    b"udta", b"pdin", b"prft", b"emsg", b"pnot",
}  # fmt: skip
"""Boxes that stand at the top of an MP4 or QuickTime file; what follows the last of them is no part of the video."""
VIDEO_ENDINGS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".ogv"}
SEGMENT = 0x18538067
"""Matroska's element that holds everything but the header."""
TS_PACKET = 188


def container_of(data: bytes) -> str | None:
    """FFmpeg's name of the container that `data` begin like: `mov`, `matroska`, `avi`, `ogg`, `mpegts`, or None."""
    if data[4:8] in BOXES:
        return "mov"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "avi"
    if data.startswith(b"OggS"):
        return "ogg"
    if len(data) > 2 * TS_PACKET and data[: 2 * TS_PACKET + 1 : TS_PACKET] == b"GGG":
        return "mpegts"
    return None


def check_whole(data: bytes) -> str:
    """The name of the container that `data` are, as `container_of` gives it.

    A container without a length can be cut unnoticed: Matroska as it is streamed, and MPEG-TS between two packets.

    Raises:
        MediaError: they are none of these, or shorter than the container says, or a checksum of the container is wrong.
    """
    container = container_of(data)
    if container is None:
        known = "MP4, QuickTime, Matroska, WebM, AVI, MPEG-TS, Ogg"
        raise MediaError(f"not a video ({len(data):,} bytes): expected one of {known}.")
    end = _ENDS[container](data)
    if end > len(data):
        raise MediaError(f"video is cut short: {len(data):,} bytes of {container}, at least {end:,} expected.")
    return container


def _end_of_boxes(data: bytes) -> int:
    """ISO/IEC 14496-12, section 4.2: size (32 bits), type; size 1: the size is in the next 64 bits, 0: up to the end."""
    at = 0
    for _ in range(MOST_PARTS):
        if data[at + 4 : at + 8] not in BOXES:
            break
        size = int.from_bytes(data[at : at + 4])
        size = int.from_bytes(data[at + 8 : at + 16]) if size == 1 else size or len(data) - at
        at += max(size, 8)
    return at


def _end_of_segment(data: bytes) -> int:
    """RFC 8794: each element is an id, a size and as many bytes; a size of ones only is not known."""
    at, name = 0, 0
    for _ in range(MOST_PARTS):
        if at >= len(data) or name == SEGMENT:
            break
        name, _, at = _number(data, at)
        marked, bits, at = _number(data, at)
        size = marked - (1 << bits)
        if size == (1 << bits) - 1:
            return len(data)
        at += size
    return at


def _number(data: bytes, at: int) -> tuple[int, int, int]:
    """A number of 1 to 8 bytes with its length marker, how many bits come after the marker, and where it ends."""
    length = 9 - max(data[at : at + 1], default=0).bit_length()
    return int.from_bytes(data[at : at + length]), 7 * length, at + length


def _end_of_riffs(data: bytes) -> int:
    at = 0
    for _ in range(MOST_PARTS):
        if data[at : at + 4] != b"RIFF":
            break
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return at


def _end_of_pages(data: bytes) -> int:
    """RFC 3533, section 6: a page of 27 bytes, `count` sizes and as many bytes each; the last one says that it is the last.
    FFmpeg passes over a page whose checksum is wrong, and its pictures are lost.
    """
    at, last = 0, 0
    for _ in range(MOST_PARTS):
        if data[at : at + 4] != b"OggS" or len(data) < at + 27:
            break
        body = at + 27 + data[at + 26]
        end = body + sum(data[at + 27 : body])
        if end <= len(data) and _checksum(data[at:end]) != int.from_bytes(data[at + 22 : at + 26], "little"):
            raise MediaError(f"video is damaged: the Ogg page at byte {at:,} has another checksum.")
        at, last = end, data[at + 5] & 4
    return at if last else max(at, len(data)) + 1


def _checksum(page: bytes) -> int:
    """Of an Ogg page, its own field taken as 0."""
    return ogg_checksum(page[:22] + bytes(4) + page[26:])


def _end_of_packets(data: bytes) -> int:
    return -(-len(data) // TS_PACKET) * TS_PACKET


_ENDS: dict[str, Callable[[bytes], int]] = {
    "mov": _end_of_boxes,
    "matroska": _end_of_segment,
    "avi": _end_of_riffs,
    "ogg": _end_of_pages,
    "mpegts": _end_of_packets,
}
"""Container → the byte at which a whole one ends, as far as it says."""

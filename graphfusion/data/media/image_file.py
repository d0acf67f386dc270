"""Is the file of an image whole? Told by its own lengths, end marks and checksums; Pillow's decoders overlook many."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image as PILImage

from graphfusion.data.media.door import MOST_PARTS

JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""Ends the entropy-coded data of a scan: a marker other than stuffing and restarts."""
PNM_HEADER = re.compile(rb"P([456])" + rb"(?:\s|#[^\n\r]*[\n\r])+(\d+)" * 2)
PNM_DEPTH = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d+)\s")


def damage(image: PILImage.Image, data: bytes) -> str:
    """Why the file `data`, opened as `image` and not yet decoded, is not whole; "" if nothing says so.

    Every cut is noticed. An altered bit is noticed where the format has a checksum (PNG: all of the file) or a structure
    that contradicts it (lengths, markers, sizes of raw pixels); altered pixels of the other formats look like any others.
    """
    try:
        return CHECKS["JPEG" if image.format == "MPO" else image.format or ""](image, data)
    except (IndexError, AttributeError):
        return "it ends before its end mark"


def _number(data: bytes, place: int, size: int, order: Any = "little") -> int:
    if place + size > len(data):
        raise IndexError(place)
    return int.from_bytes(data[place : place + size], order)


def _png(image: PILImage.Image, data: bytes) -> str:
    """https://www.w3.org/TR/png-3/#5Chunk-layout"""
    view, place = memoryview(data), 8
    for _ in range(MOST_PARTS):
        end = place + 12 + _number(data, place, 4, "big")
        if zlib.crc32(view[place + 4 : end - 4]) != _number(data, end - 4, 4, "big"):
            return f"the checksum of chunk {data[place + 4 : place + 8]!r} at byte {place} is wrong"
        if data[place + 4 : place + 8] == b"IEND":
            return ""
        place = end
    return "it has too many chunks"


def _jpeg(image: PILImage.Image, data: bytes) -> str:
    """ITU-T T.81, annex B"""
    place = 2
    for _ in range(MOST_PARTS):
        found = JPEG_MARKER.match(data, place)
        if not found:
            return f"no marker at byte {place}" if place < len(data) else "it ends before its end mark"
        marker, place = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return ""
        place += _number(data, place, 2, "big")
        if marker == 0xDA:
            place = JPEG_MARKER.search(data, place).start()  # type: ignore[union-attr] # None: AttributeError above
    return "it has too many segments"


def _gif(image: PILImage.Image, data: bytes) -> str:
    """https://www.w3.org/Graphics/GIF/spec-gif89a.txt"""
    place = 13 + _gif_table(data[10])
    for _ in range(MOST_PARTS):
        if data[place] == 0x3B:
            return ""
        if data[place] == 0x21:
            place = _gif_blocks(data, place + 2)
        elif data[place] == 0x2C:
            place = _gif_blocks(data, place + 11 + _gif_table(data[place + 9]))
        elif data[place] == 0:  # some writers close a block twice
            place += 1
        else:
            return f"no block is of type {data[place]:#04x}, at byte {place}"
    return "it has too many blocks"


def _gif_table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks(data: bytes, place: int) -> int:
    while data[place]:
        place += 1 + data[place]
    return place + 1


def _webp(image: PILImage.Image, data: bytes) -> str:
    """https://developers.google.com/speed/webp/docs/riff_container"""
    place, end = 12, 8 + _number(data, 4, 4)
    for _ in range(MOST_PARTS):
        if place >= end:
            break
        size = _number(data, place + 4, 4)
        place += 8 + size + size % 2
    return (
        ""
        if place == end <= len(data)
        else f"its parts take {place} bytes, its header says {end}, {len(data)} are there"
    )


def _bmp(image: PILImage.Image, data: bytes) -> str:
    """https://learn.microsoft.com/windows/win32/gdi/bitmap-storage"""
    if _number(data, 2, 4) > len(data):
        return f"{_number(data, 2, 4)} bytes by its header, {len(data)} are there"
    if _number(data, 14, 4) < 40 or _number(data, 30, 4) not in (0, 3):  # OS/2's, or compressed
        return ""
    need = (image.width * _number(data, 28, 2) + 31) // 32 * 4 * image.height
    stated = _number(data, 34, 4)
    if stated and not need <= stated <= need + 3:
        return f"{need} bytes of pixels by its size, {stated} by its header"
    return _length(len(data) - _number(data, 10, 4), need)


def _tiff(image: Any, data: bytes) -> str:
    """TIFF revision 6.0, section 3: strips, and section 15: tiles"""
    tags = image.tag_v2
    tiled = 324 in tags
    places, sizes = tags.get(324 if tiled else 273, ()), tags.get(325 if tiled else 279, ())
    if len(places) != len(sizes) or not places:
        return f"{len(places)} places of {len(sizes)} strips or tiles"
    if any(place + size > len(data) for place, size in zip(places, sizes, strict=True)):
        return "it ends before its pixels"
    if tags.get(259, 1) != 1 or tiled or tags.get(262) == 6:  # compressed, filled up, or colours at half the size
        return ""
    bits = tags.get(258, (1,))
    planes = bits if tags.get(284, 1) == 2 else (sum(bits) * (tags.get(277, 1) if len(bits) == 1 else 1),)
    need = sum((image.width * bit + 7) // 8 for bit in planes) * image.height
    return "" if sum(sizes) == need else f"{need} bytes of pixels by its size, {sum(sizes)} by its strips"


def _ppm(image: PILImage.Image, data: bytes) -> str:
    """https://netpbm.sourceforge.net/doc/ppm.html"""
    if data[1:2] in b"123":
        return "" if data[-1:].isspace() else "its last number may be cut: no white space follows"
    if data[1:2] == b"f":
        return _length(len(data) - image.tile[0].offset, image.width * image.height * 4)  # type: ignore[attr-defined]
    size = PNM_HEADER.match(data)
    depth = PNM_DEPTH.match(data, size.end()) if size else None
    if size is None or (depth is None and size[1] != b"4"):
        return "no size in its header"
    if size[1] == b"4":
        return _length(len(data) - size.end() - 1, (image.width + 7) // 8 * image.height, exact=True)
    wide = (1 if depth and int(depth[1]) < 256 else 2) * (3 if size[1] == b"6" else 1)
    return _length(len(data) - (depth.end() if depth else 0), image.width * image.height * wide, exact=True)


def _length(there: int, need: int, exact: bool = False) -> str:
    """What is wrong with the bytes that are there for pixels; an `exact` format may only add an end of line."""
    if there < need or (exact and there > need + 2):
        return f"{need} bytes of pixels by its size, {there} are there"
    return ""


CHECKS: dict[str, Callable[[Any, bytes], str]] = {
    "PNG": _png, "JPEG": _jpeg, "GIF": _gif, "WEBP": _webp, "BMP": _bmp, "TIFF": _tiff, "PPM": _ppm,
}  # fmt: skip

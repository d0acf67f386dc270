"""Images and sounds that are made for the checks: of every kind, cut, altered, and far too large by their headers."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from graphfusion.data.media.audio_file import ogg_checksum

Bytes8 = NDArray[np.uint8]


def picture(height: int = 24, width: int = 32, noise: int = 16) -> Bytes8:
    """(height, width, 3) slopes of colour under a little noise, with four corners that differ."""
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 200 // width, y * 220 // height, (x + y) * 120 // (width + height)], -1)
    return (slopes + np.random.default_rng(0).integers(0, max(noise, 1), slopes.shape)).astype(np.uint8)


def encoded(pixels: Any, format: str, mode: str | None = None, **options: Any) -> bytes:  # noqa: A002 - Pillow's word
    """The file of an array or PIL image, converted to `mode`."""
    image = pixels if isinstance(pixels, PILImage.Image) else PILImage.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format, **options)
    return buffer.getvalue()


def images() -> dict[str, list[bytes]]:
    """Files of the seven formats, two to four variants each."""
    colour, deep = picture(), picture()[..., 0].astype(np.uint16) * 257
    return {
        "PNG": [
            encoded(colour, "PNG"),
            encoded(colour, "PNG", "P"),
            encoded(colour, "PNG", "LA"),
            encoded(deep, "PNG"),
        ],
        "JPEG": [encoded(colour, "JPEG"), encoded(colour, "JPEG", progressive=True), encoded(colour, "JPEG", "L")],
        "WEBP": [encoded(colour, "WEBP"), encoded(colour, "WEBP", lossless=True), encoded(colour, "WEBP", "RGBA")],
        "BMP": [encoded(colour, "BMP"), encoded(colour, "BMP", "L")],
        "GIF": [encoded(colour, "GIF"), encoded(colour, "GIF", "L")],
        "TIFF": [encoded(colour, "TIFF"), encoded(deep, "TIFF")]
        + [encoded(colour, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate")],
        "PPM": [encoded(colour, "PPM"), encoded(colour, "PPM", "L"), encoded(deep, "PPM")],
    }


def tone(rate: int, seconds: float = 0.5) -> NDArray[np.float32]:
    """(samples,) 440 Hz at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def sound(wave: NDArray[np.float32], rate: int, format: str, subtype: str) -> bytes:  # noqa: A002 - libsndfile's word
    """The file of `(samples,)` or `(samples, channels)`."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=format, subtype=subtype)
    return buffer.getvalue()


SOUND_KINDS = {
    "WAV": ("WAV", "PCM_16"), "WAV float": ("WAV", "FLOAT"), "AIFF": ("AIFF", "PCM_16"), "FLAC": ("FLAC", "PCM_16"),
    "FLAC 24": ("FLAC", "PCM_24"), "Vorbis": ("OGG", "VORBIS"), "Opus": ("OGG", "OPUS"), "MP3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip


def sounds() -> dict[str, bytes]:
    """One short file of each of eight kinds."""
    return {name: sound(tone(16_000), 16_000, *kind) for name, kind in SOUND_KINDS.items()}


def altered(data: bytes, rng: np.random.Generator) -> bytes:
    """With one bit, anywhere, changed."""
    bit = int(rng.integers(8 * len(data)))
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG whose compressed rows are `rows`, after the chunks `more`."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF of frames of one pixel on a canvas of any size."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3 + frame * frames + b"\x3b"
    )


def deflated(size: int) -> bytes:
    """Zlib's form of `size` zeros."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block[: min(len(block), size - place)]) for place in range(0, size, len(block))]
    return b"".join(parts) + packer.flush()


def long_flac(hours: float) -> bytes:
    """Silence at 8 kHz."""
    import soundfile

    buffer, minute = io.BytesIO(), np.zeros(8_000 * 60, np.int16)
    with soundfile.SoundFile(buffer, "w", 8_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)
    return buffer.getvalue()


def bombs(full: bool) -> dict[str, bytes]:
    """Sixteen files that are small and would be large, or say that they are; `full` makes the largest in earnest."""
    side, text, hours = (60_000, 200, 10.0) if full else (15_000, 50, 0.1)
    small = picture(16, 16)
    jpeg, webp, bmp = encoded(small, "JPEG"), encoded(small, "WEBP", lossless=True), encoded(small, "BMP")
    size = jpeg.index(b"\xff\xc0") + 5
    flac = sound(tone(16_000), 16_000, "FLAC", "PCM_16")
    wav, mp3 = sound(tone(16_000), 16_000, "WAV", "PCM_16"), sound(tone(16_000), 16_000, "MP3", "MPEG_LAYER_III")
    count = mp3.index(b"Xing") + 8
    large = PILImage.new("RGB", (7_200, 7_200) if full else (3_000, 3_000))
    return {
        "PNG, huge": png(side, side, 1, 0, deflated((side // 8 + 1) * side)),
        "PNG, as large as is read": encoded(large, "PNG"),
        "PNG, text of 200 MB": png(1, 1, 8, 0, zlib.compress(bytes(2)), chunk(b"zTXt", b"a\0\0" + deflated(text << 20))),
        "GIF, 10,000 frames": gif(64, 64, 10_000),
        "GIF, huge canvas": gif(65_535, 65_535, 1),
        "JPEG, lying size": jpeg[:size] + struct.pack(">HH", 65_500, 65_500) + jpeg[size + 4 :],
        "WEBP, lying size": webp[:21] + struct.pack("<I", 0x0FFFFFFF) + webp[25:],
        "BMP, lying size": bmp[:18] + struct.pack("<ii", 1 << 30, 1 << 30) + bmp[26:],
        "TIFF, lying size": _retagged(encoded(small, "TIFF"), {256: 100_000, 257: 100_000}),
        "PPM, lying size": b"P6 60000 60000 255\n" + bytes(100),
        "FLAC, 10 hours": long_flac(hours),
        "FLAC, lying length": flac[:21] + bytes([flac[21] | 15]) + b"\xff" * 4 + flac[26:],
        "WAV, lying length": wav[:4] + struct.pack("<I", 0xFFFFFFF0) + wav[8:40] + struct.pack("<I", 0xFFFFFF00) + wav[44:],
        "WAV, lying channels": wav[:22] + struct.pack("<HI", 1024, 768_000) + wav[28:],
        "Vorbis, lying length": _renumbered(sound(tone(16_000), 16_000, "OGG", "VORBIS")),
        "MP3, lying length": mp3[:count] + b"\xff" * 4 + mp3[count + 4 :],
    }  # fmt: skip


def _retagged(tiff: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF with other 32-bit values of some tags."""
    data = bytearray(tiff)
    start = int.from_bytes(data[4:8], "little")
    for place in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        tag = int.from_bytes(data[place : place + 2], "little")
        if tag in values:
            data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, values[tag])
    return bytes(data)


def _renumbered(ogg: bytes) -> bytes:
    """With a last page, correctly signed, that claims the end of the stream at 2^62 samples."""
    place = ogg.rindex(b"OggS")
    page = (
        ogg[place : place + 6]
        + struct.pack("<q", 1 << 62)
        + ogg[place + 14 : place + 22]
        + bytes(4)
        + ogg[place + 26 :]
    )
    return ogg[:place] + page[:22] + struct.pack("<I", ogg_checksum(page)) + page[26:]

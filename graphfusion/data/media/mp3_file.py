"""How long is an MP3, and is it whole? It has no length but that of its frames, and seldom a count of them."""

from __future__ import annotations

import re
from typing import BinaryIO

from graphfusion.errors import MediaError

XING = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", re.DOTALL)
MP3_RATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""kbit/s of MPEG 2 and of MPEG 1, layer III."""
MP3_FILLING = 2048
MOST_FRAMES = 2_000_000
"""Frames that are walked over: half a day."""


def mp3_samples(file: BinaryIO, estimated: int) -> int:
    """Samples a channel of an MP3: by its own count (`Xing`), which libsndfile gives as `estimated`, or else by its frames.

    Raises:
        MediaError: the frames do not follow each other up to the end, are not as many as the file says, or go on where
            libsndfile, which knows files without a count by the rate of the first frame, would stop.
    """
    place, size = file.tell(), file.seek(0, 2)
    count, samples, counted = _mp3_frames(file, size)
    file.seek(place)
    if counted:
        stated = int.from_bytes(counted[1])
        if not 0 <= count - stated <= 1:  # the frame that holds the count may be counted itself
            raise MediaError(f"damaged MP3: {stated:,} frames by its header, {count:,} are there.")
        return estimated
    if estimated < (count - 1) * samples:
        raise MediaError("MP3 of varying rate without a count of its frames; convert it to another format.")
    return min(estimated, count * samples)


def _mp3_frames(file: BinaryIO, size: int) -> tuple[int, int, re.Match[bytes] | None]:
    """How many frames follow each other, the samples of the last, and the count that the first one holds."""
    place, count, samples, counted = 0, 0, 0, None
    for _ in range(MOST_FRAMES):
        if place >= size:
            break
        file.seek(place)
        head = file.read(128)
        length, samples_here = _mp3_frame(head[:4])
        if head.startswith(b"ID3"):
            length = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        elif head.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN")) or _is_filling(file, place, size):
            break
        if not length or place + length > size:
            raise MediaError(f"damaged MP3: {'the last frame is cut' if length else 'no frame'} at byte {place}.")
        if samples_here:
            counted = counted if count else XING.search(head)
            count, samples = count + 1, samples_here
        place += length
    return count, samples, counted


def _mp3_frame(head: bytes) -> tuple[int, int]:
    """Bytes and samples of the frame of layer III with this header (ISO/IEC 11172-3 and 13818-3); zeros if it is none."""
    bits = int.from_bytes(head)
    version, layer, rate, speed = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if len(head) < 4 or bits >> 21 != 0x7FF or version == 1 or layer != 1 or rate in (0, 15) or speed == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    hertz = (44_100, 48_000, 32_000)[speed] >> {3: 0, 2: 1, 0: 2}[version]
    return samples * MP3_RATES[version == 3][rate] * 125 // hertz + (bits >> 9 & 1), samples


def _is_filling(file: BinaryIO, place: int, size: int) -> bool:
    """Whether only a few zeros follow; many are the hole of a file that was not fetched to its end."""
    if size - place > MP3_FILLING:
        return False
    file.seek(place)
    return not file.read().strip(b"\0")

"""The door for videos: path or bytes in, a few small pictures with their seconds out.

FFmpeg is given bytes, never a name, and may not open anything by itself: playlists and other lists of names are refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.media import is_file_cell, naming, open_media, unwrap
from graphfusion.data.media.containers import check_whole
from graphfusion.errors import ConfigError, MediaError

CODECS = (
    "h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "mjpeg", "theora",
    "ffv1",
)  # fmt: skip
"""Decoders that are used; the others are hardly tested."""
MAX_PIXELS = 36_000_000
"""Of one picture; 8192 x 4320 are fewer."""
MAX_PIXELS_PER_SECOND = 500_000_000
"""Decoded on average; 60 pictures of 3840 x 2160 are as many. A picture counts for a thousandth of it at least."""


@dataclass(frozen=True)
class Clip:
    """Pictures of a video: `pictures` (n, channels, size, size) uint8; `seconds` (n, 2), when each begins and ends to be
    shown, in the time of the file (0: where the first of its streams begins); `cut`: whether there are later ones.
    """

    pictures: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    cut: bool


def read_video(cell: Any, root: Path, size: int, channels: int, frames_per_second: float, max_seconds: float) -> Clip:
    """At most `frames_per_second` pictures a second of a video, cut after `max_seconds`.

    Of the pictures that begin in the same 1 / `frames_per_second` seconds the first is kept, and shown until the next
    one that is kept. `cell` is a path, bytes, or a mapping with `bytes` or `path`. Pictures are turned upright as the file
    says and scaled to `size` x `size`; `channels`: 1 (grey) or 3 (RGB). The first stream of pictures counts, never a cover.

    Raises:
        MediaError: the cell is none of these, is cut short, has no pictures, or cannot be decoded to the end.
        ConfigError: PyAV is not installed.
    """
    with naming(cell):
        cell = unwrap(cell)
        if not is_file_cell(cell):
            raise MediaError(f"video: expected a path or bytes, got {type(cell).__name__} {str(cell)[:60]!r}.")
        with open_media(cell, root) as file:
            data = file.read()
        return _decode(data, check_whole(data), size, channels, frames_per_second, max_seconds)


def _decode(
    data: bytes, container: str, size: int, channels: int, frames_per_second: float, max_seconds: float
) -> Clip:
    av = pyav()
    try:
        with av.open(io.BytesIO(data), format=container, options=_options(), metadata_errors="replace") as file:
            return _keep(_shown(file, max_seconds), size, channels, frames_per_second, max_seconds)
    except MediaError:
        raise
    except Exception as error:  # PyAV raises whatever fits FFmpeg's code
        said = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"not a readable video ({len(data):,} bytes of {container}): {said}") from error


def pyav() -> Any:
    """The module `av`; ConfigError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigError("videos are read with PyAV, which is not installed: pip install av.") from error
    return av


def _options() -> dict[str, str]:
    """FFmpeg's: no file or address beside the bytes, known decoders only, an error where it would patch a picture up."""
    return {
        "protocol_whitelist": "none",
        "codec_whitelist": ",".join(CODECS),
        "err_detect": "crccheck+explode",
        "max_pixels": str(MAX_PIXELS),
        "threads": "1",
    }


def _shown(file: Any, max_seconds: float) -> Iterator[tuple[float, float, Any]]:
    """(start, end, frame) of each picture, in order; so many that `max_seconds` of them are no burden."""
    stream = _pictures(file)
    origin, step = (file.start_time or 0) / 1e6, float(1 / (stream.average_rate or 25))
    counted = file.format.name == "avi"  # its frames are so many a second; their times are in the order of decoding
    start, spent = -step, 0.0
    for packet in file.demux(stream):
        for frame in _decoded(packet):
            time = None if counted or frame.time is None else frame.time - origin
            start = start + step if time is None or time <= start else time
            spent += max(frame.width * frame.height, MAX_PIXELS_PER_SECOND / 1000)
            if spent > MAX_PIXELS_PER_SECOND * max_seconds:
                most = f"{MAX_PIXELS_PER_SECOND:,} pixels a second"
                raise MediaError(f"video is too large to decode: at most {most} are read; make its pictures smaller.")
            yield start, start + (float((frame.duration or 0) * frame.time_base) or step), frame


def _pictures(file: Any) -> Any:
    """The first stream of moving pictures, its decoder set up."""
    streams = [s for s in file.streams.video if not s.disposition & type(s.disposition).attached_pic]
    if not streams:
        found = ", ".join(sorted({s.type for s in file.streams})) or "nothing"
        raise MediaError(f"video has no pictures; the file holds {found}.")
    context = streams[0].codec_context
    if context is None or context.name not in CODECS:
        name = context.name if context else "an unknown codec"
        raise MediaError(f"video: pictures in {name} are not read; known: {', '.join(CODECS)}.")
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(f"video has {context.width} x {context.height} pixels; at most {MAX_PIXELS:,} are read.")
    context.options = {k: v for k, v in _options().items() if k != "protocol_whitelist"}
    return streams[0]


def _decoded(packet: Any) -> Iterator[Any]:
    if packet.is_corrupt:
        raise MediaError("video is damaged: a packet is not whole.")
    for frame in packet.decode():
        if frame.is_corrupt:
            raise MediaError("video is damaged: a picture cannot be decoded in full.")
        yield frame


def _keep(
    shown: Iterator[tuple[float, float, Any]], size: int, channels: int, frames_per_second: float, max_seconds: float
) -> Clip:
    pictures: list[NDArray[np.uint8]] = []
    starts: list[float] = []
    last, until, cut = -1, 0.0, False
    for start, end, frame in shown:
        if start >= max_seconds:
            cut = True
            break
        slot, until = int(start * frames_per_second + 1e-6), end
        if slot > last:
            pictures.append(_picture(frame, size, channels))
            starts.append(start)
            last = slot
    if not pictures:
        raise MediaError(f"video has no picture in its first {max_seconds:g} seconds.")
    return Clip(np.stack(pictures), np.stack([starts, [*starts[1:], min(until, max_seconds)]], 1), cut)


def _picture(frame: Any, size: int, channels: int) -> NDArray[np.uint8]:
    """(channels, size, size), upright."""
    form = "gray" if channels == 1 else "rgb24"
    array = frame.to_ndarray(format=form, width=size, height=size, interpolation="AREA")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    picture = array.reshape(size, size, channels).transpose(2, 0, 1)
    return picture if matrix is None else _upright(picture, np.frombuffer(bytes(matrix), np.int32))


def _upright(picture: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """A point (x, y) is shown at (a x + c y, b x + d y); by quarter turns and mirrors, the nearest where it is askew."""
    a, b, _, c, d = matrix[:5].astype(np.int64).tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(1, 2), c, b
    picture = picture[:, :, ::-1] if a < 0 else picture
    return picture[:, ::-1] if d < 0 else picture

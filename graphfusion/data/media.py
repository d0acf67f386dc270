"""The one door for images and sounds: path, bytes, PIL image, array or tensor in, one canonical array out."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps

from graphfusion.errors import MediaError

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024 * 1024
RATES = (1_000, 768_000)
"""Lowest and highest rate of a sound in Hz; a filter between rates beyond these would not fit in memory."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Image formats that are decoded; others may start programs (EPS) or are hardly tested."""
FloatArray = NDArray[np.float32]


def media_path(cell: str | os.PathLike[str], root: Path) -> Path:
    """The file that a cell names, held under `root`.

    Raises:
        MediaError: the path is an address, leaves `root` (also by a link), is no regular file, or is too large.
    """
    text = os.fspath(cell)
    if "\0" in text or "://" in text or text.startswith("~"):
        raise MediaError(f"{text!r} is not a plain path below {root}; addresses and '~' are never followed.")
    try:
        path = (root / text).resolve()
        if not path.is_relative_to(root):
            raise MediaError(f"{text!r} leads outside {root}; pass media_root= a folder that holds all media files.")
        if not path.is_file():
            raise MediaError(f"{text!r}: no such file below {root}.")
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{text!r} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read.")
    except OSError as error:
        raise MediaError(f"{text[:80]!r}: cannot be looked at: {error}") from error
    return path


def _read_bytes(cell: Any, root: Path) -> bytes:
    """The content of a path or of bytes, within the limit of bytes."""
    if isinstance(cell, str | os.PathLike):
        path = media_path(cell, root)
        try:
            return path.read_bytes()
        except OSError as error:
            raise MediaError(f"{os.fspath(cell)!r}: cannot be read: {error}") from error
    if len(cell) > MAX_BYTES:
        raise MediaError(f"cell has {len(cell):,} bytes; at most {MAX_BYTES:,} are read.")
    return bytes(cell)


def read_image(cell: Any, root: Path, channels: int = 3) -> FloatArray:
    """An image as `(channels, height, width)` float32 in [0, 1].

    `cell` is a path, bytes, a PIL image, a mapping with `bytes` or `path`, or an array or tensor `(h, w)`, `(h, w, c)` or
    `(c, h, w)`: 16-bit integers are divided by 65,535, other integers must lie in 0 … 255, floats in [0, 1]. EXIF rotation is
    applied, transparency is laid on white, of several frames the first is taken.

    Raises:
        MediaError: the cell is none of these, or cannot be decoded.
    """
    cell = _unwrap(cell)
    if isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        cell = _decode_image(_read_bytes(cell, root))
    array = _pil_array(cell) if isinstance(cell, PILImage.Image) else _image_array(cell)
    return _to_channels(array, channels)


def _unwrap(cell: Any) -> Any:
    if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):
        inner = cell.get("bytes")
        return cell.get("path") if inner is None else inner
    return cell


def _decode_image(data: bytes) -> PILImage.Image:
    try:
        image = PILImage.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise MediaError(f"image has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read.")
        image.load()
        return image
    except MediaError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their format raises
        raise MediaError(f"not a readable image ({len(data)} bytes): {_said(error)}") from error


def _said(error: Exception) -> str:
    """The message of a decoder, without the address of our buffer in it."""
    return re.sub(r" ?<_io\.BytesIO[^>]*>:?", "", str(error))


def _pil_array(image: PILImage.Image) -> FloatArray:
    """(h, w, c) in [0, 1] of any PIL mode."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # an image opened lazily may turn out to be damaged here
        raise MediaError(f"not a readable image: {error}") from error
    if image.mode.startswith("I"):  # 16-bit greys: PIL's own conversion clips them to 8 bits
        return (np.asarray(image).astype(np.float32) / 65535.0).clip(0, 1)[..., None]
    if image.mode == "F":
        return np.asarray(image, np.float32).clip(0, 1)[..., None]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PILImage.new("RGBA", image.size, (255, 255, 255, 255))
        image = PILImage.alpha_composite(white, image)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    array = np.asarray(image.convert(mode), np.float32) / 255.0
    return array[..., None] if array.ndim == 2 else array


def _image_array(cell: Any) -> FloatArray:
    """(h, w, c) in [0, 1] of an array, tensor or nested list."""
    array = as_array(cell, "image")
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise MediaError(f"image array: expected (h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 c, got {array.shape}.")
    array = _scaled_pixels(array)
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise MediaError(f"image array: expected floats in [0, 1], got {array.min():.4g} to {array.max():.4g}.")
    if array.shape[-1] == 4:
        array = array[..., :3] * array[..., 3:] + (1 - array[..., 3:])
    return array


def _scaled_pixels(array: NDArray[Any]) -> FloatArray:
    if not np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32)
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if array.min() < 0 or array.max() > 255:
        raise MediaError(f"image array of {array.dtype}: expected 0 to 255, got {array.min()} to {array.max()}.")
    return array.astype(np.float32) / np.float32(255)


def _to_channels(array: FloatArray, channels: int) -> FloatArray:
    if array.shape[-1] == 1 and channels == 3:
        array = np.repeat(array, 3, axis=-1)
    elif array.shape[-1] == 3 and channels == 1:
        array = array @ np.array([[0.299], [0.587], [0.114]], np.float32)  # ITU-R BT.601 luma, as Pillow's "L"
    return np.ascontiguousarray(np.moveaxis(array, -1, 0), dtype=np.float32)


def read_audio(cell: Any, root: Path, rate: int, array_rate: int, max_seconds: float) -> FloatArray:
    """A sound as mono float32 `(samples,)` in [-1, 1] at `rate` Hz, cut after `max_seconds`.

    `cell` is a path, bytes, a mapping with `array` and `sampling_rate`, one with `bytes` or `path`, or a bare array or
    tensor `(samples,)`, `(channels, samples)` or `(samples, channels)` at `array_rate` Hz: 8- and 16-bit integers are
    scaled by the range of their type, wider ones are taken for 16-bit samples; the shorter axis holds the channels.

    Raises:
        MediaError: the cell is none of these, or cannot be decoded.
    """
    if isinstance(cell, Mapping) and cell.get("array") is not None:
        source_rate = _rate(cell.get("sampling_rate") or array_rate)
        wave = _mono(as_array(cell["array"], "sound"))
    else:
        wave, source_rate = _decode_audio(_unwrap(cell), root, array_rate, max_seconds)
    source_rate = _rate(source_rate)
    wave = wave[: int(max_seconds * source_rate)]
    if not np.isfinite(wave).all():
        raise MediaError("sound has NaN or infinite samples.")
    return _resample(wave, source_rate, rate)


def _decode_audio(cell: Any, root: Path, array_rate: int, max_seconds: float) -> tuple[FloatArray, int]:
    if not isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        return _mono(as_array(cell, "sound")), array_rate
    import soundfile

    cell = _read_bytes(cell, root)
    try:
        with soundfile.SoundFile(io.BytesIO(cell)) as file:
            _rate(file.samplerate)
            frames = file.read(int(max_seconds * file.samplerate), dtype="float32", always_2d=True)
            return frames.mean(axis=1), int(file.samplerate)
    except MediaError:
        raise
    except (soundfile.SoundFileError, ValueError, RuntimeError) as error:
        raise MediaError(f"not a readable sound ({len(cell)} bytes): {_said(error)}") from error


def _rate(value: Any) -> int:
    """A rate in Hz within `RATES`; MediaError otherwise."""
    if not isinstance(value, int | float | np.number) or not RATES[0] <= value <= RATES[1]:
        raise MediaError(f"sound: expected a rate of {RATES[0]:,} to {RATES[1]:,} Hz, got {value!r}.")
    return int(value)


def _mono(array: NDArray[Any]) -> FloatArray:
    if array.ndim not in (1, 2):
        raise MediaError(f"sound array: expected (samples,) or (channels, samples), got {array.shape}.")
    wave = _scaled_samples(array)
    return wave if wave.ndim == 1 else wave.mean(axis=int(np.argmin(wave.shape)))


def _scaled_samples(array: NDArray[Any]) -> FloatArray:
    if not np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / np.float32(128)
    if array.dtype == np.int8:
        return array.astype(np.float32) / np.float32(128)
    if array.size and (array.min() < -32768 or array.max() > 32767):
        raise MediaError(
            f"sound array of {array.dtype}: expected 16-bit samples, got {array.min()} to {array.max()}; pass floats."
        )
    return array.astype(np.float32) / np.float32(32768)


def _resample(wave: FloatArray, source: int, target: int) -> FloatArray:
    if source == target or not len(wave):
        return wave.astype(np.float32)
    from scipy.signal import resample_poly

    common = gcd(source, target)
    return np.asarray(resample_poly(wave, target // common, source // common), np.float32)


def as_array(cell: Any, what: str) -> NDArray[Any]:
    """A numeric numpy array of a cell that is an array, a tensor or nested lists of numbers."""
    if hasattr(cell, "detach"):
        cell = cell.detach().cpu().numpy()
    if not isinstance(cell, np.ndarray | list | tuple):
        raise MediaError(f"{what}: cannot be read from {type(cell).__name__} {str(cell)[:60]!r}.")
    try:
        array = np.asarray(cell)
    except ValueError as error:
        raise MediaError(f"{what}: the numbers do not form an array: {error}") from error
    if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
        raise MediaError(f"{what}: expected numbers, got an array of {array.dtype}.")
    return array

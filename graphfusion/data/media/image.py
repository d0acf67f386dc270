"""Images in: path, bytes, PIL image, array or tensor → one float array."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL.Image import Transpose

from graphfusion.data.media import FloatArray, as_array, is_file_cell, naming, open_media, unwrap
from graphfusion.data.media.image_file import damage
from graphfusion.errors import MediaError

MAX_IMAGE_BYTES = 128 * 1024 * 1024
MAX_DECODED = 208_000_000
"""Bytes that a decoder may need: 52 million pixels of most files, 26 of those with transparency, palette or 16 bits, 20 of
a progressive JPEG, 13 of a WEBP."""
FULL_PIXELS = 8_400_000
"""Pixels of an image that are read one by one; a larger one is read at a half, a third … of its sides (means of squares)."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Image formats that are decoded; others may start programs (EPS) or are hardly tested."""
PLAIN_MODES = ("1", "L", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "F")
WHOLE_MODES = {"1": "L", "La": "LA", "RGBa": "RGBA", "I;16": "I", "I;16B": "I", "I;16L": "I", "I;16N": "I"}
"""Mode → one of the same content that Pillow can shrink and convert."""
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
"""Orientation of EXIF → how such an image is turned upright."""
ORIENTATION = 0x0112


def read_image(cell: Any, root: Path, channels: int = 3) -> FloatArray:
    """An image as `(channels, height, width)` float32 in [0, 1].

    `cell` is a path, bytes, a PIL image, a mapping with `bytes` or `path`, or an array or tensor `(h, w)`, `(h, w, c)` or
    `(c, h, w)`: 16-bit integers are divided by 65,535, other integers must lie in 0 … 255, floats in [0, 1]. The type of a
    file is told by its content, never by its name; it must be whole by its own lengths, end marks and checksums. EXIF
    rotation is applied, transparency is laid on white, 16-bit colours are read at 8 bits (16-bit greys in full), of several
    frames the first is taken. An image of more than `FULL_PIXELS` is read smaller.

    Raises:
        MediaError: the cell is none of these, too large, damaged, or cannot be decoded.
    """
    return read_sized_image(cell, root, channels)[0]


def read_sized_image(cell: Any, root: Path, channels: int = 3) -> tuple[FloatArray, tuple[int, int]]:
    """As `read_image`, and the image's own (height, width), which differs from the array's above `FULL_PIXELS`."""
    with naming(cell):
        inner = unwrap(cell)
        if is_file_cell(inner):
            with open_media(inner, root, MAX_IMAGE_BYTES) as file:
                image = _decode(file.read(MAX_IMAGE_BYTES))
        elif isinstance(inner, PILImage.Image):
            image = inner
        else:
            array = _image_array(inner)
            return _to_channels(array, channels), (array.shape[1], array.shape[2])
        try:
            shrunk, size = _upright(image)
            del image
            return _to_channels(_pil_array(shrunk), channels), size
        except MediaError:
            raise
        except Exception as error:  # opened lazily, or damaged EXIF
            raise MediaError(f"not a readable image: {_said(error)}") from error


def _decode(data: bytes) -> PILImage.Image:
    try:
        image = PILImage.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image)
        reason = damage(image, data)
        if reason:
            raise MediaError(f"damaged {image.format} ({len(data)} bytes): {reason}.")
        image.load()
        return image
    except MediaError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their format raises
        start = f"{len(data)} bytes that start with {data[:12]!r}" if data else "0 bytes"
        raise MediaError(f"not a readable image ({start}): {_said(error)}") from error


def _said(error: Exception) -> str:
    """The message of a decoder, without the address of our buffer in it."""
    return re.sub(r" ?<_io\.B[^>]*>:?", "", str(error))


def _check_size(image: PILImage.Image) -> None:
    """MediaError if decoding the image would take more than `MAX_DECODED` bytes."""
    if image.format == "WEBP":
        cost = 16  # measured: peak bytes a pixel while Pillow decodes
    elif image.info.get("progressive"):
        cost = 10
    else:
        cost = 4 if image.mode in PLAIN_MODES and not image.has_transparency_data else 8
    if image.width * image.height * cost > MAX_DECODED:
        raise MediaError(
            f"image has {image.width:,} x {image.height:,} pixels; at most {MAX_DECODED // cost:,} of a "
            f"{image.format or 'PIL'} image ({image.mode}) are read. Make it smaller."
        )


def _upright(image: PILImage.Image) -> tuple[PILImage.Image, tuple[int, int]]:
    """The image turned upright and of at most about `FULL_PIXELS`; its own (height, width)."""
    _check_size(image)
    image.load()
    width, height = image.size
    turn = image.getexif().get(ORIENTATION)
    factor = int(np.ceil(np.sqrt(width * height / FULL_PIXELS)))
    if factor > 1:
        image = _opened_up(image).reduce(factor)
    if turn in UPRIGHT:
        image = image.transpose(UPRIGHT[turn])
    return image, (width, height) if turn in (5, 6, 7, 8) else (height, width)


def _opened_up(image: PILImage.Image) -> PILImage.Image:
    """The image in a mode whose values can be averaged."""
    if image.mode in WHOLE_MODES:
        return image.convert(WHOLE_MODES[image.mode])
    if image.mode not in ("LA", "RGBA") and (image.mode in ("P", "PA") or image.has_transparency_data):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _pil_array(image: PILImage.Image) -> FloatArray:
    """(c, h, w) in [0, 1] of any PIL mode."""
    if image.mode.startswith("I"):  # 16-bit greys: PIL's own conversion clips them to 8 bits
        return _in_range(np.asarray(image)[None] / np.float32(65535), "16-bit greys")
    if image.mode == "F":
        return _in_range(np.asarray(image, np.float32)[None], "floats in [0, 1]")
    if image.mode in WHOLE_MODES:
        image = image.convert(WHOLE_MODES[image.mode])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
    mode = "L" if image.mode in ("L", "LA") else "RGB"
    array = np.asarray(image.convert(mode))
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    pixels: FloatArray = np.divide(planes, np.float32(255), dtype=np.float32, order="C")
    return pixels


def _in_range(array: NDArray[Any], expected: str) -> FloatArray:
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise MediaError(f"image: expected {expected}, got {array.min():.4g} to {array.max():.4g} (1 is white).")
    return array.astype(np.float32, copy=False)


def _image_array(cell: Any) -> FloatArray:
    """(c, h, w) in [0, 1] of an array, tensor or nested list."""
    array = as_array(cell, "image")
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise MediaError(f"image array: expected (h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 c, got {array.shape}.")
    array = _in_range(_scaled_pixels(np.moveaxis(array, -1, 0)), "floats in [0, 1]")
    return array[:3] * array[3:] + (1 - array[3:]) if len(array) == 4 else array


def _scaled_pixels(array: NDArray[Any]) -> FloatArray:
    if not np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32)
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if array.min() < 0 or array.max() > 255:
        raise MediaError(f"image array of {array.dtype}: expected 0 to 255, got {array.min()} to {array.max()}.")
    return array.astype(np.float32) / np.float32(255)


def _to_channels(array: FloatArray, channels: int) -> FloatArray:
    if len(array) == 1 and channels == 3:
        array = np.repeat(array, 3, axis=0)
    elif len(array) == 3 and channels == 1:
        luma = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"
        array = np.tensordot(luma, array, 1)[None]
    return np.ascontiguousarray(array, dtype=np.float32)

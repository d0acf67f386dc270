"""Images of every kind, cut and altered: read as what they are, or refused with a reason."""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from graphfusion.data import read_image
from graphfusion.errors import MediaError
from graphfusion.selftest import media_cases as make
from graphfusion.selftest.attempt import quiet, tried
from graphfusion.selftest.figure import Figure, count


def i01(work: Path, full: bool) -> Figure:
    """34 images: each is read as the truth that it was made of (mean error ≤ 1 % of white, 4 % where the format is lossy
    or has 8 colours), or refused where that is what is documented (floats and integers out of range).
    """
    cases = {}
    for name, (cell, truth, tolerance) in _odd_images().items():
        file = work / name.rpartition(" as ")[2]
        file.write_bytes(cell)
        cases[name] = _differs(tried(read_image, file.name, work), truth, tolerance)
    return count("I01", "images of every mode, turn and size", cases)


def _odd_images() -> dict[str, tuple[bytes, Any, float]]:
    """Name → (file, truth (h, w, 3) in [0, 1] or None if it is to be refused, tolerance)."""
    colour = make.picture()
    truth, grey = colour / 255, colour[..., :1].repeat(3, -1) / 255
    deep = np.random.default_rng(1).integers(0, 65_536, (24, 32), dtype=np.uint16)
    wide = (deep / 65_535)[..., None].repeat(3, -1)
    alpha = np.full((24, 32, 1), 51, np.uint8)
    on_white = 1 - (1 - truth) * 0.2
    two = np.where(colour[..., :1] > 100, 255, 0).astype(np.uint8)
    file, first = make.encoded, PILImage.fromarray(colour)
    second = PILImage.new("RGB", first.size, "white")
    red = PILImage.new("LAB", (3, 2), (138, 128 + 81, 128 + 70))
    slope = (deep / 65_535).astype(np.float32)
    clear = PILImage.fromarray(np.concatenate([colour, alpha], -1))
    ink = PILImage.merge("CMYK", [*PILImage.fromarray(255 - colour).split(), PILImage.new("L", first.size, 0)])
    deep_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep[..., None].repeat(3, -1))
    cases: dict[str, tuple[bytes, Any, float]] = {
        "RGB": (file(colour, "PNG"), truth, 1e-3),
        "L": (file(colour[..., 0], "PNG"), grey, 1e-3),
        "LA": (file(np.concatenate([colour[..., :1], alpha], -1), "PNG"), 1 - (1 - grey) * 0.2, 0.01),
        "P": (file(first.quantize(256), "PNG"), truth, 0.04),
        "P with transparency": (file(PILImage.new("P", (4, 3)), "PNG", transparency=0), np.ones((3, 4, 3)), 1e-3),
        "RGB with transparency": (
            file(PILImage.new("RGB", (4, 3)), "PNG", transparency=(0, 0, 0)),
            np.ones((3, 4, 3)),
            1e-3,
        ),
        "1": (file(two[..., 0], "PNG", "1"), two.repeat(3, -1) / 255, 1e-3),
        "RGBA": (file(clear, "PNG"), on_white, 0.01),
        "RGBA in WEBP": (file(clear, "WEBP", lossless=True, exact=True), on_white, 0.01),
        "CMYK": (file(ink, "TIFF"), truth, 0.01),
        "CMYK in JPEG": (file(ink, "JPEG", quality=95), truth, 0.04),
        "LAB": (file(red, "TIFF"), np.broadcast_to([1.0, 0, 0], (2, 3, 3)), 0.04),
        "YCbCr": (file(colour, "TIFF", "YCbCr", compression="tiff_adobe_deflate"), truth, 0.02),
        "16-bit grey": (file(deep, "PNG"), wide, 1e-3),
        "16-bit grey TIFF": (file(deep, "TIFF"), wide, 1e-3),
        "16-bit grey TIFF, big-endian": (file(PILImage.fromarray(deep.astype(">u2")), "TIFF"), wide, 1e-3),
        "16-bit grey PGM": (file(deep, "PPM"), wide, 1e-3),
        "16-bit colour": (make.png(32, 24, 16, 2, zlib.compress(deep_rows)), wide, 0.01),
        "float": (file(slope, "TIFF"), wide, 1e-3),
        "float beyond 1": (file(slope * 255, "TIFF"), None, 0),
        "32-bit beyond 16": (file(PILImage.fromarray(deep.astype(np.int32) * 9), "TIFF"), None, 0),
        "frames of a GIF": (file(first, "GIF", save_all=True, append_images=[second]), truth, 0.04),
        "pages of a TIFF": (file(first, "TIFF", save_all=True, append_images=[second]), truth, 1e-3),
        "one pixel": (file(colour[:1, :1], "PNG"), truth[:1, :1], 1e-3),
        "1 x 4000": (file(make.picture(1, 4000), "PNG"), make.picture(1, 4000) / 255, 1e-3),
        "PNG as wrong.jpg": (file(colour, "PNG"), truth, 1e-3),
    }
    return cases | {f"turned {turn}": (_turned(colour, turn), truth, 0.04) for turn in range(1, 9)}


def _turned(upright: Any, turn: int) -> bytes:
    """A JPEG whose EXIF says `turn` and which is `upright` when turned so (EXIF 2.3, tag Orientation)."""
    flat = upright.transpose(1, 0, 2)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: flat, 6: flat[::-1], 7: flat[::-1, ::-1], 8: flat[:, ::-1],
    }[turn]  # fmt: skip
    exif = PILImage.Exif()
    exif[0x0112] = turn
    return make.encoded(np.ascontiguousarray(stored), "JPEG", quality=95, subsampling=0, exif=exif)


def _differs(found: Any, truth: Any, tolerance: float) -> str | None:
    if isinstance(found, MediaError) or truth is None:
        return (
            None
            if isinstance(found, MediaError) and truth is None
            else f"expected {np.shape(truth)}, got {found!r:.200}"
        )
    if found.dtype != np.float32 or found.transpose(1, 2, 0).shape != truth.shape:
        return f"expected float32 {truth.shape}, got {found.dtype} {found.transpose(1, 2, 0).shape}"
    error = float(np.abs(found.transpose(1, 2, 0) - truth).mean())
    return None if error <= tolerance else f"mean error {error:.4f} of white"


def i10(work: Path, full: bool) -> Figure:
    """700 cut and 2,100 altered (one bit) images of seven formats, 21 variants.

    Each cut must be refused. An altered PNG must be refused: each of its bytes is under a checksum. The other formats have
    none: an altered one must be refused or decode to finite values in [0, 1] of the size that its (perhaps altered) header
    states. The note counts what was refused there; the rest are other colours that nobody can tell from the right ones.
    """
    rng, cases, refused = np.random.default_rng(10), dict[str, str | None](), Counter[str]()
    cuts, flips = (100, 300) if full else (9, 15)
    with quiet():
        for name, files in make.images().items():
            for i in range(cuts):
                data = files[i % len(files)]
                found = tried(read_image, data[: int(rng.integers(len(data)))], work)
                cases[f"cut {name} {i}"] = None if isinstance(found, MediaError) else "taken for a whole one"
            for i in range(flips):
                data = make.altered(files[i % len(files)], rng)
                found = tried(read_image, data, work)
                refused[name] += isinstance(found, MediaError)
                cases[f"altered {name} {i}"] = _unsound_image(found, name, data)
    note = "altered and refused: " + ", ".join(f"{name} {n} of {flips}" for name, n in refused.items())
    return count("I10", "cut and altered images", cases, note)


def _unsound_image(found: Any, name: str, data: bytes) -> str | None:
    if isinstance(found, MediaError):
        return None
    if name == "PNG":
        return "an altered bit was not noticed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width, height = PILImage.open(BytesIO(data)).size
    fits = found.shape in ((3, height, width), (3, width, height)) and 0 <= found.min() <= found.max() <= 1
    return None if fits else f"{found.shape} of a header that says {height} x {width}"

"""One image or sound in every form gives one array; what cannot be read says why."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphfusion.data import read_audio, read_image
from graphfusion.errors import MediaError
from tests.conftest import png, wav

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_one_image_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PIXELS))
    expected = PIXELS.transpose(2, 0, 1).astype(np.float32) / 255
    forms = ["a.png", Path("a.png"), str(tmp_path / "a.png"), png(PIXELS), Image.fromarray(PIXELS), PIXELS,
             torch.from_numpy(PIXELS), torch.from_numpy(PIXELS).permute(2, 0, 1), PIXELS / 255, {"bytes": png(PIXELS), "path": None},
             {"bytes": None, "path": "a.png"}]  # fmt: skip
    for form in forms:
        np.testing.assert_allclose(read_image(form, tmp_path), expected, atol=1e-6)


def test_grey_and_colour() -> None:
    grey = PIXELS[..., 0]
    assert read_image(grey, Path(), 3).shape == (3, 5, 7)
    np.testing.assert_allclose(read_image(grey, Path(), 1)[0], grey / 255, atol=1e-6)
    np.testing.assert_allclose(
        read_image(PIXELS, Path(), 1)[0] * 255, np.asarray(Image.fromarray(PIXELS).convert("L")), atol=1
    )


def test_sixteen_bits_are_not_clipped() -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for form in (deep, Image.fromarray(deep)):
        assert abs(read_image(form, Path(), 1).mean() - 0.5) < 0.005


def test_exif_transparency_and_palette() -> None:
    image = Image.new("RGB", (4, 2), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned a quarter
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert read_image(buffer.getvalue(), Path()).shape == (3, 4, 2)
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    np.testing.assert_allclose(read_image(clear, Path()), 1.0)  # laid on white
    palette = Image.fromarray(PIXELS).quantize(4)
    np.testing.assert_allclose(
        read_image(palette, Path()) * 255, np.asarray(palette.convert("RGB")).transpose(2, 0, 1), atol=1e-3
    )


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../a.png", "leads outside"), ("/etc/passwd", "leads outside"), ("http://127.0.0.1/a.png", "addresses"),
        ("~/a.png", "addresses"), ("a\0.png", "addresses"), ("no.png", "no such file"), (".", "no such file"),
        (b"GIF89a nothing", "not a readable image"), (b"", "not a readable image"), (np.zeros((2, 2, 7)), r"\(h, w\)"),
        (np.full((2, 2), 7.0), r"floats in \[0, 1\]"), (np.full((2, 2), np.nan), "floats"), (3.5, "cannot be read from float"),
        ([["a"]], "expected numbers"), ([[0, 999]], "0 to 255"), ([[-1, 3]], "0 to 255"), ("x" * 300 + ".png", "cannot be looked at"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not a readable image"),
    ],
)  # fmt: skip
def test_bad_images_are_named(cell: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=message):
        read_image(cell, tmp_path)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(png(PIXELS))
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MediaError, match="leads outside"):
        read_image("link.png", tmp_path / "root")


def tone(rate: int, seconds: float = 0.2) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def test_one_sound_in_every_form(tmp_path: Path) -> None:
    wave = tone(16_000)
    (tmp_path / "a.wav").write_bytes(wav(wave, 16_000))
    whole = (wave * 32767).astype(np.int16)
    forms = ["a.wav", wav(wave, 16_000), wave, torch.from_numpy(wave), whole, np.stack([wave, wave]),
             {"array": wave, "sampling_rate": 16_000}, {"bytes": wav(wave, 16_000), "path": None}]  # fmt: skip
    for form in forms:
        np.testing.assert_allclose(read_audio(form, tmp_path, 16_000, 16_000, 30.0), wave, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_every_rate_gives_the_same_tone(rate: int) -> None:
    found = read_audio(wav(tone(rate), rate), Path(), 16_000, 16_000, 30.0)
    assert abs(len(found) - 3200) <= 1
    spectrum = np.abs(np.fft.rfft(found))
    assert abs(spectrum.argmax() * 16_000 / len(found) - 440) < 6
    np.testing.assert_allclose(found[200:-200], tone(16_000)[200 : len(found) - 200], atol=0.01)


def test_integers_of_any_width() -> None:
    grey = [[0, 51], [204, 255]]
    for form in (
        grey,
        np.array(grey),
        np.array(grey, np.uint8),
        np.array(grey, np.int32),
        np.array(grey, np.uint16) * 257,
    ):
        np.testing.assert_allclose(read_image(form, Path(), 1)[0], [[0, 0.2], [0.8, 1]], atol=1e-6)
    whole = np.array([0, 16384, -32768])
    for sound in (
        whole,
        whole.tolist(),
        whole.astype(np.int16),
        (whole / 256).astype(np.int8),
        (whole / 256 + 128).astype(np.uint8),
    ):
        np.testing.assert_allclose(read_audio(sound, Path(), 16_000, 16_000, 9.0), [0, 0.5, -1], atol=1e-6)


def test_channels_may_come_first_or_last() -> None:
    left, right = tone(16_000), np.zeros(3200, np.float32)
    for form in (np.stack([left, right]), np.stack([left, right], 1)):
        np.testing.assert_allclose(read_audio(form, Path(), 16_000, 16_000, 9.0), left / 2, atol=1e-6)


def test_long_sounds_are_cut() -> None:
    assert len(read_audio(tone(16_000, 2.0), Path(), 16_000, 16_000, 0.5)) == 8_000
    assert len(read_audio(wav(tone(8_000, 2.0), 8_000), Path(), 16_000, 16_000, 0.5)) == 8_000


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"RIFFxxxx", "not a readable sound"), (np.zeros((2, 2, 2)), r"\(samples,\)"), ("../x.wav", "leads outside"),
        (np.array([0.0, np.inf]), "NaN or infinite"), ({"array": [0.0], "sampling_rate": -1}, "1,000 to 768,000 Hz, got -1"), ({"array": [0.0], "sampling_rate": "fast"}, "got 'fast'"),
        ({"array": [0.0], "sampling_rate": 10**9}, "got 1000000000"), (np.array([10**6]), "16-bit samples"),
    ],
)  # fmt: skip
def test_bad_sounds_are_named(cell: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=message):
        read_audio(cell, tmp_path, 16_000, 16_000, 30.0)

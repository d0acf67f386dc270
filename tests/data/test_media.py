"""One image or sound in every form gives one array; what cannot be read says why."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageFile

from graphfusion.data import Sample, read_audio, read_image
from graphfusion.data.media import image, media_path, open_media
from graphfusion.data.media.audio_file import ogg_checksum
from graphfusion.data.media.image import read_sized_image
from graphfusion.errors import MediaError
from graphfusion.modalities import ImageModality, prepare
from graphfusion.selftest.media_cases import chunk
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
        ("~/a.png", "addresses"), ("a\0.png", "addresses"), ("no.png", "no such file"), (".", "no regular file"), ("\ud800.png", "cannot be looked at"), ("\\\\host\\a.png", "addresses"),
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


def test_a_pipe_and_a_device_are_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for cell, root in (("pipe.png", tmp_path), ("zero", Path("/dev"))):
        with pytest.raises(MediaError, match="no regular file"):
            read_image(cell, root)


def test_a_file_that_becomes_a_pipe_after_it_was_seen_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr("graphfusion.data.media.door.media_path", lambda cell, root: root / cell)
    with pytest.raises(MediaError, match=r"pipe.png.*no regular file any more"):
        open_media("pipe.png", tmp_path)


def test_links_within_the_root_are_followed_and_large_files_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PIXELS))
    (tmp_path / "b.png").symlink_to("a.png")
    assert media_path("b.png", tmp_path) == tmp_path / "a.png"
    with pytest.raises(MediaError, match=r"'b.png': .* at most 10 are read"):
        open_media("b.png", tmp_path, limit=10)


def test_damage_is_seen_although_pillow_is_told_to_overlook_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(PIXELS.repeat(9, 0)).save(buffer, form)
        whole = buffer.getvalue()
        assert read_image(whole, Path()).shape == (3, 45, 7)
        for cut in (1, 2, len(whole) // 3, len(whole) // 2):
            with pytest.raises(MediaError):
                read_image(whole[:-cut], Path())


def test_sizes_are_refused_although_pillow_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(MediaError, match=r"60,000 x 60,000 pixels; at most 52,000,000 of a PPM"):
        read_image(b"P6 60000 60000 255\n" + bytes(99), Path())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_large_image_is_read_smaller_and_tells_its_size(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "FULL_PIXELS", 100)
    kinds = {"I;16": np.full((20, 30), 32768, np.uint16), "1": np.full((20, 30), True)}
    picture = (
        Image.fromarray(kinds[mode])
        if mode in kinds
        else Image.new("RGB", (30, 20), (90, 90, 90)).convert("RGB" if mode == "P" else mode)
    )
    picture = picture.convert("RGB").quantize(8) if mode == "P" else picture
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    pixels, size = read_sized_image(buffer.getvalue(), Path(), 1)
    assert size == (30, 20)
    assert pixels.shape == (1, 10, 7)  # a third
    np.testing.assert_allclose(pixels, {"I;16": 32768 / 65535, "1": 1.0}.get(mode, 90 / 255), atol=0.01)


def test_the_report_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(png(PIXELS)[:-9])
    cells = ["bad.png", {"path": "bad.png", "bytes": None}, png(PIXELS)[:-9], np.full((2, 2), 7.0)]
    samples = [Sample(i, {"photo": cell}) for i, cell in enumerate(cells)]
    _, report = prepare(samples, {"image": ImageModality("photo")}, {"image": ("photo",)}, tmp_path, on_error="missing")
    assert [incident.file for incident in report.incidents] == ["bad.png", "bad.png", "", ""]
    assert "row 0, column 'photo': 'bad.png': damaged PNG" in str(report)
    with pytest.raises(MediaError, match=r"row 0, column 'photo': 'bad.png': damaged PNG"):
        prepare(samples, {"image": ImageModality("photo")}, {"image": ("photo",)}, tmp_path)


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


@pytest.mark.parametrize("rate", [44_101, 7_919, 767_999])
def test_odd_rates_need_no_huge_filter(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.signal

    ratios = []
    resample = scipy.signal.resample_poly
    monkeypatch.setattr(
        scipy.signal, "resample_poly", lambda w, up, down: ratios.append((up, down)) or resample(w, up, down)
    )
    found = read_audio({"array": tone(rate), "sampling_rate": rate}, Path(), 16_000, 16_000, 30.0)
    assert max(ratios[0]) < 200_000
    assert abs(ratios[0][0] / ratios[0][1] / (16_000 / rate) - 1) < 1e-5
    np.testing.assert_allclose(found[200:3000], tone(16_000)[200:3000], atol=0.01)


def mp3(**options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000, 1.0), 16_000, format="MP3", subtype="MPEG_LAYER_III", **options)
    return buffer.getvalue()


def test_an_mp3_is_as_long_as_its_frames() -> None:
    def read(data: bytes) -> np.ndarray:
        return read_audio(data, Path(), 16_000, 16_000, 30.0)

    counted = mp3(bitrate_mode="CONSTANT", compression_level=0.2)
    first = 576  # bytes of the frame that holds the count
    bare = counted[first:]
    assert len(read(counted)) == 16_000
    assert len(read(bare)) % 576 == 0
    assert 16_000 <= len(read(bare)) <= 18_000
    assert len(read(bare + b"TAG" + bytes(125))) == len(read(bare))
    assert len(read(b"ID3\x04\0\0\0\0\0\x05hello" + bare)) == len(read(bare))
    for damaged, message in ((bare[:-1], "last frame is cut"), (counted[: -2 * first], "frames by its header"),
                             (bare + bytes(5000), "no frame"), (bare[:first] + b"x" + bare[first:], "no frame")):  # fmt: skip
        with pytest.raises(MediaError, match=message):
            read(damaged)
    with pytest.raises(MediaError, match="varying rate without a count"):
        read(mp3(bitrate_mode="VARIABLE", compression_level=0.9)[288:])


def test_a_wav_from_a_pipe_is_read_to_its_end() -> None:
    whole = wav(tone(16_000), 16_000)
    piped = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]
    np.testing.assert_array_equal(read_audio(piped, Path(), 16_000, 1, 9.0), read_audio(whole, Path(), 16_000, 1, 9.0))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, (99_999).to_bytes(4, "little"), "bytes by its header"), (40, (99_999).to_bytes(4, "little"), r"b'data' has 99999 bytes"),
        (40, bytes(4), "bytes"), (22, b"\x02", "do not fit its channels"), (8, b"AVI ", "expected WAV"), (36, b"dada", "not a readable sound"),
    ],
)  # fmt: skip
def test_a_wav_with_a_wrong_header_is_refused(place: int, value: bytes, message: str) -> None:
    whole = wav(tone(16_000), 16_000)
    with pytest.raises(MediaError, match=message):
        read_audio(whole[:place] + value + whole[place + len(value) :], Path(), 16_000, 1, 9.0)


def test_a_recording_whose_header_was_never_finished_is_not_taken_for_an_empty_one() -> None:
    whole = wav(tone(16_000), 16_000)
    unfinished = whole[:4] + (36).to_bytes(4, "little") + whole[8:40] + bytes(4) + whole[44:]
    with pytest.raises(MediaError, match="no samples by its header, but 6400 bytes follow"):
        read_audio(unfinished, Path(), 16_000, 1, 9.0)


def test_checksum_of_ogg() -> None:
    def by_the_book(data: bytes) -> int:  # RFC 3533: polynomial 0x04c11db7, from 0, no reflection
        crc = 0
        for byte in data:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
        return crc

    for data in (b"", b"\0", b"OggS", bytes(range(256))):
        assert ogg_checksum(data) == by_the_book(data)


def test_many_channels_of_a_high_rate_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphfusion.data.media.audio.MAX_SAMPLES", 1000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((300, 4)), 48_000, format="WAV")
    with pytest.raises(MediaError, match="300 x 4 samples; at most 1,000"):
        read_audio(buffer.getvalue(), Path(), 16_000, 1, 9.0)
    assert len(read_audio(buffer.getvalue(), Path(), 48_000, 1, 0.001)) == 48


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
        (np.array([0.0, np.inf]), "NaN or infinite"), (np.array([1e30, np.nan]), "NaN"), (b"PK\x03\x04" + bytes(40), "starts with"), ({"array": [0.0], "sampling_rate": -1}, "1,000 to 768,000 Hz, got -1"), ({"array": [0.0], "sampling_rate": "fast"}, "got 'fast'"),
        ({"array": [0.0], "sampling_rate": 10**9}, "got 1000000000"), (np.array([10**6]), "16-bit samples"),
    ],
)  # fmt: skip
def test_bad_sounds_are_named(cell: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=message):
        read_audio(cell, tmp_path, 16_000, 16_000, 30.0)


@pytest.mark.parametrize(
    ("data", "module", "read"),
    [
        (png(PIXELS)[:-12] + chunk(b"tEXt", b"a\0b") * 99 + png(PIXELS)[-12:], "image_file", read_image),
        (b"GIF89a" + bytes(7) + b"\x21\xfe\0" * 99 + b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0\x3b", "image_file", read_image),
        (wav(tone(8_000), 8_000) + b"LIST" + bytes(4) + (b"LIST" + bytes(4)) * 99, "audio_file", read_audio),
    ],
)  # fmt: skip
def test_files_of_countless_parts_are_refused(
    data: bytes, module: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"graphfusion.data.media.{module}.MOST_PARTS", 50)
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:] if data[:4] == b"RIFF" else data
    with pytest.raises(MediaError, match="too many"):
        read(data, Path(), *((8_000, 8_000, 1.0) if read is read_audio else ()))

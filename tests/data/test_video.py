"""One video in every form and container gives the same pictures at the same seconds; what cannot be read says why."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.media import video
from graphfusion.data.media.containers import check_whole, container_of
from graphfusion.data.media.video import read_video
from graphfusion.errors import ConfigError, MediaError
from graphfusion.schema import Video
from graphfusion.selftest.video import KINDS, QUARTERS, colours, make_video, read
from tests.conftest import png, wav

MP4 = make_video()


def short(value: object) -> str | None:
    """Bytes in the name of a test."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else None


def grey(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def numbered(i: int) -> np.ndarray:
    """Frame i has the grey level 10 i."""
    return grey(10 * i)


def test_one_video_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(MP4)
    expected = read(MP4, tmp_path)
    assert expected.pictures.shape == (10, 3, 16, 16)
    forms = [
        "a.mp4",
        Path("a.mp4"),
        str(tmp_path / "a.mp4"),
        bytearray(MP4),
        memoryview(MP4),
        {"bytes": MP4, "path": None},
        {"bytes": None, "path": "a.mp4"},
    ]
    for form in forms:
        found = read(form, tmp_path)
        np.testing.assert_array_equal(found.pictures, expected.pictures)
        np.testing.assert_array_equal(found.seconds, expected.seconds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_same_pictures(kind: str) -> None:
    clip = read(make_video(*KINDS[kind], sound="aac" if kind == "mpeg-ts" else ""), Path())
    np.testing.assert_allclose(clip.seconds[:, 0], np.arange(10) / 5, atol=0.07)
    assert np.abs(colours(clip) - QUARTERS).max() < 80


@pytest.mark.parametrize(
    ("rate", "kept"),
    [(10.0, list(range(10))), (5.0, [0, 2, 4, 6, 8]), (3.0, [0, 4, 7]), (99.0, list(range(10))), (0.5, [0])],
)
def test_the_first_picture_of_each_stretch_is_kept(rate: float, kept: list[int]) -> None:
    data = make_video("matroska", "ffv1", frames=10, picture=numbered)
    clip = read_video(data, Path(), 8, 1, rate, 30.0)
    np.testing.assert_allclose(clip.pictures.mean((1, 2, 3)), [10 * i for i in kept], atol=2)
    np.testing.assert_allclose(clip.seconds[:, 0], np.array(kept) / 10, atol=1e-9)
    np.testing.assert_allclose(clip.seconds[:, 1], np.array([*kept[1:], 10]) / 10, atol=1e-9)


def test_long_videos_are_cut_and_say_so() -> None:
    data = make_video("matroska", "ffv1", frames=10, picture=numbered)
    clip = read_video(data, Path(), 8, 1, 10.0, 0.45)
    assert clip.cut
    np.testing.assert_allclose(clip.seconds[-1], [0.4, 0.45])
    assert not read_video(data, Path(), 8, 1, 10.0, 1.0).cut


def test_grey_is_luma() -> None:
    clip = read_video(make_video("matroska", "ffv1"), Path(), 16, 1, 5.0, 30.0)
    levels = clip.pictures[0, 0][[3, 3, 12, 12], [3, 12, 3, 12]]
    np.testing.assert_allclose(levels, [76, 150, 29, 255], atol=3)  # ITU-R BT.601 of red, green, blue, white


def test_a_picture_is_turned_as_a_phone_says() -> None:
    """The matrix that phones write for a portrait video (ISO/IEC 14496-12, 8.3.2: tkhd), laid into the bytes by hand."""
    at = MP4.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", MP4[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    shown = colours(read(MP4[:at] + matrix + MP4[at + 36 :], Path()))
    assert np.abs(shown - np.rot90(QUARTERS, -1)).max() < 80


def test_a_cover_is_no_video() -> None:
    """A sound with a picture on its sleeve."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        file.add_attachment("cover.png", "image/png", png(grey(9)))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        sound.rate, sound.pts = 8000, 0
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue())) as file:
        assert [s.codec_context.name for s in file.streams.video] == ["png"]
    with pytest.raises(MediaError, match="no pictures"):
        read(buffer.getvalue(), Path())


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../a.mp4", "leads outside"), ("http://127.0.0.1/a.mp4", "addresses"), ("no.mp4", "no such file"),
        (b"", "not a video"), (b"#EXTM3U\nfile:///etc/passwd", "not a video"), (wav(np.zeros(9000), 8000), "not a video"),
        (np.zeros((4, 8, 8, 3)), "expected a path or bytes, got ndarray"), (3.5, "got float"),
        (MP4[:-1], "cut short: [0-9,]+ bytes of mov"), (MP4[:36], "not a readable video .36 bytes of mov"), (MP4[:100], "cut short"), (MP4[:32] + b"\xff" * 999, "mov"),
        (make_video(frames=0, sound="aac"), "no pictures; the file holds audio"),
        (make_video("avi", "wmv2"), "pictures in wmv2 are not read"),
    ],
    ids=short,
)  # fmt: skip
def test_bad_videos_are_named(cell: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=message):
        read(cell, tmp_path)


def test_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.mp4").write_bytes(MP4[:900])
    with pytest.raises(MediaError, match=r"short\.mp4.*cut short"):
        read("short.mp4", tmp_path)


def test_a_list_of_names_opens_no_file(tmp_path: Path) -> None:
    """FFmpeg itself, asked nicely, reads the file that the list names."""
    (tmp_path / "a.mp4").write_bytes(MP4)
    names = f"ffconcat version 1.0\nfile {tmp_path / 'a.mp4'}\n".encode()
    with av.open(io.BytesIO(names), format="concat", options={"safe": "0"}) as file:
        assert len(list(file.decode(video=0))) == 20
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(names), format="concat", options={**video._options(), "safe": "0"})
    with pytest.raises(MediaError, match="not a video"):
        read(names, tmp_path)


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    read(MP4, Path())
    monkeypatch.setattr(video, "MAX_PIXELS_PER_SECOND", 64 * 48 * 20 / 30 - 1)
    with pytest.raises(MediaError, match="too large to decode"):
        read(MP4, Path())
    monkeypatch.undo()
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match=r"64 x 48|not a readable video"):
        read(MP4, Path())


def test_without_pyav_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="not installed: pip install av"):
        read(MP4, Path())


def test_the_package_does_not_load_pyav() -> None:
    code = "import sys, graphfusion.modalities, graphfusion.selftest.video; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def page(flags: int, body: bytes) -> bytes:
    """An Ogg page of one segment; its checksum bit by bit (RFC 3533: polynomial 0x04C11DB7, high bit first)."""
    head, rest, crc = b"OggS\0" + bytes([flags]) + bytes(16), b"\1" + bytes([len(body)]) + body, 0
    for byte in head + bytes(4) + rest:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc >> 31 else 0)
    return head + struct.pack("<I", crc) + rest


FTYP = box(b"ftyp", b"isom")
EBML = b"\x1a\x45\xdf\xa3\x84name"


@pytest.mark.parametrize(
    ("container", "whole"),
    [
        ("mov", FTYP + box(b"mdat", b"12345")), ("mov", FTYP + b"\0\0\0\1mdat" + struct.pack(">Q", 21) + b"12345"),
        ("matroska", EBML + b"\x18\x53\x80\x67\x85" + b"12345"), ("matroska", EBML + b"\x18\x53\x80\x67\x10\0\0\5" + b"12345"),
        ("avi", b"RIFF" + struct.pack("<I", 9) + b"AVI 12345"), ("ogg", page(2, b"12") + page(4, b"12345")), ("mpegts", (b"G" + bytes(187)) * 3),
    ],
    ids=short,
)  # fmt: skip
def test_what_is_cut_short_is_noticed_to_the_byte(container: str, whole: bytes) -> None:
    assert check_whole(whole) == container
    for missing in range(1, 6):
        assert container_of(whole[:-missing]) == container
        with pytest.raises(MediaError, match="cut short"):
            check_whole(whole[:-missing])


def test_a_turned_bit_in_ogg_is_noticed() -> None:
    data = make_video("ogg", "libvpx")
    assert check_whole(data) == "ogg"
    for at in range(6, len(data), len(data) // 50):
        damaged = bytearray(data)
        damaged[at] ^= 16
        with pytest.raises(MediaError, match=r"checksum|cut short"):
            check_whole(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        FTYP + b"\0\0\0\0mdat12345",  # up to the end, whatever it is
        FTYP + box(b"mdat", b"12345") + b"junk after the last box",
        EBML + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + b"12345",  # as it is streamed
        FTYP + box(b"free", b"") * 3,
    ],
)
def test_a_container_without_a_length_is_taken_as_it_is(data: bytes) -> None:
    check_whole(data)


@pytest.mark.parametrize("make", [lambda: ["a.mp4", "b.MOV", "c.webm"], lambda: [MP4], lambda: [make_video("avi")]])
def test_a_column_of_videos_is_seen(make: Callable[[], list[Any]]) -> None:
    cells = make()
    assert infer_schema(read_table({"x": cells, "y": ["a"] * len(cells)}), ["y"]).inputs == {"x": Video()}

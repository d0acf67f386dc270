"""The checks of images and sounds pass, and each of them fails when what it looks after is taken away."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from graphfusion.errors import MediaError
from graphfusion.modalities import AudioModality
from graphfusion.selftest import Check, images, media, sounds
from graphfusion.selftest.media_cases import encoded


@pytest.mark.parametrize(
    ("check", "cases"),
    [
        (images.i01, 34),
        (images.i10, 168),
        (media.i12, 16),
        (sounds.i20, 40),
        (sounds.i21, 80),
        (media.s05, 16),
        (media.s06, 20),
    ],
)
def test_passes(check: Check, cases: int, tmp_path: Path) -> None:
    figure = check(tmp_path, False)
    assert figure.ok, str(figure)
    assert figure.total == cases


@pytest.mark.parametrize(
    ("check", "guard", "instead", "said"),
    [
        (images.i10, "graphfusion.data.media.image.damage", lambda image, data: "", "altered PNG"),
        (sounds.i21, "graphfusion.data.media.audio.audio_damage", lambda *_: "", "taken for a whole one"),
        (images.i01, "graphfusion.data.media.image.UPRIGHT", {}, "turned"),
        (sounds.i20, "graphfusion.data.media.audio._resample", lambda wave, source, target: wave, "Hz"),
        (media.i12, "graphfusion.selftest.media.read_image", lambda cell, root: None, "text.png as an image"),
    ],
)
def test_can_fail(
    check: Check, guard: str, instead: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, instead)
    figure = check(tmp_path, False)
    assert not figure.ok
    assert said in figure.note


def test_a_path_that_is_followed_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(cell: str, root: Path) -> Path:
        try:
            return Path(root, cell).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise MediaError(str(error)) from error

    def deaf(modality: AudioModality, row: Any, root: Path) -> Any:  # its filters take seconds to import
        raise MediaError("not heard")

    monkeypatch.setattr("graphfusion.data.media.door.media_path", unguarded)
    monkeypatch.setattr(AudioModality, "tokens", deaf)
    figure = media.s06(tmp_path, False)
    assert figure.passed < figure.total
    assert "../{}: read: photo" in figure.note


def test_a_call_at_the_server_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(cell: str, root: Path, channels: int = 3) -> Any:
        import socket
        from urllib.parse import urlsplit

        if cell.startswith("http:"):
            address = urlsplit(cell)
            socket.create_connection((address.hostname, address.port)).close()
        raise MediaError(f"{cell}: nothing there")

    monkeypatch.setattr("graphfusion.modalities.image.read_sized_image", fetched)
    figure = media.s06(tmp_path, False)
    assert not figure.ok


def test_naive_reading_gives_what_the_list_says() -> None:
    """The mean of 16-bit greys: 254 of 255 by Pillow's own conversion, for a picture of which half is the truth."""
    deep = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    PILImage.fromarray(deep).save(buffer, "PNG")
    assert np.asarray(PILImage.open(buffer).convert("L")).mean() > 250


def test_memory_beyond_the_limit_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "PEAK_MB", 1)
    monkeypatch.setattr(media.make, "bombs", lambda full: {"PNG": encoded(PILImage.new("RGB", (1500, 1500)), "PNG")})
    assert not media.s05(tmp_path, False).ok

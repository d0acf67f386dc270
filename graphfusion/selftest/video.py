"""Videos that are odd or damaged: one exception type, in time."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.media.video import Clip, pyav, read_video
from graphfusion.errors import MediaError
from graphfusion.selftest.figure import Figure, count

SECONDS = 10.0
"""A video that takes longer has not passed."""
KINDS = {
    "mp4": ("mp4", "mpeg4"), "mp4 h264": ("mp4", "libx264"), "quicktime": ("mov", "mjpeg"), "matroska": ("matroska", "ffv1"),
    "webm": ("webm", "libvpx-vp9"), "avi": ("avi", "mpeg4"), "avi h264": ("avi", "libx264"), "ogg": ("ogg", "libvpx"),
    "mpeg-ts": ("mpegts", "mpeg2video"),
}  # fmt: skip
"""Name → container and encoder, as FFmpeg calls them."""
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
NOT_VIDEOS = {
    "nothing": b"", "text": b"not a video at all" * 40, "html": b"<!DOCTYPE html><video src='a.mp4'></video>",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.mp4\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile a.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": b"<?xml version='1.0'?><MPD><Period><AdaptationSet><BaseURL>a.mp4</BaseURL></AdaptationSet></Period></MPD>",
    "header only": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
}  # fmt: skip
Picture = Callable[[int], NDArray[np.uint8]]


def i30(work: Path, full: bool) -> Figure:
    """I30: videos that are fit, without sound or pictures, turned, of one picture, cut short, damaged, or none at all.

    A fit one passes when its pictures, their direction and their seconds are right; one without pictures, cut short or that is
    no video when it is a MediaError; one with a bit turned when it is a MediaError or a clip of the right form, since a bit of
    the picture itself cannot be told from another picture. None may take more than 10 seconds.
    """
    cases = {name: _timed(check, work) for name, check in _cases(full)}
    return count("I30", "odd and damaged videos: read right, or one kind of error", cases)


def make_video(
    container: str = "mp4",
    codec: str = "mpeg4",
    frames: int = 20,
    rate: int = 10,
    picture: Picture | None = None,
    turn: float = 0,
    mirror: bool = False,
    sound: str = "",
) -> bytes:
    """A video file, without a stream of pictures if `frames` is 0.

    `picture(i)`: (h, w, 3) of frame i, else four coloured quarters; `turn`: degrees against the clock by which it is to be
    shown turned, `mirror`: left for right after that; `sound`: the codec of a tone that is as long.
    """
    av = pyav()
    picture = picture or (lambda i: quarters())
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream: Any = _add_pictures(file, codec, rate, picture(0).shape, turn, mirror) if frames else None
        audio = _add_sound(file, sound) if sound else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, rate)
            file.mux(stream.encode(frame))
        if stream is not None:
            file.mux(stream.encode())
        if audio is not None:
            for frame in _tone(audio, frames / rate or 1.0):
                file.mux(audio.encode(frame))
            file.mux(audio.encode())
    return buffer.getvalue()


def quarters(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(height, width, 3): red and green above, blue and white below."""
    return QUARTERS.repeat(height // 2, 0).repeat(width // 2, 1)


def _add_pictures(file: Any, codec: str, rate: int, shape: tuple[int, ...], turn: float, mirror: bool) -> Any:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if turn or mirror:
        stream.set_display_rotation(turn, hflip=mirror)
    return stream


def _add_sound(file: Any, codec: str) -> Any:
    stream = file.add_stream(codec, rate=16_000)
    stream.layout = "mono"
    return stream


def _tone(stream: Any, seconds: float) -> list[Any]:
    """Frames of a tone of 440 Hz as the encoder takes them."""
    av = pyav()
    wave = 8000 * np.sin(2 * np.pi * 440 * np.arange(int(16_000 * seconds)) / 16_000)
    frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
    frame.rate, frame.pts = 16_000, 0
    resampler = av.AudioResampler(stream.format.name, "mono", 16_000, frame_size=stream.frame_size)
    return [*resampler.resample(frame), *resampler.resample(None)]


def read(data: bytes, work: Path, max_seconds: float = 30.0) -> Clip:
    """At 16 x 16 pixels, 5 pictures a second."""
    return read_video(data, work, 16, 3, 5.0, max_seconds)


def colours(clip: Clip) -> NDArray[np.float64]:
    """(n, 2, 2, 3) of the middle of each quarter of each picture."""
    middle = clip.pictures.astype(np.float64)[:, :, [[3, 3], [12, 12]], [[3, 12], [3, 12]]]
    return middle.transpose(0, 2, 3, 1)


def available() -> dict[str, tuple[str, str]]:
    """The kinds of video that this PyAV can write."""
    return {name: kind for name, kind in KINDS.items() if kind[1] in pyav().codecs_available}


Check = Callable[[Path], str | None]


def _cases(full: bool) -> Iterator[tuple[str, Check]]:
    for name, (container, codec) in available().items():
        data = make_video(container, codec)
        yield name, _fit(data)
        yield from _cut(name, data, 40 if full else 3)
        yield from _flipped(name, data, 100 if full else 4)
    yield from _odd()
    for name, data in NOT_VIDEOS.items():
        yield f"not a video: {name}", _refused(data)


def _odd() -> Iterator[tuple[str, Check]]:
    for container, codec in (("mp4", "aac"), ("matroska", "aac"), ("avi", "pcm_s16le")):
        yield f"{container} with sound", _fit(make_video(container, sound=codec))
        yield f"{container} of sound only", _refused(make_video(container, frames=0, sound=codec))
    for turn in (90, 180, 270):
        for mirror in (False, True):
            turned = np.rot90(QUARTERS, turn // 90)
            shown = turned[:, ::-1] if mirror else turned
            data = make_video(turn=turn, mirror=mirror)
            yield f"turned by {turn}{', mirrored' * mirror}", _fit(data, shown)
    yield "one picture", _fit(make_video(frames=1), ends=[0.1])
    yield "longer than is read", _fit(make_video(frames=60), ends=[0.2, 0.4, 0.6, 0.8, 1.0], max_seconds=1.0)
    yield "odd sides", _fit(make_video("matroska", "ffv1", picture=lambda i: quarters()[:-1, :-1]))
    yield "four pixels", _fit(make_video("matroska", "ffv1", picture=lambda i: QUARTERS), tolerance=256)


def _fit(
    data: bytes,
    shown: NDArray[np.uint8] = QUARTERS,
    ends: list[float] | None = None,
    max_seconds: float = 30.0,
    tolerance: float = 80,
) -> Check:
    """Read right: colours in place, and the seconds at which pictures end."""
    expected = [0.2 * i for i in range(1, 11)] if ends is None else ends

    def check(work: Path) -> str | None:
        clip = read(data, work, max_seconds)
        found = clip.seconds[:, 1].round(3).tolist()
        if len(found) != len(expected) or not np.allclose(found, expected, atol=0.07):
            return f"expected pictures up to the seconds {expected}, got {found}"
        off = np.abs(colours(clip) - shown).max()
        return None if off < tolerance else f"a colour is off by {off:.0f} of 255"

    return check


def _refused(data: bytes) -> Check:
    def check(work: Path) -> str | None:
        try:
            clip = read(data, work)
        except MediaError:
            return None
        return f"expected a MediaError, got {len(clip.pictures)} pictures"

    return check


def _cut(name: str, data: bytes, times: int) -> Iterator[tuple[str, Check]]:
    for size in np.linspace(1, len(data) - 1, times).astype(int).tolist():
        if not (name == "mpeg-ts" and size % 188 == 0):  # whole packets of a stream without a length
            yield f"{name}, {size} of {len(data)} bytes", _refused(data[:size])


def _flipped(name: str, data: bytes, times: int) -> Iterator[tuple[str, Check]]:
    rng = np.random.default_rng(30)
    for bit in rng.integers(0, 8 * len(data), times).tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield f"{name}, bit {bit} turned", _error_or_form(bytes(damaged))


def _error_or_form(data: bytes) -> Check:
    def check(work: Path) -> str | None:
        try:
            clip = read(data, work)
        except MediaError:
            return None
        fits = clip.pictures.shape[1:] == (3, 16, 16) and (clip.seconds[:, 0] < clip.seconds[:, 1]).all()
        return None if fits and len(clip.pictures) == len(clip.seconds) else "a clip that is not well formed"

    return check


def _timed(check: Check, work: Path) -> str | None:
    """What `check` says; any other error, and a case that takes too long, have not passed."""
    began = time.monotonic()
    try:
        why = check(work)
    except Exception as error:  # the very thing that is tried here
        why = f"{type(error).__name__}: {error}"
    took = time.monotonic() - began
    return why or (None if took <= SECONDS else f"took {took:.1f} s")

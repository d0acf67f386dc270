"""Sounds in: path, bytes, array or tensor at any rate → one mono wave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.media import FloatArray, as_array, is_file_cell, naming, open_media, unwrap
from graphfusion.data.media.audio_file import FORMATS, audio_damage, audio_format
from graphfusion.data.media.mp3_file import mp3_samples
from graphfusion.errors import MediaError

RATES = (1_000, 768_000)
"""Lowest and highest rate of a sound in Hz."""
MAX_SAMPLES = 1 << 28
"""Samples (frames times channels) of one sound that are decoded at most."""
BLOCK = 1 << 20
"""Samples decoded at a time."""
LOUDEST = 2.0**31
"""Largest sample; squares of much larger ones are no longer float32."""


def read_audio(cell: Any, root: Path, rate: int, array_rate: int, max_seconds: float) -> FloatArray:
    """A sound as mono float32 `(samples,)` at `rate` Hz, cut after `max_seconds`; full scale is [-1, 1], no samples if
    the sound has none.

    `cell` is a path, bytes, a mapping with `array` and `sampling_rate`, one with `bytes` or `path`, or a bare array or
    tensor `(samples,)`, `(channels, samples)` or `(samples, channels)` at `array_rate` Hz: 8- and 16-bit integers are
    scaled by the range of their type, wider ones are taken for 16-bit samples, floats are taken as they are; the shorter
    axis holds the channels. Files are WAV, FLAC, Ogg (Vorbis, Opus), MP3 or AIFF, told by their content; channels are
    averaged.

    Raises:
        MediaError: the cell is none of these, too large, damaged, shorter than its header says, or cannot be decoded.
    """
    with naming(cell):
        if isinstance(cell, Mapping) and cell.get("array") is not None:
            source_rate = _rate(cell.get("sampling_rate") or array_rate)
            wave = _mono(as_array(cell["array"], "sound"))
        else:
            wave, source_rate = _wave(unwrap(cell), root, array_rate, max_seconds)
        source_rate = _rate(source_rate)
        wave = wave[: int(max_seconds * source_rate)]
        if not (np.abs(wave) <= LOUDEST).all():
            raise MediaError("sound has NaN or infinite samples, or some beyond 2^31.")
        return _resample(wave, source_rate, rate)


def _wave(cell: Any, root: Path, array_rate: int, max_seconds: float) -> tuple[FloatArray, int]:
    if not is_file_cell(cell):
        return _mono(as_array(cell, "sound")), array_rate
    with open_media(cell, root) as file:
        return _decode(file, max_seconds)


def _decode(file: BinaryIO, max_seconds: float) -> tuple[FloatArray, int]:
    """The mono wave and rate of a file."""
    import soundfile

    audio_format(file)
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.format not in FORMATS:
                raise MediaError(f"not a readable sound: {sound.format}; known are {', '.join(FORMATS)}.")
            reason = audio_damage(file, sound.format)
            if reason:
                raise MediaError(f"damaged {sound.format}: {reason}.")
            frames = mp3_samples(file, sound.frames) if sound.format == "MP3" else sound.frames
            return _averaged(sound, frames, int(max_seconds * _rate(sound.samplerate))), int(sound.samplerate)
    except MediaError:
        raise
    except (soundfile.SoundFileError, ValueError, RuntimeError, OSError) as error:
        said = re.sub(r" ?<_io\.B[^>]*>:?", "", str(error))
        raise MediaError(f"not a readable sound: {said}") from error


def _averaged(sound: Any, stated: int, most: int) -> FloatArray:
    """The mean of the channels of the first `most` of `stated` frames, decoded block by block."""
    frames = min(stated, most)
    if frames * sound.channels > MAX_SAMPLES:
        raise MediaError(f"sound has {frames:,} x {sound.channels:,} samples; at most {MAX_SAMPLES:,} are read.")
    parts, there = [np.empty(0, np.float32)], 0
    while there < frames:
        count = min(frames - there, max(1, BLOCK // sound.channels))
        parts.append(sound.read(count, dtype="float32", always_2d=True).mean(axis=1))
        there += len(parts[-1])
        if len(parts[-1]) < count:
            raise MediaError(f"damaged {sound.format}: {stated:,} samples by its header, {there:,} are there.")
    return np.concatenate(parts)


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

    # The filter grows with the numbers of the ratio: where they are large, it is rounded by less than 1 in 100,000.
    small, large = sorted((source, target))
    ratio = Fraction(large, small).limit_denominator(max(1, 100_000 * small // large))
    up, down = (ratio.numerator, ratio.denominator) if target == large else (ratio.denominator, ratio.numerator)
    return np.asarray(resample_poly(wave, up, down), np.float32)

"""Sounds of every kind, cut and altered: read as what they are, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.data import read_audio
from graphfusion.errors import MediaError
from graphfusion.selftest import media_cases as make
from graphfusion.selftest.attempt import quiet, tried
from graphfusion.selftest.figure import Figure, count

RATE, SECONDS = 16_000, 30.0
CHECKSUMMED = ("FLAC", "FLAC 24", "Vorbis", "Opus")
"""Kinds in which an altered bit shows."""


def i20(work: Path, full: bool) -> Figure:
    """40 sounds of any rate, layout and coding: one mono float32 wave at 16 kHz that is the tone that it was made of
    (correlation ≥ 0.99, length within 40 ms), none for a file of 0 samples, MediaError for NaN and for a lying header.
    """
    cases = {}
    for name, (data, truth) in _odd_sounds().items():
        file = work / "sound.bin"
        file.write_bytes(data)
        cases[name] = _sounds_other(tried(read_audio, file.name, work, RATE, RATE, SECONDS), truth)
    return count("I20", "sounds of every rate, layout and coding", cases)


def _odd_sounds() -> dict[str, tuple[bytes, Any]]:
    """Name → (file, wave at 16 kHz that it holds, None if it is to be refused)."""
    truth, cases = make.tone(RATE), dict[str, tuple[bytes, Any]]()
    for rate in (8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000):
        cases[f"{rate} Hz"] = make.sound(make.tone(rate), rate, "WAV", "PCM_16"), truth
    codings = [("WAV", s) for s in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")]
    codings += [("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("FLAC", "PCM_S8"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")]
    codings += [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAVEX", "PCM_16")]
    for coding in codings:
        cases[" ".join(coding)] = make.sound(make.tone(48_000), 48_000, *coding), truth
    for channels in (2, 4, 6):
        many = make.tone(48_000)[:, None] * np.linspace(0.5, 1.5, channels, dtype=np.float32)
        cases[f"{channels} channels"] = make.sound(many, 48_000, "WAV", "PCM_16"), truth
        cases[f"{channels} channels FLAC"] = make.sound(many, 48_000, "FLAC", "PCM_24"), truth
    short = make.tone(RATE)[:1]
    for format, subtype in (("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")):  # noqa: A001
        cases[f"0 samples {format}"] = make.sound(short[:0], RATE, format, subtype), short[:0]
    cases["1 sample WAV"] = make.sound(short, RATE, "WAV", "PCM_16"), short
    cases["1 sample FLAC"] = make.sound(short, RATE, "FLAC", "PCM_16"), short
    wav = make.sound(truth, RATE, "WAV", "PCM_16")
    cases["NaN"] = make.sound(np.full(99, np.nan, np.float32), RATE, "WAV", "FLOAT"), None
    cases["infinite"] = make.sound(np.full(99, np.inf, np.float32), RATE, "WAV", "FLOAT"), None
    cases["header of more"] = wav[:40] + (1 << 30).to_bytes(4, "little") + wav[44:], None
    cases["header of less"] = wav[:40] + (600).to_bytes(4, "little") + wav[44:], None
    return cases


def _sounds_other(found: Any, truth: Any) -> str | None:
    if isinstance(found, MediaError) or truth is None:
        return None if isinstance(found, MediaError) and truth is None else f"got {found!r:.120}"
    if (
        found.dtype != np.float32
        or found.ndim != 1
        or abs(len(found) - len(truth)) > (0.04 * RATE if len(truth) > 1 else 0)
    ):
        return f"expected {len(truth)} samples, got {found.dtype} {found.shape}"
    if len(truth) < 2:
        return None
    size = min(len(found), len(truth))
    same = float(np.corrcoef(found[:size], truth[:size])[0, 1])
    loud = float(found.std() / truth.std())
    return None if same >= 0.99 and 0.9 < loud < 1.1 else f"correlation {same:.3f}, {loud:.2f} times as loud"


def i21(work: Path, full: bool) -> Figure:
    """400 cut and 400 altered (one bit) sounds of eight kinds. Each cut must be refused, so a WAV that is shorter than its
    header says. An altered FLAC or Ogg must be refused or give the same wave; the others have no checksums: MediaError or
    a finite mono wave, and no crash.
    """
    rng, cases, refused = np.random.default_rng(21), dict[str, str | None](), Counter[str]()
    each = 50 if full else 5
    with quiet():
        for name, data in make.sounds().items():
            whole = read_audio(data, work, RATE, RATE, SECONDS)
            for i in range(each):
                found = tried(read_audio, data[: int(rng.integers(len(data)))], work, RATE, RATE, SECONDS)
                cases[f"cut {name} {i}"] = None if isinstance(found, MediaError) else "taken for a whole one"
                found = tried(read_audio, make.altered(data, rng), work, RATE, RATE, SECONDS)
                refused[name] += isinstance(found, MediaError)
                cases[f"altered {name} {i}"] = _unsound_wave(found, name, whole)
    note = "altered and refused: " + ", ".join(f"{name} {n} of {each}" for name, n in refused.items())
    return count("I21", "cut and altered sounds", cases, note)


def _unsound_wave(found: Any, name: str, whole: Any) -> str | None:
    if isinstance(found, MediaError) or np.array_equal(found, whole):
        return None
    if name in CHECKSUMMED:
        return "an altered bit was not noticed"
    return None if found.ndim == 1 and found.dtype == np.float32 and np.isfinite(found).all() else f"{found.shape}"

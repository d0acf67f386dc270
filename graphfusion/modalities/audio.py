"""Sound → log-mel frames, a few frames a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.data.media import FloatArray
from graphfusion.data.media.audio import read_audio
from graphfusion.modalities.readable import FIT_ROWS, readable
from graphfusion.modalities.tokens import NodeType, Tokens, sequence

FLOOR = 1e-6
"""Smallest mel energy; 60 dB below a full-scale tone."""


@dataclass(frozen=True)
class AudioModality:
    """Values: `(n, bands, frames_per_token)` log-mel energies, standardised with the training rows' `mean` and `std`;
    position: index; span: (start, end) in seconds. A sound without samples has no tokens.
    """

    column: str
    sample_rate: int = 16_000
    bands: int = 64
    window: float = 0.025
    hop: float = 0.010
    frames_per_token: int = 4
    max_seconds: float = 30.0
    array_rate: int = 16_000
    mean: float = 0.0
    std: float = 1.0

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("audio", (self.bands, self.frames_per_token), "float32", 1, "seconds")

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> AudioModality:
        """Learn mean and deviation of the log-mel energies from (at most 256 of) the training rows."""
        frames = readable(
            rows, self.column, lambda row: self._log_mel(self._wave(row, root, self.max_seconds)), FIT_ROWS
        )
        energies = np.concatenate([f.ravel() for f in frames]) if frames else np.zeros(1, np.float32)
        if not len(energies):
            return self
        return replace(self, mean=float(energies.mean()), std=max(float(energies.std()), 1e-3))

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Tokens of one sound; the last one is filled up with silence."""
        wave = self._wave(row, root, self.max_seconds + 0.1)
        most = int(self.max_seconds * self.sample_rate)
        cut = f"the first max_seconds={self.max_seconds:g} s are read" if len(wave) > most + self._step else ""
        wave = wave[:most]
        frames = (self._log_mel(wave) - np.float32(self.mean)) / np.float32(self.std)
        count = -(-frames.shape[1] // self.frames_per_token)
        silence = np.float32((np.log(FLOOR) - self.mean) / self.std)
        filled = np.full((self.bands, count * self.frames_per_token), silence, np.float32)
        filled[:, : frames.shape[1]] = frames
        values = filled.reshape(self.bands, count, self.frames_per_token).transpose(1, 0, 2)
        start = np.arange(count) * (self._step * self.frames_per_token / self.sample_rate)
        duration = len(wave) / self.sample_rate
        end = np.append(start[1:], duration)[:count]
        return Tokens(np.ascontiguousarray(values), sequence(count), np.stack([start, end], 1), cut=cut)

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """Moved in time by up to `strength` tokens, a band of up to `strength` · 15 % of the frequencies and a stretch of up
        to `strength` · 15 % of the time set to the mean (SpecAugment, Park et al. 2019, without warping).
        """
        frames = tokens.values.transpose(1, 0, 2).reshape(self.bands, -1)
        count = frames.shape[1]
        reach = min(round(strength * self.frames_per_token), count - 1)
        place = np.arange(count) + rng.integers(-reach, reach + 1)
        moved = frames[:, place.clip(0, count - 1)]
        for axis, length in enumerate(moved.shape):
            wide = int(rng.integers(0, 1 + min(length, round(0.15 * strength * length))))
            first = int(rng.integers(0, 1 + length - wide))
            np.moveaxis(moved, axis, 0)[first : first + wide] = 0.0
        values = moved.reshape(self.bands, -1, self.frames_per_token).transpose(1, 0, 2)
        return replace(tokens, values=np.ascontiguousarray(values))

    def _wave(self, row: Mapping[str, Any], root: Path, seconds: float) -> FloatArray:
        return read_audio(row[self.column], root, self.sample_rate, self.array_rate, seconds)

    def _log_mel(self, wave: FloatArray) -> FloatArray:
        """(bands, frames) natural logarithm of mel energies (Stevens, Volkmann and Newman 1937; HTK scale)."""
        import torch

        if not len(wave):
            return np.empty((self.bands, 0), np.float32)
        window, hop = round(self.window * self.sample_rate), self._step
        frames = 1 + max(0, -(-(len(wave) - window) // hop))
        padded = torch.zeros(window + (frames - 1) * hop)
        padded[: len(wave)] = torch.from_numpy(wave)
        windows = padded.unfold(0, window, hop) * torch.hann_window(window)
        power = torch.fft.rfft(windows, self._fft).abs().square() / window
        return np.asarray((power @ self._mel).clamp_min(FLOOR).log().T)

    @property
    def _step(self) -> int:
        """Samples from one frame to the next."""
        return max(1, round(self.hop * self.sample_rate))

    @property
    def _fft(self) -> int:
        return 1 << (round(self.window * self.sample_rate) - 1).bit_length()

    @cached_property
    def _mel(self) -> Any:
        """(frequencies, bands) triangular filters."""
        import torch
        from transformers.audio_utils import mel_filter_bank

        filters = mel_filter_bank(self._fft // 2 + 1, self.bands, 0.0, self.sample_rate / 2, self.sample_rate)
        return torch.from_numpy(filters.astype(np.float32))

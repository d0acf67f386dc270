"""Video → a few pictures a second, each cut into square patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.media import FloatArray
from graphfusion.data.media.video import Clip, read_video
from graphfusion.modalities.readable import FIT_ROWS, readable
from graphfusion.modalities.tokens import NodeType, Tokens


@dataclass(frozen=True)
class VideoModality:
    """Values: patches `(n, channels, patch, patch)`, standardised with `mean` and `std` per channel of the training rows;
    position: (frame, row, column), frames counted as they are kept; span: (start, end) in seconds of the patch's frame.
    """

    column: str
    size: int = 32
    patch: int = 8
    channels: int = 3
    frames_per_second: float = 2.0
    max_seconds: float = 30.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("video", (self.channels, self.patch, self.patch), "float32", 3, "seconds")

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> VideoModality:
        """Learn mean and deviation per channel from (at most 256 of) the training rows."""
        clips = readable(rows, self.column, lambda row: _moments(self._clip(row, root).pictures), FIT_ROWS)
        if not clips:
            return replace(self, mean=(0.0,) * self.channels, std=(1.0,) * self.channels)
        count, total, squares = (sum(parts) for parts in zip(*clips, strict=True))
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return replace(self, mean=tuple(mean.tolist()), std=tuple(np.maximum(std, 1e-3).tolist()))

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Patches of one video, frame by frame, row by row."""
        clip = self._clip(row, root)
        mean, std = (np.array(m, np.float32)[:, None, None] for m in (self.mean, self.std))
        pixels = (clip.pictures.astype(np.float32) / 255 - mean) / std
        side = self.size // self.patch
        place = np.indices((len(pixels), side, side)).reshape(3, -1).T
        span = np.repeat(clip.seconds, side * side, axis=0)
        cut = f"the first max_seconds={self.max_seconds:g} s are read" if clip.cut else ""
        return Tokens(self._patches(pixels), place.astype(np.int64), span, cut=cut)

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """All frames moved alike by up to `strength` · 10 % of their size each way; the border fills what they leave."""
        reach = round(0.1 * strength * self.size)
        side, patch = self.size // self.patch, self.patch
        if len(tokens) % (side * side):  # cut to fit a batch: its last frame is not whole
            return tokens
        grid = tokens.values.reshape(-1, side, side, self.channels, patch, patch)
        pixels = grid.transpose(0, 3, 1, 4, 2, 5).reshape(-1, self.channels, self.size, self.size)
        rows, columns = (np.arange(self.size) + rng.integers(-reach, reach + 1) for _ in range(2))
        moved = pixels[:, :, rows.clip(0, self.size - 1)][..., columns.clip(0, self.size - 1)]
        return replace(tokens, values=self._patches(moved))

    def _patches(self, pixels: NDArray[Any]) -> FloatArray:
        """(frames, channels, size, size) → (n, channels, patch, patch), frame by frame, row by row."""
        side, patch = self.size // self.patch, self.patch
        grid = pixels.reshape(-1, self.channels, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
        return np.ascontiguousarray(grid.reshape(-1, self.channels, patch, patch), dtype=np.float32)

    def _clip(self, row: Mapping[str, Any], root: Path) -> Clip:
        return read_video(row[self.column], root, self.size, self.channels, self.frames_per_second, self.max_seconds)


def _moments(pictures: NDArray[np.uint8]) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number of pixels, and the sums (channels,) of their values and of the squares."""
    values = pictures.swapaxes(0, 1).reshape(pictures.shape[1], -1) / 255
    return values.shape[1], values.sum(1), (values**2).sum(1)

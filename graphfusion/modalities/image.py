"""Image → square patches in a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.data.media import FloatArray
from graphfusion.data.media.image import read_sized_image
from graphfusion.modalities.readable import FIT_ROWS, readable
from graphfusion.modalities.tokens import NodeType, Tokens


@dataclass(frozen=True)
class ImageModality:
    """Values: patches `(n, channels, patch, patch)`, standardised with `mean` and `std` per channel of the training
    rows; position: (row, column) in the grid; span: the patch's box in pixels of the original image.
    """

    column: str
    size: int = 64
    patch: int = 8
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = "bilinear"

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("image", (self.channels, self.patch, self.patch), "float32", 2, "pixels")

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> ImageModality:
        """Learn mean and deviation per channel from (at most 256 of) the training rows."""
        images = readable(rows, self.column, lambda row: self._pixels(row, root)[0], FIT_ROWS)
        pixels = np.stack(images) if images else np.zeros((1, self.channels, 1, 1), np.float32)
        mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
        return replace(self, mean=tuple(mean.tolist()), std=tuple(np.maximum(std, 1e-3).tolist()))

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Patches of one image, row by row."""
        pixels, (height, width) = self._pixels(row, root)
        pixels = (pixels - np.array(self.mean, np.float32)[:, None, None]) / np.array(self.std, np.float32)[
            :, None, None
        ]
        side = self.size // self.patch
        place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
        top_left = place[:, ::-1] * (width / side, height / side)
        bottom_right = (place[:, ::-1] + 1) * (width / side, height / side)
        return Tokens(self._patches(pixels), place.astype(np.int64), np.concatenate([top_left, bottom_right], axis=1))

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """The picture moved by up to `strength` · 10 % of its size each way; its border fills what it leaves."""
        reach = round(0.1 * strength * self.size)
        side, patch = self.size // self.patch, self.patch
        if len(tokens) != side * side:  # cut to fit a batch: no whole picture to move
            return tokens
        grid = tokens.values.reshape(side, side, self.channels, patch, patch)
        pixels = grid.transpose(2, 0, 3, 1, 4).reshape(self.channels, self.size, self.size)
        rows, columns = (np.arange(self.size) + rng.integers(-reach, reach + 1) for _ in range(2))
        moved = pixels[:, rows.clip(0, self.size - 1)][:, :, columns.clip(0, self.size - 1)]
        return replace(tokens, values=self._patches(moved))

    def _patches(self, pixels: FloatArray) -> FloatArray:
        """(channels, size, size) → (n, channels, patch, patch), row by row."""
        side, patch = self.size // self.patch, self.patch
        grid = pixels.reshape(self.channels, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
        return np.ascontiguousarray(grid.reshape(-1, self.channels, patch, patch), dtype=np.float32)

    def _pixels(self, row: Mapping[str, Any], root: Path) -> tuple[FloatArray, tuple[int, int]]:
        """The image at `size` x `size`, and its original height and width."""
        image, original = read_sized_image(row[self.column], root, self.channels)
        if image.shape[1:] == (self.size, self.size):
            return image, original
        import torch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        how = InterpolationMode(self.interpolation)
        resized = resize(torch.from_numpy(image), [self.size, self.size], how, antialias=True)
        return resized.numpy(), original

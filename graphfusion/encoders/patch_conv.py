"""Convolutional encoder of tokens that were cut from a whole: image patches, groups of audio frames, patches of a video.

The tokens of a sample, in a video those of each frame, are laid back in their places and convolved together, so that a
patch's features know its surroundings; then each token takes the features at its place.
Letters: `N` tokens, `B` samples (frames of a video) with tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore
from graphfusion.nn import PositionEncoding

FIRST_WIDTH = 16


class PatchConvEncoder(nn.Module):
    """(N, C, *patch) with grid positions → (N, dim), for patches of one (time) or two (image, video) dimensions.

    One stage for each prime factor of the patch's side: a 3-wide convolution, then one that shrinks by the factor. What
    lies outside a sample's own grid is zero before every convolution, so that padding to a batch changes nothing.
    """

    def __init__(self, dim: int, shape: Sequence[int]) -> None:
        super().__init__()
        channels, *patch = shape
        if len(set(patch)) != 1 or len(patch) not in (1, 2):
            raise ValueError(f"expected tokens (channels, side) or (channels, side, side), got {tuple(shape)}.")
        self.patch = patch
        convolution = nn.Conv1d if len(patch) == 1 else nn.Conv2d
        width = channels
        self.mixers, self.shrinkers = nn.ModuleList(), nn.ModuleList()
        for i, factor in enumerate(_prime_factors(patch[0])):
            wide = min(dim, max(channels, FIRST_WIDTH) * 2**i)
            self.mixers.append(convolution(width, wide, 3, padding=1))
            width = min(dim, 2 * wide)
            self.shrinkers.append(convolution(wide, width, factor, stride=factor))
        self.last = convolution(width, dim, 3, padding=1)
        for layer in (*self.mixers, *self.shrinkers, self.last):
            _keep_variance(layer)
        self.position = PositionEncoding(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        values = nodes.values
        if not len(nodes):
            return values.new_zeros(0, self.norm.normalized_shape[0])
        axes = nodes.position.unbind(1)
        within = len(axes) - len(self.patch)
        canvas = nodes.sample
        for axis in axes[:within]:  # each frame of a video by itself
            canvas = canvas * (axis.max() + 1) + axis
        owner = torch.unique_consecutive(canvas, return_inverse=True)[1]
        place = (owner, *axes[within:])
        x, mask = self._lay(values, place)
        for mixer, shrinker in zip(self.mixers, self.shrinkers, strict=True):
            x = nn.functional.gelu(mixer(x * _grown(mask, x)))
            x = nn.functional.gelu(shrinker(x))
        x = self.last(x * _grown(mask, x))
        mine = x.movedim(1, -1)[place]
        out: Tensor = self.norm(self.position(mine, nodes.position))
        return out

    def _lay(self, values: Tensor, place: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Canvas (B, C, *grid · patch) of the tokens in their places, and mask (B, 1, *grid) of the places taken."""
        size = [int(index.max()) + 1 for index in place]
        grid = values.new_zeros(*size, *values.shape[1:])
        grid[place] = values
        mask = values.new_zeros(*size)
        mask[place] = 1.0
        if len(self.patch) == 1:  # (B, T, C, p) → (B, C, T·p)
            canvas = grid.permute(0, 2, 1, 3).flatten(2)
        else:  # (B, R, K, C, p, p) → (B, C, R·p, K·p)
            canvas = grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return canvas, mask[:, None]


def _keep_variance(layer: nn.Module) -> None:
    """He et al. 2015: with torch's default, a few layers deep the biases drown what depends on the input."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _grown(mask: Tensor, x: Tensor) -> Tensor:
    """The mask at the resolution of `x`."""
    for axis in range(2, x.dim()):
        factor = x.shape[axis] // mask.shape[axis]
        mask = mask.repeat_interleave(factor, axis) if factor > 1 else mask
    return mask


def _prime_factors(number: int) -> list[int]:
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors

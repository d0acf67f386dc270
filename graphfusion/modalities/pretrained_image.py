"""Image → the cells that a pretrained vision model has a state for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphfusion.errors import ConfigError
from graphfusion.modalities.backbone import grid_of, library, read_config, read_scales
from graphfusion.modalities.image import ImageModality


@dataclass(frozen=True)
class PretrainedImageModality(ImageModality):
    """One token for each patch of a vision transformer, or each cell of the last map of a convolutional network. The picture is
    resized whole, not cropped, so that every part of it is in some span; scaled as the checkpoint says.
    """

    checkpoint: str = ""
    tune: float = 0.0
    of: str = ""
    config: str = ""
    """Of the model (`backbone.read_config`); empty before `fit`."""
    library: str = ""
    """That read the checkpoint, and its version."""

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> PretrainedImageModality:
        """Read configuration and scales of the checkpoint; nothing is learned from the rows.

        Raises:
            ConfigError: the checkpoint cannot be read, or its model does not take pictures of this size.
        """
        config, scales = read_config(self.checkpoint, "image"), read_scales(self.checkpoint)
        said = scales.pop("size")
        size = self.size or said
        if not size:
            raise ConfigError(
                f"column {self.column!r}: {self.checkpoint!r} does not say one size of a square; pass size=."
            )
        try:
            side, _ = grid_of(config, size)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"column {self.column!r}: {self.checkpoint!r} does not take size={size}: {error}"
            ) from error
        return replace(self, config=config, size=size, patch=size // side, channels=3, library=library(), **scales)

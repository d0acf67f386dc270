"""Text → the tokens of a pretrained language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphfusion.errors import ConfigError
from graphfusion.modalities.backbone import places_of, read_config, read_tokenizer
from graphfusion.modalities.text import SubwordText


@dataclass(frozen=True)
class PretrainedTextModality(SubwordText):
    """Tokens as the model's own tokenizer makes them, its special ones among them (their span is empty); otherwise as
    `SubwordText`.
    """

    checkpoint: str = ""
    tune: float = 0.0
    config: str = ""
    """Of the model (`backbone.read_config`); empty before `fit`."""

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> PretrainedTextModality:
        """Read tokenizer and configuration of the checkpoint; nothing is learned from the rows.

        Raises:
            ConfigError: the checkpoint cannot be read, or its model takes fewer than `max_tokens` tokens.
        """
        config = read_config(self.checkpoint, "text")
        tokenizer, longest = read_tokenizer(self.checkpoint)
        longest = min((n for n in (longest, places_of(config)) if n), default=self.max_tokens)
        if self.max_tokens > longest:
            raise ConfigError(
                f"column {self.column!r}: max_tokens={self.max_tokens}, but {self.checkpoint!r} takes {longest}; lower max_tokens."
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return replace(self, vocabulary=tokenizer.to_str(), config=config)

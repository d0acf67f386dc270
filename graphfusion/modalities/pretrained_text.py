"""Text → the tokens of a pretrained language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphfusion.errors import ConfigError
from graphfusion.modalities.backbone import ids_of, library, places_of, read_config, read_tokenizer
from graphfusion.modalities.text import SubwordText

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class PretrainedTextModality(SubwordText):
    """Tokens as the model's own tokenizer makes them, its special ones among them (their span is empty); otherwise as
    `SubwordText`.
    """

    checkpoint: str = ""
    tune: float = 0.0
    of: str = ""
    config: str = ""
    """Of the model (`backbone.read_config`); empty before `fit`."""
    library: str = ""
    """That read the checkpoint, and its version."""

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> PretrainedTextModality:
        """Read tokenizer and configuration of the checkpoint; nothing is learned from the rows.

        Raises:
            ConfigError: the checkpoint cannot be read, its tokenizer is of another model, or `max_tokens` is more than the model
                takes or no more than its special tokens.
        """
        config = read_config(self.checkpoint, "text")
        tokenizer, longest = read_tokenizer(self.checkpoint)
        self._check(tokenizer, longest, config)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return replace(self, vocabulary=tokenizer.to_str(), config=config, library=library())

    def _check(self, tokenizer: Tokenizer, longest: int, config: str) -> None:
        """ConfigError unless tokenizer, model and `max_tokens` go together."""
        longest = min((n for n in (longest, places_of(config)) if n), default=self.max_tokens)
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        told = f"column {self.column!r}: max_tokens={self.max_tokens}"
        if self.max_tokens > longest:
            raise ConfigError(f"{told}, but {self.checkpoint!r} takes {longest}; lower max_tokens.")
        if self.max_tokens <= special:
            raise ConfigError(
                f"{told} counts the {special} special tokens of {self.checkpoint!r}, too; raise max_tokens."
            )
        last, ids = max(tokenizer.get_vocab().values()), ids_of(config)
        if last >= ids:
            raise ConfigError(
                f"checkpoint {self.checkpoint!r}: its tokenizer has an id {last}, its model knows {ids}; is it of another model?"
            )

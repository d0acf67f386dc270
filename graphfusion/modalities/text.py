"""Text → subword tokens; by default of a byte-level BPE vocabulary trained on the training rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphfusion.errors import CellError
from graphfusion.modalities.readable import readable
from graphfusion.modalities.tokens import NodeType, Tokens, sequence

if TYPE_CHECKING:
    from tokenizers import Tokenizer

READ = 64
"""Characters of a long text that are read for each of its `max_tokens`: memory follows what is kept, not what is given."""
LONGEST = 1000
"""Letters of the longest word that a vocabulary learns from; longer ones are cut, for learning alone."""


@dataclass(frozen=True)
class SubwordText:
    """Values: token ids `(n,)`; position: index; span: characters of the original text; attribute `entity`: the
    lower-cased word that a token lies in. A blank text has no tokens.
    """

    column: str
    max_tokens: int = 128
    vocabulary: str = ""
    """The tokenizer as JSON; empty before `fit`."""

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("text", (), "int64", 1, "characters")

    @property
    def size(self) -> int:
        """Number of ids that a token can have."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer: Tokenizer = Tokenizer.from_str(self.vocabulary)
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Tokens of one text."""
        text = _clean(row[self.column])
        if not text.strip():
            return Tokens.empty(self.node_type)
        count = READ * self.max_tokens
        begin = _beginning(text, count)
        encoding = self._tokenizer.encode(begin)
        while len(encoding) < self.max_tokens and len(begin) < len(text):  # blanks, mostly
            count *= READ
            begin = _beginning(text, count)
            encoding = self._tokenizer.encode(begin)
        spans = np.array(encoding.offsets, np.float64).reshape(-1, 2)
        more = sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)
        whole = f"{len(text):,} characters" if len(begin) < len(text) else f"{len(spans) + more:,} tokens"
        short = more or len(begin) < len(text)
        cut = f"{whole}, of which the first max_tokens={self.max_tokens:,} tokens are read" if short else ""
        return Tokens(
            np.array(encoding.ids, np.int64),
            sequence(len(spans)),
            spans,
            {"entity": _words(text, encoding.word_ids, spans)},
            cut,
        )

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """Unchanged."""
        return tokens

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode(list(ids)))


@dataclass(frozen=True)
class TextModality(SubwordText):
    """`SubwordText` whose vocabulary is learned from the training rows."""

    vocab_size: int = 4096
    lowercase: bool = True

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> TextModality:
        """Train the vocabulary on the texts of the training rows."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        steps = [normalizers.NFC(), *([normalizers.Lowercase()] if self.lowercase else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[assignment]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=max(self.vocab_size, 256),  # 256 bytes: no text is out of the vocabulary
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        texts = readable(rows, self.column, lambda row: _cut_words(_clean(row[self.column])))
        tokenizer.train_from_iterator(texts, trainer)
        return replace(self, vocabulary=tokenizer.to_str())


def _beginning(text: str, count: int) -> str:
    """The first `count` characters, to the end of the word that they end in; of a word without end, as many again."""
    end = re.compile(r"(?<=\S)(?=\s\S)").search(text, count, 2 * count)
    return text[: end.start() if end else 2 * count] if len(text) > count else text


def _cut_words(text: str) -> str:
    """A text without words of more than `LONGEST` letters: the time to learn from one grows with the square of its length."""
    return re.sub(rf"\S{{{LONGEST}}}", r"\g<0> ", text)


def _clean(value: Any) -> str:
    if isinstance(value, int | float):  # "2020" in a column that is text elsewhere
        value = str(value)
    if not isinstance(value, str):
        raise CellError(f"expected a text, got {type(value).__name__} {str(value)[:40]!r}.")
    return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become '?', lengths stay


def _words(text: str, word_ids: Sequence[int | None], spans: np.ndarray) -> np.ndarray:
    """The lower-cased word that each token lies in, as an array of strings."""
    bounds: dict[int | None, tuple[int, int]] = {}
    for word, (start, end) in zip(word_ids, spans.astype(int).tolist(), strict=True):
        first = bounds.get(word, (start, end))[0]
        bounds[word] = (first, end)
    words = {word: text[start:end].strip().lower() for word, (start, end) in bounds.items()}
    return np.array([words[w] for w in word_ids], dtype=np.str_)

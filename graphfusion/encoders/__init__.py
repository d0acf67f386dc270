"""Tokens → node features: small encoders trained from scratch, and pretrained models.
Contract: `forward(NodeStore) -> (N, dim)`, also for N = 0, and the features of a sample never depend on the samples beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from graphfusion.encoders.embedding import EmbeddingEncoder
from graphfusion.encoders.linear import LinearEncoder
from graphfusion.encoders.patch_conv import PatchConvEncoder
from graphfusion.encoders.pretrained import PretrainedEncoder, PretrainedImageEncoder, PretrainedTextEncoder
from graphfusion.encoders.tabular import TabularEncoder
from graphfusion.errors import ConfigError, unknown_name
from graphfusion.modalities import Modality
from graphfusion.modalities.pretrained_image import PretrainedImageModality
from graphfusion.modalities.pretrained_text import PretrainedTextModality
from graphfusion.modalities.tabular import TabularModality
from graphfusion.modalities.text import TextModality


def _embedding(dim: int, modality: Modality) -> nn.Module:
    assert isinstance(modality, TextModality)
    return EmbeddingEncoder(dim, size=modality.size)


def _linear(dim: int, modality: Modality) -> nn.Module:
    return LinearEncoder(dim, shape=modality.node_type.shape)


def _conv(dim: int, modality: Modality) -> nn.Module:
    return PatchConvEncoder(dim, shape=modality.node_type.shape)


def _tabular(dim: int, modality: Modality) -> nn.Module:
    assert isinstance(modality, TabularModality)
    numeric = [kind == "number" for kind in modality.columns.values()]
    return TabularEncoder(dim, numeric=numeric, categories=modality.size)


ENCODERS: dict[str, dict[str, Callable[[int, Modality], nn.Module]]] = {
    "text": {"embedding": _embedding},
    "image": {"conv": _conv, "linear": _linear},
    "audio": {"conv": _conv, "linear": _linear},
    "video": {"conv": _conv, "linear": _linear},
    "tabular": {"tokens": _tabular},
    "features": {"linear": _linear},
}
"""Kind of input → name → maker; the first of each kind is the default. A column with a pretrained model has that."""


def make_encoder(modality: Modality, dim: int, names: Mapping[str, str]) -> nn.Module:
    """The encoder of a fitted modality; `names` chooses by kind.

    Raises:
        ConfigError: no encoder of that kind has that name.
    """
    if isinstance(modality, PretrainedTextModality):
        return PretrainedTextEncoder(dim, modality.config, modality.tune)
    if isinstance(modality, PretrainedImageModality):
        return PretrainedImageEncoder(dim, modality.config, modality.size, modality.patch, modality.tune)
    kind = modality.node_type.kind
    known = ENCODERS[kind]
    name = names.get(kind, next(iter(known)))
    if name not in known:
        raise ConfigError(f"encoders, {kind}: {unknown_name('encoder', name, known)}")
    return known[name](dim, modality)


__all__ = [
    "ENCODERS",
    "EmbeddingEncoder",
    "LinearEncoder",
    "PatchConvEncoder",
    "PretrainedEncoder",
    "PretrainedImageEncoder",
    "PretrainedTextEncoder",
    "TabularEncoder",
    "make_encoder",
]

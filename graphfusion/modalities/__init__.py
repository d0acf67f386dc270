"""Raw value → `Tokens`: one file a modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from graphfusion.errors import CheckpointError, unknown_name
from graphfusion.modalities.audio import AudioModality
from graphfusion.modalities.features import FeaturesModality
from graphfusion.modalities.image import ImageModality
from graphfusion.modalities.prepare import Modality, prepare
from graphfusion.modalities.pretrained_image import PretrainedImageModality
from graphfusion.modalities.pretrained_text import PretrainedTextModality
from graphfusion.modalities.tabular import TabularModality
from graphfusion.modalities.text import TextModality
from graphfusion.modalities.tokens import NodeType, TokenizedSample, Tokens
from graphfusion.modalities.video import VideoModality
from graphfusion.schema import TABLE, Schema

MODALITIES: dict[str, type[Any]] = {
    "text": TextModality,
    "image": ImageModality,
    "audio": AudioModality,
    "video": VideoModality,
    "tabular": TabularModality,
    "features": FeaturesModality,
    "pretrained_text": PretrainedTextModality,
    "pretrained_image": PretrainedImageModality,
}
"""Kind of column → modality."""


def modalities_of(schema: Schema) -> dict[str, Modality]:
    """A modality, not yet fitted, for each node type of a schema."""
    made: dict[str, Modality] = {}
    for name in schema.node_types:
        if name == TABLE:
            kinds = {c: schema.inputs[c].values for c in schema.columns_of(TABLE)}  # type: ignore[union-attr]
            made[name] = TabularModality(kinds)
        else:
            spec = schema.inputs[name]
            made[name] = MODALITIES[spec.kind](column=name, **asdict(spec))
    return made


def modality_to_dict(modality: Modality) -> dict[str, Any]:
    """A modality with what it has learned, in plain JSON types."""
    kind = next(name for name, cls in MODALITIES.items() if cls is type(modality))
    return {"kind": kind, **asdict(modality)}  # type: ignore[call-overload]


def modality_from_dict(document: Mapping[str, Any]) -> Modality:
    """Read what `modality_to_dict` wrote."""
    options = dict(document)
    kind = options.pop("kind")
    if kind not in MODALITIES:
        raise CheckpointError(unknown_name("modality", kind, MODALITIES))
    known = {f.name for f in fields(MODALITIES[kind])}
    for name, value in options.items():
        if name not in known:
            raise CheckpointError(f"modality {kind}: {unknown_name('field', name, known)}")
        if isinstance(value, list):
            options[name] = tuple(value)
        if isinstance(value, dict):
            options[name] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    modality: Modality = MODALITIES[kind](**options)
    return modality


__all__ = [
    "MODALITIES", "Modality", "NodeType", "TokenizedSample", "Tokens",
    "modalities_of", "modality_from_dict", "modality_to_dict", "prepare",
]  # fmt: skip

"""Declarations survive JSON and refuse what they do not know, by the nearest name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from graphfusion.config import PRESETS, ModelConfig, RunConfig
from graphfusion.errors import ConfigError, SchemaError
from graphfusion.schema import TABLE, Audio, Class, Image, MultiLabel, Number, Schema, Tabular, Text
from tests.conftest import SCHEMA


def test_schema_survives_json() -> None:
    schema = SCHEMA.override({"tags": MultiLabel(("a", "b"), ";"), "score": Number(), "label": Class(("x", 1))})
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_node_types_follow_the_columns() -> None:
    assert SCHEMA.node_types == ("caption", "photo", "sound", "clip", TABLE)
    assert SCHEMA.columns_of(TABLE) == ("age", "colour")
    assert SCHEMA.columns_of("photo") == ("photo",)
    assert "photo    image" in str(SCHEMA)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Text(max_tokens=0), "max_tokens"),
        (lambda: Image(size=30, patch=8), "multiple of patch"),
        (lambda: Image(channels=2), "1 .grey. or 3"),
        (lambda: Audio(hop=-1), "hop"),
        (lambda: Tabular("categry"), "category"),
        (lambda: Schema({"a": Text()}, {"a": Class()}), "input and a target"),
        (lambda: Schema({"a": Class()}), "expected one of Text"),
        (lambda: Schema({TABLE: Text()}), "rename the column"),
        (lambda: Schema.from_dict({"inputs": [{"column": "a", "kind": "txt"}], "targets": []}), "text"),
        (
            lambda: Schema.from_dict({"inputs": [{"column": "a", "kind": "text", "max_token": 3}], "targets": []}),
            "max_tokens",
        ),
    ],
)
def test_bad_schemas_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        make()


def test_config_survives_json() -> None:
    config = PRESETS["accurate"].override({"epochs": 3, "encoders": {"image": "linear"}})
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.training.epochs == 3
    assert config.model.encoders == {"image": "linear"}


def test_every_setting_has_one_name() -> None:
    from graphfusion.config import TrainingConfig

    assert not set(vars(ModelConfig())) & set(vars(TrainingConfig()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"), ({"epochs": "3"}, "expected int, got '3'"), ({"epochs": True}, "expected int"),
        ({"epochs": 0}, "from 1"), ({"dropout": 1.0}, "below 1"), ({"dim": 10, "heads": 4}, "multiple of heads"),
        ({"lr": "1e-3"}, "expected float"), ({"layers": -1}, "from 0"), ({"encoders": "conv"}, "expected Mapping"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig().override(settings)
    with pytest.raises(ConfigError, match="section"):
        RunConfig.from_dict({"modle": {}})
    with pytest.raises(ConfigError, match="seed"):
        RunConfig(seed=-1)

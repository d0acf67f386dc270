"""Declarations survive JSON and refuse what they do not know, by the nearest name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from graphfusion.config import PRESETS, ModelConfig, RunConfig
from graphfusion.errors import ConfigError, GraphError, SchemaError
from graphfusion.schema import TABLE, Audio, Class, Features, Image, MultiLabel, Number, Schema, Tabular, Text
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
        (lambda: MultiLabel(separator=""), "MultiLabel.separator: expected a text of one letter or more, got ''"),
        (lambda: Class("ab"), "Class.classes: expected a tuple of names, got 'ab'"),
        (lambda: Features(width=-1), "Features.width: expected a whole number above 0, got -1"),
        (lambda: Features(width="x"), "Features.width: expected a whole number above 0, got 'x'"),
        (lambda: Text(lowercase="no"), "Text.lowercase: expected True or False, got 'no'"),
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
        ({"epoch": 3}, "Did you mean 'epochs'"), ({"epochs": "3"}, "expected a whole number, got the text '3'; write 3"),
        ({"epochs": True}, "expected a whole number, got true"), ({"epochs": 2.0}, "got 2.0; write 2"),
        ({"epochs": 0}, "from 1"), ({"dropout": 1.0}, "below 1"), ({"dim": 10, "heads": 4}, "multiple of heads"),
        ({"lr": "1e-3"}, "expected a number, got the text '1e-3'; write 0.001"), ({"lr": float("nan")}, "got nan"), ({"lr": -1.0}, "from 0"),
        ({"layers": -1}, "from 0"), ({"encoders": "conv"}, "expected a mapping"), ({"encoders": {"image": 3}}, "encoders.image: expected text"),
        ({"relations": {"kind": "full"}}, "expected a list"), ({"optimizer": None}, "expected text, got nothing"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig().override(settings)
    with pytest.raises(ConfigError, match="section"):
        RunConfig.from_dict({"modle": {}})
    with pytest.raises(ConfigError, match="model: 'lr' is a setting of training"):
        RunConfig.from_dict({"model": {"lr": 1.0}})
    with pytest.raises(ConfigError, match="seed"):
        RunConfig(seed=-1)


def test_relations_are_given_as_objects_or_as_they_are_written() -> None:
    from graphfusion import FusionPredictor
    from graphfusion.graph_builder import SelfLoops, relation_to_dict

    written = relation_to_dict(SelfLoops("title"))
    settings = [FusionPredictor("label", relations=[r]).config.model.relations for r in (SelfLoops("title"), written)]
    assert settings[0] == settings[1] == (written,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "full", "source": "a"}, "relation full: the option 'target' is missing"), ({"kind": ["full"]}, "unknown relation"),
        ({"kind": "self_loops", "node_type": 3}, "relation self_loops, node_type: expected text, got 3"),
        ({"kind": "grid_neighbourhood", "node_type": "a", "corners": "NO"}, "expected true or false, got the text 'NO'; write false"),
        ({"kind": "union", "name": "u", "relations": 3}, "expected a list, got 3"), ({"kind": "full", "sorce": "a"}, "Did you mean 'source'"),
        ({"kind": "knowledge_pairs", "source": "a", "target": "b", "name": "n", "pairs": [["x"]]}, "expected two words in each"),
    ],
)  # fmt: skip
def test_bad_relations_are_named(options: dict[str, Any], message: str) -> None:
    from graphfusion import FusionPredictor

    with pytest.raises((ConfigError, GraphError), match=message):
        FusionPredictor("label", relations=[options])

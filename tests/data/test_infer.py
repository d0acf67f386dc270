"""What a column is taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.errors import SchemaError
from graphfusion.schema import Audio, Class, Features, Image, Input, MultiLabel, Number, Schema, Tabular, Target, Text
from tests.conftest import png, wav

GREY = np.zeros((28, 28), np.uint8)
PHOTO = np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a long sentence here", "another one", "and a third"], Text()),
        (["red", "blue", "red", "blue"] * 5, Tabular("category")),
        ([1.5, 2.0, None], Tabular("number")), ([1, 2, 3], Tabular("number")), ([True, False], Tabular("category")),
        ([PHOTO, PHOTO], Image(64, 8, 3)), ([GREY], Image(32, 8, 1)), ([png(GREY[:8, :8])], Image(16, 4, 1)),
        ([PILImage.fromarray(PHOTO)], Image(64, 8, 3)), (["a.png", "b.jpg"], Image(64, 8, 3)),
        (["a.wav", "b.flac"], Audio()), ([wav(np.zeros(9), 8000)], Audio()), ([{"array": np.zeros(9), "sampling_rate": 8000}], Audio()),
        (["a.png", "b.png", "n/a"], Image(64, 8, 3)), (["some text here", 2020], Text()), ([b"RIFF....WEBPVP8 "], Image(64, 8, 3)),
        ([{"bytes": png(PHOTO), "path": None}], Image(64, 8, 3)), ([np.zeros((4, 7), np.float32)], Features()),
        ([np.zeros(7)], Features()), ([[1.0, 2.0]], Features()), ([{"values": [[1.0]], "speaker": [0]}], Features()),
    ],
)  # fmt: skip
def test_inputs(cells: list[Any], expected: Input) -> None:
    table = read_table({"x": cells, "y": ["a"] * len(cells)})
    assert infer_schema(table, ["y"]).inputs == {"x": expected}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a", "b"], Class()), ([1, 2, 1], Class()), ([True, False], Class()), ([1.5, 2.5], Number()), ([1, 2.5], Number()),
        (list(range(200)), Number()), ([{"a"}, set()], MultiLabel()), ([np.array([1, 2]), np.array([1])], MultiLabel()), ([["a"], ["a", "b"], []], MultiLabel()),
    ],
)  # fmt: skip
def test_targets(cells: list[Any], expected: Target) -> None:
    table = read_table({"x": [1.0] * len(cells), "y": cells})
    assert infer_schema(table, ["y"]).targets == {"y": expected}


def test_a_column_can_be_left_out() -> None:
    table = read_table({"x": [1.0, 2.0], "id": [7, 8], "y": ["a", "b"]})
    assert list(infer_schema(table, ["y"], {"id": None}).inputs) == ["x"]


def test_columns_say_otherwise_and_empty_ones_are_left_out() -> None:
    table = read_table({"x": ["red", "blue"] * 9, "empty": [None] * 18, "y": [1, 2] * 9})
    schema = infer_schema(table, ["y"], {"x": Text(max_tokens=5), "y": Number()})
    assert schema == Schema({"x": Text(max_tokens=5)}, {"y": Number()})


@pytest.mark.parametrize(
    ("targets", "columns", "message"),
    [
        (["z"], {}, "lacks a column"), (["y"], {"xx": Text()}, "Did you mean 'x'"), (["mixed"], {}, "cannot tell a class"),
        (["nothing"], {}, "no row has a value"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(targets: list[str], columns: dict[str, Input], message: str) -> None:
    table = read_table({"x": ["a", "b"], "y": [1, 2], "mixed": ["a", 2], "nothing": [None, None]}, Path())
    with pytest.raises(SchemaError, match=message):
        infer_schema(table, targets, columns)

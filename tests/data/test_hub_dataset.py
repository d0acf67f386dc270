"""A `datasets.Dataset` is read by what it has, without the library: this stand-in has the parts that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from graphfusion.data import read_audio, read_image, read_table
from graphfusion.data.infer import infer_schema
from graphfusion.errors import TableError
from tests.conftest import png, wav

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@dataclass(frozen=True)
class Media:
    """Feature of images or sounds; `decode`: cells are given decoded, else as bytes and path."""

    kind: str
    decode: bool = True


@dataclass(frozen=True)
class ClassLabel:
    names: list[str]


@dataclass(frozen=True)
class Lists:
    feature: Any


@dataclass(frozen=True)
class Stored:
    """Columns as they are stored, and the features by which they are shown."""

    cells: dict[str, list[Any]]
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def column_names(self) -> list[str]:
        return list(self.cells)

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def __getitem__(self, name: str) -> list[Any]:
        feature = self.features.get(name)
        if isinstance(feature, Media) and feature.decode:
            raise ImportError("decoding needs a library that is not there")
        return self.cells[name]

    def cast_column(self, name: str, feature: Any) -> Stored:
        return Stored(self.cells, {**self.features, name: feature})

    def to_dict(self) -> dict[str, Any]:
        raise AssertionError("reads everything, decoded")


def test_media_stay_bytes_and_classes_get_their_names() -> None:
    dataset = Stored(
        {
            "photo": [{"bytes": png(PIXELS), "path": None}, None],
            "sound": [{"bytes": wav(np.zeros(800), 8000), "path": "x.wav"}] * 2,
            "y": [1, -1],
            "tags": [[0, 1], []],
            "text": ["one", ""],
            "n": [1, np.float32("nan")],
        },
        {"photo": Media("image"), "sound": Media("sound"), "y": ClassLabel(["no", "yes"]), "tags": Lists(ClassLabel(["a", "b"]))},
    )  # fmt: skip
    table = read_table(dataset)
    assert table.column("y") == ["yes", None]
    assert table.column("tags") == [["a", "b"], []]
    assert table.column("text") == ["one", None]
    assert table.column("n") == [1, None]
    found = read_image(table.column("photo")[0], table.root)
    np.testing.assert_allclose(found, PIXELS.transpose(2, 0, 1) / 255, atol=1e-6)
    assert len(read_audio(table.column("sound")[0], table.root, 8000, 8000, 1.0)) == 800
    kinds = {name: spec.kind for name, spec in infer_schema(table, ["y", "tags"]).inputs.items()}
    assert kinds == {"photo": "image", "sound": "audio", "text": "text", "n": "tabular"}


def test_decoded_cells_are_taken_too() -> None:
    sound = {"array": np.zeros(800), "sampling_rate": 8000, "path": None}
    table = read_table(Stored({"photo": [PILImage.fromarray(PIXELS)], "sound": [sound], "y": [0]}))
    assert read_image(table.column("photo")[0], table.root).shape == (3, 8, 8)
    assert len(read_audio(table.column("sound")[0], table.root, 8000, 8000, 1.0)) == 800
    assert infer_schema(table, ["y"]).inputs["sound"].kind == "audio"


@pytest.mark.parametrize("number", [2, 7, True, "yes"])
def test_a_class_number_without_a_name_is_named(number: Any) -> None:
    with pytest.raises(TableError, match=r"row 1, column 'y': class number .* has no name; there are 2"):
        read_table(Stored({"y": [0, number]}, {"y": ClassLabel(["no", "yes"])}))


def test_splits_and_streams_are_named() -> None:
    class Splits(dict[str, Stored]):
        column_names = {"train": ["y"]}  # noqa: RUF012

    class Streamed:
        column_names = ["y"]  # noqa: RUF012
        features = None

    with pytest.raises(TableError, match=r"several splits \(train, test\); pass one, as dataset\['train'\]"):
        read_table(Splits(train=Stored({"y": [0]}), test=Stored({"y": [0]})))
    with pytest.raises(TableError, match="streamed; load it with streaming=False"):
        read_table(Streamed())

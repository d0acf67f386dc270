"""What a configuration says about a run, and what the command line changes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphfusion.config_file import Run, read_change, read_run
from graphfusion.errors import ConfigError, SchemaError
from graphfusion.schema import Class, Image, Number, Tabular, Text

FILE = """
target: label
preset: accurate
seed: 3
model: {dim: 32, encoders: {image: linear}}
training:
  lr: 1e-3
columns:
  title: text
  price: {kind: tabular, values: category}
  photo: {kind: image, size: 32}
  id: null
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(FILE)
    return tmp_path / "run.yaml"


def test_a_file_is_a_run(path: Path) -> None:
    assert read_run(path) == Run(
        targets=("label",),
        preset="accurate",
        seed=3,
        columns={"title": Text(), "price": Tabular("category"), "photo": Image(size=32), "id": None},
        settings={"dim": 32, "encoders": {"image": "linear"}, "lr": 0.001},
    )
    assert read_run() == Run()


def test_changes_go_over_the_file(path: Path) -> None:
    texts = [
        "lr=5e-4",
        "fusion_options.segment=4",
        "model.dim=16",
        "columns.photo.size=16",
        "columns.title=none",
        "target=[label, score]",
        "seed=0",
    ]
    run = read_run(path, [*map(read_change, texts), read_change("a.b=category", below="columns")])
    assert run.settings == {
        "dim": 16, "encoders": {"image": "linear"}, "lr": 0.0005, "fusion_options": {"segment": 4},
    }  # fmt: skip
    assert run.targets == ("label", "score")
    assert run.seed == 0
    assert run.columns["photo"] == Image(size=16)
    assert run.columns["title"] is None
    assert run.columns["a.b"] == Tabular("category")


def test_words_for_columns_depend_on_what_they_are() -> None:
    run = Run.from_dict(
        {"target": ["t", "n"], "columns": {"t": "category", "n": "number", "x": "number", "y": "category"}}
    )
    assert run.columns == {"t": Class(), "n": Number(), "x": Tabular("number"), "y": Tabular("category")}


def test_who_is_at_fault_is_said(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^command line: training: unknown setting 'epohs'. Did you mean 'epochs'"):
        read_run(path, [read_change("training.epohs=3")])
    with pytest.raises(ConfigError, match=r"^x=.: line 1"):
        read_change("x=[")
    path.write_text("columns: {photo: {kind: image, size: 30}}")
    with pytest.raises(SchemaError, match=f"^{path}: columns.photo: Image.size"):
        read_run(path, [read_change("columns.photo.size=32")])


@pytest.mark.parametrize("text", ["lr", "=3", ""])
def test_a_change_is_a_name_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        read_change(text)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected a mapping"), ({"columns": {"a": {}}}, "columns.a: kind is missing"), ({"target": []}, "empty list"),
        ({"columns": {"a": {"kind": "class", "classes": [1.5]}}}, r"columns.a: classes\[0\]: expected text or a whole number"),
        ({"columns": {"a": 3}}, "columns.a: expected a mapping, got 3"), ({"columns": {"a": {"kind": 3}}}, "columns.a.kind"),
        ({"model": None}, "model: expected a mapping, got nothing"), ({"model": {"lr": 1}}, "setting of training"),
    ],
)  # fmt: skip
def test_bad_runs_are_named(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run.from_dict(document)

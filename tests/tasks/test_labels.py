"""Labels are told by name before any of them reaches a device."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.errors import SchemaError
from graphfusion.schema import Class, MultiLabel, Number
from graphfusion.tasks import learn_target, make_task


@pytest.mark.parametrize(
    ("spec", "cells", "message"),
    [
        (Class(), ["a", ["b"]], r"row 5: target 'y': expected a text.*got list.*MultiLabel\(\)"),
        (Class(), ["a", {"b": 1}], r"row 5: target 'y': .*got dict.*write its name"),
        (Class(), ["a", b"b"], r"row 5: .*got bytes"),
        (Class(), ["a", float("inf")], r"row 5: target 'y': inf is no class"),
        (Class(), ["a", "\ud800"], r"row 5: target 'y': .*lone surrogate"),
        (Class(), ["1", 1], r"target 'y': classes are of mixed kinds \(1 text, as '1', 1 number, as 1\)"),
        (Class(), [True, 1], r"mixed kinds \(1 truth value, as True, 1 number, as 1\)"),
        (Class(("a", "b")), ["a", "bb"], r"row 5: target 'y': unknown class 'bb'. Did you mean 'b'"),
        (Class(("a", "a")), ["a", "a"], "a class is declared twice"),
        (MultiLabel(), [["a"], ["a", None]], r"row 5: target 'y': .*got NoneType"),
        (MultiLabel(), [["a"], {"a": 1}], r"row 5: target 'y': .*got dict"),
        (MultiLabel(), [["a"], [1]], "mixed kinds"),
        (MultiLabel(("a",)), ["a", "a|b"], r"row 5: target 'y': unknown class 'b'"),
        (Number(), [1.0, "12,5"], r"row 5: target 'y': expected a finite number, got '12,5'"),
        (Number(), [1.0, [2.0, 3.0]], r"row 5: target 'y': expected a finite number"),
    ],
)
def test_bad_labels_name_their_row(spec: Any, cells: list[Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        learn_target("y", spec, cells, [3, 5])


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        ([1.0, 2.0, None], (1, 2)),
        ([3, 1.0], (1, 3)),
        ([0.5, 1.0], (0.5, 1)),
        ([True, False], (False, True)),
        (["Washington, DC", "Paris, TX"], ("Paris, TX", "Washington, DC")),
    ],
)
def test_classes_are_learned_without_a_word(cells: list[Any], classes: tuple[Any, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec, _ = learn_target("y", Class(), cells)
    assert spec == Class(classes)
    assert [type(c) for c in spec.classes] == [type(c) for c in classes]  # 1 == 1.0 == True
    task = make_task("y", spec, None, 4)
    expected = [-1 if c is None else classes.index(c) for c in cells]
    assert task.encode(cells).tolist() == expected
    assert task.predict(torch.eye(len(classes))).output == list(classes)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["cat", "cat ", "dog"], "'cat' and 'cat ' differ only in blanks or case"),
        (["Cat", "cat", "dog"], "'Cat' and 'cat' differ only"),
        (["a|b", "b", "a"], r"'a\|b' seem to hold several labels.*MultiLabel\(separator='\|'\)"),
        (["a;b", "b;c", "a;c"], r"separator=';'"),
        ([f"{i}.5" for i in range(30)], "30 different classes in 30 rows"),
    ],
)
def test_odd_classes_are_said(cells: list[str], message: str) -> None:
    with pytest.warns(UserWarning, match=f"target 'y': .*{message}"):
        learn_target("y", Class(), cells)


@pytest.mark.parametrize("label", [["a"], {"a": 1}, b"a", np.array(["a"]), float("nan")])
def test_what_can_be_no_label_is_named_when_encoded(label: Any) -> None:
    task = make_task("y", Class(("a", "b")), None, 4)
    for encode in (task.encode, task.encode_unseen):
        with pytest.raises(SchemaError, match="target 'y'"):
            encode(["a", label])


def test_tensors_of_one_number_are_numbers() -> None:
    table = read_table([{"x": 1.0, "y": torch.tensor(i % 2)} for i in range(6)])
    assert learn_target("y", infer_schema(table, ["y"]).targets["y"], table.column("y"))[0] == Class((0, 1))


def test_whole_numbers_as_floats_are_said() -> None:
    table = read_table({"x": [1.0] * 8, "y": [0.0, 1.0, 2.0, None] * 2, "z": [0.0, 1.0, 2.5, None] * 2})
    with pytest.warns(UserWarning, match=r"'y' is taken for a number, its values are 3 whole ones.*Class\(\)"):
        infer_schema(table, ["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert infer_schema(table, ["z"]).targets == {"z": Number()}
        assert infer_schema(table, ["y"], {"y": Number()}).targets == {"y": Number()}


def test_truth_values_among_numbers_are_named() -> None:
    table = read_table({"x": [1.0] * 4, "y": [True, False, 1, 0]})
    with pytest.raises(SchemaError, match="'y': cannot tell a class from a number, cells are of bool, int"):
        infer_schema(table, ["y"])

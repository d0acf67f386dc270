"""Losses and metrics against formulas and scikit-learn; unknown targets take no part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.metrics import f1_score

from graphfusion.errors import GraphError, SchemaError
from graphfusion.fusion import FusedGraph
from graphfusion.schema import Class, MultiLabel, Number
from graphfusion.tasks import (
    ClassificationTask,
    MultiLabelTask,
    Prediction,
    RegressionTask,
    TargetScale,
    learn_target,
    make_task,
)


def test_classification() -> None:
    task = ClassificationTask("y", 4, ["a", "b", "c"])
    target = task.encode(["a", None, "c", "a", "b"])
    assert target.tolist() == [0, -1, 2, 0, 1]
    logits = torch.randn(5, 3, requires_grad=True)
    known = [0, 2, 3, 4]
    by_hand = -logits.log_softmax(1)[known, target[known]].mean()
    torch.testing.assert_close(task.loss(logits, target), by_hand)
    task.loss(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().sum() == 0
    prediction = task.predict(logits.detach())
    assert prediction.output == ["abc"[i] for i in logits.argmax(1)]
    np.testing.assert_allclose(prediction.probability, logits.detach().softmax(1), atol=1e-6)
    assert task.loss(logits, task.encode([None] * 5)).item() == 0


def test_classification_metrics_equal_sklearn() -> None:
    task = ClassificationTask("y", 4, [0, 1, 2, 3])
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 3, 50), torch.from_numpy(rng.normal(size=(50, 4)))
    guess = logits.argmax(1).numpy()
    found = task.metrics(logits, torch.from_numpy(truth))
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, guess))
    held = sklearn.metrics.f1_score(truth, guess, average="macro", labels=[0, 1, 2])
    assert found["macro_f1"] == pytest.approx(held)
    assert found["weighted_f1"] == pytest.approx(sklearn.metrics.f1_score(truth, guess, average="weighted"))
    assert found["per_class"]["1"]["count"] == (truth == 1).sum()


def test_multi_label() -> None:
    task = MultiLabelTask("y", 4, ["a", "b"])
    target = task.encode([["a"], [], "a|b", None])
    assert target[:3].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert target[3].isnan().all()
    logits = torch.tensor([[2.0, -1.0], [1.0, -2.0], [3.0, 1.0], [9.0, 9.0]])
    p = logits[:3].sigmoid()
    by_hand = -(target[:3] * p.log() + (1 - target[:3]) * (1 - p).log()).mean()
    torch.testing.assert_close(task.loss(logits, target), by_hand)
    assert task.predict(logits).output == [["a"], ["a"], ["a", "b"], ["a", "b"]]
    found = task.metrics(logits, target)
    truth, guess = target[:3].int().numpy(), (logits[:3] > 0).int().numpy()
    assert found["micro_f1"] == pytest.approx(sklearn.metrics.f1_score(truth, guess, average="micro"))
    assert found["exact"] == pytest.approx(2 / 3)


def test_regression() -> None:
    task = RegressionTask("y", 4, mean=10.0, deviation=2.0)
    target = task.encode([12.0, None, "8"])
    assert target[0] == 12
    assert target[1].isnan()
    logits = torch.tensor([0.5, 7.0, -1.0])
    assert float(task.loss(logits, target)) == pytest.approx(((0.5 - 1) ** 2 + 0) / 2)
    assert task.predict(logits).output == [11.0, 24.0, 8.0]
    found = task.metrics(logits, target)
    assert found["mae"] == pytest.approx(0.5)
    assert found["rmse"] == pytest.approx(math.sqrt(0.5))
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score([12, 8], [11, 8]))


def test_one_label_alone_and_sets() -> None:
    task = MultiLabelTask("y", 4, ["a"])
    target = task.encode([{"a"}, frozenset(), np.array(["a"])])
    assert target.tolist() == [[1], [0], [1]]
    found = task.metrics(torch.tensor([[1.0], [1.0], [-1.0]]), target)
    assert found["micro_f1"] == found["per_class"]["a"]["f1"] == pytest.approx(0.5)


def test_large_numbers_keep_their_differences() -> None:
    cells = [1.7e9 + 1, 1.7e9 + 60]
    _, scale = learn_target("y", Number(), cells)
    assert scale is not None
    task = RegressionTask("y", 4, scale.mean, scale.deviation)
    assert float(task.loss(torch.tensor([-1.0, 1.0]), task.encode(cells))) == pytest.approx(0, abs=1e-6)
    assert learn_target("y", Number(), [0.1] * 10)[1] == TargetScale(pytest.approx(0.1), 1.0)


@pytest.mark.parametrize(
    ("spec", "cells", "expected"),
    [
        (Class(), ["b", None, "a"], (Class(("a", "b")), None)),
        (Class(("z", "a")), ["a"], (Class(("z", "a")), None)),
        (MultiLabel(), ["x|y", ["z"], ""], (MultiLabel(("x", "y", "z")), None)),
        (Number(), [1, 3.0, None], (Number(), TargetScale(2.0, 1.0))),
        (Number(), [5, 5], (Number(), TargetScale(5.0, 1.0))),
    ],
)
def test_targets_are_learned(spec: Any, cells: list[Any], expected: Any) -> None:
    assert learn_target("y", spec, cells) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learn_target("y", Class(), [None]), "no training row has a value"),
        (lambda: learn_target("y", Class(), ["a", 1]), "mixed kinds"),
        (lambda: make_task("y", Class(("a",)), None, 4), "two classes"),
        (lambda: make_task("y", Class(("apple", "pear")), None, 4).encode(["aple"]), "Did you mean 'apple'"),
        (lambda: make_task("y", MultiLabel(("a",)), None, 4).encode([["b"]]), "label 'b'"),
        (lambda: make_task("y", MultiLabel(()), None, 4), "no label"),
        (lambda: learn_target("y", Number(), [1.0, "many"]), "finite number, got 'many'"),
        (lambda: learn_target("y", Number(), [float("inf")]), "finite number"),
    ],
)
def test_bad_targets_are_named(make: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        make()


def test_objects_check_their_meaning() -> None:
    with pytest.raises(GraphError, match="2 outputs"):
        Prediction(["a", "b"], np.zeros((3, 2), np.float32))
    h, three = torch.zeros(2, 1), torch.zeros(3)
    for parts, message in (
        (({}, {"a": torch.zeros(3, 1)}, h), r"readout 'a': expected the shape \(2, 1\), got \(3, 1\)"),
        (({}, {"a": torch.zeros(2, 5)}, h), r"readout 'a': expected the shape \(2, 1\), got \(2, 5\)"),
        (({}, {}, h, {"a": three}), r"weight 'a': expected the shape \(2,\), got \(3,\)"),
        (({"a": h}, {}, h, {}, {"a": three}), r"token weight 'a': expected the shape \(2,\), got \(3,\)"),
    ):
        with pytest.raises(GraphError, match=message):
            FusedGraph(*parts)


def test_a_class_that_no_training_row_had_is_answered_wrongly() -> None:
    task = ClassificationTask("t", 4, ("a", "b"))
    target = task.encode_unseen(["a", "zebra", None, "b"])
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert task.metrics(logits, target)["accuracy"] == pytest.approx(2 / 3)
    alone = task.loss(logits[[0, 3]], task.encode(["a", "b"]))
    torch.testing.assert_close(task.loss(logits, target), alone)


def test_averages_of_f1_count_classes_that_no_training_row_had() -> None:
    task = ClassificationTask("t", 4, ("a", "b"))
    truth = ["a", "zebra", "b", "gnu", "zebra"]
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    found = task.metrics(logits, task.encode_unseen(truth))
    guess = ["a", "a", "b", "b", "a"]
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))
    assert found["weighted_f1"] == pytest.approx(f1_score(truth, guess, average="weighted", zero_division=0))
    assert list(found["per_class"]) == ["a", "b", "(unseen)"]
    assert found["per_class"]["(unseen)"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "count": 3}

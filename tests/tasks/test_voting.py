"""Output fusion: joined answers by hand, weights of members against a search over the simplex."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import graphfusion as gf
from graphfusion.errors import ConfigError
from graphfusion.fusion import FusedGraph
from graphfusion.schema import Class, MultiLabel, Number
from graphfusion.tasks import TargetScale, VotingTask, make_task
from graphfusion.tasks.voting import VOTES

NAMES = ("text", "image", "sound")


def task_of(vote: str, spec: Any = None, names: tuple[str, ...] = NAMES) -> Any:
    torch.manual_seed(0)
    scale = TargetScale(10.0, 2.0) if isinstance(spec, Number) else None
    return make_task("y", spec or Class(("a", "b", "c")), scale, 4, vote=vote, modalities=names)


def logits_of(probability: list[list[float]], present: list[float]) -> torch.Tensor:
    """One sample: a row of probabilities for each modality → (1, M, K + 1)."""
    return torch.cat([torch.tensor(probability).log(), torch.tensor(present)[:, None]], dim=1)[None]


P = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.0625, 0.875, 0.0625]]


@pytest.mark.parametrize(
    ("vote", "present", "expected"),
    [
        # means of the columns: (1.1625, 1.575, 0.2625) / 3
        ("soft", [1, 1, 1], [0.3875, 0.525, 0.0875]), ("weighted", [1, 1, 1], [0.3875, 0.525, 0.0875]),
        ("soft", [1, 1, 0], [0.55, 0.35, 0.1]), ("soft", [0, 0, 1], [0.0625, 0.875, 0.0625]),
        # two of three say a
        ("hard", [1, 1, 1], [2 / 3, 1 / 3, 0.0]), ("hard", [0, 0, 1], [0.0, 1.0, 0.0]),
        # geometric means, scaled to sum 1: third roots of .01875, .105 and .000625
        ("average", [1, 1, 1], [0.32282, 0.57328, 0.10390]),
        ("soft", [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]), ("average", [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)  # fmt: skip
def test_joined_classes_by_hand(vote: str, present: list[float], expected: list[float]) -> None:
    joined = task_of(vote).join(logits_of(P, present))
    assert joined.softmax(1)[0].tolist() == pytest.approx(expected, abs=2e-4)


def test_weighted_votes_by_hand() -> None:
    """β = 1/2, 1/4, 1/4: .3 + .125 + .015625 for a; without the second, 2/3 and 1/3: .4 + .0208333."""
    task = task_of("weighted")
    task.beta.copy_(torch.tensor([0.5, 0.25, 0.25]))
    assert task.join(logits_of(P, [1, 1, 1])).softmax(1)[0, 0].item() == pytest.approx(0.440625, abs=1e-5)
    assert task.join(logits_of(P, [1, 0, 1])).softmax(1)[0, 0].item() == pytest.approx(0.4208333, abs=1e-5)


def test_even_votes_go_to_the_larger_mean() -> None:
    task = task_of("hard", names=NAMES[:2])
    assert task.predict(logits_of([[0.6, 0.4, 1e-9], [0.1, 0.9, 1e-9]], [1, 1])).output == ["b"]
    assert task.predict(logits_of([[0.9, 0.1, 1e-9], [0.4, 0.6, 1e-9]], [1, 1])).output == ["a"]


def test_joined_labels_and_numbers_by_hand() -> None:
    spec = MultiLabel(classes=("x", "y"))
    odds = torch.tensor([[[0.8, 0.3], [0.7, 0.4], [0.1, 0.2]]]).logit()
    logits = torch.cat([odds, torch.ones(1, 3, 1)], dim=2)
    soft, hard = (task_of(v, spec).join(logits).sigmoid()[0].tolist() for v in ("soft", "hard"))
    assert soft == pytest.approx([1.6 / 3, 0.3])
    assert hard == pytest.approx([2 / 3, 0.0], abs=2e-4)
    nobody = torch.cat([odds, torch.zeros(1, 3, 1)], dim=2)
    assert all(task_of(v, spec).predict(nobody).output == [[]] for v in VOTES)
    number = task_of("average", Number())
    assert number.predict(torch.zeros(1, 3, 2)).output == [10.0]
    values = torch.tensor([[[1.0, 1.0], [4.0, 1.0], [100.0, 0.0]]])
    assert number.predict(values).output == [pytest.approx(10 + 2 * 2.5)]
    with pytest.raises(ConfigError, match="fusion='hard_vote': 'y' is a number, which has no majority"):
        task_of("hard", Number())
    with pytest.raises(ConfigError, match="unknown vote 'loud'"):
        VotingTask({"a": task_of("soft")}, "loud")


def test_each_member_learns_from_its_own_loss() -> None:
    task = task_of("soft")
    readouts = {n: torch.randn(4, 4, requires_grad=True) for n in NAMES}
    there = {"text": torch.tensor([1.0, 1, 1, 0]), "image": torch.tensor([1.0, 0, 1, 1]), "sound": torch.zeros(4)}
    fused = FusedGraph({}, readouts, torch.zeros(4, 4), there)
    target = torch.tensor([0, 2, -1, 1])
    logits = task(fused)
    assert logits.shape == (4, 3, 4)
    loss = task.loss(logits, target)
    cross = torch.nn.functional.cross_entropy
    by_hand = (
        cross(logits[[0, 1], 0, :3], target[[0, 1]], reduction="sum")
        + cross(logits[[0, 3], 1, :3], target[[0, 3]], reduction="sum")
    ) / 9  # three members, three samples that have a target
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    grad = {n: r.grad for n, r in readouts.items()}
    assert bool(grad["text"][:2].any(1).all())
    assert not grad["text"][2:].any()
    assert not grad["sound"].any()


@pytest.mark.parametrize("fusion", ["soft_vote", "hard_vote", "output_average", "weighted_vote", "gated"])
def test_the_loss_that_is_told_is_of_the_answers(fusion: str) -> None:
    rows = [{"title": f"red pot {i}", "x": float(i % 3), "y": "abc"[i % 3]} for i in range(24)]
    rows[4]["x"] = rows[5]["title"] = None
    columns = {"title": gf.Text(), "x": gf.Tabular("number")}
    predictor = gf.FusionPredictor("y", columns=columns, fusion=fusion, dim=8, heads=2, epochs=2)
    predictor.fit(rows, valid=rows[:9], quiet=True)
    for options in ({}, {"without": ("title",)}):
        truth = ["abc".index(r["y"]) for r in rows]
        by_hand = -np.log(predictor.predict_proba(rows, **options)[range(24), truth]).mean()
        assert predictor.evaluate(rows, **options)["loss"] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_weights_are_the_best_of_the_simplex(seed: int) -> None:
    """Against all weights in steps of 1/40."""
    torch.manual_seed(seed)
    target = torch.randint(0, 3, (300,))
    right = torch.nn.functional.one_hot(target, 3).float()
    answers = torch.stack([right * s + torch.randn(300, 3) for s in (2.0, 1.0, 0.0)], dim=1)
    present = torch.ones(300, 3, 1)
    present[:40, 0] = 0
    logits = torch.cat([answers, present], dim=2)
    task = task_of("weighted")
    before = float(task.first.loss(task.join(logits), target))
    task.fit_weights(logits, target)
    after = float(task.first.loss(task.join(logits), target))
    steps = [(a, b, 40 - a - b) for a in range(41) for b in range(41 - a)]
    best = min(float(task.first.loss(task.join(logits, torch.tensor(s) / 40), target)) for s in steps if max(s) < 40)
    assert after < before
    assert after <= best + 1e-4
    assert sum(task.weights.values()) == pytest.approx(1.0)
    assert task.weights["text"] > task.weights["sound"]


def test_no_validation_rows_leave_equal_weights() -> None:
    task = task_of("weighted")
    assert task.fit_weights(torch.zeros(2, 3, 4), torch.tensor([-1, -1])) is False
    assert list(task.weights.values()) == pytest.approx([1 / 3] * 3)


def test_a_weighted_vote_wants_validation_rows() -> None:
    rows = [{"title": f"red pot {i}", "y": "ab"[i % 2]} for i in range(8)]
    predictor = gf.FusionPredictor("y", columns={"title": gf.Text()}, fusion="weighted_vote", dim=8, heads=2, epochs=1)
    with pytest.raises(ConfigError, match="weights on validation rows: pass valid=, or use 'soft_vote'"):
        predictor.fit(rows, valid=None, quiet=True)


def test_a_fit_weighs_what_knows_the_answer(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "good": ["red pot", "blue pan"][i % 2] + f" {rng.integers(9)}",
            "noise": f"w{rng.integers(9)} z",
            "y": "ab"[i % 2],
        }
        for i in range(80)
    ]
    columns = {"good": gf.Text(), "noise": gf.Text()}
    predictor = gf.FusionPredictor(
        "y", columns=columns, fusion="weighted_vote", dim=16, heads=2, epochs=20, lr=1e-2, device="cpu"
    )
    predictor.fit(rows, quiet=True)
    weights = predictor.pipeline.tasks["y"].weights
    assert weights["good"] > 0.8
    predictor.save(tmp_path / "m")
    loaded = gf.FusionPredictor.load(tmp_path / "m")
    assert loaded.pipeline.tasks["y"].weights == weights
    np.testing.assert_array_equal(loaded.predict_proba(rows), predictor.predict_proba(rows))
    assert predictor.evaluate(rows, without="noise")["accuracy"] > 0.95
    assert math.isclose(predictor.predict_proba(rows[:1], without="good").sum(), 1.0, rel_tol=1e-5)

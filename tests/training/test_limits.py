"""Rows above a batch's budget, memory that is short, numbers that are not finite, signals."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from graphfusion.config import TrainingConfig
from graphfusion.data import Budget
from graphfusion.errors import CheckpointError, ConfigError, TrainingError
from graphfusion.graph_builder import GraphBuilder
from graphfusion.graph_builder.relations import Full, SameSpeaker
from graphfusion.modalities import NodeType, TokenizedSample, Tokens
from graphfusion.model import FusionModel
from graphfusion.predictor import FusionPredictor
from graphfusion.schema import Features
from graphfusion.selftest.rows import COLUMNS, SMALL, make_rows, predictor
from graphfusion.training.cap import cap_rows
from graphfusion.training.checkpoint import read_folder, write_folder
from graphfusion.training.diagnosis import check_gradients, check_weights, first_broken
from graphfusion.training.interruption import Interruption
from graphfusion.training.loop import run_fit
from graphfusion.training.memory import OPEN, out_of_memory, room
from graphfusion.training.rows import Collate, NoisyRows
from graphfusion.training.step import _clip

VECTORS = NodeType("features", (2,))


def tokens(count: int) -> Tokens:
    return Tokens(np.ones((count, 2), np.float32), np.arange(count)[:, None], np.empty((count, 0)))


def test_rows_are_cut_to_the_budget_and_named() -> None:
    builder = GraphBuilder({"a": VECTORS, "b": VECTORS}, [Full("a", "b")])
    rows = [
        TokenizedSample(4, {"a": tokens(10), "b": tokens(3)}),
        TokenizedSample(7, {"a": tokens(1000), "b": tokens(3)}),
        TokenizedSample(9, {"a": tokens(40), "b": tokens(40)}),
    ]
    capped, incidents = cap_rows(rows, builder, Budget(64, 200, 900))
    assert capped[0] is rows[0]
    nodes, edges = builder.sizes([row.tokens for row in capped])
    assert max(nodes) <= 200
    assert max(edges) <= 900
    assert len(capped[1].tokens["a"]) == 125
    assert len(capped[1].tokens["b"]) == 3
    assert len(capped[2].tokens["a"]) * len(capped[2].tokens["b"]) == 800
    assert {i.row for i in incidents} == {7, 9}
    assert "1,000 tokens, of which the first 125 are kept" in str(incidents[0])
    assert str(incidents[0]).endswith("[cut]")


def test_a_row_far_above_the_budget_is_never_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = np.array(["ann"] * 60_000)
    long = replace(tokens(60_000), attributes={"speaker": speaker})
    short = replace(tokens(5), attributes={"speaker": speaker[:5]})
    builder = GraphBuilder({"a": VECTORS}, [SameSpeaker("a")])
    counted: list[int] = []
    real = GraphBuilder.sizes

    def sizes(self: GraphBuilder, rows: Any) -> Any:
        counted.extend(len(row["a"]) for row in rows)
        return real(self, rows)

    monkeypatch.setattr(GraphBuilder, "sizes", sizes)
    capped, incidents = cap_rows(
        [TokenizedSample(0, {"a": short}), TokenizedSample(1, {"a": long})], builder, Budget(64, 16_384, 262_144)
    )
    assert [len(row.tokens["a"]) for row in capped] == [5, 512]
    assert [i.row for i in incidents] == [1]
    assert "60,000 tokens, of which the first 512 are kept" in str(incidents[0])
    assert max(counted) == 2_048


def test_what_counts_as_short_memory() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert out_of_memory(found.value)
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(ValueError("not enough memory"))


def test_the_first_broken_tensor_is_named() -> None:
    model = torch.nn.Linear(2, 1)
    check_weights(model, "now")
    model.bias.data[0] = float("inf")
    with pytest.raises(TrainingError, match="weight 'bias' is not finite now"):
        check_weights(model, "now")
    model.weight.grad = torch.tensor([[1.0, float("nan")]])
    with pytest.raises(TrainingError, match="gradient of 'weight' is not finite in a step over rows 3, 4"):
        check_gradients(model, float("nan"), [torch.tensor([3, 4])])
    check_gradients(model, 1.0, [torch.tensor([3, 4])])
    assert first_broken({"ids": torch.tensor([1])}) == ""


def test_signals_wait_for_the_step_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption(active=True) as interruption:
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.asked == "SIGUSR1"
        assert not interruption.stops
        signal.raise_signal(signal.SIGTERM)
        assert interruption.stops
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.asked == "SIGTERM"
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    with Interruption(active=False) as interruption, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, ignored)
    assert interruption.asked == ""


def test_the_gradient_that_is_named_is_the_broken_one() -> None:
    """Clipping by a norm that is not finite would break them all first."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    model[1].bias.grad[0] = float("nan")
    fit = SimpleNamespace(
        step_module=model,
        model=model,
        config=TrainingConfig(),
        accelerator=SimpleNamespace(unscale_gradients=lambda: None),
    )
    with pytest.raises(TrainingError, match=r"gradient of '1\.bias'"):
        _clip(fit, [torch.tensor([0])])
    assert torch.isfinite(model[0].weight.grad).all()


def test_fp16_that_overflows_at_every_scale_is_an_error_not_a_fit_that_stands_still() -> None:
    """While its scale is above 1 the scaler leaves the step out and halves it. A CPU cannot fit in fp16, but has the scaler."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    fit = SimpleNamespace(
        step_module=model,
        model=model,
        config=TrainingConfig(precision="fp16"),
        accelerator=SimpleNamespace(unscale_gradients=lambda: scaler.unscale_(optimizer), scaler=scaler),
    )
    before, scales = model.weight.detach().clone(), []
    with pytest.raises(TrainingError, match="gradient of 'weight' is not finite in a step over rows 7"):
        for _ in range(10):
            optimizer.zero_grad()
            scaler.scale(model(torch.tensor([[float("inf"), 1.0]])).sum()).backward()
            scales.append(scaler.get_scale())
            _clip(fit, [torch.tensor([7])])
            scaler.step(optimizer)
            scaler.update()
    assert scales == [4.0, 2.0, 1.0, 0.5]
    assert torch.equal(model.weight, before)


def test_a_step_that_was_half_applied_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no memory for the moments")

    monkeypatch.setattr(torch.optim.AdamW, "step", short)
    with pytest.raises(TrainingError, match=r"optimiser's state .* optimizer='sgd'"):
        predictor().fit(make_rows(8), valid=None, quiet=True)


def test_short_memory_while_a_batch_is_made_halves_it_and_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Collate.__call__

    def short(self: Collate, samples: Any) -> Any:
        if len(samples) > 3:
            raise MemoryError("more than three rows")
        return real(self, samples)

    settings = {"optimizer": "sgd", "epochs": 1, "dropout": 0.0, "modality_dropout": 0.0}
    whole = predictor(**settings).fit(make_rows(12), valid=None, quiet=True)
    monkeypatch.setattr(Collate, "__call__", short)
    for workers in (0, 1):
        halved = predictor(**settings, workers=workers)
        halved.fit(make_rows(12), valid=None, quiet=True, on_error="skip")
        assert halved.report is not None
        assert halved.report.skipped == 0
        assert halved.history[0]["train_loss"] == pytest.approx(whole.history[0]["train_loss"], abs=1e-6)


def test_answers_come_in_smaller_parts_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FusionModel.forward
    rows = make_rows(13)
    fitted = predictor(epochs=1).fit(rows, valid=0.3, quiet=True)
    whole, embedded, scores = fitted.predict_proba(rows), fitted.embed(rows), fitted.evaluate(rows)
    tried: list[int] = []

    def short(self: FusionModel, batch: Any) -> Any:
        tried.append(len(batch.ids))
        if len(batch.ids) > 3:
            raise torch.OutOfMemoryError("more than three rows")
        return real(self, batch)

    monkeypatch.setattr(FusionModel, "forward", short)
    np.testing.assert_allclose(fitted.predict_proba(rows), whole, atol=1e-6)
    assert tried == [13, 6, 3, 3, 3, 3, 1]
    np.testing.assert_allclose(fitted.embed(rows), embedded, atol=1e-5)
    again = fitted.evaluate(rows)
    assert again["loss"] == pytest.approx(scores["loss"], abs=1e-6)
    assert again["per_class"] == scores["per_class"]

    def never(self: FusionModel, batch: Any) -> Any:
        if 7 in batch.ids.tolist():
            raise torch.OutOfMemoryError("row 7")
        return real(self, batch)

    monkeypatch.setattr(FusionModel, "forward", never)
    with pytest.raises(TrainingError, match=r"row 7: memory is short for this row by itself \(.*lower max_nodes"):
        fitted.predict(rows)


def test_a_launcher_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one of WORLD_SIZE=2 processes"):
        predictor().fit(make_rows(8), valid=None, quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "1")
    predictor(epochs=1).fit(make_rows(8), valid=None, quiet=True)


def test_a_row_that_takes_all_memory_is_named_after_all_halvings(monkeypatch: pytest.MonkeyPatch) -> None:
    real = NoisyRows.__getitem__

    def greedy(self: NoisyRows, index: int) -> TokenizedSample:
        if self.rows[index].id == 7:
            raise MemoryError("no memory for this row")
        return real(self, index)

    monkeypatch.setattr(NoisyRows, "__getitem__", greedy)
    with pytest.raises(TrainingError, match=r"row 7: MemoryError: no memory for this row"):
        predictor().fit(make_rows(12), valid=None, quiet=True)
    left = predictor().fit(make_rows(12), valid=None, quiet=True, on_error="skip")
    assert left.report is not None
    assert [(i.row, i.action) for i in left.report.incidents if i.action == "skipped"] == [(7, "skipped")]


def test_rows_that_were_cut_are_not_moved_as_pictures() -> None:
    fitted = predictor(epochs=1, max_nodes=12).fit(make_rows(12), valid=None, quiet=True)
    assert fitted.report is not None
    assert fitted.report.skipped == 0
    assert "cut" in {i.action for i in fitted.report.incidents}


def test_a_fit_without_any_row_left_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("never")

    monkeypatch.setattr("graphfusion.modalities.features.FeaturesModality.augment", broken)
    with pytest.raises(TrainingError, match=r"no row is left to train on; the last one, row .*: ValueError: never"):
        predictor().fit(make_rows(8), valid=None, quiet=True, on_error="skip")


def test_an_answer_that_is_not_finite_names_its_row() -> None:
    rows = [{"x": [float(i), 1.0], "y": float(i)} for i in range(12)]
    fitted = FusionPredictor("y", columns={"x": Features(standardize=False)}, **{**SMALL, "epochs": 1})
    fitted.fit(rows, valid=None, quiet=True)
    with pytest.raises(TrainingError, match="row 1 is not finite"):
        fitted.predict([rows[0], {"x": [3e38, 3e38]}])


def test_the_report_of_a_fit_covers_its_validation_rows() -> None:
    rows = make_rows(12)
    for row in rows:
        row["clip"] = "no vector"
    fitted = predictor(epochs=1).fit(rows, valid=0.25, quiet=True, on_error="missing")
    assert fitted.report is not None
    assert (fitted.report.seen, fitted.report.repaired) == (12, 12)


def test_a_resumed_fit_refuses_other_columns(tmp_path: Path) -> None:
    rows = make_rows(8)
    predictor(epochs=1).fit(rows, valid=None, save_path=tmp_path, quiet=True)
    other = FusionPredictor("label", columns={**COLUMNS, "age": None}, **{**SMALL, "epochs": 1})
    with pytest.raises(ConfigError, match="other columns="):
        other.fit(rows, valid=None, save_path=tmp_path, quiet=True, resume="auto")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("fit.json", {"epoch": "x"}),
        ("fit.json", {"rows": ...}),
        ("predictor.json", {"declared": ...}),
        ("fit.json", {"score": 3}),
        ("predictor.json", {"config": ...}),
        ("predictor.json", {"schema": ...}),
    ],
)
def test_a_forged_checkpoint_is_refused(file: str, change: dict[str, Any], tmp_path: Path) -> None:
    rows = make_rows(8)
    predictor(epochs=1).fit(rows, valid=None, save_path=tmp_path, quiet=True)
    newest = max((tmp_path / "checkpoints").iterdir())
    files = read_folder(newest)
    document = {**json.loads(files[file]), **change}
    document = {name: value for name, value in document.items() if value is not ...}
    write_folder(newest, {**files, file: json.dumps(document).encode()})
    with pytest.raises(CheckpointError):
        predictor(epochs=1).fit(rows, valid=None, save_path=tmp_path, quiet=True, resume="auto")


def test_what_is_open_in_a_budget_follows_from_memory() -> None:
    """Half of what is free, as many times over as a first batch goes into it; what is bounded stays."""
    whole = Budget(64, OPEN, OPEN)
    assert room(whole, nodes=100, edges=700, held=1_000, free=50_000) == Budget(64, 2_500, 17_500)
    assert room(Budget(64, 512, OPEN), nodes=100, edges=700, held=1_000, free=50_000) == Budget(64, 512, 17_500)
    assert room(whole, nodes=0, edges=0, held=0, free=0) == Budget(64, 1, 1)


def test_an_open_budget_on_a_cpu_is_the_default() -> None:
    plain = predictor(epochs=1).fit(make_rows(12), valid=None, quiet=True)
    fitted = predictor(epochs=1, max_nodes=0, max_edges=0).fit(make_rows(12), valid=None, quiet=True)
    np.testing.assert_array_equal(fitted.embed(make_rows(3)), plain.embed(make_rows(3)))
    with pytest.raises(ConfigError, match=r"max_nodes: expected a number from 0, got -1"):
        predictor(max_nodes=-1)


def test_a_fit_that_goes_on_has_the_batches_that_it_began_with(tmp_path: Path) -> None:
    """Memory may be another one by then; other batches would see some rows twice and some not at all."""
    measured = mock.patch("graphfusion.predictor.measured_budget")
    with measured as first:
        first.return_value = Budget(4, 11, 222)
        predictor(epochs=1).fit(make_rows(12), valid=None, quiet=True, save_path=tmp_path)
    progress = json.loads(next(tmp_path.rglob("fit.json")).read_text())
    assert (progress["nodes"], progress["edges"]) == (11, 222)
    with measured as again, mock.patch("graphfusion.predictor.run_fit", wraps=run_fit) as run:
        predictor(epochs=1).fit(make_rows(12), valid=None, quiet=True, save_path=tmp_path, resume="auto")
    assert not again.called
    assert (run.call_args.args[1].budget.nodes, run.call_args.args[1].budget.edges) == (11, 222)

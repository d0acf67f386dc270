"""Fits on pretrained models: what is saved, how each is tuned, and the fusion's formula on their states."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphfusion import FusionPredictor, PretrainedImage, PretrainedText, pipeline
from graphfusion.cli import main
from graphfusion.errors import CheckpointError, ConfigError, SchemaError
from graphfusion.pipeline import Pipeline
from graphfusion.schema import declared_to_dict
from tests.checkpoints import save_byte_model, save_image_model, save_text_model

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "dim": 16,
    "heads": 1,
    "batch_size": 8,
    "dropout": 0.0,
    "modality_dropout": 0.0,
}


def table(count: int = 24) -> list[dict[str, Any]]:
    """The label is whether text and picture agree; some cells are missing."""
    numbers = np.random.default_rng(0)
    rows = []
    for i in range(count):
        red, bright = bool(numbers.integers(2)), bool(numbers.integers(2))
        pixels = (numbers.random((3, 40, 24)) * 0.4 + 0.6 * bright).astype(np.float32)
        text = f"the {'red' if red else 'green'} cat sat on the mat"
        rows.append(
            {"text": None if i % 7 == 3 else text, "photo": None if i % 5 == 4 else pixels, "label": str(red == bright)}
        )
    return rows


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_text_model(folder / "bert")
    save_byte_model(folder / "gpt2")
    save_image_model(folder / "resnet", "resnet", 64)
    save_image_model(folder / "vit")
    return folder


def columns(models: Path, tune: float = 0.0, image: str = "resnet") -> dict[str, Any]:
    return {
        "text": PretrainedText(str(models / "bert"), max_tokens=16, tune=tune),
        "photo": PretrainedImage(str(models / image), tune=tune),
    }


@pytest.mark.parametrize("fusion", ["cross_attention", "graph"])
def test_a_fitted_predictor_answers_the_same_where_the_checkpoints_are_not(
    fusion: str, models: Path, tmp_path: Path
) -> None:
    rows = table()
    there = shutil.copytree(models, tmp_path / "models")
    p = FusionPredictor("label", columns=columns(there), fusion=fusion, **SETTINGS)
    p.fit(rows, valid=0.2, save_path=tmp_path / "run", quiet=True)
    expected = p.predict_proba(rows)
    assert np.isfinite(expected).all()
    shutil.rmtree(there)
    loaded = FusionPredictor.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict_proba(rows), expected)
    for i in (0, 3, 4):  # alone, without a text, without a picture
        np.testing.assert_allclose(loaded.predict_proba(rows[i : i + 1])[0], expected[i], atol=1e-5)


def test_a_resumed_fit_reads_no_checkpoint_and_ends_at_the_same_bits(models: Path, tmp_path: Path) -> None:
    rows = table()
    there = shutil.copytree(models, tmp_path / "models")
    told: dict[str, Any] = {"columns": columns(there, tune=0.05, image="vit"), **SETTINGS}
    whole = FusionPredictor("label", **told).fit(rows, save_path=tmp_path / "whole", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "predictor")
    newest = sorted((tmp_path / "half" / "checkpoints").iterdir())
    assert len(newest) == 2
    shutil.rmtree(newest[-1])
    shutil.rmtree(there)
    half = FusionPredictor("label", **told).fit(rows, save_path=tmp_path / "half", resume="auto", quiet=True)
    for (name, a), (_, b) in zip(
        whole.pipeline.model.state_dict().items(), half.pipeline.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_tuned_weights_learn_at_their_share_of_the_rate_frozen_ones_stay(models: Path) -> None:
    rows = table()
    moved = {}
    for tune in (0.0, 0.01, 0.1):
        p = FusionPredictor(
            "label", columns=columns(models, tune), optimizer="sgd", clip=0.0, weight_decay=0.0, **SETTINGS
        )
        before = {n: w.clone() for n, w in p.build(rows).model.state_dict().items()}
        p.fit(rows, valid=None, quiet=True)
        after = p.pipeline.model.state_dict()
        own = [n for n in after if ".model." in n and after[n].is_floating_point() and "running" not in n]
        moved[tune] = float(sum((after[n] - before[n]).norm() ** 2 for n in own) ** 0.5)
        assert any(not torch.equal(after[n], before[n]) for n in after if "projection" in n)
    assert moved[0.0] == 0
    assert 0 < 3 * moved[0.01] < moved[0.1] < 30 * moved[0.01]


def test_scaled_dot_attention_of_a_text_model_to_a_vision_model_is_the_formula(models: Path) -> None:
    """S3's BERT + ResNet: softmax(text · imageᵀ / √d) image, added to the text and pooled, one head, by hand."""
    rows = table(6)[:1]
    p = FusionPredictor("label", columns=columns(models), fusion="cross_attention", **SETTINGS)
    pipeline = p.fit(table(), valid=None, quiet=True).pipeline
    batch = p.graph(rows)
    fusion: Any = pipeline.model.fusion.eval()
    with torch.no_grad():
        x, y = (pipeline.model.encoders[name].eval()(batch.nodes[name]) for name in ("text", "photo"))
        fused = pipeline.model(batch)
        attention = fusion.attention
        text, image = fusion.norms[0](x), fusion.norms[1](y)
        q, k, v = attention.query(text), attention.key(image), attention.value(image)
        context = attention.out(torch.softmax(q @ k.T / 16**0.5, -1) @ v)
        pooled = (x + context).mean(0)
        expected = pooled + fusion.join(pooled)
    torch.testing.assert_close(fused.unified[0], expected, rtol=0, atol=1e-5)


def test_without_a_checkpoint_a_column_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"PretrainedText.checkpoint: expected a folder or the name"):
        PretrainedText()
    with pytest.raises(SchemaError, match=r"PretrainedImage.tune: expected a number from 0, got -1"):
        PretrainedImage("a", tune=-1)
    with pytest.raises(ConfigError, match=r"checkpoint './nowhere' cannot be read: there is no such folder\."):
        FusionPredictor("label", columns={"text": PretrainedText("./nowhere")}, **SETTINGS).fit(table(), quiet=True)


def overlaps(one: np.ndarray, two: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of half-open spans that have a character in common."""
    return {
        (i, j)
        for i, a in enumerate(one)
        for j, b in enumerate(two)
        if set(range(*map(int, a))) & set(range(*map(int, b)))
    }


@pytest.mark.parametrize("fusion", ["graph", "concat"])
def test_bert_gpt2_and_vit_are_fused_each_with_its_own_tokens_and_rate(
    fusion: str, models: Path, tmp_path: Path
) -> None:
    """S0's fusion of models: two of them read one column, tied where their tokens share characters."""
    rows = table()
    told = {
        "text": PretrainedText(str(models / "bert"), max_tokens=16),
        "as bytes": PretrainedText(str(models / "gpt2"), max_tokens=40, tune=0.1, of="text"),
        "photo": PretrainedImage(str(models / "vit"), tune=0.05),
        "photo by another": PretrainedImage(str(models / "resnet"), of="photo"),
    }
    p = FusionPredictor("label", columns=told, fusion=fusion, **{**SETTINGS, "epochs": 1})
    before = {n: w.clone() for n, w in p.build(rows).model.state_dict().items()}
    p.fit(rows, valid=None, save_path=tmp_path / "run", quiet=True)
    after = p.pipeline.model.state_dict()
    for i, moves in enumerate((False, True, True, False)):
        own = [n for n in after if n.startswith(f"encoders.parts.{i}.model.") and "weight" in n]
        assert own
        assert any(not torch.equal(before[n], after[n]) for n in own) == moves, list(told)[i]
    again = FusionPredictor.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict_proba(rows), p.predict_proba(rows))
    np.testing.assert_allclose(p.predict_proba([{"photo": rows[3]["photo"]}])[0], p.predict_proba(rows)[3], atol=1e-5)
    if fusion == "graph":
        batch = p.graph(rows[:1])
        spans = [batch.nodes[name].span.numpy() for name in ("text", "as bytes")]
        found = set(map(tuple, batch.edge_index(("text", "same_span", "as bytes")).T.tolist()))
        assert found == overlaps(*spans)
        assert len(found) == 20  # letters of the words; blanks lie in no token of the first
        assert ("as bytes", "same_span", "text") in p.pipeline.builder.edge_types


def test_a_column_that_a_model_reads_by_another_name(models: Path) -> None:
    rows, bert = table(), str(models / "bert")
    settings = {**SETTINGS, "epochs": 1}
    p = FusionPredictor(
        "label", columns={"text": None, "photo": None, "words": PretrainedText(bert, 16, of="text")}, **settings
    )
    p.fit(rows, quiet=True)
    assert list(p.pipeline.modalities) == ["words"]
    plain = FusionPredictor("label", columns={"photo": None, "text": PretrainedText(bert, 16)}, **settings).fit(
        rows, quiet=True
    )
    np.testing.assert_allclose(p.predict_proba(rows), plain.predict_proba(rows), atol=1e-6)
    p.predict([{"photo": rows[0]["photo"], "text": "a cat"}])
    assert p.report.absent == ()
    with pytest.raises(SchemaError, match=r"lacks a column: unknown column 'txt'.*Did you mean 'text'"):
        FusionPredictor("label", columns={"words": PretrainedText(bert, of="txt")}, **settings).fit(rows, quiet=True)
    with pytest.raises(
        SchemaError, match="'photo' reads 'text', but the table has a column 'photo'; choose another name"
    ):
        FusionPredictor("label", columns={"photo": PretrainedText(bert, of="text")}, **settings).fit(rows, quiet=True)
    with pytest.raises(SchemaError, match="column 'label' is an input and a target"):
        FusionPredictor("label", columns={"words": PretrainedText(bert, of="label")}, **settings).fit(rows, quiet=True)


@pytest.fixture(scope="module")
def fitted(models: Path) -> FusionPredictor:
    return FusionPredictor("label", columns=columns(models), **{**SETTINGS, "epochs": 1}).fit(table(), quiet=True)


def changed(p: FusionPredictor, change: Callable[[dict[str, Any]], None]) -> None:
    """Load the predictor with its document changed."""
    files = p.pipeline.to_files(p.targets, declared_to_dict(p.columns), p.config)
    document = json.loads(files["predictor.json"])
    change(document["modalities"])
    Pipeline.from_files({**files, "predictor.json": json.dumps(document).encode()}, p.config)


def with_option(name: str, option: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(modalities: dict[str, Any]) -> None:
        config = json.loads(modalities[name]["config"])
        modalities[name]["config"] = json.dumps({**config, option: value})

    return change


def test_a_saved_predictor_whose_model_names_code_or_nonsense_is_refused(fitted: FusionPredictor) -> None:
    for name, option, value, said in (
        ("text", "auto_map", {"AutoModel": "evil.Model"}, "unknown option of bert 'auto_map'"),
        ("text", "num_attention_heads", 0, "ZeroDivisionError"),
        ("photo", "hidden_sizes", [], "not the configuration of a resnet"),
    ):
        with pytest.raises(CheckpointError, match=said):
            changed(fitted, with_option(name, option, value))
    with pytest.raises(CheckpointError, match="ZeroDivisionError"):
        changed(fitted, lambda modalities: modalities["photo"].update(patch=0))


def test_weights_of_another_version_of_the_library_are_told(
    fitted: FusionPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers names the weights of some families anew from time to time."""

    def older(modalities: dict[str, Any]) -> None:
        with_option("text", "num_hidden_layers", 1)(modalities)
        modalities["text"]["library"] = "transformers 5.0.0"

    changed(fitted, lambda modalities: modalities["text"].update(library="transformers 5.0.0"))
    with pytest.raises(
        CheckpointError,
        match=r"do not fit .* \(fitted with .*transformers 5.0.0.*, here is transformers .*: install that",
    ):
        changed(fitted, older)


def test_the_command_line_fits_and_predicts(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "\n".join(f"the {'red' if i % 2 else 'green'} cat,{i % 2}" for i in range(20))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}\n")
    (tmp_path / "run.yaml").write_text(
        "target: label\ncolumns: {text: {kind: pretrained_text, checkpoint: nowhere, max_tokens: 16}}\ntraining: {epochs: 1}\n"
    )
    run = ["fit", str(tmp_path / "rows.csv"), "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    assert main([*run, "--set", f"columns.text.checkpoint={models / 'bert'}"]) == 0
    assert "are frozen" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "out"), str(tmp_path / "rows.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 21
    if not torch.cuda.is_available():
        assert main(["predict", str(tmp_path / "out"), str(tmp_path / "rows.csv"), "--device", "cuda"]) == 2
        assert "torch sees no GPU here" in capsys.readouterr().err
    assert main([*run[:-1], str(tmp_path / "other"), "--set", f"columns.text.checkpoint={models / 'vit'}"]) == 2
    assert "unknown text model 'vit'" in capsys.readouterr().err


def test_a_predictor_without_pretrained_models_does_not_ask_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "library", lambda: pytest.fail("transformers was imported"))
    rows = [{"x": i / 10, "label": str(i % 2)} for i in range(10)]
    p = FusionPredictor("label", **{**SETTINGS, "epochs": 1}).fit(rows, valid=None, quiet=True)
    pipeline.Pipeline.from_files(p.pipeline.to_files(p.targets, declared_to_dict(p.columns), p.config), p.config)

"""From a table to a model and back: the promises of `FusionPredictor`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import graphfusion as gf
from graphfusion.errors import CheckpointError, ConfigError, GraphFusionError, MediaError, SchemaError
from graphfusion.fit_folder import FitFolder, fit_state
from graphfusion.fusion import FUSIONS
from graphfusion.graph_builder import GRAPHS, Full, OtherSpeaker, PositionKNN, SameSpeaker, SequenceWindow
from graphfusion.schema import TABLE
from graphfusion.training.loop import FitState
from tests.conftest import SCHEMA, make_rows, png, wav

FAST: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "epochs": 2, "batch_size": 16}
COLUMNS = {**SCHEMA.inputs, **SCHEMA.targets}


def rows_with_gaps(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in which any modality may be missing, and some labels are unknown."""
    rng = np.random.default_rng(seed)
    rows = make_rows(count, seed)
    for row in rows:
        for name in SCHEMA.inputs:
            if rng.random() < 0.3:
                row[name] = None
    rows[1]["label"] = None
    return rows


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[gf.FusionPredictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    predictor = gf.FusionPredictor("label", columns=COLUMNS, **FAST)
    return predictor.fit(rows_with_gaps(40), valid=0.25, save_path=folder, quiet=True), folder


def test_answers_have_one_entry_per_row(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, _ = fitted
    rows = rows_with_gaps(7, seed=5)
    assert len(p.predict(rows)) == 7
    assert set(p.predict(rows)) <= set("abc")
    assert p.predict_proba(rows).shape == (7, 3)
    np.testing.assert_allclose(p.predict_proba(rows).sum(1), 1, atol=1e-5)
    assert p.embed(rows).shape == (7, 16)
    order = [3, 0, 6]
    np.testing.assert_allclose(p.embed([rows[i] for i in order]), p.embed(rows)[order], atol=1e-5)


def test_save_and_load_give_the_same_answers(fitted: tuple[gf.FusionPredictor, Path], tmp_path: Path) -> None:
    p, folder = fitted
    rows = rows_with_gaps(7, seed=5)
    p.save(tmp_path / "copy")
    for path in (folder, tmp_path / "copy"):
        again = gf.FusionPredictor.load(path)
        np.testing.assert_array_equal(again.predict_proba(rows), p.predict_proba(rows))
        assert again.schema == p.schema
        assert again.config == p.config
    with pytest.raises(CheckpointError, match="no saved folder"):
        gf.FusionPredictor.load(tmp_path / "none")
    (tmp_path / "copy" / "predictor.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="damaged or altered"):
        gf.FusionPredictor.load(tmp_path / "copy")


@pytest.mark.parametrize("columns", [{**COLUMNS, "age": gf.Tabular("category"), "photo": None}, SCHEMA, {}])
def test_a_loaded_predictor_fits_as_the_one_that_was_saved(columns: Any, tmp_path: Path) -> None:
    rows = [row | {"age": float(i % 3)} for i, row in enumerate(make_rows(12))]
    p = gf.FusionPredictor("label", columns=columns, **FAST).fit(rows, valid=None, quiet=True)
    p.save(tmp_path / "p")
    q = gf.FusionPredictor.load(tmp_path / "p")
    assert q.columns == columns
    again = [p.fit(rows[:10], valid=None, quiet=True), q.fit(rows[:10], valid=None, quiet=True)]
    assert again[0].schema == again[1].schema
    np.testing.assert_array_equal(*(each.embed(rows) for each in again))


def test_all_modalities_may_be_missing(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, _ = fitted
    empty = [dict.fromkeys(SCHEMA.inputs), {"caption": ""}]
    found = p.predict_proba(empty)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    everything = tuple(SCHEMA.node_types)
    np.testing.assert_allclose(p.predict_proba(make_rows(3), without=everything), np.repeat(found[:1], 3, 0), atol=1e-5)


def test_withholding_equals_a_missing_column(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, _ = fitted
    rows = make_rows(6, seed=3)
    without = [{k: v for k, v in row.items() if k not in ("sound", "age", "colour")} for row in rows]
    np.testing.assert_allclose(p.predict_proba(rows, without=("sound", TABLE)), p.predict_proba(without), atol=1e-6)
    with pytest.raises(ConfigError, match="Did you mean 'sound'"):
        p.predict(rows, without=("sond",))


def test_evaluate_is_over_the_rows_that_have_the_target(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, _ = fitted
    rows = make_rows(9, seed=3)
    rows[2]["label"] = None
    found = p.evaluate(rows)
    guess = p.predict(rows)
    expected = np.mean([g == r["label"] for g, r in zip(guess, rows, strict=True) if r["label"] is not None])
    assert found["accuracy"] == pytest.approx(expected)
    assert sum(c["count"] for c in found["per_class"].values()) == 8
    rows[0]["label"] = "d"
    with pytest.raises(SchemaError, match="unknown class 'd'"):
        p.evaluate(rows)
    with pytest.raises(SchemaError, match="'label'"):
        p.evaluate([{k: v for k, v in row.items() if k != "label"} for row in rows])


def test_what_a_fit_writes(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, folder = fitted
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines == p.history
    assert list((folder / "tensorboard").glob("events*"))
    assert sorted(q.name for q in (folder / "checkpoints").iterdir()) == ["step-000000002", "step-000000004"]


def test_same_seed_same_bits_and_torch_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    rows = rows_with_gaps(24)
    first, second = (
        gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(rows, valid=0.25, quiet=True) for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first.embed(rows), second.embed(rows))
    other = gf.FusionPredictor("label", seed=1, columns=COLUMNS, **FAST).fit(rows, valid=0.25, quiet=True)
    assert (other.embed(rows) != first.embed(rows)).any()


class Stop(Exception):
    """Raised where a test stops a fit."""


@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (3, 0), (2, 1)])
def test_a_stopped_fit_resumes_to_the_same_bits(
    stop: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, modality dropout, warm-up, accumulation: a fit stopped after an epoch ends as if it had not been."""
    rows = rows_with_gaps(30)
    settings = {**FAST, "epochs": 4, "dropout": 0.2, "modality_dropout": 0.3, "accumulate": 2, "batch_size": 6}

    def fit(folder: Path, **options: Any) -> gf.FusionPredictor:
        again = {"workers": workers} if options else {}
        p = gf.FusionPredictor("label", columns=COLUMNS, **settings, **again)
        return p.fit(rows, valid=0.25, save_path=folder, quiet=True, **options)

    whole = fit(tmp_path / "whole")
    save = FitFolder.save

    def cut(self: FitFolder, pipeline: Any, fit: Any, digest: str, state: FitState) -> None:
        save(self, pipeline, fit, digest, state)
        if state.epoch == stop:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(FitFolder, "save", cut)
        fit(tmp_path / "cut")
    resumed = fit(tmp_path / "cut", resume=True)
    assert resumed.history == whole.history
    one, two = whole.pipeline.model.state_dict(), resumed.pipeline.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "cut" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_the_scale_of_fp16_is_in_the_checkpoint(tmp_path: Path) -> None:
    """A CPU cannot fit in fp16, but has the scaler."""

    def fit_with(scaler: torch.amp.GradScaler) -> Any:
        optimizer = torch.optim.SGD(p.pipeline.model.parameters())
        accelerator = SimpleNamespace(scaler=scaler)
        return SimpleNamespace(model=p.pipeline.model, optimizer=optimizer, accelerator=accelerator)

    p = gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(make_rows(6), valid=None, quiet=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=7)
    scaler.scale(torch.ones(1))  # else it has no scale yet
    scaler.update(4.0)
    folder = FitFolder(tmp_path, ("label",), {}, p.config)
    folder.save(p.pipeline, fit_with(scaler), "rows", FitState(best_weights=dict(p.pipeline.model.state_dict())))
    other = torch.amp.GradScaler("cpu")
    fit_state(folder.newest(), fit_with(other), "rows")
    assert other.state_dict() == scaler.state_dict()
    assert other.state_dict()["scale"] == 4.0


def test_resume_refuses_other_settings_and_starts_where_nothing_is(tmp_path: Path) -> None:
    rows = make_rows(12)
    gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(
        rows, valid=None, save_path=tmp_path, quiet=True, resume=True
    )
    with pytest.raises(ConfigError, match=r"lr: 0\.002 → 0\.5"):
        changed = gf.FusionPredictor("label", columns=COLUMNS, **{**FAST, "lr": 0.5})
        changed.fit(rows, valid=None, save_path=tmp_path, quiet=True, resume=True)
    with pytest.raises(ConfigError, match="save_path"):
        gf.FusionPredictor("label", **FAST).fit(rows, resume=True)


def test_resume_refuses_other_rows_or_targets_and_a_new_fit_starts_anew(tmp_path: Path) -> None:
    rows = make_rows(16)

    def fit(rows: list[dict[str, Any]], target: str = "label", **options: Any) -> gf.FusionPredictor:
        p = gf.FusionPredictor(
            target, columns={k: v for k, v in COLUMNS.items() if k != target or target == "label"}, **FAST
        )
        return p.fit(rows, save_path=tmp_path, quiet=True, **options)

    fit(rows, valid=0.25)
    for other, valid in ((rows[:12], 0.25), (rows, 0.5), ([*rows[:15], make_rows(1, seed=9)[0]], 0.25)):
        with pytest.raises(ConfigError, match="rows are not those"):
            fit(other, valid=valid, resume=True)
    with pytest.raises(ConfigError, match="fitted to"):
        fit(rows, "age", valid=0.25, resume=True)
    with pytest.raises(ConfigError, match="holds an earlier fit: resume='auto' goes on with it, resume='restart'"):
        fit(rows[:12], valid=0.25)
    fit(rows[:12], valid=0.25, resume="restart")
    assert fit(rows[:12], valid=0.25, resume=True).history


def test_what_stands_in_the_way_of_the_predictor_is_told_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "predictor").mkdir()
    (tmp_path / "predictor" / "my.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"my\.txt"):
        gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(make_rows(6), save_path=tmp_path, quiet=True)
    assert not (tmp_path / "checkpoints").exists()


def test_a_column_that_the_table_lacks_is_in_the_report(fitted: tuple[gf.FusionPredictor, Path]) -> None:
    p, _ = fitted
    rows = [{k: v for k, v in row.items() if k != "photo"} for row in make_rows(3)]
    p.predict(rows)
    assert p.report is not None
    assert p.report.absent == ("photo",)
    assert "no column 'photo': missing in every row" in str(p.report)


def test_what_happens_to_validation_rows_is_in_the_incidents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, held = make_rows(12), make_rows(6)
    train[3]["photo"] = held[2]["photo"] = "none.png"
    held[4]["label"], held[5]["label"] = "zebra", None
    p = gf.FusionPredictor("label", columns=COLUMNS, **FAST)
    p.fit(train, valid=held, save_path=tmp_path, on_error="missing")
    lines = [json.loads(line) for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]
    assert [(i["table"], i["row"], i["column"]) for i in lines] == [
        ("", 3, "photo"), ("validation", 2, "photo"), ("validation", 4, "label")
    ]  # fmt: skip
    assert "unknown class 'zebra'" in lines[2]["reason"]
    said = capsys.readouterr().out
    assert "validation: 6 rows seen = 4 ok + 0 skipped + 2 repaired" in said
    assert "12 rows to train on, 6 rows (2 without a target, which are not scored) to validate on" in said


def test_files_that_are_all_missing_are_looked_for_in_the_wrong_place() -> None:
    rows = [{**row, "photo": f"{i}.png"} for i, row in enumerate(make_rows(6))]
    with pytest.warns(UserWarning, match=r"none of the 6 cells of column 'photo' can be read .* is media_root= right"):
        gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(rows, valid=None, on_error="missing", quiet=True)


def test_loading_says_which_folder_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a" / "predictor").mkdir(parents=True)
    (tmp_path / "b" / "predictor").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"holds several fits; take one of .*a, .*b\.$"):
        gf.FusionPredictor.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file; expected the folder that a fit wrote"):
        gf.FusionPredictor.load(tmp_path / "file")


def test_a_refused_fit_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        gf.FusionPredictor("lable", **FAST).fit(make_rows(6), save_path=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_class_that_only_validation_has_is_said_and_not_scored(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(12)
    held = [*make_rows(4, seed=2), {**make_rows(1)[0], "label": "only here"}]
    gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(rows, valid=held)
    said = capsys.readouterr().out
    assert "row 4, column 'label': not scored: target 'label': unknown class 'only here'" in said
    assert "5 rows (1 without a target, which are not scored) to validate on" in said


def test_a_validation_csv_is_read_as_the_training_csv_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels that look like numbers in one file and not in the other, and a predictor that is fitted twice."""
    (tmp_path / "train.csv").write_text("n,label\n" + "".join(f"{i},{['x', '07'][i % 2]}\n" for i in range(12)))
    (tmp_path / "valid.csv").write_text("n,label\n1,07\n3,07\n")
    p = gf.FusionPredictor("label", **FAST)
    p.fit(tmp_path / "train.csv", valid=tmp_path / "valid.csv")
    assert "that no training row has" not in capsys.readouterr().out
    assert p.evaluate(tmp_path / "valid.csv")["rows"] == 2
    (tmp_path / "other.csv").write_text("n,label\n" + "".join(f"{i},{i % 2}\n" for i in range(12)))
    assert p.fit(tmp_path / "other.csv", valid=None, quiet=True).schema.targets["label"] == gf.Class((0, 1))


def test_resume_notices_changed_times(tmp_path: Path) -> None:
    def fit(shift: float, **options: Any) -> None:
        rows = [
            {"talk": {"values": np.full((2, 3), i), "seconds": [[0, 1], [1, 2 + shift]]}, "label": "ab"[i % 2]}
            for i in range(6)
        ]
        gf.FusionPredictor("label", **FAST).fit(rows, valid=None, save_path=tmp_path, quiet=True, **options)

    fit(0.0)
    with pytest.raises(ConfigError, match="rows are not those"):
        fit(0.5, resume=True)
    fit(0.0, resume=True)


def test_relations_and_a_schema_of_one_s_own(tmp_path: Path) -> None:
    relations = [
        SequenceWindow("caption", 2, direction="past"),
        PositionKNN("photo", "photo", 3),
        Full("caption", "photo"),
    ]
    p = gf.FusionPredictor("label", columns=SCHEMA, relations=relations, **FAST)
    p.fit(make_rows(8), valid=None, quiet=True, save_path=tmp_path)
    assert p.pipeline.builder.edge_types == tuple((r.source, r.name, r.target) for r in relations)
    again = gf.FusionPredictor.load(tmp_path)
    assert again.config == p.config
    np.testing.assert_array_equal(again.embed(make_rows(3)), p.embed(make_rows(3)))


def test_a_csv_of_digits_is_read_as_the_training_table_was(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "title,day,label\n" + "".join(f"a title {i} of some words,2024-01-{i + 1:02},{'ab'[i % 2]}\n" for i in range(9))
    )
    (tmp_path / "new.csv").write_text("title,day\n2020,2024-02-01\n,\n")
    p = gf.FusionPredictor("label", **FAST).fit(tmp_path / "train.csv", valid=None, quiet=True)
    assert p.schema.inputs == {"title": gf.Text(), "day": gf.Tabular("number")}
    assert len(p.predict(tmp_path / "new.csv")) == 2
    assert p.predict([]) == []
    assert p.embed([]).shape == (0, 16)


def test_one_odd_cell_costs_only_itself() -> None:
    """A bad date or number: its own row and column are named, everything else is read as ever."""
    rows = [
        {"text": f"{'red' if i % 2 else 'blue'} thing {i}", "d": f"2024-01-{i + 1:02}", "n": i / 2, "y": "ab"[i % 2]}
        for i in range(12)
    ]
    p = gf.FusionPredictor("y", **FAST).fit(rows, valid=None, quiet=True)
    assert p.schema.inputs["d"] == gf.Tabular("number")
    good = p.predict_proba(rows)
    odd = [dict(row) for row in rows]
    odd[7]["d"] = "unknown"
    with pytest.raises(GraphFusionError, match=r"row 7, column 'd': expected a number or an ISO date, got 'unknown'"):
        p.predict(odd)
    with pytest.warns(UserWarning, match="row 7, column 'd'"):
        found = p.predict_proba(odd, on_error="missing")
    np.testing.assert_allclose(np.delete(found, 7, 0), np.delete(good, 7, 0), atol=1e-6)
    odd[7]["d"] = None
    np.testing.assert_allclose(found[7], p.predict_proba(odd)[7], atol=1e-6)
    np.testing.assert_allclose(p.predict_proba(pd.DataFrame(rows)), good, atol=1e-6)


def test_answers_say_what_is_wrong_with_the_rows(fitted: tuple[gf.FusionPredictor, Path], tmp_path: Path) -> None:
    p, _ = fitted
    with pytest.raises(GraphFusionError, match="2 rows without any column"):
        p.predict([{}, {}])
    with pytest.warns(UserWarning, match="'caption' is missing in every row; is 'Caption' meant"):
        p.predict([{"Caption": "red", "age": 3}])
    with pytest.raises(ConfigError, match="'age' is a column of 'table'"):
        p.predict(make_rows(2), without="age")
    np.testing.assert_array_equal(p.embed(make_rows(2), without="sound"), p.embed(make_rows(2), without=("sound",)))
    bad = make_rows(4)
    bad[2]["label"] = "zebra"
    with pytest.raises(SchemaError, match="row 2: target 'label': unknown class 'zebra'"):
        p.evaluate(bad)
    right = p.evaluate(make_rows(4))["accuracy"] * 4 - (p.predict(make_rows(4))[2] == make_rows(4)[2]["label"])
    assert p.evaluate(bad, unseen="wrong")["accuracy"] == pytest.approx(right / 4)
    bad[2]["label"] = None
    assert p.evaluate(bad)["rows"] == 3


def test_an_unfinished_fit_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = FitFolder.save

    def cut(self: FitFolder, *parts: Any) -> None:
        save(self, *parts)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(FitFolder, "save", cut)
        gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(
            make_rows(6), valid=None, save_path=tmp_path, quiet=True
        )
    with pytest.raises(CheckpointError, match=r"not finished; go on with fit.*resume='auto'"):
        gf.FusionPredictor.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        gf.FusionPredictor("label", **FAST).fit(make_rows(6), save_path=tmp_path / "file", quiet=True)


def test_load_and_fit_leave_the_caller_s_randomness_alone(tmp_path: Path) -> None:
    gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(make_rows(6), valid=None, quiet=True, save_path=tmp_path)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    gf.FusionPredictor.load(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_source_of_rows_gives_the_same_model(tmp_path: Path) -> None:
    """List, frame, Parquet with bytes, CSV with paths: one table, one model."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(12)]
    sounds = [(rng.normal(0, 0.1, 2000).clip(-1, 1) * 32767).astype(np.int16) for _ in range(12)]
    notes = [f"note {i} of a dozen words and more" for i in range(12)]
    labels = [["x", "y"][i % 2] for i in range(12)]
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(png(pictures[i]))
        (tmp_path / f"{i}.wav").write_bytes(wav(sounds[i] / 32767, 16_000))
    memory = {"photo": pictures, "sound": sounds, "note": notes, "label": labels}
    files = {**memory, "photo": [f"{i}.png" for i in range(12)], "sound": [f"{i}.wav" for i in range(12)]}
    pd.DataFrame(files).to_csv(tmp_path / "t.csv", index=False)
    content = {**files, "photo": [(tmp_path / f).read_bytes() for f in files["photo"]],
               "sound": [(tmp_path / f).read_bytes() for f in files["sound"]]}  # fmt: skip
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    listed = [{k: v[i] for k, v in memory.items()} for i in range(12)]
    columns = {"photo": gf.Image(size=16, patch=4), "sound": gf.Audio(), "note": gf.Text()}
    found = []
    for source in (listed, pd.DataFrame(files), tmp_path / "t.csv", tmp_path / "t.parquet"):
        p = gf.FusionPredictor("label", columns=columns, **FAST)
        found.append(p.fit(source, valid=None, quiet=True, media_root=tmp_path).embed(listed))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-3)


def test_many_targets_each_on_the_rows_that_have_it(tmp_path: Path) -> None:
    rows = make_rows(30)
    for i, row in enumerate(rows):
        row["tags"] = None if i % 5 == 0 else ["x"] * (i % 2) + ["y"] * (i % 3 == 0)
        row["score"] = None if i % 4 == 0 else float(i)
    p = gf.FusionPredictor(["label", "tags", "score"], columns={**COLUMNS, "tags": gf.MultiLabel()}, **FAST)
    p.fit(rows, valid=0.3, quiet=True)
    found = p.predict(rows[:4])
    assert {name: len(v) for name, v in found.items()} == {"label": 4, "tags": 4, "score": 4}
    scores = p.evaluate(rows)
    assert {"label/accuracy", "tags/micro_f1", "score/mae"} <= set(scores)
    assert {name: v.shape for name, v in p.predict_proba(rows[:4]).items()} == {"label": (4, 3), "tags": (4, 2)}
    p.save(tmp_path / "p")
    assert gf.FusionPredictor.load(tmp_path / "p").predict(rows[:4]) == found


def test_unreadable_cells_follow_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(12)
    rows[4]["photo"] = b"broken"
    p = gf.FusionPredictor("label", columns=COLUMNS, **FAST)
    with pytest.raises(MediaError, match=r"row 4, column 'photo'.*on_error"):
        p.fit(rows, valid=None, quiet=True)
    p.fit(rows, valid=None, quiet=True, on_error="missing")
    assert p.report is not None
    assert (p.report.ok, p.report.repaired, p.report.skipped) == (11, 1, 0)
    with pytest.warns(UserWarning, match="11 ok . 1 skipped"):
        answers = p.predict(rows, on_error="skip")
    monkeypatch.setattr("warnings.warn", lambda *args, **options: None)
    assert [i for i, a in enumerate(answers) if a is None] == [4]
    assert np.isnan(p.predict_proba(rows, on_error="skip")[4]).all()
    assert np.isnan(p.embed(rows, on_error="skip")[4]).all()
    assert np.isfinite(np.delete(p.embed(rows, on_error="skip"), 4, 0)).all()
    assert p.predict([rows[4]], on_error="skip") == [None]
    found = p.evaluate(rows, on_error="skip")
    assert (found["rows"], found["skipped"]) == (11, 1)
    assert str(p.report).startswith("12 rows seen = 11 ok + 1 skipped + 0 repaired")


def test_early_stopping_says_why_and_restores_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(30)
    p = gf.FusionPredictor("label", columns=COLUMNS, **{**FAST, "epochs": 30, "patience": 2, "lr": 0.01})
    p.fit(rows, valid=0.3)
    out = capsys.readouterr().out
    assert "no better validation score for 2 epochs" in out
    assert len(p.history) < 30
    scores = [(h["valid_score"], -h["valid_loss"]) for h in p.history]
    assert scores.index(max(scores)) == len(scores) - 3
    assert f"best epoch {len(scores) - 2}" in out
    assert "edge photo -grid-> photo" in out
    assert "30 rows seen = 30 ok" in out
    assert re.search(r"\n21 rows.* to train on, 9 rows.* to validate on\n", out)


def test_time_limit_ends_a_fit(capsys: pytest.CaptureFixture[str]) -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, **{**FAST, "epochs": 10_000, "patience": 10_000})
    p.fit(make_rows(12), valid=None, time_limit=1)
    assert "stopped: time limit of 1 s" in capsys.readouterr().out
    assert len(p.predict(make_rows(2))) == 2


@pytest.mark.filterwarnings("ignore:12 rows seen")
@pytest.mark.parametrize("fusion", ["weighted_sum", "weighted_vote"])
def test_modality_weights_line_up_with_the_rows(fusion: str) -> None:
    rows = make_rows(12)
    rows[2] = {**rows[2], "sound": None}
    rows[3] = {**rows[3], "age": "much"}
    p = gf.FusionPredictor("label", fusion=fusion, columns=COLUMNS, **FAST).fit(rows[4:], valid=0.25, quiet=True)
    weights = p.modality_weights(rows, on_error="skip", without="photo")
    assert tuple(weights) == SCHEMA.node_types
    table = np.stack(list(weights.values()), axis=1)
    assert np.isnan(table[3]).all()
    assert weights["sound"][2] == 0
    assert not weights["photo"][[0, 1, 2, 5]].any()
    np.testing.assert_allclose(np.delete(table, 3, 0).sum(1), 1.0, atol=1e-5)
    assert weights["caption"][2] > weights["caption"][1]  # scaled up where the sound is missing
    other = gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(rows[4:], valid=None, quiet=True)
    with pytest.raises(ConfigError, match="fusion='graph' does not weigh modalities; these do: gated, hard_vote"):
        other.modality_weights(rows)
    with pytest.raises(ConfigError, match=r"unknown option 'wihout'. Did you mean 'without'"):
        other.predict(rows, wihout="photo")  # type: ignore[call-arg]


@pytest.mark.filterwarnings("ignore:12 rows seen")
def test_token_weights_line_up_with_the_nodes_of_each_row() -> None:
    rows = make_rows(12)
    rows[2] = {**rows[2], "sound": None}
    rows[3] = {**rows[3], "age": "much"}
    rows[5] = {**rows[5], "caption": "a much longer caption than any other has"}
    settings = {**FAST, "batch_size": 5}  # answers of several batches
    p = gf.FusionPredictor("label", fusion="co_attention", columns=COLUMNS, **settings).fit(
        rows[6:], valid=None, quiet=True
    )
    with pytest.raises(ConfigError, match=r"does not weigh modalities; .* It weighs tokens: token_weights has those"):
        p.modality_weights(rows)
    weights = p.token_weights(rows, on_error="skip", without="photo")
    graph = p.graph(rows, on_error="skip", without="photo")
    assert tuple(weights) == SCHEMA.node_types
    kept = [i for i in range(12) if i != 3]
    for modality, found in weights.items():
        assert found[3] is None
        counts = graph.nodes[modality].ptr.diff().tolist()
        assert [len(found[i]) for i in kept] == counts
        for i, count in zip(kept, counts, strict=True):
            assert found[i].sum() == pytest.approx(1.0 if count else 0.0, abs=1e-5)
    assert not len(weights["sound"][2])
    alone = p.token_weights(rows[5:6], without="photo")
    np.testing.assert_allclose(alone["caption"][0], weights["caption"][5], atol=1e-5)
    assert len(weights["caption"][5]) > len(weights["caption"][4])
    p.pipeline.model.fusion.score["caption"].weight.data.zero_()  # equal scores: equal shares
    caption = p.token_weights(rows[5:6])["caption"][0]
    np.testing.assert_allclose(caption, np.full(len(caption), 1 / len(caption)), atol=1e-6)
    other = gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(rows[6:], valid=None, quiet=True)
    with pytest.raises(
        ConfigError, match="fusion='graph' does not weigh tokens; these do: alternating_co_attention, co_attention"
    ):
        other.token_weights(rows)


@pytest.mark.parametrize(
    ("graph", "fusion"), [*((g, "graph") for g in sorted(GRAPHS)), *(("hub", f) for f in sorted(FUSIONS))]
)
def test_every_stage_is_swapped_by_name(graph: str, fusion: str) -> None:
    """extract, align, fuse, optimise."""
    choice: dict[str, Any] = {
        "encoders": {"image": "linear", "audio": "linear"},
        "graph": graph,
        "fusion": fusion,
        "optimizer": "sgd",
    }
    p = gf.FusionPredictor("label", columns=COLUMNS, **{**FAST, "epochs": 1}, **choice)
    assert len(p.fit(make_rows(8), valid=0.25, quiet=True).predict(make_rows(3))) == 3


def test_it_learns_what_only_two_modalities_together_tell() -> None:
    """label = (bright or dark picture) XOR (word): each alone says nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(240):
        bright, word = int(rng.integers(2)), int(rng.integers(2))
        photo = (rng.random((16, 16, 1)) * 0.4 + 0.5 * bright).astype(np.float32)
        rows.append({"photo": photo, "note": ["keep it", "flip it"][word], "label": bright ^ word})
    p = gf.FusionPredictor(
        "label", columns={"note": gf.Text(), "photo": gf.Image(16, 8, 1)}, dim=32, epochs=15, modality_dropout=0.0
    )
    p.fit(rows[:160], valid=rows[160:200], quiet=True)
    assert p.evaluate(rows[200:])["accuracy"] > 0.95
    for name in ("photo", "note"):
        assert p.evaluate(rows[200:], without=(name,))["accuracy"] < 0.8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gf.FusionPredictor("label", preset="fst"), "Did you mean 'fast'"),
        (lambda: gf.FusionPredictor("label", epoch=3), "Did you mean 'epochs'"),
        (lambda: gf.FusionPredictor([]), "got none"),
        (lambda: gf.FusionPredictor(None), "got none"),
        (lambda: gf.FusionPredictor(["label", "age", "label"]), "target: expected each column once"),
        (lambda: gf.FusionPredictor("label", columns=["age"]), r"columns: expected a mapping such as \{'title': Text\(\)\}, got \['age'\]"),
        (lambda: gf.FusionPredictor("label", columns={"age": "category"}), r"columns\['age'\]: expected Tabular\('category'\), got 'category'"),
        (lambda: gf.FusionPredictor("label", columns={"age": "multi_label"}), r"expected MultiLabel\(\), got"),
        (lambda: gf.FusionPredictor("label", columns={"age": gf.Text}), "expected one of Audio, Class, .*, or None, got"),
        (lambda: gf.FusionPredictor("label", columns={"label": gf.Text()}, **FAST).fit(make_rows(4), valid=None), r"declared as an input \(text\)"),
        (lambda: gf.FusionPredictor("label", relations=["full"]), r"relations: expected policies such as Full.* graph='full' takes the preset"),
        (lambda: gf.FusionPredictor("label", attention="gat2"), "Did you mean 'gatv2'"),
        (lambda: gf.FusionPredictor("label", relation_attention={"full": "dott"}), "Did you mean 'dot'"),
        (lambda: gf.FusionPredictor("label", relation_attention={"fll": "dot"}, **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'full'"),
        (lambda: gf.FusionPredictor("label").predict([]), "not fitted yet"),
        (lambda: gf.FusionPredictor("lable", **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'label'"),
        (lambda: gf.FusionPredictor("label", graph="hubs", **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'hub'"),
        (lambda: gf.FusionPredictor("label", fusion="grph", **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'graph'"),
        (lambda: gf.FusionPredictor("label", readout="men", **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'mean'"),
        (lambda: gf.FusionPredictor("label", precision="bf17", **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'bf16'"),
        (lambda: gf.FusionPredictor("label", device="gpu", **FAST).fit(make_rows(4), valid=None, quiet=True), "device"),
        (lambda: gf.FusionPredictor("label", encoders={"txt": "x"}, **FAST).fit(make_rows(4), valid=None, quiet=True), "Did you mean 'text'"),
        (lambda: gf.FusionPredictor("label", **FAST).fit(make_rows(4), valid=1.5, quiet=True), "between 0 and 1"),
        (lambda: gf.FusionPredictor("label", **FAST).fit([{"label": "a"}, {"label": "b"}], quiet=True, valid=None), "no input column"),
        (lambda: gf.FusionPredictor("label", **FAST).fit([], valid=None, quiet=True), "no rows"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(GraphFusionError, match=message):
        make()


def test_a_loss_that_is_not_finite_stops_the_fit() -> None:
    with pytest.raises(GraphFusionError, match=r"in a batch of rows .* lower lr"):
        settings = {**FAST, "optimizer": "sgd", "lr": 1e18, "clip": 0.0, "epochs": 30, "patience": 30}
        gf.FusionPredictor("score", columns={**SCHEMA.inputs, "label": None}, **settings).fit(
            [{**r, "score": float(i)} for i, r in enumerate(make_rows(12))], valid=None, quiet=True
        )


def test_half_precision_trains() -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, **FAST, precision="bf16")
    p.fit(make_rows(12), valid=0.25, quiet=True)
    assert np.isfinite(p.predict_proba(make_rows(3))).all()
    full = gf.FusionPredictor("label", columns=COLUMNS, **FAST).fit(make_rows(12), valid=0.25, quiet=True)
    assert np.isfinite(full.embed(make_rows(3))).all()


def test_speakers_tie_utterances_and_every_row_must_name_them() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "talk": {"values": rng.normal(size=(3 + i % 3, 4)), "speaker": [k % 2 for k in range(3 + i % 3)]},
            "label": "ab"[i % 2],
        }
        for i in range(8)
    ]
    p = gf.FusionPredictor("label", relations=[SameSpeaker("talk"), OtherSpeaker("talk", window=1)], **FAST)
    p.fit(rows, valid=None, quiet=True)
    batch = p.graph(rows[:1])
    assert batch.edge_index(("talk", "same_speaker", "talk")).T.tolist() == [[2, 0], [0, 2]]
    assert batch.edge_index(("talk", "other_speaker", "talk")).T.tolist() == [[1, 0], [0, 1], [2, 1], [1, 2]]
    with pytest.raises(GraphFusionError, match="row 1, column 'talk': expected 'speaker'"):
        p.predict([rows[0], {"talk": {"values": np.zeros((2, 4))}}])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before_a_row_is_read(tmp_path: Path) -> None:
    for settings, said in (({"device": "cuda"}, "torch sees no GPU here"), ({"precision": "fp16"}, "needs a GPU")):
        p = gf.FusionPredictor("label", **{**FAST, **settings})
        with pytest.raises(ConfigError, match=said):
            p.fit(tmp_path / "there-is-no-such-table.csv")
    with pytest.raises(ConfigError, match="torch sees no GPU here"):
        gf.FusionPredictor("label").to("cuda")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        gf.FusionPredictor("label").to("gpu")
    assert gf.FusionPredictor("label", device="cuda").to("cpu").config.training.device == "cpu"

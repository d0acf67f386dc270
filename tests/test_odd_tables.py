"""What a fit and an answer say of tables that are small, or lack what one thinks they have."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import graphfusion as gf
from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.errors import ConfigError, GraphError
from graphfusion.graph_builder import Full, SequenceWindow

SMALL: dict[str, Any] = {"dim": 8, "heads": 2, "layers": 1, "epochs": 1, "seed": 0, "device": "cpu"}
COLUMNS = {"words": gf.Text(), "x": gf.Tabular("number")}


def rows(count: int) -> list[dict[str, Any]]:
    return [{"words": f"red pot {i % 7}", "x": i % 5, "label": "ab"[i % 2]} for i in range(count)]


def said(capsys: pytest.CaptureFixture[str], table: Any, valid: Any = None, columns: Any = COLUMNS, **more: Any) -> str:
    gf.FusionPredictor("label", columns=columns, **{**SMALL, **more}).fit(table, valid=valid)
    return capsys.readouterr().out


def test_few_steps_and_few_validation_rows(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, rows(81), rows(9))
    assert "few rows; an epoch has 2 steps: a smaller batch_size makes more; 9 validation rows choose" in told
    assert "an epoch has 1 step:" in said(capsys, rows(81), accumulate=2)
    assert "few rows; 9 validation rows choose" in said(capsys, rows(81), rows(9), batch_size=8)
    assert "few rows" not in said(capsys, rows(81), rows(50), batch_size=8)
    assert "few rows" not in said(capsys, rows(81), rows(9), batch_size=8, patience=0)
    assert "few rows" not in said(capsys, rows(81), max_nodes=60)  # six nodes a row: nine steps
    assert "few rows" not in said(capsys, rows(2), batch_size=1)
    unlabelled = [{**r, "label": None} for r in rows(60)]
    assert "few rows; 5 validation rows choose" in said(capsys, rows(81), rows(5) + unlabelled, batch_size=8)


def test_patience_of_0_never_ends_a_fit() -> None:
    learns_nothing = {**SMALL, "epochs": 9, "lr": 0.0}
    for patience, ran in ((2, 3), (0, 9)):
        fit = gf.FusionPredictor("label", columns=COLUMNS, **learns_nothing, patience=patience)
        assert len(fit.fit(rows(12), valid=rows(4), quiet=True).history) == ran
    with pytest.raises(ConfigError, match="patience: expected a number from 0, got -1"):
        gf.FusionPredictor("label", patience=-1)


def test_a_column_without_any_value_and_rows_without_any_input(capsys: pytest.CaptureFixture[str]) -> None:
    table = [{**r, "photo": None} for r in rows(12)] + [{"words": None, "x": None, "photo": None, "label": "a"}]
    told = said(capsys, table)
    assert "no training row has a value of photo\n" in told
    assert "13 rows (1 without any input) to train on\n" in told
    assert "no training row" not in said(capsys, rows(12))


def test_a_column_of_nearly_the_name_that_is_looked_for() -> None:
    columns = {"photo": gf.Text(), "x": gf.Tabular("number"), "words": None}
    table = [{**r, "photo": r["words"]} for r in rows(12)]
    p = gf.FusionPredictor("label", columns=columns, **SMALL).fit(table, valid=None, quiet=True)
    with pytest.warns(UserWarning, match="column 'photo' is missing in every row; is 'foto' meant"):
        p.predict([{"foto": r["words"], "x": r["x"]} for r in rows(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.predict([{"x": r["x"]} for r in rows(3)])  # left out on purpose


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (list(range(7, 47)), True),
        (list(range(40, 0, -1)), True),
        ([f"x-{i:05}" for i in range(40)], True),
        (list(range(19)), False),
        (list(range(1500)) * 2, False),
        ([3 * i for i in range(40)], False),
        ([i / 2 for i in range(40)], False),
        ([i // 2 for i in range(40)], False),
        ([f"pot {i:05}" for i in range(40)], False),
        ([f"{'ab' * i}1" for i in range(40)], False),
    ],
)
def test_columns_that_name_rows(cells: list[Any], expected: bool) -> None:
    table = read_table({"id": cells, "x": [1.5] * len(cells), "y": ["a", *["b"] * (len(cells) - 1)]})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert set(infer_schema(table, ["y"]).inputs) == {"id", "x"}
    assert [("every value of column 'id' differs" in str(w.message)) for w in told] == [True] * expected


def test_relations_that_reach_no_modality(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n  no edge leads to table\n" in said(capsys, rows(8), relations=[SequenceWindow("words", 2)])
    assert "no edge leads" not in said(capsys, rows(8), graph="full")
    assert "no edge leads" not in said(capsys, rows(8), fusion="concat")
    with pytest.raises(GraphError, match=r"unknown node type 'x'.*A column of numbers is part of 'table'\."):
        said(capsys, rows(8), relations=[Full("words", "x")])


def test_a_fit_that_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in ("", "going on after step 1, where this fit ended\n"):
        p = gf.FusionPredictor("label", columns=COLUMNS, **SMALL)
        p.fit(rows(12), valid=None, save_path=tmp_path / "a", resume="auto")
        assert ending in capsys.readouterr().out


def test_what_is_no_predictor_and_no_module() -> None:
    with pytest.raises(ConfigError, match="expected two predictors, then the table; got 'gated'"):
        gf.matched_feedforward("gated", "graph", rows(8))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="accelerate: expected a PyTorch module, got 3"):
        gf.accelerate(3)


def test_a_process_that_has_read_a_csv_ends(tmp_path: Path) -> None:
    """A thread of Arrow's that outlived the read aborted about every second one (exit status 134)."""
    path = tmp_path / "rows.csv"
    path.write_text("words,label\nred,a\nblue,b\n")
    code = f"from graphfusion import FusionPredictor, read_table; read_table({str(path)!r})"

    def status(_: int) -> int:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(status, range(8))) == [0] * 8

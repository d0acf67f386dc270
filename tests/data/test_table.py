"""Every way a table comes in gives the same rows; what is missing is None."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphfusion.data import read_table
from graphfusion.errors import SchemaError, TableError
from graphfusion.schema import Schema, Tabular, Text

ROWS: list[dict[str, Any]] = [
    {"name": "ä, b", "size": 1.5, "count": 3},
    {"name": None, "size": None, "count": 4},
    {"name": 'say "hi"\nthere', "size": -2.0, "count": 5},
]


def columns(source: Any) -> dict[str, list[Any]]:
    return {name: list(cells) for name, cells in read_table(source).columns.items()}


def test_all_sources_agree(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    expected = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    by_column = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    files = [tmp_path / "t.csv", str(tmp_path / "t.parquet"), tmp_path / "t.jsonl"]
    for source in (ROWS, frame, by_column, *files):
        assert columns(source) == expected


def test_root_is_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert read_table(tmp_path / "t.csv").root == tmp_path
    assert read_table(ROWS).root == Path.cwd()
    assert read_table(ROWS, tmp_path).root == tmp_path


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_every_spelling_of_missing_is_none(missing: Any) -> None:
    assert columns([{"a": missing}, {"a": 1}, {}]) == {"a": [None, 1, None]}


def test_arrow_lists_become_arrays(tmp_path: Path) -> None:
    sound = {"array": [1, 2, 3], "sampling_rate": 8000}
    table = pa.table(
        {"vector": [[1.0, 2.0], None], "matrix": [[[1, 2], [3, 4]], [[5, 6]]], "words": [["a"], []], "s": [sound, None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet").columns
    assert found["vector"][0].tolist() == [1.0, 2.0]
    assert found["vector"][1] is None
    assert found["matrix"][0].shape == (2, 2)
    assert found["words"] == [["a"], []]
    assert found["s"][0]["array"].tolist() == [1, 2, 3]
    assert found["s"][0]["sampling_rate"] == 8000
    assert found["s"][1] is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "no.csv", "no such file"),
        (lambda p: p / "t.xlsx", r"got .xlsx; read it with pandas"),
        (lambda p: pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' of the DataFrame appears more than once"),
        (lambda p: [{"a\ud800": 1}], "lone surrogate"),
        (lambda p: b"a,b", "cannot read a table from bytes"),
        (lambda p: _file(p / "t.parquet", "no parquet"), "cannot be read as parquet"),
        (lambda p: [1, 2], "row 0: expected a mapping"),
        (lambda p: {"a": [1], "b": [1, 2]}, "differ in length"),
        (lambda p: 7, "cannot read a table from int"),
        (lambda p: {"text": "abc"}, "expected a list of cells, got str"),
    ],
)
def test_bad_tables_are_named(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        read_table(make(tmp_path))


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_keys_dates_and_decimals() -> None:
    day = datetime(1970, 1, 3, 12, tzinfo=UTC)
    rows = [
        {
            0: 1.5,
            "when": day,
            "on": date(1970, 1, 3),
            "cost": Decimal("2.5"),
            "took": timedelta(minutes=1),
            "at": time(0, 0, 30),
        }
    ]
    assert columns(rows) == {"0": [1.5], "when": [2.5], "on": [2.0], "cost": [2.5], "took": [60.0], "at": [30.0]}
    assert columns(pd.DataFrame({"when": [pd.Timestamp("1970-01-02")]})) == {"when": [1.0]}
    numpy = [np.datetime64("1970-01-02", "ns"), np.datetime64("NaT"), np.datetime64("1970-01-03")]
    assert columns({"when": numpy, "took": [np.timedelta64(3, "s")] * 3}) == {
        "when": [1.0, None, 2.0],
        "took": [3.0] * 3,
    }


def test_columns_that_look_like_numbers_stay_text_when_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("title,n\n2020,1\n007,2\n")
    assert columns(tmp_path / "t.csv") == {"title": [2020, 7], "n": [1, 2]}
    told = read_table(tmp_path / "t.csv", as_text=["title", "not there"]).columns
    assert {name: list(cells) for name, cells in told.items()} == {"title": ["2020", "007"], "n": [1, 2]}


def test_samples_follow_the_schema() -> None:
    schema = Schema({"name": Text(), "size": Tabular(), "colour": Text()})
    samples = list(read_table(ROWS).samples(schema))
    assert [s.id for s in samples] == [0, 1, 2]
    assert samples[1].values == {"name": None, "size": None, "colour": None}
    with pytest.raises(SchemaError, match="none of the input columns: expected colour"):
        list(read_table(ROWS).samples(Schema({"colour": Text()})))
    with pytest.raises(SchemaError, match="Did you mean 'count'"):
        read_table(ROWS).column("cuont")

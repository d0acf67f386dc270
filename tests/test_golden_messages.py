"""Messages word for word: what, where, expected, got, what to do. One family of errors, met through the public doors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphfusion as gf
from graphfusion import errors
from graphfusion.cli import main
from graphfusion.config import SECTIONS
from graphfusion.config_file import read_change, read_run
from graphfusion.data import read_audio, read_image, read_table
from graphfusion.fusion import FUSIONS
from graphfusion.graph_builder import SequenceWindow

ROWS: list[dict[str, Any]] = [{"title": f"red pot {i}", "price": float(i), "label": "ab"[i % 2]} for i in range(8)]
SMALL: dict[str, Any] = {"dim": 8, "heads": 2, "layers": 1, "epochs": 1}
FILES = {
    "run.yaml": "training: {epohs: 3}",
    "t.csv": "title,label\nred pot,a\n",
    "empty.csv": "",
    "doubled.csv": "a,a\n1,2\n",
    "t.xlsx": "",
    "not.png": "hello",
}
TRAINING = ", ".join(sorted(SECTIONS["training"]))
SETTINGS = ", ".join(sorted([*SECTIONS["training"], *SECTIONS["model"]]))
RELATIONS = (
    "aligned_in_time, feature_knn, full, grid_neighbourhood, knowledge_pairs, other_speaker, position_knn, same_span, "
    "same_speaker, self_loops, sequence_window, shuffled, time_window, top_k_similarity, union"
)


class Unprintable:
    """A value of a user's own class, which fails by itself."""

    def __repr__(self) -> str:
        raise RuntimeError("not today")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of the cases."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    return tmp_path.resolve()


@pytest.fixture(scope="module")
def fitted() -> gf.FusionPredictor:
    return fit(ROWS)


def predictor(**settings: Any) -> gf.FusionPredictor:
    return gf.FusionPredictor("label", **settings)


def fit(rows: Any, target: str = "label", columns: Any = None, **options: Any) -> gf.FusionPredictor:
    made = gf.FusionPredictor(target, columns=columns, **SMALL)
    return made.fit(rows, **{"valid": None, "quiet": True, **options})


Case = tuple[Callable[[], Any], type[errors.GraphFusionError], str]
CASES: list[Case] = [
    (lambda: predictor(preset="fsat"), errors.ConfigError,
     "unknown preset 'fsat'. Did you mean 'fast'? Known: accurate, fast."),
    (lambda: gf.FusionPredictor(()), errors.ConfigError,
     "target: expected a column name or several, got none."),
    (lambda: predictor(epoch=3), errors.ConfigError,
     f"unknown setting 'epoch'. Did you mean 'epochs'? Known: {SETTINGS}."),
    (lambda: predictor(epochs="3"), errors.ConfigError,
     "epochs: expected a whole number, got the text '3'; write 3 without quotes."),
    (lambda: predictor(dropout=1.5), errors.ConfigError,
     "dropout: expected a number from 0 to below 1, got 1.5."),
    (lambda: predictor(dim=10, heads=4), errors.ConfigError,
     "dim: expected a multiple of heads=4, got 10."),
    (lambda: predictor(fusion="grph"), errors.ConfigError,
     f"unknown fusion strategy 'grph'. Did you mean 'graph'? Known: {', '.join(sorted(FUSIONS))}."),
    (lambda: predictor(encoders={"image": "resnet"}), errors.ConfigError,
     "unknown encoder of image 'resnet'. Known: conv, linear."),
    (lambda: predictor(relations=[{"kind": "ful"}]), errors.GraphError,
     f"unknown relation 'ful'. Did you mean 'full'? Known: {RELATIONS}."),
    (lambda: predictor(relations=[{"kind": "full", "source": "a"}]), errors.GraphError,
     "relation full: the option 'target' is missing."),
    (lambda: predictor().predict(ROWS), errors.ConfigError,
     "this predictor is not fitted yet: call fit(table) or FusionPredictor.load(path) first."),
    (lambda: fit(ROWS, valid=1.5), errors.ConfigError,
     "valid: expected a share between 0 and 1, a table, or None for no validation, got 1.5."),
    (lambda: fit(ROWS, valid=0.01), errors.ConfigError,
     "valid=0.01: of 8 rows this leaves 8 to train on and 0 to validate on; pass valid=None for no validation."),
    (lambda: fit(ROWS, save_path="t.csv"), errors.ConfigError,
     "save_path: expected a folder, t.csv is a file."),
    (lambda: fit(ROWS, on_error="ignore"), errors.ConfigError,
     "unknown on_error policy 'ignore'. Known: error, missing, skip."),
    (lambda: read_run(Path("run.yaml")), errors.ConfigError,
     f"run.yaml: training: unknown setting 'epohs'. Did you mean 'epochs'? Known: {TRAINING}."),
    (lambda: read_run(Path("rn.yaml")), errors.ConfigError,
     "rn.yaml: no such file (looked from {here})."),
    (lambda: read_run(Path("run.toml")), errors.ConfigError,
     "run.toml: expected a file ending in .yaml, .yml, .json, got .toml."),
    (lambda: read_run(None, [read_change("columns.a=txt")]), errors.ConfigError,
     "command line: columns.a: unknown kind 'txt'. Did you mean 'text'? Known: audio, category, class, features, image, "
     "multi_label, none, number, pretrained_image, pretrained_text, tabular, text, video."),
    (lambda: gf.Text(max_tokens=0), errors.SchemaError,
     "Text.max_tokens: expected a whole number above 0, got 0."),
    (lambda: gf.Image(size=30), errors.SchemaError,
     "Image.size: expected a multiple of patch=8, got 30."),
    (lambda: gf.Image(channels=2), errors.SchemaError,
     "Image.channels: expected 1 (grey) or 3 (RGB), got 2."),
    (lambda: gf.Tabular("categry"), errors.SchemaError,
     "Tabular.values: unknown kind of value 'categry'. Did you mean 'category'? Known: category, number."),
    (lambda: gf.Schema({"a": gf.Text()}, {"a": gf.Class()}), errors.SchemaError,
     "column 'a' is an input and a target: remove it from one of them."),
    (lambda: gf.Schema({"table": gf.Text()}), errors.SchemaError,
     "column 'table': this name is taken by the tabular nodes; rename the column."),
    (lambda: fit(ROWS, "lable"), errors.SchemaError,
     "the table lacks a column: unknown column 'lable'. Did you mean 'label'? Known: label, price, title."),
    (lambda: fit([{**row, "label": "a"} for row in ROWS]), errors.SchemaError,
     "target 'label': a class target needs two classes, the training rows have ['a']."),
    (lambda: fit([{"label": row["label"]} for row in ROWS]), errors.SchemaError,
     "the table has no input column beside the target label."),
    (lambda: fit([]), errors.SchemaError,
     "the table has no rows."),
    (lambda: read_table("none.csv"), errors.TableError,
     "none.csv: no such file (looked from {here})."),
    (lambda: read_table("empty.csv"), errors.TableError,
     "empty.csv, line 1: no names of columns; the first line must hold them."),
    (lambda: read_table("doubled.csv"), errors.TableError,
     "doubled.csv, line 1: column 'a' appears more than once, as columns 1, 2; rename all but one."),
    (lambda: read_table([1]), errors.TableError,
     "row 0: expected a mapping of column → value, got int."),
    (lambda: read_table({"a": [1], "b": [1, 2]}), errors.TableError,
     "columns differ in length: {'a': 1, 'b': 2}."),
    (lambda: read_table({"a": "xyz"}), errors.TableError,
     "column 'a': expected a list of cells, got str; one row is [{…}]."),
    (lambda: fit([*ROWS, {**ROWS[0], "price": "abc"}], columns={"price": gf.Tabular()}), errors.CellError,
     "row 8, column 'price': expected a number or an ISO date, got 'abc'. (Rows count from 0.) Pass on_error='missing' or "
     "'skip' to go on without it."),
    (lambda: fit([*ROWS, {**ROWS[0], "price": "abc"}, {**ROWS[1], "price": "x", "title": 3j}],
                 columns={"price": gf.Tabular(), "title": gf.Text()}), errors.CellError,
     "row 8, column 'price': expected a number or an ISO date, got 'abc'. (Rows count from 0.) Nor can these be read:\n"
     "  row 9, column 'title': expected a text, got complex '3j'.\n"
     "  row 9, column 'price': expected a number or an ISO date, got 'x'.\n"
     "Pass on_error='missing' or 'skip' to go on without them."),
    (lambda: fit([*ROWS, *({**ROWS[0], "price": f"no {i}"} for i in range(12))], columns={"price": gf.Tabular()}),
     errors.CellError,
     "row 8, column 'price': expected a number or an ISO date, got 'no 0'. (Rows count from 0.) Nor can these be read:\n"
     + "".join(f"  row {8 + i}, column 'price': expected a number or an ISO date, got 'no {i}'.\n" for i in range(1, 10))
     + "  Later rows were not looked at.\nPass on_error='missing' or 'skip' to go on without them."),
    (lambda: fit(ROWS, valid=[{**ROWS[0], "price": p} for p in ("abc", Unprintable())], columns={"price": gf.Tabular()}),
     errors.CellError,
     "validation table: row 0, column 'price': expected a number or an ISO date, got 'abc'. (Rows count from 0.)\n  Later rows "
     "were not looked at.\nPass on_error='missing' or 'skip' to go on without them."),
    (lambda: fit(ROWS, valid=[{**ROWS[0], "price": "abc"}], columns={"price": gf.Tabular()}), errors.CellError,
     "validation table: row 0, column 'price': expected a number or an ISO date, got 'abc'. (Rows count from 0.) Pass "
     "on_error='missing' or 'skip' to go on without it."),
    (lambda: read_image("none.png", Path.cwd()), errors.MediaError,
     "'none.png': no such file below {here}."),
    (lambda: read_image("../x.png", Path.cwd()), errors.MediaError,
     "'../x.png': leads outside {here}; pass media_root= a folder that holds all media files."),
    (lambda: read_image(np.full((2, 2), 300), Path.cwd()), errors.MediaError,
     "image array of int64: expected 0 to 255, got 300 to 300."),
    (lambda: read_audio({"array": np.zeros(9), "sampling_rate": 5}, Path.cwd(), 16_000, 16_000, 1.0), errors.MediaError,
     "sound: expected a rate of 1,000 to 768,000 Hz, got 5."),
    (lambda: gf.FusionPredictor.load("folder"), errors.CheckpointError,
     "{here}/folder: no saved folder here (manifest.json is missing)."),
    (lambda: SequenceWindow("a", size=0), errors.GraphError,
     "SequenceWindow.size: expected a whole number from 1, got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "kind", "message"), CASES, ids=[c[2][:40] for c in CASES])
def test_message(cause: Callable[[], Any], kind: type[Exception], message: str, here: Path) -> None:
    with pytest.raises(errors.GraphFusionError) as caught:
        cause()
    assert type(caught.value) is kind
    assert str(caught.value) == message.replace("{here}", str(here))


ANSWERS: list[Case] = [
    (lambda p: p.predict(ROWS, without="titel"), errors.ConfigError,
     "without: unknown modality 'titel'. Did you mean 'title'? Known: table, title."),
    (lambda p: p.predict([{"x": 1}]), errors.SchemaError,
     "the table has none of the input columns: expected title, price; got x."),
    (lambda p: p.evaluate([{**ROWS[0], "label": "c"}]), errors.SchemaError,
     "row 0: target 'label': unknown class 'c'. Known: a, b. The model was fitted without it: add rows of it to the "
     "training table, or evaluate with unseen='wrong'."),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "kind", "message"), ANSWERS, ids=[c[2][:40] for c in ANSWERS])
def test_message_of_a_fitted_predictor(
    cause: Callable[[Any], Any], kind: type[Exception], message: str, fitted: gf.FusionPredictor
) -> None:
    with pytest.raises(kind) as caught:
        cause(fitted)
    assert str(caught.value) == message


COMMANDS = [
    ("fit t.csv --out x",
     "error: there is no target: pass --target NAME, or write target: NAME in the configuration file.\n"),
    ("fit t.csv --out x --set lr",
     "error: expected NAME=VALUE, such as training.lr=1e-3 or title=text, got 'lr'.\n"),
    ("fit t.csv --out x --target label --set epochs=1e5",
     "error: command line: epochs: expected a whole number, got 100000.0; write 100000.\n"),
    ("predict folder t.csv --out none/a.csv",
     "error: --out none/a.csv: there is no folder none; make it first.\n"),
    ("predict folder t.csv --out a.txt",
     "error: --out a.txt: expected a file that ends in .csv, .jsonl, .parquet, got .txt.\n"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "message"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_message_of_a_command(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr() == ("", message)

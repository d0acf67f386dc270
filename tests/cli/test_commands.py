"""The command line, used as a person or a pipe would."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import graphfusion as gf
from graphfusion.cli import main
from graphfusion.cli.main import COMMANDS, as_options, make_parser
from graphfusion.config import ModelConfig, RunConfig, TrainingConfig
from graphfusion.config_file import read_change, read_run
from graphfusion.ops.hetero_attention import library
from graphfusion.schema import Tabular, Text

Capture = pytest.CaptureFixture[str]


def run(command: str, folder: Path) -> int:
    """A command whose words `model`, `new` and `train` are the paths of the fixture."""
    paths = {"model": folder / "model", "new": folder / "new.csv", "train": folder / "train.csv"}
    return main([str(paths.get(word, word)) for word in shlex.split(command)])


def answers(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def model(folder: Path) -> gf.FusionPredictor:
    return gf.FusionPredictor.load(folder / "model")


def test_fit_does_what_file_and_command_line_say(model: gf.FusionPredictor) -> None:
    assert model.targets == ("label",)
    assert model.config.model.dim == 16
    assert model.config.training.lr == 0.001
    assert model.config.training.epochs == 1
    assert model.schema.inputs == {"price": Tabular(), "title": Text()}


def test_fit_speaks_on_stderr_and_resumes(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    command = (
        f"fit train --target label --columns id=none price=category --set dim=8 heads=2 epochs=1 --out {tmp_path}/m"
    )
    assert run(f"{command} --valid none --seed 3 --preset accurate", folder) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "epoch   1/1" in said.err
    assert f"saved: {tmp_path}/m" in said.err
    fitted = gf.FusionPredictor.load(tmp_path / "m")
    assert fitted.schema.inputs["price"] == Tabular("category")
    assert fitted.config.seed == 3
    assert fitted.config.model.layers == 3
    assert run(f"{command} --valid none --seed 4 --preset accurate --resume auto", folder) == 2
    assert "seed: 3 → 4" in capsys.readouterr().err


def test_answers_line_up_with_the_rows(folder: Path, model: gf.FusionPredictor, capsys: Capture) -> None:
    assert run("predict model new --on-error skip", folder) == 0
    said = capsys.readouterr()
    found = answers(said.out)
    assert [row["row"] for row in found] == list("012345")
    with pytest.warns(UserWarning, match="1 skipped"):
        expected = model.predict(folder / "new.csv", on_error="skip")
    assert [row["label"] or None for row in found] == expected
    assert expected[2] is None
    assert said.err.startswith("note: 6 rows seen = 5 ok + 1 skipped + 0 repaired")


def test_every_incident_can_be_had_in_a_file(folder: Path, tmp_path: Path) -> None:
    rows = [{"price": "cheap", "title": "a pot"}, {"price": 3.0, "title": "a pan"}]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in ("predict", "embed"):
        out = f"--out {tmp_path / command}.csv --on-error missing --incidents {tmp_path / command}.jsonl"
        assert run(f"{command} model {tmp_path / 'odd.jsonl'} {out}", folder) == 0
        (line,) = (tmp_path / f"{command}.jsonl").read_text().splitlines()
        told = json.loads(line)
        assert (told["row"], told["column"], told["action"], told["file"]) == (0, "price", "missing", "")
        assert "cheap" in told["reason"]
    assert (folder / "model" / "incidents.jsonl").read_text() == ""


def test_columns_of_the_table_come_along(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    given = answers((folder / "new.csv").read_text())
    for ending in ("csv", "jsonl", "parquet"):
        assert run(f"predict model new --on-error skip --keep title id --out {tmp_path}/a.{ending}", folder) == 0
    written = answers((tmp_path / "a.csv").read_text())
    assert [(r["title"], r["id"]) for r in written] == [(r["title"], r["id"]) for r in given]
    assert list(written[0]) == ["row", "title", "id", "label"]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["title"] for line in lines] == [r["title"] for r in given]
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [r["id"] for r in given]
    assert run("embed model new --on-error skip --keep id", folder) == 0
    assert [r["id"] for r in answers(capsys.readouterr().out)] == [r["id"] for r in given]
    assert run("predict model new --keep titel", folder) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'title'?" in said


def test_incidents_never_overwrite_and_are_checked_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(gf.FusionPredictor, "load", lambda *_: pytest.fail("the work began"))
    table = tmp_path / "new.jsonl"
    table.write_text("{}\n")
    for incidents, said in (
        (table, "that is the table itself, which would be lost"), (tmp_path / "i.txt", "expected a file that ends in .jsonl"),
        (tmp_path / "none" / "i.jsonl", "there is no folder"), (tmp_path / "a.jsonl", "that is where the answers go"),
    ):  # fmt: skip
        assert (
            main(["predict", "model", str(table), "--out", f"{tmp_path}/a.jsonl", "--incidents", str(incidents)]) == 2
        )
        assert f"error: --incidents {incidents}: {said}" in capsys.readouterr().err
    assert table.read_text() == "{}\n"


def test_lists_that_swallow_the_table_are_explained(folder: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("fit --target label --out x --set epochs=1 train", folder)
    assert "lists such as --set take all that follows them" in capsys.readouterr().err


def test_a_share_or_table_for_validation(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(f"fit train --target label --valid 10% --out {tmp_path}/m", folder) == 2
    assert "error: --valid 10%: expected a share such as 0.1, a table, or none." in capsys.readouterr().err
    assert run(f"fit train --target label --out {tmp_path}/m --media-root {tmp_path}/none", folder) == 2
    assert "error: --media-root: there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_table_is_never_overwritten_by_its_answers(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "rows.csv"
    table.write_bytes((folder / "new.csv").read_bytes())
    for command in ("predict", "embed"):
        assert run(f"{command} model {table} --out {tmp_path}/../{tmp_path.name}/rows.csv", folder) == 2
        assert "is the table itself" in capsys.readouterr().err
    assert table.read_bytes() == (folder / "new.csv").read_bytes()


def test_a_missing_column_is_said(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "some.csv").write_text("title\na pot\n")
    assert run(f"predict model {tmp_path}/some.csv", folder) == 0
    assert "has no column 'price': missing in every row" in capsys.readouterr().err


def test_a_setting_in_place_of_an_option_is_explained(folder: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        run(f"fit train --target label --out {folder}/x --epochs 3", folder)
    assert left.value.code == 2
    assert "--epochs is a setting: write --set epochs=…" in capsys.readouterr().err


def test_probabilities(folder: Path, model: gf.FusionPredictor, capsys: Capture) -> None:
    assert run("predict model new --on-error missing --proba --without title", folder) == 0
    found = answers(capsys.readouterr().out)
    with pytest.warns(UserWarning, match="repaired"):
        expected = model.predict_proba(folder / "new.csv", on_error="missing", without="title")
    np.testing.assert_allclose([[float(row["label=a"]), float(row["label=b"])] for row in found], expected, rtol=1e-6)


def test_help_of_a_fit_lists_every_setting_as_it_is_set(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    listed = capsys.readouterr().out.partition("say what each is:")[2].split()
    found = read_run(changes=[read_change(text) for text in listed]).settings
    assert RunConfig().override(found) == RunConfig()
    assert set(found) == {*vars(ModelConfig()), *vars(TrainingConfig())}


def test_the_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"graphfusion {gf.__version__}\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_same_answers_in_every_format(ending: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / f"a.{ending}"
    assert run(f"predict model new --on-error skip --out {out}", folder) == 0
    assert capsys.readouterr().out == ""
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    found = gf.read_table(out)
    run("predict model new --on-error skip --format jsonl", folder)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(found.column("label")) == [line["label"] for line in lines]
    assert list(found.column("row")) == [line["row"] for line in lines] == [0, 1, 2, 3, 4, 5]


def test_vectors(folder: Path, tmp_path: Path, model: gf.FusionPredictor, capsys: Capture) -> None:
    with pytest.warns(UserWarning, match="skipped"):
        expected = model.embed(folder / "new.csv", on_error="skip")
    assert run(f"embed model new --on-error skip --out {tmp_path}/v.parquet", folder) == 0
    found = pq.read_table(tmp_path / "v.parquet")["embedding"].to_pylist()
    assert found[2] is None
    np.testing.assert_allclose([v for v in found if v], np.delete(expected, 2, 0), rtol=1e-6)
    assert run("embed model new --on-error skip", folder) == 0
    rows = answers(capsys.readouterr().out)
    assert {rows[2][f"e{i}"] for i in range(16)} == {""}
    np.testing.assert_allclose([float(rows[5][f"e{i}"]) for i in range(16)], expected[5], rtol=1e-6)


def test_weights_of_modalities(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """One target or two, a column a target and modality; a row left out is empty, a modality that is missing 0."""
    rows = [
        {"title": "red kettle", "price": 1.0, "a": "x", "b": "p"},
        {"title": None, "price": 2.0, "a": "y", "b": "q"},
    ]
    rows += [{"title": "wet rain", "price": None, "a": "x", "b": "q"}] * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for targets in (["a"], ["a", "b"]):
        options = {"fusion": "weighted_sum", "dim": 8, "heads": 2, "epochs": 1}
        columns = {"title": Text(), **({"b": None} if targets == ["a"] else {})}
        fitted = gf.FusionPredictor(targets, columns=columns, **options)
        fitted.fit(rows, valid=None, quiet=True).save(tmp_path / "m")
        found = fitted.modality_weights(rows)
        found = found if len(targets) > 1 else {"a": found}
        assert run(f"weigh {tmp_path}/m {tmp_path}/rows.jsonl --keep title", folder) == 0
        told = answers(capsys.readouterr().out)
        names = [f"{target}/{modality}" for target in targets for modality in ("table", "title")]
        assert sorted(told[0]) == sorted(["row", "title", *names])
        for name in names:
            target, modality = name.split("/")
            np.testing.assert_allclose([float(row[name]) for row in told], found[target][modality], rtol=1e-6)
        assert float(told[1]["a/title"]) == 0
        assert float(told[1]["a/table"]) == 1
    rows[0]["price"] = "much"
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(f"weigh {tmp_path}/m {tmp_path}/odd.jsonl --on-error skip", folder) == 0
    told = answers(capsys.readouterr().out)
    assert {told[0][name] for name in names} == {""}
    assert run("weigh model new --on-error skip", folder) == 2
    assert "fusion='graph' does not weigh modalities; these do:" in capsys.readouterr().err


def test_metrics_as_json_and_as_a_table(folder: Path, model: gf.FusionPredictor, capsys: Capture) -> None:
    expected = model.evaluate(folder / "train.csv")
    assert run("evaluate model train --json", folder) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert run("evaluate model train", folder) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["accuracy", f"{expected['accuracy']:.4f}"] in lines
    assert ["rows", "30"] in lines
    assert ["per_class", "precision", "recall", "f1", "count"] in lines
    assert [
        "a",
        *(f"{v:.4f}" for v in list(expected["per_class"]["a"].values())[:3]),
        str(expected["per_class"]["a"]["count"]),
    ] in lines


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("docter", "doctor"), ("", "COMMAND"), ("fit train --taget label --out x", "Did you mean '--target'?"),
        ("fit train new --target label --out x", "new.csv' is one argument too many"), ("fit train --target label", "--out"),
        ("predict model new --on-error ignore --out x.csv", "missing"), ("fit train --out x --set lr=1 --seed x", "--seed"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_code_2(command: str, message: str, folder: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, folder)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert "--help)" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict none new", "no saved folder"), ("predict model none.csv", "no such file"),
        ("predict model new", "row 2, column 'price'"), ("predict model new --without titel --on-error skip", "'title'"),
        ("evaluate model new --on-error skip --media-root /none", "--media-root: there is no folder /none"), ("fit train --target lable --out x", "'label'"),
        ("fit train --target label --config run.yml --out x", "run.yml: no such file"), ("selftest --only X99", "unknown check"),
        ("fit train --target label --out x --set epochs=NO", "command line: epochs"), ("fit train --out x --set haeds=2", "Write --set heads=…."),
        ("predict model new --out /none/a.csv", "make it"), ("selftest --report /none/a.md", "--report /none/a.md: there is no folder"),
        ("predict model new --out a.csv --format jsonl", "the ending of --out says what a file is"),
        ("fit train --target label --out x --valid 0", "--valid: expected a share between 0 and 1, a table, or none for no validation"),
        ("fit train --target label --out x --valid 0.001", "pass --valid none"),
        ("fit train --target label --out x --set learning_rate=1", "Settings: accumulate"),
        ("fit train --target label --out x --columns label=text", "declared as an input (text)"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_code_2_without_a_traceback(
    command: str, message: str, folder: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(command, folder)
    said = capsys.readouterr()
    assert code == (2 if message else 0)
    assert message in said.err
    assert "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if not line.startswith("note: ")]
    assert not message or (errors[0].startswith("error: ") and not said.out)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Pass on_error='missing' or 'skip' to go on without it.", "Pass --on-error missing or skip to go on without it."),
        ("it holds an earlier fit: resume='auto' goes on", "it holds an earlier fit: --resume auto goes on"),
        ("use another save_path.", "use another --out."),
        ("/data/save_path/x.csv: no such file", "/data/save_path/x.csv: no such file"),
        ("row 3, column 'save_path': odd", "row 3, column 'save_path': odd"),
        ("save_path: expected a folder", "--out: expected a folder"),
        ("go on with fit(…, save_path=\"it's a\", resume='auto').", """go on with graphfusion fit … --out 'it'"'"'s a' --resume auto."""),
        ("pass columns={'my label': Class()} if", "pass --columns 'my label=class' if"),
        ("go on with fit(…, save_path='runs/a', resume='auto').", "go on with graphfusion fit … --out runs/a --resume auto."),
        ("pass columns={'y': Class()} if", "pass --columns y=class if"),
        ("pass columns={'row id': None} to", "pass --columns 'row id=none' to"),
        ("pass columns={'y': MultiLabel(separator='|')} if", """pass --columns 'y={kind: multi_label, separator: '"'"'|'"'"'}' if"""),
        ("pass media_root= a folder", "pass --media-root a folder"), ("the text 'on_error' stays", "the text 'on_error' stays"),
    ],
)  # fmt: skip
def test_messages_name_options_not_arguments(message: str, said: str) -> None:
    assert as_options(message) == said


def test_what_messages_advise_can_be_done(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    text = (folder / "train.csv").read_text().replace("label", "y").replace(",a", ",a;b")
    (tmp_path / "several.csv").write_text(text)
    base = f"fit {tmp_path}/several.csv --target y --set dim=8 heads=2 epochs=1 --valid none --out {tmp_path}/m"
    column = "\"y={kind: multi_label, separator: ';'}\""
    assert run(f"{base} --columns {column}", folder) == 0
    assert gf.FusionPredictor.load(tmp_path / "m").schema.targets["y"].separator == ";"
    capsys.readouterr()
    assert run(base, folder) == 2
    assert (
        "--resume auto goes on with it, --resume restart replaces it; or choose another --out."
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("predict model new --on-error skip", ""), ("predict model new --on-error skip", "1"), ("evaluate model train", ""),
     ("evaluate model train", "1")],
)  # fmt: skip
def test_a_full_disk_below_stdout_is_an_error(command: str, unbuffered: str, folder: Path) -> None:
    paths = {"model": str(folder / "model"), "new": str(folder / "new.csv"), "train": str(folder / "train.csv")}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graphfusion", *(paths.get(word, word) for word in command.split())],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2
    assert done.stderr.endswith("error: stdout cannot be written: No space left on device.\n")


def test_what_no_file_can_hold_is_refused_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    rows = [{"title": "red kettle", "price": 1.0, "mixed": m, "big": 10**30, "half": "\ud800"} for m in ("a", 3)]
    table = tmp_path / "new.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(gf.FusionPredictor, "predict", lambda *_, **__: pytest.fail("it answered first"))
    for name in ("mixed", "big", "half"):
        assert main(["predict", str(folder / "model"), str(table), "--keep", name, "--out", f"{tmp_path}/a.csv"]) == 2
        assert f"error: --keep {name}: expected texts or numbers" in capsys.readouterr().err
    assert main(["predict", str(folder / "model"), str(folder / "new.csv"), "--keep", "label"]) == 2
    assert "the answers have a column of this name" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["new.jsonl"]


def test_an_answer_file_that_is_there_stays_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(csv, "writer", full)
        assert run(f"predict model new --on-error skip --out {out}", folder) == 2
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError("disk"), 2)])
def test_interruption_and_trouble_have_their_codes(
    error: BaseException, code: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gf.FusionPredictor, "fit", stop)
    assert run(f"fit train --target label --out {tmp_path}/x", folder) == code


def test_a_signal_that_ended_a_fit_keeps_its_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gf.FusionPredictor, "fit", lambda *_, **__: sys.exit(143))
    with pytest.raises(SystemExit) as stop:
        run(f"fit train --target label --out {tmp_path}/x", folder)
    assert stop.value.code == 143


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_and_an_example_that_parses(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert COMMANDS[name].SENTENCE in said
    assert COMMANDS[name].EXAMPLE in said
    assert make_parser().parse(shlex.split(COMMANDS[name].EXAMPLE)[1:]).command == name


def test_help_brings_nothing_heavy() -> None:
    code = "import sys; from graphfusion.cli.main import make_parser; make_parser(); print([n for n in ('torch', 'numpy', 'pyarrow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_has_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "graphfusion", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()
        assert done.stderr.read() == b""
        assert done.wait() == 0


@pytest.mark.parametrize("reader", ["gone", "full"])
def test_a_fit_goes_on_where_its_log_cannot_be_written(reader: str, folder: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graphfusion", *f"fit {folder}/train.csv --config {folder}/run.yaml --out".split(),
             str(tmp_path / "x")],
            stdout=subprocess.DEVNULL, stderr=write if reader == "gone" else full, check=False,
        )  # fmt: skip
    os.close(write)
    assert done.returncode == 0
    assert len(gf.FusionPredictor.load(tmp_path / "x").predict(folder / "train.csv")) == 30


def test_doctor_says_what_is_there_and_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "attention backend reference  ready" in said
    assert "CUDA device" in said
    assert "attention tried: 15 of 15 graphs right" in said
    assert f"numpy {np.__version__}" in said
    monkeypatch.setattr(library, "_library", lambda: "no compiler was there")
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy>=2", 'no-such-package>=1; extra == "video"'])
    main(["doctor"])
    said = capsys.readouterr().out
    assert "cpu        cannot run: no compiler was there" in said
    assert "extra 'video': none; missing: no-such-package (pip install '.[video]' in a clone)" in said

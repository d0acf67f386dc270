"""A table written by a person in a hurry: it trains and answers, and the report accounts for every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import graphfusion as gf
from graphfusion.data import read_audio, read_image, read_table
from graphfusion.errors import GraphFusionError
from tests.conftest import png

ROWS = 16
NO_PHOTO, NO_SOUND, CORRUPT, DEEP, STEREO = 3, 4, 9, 10, 11
"""Rows whose photo is not there, whose sound is not there, whose JPEG is cut and scrambled, whose PNG has 16 bits, whose
WAV is stereo at 44.1 kHz."""


def write(folder: Path) -> Path:
    """The table and its files: semicolons, decimal commas, Windows line ends, two encodings, and the rows named above."""
    rng = np.random.default_rng(0)
    (folder / "pics").mkdir()
    (folder / "rec").mkdir()
    lines = [b"Title;Remarks;photo;clip;price;label"]
    for i in range(ROWS):
        label = "gut" if i % 2 else "schlecht"
        pixels = rng.integers(0, 100, (24, 20, 3), dtype=np.uint8) + np.uint8(100 * (i % 2))
        tone = 0.3 * np.sin(np.arange(4000) * (0.05 + 0.2 * (i % 2))).astype(np.float32)
        write_photo(folder / "pics" / f"{i}.{'jpg' if i == CORRUPT else 'png'}", i, pixels)
        if i != NO_SOUND:
            many, rate = (np.stack([tone, -tone / 2], 1), 44_100) if i == STEREO else (tone, 8_000)
            soundfile.write(folder / "rec" / f"{i}.wav", many, rate)
        photo = f"pics/{i}.{'jpg' if i == CORRUPT else 'png'}"
        remark = f'"schön; aber ""teuer"" {i}"' if i % 3 else ""
        line = f"Stück Nr. {i} ist {label};{remark};{photo};rec/{i}.wav;{i},5;{label}"
        lines.append(line.encode("cp1252" if i % 5 == 2 else "utf-8"))
    (folder / "table.csv").write_bytes(b"\r\n".join(lines))
    return folder / "table.csv"


def write_photo(path: Path, i: int, pixels: np.ndarray) -> None:
    if i == NO_PHOTO:
        return
    if i == DEEP:
        Image.fromarray(np.full((24, 20), 32_768, np.uint16)).save(path)
    elif i == CORRUPT:
        Image.fromarray(pixels).save(path)
        data = path.read_bytes()
        path.write_bytes(data[:300] + bytes(50) + data[400:-200])
    else:
        path.write_bytes(png(pixels))


def test_a_table_written_in_a_hurry(tmp_path: Path) -> None:
    path = write(tmp_path)
    p = gf.FusionPredictor("label", epochs=10, dim=8, heads=2, layers=1, batch_size=4, lr=0.02)
    with pytest.warns(UserWarning, match=r"3 lines are not UTF-8 .* the first is line 4: 'Stück Nr\. 2"):
        p.fit(path, valid=None, on_error="missing", quiet=True)

    assert {name: spec.kind for name, spec in p.schema.inputs.items()} == {
        "Title": "text", "Remarks": "text", "photo": "image", "clip": "audio", "price": "tabular",
    }  # fmt: skip
    assert p.schema.targets["label"] == gf.Class(("gut", "schlecht"))
    report = p.report
    assert report is not None
    told = {(incident.row, incident.column) for incident in report.incidents}
    assert told == {(NO_PHOTO, "photo"), (NO_SOUND, "clip"), (CORRUPT, "photo")}
    assert all(incident.action == "missing" for incident in report.incidents)
    assert (report.seen, report.ok, report.repaired, report.skipped) == (ROWS, ROWS - 3, 3, 0)
    for row, name in ((NO_PHOTO, "pics/3.png"), (NO_SOUND, "rec/4.wav")):
        assert any(i.row == row and name in i.reason for i in report.incidents)

    with (
        pytest.warns(UserWarning, match="3 lines are not UTF-8"),
        pytest.warns(UserWarning, match=r"16 rows seen = 13 ok \+ 0 skipped \+ 3 repaired"),
    ):
        answers = p.predict(path, on_error="missing")
    truth = ["gut" if i % 2 else "schlecht" for i in range(ROWS)]
    assert len(answers) == ROWS
    assert sum(a == t for a, t in zip(answers, truth, strict=True)) >= ROWS - 3


@pytest.mark.filterwarnings("ignore:.*Windows-1252")
def test_its_odd_files_are_read_for_what_they_are(tmp_path: Path) -> None:
    table = read_table(write(tmp_path))
    assert table.column("Title")[2] == "Stück Nr. 2 ist schlecht"
    assert table.column("Remarks")[:3] == [None, 'schön; aber "teuer" 1', 'schön; aber "teuer" 2']
    assert table.column("price")[:2] == [0.5, 1.5]
    deep = read_image(table.column("photo")[DEEP], table.root)
    assert deep.mean() == pytest.approx(32_768 / 65_535, abs=0.01)
    wave = read_audio(table.column("clip")[STEREO], table.root, 8_000, 8_000, 10.0)
    assert len(wave) / 8_000 == pytest.approx(4_000 / 44_100, rel=0.01)


@pytest.mark.filterwarnings("ignore:.*Windows-1252")
def test_without_a_policy_every_bad_cell_is_named(tmp_path: Path) -> None:
    p = gf.FusionPredictor("label", epochs=1, dim=16, heads=2, layers=1)
    with pytest.raises(
        GraphFusionError,
        match=r"(?s)row 3, column 'photo': .*pics/3\.png.*no such file.*row 9, column .*on_error='missing'",
    ):
        p.fit(write(tmp_path), valid=None, quiet=True)

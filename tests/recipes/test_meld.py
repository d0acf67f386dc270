"""The MELD recipe on a miniature of its source: rows as the files say, official splits, sources refused."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.recipe import SPLITS
from graphfusion.errors import TableError

convert = load_recipe("meld")

HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
LINES = {
    "train_sent_emo.csv": [
        '1,"Oh, that?s  great!",Joey,joy,positive,0,0,8,21,"00:16:16,059","00:16:21,731"',
        '2,You’ve seen it?,The Interviewer,surprise,negative,0,1,8,21,"0:16:21,940","00:16:23,44"',
        '3,"He said ""no"".",Ross,anger,negative,2,3,1,1,"01:00:00,000","01:00:01,500"',
    ],
    "dev_sent_emo.csv": ['1,No.,Joey,sadness,negative,0,0,2,3,"00:00:00,001","00:00:01,000"'],
    "test_sent_emo.csv": [
        '1,Oh?my God,Gunther,fear,negative,0,0,8,21,"00:05:00,000","00:05:01,000"',
        '2,Okay,Ross,neutral,neutral,0,1,8,21,"00:05:09,000","00:05:02,000"',
    ],
}
"""Numbers that are left out, a time without a leading zero, one that ends before it starts: as in the true files."""
COLUMNS = [
    "utterance", "speaker", "emotion", "sentiment", "dialogue_id", "utterance_id", "start", "end", "season", "episode",
]  # fmt: skip
EXPECTED = {
    "train": [
        ("Oh, that’s  great!", "Joey", "joy", "positive", "train/0", 0, 976.059, 981.731, 8, 21),
        ("You’ve seen it?", "The Interviewer", "surprise", "negative", "train/0", 1, 981.94, 983.044, 8, 21),
        ('He said "no".', "Ross", "anger", "negative", "train/2", 3, 3600.0, 3601.5, 1, 1),
    ],
    "valid": [("No.", "Joey", "sadness", "negative", "dev/0", 0, 0.001, 1.0, 2, 3)],
    "test": [
        ("Oh?my God", "Gunther", "fear", "negative", "test/0", 0, 300.0, 301.0, 8, 21),
        ("Okay", "Ross", "neutral", "neutral", "test/0", 1, 309.0, 302.0, 8, 21),
    ],
}


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of the true form: UTF-8, lines that end with CR LF."""
    source = tmp_path / "source"
    source.mkdir()
    for name, lines in LINES.items():
        (source / name).write_bytes("".join(f"{line}\r\n" for line in (HEAD, *lines)).encode())
        monkeypatch.setitem(convert.FILES, name, hashlib.sha256((source / name).read_bytes()).hexdigest())
    monkeypatch.setattr(convert, "ROWS", {split: len(rows) for split, rows in EXPECTED.items()})
    return source


def same_tables(a: Path, b: Path) -> bool:
    return all((a / f"{split}.parquet").read_bytes() == (b / f"{split}.parquet").read_bytes() for split in SPLITS)


def test_rows_are_those_of_the_files(miniature: Path, tmp_path: Path) -> None:
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(miniature)]) == 0
    for split, expected in EXPECTED.items():
        table = read_table(tmp_path / "out" / f"{split}.parquet")
        assert list(table.columns) == COLUMNS
        assert list(zip(*table.columns.values(), strict=True)) == expected


def test_no_dialogue_is_in_two_splits(miniature: Path, tmp_path: Path) -> None:
    convert.convert(tmp_path / "out", miniature, tmp_path / "work")
    dialogues = [set(read_table(tmp_path / "out" / f"{split}.parquet").column("dialogue_id")) for split in SPLITS]
    assert sum(map(len, dialogues)) == len(set.union(*dialogues)) == 4


@pytest.mark.parametrize(
    ("typed", "repaired"),
    [
        ("I?ve", "I’ve"), ("we?re he?s I?ll", "we’re he’s I’ll"), ("Oh?my Gawd", "Oh?my Gawd"), ("What?so", "What?so"),
        ("How so?", "How so?"), ("so?s", "so’s"), ("So? said he", "So? said he"), ("2?s", "2?s"),
    ],
)  # fmt: skip
def test_only_contractions_are_repaired(typed: str, repaired: str) -> None:
    assert convert.LOST_APOSTROPHE.sub("’", typed) == repaired


def test_a_time_of_another_form_is_refused() -> None:
    for time in ("16:21,940", "", "00:16:21.940", "a:00:00,000"):
        with pytest.raises(TableError, match="expected a time like"):
            convert.seconds(time)


def test_archive_folder_and_download_give_the_same_tables(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "meld.tar.gz", "w:gz") as tar:
        tar.add(miniature, arcname="MELD/data")
    fetched = []

    def served(url: str, target: Path, sha256: str) -> Path:
        fetched.append(url)
        target.write_bytes((miniature / target.name).read_bytes())
        assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
        return target

    monkeypatch.setattr(convert, "download", served)
    assert convert.main(["--out", str(tmp_path / "a"), "--source", str(miniature)]) == 0
    assert convert.main(["--out", str(tmp_path / "b"), "--source", str(tmp_path / "meld.tar.gz")]) == 0
    assert not fetched
    assert convert.main(["--out", str(tmp_path / "c")]) == 0
    assert sorted(url.rsplit("/", 1)[1] for url in fetched) == sorted(LINES)
    assert all(url.startswith("https://") for url in fetched)
    assert same_tables(tmp_path / "a", tmp_path / "b")
    assert same_tables(tmp_path / "a", tmp_path / "c")


def test_other_contents_and_missing_sources_are_refused(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(source: Path) -> str:
        assert convert.main(["--out", str(tmp_path / "o"), "--source", str(source)]) == 2
        assert not (tmp_path / "o").exists()
        return capsys.readouterr().err

    assert "no such file" in refused(tmp_path / "none")
    (miniature / "test_sent_emo.csv").write_bytes(
        (miniature / "test_sent_emo.csv").read_bytes().replace(b"\r\n", b"\n")
    )
    message = refused(miniature)
    assert "test_sent_emo.csv" in message
    assert f"expected SHA-256 {convert.FILES['test_sent_emo.csv']}" in message
    (miniature / "test_sent_emo.csv").unlink()
    assert "no test_sent_emo.csv files" in refused(miniature)


def test_an_incomplete_source_is_refused(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(convert, "ROWS", {**convert.ROWS, "valid": 3})
    assert convert.main(["--out", str(tmp_path / "o"), "--source", str(miniature)]) == 2
    assert "valid: expected 3 rows, got 1" in capsys.readouterr().err


def test_the_predictor_takes_the_settings(miniature: Path, tmp_path: Path) -> None:
    convert.convert(tmp_path / "out", miniature, tmp_path / "work")
    predictor = FusionPredictor(**convert.FIT)
    schema = infer_schema(read_table(tmp_path / "out" / "train.parquet"), predictor.targets, predictor.columns)
    assert set(schema.inputs) == {"utterance", "speaker"}
    assert set(schema.targets) == {"emotion"}

"""The ESC-10 recipe on miniatures of both layouts: official folds, the same labels, nothing but the 400 sounds."""

from __future__ import annotations

import csv
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.recipe import digest

convert = load_recipe("esc10")

CLASSES = (  # folder of ESC-10, category and target of ESC-50
    ("001_Dog_bark", "dog", 0),
    ("002_Rain", "rain", 10),
    ("003_Sea_waves", "sea_waves", 11),
    ("004_Baby_cry", "crying_baby", 20),
    ("005_Clock_tick", "clock_tick", 38),
    ("006_Person_sneeze", "sneezing", 21),
    ("007_Helicopter", "helicopter", 40),
    ("008_Chainsaw", "chainsaw", 41),
    ("009_Rooster", "rooster", 1),
    ("010_Fire_crackling", "crackling_fire", 12),
)
SPLITS = ("train", "valid", "test")


def clips() -> list[tuple[int, int, str]]:
    """(class, fold, clip) of eight sounds of each class and fold, two takes of each recording."""
    return [
        (c, fold, f"{fold}-{10_000 + 100 * c + 10 * fold + k // 2}-{'AB'[k % 2]}")
        for c in range(10)
        for fold in range(1, 6)
        for k in range(8)
    ]


@pytest.fixture
def esc10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten folders of eight sounds a fold."""
    root, sounds, names = tmp_path / "esc10", {}, {}
    for c, _, clip in clips():
        folder, category, _ = CLASSES[c]
        data = b"OggS" + clip.encode()
        path = root / folder / f"{clip}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sounds[f"{folder}/{clip}.ogg"] = data
        names[f"{category.replace('_', ' ')}/{clip}"] = b""
    monkeypatch.setattr(convert, "SOUNDS_SHA256", digest(sounds))
    monkeypatch.setattr(convert, "NAMES_SHA256", digest(names))
    return root


@pytest.fixture
def esc50(tmp_path: Path, esc10: Path) -> Path:
    """The same sounds, and some of other classes, in one folder with a table."""
    root = tmp_path / "ESC-50-master"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows: list[tuple[Any, ...]] = []
    for c, fold, clip in clips():
        _, category, target = CLASSES[c]
        rows.append((f"{clip}-{target}.wav", fold, target, category, "True"))
    rows += [(f"{fold}-{20_000 + fold}-A-5.wav", fold, 5, "cat", "False") for fold in range(1, 6)]
    with (root / "meta" / "esc50.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("filename", "fold", "target", "category", "esc10", "src_file", "take"))
        for name, *rest in rows:
            writer.writerow((name, *rest, name.split("-")[1], name.split("-")[2]))
            (root / "audio" / name).write_bytes(b"RIFF    WAVE" + name.encode())
    return root


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split."""
    found = {}
    for split in SPLITS:
        columns = read_table(out / f"{split}.parquet").columns
        found[split] = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return found


def made(out: Path, source: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    """The tables that the command makes of a source."""
    assert convert.main(["--out", str(out), "--source", str(source), *options]) == 0
    return tables(out)


@pytest.mark.parametrize(("fold", "following"), [(1, 2), (3, 4), (5, 1)])
def test_the_splits_are_official_folds(esc10: Path, tmp_path: Path, fold: int, following: int) -> None:
    splits = made(tmp_path / "out", esc10, "--fold", str(fold))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 240, "valid": 80, "test": 80}
    for split, rows in splits.items():
        assert list(rows[0]) == ["sound", "label", "fold", "file"]
        assert len(set(Counter(row["label"] for row in rows).values())) == 1
        for row in rows:
            assert row["fold"] == int(row["file"][0])
            assert (row["fold"] == fold) == (split == "test")
            assert (row["fold"] == following) == (split == "valid")
            folder = next(f for f, category, _ in CLASSES if category.replace("_", " ") == row["label"])
            assert row["sound"] == (esc10 / folder / row["file"]).read_bytes()
    recordings = [{row["file"].split("-")[1] for row in rows} for rows in splits.values()]
    assert sum(map(len, recordings)) == len(set.union(*recordings))
    assert len({row["file"] for rows in splits.values() for row in rows}) == 400


def test_archives_and_folders_give_the_same_tables(esc10: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "esc10.tar", "w") as tar:
        tar.add(esc10, arcname=".")
    with zipfile.ZipFile(tmp_path / "esc10.zip", "w") as file:
        for path in esc10.rglob("*.ogg"):
            file.write(path, f"esc10/{path.relative_to(esc10)}")
    expected = made(tmp_path / "a", esc10)
    assert made(tmp_path / "b", tmp_path / "esc10.tar") == expected
    assert made(tmp_path / "c", tmp_path / "esc10.zip") == expected


def test_esc50_gives_the_same_labels(esc10: Path, esc50: Path, tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", esc10), made(tmp_path / "b", esc50)
    for split in SPLITS:
        labels = {row["file"].removesuffix(".ogg"): row["label"] for row in first[split]}
        assert {row["file"].rpartition("-")[0]: row["label"] for row in second[split]} == labels
        assert [r["file"][:9] for r in first[split]] == [r["file"][:9] for r in second[split]]
        for row in second[split]:
            assert row["sound"] == (esc50 / "audio" / row["file"]).read_bytes()


def test_the_download_is_esc50(esc50: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(url: str, target: Path) -> Path:
        assert url.startswith("https://github.com/karolpiczak/ESC-50/")
        with zipfile.ZipFile(target, "w") as file:
            for path in sorted(esc50.rglob("*.*")):
                file.write(path, path.relative_to(esc50.parent))
        return target

    monkeypatch.setattr(convert, "download", served)
    assert convert.main(["--out", str(tmp_path / "a")]) == 0
    assert tables(tmp_path / "a") == made(tmp_path / "b", esc50)


def edit(old: str, new: str) -> Callable[[Path], None]:
    """A change of the table of ESC-50."""

    def change(root: Path) -> None:
        table = root / "meta" / "esc50.csv"
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new, 1))

    return change


DOG = "1-10010-A-0.wav,1,0,dog,True"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "audio" / "1-10010-A-0.wav").unlink(), "no such file"),
        (lambda root: (root / "meta" / "esc50.csv").unlink(), "neither the folders of ESC-10"),
        (lambda root: (root / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\n"), "cannot be read as CSV"),
        (edit("esc10", "esc-10"), "expected the columns filename, fold, category, esc10; esc10 not there"),
        (edit(DOG, DOG.replace("True", "False")), "expected 8 sounds of class 'dog' in fold 1, got 7"),
        (edit(DOG, DOG.replace(",1,0", ",2,0")), "is in fold 2, its name says 1"),
        (edit(DOG, DOG.replace("dog", "cat")), "of class 'cat', which ESC-10 has not"),
        (edit(DOG, "../../1-10010-A-0.wav,1,0,dog,True"), "expected a name of the form"),
        (edit(DOG, "1-20001-A-5.wav,1,0,dog,True"), "not the sounds of ESC-10"),
    ],
)
def test_another_esc50_is_refused(
    esc50: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], message: str
) -> None:
    change(esc50)
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(esc50)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_esc10_is_refused(esc10: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sound,) = esc10.rglob("1-10010-A.ogg")
    sound.write_bytes(b"OggS changed")
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(esc10)]) == 2
    assert "not the same data" in capsys.readouterr().err
    sound.unlink()
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(esc10)]) == 2
    assert "expected 8 sounds of class 'dog' in fold 1, got 7" in capsys.readouterr().err
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(tmp_path / "none.tar")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_settings_fit_the_tables(esc10: Path, tmp_path: Path) -> None:
    made(tmp_path / "out", esc10)
    predictor = FusionPredictor(**convert.FIT)
    schema = infer_schema(read_table(tmp_path / "out" / "train.parquet"), predictor.targets, predictor.columns)
    assert set(schema.inputs) == {"sound"}
    assert schema.inputs["sound"].kind == "audio"
    assert set(schema.targets) == {"label"}

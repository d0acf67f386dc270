"""The CMU-MOSI recipe on a miniature of its source: the same rows from CSV and npz, whole videos, sources refused."""

from __future__ import annotations

import csv
import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.recipe import SPLITS, digest
from graphfusion.schema import Features

convert = load_recipe("cmu_mosi")

WIDTHS = {"text": 4, "audio": 3, "video": 5}
VIDEOS = {"train": [f"v_{i}-x" for i in range(20)], "test": ["Z_1", "a_b_c"]}
"""Names with underscores: the last one ends the name of the video."""
LENGTH = 11


def utterances(split: str) -> list[dict[str, Any]]:
    """Rows in the order of the source, which sorts utterances as text: 1, 10, 11, 2 …; the sentence tells all of a row."""
    rows = []
    for v, video in enumerate(VIDEOS[split]):
        for utterance in sorted(range(1, LENGTH + 1), key=str):
            rng = np.random.default_rng([split == "test", v, utterance])
            rows.append(
                {
                    **{m: (rng.integers(-999, 999, width) / 100).astype(np.float32) for m, width in WIDTHS.items()},
                    "label": (v + utterance) % 2,
                    "video_id": video,
                    "utt": utterance,
                    "text_str": f'THIS, IS "{"GOOD" if (v + utterance) % 2 else "BAD"}" {video} {utterance}',
                }
            )
    return rows


def write_npz(folder: Path) -> Path:
    folder.mkdir()
    for split in VIDEOS:
        rows = utterances(split)
        np.savez_compressed(folder / f"mosi_{split}.npz", **{k: np.array([r[k] for r in rows]) for k in rows[0]})
    return folder


def write_csv(folder: Path) -> Path:
    """As published: all cells quoted, transcripts of both splits in one file."""
    transcripts = [
        [f"{r['video_id']}_{r['utt']}", r["text_str"], "7", r["label"]] for s in VIDEOS for r in utterances(s)
    ]
    tables: dict[str, list[list[Any]]] = {"transcripts.csv": transcripts}
    start = 0
    for split in VIDEOS:
        rows = utterances(split)
        tables[f"text_{split}.csv"] = [[start + i, *map(str, r["text"])] for i, r in enumerate(rows)]
        for name in ("audio", "video"):
            tables[f"{name}/{name}_{split}0.csv"] = [[*map(str, r[name]), r["label"]] for r in rows]
        start += len(rows)
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    return folder


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `csv` and `npz` with the same 20 training and 2 test videos."""
    write_npz(tmp_path / "npz")
    write_csv(tmp_path / "csv")
    contents = {
        f"{split}/{r['video_id']}/{r['utt']}": b"".join(r[m].tobytes() for m in WIDTHS)
        + f"{'positive' if r['label'] else 'negative'} {r['text_str']}".encode()
        for split in VIDEOS
        for r in utterances(split)
    }
    monkeypatch.setattr(convert, "ROWS_SHA256", digest(contents))
    monkeypatch.setattr(convert, "ROWS", {"train": 18 * LENGTH, "valid": 2 * LENGTH, "test": 2 * LENGTH})
    for name in convert.FILES:
        monkeypatch.setitem(convert.FILES, name, hashlib.sha256((tmp_path / "csv" / name).read_bytes()).hexdigest())
    return tmp_path


def same_tables(a: Path, b: Path) -> bool:
    return all((a / f"{split}.parquet").read_bytes() == (b / f"{split}.parquet").read_bytes() for split in SPLITS)


def test_rows_are_those_of_the_source(miniature: Path) -> None:
    assert convert.main(["--out", str(miniature / "out"), "--source", str(miniature / "npz")]) == 0
    truth = {r["text_str"]: r for split in VIDEOS for r in utterances(split)}
    seen: list[str] = []
    for split in SPLITS:
        table = read_table(miniature / "out" / f"{split}.parquet")
        assert list(table.columns) == ["text", "audio", "video", "sentence", "label", "video_id", "utterance"]
        for text, audio, video, sentence, label, video_id, utterance in zip(*table.columns.values(), strict=True):
            row = truth[sentence]
            seen.append(sentence)
            for found, name in ((text, "text"), (audio, "audio"), (video, "video")):
                np.testing.assert_array_equal(np.array(found, np.float32), row[name])
            assert label == ("positive" if "GOOD" in sentence else "negative")
            assert (video_id, utterance) == (row["video_id"], row["utt"])
            assert sentence.endswith(f"{video_id} {utterance}")
    assert sorted(seen) == sorted(truth)


def test_videos_are_whole_and_in_order(miniature: Path) -> None:
    convert.convert(miniature / "out", miniature / "npz", miniature / "work")
    videos: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        table = read_table(miniature / "out" / f"{split}.parquet")
        for video, utterance in zip(table.column("video_id"), table.column("utterance"), strict=True):
            videos[split].setdefault(video, []).append(utterance)
        assert all(found == list(range(1, LENGTH + 1)) for found in videos[split].values())
    assert set(videos["test"]) == set(VIDEOS["test"])
    assert len(videos["valid"]) == 2
    assert not set(videos["train"]) & set(videos["valid"])
    assert set(videos["train"]) | set(videos["valid"]) == set(VIDEOS["train"])


def test_the_held_out_videos_do_not_depend_on_the_seed(miniature: Path) -> None:
    for seed in ("0", "5"):
        convert.main(["--out", str(miniature / seed), "--source", str(miniature / "npz"), "--seed", seed])
    assert same_tables(miniature / "0", miniature / "5")


def test_npz_csv_archive_and_download_give_the_same_tables(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npz", "csv"):
        with tarfile.open(miniature / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(miniature / name, arcname="somewhere/below")
    fetched = []

    def served(url: str, target: Path, sha256: str) -> Path:
        name = url.removeprefix(f"{convert.ADDRESS}/")
        fetched.append(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((miniature / "csv" / name).read_bytes())
        assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
        return target

    monkeypatch.setattr(convert, "download", served)
    for out, source in (("a", "npz"), ("b", "csv"), ("c", "npz.tar.gz"), ("d", "csv.tar.gz")):
        assert convert.main(["--out", str(miniature / out), "--source", str(miniature / source)]) == 0
    assert not fetched
    assert convert.main(["--out", str(miniature / "e")]) == 0
    assert len(fetched) == 7
    assert all(same_tables(miniature / "a", miniature / out) for out in "bcde")


def refused(miniature: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the recipe says to a source that it cannot use."""
    capsys.readouterr()
    assert convert.main(["--out", str(miniature / "o"), "--source", str(source)]) == 2
    assert not (miniature / "o").exists()
    return capsys.readouterr().err


def test_pickles_are_refused(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (miniature / "sprung",)

    path = miniature / "npz" / "mosi_train.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "text_str": np.array([Trap()] * len(arrays["label"]), object)})
    assert "Pickles are refused" in refused(miniature, miniature / "npz", capsys)
    path.write_bytes(pickle.dumps(Trap()))
    assert "Pickles are refused" in refused(miniature, miniature / "npz", capsys)
    assert not (miniature / "sprung").exists()


def test_other_contents_and_missing_sources_are_refused(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = miniature / "npz" / "mosi_test.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "label": 1 - arrays["label"]})
    assert "not the same data" in refused(miniature, miniature / "npz", capsys)
    del arrays["video"]
    np.savez(path, **arrays)
    assert "video" in refused(miniature, miniature / "npz", capsys)
    path.write_bytes(path.read_bytes()[:200])
    assert "mosi_test.npz" in refused(miniature, miniature / "npz", capsys)
    path.unlink()
    assert "no mosi_test.npz files" in refused(miniature, miniature / "npz", capsys)
    lines = (miniature / "csv" / "text_test.csv").read_text().splitlines(keepends=True)
    (miniature / "csv" / "text_test.csv").write_text("".join(lines[:-1]))
    assert "CSV files of test are not of the source's form" in refused(miniature, miniature / "csv", capsys)
    (miniature / "csv" / "transcripts.csv").unlink()
    assert "no transcripts.csv files" in refused(miniature, miniature / "csv", capsys)
    assert "no such file" in refused(miniature, miniature / "none", capsys)


def test_the_predictor_takes_the_settings(miniature: Path) -> None:
    convert.convert(miniature / "out", miniature / "npz", miniature / "work")
    predictor = FusionPredictor(**convert.FIT)
    schema = infer_schema(read_table(miniature / "out" / "train.parquet"), predictor.targets, predictor.columns)
    assert schema.inputs == {name: Features() for name in ("text", "audio", "video")}
    assert set(schema.targets) == {"label"}


def test_neighbours_are_those_of_the_video(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = miniature / "out"
    assert convert.main(["--out", str(out), "--source", str(miniature / "npz"), "--around", "2"]) == 0
    for split in SPLITS:
        table = read_table(out / f"{split}.parquet")
        keys = list(zip(table.column("video_id"), table.column("utterance"), strict=True))
        own = dict(zip(keys, table.column("video"), strict=True))
        for side, steps in {"before": (-1, -2), "after": (1, 2)}.items():
            for (video, utterance), found in zip(keys, table.column(f"video_{side}"), strict=True):
                expected = [own[video, utterance + k] for k in steps if (video, utterance + k) in own]
                assert (found is None) == (not expected)
                np.testing.assert_array_equal(
                    np.array([] if found is None else found, np.float32), np.array(expected, np.float32)
                )
    predictor = FusionPredictor(**convert.AROUND_FIT)
    schema = infer_schema(read_table(out / "train.parquet"), predictor.targets, predictor.columns)
    assert list(schema.inputs) == ["text", "audio", "video", *convert.NEIGHBOURS]
    capsys.readouterr()
    assert convert.main(["--out", str(out), "--source", str(miniature / "npz"), "--around", "-1"]) == 2
    assert "--around: expected a number of utterances" in capsys.readouterr().err

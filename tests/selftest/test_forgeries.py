"""The checks of forged folders pass; their payloads are live; a door that is left open is noticed."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from graphfusion.predictor import FusionPredictor
from graphfusion.selftest import forgeries
from graphfusion.selftest.forgeries import forge, payloads, s01, s03
from graphfusion.training import checkpoint
from graphfusion.training.checkpoint import read_folder, write_folder

READERS = {
    "pickle 0": pickle.loads,
    "pickle 2": pickle.loads,
    "pickle 4": pickle.loads,
    "pickle in gzip": lambda data: pickle.loads(gzip.decompress(data)),
    "file of torch": lambda data: torch.load(io.BytesIO(data), weights_only=False),
    "numpy objects": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
}


@pytest.mark.parametrize("kind", READERS)
def test_payloads_are_live(kind: str, tmp_path: Path) -> None:
    try:
        READERS[kind](payloads(tmp_path / "canary")[kind])
    except Exception:  # what it gives back is no array
        pass
    assert (tmp_path / "canary").exists()


def test_a_forged_folder_fits_its_manifest(tmp_path: Path) -> None:
    files = {"a.json": b"{}", "b.safetensors": b"x"}
    write_folder(tmp_path / "real", files)
    forge(tmp_path / "forged", files)
    assert read_folder(tmp_path / "forged") == files
    manifests = [(tmp_path / name / checkpoint.MANIFEST).read_bytes() for name in ("real", "forged")]
    assert manifests[0] == manifests[1]


def test_s01_and_s03_pass(tmp_path: Path) -> None:
    for check in (s01, s03):
        (tmp_path / check.__name__).mkdir()
        figure = check(tmp_path / check.__name__, False)
        assert figure.ok, figure


def test_s01_notices_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(folder: Path) -> dict[str, bytes]:
        for file in Path(folder).iterdir():
            try:
                pickle.loads(file.read_bytes())
            except Exception:
                pass
        return read_folder(folder)

    monkeypatch.setattr("graphfusion.predictor.read_folder", eager)
    assert "code was run" in s01(tmp_path, False).note


def test_s03_notices_a_lie_that_is_believed_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_check_header", lambda data: None)
    monkeypatch.setattr(FusionPredictor, "load", lambda path: None)
    monkeypatch.setattr(forgeries, "SLACK", 2**20)
    assert "not refused" in s03(tmp_path, False).note
    monkeypatch.setattr(forgeries, "_told", lambda function: None)
    (tmp_path / "again").mkdir()
    assert "bytes for" in s03(tmp_path / "again", False).note

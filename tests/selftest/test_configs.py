"""The checks of configurations pass, and each can fail."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from graphfusion.config_file import Run
from graphfusion.errors import ConfigError
from graphfusion.selftest import configs


@pytest.mark.parametrize(("check", "total"), [(configs.i63, 40), (configs.s02, 30), (configs.s07, 6)])
def test_every_case_passes(check: Any, total: int, tmp_path: Path) -> None:
    figure = check(tmp_path, False)
    assert figure.ok, str(figure)
    assert figure.total == total


def test_there_are_sixteen_bombs() -> None:
    assert len(configs.bombs()) == 16


def test_another_message_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        configs, "WRONG", {"seed: -1": "seed: expected a number.", "training: {lr: 1e-3}": "lr: too small."}
    )
    figure = configs.i63(tmp_path, True)
    assert figure.passed == 0
    assert "said 'seed: expected a whole number from 0, got -1.'" in figure.note
    assert "said None" in figure.note


def test_an_import_is_noticed_even_if_the_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def naive(path: Path) -> Run:
        if configs.CANARY in path.read_text():
            importlib.import_module(configs.CANARY)
        raise ConfigError("refused, too late")

    monkeypatch.setattr(configs, "read_run", naive)
    monkeypatch.setattr(configs, "CODE", configs.CODE[:3])
    figure = configs.s02(tmp_path, True)
    assert not figure.ok
    assert f"imported {configs.CANARY}" in figure.note
    assert (tmp_path / f"{configs.CANARY}.ran").exists()


def test_what_is_read_or_eats_memory_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(path: Path) -> Run:
        if "wide" in path.read_text()[:9]:
            bytearray(60_000_000)
            raise ConfigError("refused, too late")
        json.loads(path.read_text())
        return Run()

    monkeypatch.setattr(configs, "read_run", naive)
    monkeypatch.setattr(configs, "bombs", lambda: {"JSON wide": '["wide"]', "JSON good": "{}"})
    figure = configs.s07(tmp_path, True)
    assert figure.passed == 0
    assert "60 MB" in figure.note
    assert "was read" in figure.note

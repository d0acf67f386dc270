"""Answers that rows beside do not change, golden losses, no network; and that each check notices when it is otherwise."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from graphfusion.nn.readout import MeanReadout
from graphfusion.selftest import CHECKS, invariants


@pytest.mark.parametrize("name", ["r23", "r26", "r27"])
def test_passes(name: str, tmp_path: Path) -> None:
    figure = getattr(invariants, name)(tmp_path, False)
    assert figure.ok, str(figure)


def test_r23_notices_an_answer_that_hangs_on_the_batch(tmp_path: Path) -> None:
    real = MeanReadout.forward

    def mixed(self: MeanReadout, x: Any, ptr: Any) -> Any:
        found = real(self, x, ptr)
        return found + 0.1 * found.mean(0)

    with mock.patch.object(MeanReadout, "forward", mixed):
        assert not invariants.r23(tmp_path, False).ok


def test_r26_notices_other_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = json.loads(invariants.GOLDEN.read_text())
    golden["full gat"][7] += 1e-4
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    monkeypatch.setattr(invariants, "GOLDEN", tmp_path / "golden.json")
    figure = invariants.r26(tmp_path, False)
    assert not figure.ok
    assert "at step 8" in figure.note


def test_r27_knows_what_leaves_the_machine() -> None:
    assert invariants.reached("socket.connect", (None, ("192.0.2.1", 9))) == "192.0.2.1"
    assert invariants.reached("socket.getaddrinfo", ("example.org", 80, 0, 0, 0)) == "example.org"
    assert invariants.reached("socket.connect", (None, ("127.0.0.1", 9))) == ""
    assert invariants.reached("socket.connect", (None, "/run/some.sock")) == ""
    assert invariants.reached("open", ("192.0.2.1", "r", 0)) == ""


def test_no_test_may_call_home() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line, pytest.raises(AssertionError, match="192"):
        line.connect(("192.0.2.1", 9))


def test_every_check_is_registered_under_its_own_name() -> None:
    assert len(CHECKS) == 36
    assert all(check.__name__.upper() == name for name, check in CHECKS.items())

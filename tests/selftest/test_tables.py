"""Checks of anyone's tables, reduced; and that each notices when its guard is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphfusion.data import Report
from graphfusion.data.tables import csv_file as csv_module
from graphfusion.modalities.text import TextModality
from graphfusion.modalities.tokens import Tokens
from graphfusion.ops.hetero_attention import EdgeList
from graphfusion.selftest import odd_graphs, random_tables, tables


@pytest.mark.parametrize(
    "check", [tables.i60, tables.i61, tables.i41, odd_graphs.i50, random_tables.i70], ids=lambda c: c.__name__
)
def test_reduced_checks_pass(check: Callable[..., Any], tmp_path: Path) -> None:
    figure = check(tmp_path, False)
    assert figure.ok, str(figure)
    assert figure.total == {"I60": 24, "I61": 15, "I41": 20, "I50": 15, "I70": 20}[figure.id]


def test_i60_notices_text_of_the_wrong_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_module, "read_text", lambda path: path.read_bytes().decode("latin-1"))
    figure = tables.i60(tmp_path, False)
    assert not figure.ok
    assert "UTF-8" in figure.note


def test_i60_notices_rows_that_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = csv_module._parse
    monkeypatch.setattr(csv_module, "_parse", lambda *parts: parse(*parts).slice(0, 1))
    assert not tables.i60(tmp_path, False).ok


def test_i61_notices_a_label_that_is_taken_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("several in a text", "several where one is meant")
    monkeypatch.setattr(tables, "LABELS", {name: tables.LABELS[name] for name in names})
    monkeypatch.setattr("graphfusion.tasks.warn_of_odd_classes", lambda name, counts: None)
    monkeypatch.setattr("graphfusion.tasks.plain_label", lambda label, name: str(label))
    figure = tables.i61(tmp_path, False)
    assert (figure.passed, figure.total) == (0, 2)


def test_i41_notices_a_text_that_breaks_the_tokenizer_and_one_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tables, "TEXTS", {name: tables.TEXTS[name] for name in ("half a character", "emoji", "one letter")}
    )
    monkeypatch.setattr("graphfusion.modalities.text._clean", lambda value: value.encode("ascii", "ignore").decode())
    assert tables.i41(tmp_path, False).passed == 1
    monkeypatch.undo()
    monkeypatch.setattr(tables, "TEXTS", {"blanks": " \ufeff", "one letter": "a"})
    monkeypatch.setattr(TextModality, "tokens", lambda self, row, root: Tokens.empty(self.node_type))
    assert tables.i41(tmp_path, False).passed == 0


def test_i50_notices_edges_that_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = odd_graphs.make_plan

    def lenient(sizes: dict[str, int], relations: dict[Any, EdgeList], ptr: Any = None) -> Any:
        edges = relations[odd_graphs.RELATION].index
        limit = torch.tensor([[max(n - 1, 0)] for n in sizes.values()])
        kept = edges.clamp(min=0).minimum(limit) if edges.dtype == torch.int64 and edges.shape[0] == 2 else edges
        return make(sizes, {odd_graphs.RELATION: EdgeList(kept)}, ptr)

    monkeypatch.setattr(odd_graphs, "make_plan", lenient)
    figure = odd_graphs.i50(tmp_path, False)
    assert "a plan was made" in figure.note


def test_i50_notices_a_message_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_operator = odd_graphs._by_operator
    monkeypatch.setattr(odd_graphs, "_by_operator", lambda *parts: by_operator(*parts) * 1.0001)
    figure = odd_graphs.i50(tmp_path, False)
    assert figure.passed == 15 - 5  # the five that have an edge


def test_i70_notices_a_row_that_is_not_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = random_tables.prepare

    def silent(*parts: Any) -> Any:
        samples, report = prepare(*parts)
        return samples, Report(report.seen)

    monkeypatch.setattr(random_tables, "prepare", silent)
    assert not random_tables.i70(tmp_path, False).ok

"""Sizes against what a fit makes, and widths that give one model the size of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphfusion import FusionPredictor, Text, count_parameters, matched_feedforward
from graphfusion.data import read_table
from graphfusion.errors import ConfigError, SchemaError
from tests.conftest import SCHEMA, make_rows

SMALL = {"dim": 16, "heads": 2, "epochs": 1, "device": "cpu"}
ROWS = make_rows(12)


def predictor(fusion: str = "graph", **settings: Any) -> FusionPredictor:
    return FusionPredictor("label", columns=SCHEMA, **{**SMALL, **settings}, fusion=fusion)


def parameters_of_a_fit(one: FusionPredictor, table: Any) -> int:
    return sum(p.numel() for p in one.fit(table, valid=None, quiet=True).pipeline.model.parameters())


@pytest.mark.parametrize("fusion", ["graph", "concat", "soft_vote"])
def test_counts_are_those_of_a_fit(fusion: str) -> None:
    one = predictor(fusion, feedforward=24)
    assert count_parameters(one, ROWS) == parameters_of_a_fit(one, ROWS)


def test_a_count_by_hand() -> None:
    """Vectors of 3 numbers, width 8, 2 classes; a matrix has a bias, but for that of positions; a norm has two vectors."""
    rows = [{"a": [0.5 * i, 1.0, 2.0], "y": ["no", "yes"][i % 2]} for i in range(4)]
    encoder = (3 + 1) * 8 + 8 * 8 + 2 * 8
    fusion = 8 + (8 + 1) * 8  # the vector of an absent one; the map
    head = 2 * 8 + (8 + 1) * 8 + (8 + 1) * 2
    one = FusionPredictor("y", fusion="concat", layers=0, dim=8, heads=2)
    assert count_parameters(one, rows) == encoder + fusion + head == 298


@pytest.mark.parametrize("fusion", ["gat", "hgt", "transformer", "co_attention", "gated", "low_rank_tensor", "hard_vote", "lstm"])  # fmt: skip
def test_matched_models_are_within_5_percent(fusion: str) -> None:
    for like in (predictor(feedforward=200), predictor("concat", layers=1, feedforward=700)):
        width = matched_feedforward(predictor(fusion), like, ROWS)
        found, wanted = parameters_of_a_fit(predictor(fusion, feedforward=width), ROWS), parameters_of_a_fit(like, ROWS)
        assert abs(found / wanted - 1) < 0.05


def test_the_nearest_width_is_found() -> None:
    like = predictor("gated", feedforward=77)
    assert matched_feedforward(predictor("gated"), like, ROWS) == 77
    one = predictor("concat")
    width = matched_feedforward(one, like, ROWS)
    wanted = count_parameters(like, ROWS)
    off = {w: abs(count_parameters(predictor("concat", feedforward=w), ROWS) - wanted) for w in range(width - 2, width + 3)}  # fmt: skip
    assert min(off, key=lambda w: off[w]) == width


def test_nothing_else_changes() -> None:
    like, one = predictor(), predictor("concat")
    before, config = torch.random.get_rng_state(), one.config
    assert matched_feedforward(one, like, ROWS) == matched_feedforward(one, like, ROWS)
    count_parameters(one, ROWS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.config == config
    with pytest.raises(ConfigError, match="not fitted yet"):
        one.predict(ROWS)


def test_too_large_beside_the_other() -> None:
    message = (
        r"feedforward: expected within 5% of the [\d,]+ parameters of fusion='concat', got [\d,]+ at best, of fusion='graph' "
        r"with feedforward=1; give the other one its size \(exchange the two\)\."
    )
    with pytest.raises(ConfigError, match=message):
        matched_feedforward(predictor(dim=32), predictor("concat"), ROWS)


def test_a_feedforward_that_adds_nothing_ends_the_search() -> None:
    one = predictor("concat", layers=0)
    wanted, has = count_parameters(predictor(), ROWS), count_parameters(one, ROWS)
    assert count_parameters(predictor("concat", layers=0, feedforward=500), ROWS) == has
    with pytest.raises(ConfigError, match=f"{wanted:,} param.* got {has:,} at best, .*'concat' with any feedforward"):
        matched_feedforward(one, predictor(), ROWS)
    assert matched_feedforward(one, one, ROWS) >= 1  # any does


def test_errors_of_the_table_are_those_of_a_fit() -> None:
    unlabelled = [{k: v for k, v in row.items() if k != "label"} for row in ROWS]
    for call in (lambda: count_parameters(predictor(), unlabelled), lambda: matched_feedforward(predictor(), predictor(), unlabelled)):  # fmt: skip
        with pytest.raises(SchemaError, match="label"):
            call()


def test_a_file_is_read_as_a_fit_reads_it(tmp_path: Path) -> None:
    """A code of digits that is declared to be text; 100 classes in order, of which the first 500 rows have 56."""
    path = tmp_path / "rows.csv"
    path.write_text("code,n,label\n" + "".join(f"{i % 9:03},{i % 7},class {i // 9}\n" for i in range(900)))

    def made(fusion: str, **settings: Any) -> FusionPredictor:
        return FusionPredictor("label", columns={"code": Text()}, fusion=fusion, layers=1, **SMALL, **settings)

    like = made("graph")
    width = matched_feedforward(made("soft_vote"), like, path)
    assert width == matched_feedforward(made("soft_vote"), like, read_table(path, as_text=["code"]))
    found, wanted = (count_parameters(p, path) for p in (made("soft_vote", feedforward=width), like))
    assert abs(found / wanted - 1) < 0.01

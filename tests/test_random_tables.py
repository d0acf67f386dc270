"""Random tables of any columns, with anything missing or broken, go through every stage: each row is accounted for and has
an answer that does not depend on how the rows are batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphfusion.config import ModelConfig
from graphfusion.data import Budget, read_table
from graphfusion.data.infer import infer_schema
from graphfusion.graph_builder import GRAPHS
from graphfusion.modalities import modalities_of, prepare
from graphfusion.model import make_builder, make_model
from graphfusion.schema import Features, Input
from graphfusion.selftest import random_tables
from graphfusion.tasks import learn_target, make_task
from graphfusion.training import Batches, Collate, embed_rows
from tests.conftest import png, wav

SPECS: dict[str, Input] = {**random_tables.SPECS, "features": Features(max_tokens=5)}  # the width is learned
BROKEN = random_tables.BROKEN


@st.composite
def cells(draw: st.DrawFn, kind: str) -> Any:
    """A cell of some kind: usually good, sometimes missing, sometimes broken."""
    state = draw(st.sampled_from(["good"] * 5 + ["missing"] * 2 + ["broken"] * bool(BROKEN[kind])))
    if state == "missing":
        return draw(st.sampled_from([None, float("nan")]))
    if state == "broken":
        return draw(st.sampled_from(BROKEN[kind]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if kind == "text":
        return draw(st.text(max_size=20))
    if kind == "image":
        shape = (draw(st.integers(1, 12)), draw(st.integers(1, 12)), 3)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        return draw(st.sampled_from([pixels, png(pixels), pixels / 255]))
    if kind == "audio":
        wave = rng.normal(0, 0.1, draw(st.integers(0, 3000)))
        return draw(st.sampled_from([wave, wav(wave, 8000), {"array": wave, "sampling_rate": 8000}]))
    if kind == "number":
        return draw(st.one_of(st.integers(-5, 5), st.floats(-1e6, 1e6)))
    if kind == "category":
        return draw(st.sampled_from(["a", "b", True, 3]))
    return rng.normal(size=(draw(st.integers(0, 7)), 3))


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Input], list[dict[str, Any]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(SPECS)), min_size=1, max_size=4))
    columns = {f"{kind} {i}": kind for i, kind in enumerate(kinds)}
    count = draw(st.integers(2, 7))
    rows: list[dict[str, Any]] = [{name: draw(cells(kind)) for name, kind in columns.items()} for _ in range(count)]
    for i, row in enumerate(rows):
        row["label"] = "xy"[i] if i < 2 else draw(st.sampled_from(["x", "y", None]))
    return {name: SPECS[kind] for name, kind in columns.items()}, rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables(), st.sampled_from(sorted(GRAPHS)), st.sampled_from(["skip", "missing"]), st.integers(1, 4))
def test_any_table(made: tuple[dict[str, Input], list[dict[str, Any]]], graph: str, on_error: str, size: int) -> None:
    specs, rows = made
    table = read_table(rows, Path(__file__).parent)
    schema = infer_schema(table, ["label"], specs)
    raw = [s.values for s in table.samples(schema)]
    modalities = {name: m.fit(raw, table.root) for name, m in modalities_of(schema).items()}
    columns = {name: schema.columns_of(name) for name in modalities}
    samples, report = prepare(table.samples(schema), modalities, columns, table.root, on_error)

    assert report.seen == len(rows) == report.ok + report.skipped + report.repaired
    assert [s.id for s in samples] == sorted(
        {*range(len(rows))} - {i.row for i in report.incidents if i.action == "skipped"}
    )
    for sample in samples:
        for name, tokens in sample.tokens.items():
            tokens.check(modalities[name].node_type, name)
    if not samples:
        return
    config = ModelConfig(dim=8, heads=2, layers=1, graph=graph, dropout=0.0)
    builder = make_builder(modalities, config)
    spec, scale = learn_target("label", schema.targets["label"], table.column("label"))
    model = make_model(modalities, builder, {"label": make_task("label", spec, scale, 8)}, config).eval()
    collate = Collate(builder, dict(model.tasks.items()))
    found = [
        embed_rows(model, Batches.of(samples, Budget(count, 10**6, 10**6), collate)) for count in (size, len(samples))
    ]
    assert found[0].shape == (len(samples), 8)
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    model.train().loss(collate(samples)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

"""Fabricated rows of any mix of modalities, shared by all tests."""

from __future__ import annotations

import io
import os
import sys
import wave
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphfusion.config import ModelConfig
from graphfusion.data import Table
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import TokenizedSample, modalities_of, prepare
from graphfusion.model import FusionModel, make_builder, make_model, vote_of
from graphfusion.schema import Audio, Class, Features, Schema, Tabular, Text
from graphfusion.schema import Image as ImageColumn
from graphfusion.tasks import make_task

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its own helpers look then
os.environ["HF_HUB_OFFLINE"] = "1"  # likewise before transformers
torch.set_num_threads(1)  # the suite runs one process a core


def _no_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Nothing but loopback may be looked up or reached while the tests run."""
    if event.startswith("socket."):
        from graphfusion.selftest.invariants import reached

        if host := reached(event, arguments):
            raise AssertionError(f"a test wants to reach {host}")


sys.addaudithook(_no_network)

WORDS = ["red", "green", "blue", "small", "large", "round", "square", "old", "new", "fast", "slow", "warm", "cold"]
SCHEMA = Schema(
    inputs={
        "caption": Text(vocab_size=300),
        "photo": ImageColumn(size=16, patch=4, channels=3),
        "sound": Audio(bands=16, frames_per_token=4),
        "clip": Features(),
        "age": Tabular(),
        "colour": Tabular(values="category"),
    },
    targets={"label": Class()},
)
"""One column of every kind."""


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an 8-bit array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray, rate: int) -> bytes:
    """16-bit PCM WAV bytes of mono samples in [-1, 1], written by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def make_row(i: int, seed: int = 0) -> dict[str, Any]:
    """A complete row of `SCHEMA`, with lengths that differ from row to row."""
    rng = np.random.default_rng([seed, i])
    return {
        "caption": " ".join(rng.choice(WORDS, 2 + i % 5)),
        "photo": rng.integers(0, 256, (10 + i % 7, 12, 3), dtype=np.uint8),
        "sound": {"array": rng.normal(0, 0.1, 1600 + 700 * (i % 4)), "sampling_rate": 16_000},
        "clip": rng.normal(size=(1 + i % 4, 5)).astype(np.float32),
        "age": float(rng.normal(40, 10)),
        "colour": str(rng.choice(["red", "green", "blue"])),
        "label": "abc"[i % 3],
    }


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` complete rows of `SCHEMA`."""
    return [make_row(i, seed) for i in range(count)]


def tokenize(rows: list[dict[str, Any]], schema: Schema = SCHEMA) -> tuple[dict[str, Any], list[TokenizedSample]]:
    """Fitted modalities and tokenized samples of rows."""
    from graphfusion.data import read_table

    table: Table = read_table(rows)
    raw = [s.values for s in table.samples(schema, targets=False)]
    modalities = {name: m.fit(raw, table.root) for name, m in modalities_of(schema).items()}
    columns = {name: schema.columns_of(name) for name in modalities}
    samples, _ = prepare(table.samples(schema, targets=False), modalities, columns, table.root)
    return modalities, samples


@pytest.fixture(scope="session")
def samples() -> list[TokenizedSample]:
    """Eight complete tokenized rows."""
    return tokenize(make_rows(8))[1]


@pytest.fixture(scope="session")
def make_test_model() -> Callable[..., tuple[GraphBuilder, FusionModel]]:
    """Builder and untrained model over `SCHEMA`, as a fit makes them, for any graph preset and settings of the model."""

    def make(graph: str = "full", seed: int = 0, **settings: Any) -> tuple[GraphBuilder, FusionModel]:
        modalities, _ = tokenize(make_rows(8))
        config = ModelConfig(**{"dim": 16, "heads": 2, "graph": graph, "dropout": 0.0, **settings})
        builder = make_builder(modalities, config)
        torch.manual_seed(seed)
        options = {"vote": vote_of(config), "modalities": tuple(modalities)}
        tasks = {"label": make_task("label", Class(("a", "b", "c")), None, config.dim, **options)}
        return builder, make_model(modalities, builder, tasks, config)

    return make


class Inline:
    """A pool that runs here: one of processes would import torch again for each run."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., Any], *given: object) -> Future[Any]:
        """Run it."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*given))
        except Exception as error:
            future.set_exception(error)
        return future

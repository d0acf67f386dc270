"""A small table and a model that was fitted to it from the command line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from graphfusion.cli import main

CONFIG = """
target: label
columns: {title: text, id: null}
model: {dim: 16, heads: 2, layers: 1}
training: {epochs: 2, lr: 1e-2}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.csv`, `new.csv` whose third row has a price that is none, `run.yaml`, and the model `fit` made of them."""
    place = tmp_path_factory.mktemp("cli")
    rng = random.Random(0)
    rows = [
        f"{rng.choice(['red kettle', 'wet rain'])} {i},{rng.random():.3f},{i},{rng.choice('ab')}" for i in range(30)
    ]
    (place / "train.csv").write_text("\n".join(["title,price,id,label", *rows]))
    rows[2] = "red kettle,much,2,a"
    (place / "new.csv").write_text("\n".join(["title,price,id,label", *rows[:6]]))
    (place / "run.yaml").write_text(CONFIG)
    command = [
        "fit",
        f"{place}/train.csv",
        "--config",
        f"{place}/run.yaml",
        "--out",
        f"{place}/model",
        "--set",
        "lr=1e-3",
    ]
    assert main([*command, "training.epochs=1", "--quiet"]) == 0
    return place

"""The lint of S13 finds each unsafe thing, under any name, and passes the package."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphfusion
from graphfusion.selftest.lint import s13, unsafe


def test_the_package_is_clean(tmp_path: Path) -> None:
    figure = s13(tmp_path, False)
    assert figure.ok, figure
    assert figure.total == len(list(Path(graphfusion.__file__).parent.rglob("*.py")))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", "1: pickle"),
        ("def f():\n    from pickle import loads as fine", "2: pickle.loads"),
        ("import joblib.hashing as j", "1: joblib.hashing"),
        ("import torch as t\nt.load('x')", "2: torch.load"),
        ("from torch import load", "1: torch.load"),
        ("import torch, functools\nread = functools.partial(torch.load)", "2: torch.load"),
        ("torch.load(p, weights_only=False)", "1: torch.load"),
        ("f(p, weights_only=False)", "1: weights_only=False"),
        ("run = eval", "1: eval"),
        ("import builtins\nbuiltins.exec(x)", "2: builtins.exec"),
        ("__import__(name)", "1: __import__"),
        ("import yaml\nyaml.load(x, Loader=yaml.SafeLoader)", "2: yaml.load"),
        ("tar.extractall(path)", "1: extractall"),
        ("subprocess.run(c, shell=True)", "1: shell=True"),
        ("subprocess.run(c, shell=flag)", "1: shell=flag"),
        ("import numpy\nnumpy.load(p, allow_pickle=1)", "2: allow_pickle=1"),
        ("import os\nos.system(c)", "2: os.system"),
    ],
)
def test_each_unsafe_thing_is_found(source: str, expected: str) -> None:
    assert expected in unsafe(source)


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "re.compile(x)", "'pickle, eval(x)'  # torch.load", "np.load(p, allow_pickle=False)",
     "yaml.safe_load(x)", "from safetensors.torch import load", "from graphfusion.ops import pickle_free",
     "subprocess.run(c, shell=False)"],
)  # fmt: skip
def test_what_only_looks_alike_is_not(source: str) -> None:
    assert not unsafe(source)


def test_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text("import pickle")
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(graphfusion, "__file__", str(tmp_path / "__init__.py"))
    figure = s13(tmp_path, True)
    assert not figure.ok
    assert "odd.py: 1: pickle" in figure.note

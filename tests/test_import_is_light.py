"""`import graphfusion` pulls in nothing heavy, compiles nothing, opens no socket; its public names are all there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graphfusion

HEAVY = (
    "torch_geometric",
    "transformers",
    "torchvision",
    "triton",
    "matplotlib",
    "torch",
    "sklearn",
    "pyarrow",
    "tensorboard",
    "av",
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy_and_no_socket() -> None:
    code = f"""
import sys
found = []
sys.addaudithook(lambda event, args: found.append(event) if event.startswith(("socket.", "subprocess.", "compile")) else None)
import socket
found.clear()
import graphfusion
assert not [e for e in found if e.startswith(("socket.", "subprocess."))], found
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_schema_and_graph_builder_need_no_pyg_or_transformers() -> None:
    code = f"""
import sys, graphfusion
graphfusion.Schema, graphfusion.GraphBuilder, graphfusion.Tokens
print([m for m in {HEAVY[:5]!r} if m in sys.modules])
"""
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("name", [n for n in graphfusion.__all__ if n != "__version__"])
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert getattr(graphfusion, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Predictr"):
        graphfusion.Predictr  # noqa: B018

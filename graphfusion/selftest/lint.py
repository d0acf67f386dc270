"""S13: no line of the source runs code that comes from data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import graphfusion
from graphfusion.selftest.figure import Figure, count

MODULES = frozenset({"pickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"})
NAMES = frozenset(
    {"eval", "exec", "__import__", "builtins.eval", "builtins.exec", "torch.load", "os.system", "os.popen"}
    | {f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")}
)
METHODS = frozenset({"extractall"})
SAFE = {"shell": False, "allow_pickle": False, "trust_remote_code": False, "weights_only": True}
"""Keywords and the only value that they may have."""


def unsafe(source: str) -> list[str]:
    """`line: what` of each unsafe module, function or keyword that a Python text uses, under whatever name it imports it."""
    tree = ast.parse(source)
    known = dict(_imported(tree))
    found = [(node.lineno, what) for node in ast.walk(tree) if isinstance(node, ast.expr | ast.stmt)
             for what in _unsafe_here(node, known)]  # fmt: skip
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def s13(work: Path, full: bool) -> Figure:
    """Every module of the installed package is read, whether `full` or not."""
    root = Path(graphfusion.__file__).parent
    cases = {
        str(path.relative_to(root)): ", ".join(unsafe(path.read_text("utf-8"))) or None
        for path in sorted(root.rglob("*.py"))
    }
    return count("S13", "modules without pickle, torch.load, eval, yaml.load, extractall, shell=True", cases)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(name in this module, dotted name it stands for) of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _unsafe_here(node: ast.expr | ast.stmt, known: dict[str, str]) -> Iterator[str]:
    """What is unsafe in one node itself, not below it."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
    if isinstance(node, ast.ImportFrom):
        full = [f"{node.module}.{a.name}" for a in node.names]
        yield from (f for f in full if f in NAMES or (f.split(".")[0] in MODULES and not node.level))
    if isinstance(node, ast.Name | ast.Attribute) and _dotted(node, known) in NAMES:
        yield _dotted(node, known)
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        yield node.attr
    for keyword in node.keywords if isinstance(node, ast.Call) else ():
        if keyword.arg in SAFE and ast.unparse(keyword.value) != str(SAFE[keyword.arg]):
            yield f"{keyword.arg}={ast.unparse(keyword.value)}"


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    """The dotted name that an expression is, with its first part as it was imported; empty for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, known)
        return f"{owner}.{node.attr}" if owner else ""
    return ""

"""Faults, bad inputs and attacks, tried on this machine: `graphfusion selftest`.

Each check is a function of a folder and `full`; it makes its own cases with fixed seeds and needs no network.
"""

from graphfusion.selftest.figure import Check, Figure

CHECKS: dict[str, Check] = {}
"""Identifier → check, in the order in which they run."""

__all__ = ["CHECKS", "Check", "Figure"]

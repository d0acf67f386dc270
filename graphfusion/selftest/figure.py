"""What a check of the selftest finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """`passed` of `total` cases of one check; `note` names those that did not pass, or what is worth knowing.

    `id` is that of the project's list of faults (R), bad inputs (I) and attacks (S).
    """

    id: str
    what: str
    passed: int
    total: int
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether every case passed, and there was one."""
        return 0 < self.total == self.passed

    def __str__(self) -> str:
        note = f"  {self.note}" if self.note else ""
        return f"{self.id:<4} {'ok  ' if self.ok else 'FAIL'} {self.passed:>6,} / {self.total:<6,} {self.what}{note}"


Check = Callable[[Path, bool], Figure]
"""Given an empty folder to work in and whether to run every case (else a few of each kind)."""


def count(id: str, what: str, cases: dict[str, str | None], note: str = "") -> Figure:  # noqa: A002 - the list's word
    """The figure of cases: name → why it did not pass, or None. The first three that did not are named."""
    failed = {name: why for name, why in cases.items() if why is not None}
    told = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
    return Figure(id, what, len(cases) - len(failed), len(cases), "; ".join(n for n in (told, note) if n))

"""One row of a table, and the account of what happened to each row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One row: input column → raw value or None (missing), target column → raw value or None (unknown).

    `id` is the row's number in its table, from 0.
    """

    id: int
    values: Mapping[str, Any]
    targets: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Incident:
    """One cell that could not be used as it is, and what was done: `skipped` (the row), `missing` or `cut` (the cell).

    `file` is the path of an image, sound or video that could not be read, if the cell holds one. `table`: `validation` if the
    row is of a fit's validation table.
    """

    row: int
    column: str
    reason: str
    action: str
    file: str = ""
    table: str = ""

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r}: {self.reason} [{self.action}]"


@dataclass
class Report:
    """Account of the rows read: every row seen is ok, repaired (a cell taken as missing, or cut) or skipped."""

    seen: int = 0
    incidents: list[Incident] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    """Input columns that the table does not have: missing in every row."""

    @property
    def skipped(self) -> int:
        """Rows left out."""
        return len({i.row for i in self.incidents if i.action == "skipped"})

    @property
    def repaired(self) -> int:
        """Rows kept with at least one cell taken as missing or cut."""
        rows = {i.row for i in self.incidents}
        return len(rows) - self.skipped

    @property
    def ok(self) -> int:
        """Rows without an incident."""
        return self.seen - self.skipped - self.repaired

    def json_lines(self) -> str:
        """One JSON object an incident: row, column, reason, action, file (of a media cell that is a path), table."""
        return "".join(json.dumps(vars(i)) + "\n" for i in self.incidents)

    def __str__(self) -> str:
        counts = f"{self.seen} rows seen = {self.ok} ok + {self.skipped} skipped + {self.repaired} repaired"
        counts += f"; no column {', '.join(map(repr, self.absent))}: missing in every row" if self.absent else ""
        shown = "".join(f"\n  {incident}" for incident in self.incidents[:5])
        more = f"\n  … and {len(self.incidents) - 5} more" if len(self.incidents) > 5 else ""
        return counts + shown + more

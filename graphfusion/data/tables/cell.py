"""One cell of a table: None for whatever is missing, plain Python values for the rest."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np


def plain_cell(value: Any) -> Any:
    """None for every spelling of "missing" (None, NaN, NaT, a blank text), else the value: scalars of numpy and torch become
    Python's, dates days since 1970, durations seconds, decimals floats.
    """
    if value is None:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = value.astype(f"{value.dtype.kind}8[us]").item()  # finer units would become a bare integer
    elif getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if (isinstance(value, str) and not value.strip()) or type(value).__name__ in ("NaTType", "NAType"):
        return None
    return _number_of_time(value)


def as_number(cell: Any) -> float:
    """A number, also of a text that is one or that is an ISO date (days since 1970); ValueError or TypeError otherwise."""
    try:
        return float(cell)
    except ValueError:
        return float(_number_of_time(datetime.fromisoformat(str(cell).strip())))


def _number_of_time(value: Any) -> Any:
    """Numbers for dates (days since 1970), durations (seconds) and decimals; all else as it is."""
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return value.timestamp() / 86_400
    if isinstance(value, date):
        return float(value.toordinal() - date(1970, 1, 1).toordinal())
    if isinstance(value, time):
        return value.hour * 3600.0 + value.minute * 60 + value.second + value.microsecond / 1e6
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if isinstance(value, Decimal) else value

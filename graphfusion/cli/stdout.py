"""Standard output that may be full, closed, or read by somebody who has enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from graphfusion.errors import TableError


@contextmanager
def to_stdout() -> Iterator[None]:
    """What is printed inside is written when this ends.

    Raises:
        TableError: it cannot be.
        BrokenPipeError: nobody reads on.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        end_stdout()
        raise
    except OSError as error:
        end_stdout()
        raise TableError(f"stdout cannot be written: {error.strerror}.") from error


def end_stdout() -> None:
    """What is left in the buffer goes nowhere, so that the interpreter does not stumble over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed() -> None:
    """Streams that the shell closed (`>&-`) take everything and keep nothing."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115

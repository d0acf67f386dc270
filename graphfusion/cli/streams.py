"""Standard streams that may be full, closed, or read by somebody who has enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

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
    _to_nowhere(sys.stdout)


def mend_streams() -> None:
    """Streams that the shell closed (`>&-`) take everything and keep nothing; stderr whose reader leaves becomes one."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if not isinstance(sys.stderr, _Log):
        sys.stderr = _Log(sys.stderr)  # type: ignore[assignment]


class _Log:
    """A text stream for what may be lost: where it cannot be written any more, all goes nowhere and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As `TextIO.write`, without errors."""
        try:
            return self.stream.write(text)
        except OSError:
            _to_nowhere(self.stream)
            return len(text)

    def flush(self) -> None:
        """As `TextIO.flush`, without errors."""
        try:
            self.stream.flush()
        except OSError:
            _to_nowhere(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _to_nowhere(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

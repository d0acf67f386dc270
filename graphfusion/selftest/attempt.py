"""One attempt to read something: what came of it, without the noise of the decoders."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphfusion.errors import MediaError


def tried(read: Callable[..., Any], *cell: Any) -> Any:
    """What `read` gives, or the MediaError that it raises; Pillow's warnings are no errors to a user either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(*cell)
        except MediaError as error:
            return error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libtiff and mpg123 print of damaged files from the screen."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

"""Signals during a fit: it ends after the step that runs, with a checkpoint that it can go on from."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOPS = ("SIGINT", "SIGTERM")
SAVES = "SIGUSR1"


class Interruption:
    """While it is entered, the first SIGINT or SIGTERM and every SIGUSR1 only set `asked`; a second SIGINT or SIGTERM
    ends at once, with the last checkpoint that was written. Outside the main thread, and where `active` is False (a fit
    that writes nothing), signals do what they always do.
    """

    def __init__(self, active: bool) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.asked = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for name in (*STOPS, SAVES) if self.active else ():
            if hasattr(signal, name):  # Windows has no SIGUSR1
                number = signal.Signals[name]
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.asked in STOPS and name in STOPS:
            leave(name)
        self.asked = name if name in STOPS or not self.asked else self.asked

    @property
    def stops(self) -> bool:
        """Whether the fit is asked to end."""
        return self.asked in STOPS


def leave(name: str) -> None:
    """End as the signal ends a process: KeyboardInterrupt, or SystemExit with 128 + the signal's number."""
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise SystemExit(128 + signal.Signals[name])


def leave_the_group(_: int) -> None:
    """Ctrl-C and most service managers signal a whole process group; a worker of the loader leaves the answer to its parent,
    and ends when that is gone.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()


@contextmanager
def own_child_signals() -> Iterator[None]:
    """Whoever is called inside does not keep a handler of SIGCHLD: torch's raises in whatever the main thread does when a
    worker dies, be it in the middle of a step.
    """
    inactive = not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread()
    before = None if inactive else signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if not inactive:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)

"""What a fit shows and writes while it runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from graphfusion.training.checkpoint import write_file


class FitProgress:
    """A bar with rate and time left on a terminal, one line per epoch elsewhere, nothing when `quiet`."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self.epochs = epochs
        self.quiet = quiet
        self.console = Console(soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> FitProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def steps(self, epoch: int, batches: Iterable[Any], count: int) -> Iterator[Any]:
        """The batches of an epoch, counted on the bar."""
        task = self.bar.add_task(f"epoch {epoch}/{self.epochs}", total=count, rate="")
        try:
            for batch in batches:
                yield batch
                self.bar.advance(task)
                speed = self.bar.tasks[-1].speed
                self.bar.update(task, rate=f"{speed:.1f} batches/s" if speed else "")
        finally:  # also where the epoch is left early
            self.bar.remove_task(task)

    def counter(self, what: str, count: int) -> Callable[[], None]:
        """A bar for `count` things; call what comes back after each."""
        task = self.bar.add_task(what, total=count, rate="")

        def done() -> None:
            self.bar.advance(task)
            if self.bar.finished:
                self.bar.remove_task(task)

        return done

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            self.console.print(line, markup=False, highlight=False)
            self.console.file.flush()  # a log file or pipe shows each epoch as it ends


class MetricsLog:
    """`metrics.jsonl` and TensorBoard files in a folder; nothing without one."""

    def __init__(self, folder: Path | None, epochs_done: int) -> None:
        self.path = folder / "metrics.jsonl" if folder else None
        self.board: Any = None
        if folder:
            from torch.utils.tensorboard import SummaryWriter

            with self._board_may_fail():
                self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)  # type: ignore[no-untyped-call]

    def write(self, history: list[dict[str, Any]]) -> None:
        """Write all epochs; the last one also goes to TensorBoard."""
        if self.path is None:
            return
        write_file(self.path, "".join(json.dumps(entry) + "\n" for entry in history).encode())
        with self._board_may_fail():
            for name, value in history[-1].items():
                if isinstance(value, int | float) and self.board is not None:
                    self.board.add_scalar(name, value, history[-1]["epoch"])

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        with self._board_may_fail():
            if self.board is not None:
                self.board.close()

    @contextmanager
    def _board_may_fail(self) -> Iterator[None]:
        """A fit goes on without TensorBoard's files where they cannot be written; `metrics.jsonl` has the same numbers."""
        try:
            yield
        except OSError as error:
            self.board = None
            warnings.warn(f"TensorBoard files cannot be written and end here: {error}", stacklevel=2)

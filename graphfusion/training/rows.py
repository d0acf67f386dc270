"""Tokenized rows → batches, in an order and with modality dropout that depend on nothing but counters."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from graphfusion.data import Budget, counted_rng, pack, shuffled
from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.modalities import Modality, TokenizedSample
from graphfusion.tasks import Task
from graphfusion.training.interruption import leave_the_group, own_child_signals
from graphfusion.training.memory import out_of_memory

T = TypeVar("T")
IDLE = -1
"""In place of a row's number: no row."""
POLL = 5.0
"""Seconds after which it is looked whether all workers live."""


@dataclass(frozen=True)
class Collate:
    """Samples → `GraphBatch` with encoded targets (none when `tasks` is empty)."""

    builder: GraphBuilder
    tasks: Mapping[str, Task]

    def __call__(self, samples: Sequence[TokenizedSample]) -> GraphBatch:
        batch = self.builder.build([s.tokens for s in samples], [s.id for s in samples])
        return batch.with_targets(
            {n: task.encode([s.targets.get(n) for s in samples]) for n, task in self.tasks.items()}
        )


@dataclass(frozen=True)
class Noise:
    """What training rows go through: each modality is lost with probability `dropout` (never the last one) and changed
    by its own augmentation with `strength`.
    """

    modalities: Mapping[str, Modality] = field(default_factory=dict)
    dropout: float = 0.0
    strength: float = 0.0


class NoisyRows:
    """The rows of one epoch with noise that depends on (seed, epoch, row) alone."""

    def __init__(self, rows: Sequence[TokenizedSample], noise: Noise, seed: int, epoch: int) -> None:
        self.rows, self.noise, self.seed, self.epoch = rows, noise, seed, epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TokenizedSample:
        return self._augmented(self._dropped(self.rows[index]))

    def _augmented(self, row: TokenizedSample) -> TokenizedSample:
        strength = self.noise.strength
        if not strength:
            return row
        rng = counted_rng(self.seed, "augment", self.epoch, row.id)
        tokens = {name: self.noise.modalities[name].augment(t, strength, rng) for name, t in row.tokens.items()}
        return replace(row, tokens=tokens)

    def _dropped(self, row: TokenizedSample) -> TokenizedSample:
        if not self.noise.dropout or len(row.tokens) < 2:
            return row
        names = sorted(row.tokens)
        chance = counted_rng(self.seed, "modality_dropout", self.epoch, row.id).random(len(names))
        lost = {name for name, c in zip(names, chance, strict=True) if c < self.noise.dropout}
        if len(lost) == len(names):
            lost.remove(names[int(chance.argmax())])
        return row.without(frozenset(lost)) if lost else row


@dataclass(frozen=True)
class Failure:
    """Why a batch cannot be made: a row (its number, or `IDLE` where none can be named), or short memory. `lost`: a worker of
    the loader died.
    """

    row: int
    reason: str
    memory: bool = False
    lost: bool = False

    @classmethod
    def of(cls, row: int, error: Exception) -> Failure:
        """The failure that an error stands for."""
        return cls(row, f"{type(error).__name__}: {error}", out_of_memory(error))


Parts = list[GraphBatch]
"""A batch, as one `GraphBatch` or cut into several where memory is short; none if all its rows are left out."""


class BatchMaker(Dataset["Parts | Failure"]):
    """Numbers of rows → the batch of these rows, in `parts`. In a worker it says which row it is at."""

    def __init__(self, rows: NoisyRows, collate: Collate, parts: int, workers: int) -> None:
        self.rows, self.collate, self.parts = rows, collate, parts
        self.at = torch.full((max(1, workers), 2), IDLE).share_memory_()  # type: ignore[no-untyped-call]
        """(workers, 2): process and row, for the parent to read when a worker is gone."""

    def __getitem__(self, numbers: Sequence[int]) -> Parts | Failure:
        made: list[TokenizedSample] = []
        for number in numbers:
            row = self.rows.rows[number].id
            self._say(row)
            try:
                made.append(self.rows[number])
            except Exception as error:  # of a modality that may be the user's own
                return Failure.of(row, error)
        batch = self._collated(made)
        self._say(IDLE)
        return batch

    def _collated(self, rows: Sequence[TokenizedSample]) -> Parts | Failure:
        size = max(1, -(-len(rows) // self.parts))
        try:
            return [self.collate(rows[i : i + size]) for i in range(0, len(rows), size)]
        except Exception as error:
            return Failure.of(IDLE if out_of_memory(error) else self._guilty(rows), error)

    def _guilty(self, rows: Sequence[TokenizedSample]) -> int:
        """The first row that makes no batch even alone; `IDLE` if there is none."""
        for row in rows:
            try:
                self.collate([row])
            except Exception:
                return row.id
        return IDLE

    def _say(self, row: int) -> None:
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self.at[worker.id] = torch.tensor([os.getpid(), row])

    def lost(self, error: RuntimeError) -> Failure:
        """The failure that an error of the loader stands for: the row that a dead or hanging worker was at."""
        alive = {process.pid for process in multiprocessing.active_children()}
        workers = [(pid, row) for pid, row in self.at.tolist() if pid != IDLE]
        dead = [row for pid, row in workers if pid not in alive]
        rows = dead or [row for _, row in workers if row != IDLE]
        what = "died" if dead else "gives nothing"
        return Failure(max(rows, default=IDLE), f"a worker of the loader {what} here ({error})", lost=bool(dead))


@dataclass(frozen=True)
class Batches:
    """The rows of a fit with the size of each, so that batches can be packed under a budget."""

    rows: Sequence[TokenizedSample]
    nodes: Sequence[int]
    edges: Sequence[int]
    budget: Budget
    collate: Collate
    noise: Noise = Noise()

    @classmethod
    def of(
        cls, rows: Sequence[TokenizedSample], budget: Budget, collate: Collate, noise: Noise | None = None
    ) -> Batches:
        """Count nodes and edges of each row."""
        nodes, edges = collate.builder.sizes([r.tokens for r in rows])
        return cls(rows, nodes, edges, budget, collate, noise or Noise())

    def plan(self, seed: int, epoch: int) -> list[list[int]]:
        """Row numbers of each training batch of an epoch."""
        return pack(shuffled(len(self.rows), seed, epoch), self.nodes, self.edges, self.budget)

    def epoch(
        self,
        seed: int,
        epoch: int,
        workers: int = 0,
        first: int = 0,
        parts: int = 1,
        left_out: Collection[int] = (),
        timeout: float = 0.0,
    ) -> Iterator[Parts | Failure]:
        """Training batches of an epoch from the batch `first` on, each in `parts`; any number of workers gives the same
        ones. Rows of the numbers `left_out` are not in them. A worker that dies, or is silent for `timeout` seconds, is a
        `Failure`, after which nothing comes.
        """
        maker = BatchMaker(NoisyRows(self.rows, self.noise, seed, epoch), self.collate, parts, workers)
        plan = [[i for i in b if self.rows[i].id not in left_out] for b in self.plan(seed, epoch)[first:]]
        loader: DataLoader[Parts | Failure] = DataLoader(
            maker,
            sampler=plan,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            timeout=min(timeout, POLL) if workers else 0.0,
            worker_init_fn=leave_the_group,
        )
        with own_child_signals():
            batches = iter(loader)
        asked = time.monotonic()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:  # what torch raises for a worker that is gone, or silent
                if out_of_memory(error):
                    raise
                if "timed out" in str(error) and time.monotonic() - asked < timeout:
                    continue
                yield maker.lost(error)
                return
            yield batch
            asked = time.monotonic()

    def alone(self, seed: int, epoch: int, row: int) -> GraphBatch:
        """The batch of one row (its number in the table) as it is in an epoch."""
        number = next(i for i, r in enumerate(self.rows) if r.id == row)
        return self.collate([NoisyRows(self.rows, self.noise, seed, epoch)[number]])

    def targets(self) -> dict[str, Tensor]:
        """Target → its encoding for all rows, in order."""
        return {n: task.encode([r.targets.get(n) for r in self.rows]) for n, task in self.collate.tasks.items()}

    def in_order(self, use: Callable[[GraphBatch], T]) -> Iterator[T]:
        """What `use` gives for batches of all rows, in order. Where memory does not do for a batch, it and those that follow
        come in parts half as large.

        Raises:
            TrainingError: memory does not do for a row by itself.
        """
        most = self.budget.samples
        for batch in pack(range(len(self.rows)), self.nodes, self.edges, self.budget):
            done = 0
            while done < len(batch):
                part = [self.rows[i] for i in batch[done : done + most]]
                used = self._used(part, use)
                if isinstance(used, Failure):
                    most = len(part) // 2
                    if not most:
                        raise TrainingError(
                            f"row {part[0].id}: memory is short for this row by itself ({used.reason}); lower max_nodes, "
                            "max_edges or dim in a fit, or shorten the row."
                        )
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                    continue
                done += len(part)
                yield used

    def _used(self, rows: Sequence[TokenizedSample], use: Callable[[GraphBatch], T]) -> T | Failure:
        """What `use` gives for the rows; a `Failure`, with nothing of it left in memory, if that is short."""
        try:
            return use(self.collate(rows))
        except Exception as error:
            if not out_of_memory(error):
                raise
            return Failure.of(IDLE, error)


def _as_it_is(batch: Any) -> Any:
    return batch

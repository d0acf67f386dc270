"""Tokenized rows → batches, in an order and with modality dropout that depend on nothing but counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from graphfusion.data import Budget, counted_rng, pack, shuffled
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.modalities import Modality, TokenizedSample
from graphfusion.tasks import Task


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


class NoisyRows(Dataset[TokenizedSample]):
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

    def epoch(self, seed: int, epoch: int, workers: int) -> DataLoader[GraphBatch]:
        """Training batches of an epoch; any number of workers gives the same ones."""
        rows: Any = NoisyRows(self.rows, self.noise, seed, epoch)
        pin = torch.cuda.is_available()
        return DataLoader(
            rows, batch_sampler=self.plan(seed, epoch), collate_fn=self.collate, num_workers=workers, pin_memory=pin
        )

    def in_order(self) -> Iterator[GraphBatch]:
        """All rows, in order."""
        for batch in pack(range(len(self.rows)), self.nodes, self.edges, self.budget):
            yield self.collate([self.rows[i] for i in batch])

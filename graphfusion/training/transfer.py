"""Batches on their way to a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graphfusion.training.rows import Failure, Parts


def ahead(batches: Iterator[Parts | Failure], device: torch.device) -> Iterator[Parts | Failure]:
    """The batches, on a GPU each copied while the one before it is at work: one more is in its memory. On a CPU as they are."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: list[tuple[Parts | Failure, torch.cuda.Event]] = []
    for batch in batches:
        here = torch.cuda.current_stream(device)
        with torch.cuda.stream(stream):
            # memory that an earlier batch gave back may still be read by what is queued here
            stream.wait_stream(here)
            moved = batch if isinstance(batch, Failure) else [part.to(device, non_blocking=True) for part in batch]
            waiting.append((moved, stream.record_event()))
        if len(waiting) > 1:
            yield _arrived(*waiting.pop(0), device)
    for moved, event in waiting:
        yield _arrived(moved, event, device)


def _arrived(batch: Parts | Failure, event: torch.cuda.Event, device: torch.device) -> Parts | Failure:
    torch.cuda.current_stream(device).wait_event(event)
    return batch

"""Rows of several node types as one packed sequence a sample.

Letters: `N` nodes of all types, `B` samples, `D` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphfusion.graph_builder import NodeStore


@dataclass(frozen=True)
class Packing:
    """`order` (N,): which row, counted over all types one after the other, stands where; `ptr` (B + 1,): first row of each
    sample; `sizes`: rows of each type.
    """

    order: Tensor
    ptr: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, stores: Sequence[NodeStore]) -> Packing:
        """By sample, within it by type, within that as they are."""
        order = torch.cat([store.sample for store in stores]).argsort(stable=True)
        ptr = torch.stack([store.ptr for store in stores]).sum(0)
        return cls(order, ptr, tuple(len(store) for store in stores))

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows (n, D) of each type → (N, D)."""
        return torch.cat(list(parts)).index_select(0, self.order)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """(N, D) → rows of each type."""
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        return list(rows.index_select(0, back).split(self.sizes))  # type: ignore[no-untyped-call]

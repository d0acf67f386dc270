"""Modules by node type. Types are column names, which torch's own ModuleDict refuses when they hold a dot or clash
with a method (`type`, `keys`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn


class TypedModules(nn.Module):
    """An ordered mapping from any names to modules."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(modules)
        self.parts = nn.ModuleList(modules.values())

    def __getitem__(self, name: str) -> nn.Module:
        return self.parts[self.names.index(name)]

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) in order."""
        return zip(self.names, self.parts, strict=True)

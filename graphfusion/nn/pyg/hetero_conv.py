"""What stands in the place of a `HeteroConv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from graphfusion.nn.pyg.calls import Call, arguments_of, take
from graphfusion.nn.pyg.parts import Part, combine, run


class AcceleratedHeteroConv(nn.Module):
    """What `accelerate` puts in the place of a `HeteroConv`.

    Args:
        convs: relation → conv, a PyG `ModuleDict`; whatever cannot be taken runs as it is.
        aggr: as in `HeteroConv`.
    """

    def __init__(self, convs: nn.Module, aggr: str | None = "sum") -> None:
        super().__init__()
        self.convs = convs
        self.aggr = aggr

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for conv in self.convs.values():  # type: ignore[operator]
            conv.reset_parameters()

    def forward(self, *args_dict: Mapping[Any, Any], **kwargs_dict: Mapping[Any, Any]) -> dict[str, Tensor]:
        """x_dict, edge_index_dict, edge_attr_dict (see `accelerate`) → {target type: (N, features)}, as PyG gives it.

        A relation without edge-level arguments is skipped; a type that no relation reaches is not in the answer.
        """
        rows: dict[str, Tensor] = {}
        calls: list[Call] = []
        parts: list[Part] = []
        for place, (relation, conv) in enumerate(self.convs.items()):  # type: ignore[operator]
            given = arguments_of(relation, args_dict, kwargs_dict)
            if given is None:
                continue
            call = take(place, relation, conv, given, rows)
            if call is None:
                parts.append(Part(place, relation[2], conv(*given[0], **given[1])))
            else:
                calls.append(call)
        parts += run(calls, rows, merged=self.aggr in ("sum", "mean"))
        return combine(parts, self.aggr)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_relations={len(self.convs)})"  # type: ignore[arg-type]

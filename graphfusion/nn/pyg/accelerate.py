"""`accelerate`: the GAT relations of PyG's `HeteroConv` on one attention operator per group, with PyG's own parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from graphfusion.errors import ConfigError
from graphfusion.nn.pyg.convs import why_not
from graphfusion.nn.pyg.hetero_conv import AcceleratedHeteroConv


def accelerate(module: nn.Module) -> nn.Module:
    """An equal, faster module: in every `HeteroConv` of PyG that `module` is or holds, `GATConv` (Veličković et al. 2018)
    and `GATv2Conv` (Brody et al. 2022) run together, one operator for all relations of a kind. Convs outside a
    `HeteroConv` (`to_hetero` makes such) are not looked at; an accelerated module is given back as it is.

    The result is a structural copy that holds the same `Parameter` and buffer objects: optimisers, `state_dict` keys
    and `load_state_dict` work across both, and the original stays as it was, with a training flag and hooks of its own:
    call `train`, `eval` and `to` on the one that you use.
    It is called as the original is. x_dict[type] (N, D), edge_index_dict[relation] (2, E) int64 in any order,
    edge_attr_dict[relation] (E,) or (E, width) → {target type: (N, H·C)}, (N, C) for heads that are averaged.

    What cannot be taken is named in a warning and stays on PyG; so do, silently and for that call, relations whose
    arguments are unusual (attention weights asked for, sparse matrices, hooks on a conv, lazy weights at first call).
    What is derived from edges is kept while their tensors live and PyTorch's version counters say that they are
    unchanged; writing through `.data` or NumPy memory escapes those counters. First derivatives only: for second ones
    use the original.

    Raises:
        ConfigError: nothing in `module` can be accelerated, or it is no module.
        GraphError: (in a call) an edge names a node that is not there.
    """
    from torch_geometric.nn import HeteroConv

    if not isinstance(module, nn.Module):
        raise ConfigError(f"accelerate: expected a PyTorch module, got {module!r}.")
    memo = _kept_as_they_are(module)
    left: list[str] = []
    taken = 0
    for path, hetero in reversed(list(module.named_modules())):  # inner ones first, so that outer copies hold them
        if not isinstance(hetero, HeteroConv):
            continue
        where = f"{type(module).__name__}{'.' if path else ''}{path}"
        if type(hetero) is not HeteroConv or "forward" in vars(hetero):
            left.insert(0, f"{where}: {type(hetero).__name__} is no plain HeteroConv, its forward may differ")
            continue
        reasons = {relation: why_not(conv) for relation, conv in hetero.convs.items()}
        left[:0] = [f"{where} {relation}: {reason}" for relation, reason in reasons.items() if reason]
        if not all(reasons.values()):
            memo[id(hetero)] = _swapped(hetero, memo)
            taken += 1
    if not taken and any(isinstance(m, AcceleratedHeteroConv) for m in module.modules()):
        return module  # it has been here before
    if not taken:
        raise ConfigError(_nothing_in(module, left))
    if left:
        warnings.warn("accelerate: these stay on PyG:\n  " + "\n  ".join(left), stacklevel=2)
    result: nn.Module = copy.deepcopy(module, memo)
    return result


def _kept_as_they_are(module: nn.Module) -> dict[int, Any]:
    """The memo of a copy that shares parameters, buffers and linear maps that still wait for their width: those set
    `in_channels` in the module whose weight they make.
    """
    shared: list[Any] = [*module.parameters(), *module.buffers()]
    shared += [m for m in module.modules() if isinstance(getattr(m, "weight", None), nn.UninitializedParameter)]
    return {id(t): t for t in shared}


def _swapped(hetero: nn.Module, memo: dict[int, Any]) -> AcceleratedHeteroConv:
    like = copy.deepcopy(hetero, memo)
    fast = AcceleratedHeteroConv(like.convs, like.aggr)  # type: ignore[arg-type]
    vars(fast).update(vars(like))  # its training flag, hooks and whatever its owner has set on it
    return fast


def _nothing_in(module: nn.Module, left: Sequence[str]) -> str:
    found = "; ".join(left) if left else "no HeteroConv"
    return (
        f"accelerate: nothing to accelerate in {type(module).__name__}: found {found}. It takes PyG's HeteroConv "
        "over GATConv or GATv2Conv; use the module as it is, or put such a layer into it."
    )

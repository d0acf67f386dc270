"""PyG's convolutions as this package sees them: which can be taken, which map is which."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LINEARS = ("lin", "lin_src", "lin_dst", "lin_l", "lin_r", "lin_edge", "res")
_STEPS = ("forward", "message", "edge_update", "aggregate", "update", "propagate", "edge_updater")
_CALL_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MESSAGE_HOOKS = tuple(
    f"_{step}_forward{when}_hooks"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("", "_pre")
)


def why_not(conv: nn.Module) -> str:
    """Why a conv can never be taken; "" if it can."""
    from torch_geometric.nn import GATConv, GATv2Conv
    from torch_geometric.nn.dense.linear import Linear

    name = type(conv).__name__
    if type(conv) not in (GATConv, GATv2Conv):
        if isinstance(conv, GATConv | GATv2Conv):
            return f"{name} is a subclass, whose messages may differ"
        return f"{name} is neither GATConv nor GATv2Conv"
    c: Any = conv
    if getattr(c, "normalize", False):  # in PyG after 2.8: weights by attention and degree
        return f"{name} normalizes by degree"
    if set(_STEPS) & vars(c).keys():
        return f"{name} has a method of its own in place of the class's"
    if c.aggr not in ("add", "sum"):
        return f"it aggregates by {c.aggr!r}, expected 'add'"
    if c.flow != "source_to_target" or c.node_dim != 0 or c.decomposed_layers != 1:
        return f"flow {c.flow!r}, node_dim {c.node_dim}, decomposed_layers {c.decomposed_layers}, expected the defaults"
    odd = [n for n in _LINEARS if getattr(c, n, None) is not None and type(getattr(c, n)) is not Linear]
    return f"{odd[0]} is a {type(getattr(c, odd[0])).__name__}, expected PyG's Linear" if odd else ""


def runs_itself(conv: Any) -> bool:
    """Whether a conv's own forward must run in this call: somebody listens in, or weights have no width yet (which is a
    hook too), or everything is dropped.
    """
    if conv.explain or (conv.training and conv.dropout >= 1):
        return True
    if any(getattr(conv, name) for name in (*_CALL_HOOKS, *_MESSAGE_HOOKS)):
        return True
    linears = [m for m in conv._modules.values() if m is not None]
    return any(getattr(m, name) for m in linears for name in _CALL_HOOKS)


def source_map(conv: Any) -> Any:
    """The linear map of the sources."""
    return conv.lin_l if hasattr(conv, "lin_l") else conv.lin_src if conv.lin is None else conv.lin


def target_map(conv: Any) -> Any:
    """The linear map of the targets."""
    return conv.lin_r if hasattr(conv, "lin_l") else conv.lin_dst if conv.lin is None else conv.lin


def accepts(lin: Any, x: Any) -> bool:
    """Whether `lin(x)` is what it seems: rows of the right width and dtype."""
    if not isinstance(x, Tensor) or x.dim() != 2 or x.layout != torch.strided:
        return False
    low = torch.is_autocast_enabled(x.device.type) and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    same = x.dtype == lin.weight.dtype or (low and lin.weight.dtype == torch.float32)
    return same and x.shape[1] == lin.weight.shape[1] and x.device == lin.weight.device

"""Recurrent networks over packed sequences of any lengths, without padding.

Letters: `N` tokens, `S` sequences, `D` features, `W` width of the recurrence (all directions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from graphfusion.graph_builder.batch import owner_of_row


def run_recurrent(
    network: nn.LSTM | nn.GRU, x: Tensor, ptr: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """X (N, D), ptr (S + 1,) → states (N, W) and the last states (S, W), 0 for an empty sequence.

    In the dtype of the network's weights, under autocast too. `start`: (S, W) states before the first token; 0 without it. A
    network of one layer; `start` only for a GRU of one direction.
    """
    length = ptr.diff()
    order = length.argsort(descending=True, stable=True)
    kept = order[: int((length > 0).sum())]  # the longest first, as packed sequences want it
    weight = next(network.parameters())
    last = weight.new_zeros(len(length), network.hidden_size * (2 if network.bidirectional else 1))
    if not len(kept):
        return last[:0], last
    sequence = owner_of_row(ptr, len(x))
    step = torch.arange(len(x), device=x.device) - ptr[sequence]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=x.device)
    by_step = (step * len(order) + rank[sequence]).argsort()  # all first tokens, all second ones …
    sizes = torch.bincount(step).cpu()
    with torch.autocast(x.device.type, enabled=False):  # not every CPU has a recurrence in half precision
        packed = PackedSequence(x[by_step].to(last.dtype), sizes)
        states, final = network(packed, None if start is None else start[kept][None].contiguous())
    final = final[0] if isinstance(final, tuple) else final  # (directions, S, width)
    out = torch.empty_like(states.data)
    out[by_step] = states.data
    return out, last.index_put((kept,), final.transpose(0, 1).flatten(1))

"""Long sequences in segments: attention within a segment, a recurrent link from segment to segment and from layer to layer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphfusion.fusion.strategy import from_one, two_layers
from graphfusion.fusion.transformer import TransformerFusion
from graphfusion.graph_builder import GraphBuilder
from graphfusion.graph_builder.batch import owner_of_row
from graphfusion.nn import run_recurrent, segment_mean, self_plan


class SplitSequenceFusion(TransformerFusion):
    """`TransformerFusion` with its one sequence of all tokens split into segments of `segment` tokens (16), the last one shorter.

    In each layer: multi-head attention within a segment, H_k = A(X_k); a GRU (Cho et al. 2014) over the means of a sample's
    segments, u_k = GRU(mean H_k, u_{k−1}), which begins with the state in which the GRU of the layer before ended; and what it says
    of a segment, decoded by two layers, is added to its tokens, X_k ← H_k + f(u_k) (recurrence over segments as in Dai et al. 2019,
    Transformer-XL, and Hutchins et al. 2022, Block-recurrent Transformers). Attention costs n · segment instead of n².
    `feedforward`: hidden width of the attention's mlp; 0 for 4 · dim.

    Absent modality: no tokens; its readout is a learned vector.

    Raises:
        ConfigError: `segment` is below 1.
    """

    checks: ClassVar = {"segment": from_one}

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        feedforward: int = 0,
        segment: int = 16,
        **settings: Any,
    ) -> None:
        super().__init__(builder, dim, layers, heads, dropout, feedforward, **settings)
        from_one("segment", segment)
        self.segment = segment
        self.links = nn.ModuleList(nn.GRU(dim, dim) for _ in range(layers))
        self.decoders = nn.ModuleList(two_layers(dim, dim, dropout) for _ in range(layers))

    def through(self, x: Tensor, ptr: Tensor) -> Tensor:
        """See `TransformerFusion`."""
        tokens, segments = split(ptr, len(x), self.segment)
        plan, owner = self_plan(len(x), tokens), owner_of_row(tokens, len(x))
        state: Tensor | None = None
        for layer, link, decode in zip(self.layers, self.links, self.decoders, strict=True):
            x = layer(x, plan)
            said, state = run_recurrent(link, segment_mean(x, tokens), segments, state)  # type: ignore[arg-type]
            x = x + decode(said)[owner]
        return x


def split(ptr: Tensor, rows: int, segment: int) -> tuple[Tensor, Tensor]:
    """Sequences ptr (B + 1,) of `rows` tokens in all → first token of each segment (P + 1,), first segment of each sequence
    (B + 1,); a segment has `segment` tokens, the last one of a sequence 1 to `segment`.
    """
    place = torch.arange(rows, device=ptr.device) - ptr[owner_of_row(ptr, rows)]
    starts = (place % segment == 0).nonzero()[:, 0]
    counts = (ptr.diff() + segment - 1) // segment
    return torch.cat([starts, ptr[-1:]]), torch.cat([ptr[:1], counts.cumsum(0)])

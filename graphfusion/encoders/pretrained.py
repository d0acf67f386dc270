"""Encoders that hold a pretrained model. Letters: `N` tokens, `B` samples with tokens, `T` tokens of the longest.

Frozen (`tune=0`) it is a fixed function, without gradients and dropout. Statistics of batch normalisation stay those of the
checkpoint either way: a sample's features must not depend on the samples beside it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore
from graphfusion.modalities.backbone import grid_of, load_weights, make_backbone, padding_of, width_of


class PretrainedEncoder(nn.Module):
    """A linear map and a norm after the states of a pretrained model, which learns at `tune` times the learning rate.

    `config`: as `backbone.read_config` gives it; weights are fresh until `start_from` reads a checkpoint's, or a state is loaded.
    """

    kind = ""

    def __init__(self, dim: int, config: str, tune: float, width: int) -> None:
        super().__init__()
        self.config = config
        self.model = make_backbone(config, self.kind).requires_grad_(tune > 0)
        self.model.lr_share = tune  # type: ignore[assignment]  # read by make_optimizer
        self.projection = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)
        self.tuned = tune > 0
        self.train()

    def start_from(self, checkpoint: str) -> None:
        """Take the weights of a checkpoint; ConfigError if it lacks some."""
        load_weights(self.model, checkpoint, self.config, self.kind)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """As for every module, but for what the module's docstring says stays fixed."""
        super().train(mode)
        self.model.train(mode and self.tuned)
        for part in self.model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def gradients(self) -> AbstractContextManager[object]:
        """In which the model runs: nothing is kept for a backward pass through a frozen one."""
        return nullcontext() if self.tuned else torch.no_grad()

    def finish(self, states: Tensor) -> Tensor:
        """(N, width) → (N, dim)."""
        out: Tensor = self.norm(self.projection(states.to(self.projection.weight.dtype)))
        return out


class PretrainedTextEncoder(PretrainedEncoder):
    """Ids of tokens (N,) → (N, dim): the last hidden state of each."""

    kind = "text"

    def __init__(self, dim: int, config: str, tune: float = 0.0) -> None:
        super().__init__(dim, config, tune, width_of(config))
        self.padding = padding_of(config)

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        if not len(nodes):
            return self.projection.weight.new_zeros(0, self.projection.out_features)
        owner = torch.unique_consecutive(nodes.sample, return_inverse=True)[1]
        place = (owner, nodes.position[:, 0])
        shape = [int(index.max()) + 1 for index in place]
        ids = nodes.values.new_full(shape, self.padding)  # RoBERTa counts places by it
        ids[place] = nodes.values
        mask = torch.zeros_like(ids)
        mask[place] = 1
        with self.gradients():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.finish(states[place])


class PretrainedImageEncoder(PretrainedEncoder):
    """Patches (N, 3, p, p) at their places in a picture of `size` x `size` pixels → (N, dim): the last state of each cell. A patch
    that is not there is grey; states of the whole picture (a class token) are left out, readouts pool over the cells.
    """

    kind = "image"

    def __init__(self, dim: int, config: str, size: int, patch: int, tune: float = 0.0) -> None:
        self.side = size // patch
        super().__init__(dim, config, tune, grid_of(config, size)[1])

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        values = nodes.values
        if not len(nodes):
            return values.new_zeros(0, self.projection.out_features)
        owner = torch.unique_consecutive(nodes.sample, return_inverse=True)[1]
        place = (owner, *nodes.position.unbind(1))
        cells = values.new_zeros(int(owner.max()) + 1, self.side, self.side, *values.shape[1:])
        cells[place] = values
        pixels = cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        with self.gradients():
            states = self.model(pixel_values=pixels).last_hidden_state
        if states.dim() == 3:
            states = states[:, states.shape[1] - self.side**2 :].unflatten(1, (self.side, self.side))
        else:
            states = states.movedim(1, -1)
        return self.finish(states[place])

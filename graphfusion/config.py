"""The settings of a run, as frozen dataclasses and nothing else."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphfusion.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class ModelConfig:
    """The model: how inputs are encoded (extract), tied together (align) and combined (fuse).

    `encoders` names an encoder per kind of input, for example `{"image": "linear"}`; `graph` is a preset of relations, and
    `relations` (as `graph_builder.relation_to_dict` gives them) replaces it;
    `fusion` the strategy; `attention` the mode of a message-passing layer (`gat`, `gatv2` or `dot`), and
    `relation_attention` that of some relations by their name, for example `{"full": "dot"}`. `feedforward` is the width of
    hidden layers inside the fusion strategy; 0 leaves it to the strategy.
    """

    encoders: Mapping[str, str] = field(default_factory=dict)
    graph: str = "hub"
    relations: tuple[Mapping[str, Any], ...] = ()
    fusion: str = "graph"
    attention: str = "gatv2"  # until benchmarks/attention_modes.py has a table; see the README
    relation_attention: Mapping[str, str] = field(default_factory=dict)
    readout: str = "mean"
    dim: int = 64
    layers: int = 2
    heads: int = 4
    hubs: int = 2
    dropout: float = 0.1
    feedforward: int = 0


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is fitted (optimise).

    A batch holds at most `batch_size` samples, `max_nodes` nodes and `max_edges` edges; `accumulate` batches make one
    optimiser step. `augment` is the strength of random shifts and masks of training images and sounds (0: none).
    `modality_dropout` is the chance that a training sample loses a given modality (never all of them).
    `patience` is in epochs, `time_limit` in seconds (0: none), `warmup` a share of all steps.
    """

    optimizer: str = "adamw"
    epochs: int = 20
    batch_size: int = 64
    max_nodes: int = 16_384
    max_edges: int = 262_144
    accumulate: int = 1
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    precision: str = "no"
    label_smoothing: float = 0.0
    augment: float = 1.0
    modality_dropout: float = 0.1
    patience: int = 5
    time_limit: float = 0.0
    workers: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class RunConfig:
    """Everything that, with the rows, determines a fit."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal configuration back."""
        return {
            "model": dataclasses.asdict(self.model) | {"relations": [dict(r) for r in self.model.relations]},
            "training": dataclasses.asdict(self.training),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RunConfig:
        """Read what `to_dict` wrote; an unknown key or a value of the wrong type is refused by name."""
        for key in document:
            if key not in ("model", "training", "seed"):
                raise ConfigError(unknown_name("section", key, ("model", "training", "seed")))
        flat = {**document.get("model", {}), **document.get("training", {})}
        flat["relations"] = tuple(flat.get("relations", ()))
        return cls(seed=document.get("seed", 0)).override(flat)

    def override(self, settings: Mapping[str, Any]) -> RunConfig:
        """This configuration with some settings changed, given by their flat names.

        Raises:
            ConfigError: no setting has that name, or the value is of the wrong type or out of range.
        """
        model, training = typing.get_type_hints(ModelConfig), typing.get_type_hints(TrainingConfig)
        for name, value in settings.items():
            if name not in model and name not in training:
                raise ConfigError(unknown_name("setting", name, (*model, *training)))
            _check_type(name, value, {**model, **training}[name])
        return replace(
            self,
            model=replace(self.model, **{k: v for k, v in settings.items() if k in model}),
            training=replace(self.training, **{k: v for k, v in settings.items() if k in training}),
        )

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed: expected a whole number from 0, got {self.seed!r}.")
        values = {**vars(self.model), **vars(self.training)}
        for name in ("dim", "heads", "epochs", "batch_size", "max_nodes", "max_edges", "accumulate", "patience"):
            if values[name] < 1:
                raise ConfigError(f"{name}: expected a whole number from 1, got {values[name]}.")
        for name in ("dropout", "modality_dropout", "warmup", "label_smoothing"):
            if not 0 <= values[name] < 1:
                raise ConfigError(f"{name}: expected a number from 0 to below 1, got {values[name]}.")
        for name in ("layers", "hubs", "feedforward", "augment", "weight_decay", "clip", "time_limit", "workers"):
            if values[name] < 0:
                raise ConfigError(f"{name}: expected a number from 0, got {values[name]}.")
        if self.model.dim % self.model.heads:
            raise ConfigError(f"dim: expected a multiple of heads={self.model.heads}, got {self.model.dim}.")


PRESETS: dict[str, RunConfig] = {
    "fast": RunConfig(),
    "accurate": RunConfig(
        model=ModelConfig(dim=128, layers=3, heads=8),
        training=TrainingConfig(epochs=40, lr=1e-3, patience=8),
    ),
}


def _check_type(name: str, value: Any, expected: Any) -> None:
    base = typing.get_origin(expected) or expected
    allowed = (int, float) if base is float else (base,)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise ConfigError(f"{name}: expected {base.__name__}, got {value!r}.")

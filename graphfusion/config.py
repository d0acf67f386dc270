"""The settings of a run, as frozen dataclasses and nothing else."""

from __future__ import annotations

import dataclasses
import math
import types
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
    hidden layers inside the fusion strategy; 0 leaves it to the strategy. `readout` says how the nodes of a type become one
    vector: `mean`, `attention` (a learned share each) or `hub` (from the hub nodes alone).
    `fusion_options` are those that a strategy has beside these, for example `{"segment": 8}` of `split_sequence` or
    `{"alpha": {"title": 2.0, "photo": 1.0}}` of `weighted_sum`.
    """

    encoders: Mapping[str, str] = field(default_factory=dict)
    graph: str = "hub"
    relations: tuple[Mapping[str, Any], ...] = ()
    fusion: str = "graph"
    fusion_options: Mapping[str, Any] = field(default_factory=dict)
    attention: str = "gat"
    relation_attention: Mapping[str, str] = field(default_factory=dict)
    readout: str = "mean"
    dim: int = 64
    layers: int = 2
    heads: int = 4
    hubs: int = 2
    dropout: float = 0.1
    feedforward: int = 0


MOST_NODES, MOST_EDGES = 16_384, 262_144
"""Of a batch, where nothing else is said."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is fitted (optimise).

    A batch holds at most `batch_size` samples, `max_nodes` nodes and `max_edges` edges (0: what half of the memory takes that
    is free on the GPU, as measured on a first batch; on a CPU the defaults), and a row that is larger by itself is cut; strategies
    without edges know `max_nodes` alone, however many pairs of tokens they look at. `accumulate` batches make one optimiser step;
    `clip` bounds the norm of its gradient (0: no bound).
    `augment` is the strength of random shifts and masks of training images and sounds (0: none). `modality_dropout` is the
    chance that a training sample loses a given modality (never all of them). `patience` is in epochs (0: no end), `time_limit` in
    seconds (0: none), `warmup` a share of all steps. `save_every`: seconds between checkpoints within an epoch, beside the one at
    its end. `worker_timeout`: seconds after which a worker of the loader that gives nothing counts as hanging. `deterministic`: on
    a GPU too, the same fit gives the same bits, at some cost in speed; on a CPU it does anyway.
    """

    optimizer: str = "adamw"
    epochs: int = 20
    batch_size: int = 64
    max_nodes: int = MOST_NODES
    max_edges: int = MOST_EDGES
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
    worker_timeout: float = 300.0
    save_every: float = 900.0
    device: str = "auto"
    deterministic: bool = False


POLICIES = ("error", "skip", "missing")
"""What a cell that cannot be read does: stop, leave its row out, or count as missing."""
FREE = ("time_limit", "workers", "worker_timeout", "save_every", "device", "deterministic")
"""Training settings that do not change what a fit gives; a resumed fit may have others."""


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
        flat = settings_of({key: value for key, value in document.items() if key != "seed"})
        return cls(seed=document.get("seed", 0)).override(flat)

    def override(self, settings: Mapping[str, Any]) -> RunConfig:
        """This configuration with some settings changed, given by their flat names.

        Raises:
            ConfigError: no setting has that name, or the value is of the wrong type or out of range.
        """
        model, training = typing.get_type_hints(ModelConfig), typing.get_type_hints(TrainingConfig)
        checked: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in model and name not in training:
                raise ConfigError(unknown_name("setting", name, (*model, *training)))
            checked[name] = check_value(name, value, {**model, **training}[name])
        return replace(
            self,
            model=replace(self.model, **{k: v for k, v in checked.items() if k in model}),
            training=replace(self.training, **{k: v for k, v in checked.items() if k in training}),
        )

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed: expected a whole number from 0, got {self.seed!r}.")
        values = {**vars(self.model), **vars(self.training)}
        for name in ("dim", "heads", "epochs", "batch_size", "accumulate"):
            if values[name] < 1:
                raise ConfigError(f"{name}: expected a whole number from 1, got {values[name]}.")
        for name in ("dropout", "modality_dropout", "warmup", "label_smoothing"):
            if not 0 <= values[name] < 1:
                raise ConfigError(f"{name}: expected a number from 0 to below 1, got {values[name]}.")
        for name in (
            "lr",
            "layers",
            "hubs",
            "max_nodes",
            "max_edges",
            "feedforward",
            "patience",
            "augment",
            "weight_decay",
            "clip",
            *FREE,
        ):
            if name != "device" and values[name] < 0:
                raise ConfigError(f"{name}: expected a number from 0, got {values[name]}.")
        if self.model.dim % self.model.heads:
            raise ConfigError(f"dim: expected a multiple of heads={self.model.heads}, got {self.model.dim}.")


SECTIONS = {
    section: tuple(f.name for f in dataclasses.fields(kind))
    for section, kind in (("model", ModelConfig), ("training", TrainingConfig))
}
"""Section of a configuration → its settings."""
PRESETS: dict[str, RunConfig] = {
    "fast": RunConfig(),
    "accurate": RunConfig(
        model=ModelConfig(dim=128, layers=3, heads=8),
        training=TrainingConfig(epochs=40, lr=1e-3, patience=8),
    ),
}


def settings_of(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their flat names from `{"model": {…}, "training": {…}}`.

    Raises:
        ConfigError: there is no section, or no setting in that section, of this name.
    """
    flat: dict[str, Any] = {}
    for section, settings in sections.items():
        if section not in SECTIONS:
            raise ConfigError(unknown_name("section", section, SECTIONS))
        for name in check_value(section, settings, Mapping[str, Any]):
            if name not in SECTIONS[section]:
                other = next((s for s, names in SECTIONS.items() if name in names), None)
                if other:
                    raise ConfigError(f"{section}: {name!r} is a setting of {other}; write it there.")
                raise ConfigError(f"{section}: {unknown_name('setting', name, SECTIONS[section])}")
        flat |= settings
    return flat


def check_value(name: str, value: Any, expected: Any) -> Any:
    """The value of the setting `name` if it fits the type hint `expected`, with lists as tuples.

    Raises:
        ConfigError: it does not; the message says what to write instead, as it is written in YAML.
    """
    base, inner = typing.get_origin(expected) or expected, typing.get_args(expected)
    if types.NoneType in inner:  # an option that need not be given
        return value if value is None else check_value(name, value, inner[0])
    if base is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name}: expected a mapping, got {described(value)}; write {{name: value}}.")
        return {key: check_value(f"{name}.{key}", item, inner[1]) for key, item in value.items()}
    if base is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: expected a list, got {described(value)}; write [value, value].")
        return tuple(check_value(f"{name}[{i}]", item, inner[0]) for i, item in enumerate(value))
    kinds = inner or (base,)
    if Any in kinds or any(_fits(value, kind) for kind in kinds):
        return value
    what = " or ".join(_KINDS[kind] for kind in kinds)
    raise ConfigError(f"{name}: expected {what}, got {described(value)}{_instead(value, kinds[0])}.")


def described(value: Any) -> str:
    """A value as a reader of YAML knows it."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value if len(value) <= 60 else value[:59] + '…'!r}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, list(value)[:5])) or 'nothing in it'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_WORDS = {"true": ("yes", "on", "y", "true", "1"), "false": ("no", "off", "n", "false", "0")}


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _instead(value: Any, kind: Any) -> str:
    """What to write in place of a value of the wrong type, where it is plain what was meant."""
    text = str(value).strip()
    if kind is bool:
        return next((f"; write {word}" for word, known in _WORDS.items() if text.lower() in known), "")
    if kind is str:
        return f"; write '{described(value)}' in quotes" if isinstance(value, bool | int | float) else ""
    try:
        number = math.nan if isinstance(value, bool) else float(text)
    except ValueError:
        return ""
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return ""
    quotes = " without quotes" if isinstance(value, str) else ""
    return f"; write {int(number) if kind is int else f'{number:g}'}{quotes}"

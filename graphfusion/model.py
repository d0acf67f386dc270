"""Encoders, graph, fusion and tasks as one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from graphfusion.config import ModelConfig, check_value
from graphfusion.encoders import EmbeddingEncoder, make_encoder
from graphfusion.errors import ConfigError, unknown_name
from graphfusion.fusion import FUSIONS, FusedGraph, FusionStrategy, options_of
from graphfusion.fusion.strategy import SETTINGS, ignored_by
from graphfusion.graph_builder import HUB, EdgeType, GraphBatch, GraphBuilder, graph_preset, relation_from_dict
from graphfusion.modalities import Modality
from graphfusion.nn import TypedModules
from graphfusion.schema import column_of


class FusionModel(nn.Module):
    """extract (encoders) → align (the batch's relations) → fuse → tasks.

    Args:
        encoders: node type → module, `forward(NodeStore) -> (N, dim)`; the hub's included.
        fusion: `forward(GraphBatch, features) -> FusedGraph`.
        tasks: target → task.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: nn.Module, tasks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = TypedModules(encoders)
        self.fusion = fusion
        self.tasks = TypedModules(tasks)

    def forward(self, batch: GraphBatch) -> FusedGraph:
        """Node states, a vector per modality, one vector per sample."""
        features = {name: encoder(batch.nodes[name]) for name, encoder in self.encoders.items()}
        fused: FusedGraph = self.fusion(batch, features)
        return fused

    def logits(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Target → logits, (B, K) of K classes or labels, (B,) of a number; (B, M, K + 1) of a vote (`VotingTask`)."""
        fused = self(batch)
        return {name: task(fused) for name, task in self.tasks.items()}

    def loss(self, batch: GraphBatch, shares: Mapping[str, float] | None = None) -> Tensor:
        """Sum of the losses of all targets, each over the samples that have it; each times its share, where `shares` says
        how much of a larger batch's targets this part holds.
        """
        logits = self.logits(batch)
        total: Tensor = sum(  # type: ignore[assignment]
            (shares[name] if shares else 1.0) * task.loss(logits[name], batch.targets[name])  # type: ignore[operator]
            for name, task in self.tasks.items()
        )
        return total


def make_builder(modalities: Mapping[str, Modality], config: ModelConfig) -> GraphBuilder:
    """The graph builder of a configuration: its relations, or its preset, over the layouts of fitted modalities; nodes alone where
    the fusion strategy looks at no edges.
    """
    layouts = {name: modality.node_type for name, modality in modalities.items()}
    read = {n: column_of(n, m) for n, m in modalities.items() if m.node_type.kind == "text"}
    one_text = [(a, b) for a in read for b in read if a != b and read[a] == read[b]]
    relations = [relation_from_dict(r) for r in config.relations] or graph_preset(config.graph, layouts, one_text)
    tied = any(HUB in (r.source, r.target) for r in relations)
    if tied and not config.hubs:
        raise ConfigError("hubs: expected 1 or more, since relations lead to hub nodes, got 0.")
    whole = GraphBuilder(layouts, relations, hubs=config.hubs)
    names = {relation.name for relation in whole.relations.values()}
    for name in config.relation_attention if names else ():  # a graph without edges has nothing to say it of
        if name not in names:
            raise ConfigError(f"relation_attention: {unknown_name('relation', name, names)}")
    return whole if _strategy(config).edges else GraphBuilder(layouts, [])


def make_model(
    modalities: Mapping[str, Modality], builder: GraphBuilder, tasks: Mapping[str, nn.Module], config: ModelConfig
) -> FusionModel:
    """The model of a configuration, with fresh weights from torch's generator.

    Raises:
        ConfigError: an encoder, fusion strategy, attention mode or readout of that name does not exist.
    """
    kinds = {m.node_type.kind for m in modalities.values()}
    for kind in config.encoders:
        if kind not in kinds:
            raise ConfigError(f"encoders: {unknown_name('kind of input', kind, kinds)}")
    encoders = {name: make_encoder(m, config.dim, config.encoders) for name, m in modalities.items()}
    if builder.hubs:
        encoders[HUB] = EmbeddingEncoder(config.dim, size=builder.hubs)
    fusion = _strategy(config)(
        builder,
        dim=config.dim,
        layers=config.layers,
        heads=config.heads,
        attention=_modes(builder, config),
        readout=config.readout,
        dropout=config.dropout,
        feedforward=config.feedforward,
        **strategy_options(config),
    )
    return FusionModel(encoders, fusion, tasks)


def vote_of(config: ModelConfig) -> str:
    """How tasks join the answers of modalities, empty where each answers from the unified representation."""
    return _strategy(config).vote


def strategy_options(config: ModelConfig) -> dict[str, Any]:
    """Options of the strategy; ConfigError for one that it does not have, or a value of the wrong type."""
    kind = _strategy(config)
    known = options_of(kind)
    found = {}
    for name, value in config.fusion_options.items():
        if name not in known:
            own = f" {name!r} is a setting of its own: write it without fusion_options." if name in SETTINGS else ""
            raise ConfigError(f"fusion_options: {unknown_name(f'option of {config.fusion}', name, known)}{own}")
        found[name] = check_value(f"fusion_options.{name}", value, known[name])
        if name in kind.checks:
            kind.checks[name](name, found[name])
    return found


def unused_settings(config: ModelConfig) -> dict[str, Any]:
    """The settings that differ from their defaults and change nothing for the fusion strategy: name → value."""
    values, usual, strategy = vars(config), vars(ModelConfig()), _strategy(config)
    unused = {n: values[n] for n in ignored_by(strategy) if values[n] != usual[n]}
    no_hubs = config.readout == "hub" and not strategy.edges  # it is taken as mean then
    return {**unused, "readout": "hub"} if no_hubs else unused


def _strategy(config: ModelConfig) -> type[FusionStrategy]:
    if config.fusion not in FUSIONS:
        raise ConfigError(unknown_name("fusion strategy", config.fusion, FUSIONS))
    return FUSIONS[config.fusion]


def _modes(builder: GraphBuilder, config: ModelConfig) -> dict[EdgeType, str]:
    """The attention mode of each edge type."""
    return {t: config.relation_attention.get(t[1], config.attention) for t in builder.edge_types}

"""All that a fit makes: learned from training rows, or read from the files of a saved predictor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from graphfusion.config import RunConfig
from graphfusion.data import Budget, Report, Table, counted_seed
from graphfusion.data.infer import infer_schema
from graphfusion.encoders import PretrainedEncoder
from graphfusion.errors import CheckpointError, ConfigError, SchemaError, unknown_name
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import (
    Modality,
    TokenizedSample,
    modalities_of,
    modality_from_dict,
    modality_to_dict,
    prepare,
)
from graphfusion.modalities.backbone import library
from graphfusion.modalities.pretrained_image import PretrainedImageModality
from graphfusion.modalities.pretrained_text import PretrainedTextModality
from graphfusion.model import FusionModel, make_builder, make_model, vote_of
from graphfusion.schema import Columns, Media, Schema
from graphfusion.tasks import TargetScale, learn_target, make_task
from graphfusion.training.cap import cap_rows
from graphfusion.training.checkpoint import as_checkpoint_error, from_json, tensors_of, to_json, to_safetensors
from graphfusion.training.memory import out_of_memory
from graphfusion.training.progress import FitProgress

DOCUMENT = "predictor.json"
WEIGHTS = "weights"


@dataclass(frozen=True)
class Pipeline:
    """All that a fit makes: `schema` with the classes filled in, fitted modalities, scales of number targets, the
    graph builder and the model.
    """

    schema: Schema
    modalities: Mapping[str, Modality]
    scales: Mapping[str, TargetScale | None]
    builder: GraphBuilder
    model: FusionModel

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Columns of each node type."""
        return {name: self.schema.columns_of(name) for name in self.modalities}

    @property
    def tasks(self) -> dict[str, Any]:
        """Target → task."""
        return dict(self.model.tasks.items())

    @classmethod
    def learn(
        cls,
        train: Table,
        targets: Sequence[str],
        columns: Schema | Columns,
        config: RunConfig,
    ) -> Pipeline:
        """Everything that is learned from training rows before the first step, and a fresh model.

        Raises:
            SchemaError: a target is not in the schema, or there is no input.
            CellError: a cell cannot be read.
            ConfigError: a pretrained model cannot be read.
        """
        schema = columns if isinstance(columns, Schema) else infer_schema(train, targets, columns)
        for name in targets:
            if name in schema.inputs:
                raise SchemaError(
                    f"target {name!r} is declared as an input ({schema.inputs[name].kind}): declare Class(), MultiLabel() or "
                    "Number(), or nothing."
                )
            if name not in schema.targets:
                raise SchemaError(f"target {name!r}: {unknown_name('target of the schema', name, schema.targets)}")
        for name, spec in schema.targets.items():
            if name not in targets:
                raise SchemaError(
                    f"column {name!r} is declared as a target ({spec.kind}), and the targets are "
                    f"{', '.join(map(repr, targets))}: add it to them, declare it as an input, or leave it out with None."
                )
        if not schema.inputs:
            raise SchemaError(f"the table has no input column beside the target {', '.join(targets)}.")
        raw = [sample.values for sample in train.samples(schema)]
        modalities = {name: m.fit(raw, train.root) for name, m in modalities_of(schema).items()}
        learned = {
            name: learn_target(name, spec, train.column(name), train.numbers) for name, spec in schema.targets.items()
        }
        schema = schema.override({name: spec for name, (spec, _) in learned.items()})
        scales = {name: scale for name, (_, scale) in learned.items()}
        pipeline = cls._with_fresh_model(schema, modalities, scales, make_builder(modalities, config.model), config)
        for name, encoder in pipeline.model.encoders.items():
            if isinstance(encoder, PretrainedEncoder):
                encoder.start_from(modalities[name].checkpoint)  # type: ignore[attr-defined]
        return pipeline

    @classmethod
    def _with_fresh_model(
        cls,
        schema: Schema,
        modalities: Mapping[str, Modality],
        scales: Mapping[str, TargetScale | None],
        builder: GraphBuilder,
        config: RunConfig,
    ) -> Pipeline:
        with own_randomness(config.seed, "weights"):
            options: dict[str, Any] = {
                "dim": config.model.dim,
                "label_smoothing": config.training.label_smoothing,
                "vote": vote_of(config.model),
                "modalities": tuple(modalities),
            }
            tasks = {name: make_task(name, spec, scales[name], **options) for name, spec in schema.targets.items()}
            try:
                model = make_model(modalities, builder, tasks, config.model)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                with torch.device("meta"):  # shapes alone
                    count = sum(p.numel() for p in make_model(modalities, builder, tasks, config.model).parameters())
                raise ConfigError(
                    f"a model of these settings has {count:,} parameters, more than memory holds: lower dim, layers, hubs, "
                    "feedforward or fusion_options."
                ) from error
            return cls(schema, modalities, scales, builder, model)

    def tokenize(
        self, table: Table, on_error: str, targets: bool, budget: Budget, progress: FitProgress | None = None
    ) -> tuple[list[TokenizedSample], Report]:
        """Tokenized rows, none larger than a batch may be, and what happened to each. `on_error`: see `prepare`."""
        samples = table.samples(self.schema, targets)
        done = progress.counter("reading rows", len(table)) if progress else lambda: None
        rows, report = prepare(samples, self.modalities, self.columns, table.root, on_error, done)
        for name, spec in self.schema.inputs.items():
            if isinstance(spec, Media):
                _warn_if_none_was_read(name, self.schema.column_of(name), table, report)
        rows, cut = cap_rows(rows, self.builder, budget)
        report.incidents += cut
        return rows, report

    def to_files(self, targets: Sequence[str], declared: Mapping[str, Any], config: RunConfig) -> dict[str, bytes]:
        """What `from_files` reads, with what the fit was told; `declared` as `declared_to_dict` gives it."""
        document = {
            "targets": list(targets),
            "declared": dict(declared),
            "config": config.to_dict(),
            "schema": self.schema.to_dict(),
            "modalities": {name: modality_to_dict(m) for name, m in self.modalities.items()},
            "scales": {name: scale and asdict(scale) for name, scale in self.scales.items()},
            "graph": self.builder.to_dict(),
        }
        return {DOCUMENT: to_json(document), f"{WEIGHTS}.safetensors": to_safetensors(self.model.state_dict())}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], config: RunConfig) -> Pipeline:
        """The fitted parts as `to_files` wrote them.

        Raises:
            CheckpointError: a file is missing or does not fit the others.
        """
        with as_checkpoint_error(DOCUMENT):
            document = document_of(files)
            pipeline = cls._with_fresh_model(
                Schema.from_dict(document["schema"]),
                {name: modality_from_dict(m) for name, m in document["modalities"].items()},
                {name: scale and TargetScale(**scale) for name, scale in document["scales"].items()},
                GraphBuilder.from_dict(document["graph"]),
                config,
            )
        _load_weights(pipeline.model, tensors_of(files, WEIGHTS), _other_library(pipeline.modalities))
        return pipeline


def _warn_if_none_was_read(name: str, column: str, table: Table, report: Report) -> None:
    """Many files that are all unreadable are not damaged: they are looked for in the wrong place."""
    cells = sum(cell is not None for cell in table.columns.get(column, ()))
    failed = [i for i in report.incidents if i.column == name and i.action != "cut"]
    if len(failed) == cells > 1:
        warnings.warn(
            f"none of the {cells} cells of column {column!r} can be read ({failed[0].reason.rstrip('.')}); is media_root= right?",
            stacklevel=4,
        )


@contextmanager
def own_randomness(seed: int, purpose: str) -> Iterator[None]:
    """Torch's global generators as they were, after what runs inside."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(counted_seed(seed, purpose))
        yield


def document_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The document of a saved predictor; CheckpointError if there is none."""
    if DOCUMENT not in files:
        raise CheckpointError(f"expected a saved predictor ({DOCUMENT}), found {', '.join(files)}.")
    document: dict[str, Any] = from_json(files[DOCUMENT], DOCUMENT)
    return document


def _check_dtypes(model: FusionModel, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:  # torch would cast it in silence
            raise CheckpointError(f"weight {name}: expected {tensor.dtype}, got {weights[name].dtype}.")


def _other_library(modalities: Mapping[str, Modality]) -> str:
    """Words for an error where pretrained models were read by another version of their library than is here."""
    used = {m.library for m in modalities.values() if isinstance(m, PretrainedTextModality | PretrainedImageModality)}
    if not used or used == {library()}:
        return ""
    return f" (fitted with {', '.join(sorted(used))}, here is {library()}: install that version)"


def _load_weights(model: FusionModel, weights: Mapping[str, Tensor], hint: str) -> None:
    _check_dtypes(model, weights)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit the model of predictor.json{hint}: {error}") from error

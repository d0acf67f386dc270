"""From a table to a trained model and back to answers: `FusionPredictor`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphfusion.config import PRESETS, RunConfig
from graphfusion.data import Budget, Report, Table, counted_seed, read_table, split_rows
from graphfusion.data.infer import infer_schema
from graphfusion.errors import CheckpointError, ConfigError, SchemaError, unknown_name
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.modalities import (
    Modality,
    TokenizedSample,
    modalities_of,
    modality_from_dict,
    modality_to_dict,
    prepare,
)
from graphfusion.model import FusionModel, make_builder, make_model
from graphfusion.schema import Input, Schema, Target
from graphfusion.tasks import Prediction, TargetScale, learn_target, make_task
from graphfusion.training import Batches, Collate, FitState, Noise, predict_logits, run_fit, score_logits, start_fit
from graphfusion.training.checkpoint import (
    from_json,
    from_safetensors,
    newest_folder,
    read_folder,
    remove_folder,
    to_json,
    to_safetensors,
    write_folder,
)
from graphfusion.training.optimizer import load_optimizer, optimizer_tensors
from graphfusion.training.progress import FitProgress, MetricsLog

ARTEFACT = "predictor"
"""Folder below `save_path` that holds the fitted predictor."""
SHOWN = 256
"""Rows that the summary of the graph counts."""


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


class FusionPredictor:
    """Fits a fusion model to a table and answers for new rows.

    Args:
        target: the column to predict, or several.
        preset: starting point of all settings: `fast` or `accurate`.
        seed: of every random choice.
        columns: what some columns are, where the inferred kind is not meant, for example `{"title": Text()}`.
        settings: any field of `ModelConfig` or `TrainingConfig` by its name, for example `epochs=5, graph="full"`.

    Raises:
        ConfigError: a preset or setting of that name does not exist, or a value is out of range.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        preset: str = "fast",
        seed: int = 0,
        columns: Mapping[str, Input | Target] | None = None,
        **settings: Any,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(unknown_name("preset", preset, PRESETS))
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        if not self.targets:
            raise ConfigError("target: expected a column name or several, got none.")
        self.columns = dict(columns or {})
        base = PRESETS[preset]
        self.config = RunConfig(base.model, base.training, seed).override(settings)
        self.history: list[dict[str, Any]] = []
        self.report: Report | None = None
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The fitted parts; ConfigError before a fit."""
        if self._pipeline is None:
            raise ConfigError("this predictor is not fitted yet: call fit(table) or FusionPredictor.load(path) first.")
        return self._pipeline

    @property
    def schema(self) -> Schema:
        """What the columns are taken for."""
        return self.pipeline.schema

    def fit(
        self,
        table: Any,
        valid: Any = 0.1,
        save_path: str | os.PathLike[str] | None = None,
        time_limit: float | None = None,
        resume: bool = False,
        on_error: str = "error",
        media_root: str | os.PathLike[str] | None = None,
        quiet: bool = False,
    ) -> FusionPredictor:
        """Fit to a table (see `read_table`) and keep the weights that are best on validation rows.

        `valid` is a share of the rows, a table of its own, or None. With `save_path`, that folder receives the
        predictor, checkpoints, `metrics.jsonl` and TensorBoard files; `resume` goes on from its last checkpoint.
        `time_limit` is in seconds. `on_error`: see `modalities.prepare`. `media_root`: see `read_table`.

        Raises:
            TableError, SchemaError, CellError: the rows cannot be used; the message names row and column.
        """
        if time_limit is not None:
            self.config = self.config.override({"time_limit": time_limit})
        folder = Path(save_path) if save_path else None
        if resume and folder is None:
            raise ConfigError("resume=True needs the save_path of the fit to go on with.")
        read = read_table(table, media_root)
        if not len(read):
            raise SchemaError("the table has no rows.")
        train, held = _split(read, valid, self.config.seed, media_root)
        files = self._newest_checkpoint(folder) if resume and folder else None
        with FitProgress(self.config.training.epochs, quiet) as progress, _own_randomness(self.config.seed):
            pipeline = self._restore(files) if files else self._make_pipeline(train)
            progress.say(f"{len(train)} training rows\n{pipeline.schema}")
            rows, self.report = _tokenize(pipeline, train, on_error, True, progress)
            held_rows, held_report = _tokenize(pipeline, held, on_error, True, progress) if held else ([], Report())
            progress.say(f"read: {self.report}" + (f"\nvalidation: {held_report}" if held else ""))
            if not rows:
                raise SchemaError("no row is left to train on.")
            self.history = self._train(pipeline, rows, held_rows, folder, files, progress).history
        self._pipeline = pipeline
        if folder:
            self.save(folder / ARTEFACT)
        return self

    def _train(
        self,
        pipeline: Pipeline,
        rows: Sequence[TokenizedSample],
        held: Sequence[TokenizedSample],
        folder: Path | None,
        files: Mapping[str, bytes] | None,
        progress: FitProgress,
    ) -> FitState:
        """Fit the pipeline's model, from a checkpoint's `files` if there are any."""
        training = self.config.training
        progress.say(pipeline.builder.summary([r.tokens for r in rows[:SHOWN]]))
        count = sum(p.numel() for p in pipeline.model.parameters())
        progress.say(f"model: {self.config.model.fusion}, {count:,} parameters")
        budget, collate = self._budget(), Collate(pipeline.builder, pipeline.tasks)
        noise = Noise(pipeline.modalities, training.modality_dropout, training.augment)
        fit = start_fit(pipeline.model, training, self.config.seed)
        state = _fit_state(files, fit.optimizer) if files else FitState()
        log = MetricsLog(folder, state.epoch)
        state = run_fit(
            fit,
            Batches.of(rows, budget, collate, noise),
            Batches.of(held, budget, collate) if held else None,
            state,
            log,
            progress,
            save=lambda s: self._save_checkpoint(pipeline, folder, s, fit.optimizer),
        )
        log.close()
        return state

    def predict(self, table: Any, **options: Any) -> Any:
        """One entry per row: a class, a list of labels or a number; with several targets a mapping of such lists.

        Options: `without` (modalities to withhold), `on_error` (a row left out by `skip` gives None), `media_root`.
        """
        return self._single({name: p.output for name, p in self._predictions(table, **options).items()})

    def predict_proba(self, table: Any, **options: Any) -> Any:
        """Probabilities (rows, classes), classes in the order of the schema; NaN in a row left out. Options: see `predict`.

        Raises:
            SchemaError: the target is a number.
        """
        found = self._predictions(table, **options)
        for name, prediction in found.items():
            if prediction.probability is None:
                raise SchemaError(f"target {name!r} is a number and has no probabilities; use predict.")
        return self._single({name: p.probability for name, p in found.items()})

    def evaluate(self, table: Any, **options: Any) -> dict[str, Any]:
        """Metrics over the rows that have the target; `name/metric` with several targets. Options: see `predict`."""
        rows, _, report = self._rows(table, targets=True, **options)
        if not rows:
            raise SchemaError(f"no row is left to evaluate on: {report}")
        logits = predict_logits(self.pipeline.model, self._batches(rows))
        targets = {n: task.encode([r.targets[n] for r in rows]) for n, task in self.pipeline.tasks.items()}
        return score_logits(self.pipeline.model, logits, targets)

    def embed(self, table: Any, **options: Any) -> NDArray[np.float32]:
        """The unified representation (rows, dim); NaN in a row left out. Options: see `predict`."""
        rows, count, _ = self._rows(table, targets=False, **options)
        model = self.pipeline.model.eval()
        with torch.no_grad():
            parts = [model(batch).unified.float().cpu().numpy() for batch in self._batches(rows)]
        out = np.full((count, self.config.model.dim), np.nan, np.float32)
        if rows:
            out[[r.id for r in rows]] = np.concatenate(parts)
        return out

    def graph(self, table: Any, **options: Any) -> GraphBatch:
        """The rows as one `GraphBatch`, on the CPU. Options: see `predict`."""
        rows, _, _ = self._rows(table, targets=False, **options)
        return Collate(self.pipeline.builder, {})(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted predictor to a folder, replacing one that is there in one step."""
        write_folder(Path(path), {**self._documents(self.pipeline), **_weights(self.pipeline.model)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FusionPredictor:
        """Read what `save` wrote, or the `save_path` of a fit. Weights lie on the CPU; nothing that is read is run.

        Raises:
            CheckpointError: the folder is not there, incomplete, altered or of another version.
        """
        folder = Path(path)
        if (folder / ARTEFACT).is_dir():
            folder = folder / ARTEFACT
        files = read_folder(folder)
        document = _document(files)
        predictor = cls(document["targets"])
        predictor.config = RunConfig.from_dict(document["config"])
        predictor._pipeline = predictor._restore(files)
        return predictor

    def _make_pipeline(self, train: Table) -> Pipeline:
        """Everything that is learned from training rows before the first step, and a fresh model."""
        schema = infer_schema(train, self.targets, self.columns)
        if not schema.inputs:
            raise SchemaError(f"the table has no input column beside the target {', '.join(self.targets)}.")
        raw = [sample.values for sample in train.samples(schema)]
        modalities = {name: m.fit(raw, train.root) for name, m in modalities_of(schema).items()}
        learned = {name: learn_target(name, spec, train.column(name)) for name, spec in schema.targets.items()}
        schema = schema.override({name: spec for name, (spec, _) in learned.items()})
        scales = {name: scale for name, (_, scale) in learned.items()}
        builder = make_builder(modalities, self.config.model)
        return self._with_model(schema, modalities, scales, builder)

    def _with_model(
        self,
        schema: Schema,
        modalities: Mapping[str, Modality],
        scales: Mapping[str, TargetScale | None],
        builder: GraphBuilder,
    ) -> Pipeline:
        model, training = self.config.model, self.config.training
        torch.manual_seed(counted_seed(self.config.seed, "weights"))
        tasks = {
            name: make_task(name, spec, scales[name], model.dim, training.label_smoothing)
            for name, spec in schema.targets.items()
        }
        return Pipeline(schema, modalities, scales, builder, make_model(modalities, builder, tasks, model))

    def _rows(
        self,
        table: Any,
        targets: bool,
        without: Sequence[str] = (),
        on_error: str = "error",
        media_root: str | os.PathLike[str] | None = None,
    ) -> tuple[list[TokenizedSample], int, Report]:
        """Tokenized rows, the number of rows in the table, and the report."""
        for name in without:
            if name not in self.pipeline.modalities:
                raise ConfigError(f"without: {unknown_name('modality', name, self.pipeline.modalities)}")
        read = replace(read_table(table, media_root), numbers=())  # answers line up with the rows as given
        rows, report = _tokenize(self.pipeline, read, on_error, targets)
        return [r.without(frozenset(without)) for r in rows], len(read), report

    def _batches(self, rows: Sequence[TokenizedSample]) -> Iterator[GraphBatch]:
        device = next(self.pipeline.model.parameters()).device
        collate = Collate(self.pipeline.builder, {})
        return (b.to(device) for b in Batches.of(rows, self._budget(), collate).in_order())

    def _predictions(self, table: Any, **options: Any) -> dict[str, Prediction]:
        """Target → prediction with one entry per row of the table."""
        rows, count, _ = self._rows(table, targets=False, **options)
        if not rows:
            return {name: _aligned(None, [], count, task) for name, task in self.pipeline.tasks.items()}
        logits = predict_logits(self.pipeline.model, self._batches(rows))
        ids = [r.id for r in rows]
        return {n: _aligned(task.predict(logits[n]), ids, count, task) for n, task in self.pipeline.tasks.items()}

    def _single(self, found: Mapping[str, Any]) -> Any:
        return found[self.targets[0]] if len(self.targets) == 1 else dict(found)

    def _budget(self) -> Budget:
        training = self.config.training
        return Budget(training.batch_size, training.max_nodes, training.max_edges)

    def _documents(self, pipeline: Pipeline) -> dict[str, bytes]:
        document = {
            "targets": list(self.targets),
            "config": self.config.to_dict(),
            "schema": pipeline.schema.to_dict(),
            "modalities": {name: modality_to_dict(m) for name, m in pipeline.modalities.items()},
            "scales": {name: scale and asdict(scale) for name, scale in pipeline.scales.items()},
            "graph": pipeline.builder.to_dict(),
        }
        return {"predictor.json": to_json(document)}

    def _restore(self, files: Mapping[str, bytes]) -> Pipeline:
        document = _document(files)
        pipeline = self._with_model(
            Schema.from_dict(document["schema"]),
            {name: modality_from_dict(m) for name, m in document["modalities"].items()},
            {name: scale and TargetScale(**scale) for name, scale in document["scales"].items()},
            GraphBuilder.from_dict(document["graph"]),
        )
        _load_weights(pipeline.model, _tensors(files, "weights"))
        return pipeline

    def _save_checkpoint(
        self, pipeline: Pipeline, folder: Path | None, state: FitState, optimizer: torch.optim.Optimizer
    ) -> None:
        """A checkpoint of the last epoch; older ones go once it is whole."""
        if folder is None:
            return
        path = folder / "checkpoints" / f"epoch-{state.epoch:05}"
        progress = {k: getattr(state, k) for k in ("epoch", "step", "best_epoch", "score", "history", "stopped")}
        files = {
            **self._documents(pipeline),
            **_weights(pipeline.model),
            "best.safetensors": to_safetensors(state.best_weights),
            "optimizer.safetensors": to_safetensors(optimizer_tensors(optimizer)),
            "fit.json": to_json(progress),
        }
        write_folder(path, files)
        for older in path.parent.glob("epoch-*"):
            if older != path:
                remove_folder(older)

    def _newest_checkpoint(self, folder: Path) -> dict[str, bytes] | None:
        """The files of the last whole checkpoint below `folder`; ConfigError if it is of other settings."""
        path = newest_folder(folder / "checkpoints", "epoch-*")
        if path is None:
            return None
        files = read_folder(path)
        saved, mine = _document(files)["config"], self.config.to_dict()
        for free in ("time_limit", "workers", "device"):
            saved["training"][free] = mine["training"][free]
        for section in ("model", "training", "seed"):
            if saved[section] != mine[section]:
                raise ConfigError(f"resume: {path} was fitted with {section}={saved[section]}, now {mine[section]}.")
        return files


def _tokenize(
    pipeline: Pipeline, table: Table, on_error: str, targets: bool, progress: FitProgress | None = None
) -> tuple[list[TokenizedSample], Report]:
    samples = table.samples(pipeline.schema, targets)
    done = progress.counter("reading rows", len(table)) if progress else lambda: None
    return prepare(samples, pipeline.modalities, pipeline.columns, table.root, on_error, done)


def _weights(model: FusionModel) -> dict[str, bytes]:
    return {"weights.safetensors": to_safetensors(model.state_dict())}


def _split(table: Table, valid: Any, seed: int, root: str | os.PathLike[str] | None) -> tuple[Table, Table | None]:
    if valid is None:
        return table, None
    if isinstance(valid, int | float):
        first, second = split_rows(len(table), float(valid), seed)
        return table.take(first), table.take(second)
    return table, read_table(valid, root)


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Torch's global generators as they were, after what runs inside."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(counted_seed(seed, "fit"))
        yield


def _aligned(prediction: Prediction | None, ids: Sequence[int], count: int, task: Any) -> Prediction:
    """A prediction with an entry for every row of the table: None (NaN) where the row was left out."""
    output: list[Any] = [None] * count
    classes = getattr(task, "classes", None)
    probability = None if classes is None else np.full((count, len(classes)), np.nan, np.float32)
    if prediction is not None:
        for i, value in zip(ids, prediction.output, strict=True):
            output[i] = value
        if probability is not None:
            probability[list(ids)] = prediction.probability
    return Prediction(output, probability)


def _document(files: Mapping[str, bytes]) -> dict[str, Any]:
    if "predictor.json" not in files:
        raise CheckpointError(f"expected a saved predictor (predictor.json), found {', '.join(files)}.")
    document: dict[str, Any] = from_json(files["predictor.json"], "predictor.json")
    return document


def _tensors(files: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    return from_safetensors(files[f"{name}.safetensors"], f"{name}.safetensors")


def _load_weights(model: FusionModel, weights: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit the model of predictor.json: {error}") from error


def _fit_state(files: Mapping[str, bytes], optimizer: torch.optim.Optimizer) -> FitState:
    progress = from_json(files["fit.json"], "fit.json")
    load_optimizer(optimizer, _tensors(files, "optimizer"))
    score = tuple(progress.pop("score"))
    return FitState(**progress, score=score, best_weights=_tensors(files, "best"))  # type: ignore[arg-type]

"""From a table to a trained model and back to answers: `FusionPredictor`."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphfusion.config import FREE, PRESETS, RunConfig
from graphfusion.data import Budget, Incident, Report, Table, counted_seed, read_table, split_rows
from graphfusion.data.infer import infer_schema
from graphfusion.encoders import ENCODERS
from graphfusion.errors import CheckpointError, ConfigError, SchemaError, unknown_name
from graphfusion.fusion import FUSIONS
from graphfusion.graph_builder import GRAPHS, GraphBatch, GraphBuilder, Relation, relation_from_dict, relation_to_dict
from graphfusion.modalities import (
    Modality,
    TokenizedSample,
    modalities_of,
    modality_from_dict,
    modality_to_dict,
    prepare,
)
from graphfusion.model import FusionModel, make_builder, make_model
from graphfusion.nn import READOUTS
from graphfusion.ops.hetero_attention import MODES
from graphfusion.schema import TABLE, Audio, Class, Image, Input, MultiLabel, Schema, Tabular, Target, Text, Video
from graphfusion.tasks import Prediction, TargetScale, learn_target, make_task
from graphfusion.training import (
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    Batches,
    Collate,
    Fit,
    FitState,
    Noise,
    Surroundings,
    predict_logits,
    run_fit,
    score_logits,
    start_fit,
)
from graphfusion.training.cap import cap_rows
from graphfusion.training.checkpoint import (
    MANIFEST,
    as_checkpoint_error,
    check_replaceable,
    from_json,
    from_safetensors,
    newest_folder,
    prepare_folder,
    read_folder,
    recover,
    remove_folder,
    to_json,
    to_safetensors,
    write_file,
    write_folder,
)
from graphfusion.training.optimizer import load_optimizer, optimizer_tensors
from graphfusion.training.progress import FitProgress, MetricsLog

CHECKPOINTS = "step-*"
INCIDENTS = "incidents.jsonl"
ARTEFACT = "predictor"
"""Folder below `save_path` that holds the fitted predictor."""
SHOWN = 256
"""Rows that the summary of the graph counts."""


@dataclass(frozen=True)
class Job:
    """What one fit works on: training and validation rows, where it writes, the checkpoint it goes on from; whether it
    leaves out rows that fail.
    """

    rows: Sequence[TokenizedSample]
    held: Sequence[TokenizedSample]
    folder: Path | None
    files: Mapping[str, bytes] | None
    deadline: float
    skip: bool


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
        columns: what some columns are, where the inferred kind is not meant, for example `{"title": Text()}`; None leaves a
            column out. A whole `Schema` switches inference off.
        relations: relation policies (`graph_builder`), or what `relation_to_dict` makes of them, in place of the preset
            `graph`.
        settings: any field of `ModelConfig` or `TrainingConfig` by its name, for example `epochs=5, graph="full"`.

    Raises:
        ConfigError: a preset or setting of that name does not exist, or a value is out of range.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        preset: str = "fast",
        seed: int = 0,
        columns: Mapping[str, Input | Target | None] | Schema | None = None,
        relations: Sequence[Relation | Mapping[str, Any]] = (),
        **settings: Any,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(unknown_name("preset", preset, PRESETS))
        self.targets = (target,) if isinstance(target, str) else tuple(target or ())
        if not self.targets or not all(isinstance(name, str) for name in self.targets):
            raise ConfigError(f"target: expected a column name or several, got {target or 'none'}.")
        self.columns = columns if isinstance(columns, Schema) else dict(columns or {})
        if relations:
            settings["relations"] = tuple(r if isinstance(r, Mapping) else relation_to_dict(r) for r in relations)
        base = PRESETS[preset]
        self.config = RunConfig(base.model, base.training, seed).override(settings)
        _check_names(self.config)
        self.history: list[dict[str, Any]] = []
        self.report: Report | None = None
        """Account of the rows of the table of the last fit or answer; a validation table's is only printed."""
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
        resume: bool | str = "never",
        on_error: str = "error",
        media_root: str | os.PathLike[str] | None = None,
        quiet: bool = False,
    ) -> FusionPredictor:
        """Fit to a table (see `read_table`) and keep the weights that are best on validation rows.

        `valid` is a share of the rows, a table of its own, or None. With `save_path`, that folder receives the
        predictor, checkpoints, `metrics.jsonl`, `incidents.jsonl` and TensorBoard files. If it holds an earlier fit,
        `resume="auto"` (or True) goes on from its last checkpoint, on a CPU with as many threads to the same bits, `"restart"`
        replaces it, and `"never"` (or False) refuses. With a folder Ctrl-C and SIGTERM end the fit after the step that runs,
        with a checkpoint; SIGUSR1 writes one and goes on. `time_limit` is in seconds. `on_error`: see `modalities.prepare`;
        all but `error` also leave out a row that no batch can be made of. `media_root`: see `read_table`.

        Raises:
            TableError, SchemaError, CellError: the rows cannot be used; the message names row and column.
            TrainingError: a number is not finite (the message names row or tensor), or memory does not do.
        """
        if time_limit is not None:
            self.config = self.config.override({"time_limit": time_limit})
        limit = self.config.training.time_limit
        deadline = time.monotonic() + limit if limit else float("inf")
        folder = _ready_folder(save_path)
        resume = _resumes(resume, folder)
        read = read_table(table, media_root, _text_columns(self.columns))
        if not len(read):
            raise SchemaError("the table has no rows.")
        share = isinstance(valid, int | float)
        train, held = _split(read, valid, self.config.seed) if share else (read, None)
        files = self._newest_checkpoint(folder) if resume and folder else None
        with FitProgress(self.config.training.epochs, quiet) as progress, _own_randomness(self.config.seed, "fit"):
            pipeline = self._restore(files) if files else self._make_pipeline(train)
            if not share and valid is not None:  # read as the training rows were, not by what it looks like by itself
                held = read_table(valid, media_root, _text_columns(pipeline.schema))
            progress.say(f"{len(train)} training rows\n{pipeline.schema}")
            if resume and not files:
                progress.say(f"nothing to resume below {folder}: a new fit begins")
            most = self._budget()
            rows, self.report = _tokenize(pipeline, train, on_error, True, most, progress)
            held_rows, held_report = (
                _tokenize(pipeline, held, on_error, True, most, progress) if held else ([], Report())
            )
            unlabelled = sum(not _has_target(r) for r in rows)
            if unlabelled:
                progress.say(f"{unlabelled} training rows have no target and teach nothing")
            progress.say(f"read: {self.report}" + (f"\nvalidation: {held_report}" if held else ""))
            if not rows:
                raise SchemaError("no row is left to train on.")
            held_rows = _with_known_labels(pipeline, held_rows, progress)
            job = Job(rows, held_rows, folder, files, deadline, skip=on_error != "error")
            state = self._train(pipeline, job, progress)
        self.history = state.history
        self.report.incidents += [Incident(row, "", why, "skipped") for row, why in state.left_out]
        if share:  # rows of the same table
            self.report = Report(self.report.seen + held_report.seen, [*self.report.incidents, *held_report.incidents])
        self._pipeline = pipeline
        if folder:
            write_file(folder / INCIDENTS, self.report.json_lines().encode())
            self.save(folder / ARTEFACT)
        return self

    def _train(self, pipeline: Pipeline, job: Job, progress: FitProgress) -> FitState:
        """Fit the pipeline's model, from the job's checkpoint if it has one."""
        training = self.config.training
        digest = _digest(pipeline, job) if job.folder else ""
        progress.say(pipeline.builder.summary([r.tokens for r in job.rows[:SHOWN]]))
        count = sum(p.numel() for p in pipeline.model.parameters())
        progress.say(f"model: {self.config.model.fusion}, {count:,} parameters")
        budget, collate = self._budget(), Collate(pipeline.builder, pipeline.tasks)
        noise = Noise(pipeline.modalities, training.modality_dropout, training.augment)
        fit = start_fit(pipeline.model, training, self.config.seed, job.deadline)
        state = _fit_state(job.files, fit, digest) if job.files else FitState()
        if job.files:
            progress.say(f"going on after step {state.step}, in epoch {state.epoch + 1}")
        log = MetricsLog(job.folder, state.epoch)
        if job.folder and not job.files:
            _remove_checkpoints(job.folder)

        def save(state: FitState) -> None:
            assert job.folder is not None
            self._save_checkpoint(pipeline, job.folder, state, fit.optimizer, digest)

        train = Batches.of(job.rows, budget, collate, noise)
        held = Batches.of(job.held, budget, collate) if job.held else None
        try:
            return run_fit(fit, train, held, state, Surroundings(log, progress, save if job.folder else None, job.skip))
        finally:
            log.close()

    def build(self, table: Any, media_root: str | os.PathLike[str] | None = None) -> Pipeline:
        """What a fit to these training rows would begin with: everything learned from them before the first step, and a
        model with fresh weights. The predictor stays as it is.

        Raises:
            TableError, SchemaError, CellError: as in `fit`.
        """
        read = read_table(table, media_root, _text_columns(self.columns))
        with _own_randomness(self.config.seed, "fit"):
            return self._make_pipeline(read)

    def predict(self, table: Any, **options: Any) -> Any:
        """One entry per row: a class, a list of labels or a number; with several targets a mapping of such lists.

        Options: `without` (modalities to withhold), `on_error` (a row left out by `skip` gives None), `media_root`.
        """
        return self._single({name: p.output for name, p in self._predictions(table, **options).items()})

    def predict_proba(self, table: Any, **options: Any) -> Any:
        """Probabilities (rows, classes), classes in the order of the schema; NaN in a row left out. Options: see `predict`.

        Raises:
            SchemaError: the target is a number (of several targets, numbers are left out; if all are, this).
        """
        found = {n: p.probability for n, p in self._predictions(table, **options).items() if p.probability is not None}
        if not found:
            raise SchemaError(
                f"{', '.join(map(repr, self.targets))} is a number and has no probabilities; use predict."
            )
        return self._single(found)

    def evaluate(self, table: Any, unseen: str = "error", **options: Any) -> dict[str, Any]:
        """Metrics over the rows that have the target; `name/metric` with several targets.

        `rows` counts the rows that have a target, `unlabelled` those that have none and are not scored, `skipped` those left
        out. `unseen`: what a class is that no training row had, an `error` or a label that is answered `wrong`. Other options:
        see `predict`.
        """
        if unseen not in ("error", "wrong"):
            raise ConfigError(unknown_name("unseen", unseen, ("error", "wrong")))
        rows, _, report = self._rows(table, targets=True, **options)
        if not rows:
            raise SchemaError(f"no row is left to evaluate on: {report}")
        logits = predict_logits(self.pipeline.model, self._batches(rows))
        targets = {n: _encode(task, rows, unseen) for n, task in self.pipeline.tasks.items()}
        scores = score_logits(self.pipeline.model, logits, targets)
        labelled = sum(_has_target(r) for r in rows)
        return {**scores, "rows": labelled, "unlabelled": len(rows) - labelled, "skipped": report.skipped}

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
        recover(folder)
        if (folder / ARTEFACT).is_dir():
            folder = folder / ARTEFACT
        if not (folder / MANIFEST).exists() and (folder / "checkpoints").is_dir():
            raise CheckpointError(
                f"{folder}: this fit was not finished; go on with fit(…, save_path={str(path)!r}, resume='auto')."
            )
        files = read_folder(folder)
        with as_checkpoint_error(f"{folder}"):
            document = _document(files)
            predictor = cls(document["targets"])
            predictor.config = RunConfig.from_dict(document["config"])
            predictor._pipeline = predictor._restore(files)
            targets = document["targets"]
            if not isinstance(targets, list) or not set(targets) <= set(predictor.schema.targets):
                raise CheckpointError(f"{folder}: the targets {targets} are not those of its schema.")
        return predictor

    def _make_pipeline(self, train: Table) -> Pipeline:
        """Everything that is learned from training rows before the first step, and a fresh model."""
        known = self.columns
        schema = known if isinstance(known, Schema) else infer_schema(train, self.targets, known)
        for name in self.targets:
            if name not in schema.targets:
                raise SchemaError(f"target {name!r}: {unknown_name('target of the schema', name, schema.targets)}")
        if not schema.inputs:
            raise SchemaError(f"the table has no input column beside the target {', '.join(self.targets)}.")
        raw = [sample.values for sample in train.samples(schema)]
        modalities = {name: m.fit(raw, train.root) for name, m in modalities_of(schema).items()}
        learned = {
            name: learn_target(name, spec, train.column(name), train.numbers) for name, spec in schema.targets.items()
        }
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
        with _own_randomness(self.config.seed, "weights"):
            tasks = {
                name: make_task(name, spec, scales[name], model.dim, training.label_smoothing)
                for name, spec in schema.targets.items()
            }
            return Pipeline(schema, modalities, scales, builder, make_model(modalities, builder, tasks, model))

    def _rows(
        self,
        table: Any,
        targets: bool,
        without: str | Sequence[str] = (),
        on_error: str = "error",
        media_root: str | os.PathLike[str] | None = None,
    ) -> tuple[list[TokenizedSample], int, Report]:
        """Tokenized rows, the number of rows in the table, and the report."""
        without = (without,) if isinstance(without, str) else tuple(without)
        for name in without:
            if name not in self.pipeline.modalities:
                hint = f" {name!r} is a column of {TABLE!r}." if name in self.schema.inputs else ""
                raise ConfigError(f"without: {unknown_name('modality', name, self.pipeline.modalities)}{hint}")
        read = replace(
            read_table(table, media_root, _text_columns(self.schema)), numbers=()
        )  # answers line up with the rows
        if not len(read):
            self.report = Report()
            return [], 0, self.report
        rows, self.report = _tokenize(self.pipeline, read, on_error, targets, self._budget())
        self.report.absent = tuple(name for name in self.schema.inputs if name not in read.columns)
        if self.report.incidents:
            warnings.warn(str(self.report), stacklevel=4)
        return [r.without(frozenset(without)) for r in rows], len(read), self.report

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
        with as_checkpoint_error("predictor.json"):
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
        self, pipeline: Pipeline, folder: Path, state: FitState, optimizer: torch.optim.Optimizer, digest: str
    ) -> None:
        """A checkpoint of where the fit stands; the one before stays, older ones go once it is whole."""
        path = folder / "checkpoints" / f"step-{state.step:09}"
        progress = {name: value for name, value in vars(state).items() if name != "best_weights"}
        files = {
            **self._documents(pipeline),
            **_weights(pipeline.model),
            "best.safetensors": to_safetensors(state.best_weights),
            "optimizer.safetensors": to_safetensors(optimizer_tensors(optimizer)),
            "fit.json": to_json({**progress, "rows": digest, "columns": self._declared()}),
        }
        write_folder(path, files)
        _remove_checkpoints(folder, keep=2)

    def _declared(self) -> dict[str, str]:
        """What `columns` says, in a form that can be compared with an earlier fit's."""
        return (
            {name: repr(spec) for name, spec in self.columns.items()}
            if isinstance(self.columns, Mapping)
            else {"schema": repr(self.columns)}
        )

    def _newest_checkpoint(self, folder: Path) -> dict[str, bytes] | None:
        """The files of the last whole checkpoint below `folder`; ConfigError if it is of other settings."""
        path = newest_folder(folder / "checkpoints", CHECKPOINTS)
        if path is None:
            return None
        files = read_folder(path)
        mine = self.config.to_dict()
        with as_checkpoint_error(str(path)):
            declared, targets = from_json(files["fit.json"], "fit.json")["columns"], _document(files)["targets"]
            saved = _document(files)["config"]
            for free in FREE:
                saved["training"][free] = mine["training"][free]
            then, now = ({**c["model"], **c["training"], "seed": c["seed"]} for c in (saved, mine))
        changed = [f"{name}: {then.get(name)!r} → {now[name]!r}" for name in now if then.get(name) != now[name]]
        if changed:
            raise ConfigError(
                f"resume: {path} was fitted with other settings ({'; '.join(changed)}); use them or another save_path."
            )
        if targets != list(self.targets):
            raise ConfigError(f"resume: {path} was fitted to {targets}, now {list(self.targets)}.")
        if declared != self._declared():
            raise ConfigError(
                f"resume: {path} was fitted with other columns= than now; use those or another save_path."
            )
        if self.config.training.precision == "fp16":
            raise ConfigError("resume: precision='fp16' cannot be resumed exactly; use 'bf16' or 'no'.")
        return files


def _resumes(resume: bool | str, folder: Path | None) -> bool:
    """Whether a fit goes on from a checkpoint below `folder`; ConfigError if it would replace an earlier one unasked."""
    if isinstance(resume, str) and resume not in ("auto", "never", "restart"):
        raise ConfigError(unknown_name("value of resume", resume, ("auto", "never", "restart")))
    if (
        resume in ("never", False)
        and folder
        and ((folder / ARTEFACT).exists() or any((folder / "checkpoints").glob(CHECKPOINTS)))
    ):
        raise ConfigError(
            f"{folder} holds an earlier fit: resume='auto' goes on with it, resume='restart' replaces it; or choose another "
            "save_path."
        )
    if resume in ("auto", True) and folder is None:
        raise ConfigError("resume needs the save_path of the fit to go on with.")
    return resume in ("auto", True)


def _ready_folder(save_path: str | os.PathLike[str] | None) -> Path | None:
    """The folder that a fit writes to, made and tried; None if it writes nothing."""
    if not save_path:
        return None
    folder = Path(save_path)
    if os.path.isfile(folder):
        raise ConfigError(f"save_path: expected a folder, {folder} is a file.")
    prepare_folder(folder)
    check_replaceable(folder / ARTEFACT, ("predictor.json", "weights.safetensors"))
    return folder


def _split(table: Table, share: float, seed: int) -> tuple[Table, Table]:
    """(training rows, validation rows)."""
    first, second = split_rows(len(table), float(share), seed)
    return table.take(first), table.take(second)


def _text_columns(known: Schema | Mapping[str, Input | Target | None]) -> list[str]:
    """Columns of a CSV that are not to be taken for numbers: declared or known as text, media or category."""
    named = {**known.inputs, **known.targets} if isinstance(known, Schema) else known
    return [name for name, spec in named.items() if _is_textual(spec)]


def _tokenize(
    pipeline: Pipeline,
    table: Table,
    on_error: str,
    targets: bool,
    budget: Budget,
    progress: FitProgress | None = None,
) -> tuple[list[TokenizedSample], Report]:
    """Tokenized rows, none larger than a batch may be, and what happened to each."""
    samples = table.samples(pipeline.schema, targets)
    done = progress.counter("reading rows", len(table)) if progress else lambda: None
    rows, report = prepare(samples, pipeline.modalities, pipeline.columns, table.root, on_error, done)
    rows, cut = cap_rows(rows, pipeline.builder, budget)
    report.incidents += cut
    return rows, report


def _weights(model: FusionModel) -> dict[str, bytes]:
    return {"weights.safetensors": to_safetensors(model.state_dict())}


def _check_names(config: RunConfig) -> None:
    """ConfigError at once for a name that only a fit would look up."""
    named: list[tuple[str, str, Iterable[str]]] = [
        ("graph preset", config.model.graph, GRAPHS),
        ("fusion strategy", config.model.fusion, FUSIONS),
        ("attention mode", config.model.attention, MODES),
        *(("attention mode", mode, MODES) for mode in config.model.relation_attention.values()),
        ("readout", config.model.readout, (*READOUTS, "hub")),
        ("optimizer", config.training.optimizer, OPTIMIZERS),
        ("precision", config.training.precision, PRECISIONS),
        ("device", config.training.device, DEVICES),
        *(("kind of input with an encoder", kind, ENCODERS) for kind in config.model.encoders),
        *((f"encoder of {kind}", name, ENCODERS.get(kind, ())) for kind, name in config.model.encoders.items()),
    ]
    for what, name, known in named:
        if name not in tuple(known):
            raise ConfigError(unknown_name(what, name, known))
    for relation in config.model.relations:
        relation_from_dict(relation)


def _has_target(row: TokenizedSample) -> bool:
    return any(value is not None for value in row.targets.values())


def _encode(task: Any, rows: Sequence[TokenizedSample], unseen: str) -> Tensor:
    """Encoded targets of rows; the error for one that no class fits names its row."""
    encode = getattr(task, "encode_unseen", task.encode) if unseen == "wrong" else task.encode
    for row in rows:
        try:
            encode([row.targets[task.name]])
        except SchemaError as error:
            raise SchemaError(f"row {row.id}: {error}") from error
    encoded: Tensor = encode([row.targets[task.name] for row in rows])
    return encoded


def _is_textual(spec: Input | Target | None) -> bool:
    if isinstance(spec, Class | MultiLabel) and spec.classes:
        return all(isinstance(c, str) for c in spec.classes)
    return isinstance(spec, Text | Image | Audio | Video) or (isinstance(spec, Tabular) and spec.values == "category")


def _with_known_labels(
    pipeline: Pipeline, rows: Sequence[TokenizedSample], progress: FitProgress
) -> list[TokenizedSample]:
    """Validation rows; a target that no training row knows is taken as unknown, and said so."""
    kept: list[TokenizedSample] = []
    strange: dict[str, int] = {}
    for row in rows:
        targets = dict(row.targets)
        for name, task in pipeline.tasks.items():
            try:
                task.encode([targets.get(name)])
            except SchemaError:
                targets[name] = None
                strange[name] = strange.get(name, 0) + 1
        kept.append(replace(row, targets=targets))
    for name, count in strange.items():
        progress.say(
            f"validation: {count} rows have a {name!r} that no training row has or that cannot be read; they are not scored"
        )
    return kept


def _digest(pipeline: Pipeline, job: Job) -> str:
    """Hash of everything a fit reads: a resumed fit must see the same rows."""
    total = hashlib.sha256()
    for rows in (job.rows, job.held):
        for row in rows:
            total.update(f"{row.id} {sorted(row.targets.items())}".encode())
            for name in pipeline.modalities:
                if name in row.tokens:
                    tokens = row.tokens[name]
                    parts = (tokens.values, tokens.position, tokens.span, *tokens.attributes.values())
                    total.update(name.encode() + b"".join(part.tobytes() for part in parts))
        total.update(b"|")
    return total.hexdigest()


def _remove_checkpoints(folder: Path, keep: int = 0) -> int:
    """Remove all but the newest `keep`, so that an old one is never taken for one of a newer fit; how many went."""
    found = sorted((folder / "checkpoints").glob(CHECKPOINTS))
    older = found[: len(found) - keep]
    for path in older:
        remove_folder(path)
    return len(older)


@contextmanager
def _own_randomness(seed: int, purpose: str) -> Iterator[None]:
    """Torch's global generators as they were, after what runs inside."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(counted_seed(seed, purpose))
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
    if f"{name}.safetensors" not in files:
        raise CheckpointError(f"expected {name}.safetensors, found {', '.join(files)}.")
    return from_safetensors(files[f"{name}.safetensors"], f"{name}.safetensors")


def _check_dtypes(model: FusionModel, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:  # torch would cast it in silence
            raise CheckpointError(f"weight {name}: expected {tensor.dtype}, got {weights[name].dtype}.")


def _load_weights(model: FusionModel, weights: Mapping[str, Tensor]) -> None:
    _check_dtypes(model, weights)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit the model of predictor.json: {error}") from error


def _fit_state(files: Mapping[str, bytes], fit: Fit, digest: str) -> FitState:
    with as_checkpoint_error("fit.json"):
        progress = from_json(files["fit.json"], "fit.json")
        rows = progress.pop("rows")
        progress.pop("columns")
    if rows != digest:
        raise ConfigError(
            "resume: the training or validation rows are not those of the checkpoint; use another save_path."
        )
    best, shapes = _tensors(files, "best"), {name: t.shape for name, t in fit.model.state_dict().items()}
    if best and {name: t.shape for name, t in best.items()} != shapes:
        raise CheckpointError("best.safetensors: its weights are not those of the model.")
    with as_checkpoint_error("fit.json"):
        load_optimizer(fit.optimizer, _tensors(files, "optimizer"))
        score, left_out = tuple(progress.pop("score")), [tuple(pair) for pair in progress.pop("left_out")]
        return FitState(**progress, score=score, left_out=left_out, best_weights=best)  # type: ignore[arg-type]

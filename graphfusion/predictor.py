"""From a table to a trained model and back to answers: `FusionPredictor`."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from graphfusion.config import MOST_EDGES, MOST_NODES, PRESETS, RunConfig, TrainingConfig
from graphfusion.data import Budget, Incident, Report, Table, read_table, split_rows
from graphfusion.encoders import ENCODERS
from graphfusion.errors import CheckpointError, ConfigError, GraphFusionError, SchemaError, unknown_name
from graphfusion.fit_folder import ARTEFACT, CHECKPOINTS, FitFolder, fit_state, resumes, rows_digest
from graphfusion.fusion import FUSIONS
from graphfusion.graph_builder import GRAPHS, RELATIONS, GraphBatch, Relation, relation_from_dict, relation_to_dict
from graphfusion.modalities import TokenizedSample
from graphfusion.model import strategy_options, unused_settings, vote_of
from graphfusion.nn import READOUTS
from graphfusion.ops.hetero_attention import MODES
from graphfusion.pipeline import Pipeline, document_of, own_randomness
from graphfusion.schema import (
    TABLE,
    Class,
    Columns,
    Input,
    Media,
    MultiLabel,
    Schema,
    Tabular,
    Target,
    Words,
    check_columns,
    column_of,
    declared_from_dict,
    declared_to_dict,
)
from graphfusion.tasks import Prediction
from graphfusion.training import (
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    Batches,
    Collate,
    FitState,
    Noise,
    Surroundings,
    check_device,
    embed_rows,
    fit_votes,
    predict_logits,
    refuse_launchers,
    run_fit,
    score_logits,
    start_fit,
    weigh_rows,
    weigh_tokens,
)
from graphfusion.training.checkpoint import MANIFEST, as_checkpoint_error, read_folder, recover, write_folder
from graphfusion.training.fit import measured_budget
from graphfusion.training.memory import OPEN, on_gpu
from graphfusion.training.progress import FitProgress, MetricsLog

SHOWN = 256
"""Rows that the summary of the graph counts."""
FEW_STEPS, FEW_ROWS = 8, 50
"""Steps of an epoch, and validation rows, below which chance decides how a fit ends."""


class RowOptions(TypedDict, total=False):
    """What to do about the rows that are answered for: `without` withholds modalities, `on_error` is what a cell that cannot be
    read does (see `modalities.prepare`), `media_root` the folder of the media files (see `read_table`).
    """

    without: str | Sequence[str]
    on_error: str
    media_root: str | os.PathLike[str] | None


@dataclass(frozen=True)
class Order:
    """What `fit` was told beside the training table: see there. `files`: of the checkpoint that it goes on from; `deadline`: on
    the monotonic clock.
    """

    valid: Any
    on_error: str
    media_root: str | os.PathLike[str] | None
    folder: FitFolder | None
    files: Mapping[str, bytes] | None
    deadline: float


@dataclass(frozen=True)
class Rows:
    """Training and validation rows of a fit, and the report of the validation rows: that of the training rows where they are of
    one table.
    """

    train: Sequence[TokenizedSample]
    held: Sequence[TokenizedSample]
    of_held: Report


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
        columns: Columns | Schema | None = None,
        relations: Sequence[Relation | Mapping[str, Any]] = (),
        **settings: Any,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(unknown_name("preset", preset, PRESETS))
        self.targets = (target,) if isinstance(target, str) else tuple(target or ())
        if not self.targets or not all(isinstance(name, str) for name in self.targets):
            raise ConfigError(f"target: expected a column name or several, got {target or 'none'}.")
        if len(set(self.targets)) < len(self.targets):
            raise ConfigError(f"target: expected each column once, got {', '.join(map(repr, self.targets))}.")
        if not isinstance(columns, Schema):
            check_columns(columns or {})
        self.columns: Columns | Schema = columns if isinstance(columns, Schema) else dict(columns or {})
        if relations:
            _check_relations(relations)
            settings["relations"] = tuple(r if isinstance(r, Mapping) else relation_to_dict(r) for r in relations)
        base = PRESETS[preset]
        self.config = RunConfig(base.model, base.training, seed).override(settings)
        _check_names(self.config)
        self.history: list[dict[str, Any]] = []
        self.report: Report | None = None
        """Account of the rows of the table of the last fit or answer; a validation table's is only printed."""
        self._pipeline: Pipeline | None = None

    def __repr__(self) -> str:
        model = self.config.model
        fitted = "not fitted" if self._pipeline is None else "fitted"
        names = ", ".join(map(repr, self.targets))
        return (
            f"<FusionPredictor of {names}: fusion={model.fusion!r}, graph={model.graph!r}, dim={model.dim}, {fitted}>"
        )

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
            ConfigError: a GPU is asked for and there is none, or `save_path` holds another fit.
        """
        refuse_launchers()
        check_device(self.config.training)
        config = self.config if time_limit is None else self.config.override({"time_limit": time_limit})
        limit = config.training.time_limit
        deadline = time.monotonic() + limit if limit else float("inf")
        folder = FitFolder(Path(save_path), self.targets, declared_to_dict(self.columns), config) if save_path else None
        with self._having(config), folder.removed_if_unused() if folder else nullcontext():
            resume = resumes(resume, folder)
            read = read_table(table, media_root, text_columns(self.columns))
            if not len(read):
                raise SchemaError("the table has no rows.")
            with FitProgress(self.config.training.epochs, quiet) as progress, own_randomness(self.config.seed, "fit"):
                files = folder.newest() if resume and folder else None
                if resume and folder and not files:
                    folder.check_unfinished()
                    progress.say(f"nothing to resume below {folder.path}: a new fit begins")
                self._fit_table(read, Order(valid, on_error, media_root, folder, files, deadline), progress)
        return self

    @contextmanager
    def _having(self, config: RunConfig) -> Iterator[None]:
        """Settings for one fit."""
        mine, self.config = self.config, config
        try:
            yield
        finally:
            self.config = mine

    def _fit_table(self, read: Table, order: Order, progress: FitProgress) -> None:
        """Fit to the rows of a table, from the files of a checkpoint if there are any."""
        share = isinstance(order.valid, int | float)
        train = read.take(split_rows(len(read), float(order.valid), self.config.seed)[0]) if share else read
        pipeline = Pipeline.from_files(order.files, self.config) if order.files else self._learn(train)
        progress.say(f"{len(train)} training rows\n{pipeline.schema}")
        if empty := [name for name in self._looked_for(train) if all(cell is None for cell in train.columns[name])]:
            progress.say(f"no training row has a value of {', '.join(empty)}")
        rows = self._rows_to_fit(pipeline, read, set(train.numbers), order, progress)
        state = self._train(pipeline, rows, order, progress)
        self.history = state.history
        if rows.held:
            held = Batches.of(rows.held, self._budget(), Collate(pipeline.builder, pipeline.tasks))
            for line in fit_votes(pipeline.model, held):
                progress.say(line)
        assert self.report is not None
        self.report.incidents += [Incident(row, "", why, "skipped") for row, why in state.left_out]
        self._pipeline = pipeline
        if order.folder:
            apart = (
                [] if rows.of_held is self.report else [replace(i, table="validation") for i in rows.of_held.incidents]
            )
            order.folder.finish(pipeline, Report(self.report.seen, [*self.report.incidents, *apart]))

    def _looked_for(self, table: Table) -> list[str]:
        """The columns of a table that are not left out on purpose."""
        given = self.columns
        if isinstance(given, Schema):
            return [name for name in table.columns if name in given.inputs]
        return [name for name in table.columns if name not in given or given[name] is not None]

    def _rows_to_fit(self, pipeline: Pipeline, read: Table, own: set[int], order: Order, progress: FitProgress) -> Rows:
        """The table's rows, those of the numbers `own` to train on; and the validation rows. What is wrong with them is told."""
        rows, self.report = pipeline.tokenize(read, order.on_error, True, self._budget(), progress)
        held, of_held = [], self.report
        if isinstance(order.valid, int | float):  # of the same table, so that all its bad cells are told at once
            rows, held = [r for r in rows if r.id in own], [r for r in rows if r.id not in own]
        elif order.valid is not None:
            with _of_the_validation_table():  # read as the training rows were, not by what it looks like by itself
                table = read_table(order.valid, order.media_root, text_columns(pipeline.schema))
                held, of_held = pipeline.tokenize(table, order.on_error, True, self._budget(), progress)
        held, strange = _with_known_labels(pipeline, held)
        of_held.incidents += strange
        progress.say(f"read: {self.report}" + ("" if of_held is self.report else f"\nvalidation: {of_held}"))
        progress.say(f"{_counted(rows)} to train on" + (f", {_counted(held)} to validate on" if held else ""))
        if not rows:
            raise SchemaError("no row is left to train on.")
        if held and not any(_has_target(r) for r in held):
            raise SchemaError("no validation row has a target that is known: pass rows that have one, or valid=None.")
        if vote_of(self.config.model) == "weighted" and not held:
            raise ConfigError(
                f"fusion={self.config.model.fusion!r} fits its weights on validation rows: pass valid=, or use 'soft_vote'."
            )
        return Rows(rows, held, of_held)

    def _train(self, pipeline: Pipeline, rows: Rows, order: Order, progress: FitProgress) -> FitState:
        """Fit the pipeline's model, from the checkpoint of the order if it has one."""
        training = self.config.training
        folder = order.folder
        digest = rows_digest(pipeline, rows.train, rows.held) if folder else ""
        progress.say(pipeline.builder.summary([r.tokens for r in rows.train[:SHOWN]]))
        progress.say(_summary(pipeline.model, self.config))
        budget, collate = self._budget(), Collate(pipeline.builder, pipeline.tasks)
        noise = Noise(pipeline.modalities, training.modality_dropout, training.augment)
        fit = start_fit(pipeline.model, training, self.config.seed, order.deadline)
        train = Batches.of(rows.train, budget, collate, noise)
        state = fit_state(order.files, fit, digest) if order.files else FitState()
        if not state.nodes:  # a fit that goes on has the batches that it began with
            measured = measured_budget(fit, train)
            state.nodes, state.edges = measured.nodes, measured.edges
        budget = replace(budget, nodes=state.nodes, edges=state.edges)
        train = replace(train, budget=budget)
        if order.files:
            ended = state.stopped or state.epoch >= training.epochs
            where = "where this fit ended" if ended else f"in epoch {state.epoch + 1}"
            progress.say(f"going on after step {state.step}, {where}")
        steps = math.ceil(len(train.plan(self.config.seed, 0)) / training.accumulate)
        if few := _few(steps, sum(map(_has_target, rows.held)), training):
            progress.say(few)
        log = MetricsLog(folder.path if folder else None, state.epoch)
        if folder and not order.files:
            folder.remove_checkpoints()
        save = partial(folder.save, pipeline, fit, digest) if folder else None
        held = Batches.of(rows.held, budget, collate) if rows.held else None
        try:
            return run_fit(fit, train, held, state, Surroundings(log, progress, save, order.on_error != "error"))
        finally:
            log.close()

    def build(self, table: Any, media_root: str | os.PathLike[str] | None = None) -> Pipeline:
        """What a fit to these training rows would begin with: everything learned from them before the first step, and a
        model with fresh weights. The predictor stays as it is.

        Raises:
            TableError, SchemaError, CellError, ConfigError: as in `fit`.
        """
        read = read_table(table, media_root, text_columns(self.columns))
        with own_randomness(self.config.seed, "fit"):
            return self._learn(read)

    def predict(self, table: Any, **options: Unpack[RowOptions]) -> Any:
        """One entry per row: a class, a list of labels or a number; with several targets a mapping of such lists.

        Options: `without` (modalities to withhold), `on_error` (a row left out by `skip` gives None), `media_root`.
        """
        return self._single({name: p.output for name, p in self._predictions(table, **options).items()})

    def predict_proba(self, table: Any, **options: Unpack[RowOptions]) -> Any:
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

    def evaluate(self, table: Any, unseen: str = "error", **options: Unpack[RowOptions]) -> dict[str, Any]:
        """Metrics over the rows that have the target; `name/metric` with several targets.

        `rows` counts the rows that have a target, `unlabelled` those that have none and are not scored, `skipped` those left
        out. `unseen`: what a class is that no training row had, an `error` or a label that is answered `wrong` (an error either way
        where a row may have several labels). Other options: see `predict`.
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

    def embed(self, table: Any, **options: Unpack[RowOptions]) -> NDArray[np.float32]:
        """The unified representation (rows, dim); NaN in a row left out. Options: see `predict`."""
        rows, count, _ = self._rows(table, targets=False, **options)
        out = np.full((count, self.config.model.dim), np.nan, np.float32)
        if rows:
            out[[r.id for r in rows]] = embed_rows(self.pipeline.model, self._batches(rows)).numpy()
        return out

    def modality_weights(self, table: Any, **options: Unpack[RowOptions]) -> Any:
        """The weight that each modality has in what is made of each row (its coefficient in a sum, its mean gate, its part of a
        vote; not what it adds to the answer): modality → (rows,), 0 where it is missing, NaN in a row left out; with several
        targets a mapping of such. Options: see `predict`.

        Raises:
            ConfigError: the fusion strategy does not weigh modalities.
        """
        self._check_weighs("modalities", "weighs")
        rows, count, _ = self._rows(table, targets=False, **options)
        out = {
            n: {m: np.full(count, np.nan, np.float32) for m in self.pipeline.modalities} for n in self.pipeline.tasks
        }
        for name, shares in weigh_rows(self.pipeline.model, self._batches(rows)).items() if rows else ():
            for modality, share in shares.items():
                out[name][modality][[r.id for r in rows]] = share.numpy()
        return self._single(out)

    def token_weights(self, table: Any, **options: Unpack[RowOptions]) -> dict[str, list[NDArray[np.float32] | None]]:
        """What share each token has in what is read from its modality: modality → for each row (tokens,), in the order of the
        nodes of `graph`; no numbers where the modality is missing, None for a row left out (of which `graph` has no node).
        Options: see `predict`.

        Raises:
            ConfigError: the fusion strategy does not weigh tokens.
        """
        self._check_weighs("tokens", "weighs_tokens")
        rows, count, _ = self._rows(table, targets=False, **options)
        out: dict[str, list[NDArray[np.float32] | None]] = {m: [None] * count for m in self.pipeline.modalities}
        for modality, shares in weigh_tokens(self.pipeline.model, self._batches(rows)).items() if rows else ():
            for row, share in zip(rows, shares, strict=True):
                out[modality][row.id] = share.numpy()
        return out

    def graph(self, table: Any, **options: Unpack[RowOptions]) -> GraphBatch:
        """The rows as one `GraphBatch`, on the CPU. Options: see `predict`."""
        rows, _, _ = self._rows(table, targets=False, **options)
        return Collate(self.pipeline.builder, {})(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted predictor to a folder, replacing one that is there in one step."""
        write_folder(Path(path), self.pipeline.to_files(self.targets, declared_to_dict(self.columns), self.config))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FusionPredictor:
        """Read what `save` wrote, or the `save_path` of a fit. Weights lie on the CPU (see `to`); nothing that is read is run.

        Raises:
            CheckpointError: the folder is not there, incomplete, altered or of another version.
        """
        folder = Path(path)
        if os.path.isfile(folder):
            raise CheckpointError(f"{folder} is a file; expected the folder that a fit wrote.")
        fits = sorted(str(found.parent) for found in folder.glob(f"*/{ARTEFACT}")) if os.path.isdir(folder) else []
        if fits and not (folder / ARTEFACT).is_dir():
            raise CheckpointError(f"{folder} holds several fits; take one of {', '.join(fits[:5])}.")
        recover(folder)
        if (folder / ARTEFACT).is_dir():
            folder = folder / ARTEFACT
        if not (folder / MANIFEST).exists() and (folder / CHECKPOINTS).is_dir():
            raise CheckpointError(
                f"{folder}: this fit was not finished; go on with fit(…, save_path={str(path)!r}, resume='auto')."
            )
        files = read_folder(folder)
        with as_checkpoint_error(f"{folder}"):
            document = document_of(files)
            declared = document.get(
                "declared", {"schema": document["schema"]}
            )  # an older folder has what they became alone
            predictor = cls(document["targets"], columns=declared_from_dict(declared))
            predictor.config = RunConfig.from_dict(document["config"])
            predictor._pipeline = Pipeline.from_files(files, predictor.config)
            targets = document["targets"]
            if not isinstance(targets, list) or not set(targets) <= set(predictor.schema.targets):
                raise CheckpointError(f"{folder}: the targets {targets} are not those of its schema.")
        return predictor

    def to(self, device: str) -> FusionPredictor:
        """Answer, and fit, on `cpu`, `cuda`, or `auto`: a GPU where there is one. This predictor; `save` keeps the setting, `load`
        puts weights on the CPU all the same.

        Raises:
            ConfigError: there is no GPU, or the device is none of these.
        """
        config = self.config.override({"device": device})
        check_device(replace(config.training, precision="no"))
        self.config = config
        if self._pipeline is not None:
            self._pipeline.model.to("cuda" if on_gpu(device) else "cpu")
        return self

    def _rows(
        self, table: Any, targets: bool, **options: Unpack[RowOptions]
    ) -> tuple[list[TokenizedSample], int, Report]:
        """Tokenized rows, the number of rows in the table, and the report."""
        for name in options:
            if name not in RowOptions.__annotations__:
                raise ConfigError(unknown_name("option", name, RowOptions.__annotations__))
        given = options.get("without", ())
        without = (given,) if isinstance(given, str) else tuple(given)
        for name in without:
            if name not in self.pipeline.modalities:
                hint = f" {name!r} is a column of {TABLE!r}." if name in self.schema.inputs else ""
                raise ConfigError(f"without: {unknown_name('modality', name, self.pipeline.modalities)}{hint}")
        read = replace(
            read_table(table, options.get("media_root"), text_columns(self.schema)), numbers=()
        )  # answers line up with the rows
        if not len(read):
            self.report = Report()
            return [], 0, self.report
        on_error = options.get("on_error", "error")
        rows, self.report = self.pipeline.tokenize(read, on_error, targets, self._budget(self._answers_on_gpu))
        wanted = dict.fromkeys(map(self.schema.column_of, self.schema.inputs))
        self.report.absent = tuple(name for name in wanted if name not in read.columns)
        if self.report.incidents:
            warnings.warn(str(self.report), stacklevel=4)
        return [r.without(frozenset(without)) for r in rows], len(read), self.report

    def _batches(self, rows: Sequence[TokenizedSample]) -> Batches:
        return Batches.of(rows, self._budget(self._answers_on_gpu), Collate(self.pipeline.builder, {}))

    def _predictions(self, table: Any, **options: Unpack[RowOptions]) -> dict[str, Prediction]:
        """Target → prediction with one entry per row of the table."""
        rows, count, _ = self._rows(table, targets=False, **options)
        if not rows:
            return {name: _aligned(None, [], count, task) for name, task in self.pipeline.tasks.items()}
        logits = predict_logits(self.pipeline.model, self._batches(rows))
        ids = [r.id for r in rows]
        return {n: _aligned(task.predict(logits[n]), ids, count, task) for n, task in self.pipeline.tasks.items()}

    def _check_weighs(self, what: str, flag: str) -> None:
        if not getattr(self.pipeline.model.fusion, flag):
            those = ", ".join(sorted(name for name, kind in FUSIONS.items() if getattr(kind, flag)))
            fusion = self.pipeline.model.fusion
            hint = " It weighs tokens: token_weights has those." if fusion.weighs_tokens else ""
            hint = " It weighs modalities: modality_weights has those." if fusion.weighs else hint
            raise ConfigError(f"fusion={self.config.model.fusion!r} does not weigh {what}; these do: {those}.{hint}")

    def _single(self, found: Mapping[str, Any]) -> Any:
        return found[self.targets[0]] if len(self.targets) == 1 else dict(found)

    @property
    def _answers_on_gpu(self) -> bool:
        return next(self.pipeline.model.parameters()).is_cuda

    def _budget(self, gpu: bool | None = None) -> Budget:
        """Of a batch, for a fit where `gpu` does not say where it goes."""
        training = self.config.training
        gpu = on_gpu(training.device) if gpu is None else gpu
        nodes, edges = (OPEN, OPEN) if gpu else (MOST_NODES, MOST_EDGES)
        return Budget(training.batch_size, training.max_nodes or nodes, training.max_edges or edges)

    def _learn(self, train: Table) -> Pipeline:
        return Pipeline.learn(train, self.targets, self.columns, self.config)


@contextmanager
def _of_the_validation_table() -> Iterator[None]:
    """Errors say that they are not of the training rows."""
    try:
        yield
    except GraphFusionError as error:
        raise type(error)(f"validation table: {error}") from error


def text_columns(known: Schema | Columns) -> list[str]:
    """Columns of a CSV that are not to be taken for numbers: declared or known as text, media or category."""
    named = {**known.inputs, **known.targets} if isinstance(known, Schema) else known
    return [column_of(name, spec) for name, spec in named.items() if _is_textual(spec)]


def _check_relations(relations: Sequence[Any]) -> None:
    """ConfigError for what is no relation policy, nor what `relation_to_dict` makes of one."""
    for given in relations:
        if not isinstance(given, (*RELATIONS.values(), Mapping)):
            preset = f" graph={given!r} takes the preset of this name." if given in GRAPHS else ""
            raise ConfigError(f"relations: expected policies such as Full('photo', 'caption'), got {given!r}.{preset}")


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
    strategy_options(config.model)
    for relation in config.model.relations:
        relation_from_dict(relation)


def _summary(model: Module, config: RunConfig) -> str:
    """How many parameters a model has; on a second line the settings that are of no use to its strategy, if there are any."""
    count = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    unused = ", ".join(f"{name}={value!r}" for name, value in unused_settings(config.model).items())
    return (
        f"model: {config.model.fusion}, {count:,} parameters"
        + (f", of which {frozen:,} are frozen" if frozen else "")
        + (f"\nof no use to {config.model.fusion}: {unused}" if unused else "")
    )


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
    return isinstance(spec, Words | Media) or (isinstance(spec, Tabular) and spec.values == "category")


def _counted(rows: Sequence[TokenizedSample]) -> str:
    """How many rows, and how many of them have no target."""
    unlabelled, bare = sum(not _has_target(r) for r in rows), sum(not r.tokens for r in rows)
    return (
        f"{len(rows)} rows"
        + (f" ({unlabelled} without a target, which are not scored)" if unlabelled else "")
        + (f" ({bare} without any input)" if bare else "")
    )


def _few(steps: int, held: int, training: TrainingConfig) -> str:
    """What to change where an epoch has so few steps, or so few rows choose the best one, that chance ends a fit; else empty."""
    found = []
    if steps < FEW_STEPS and training.batch_size > 1:
        found.append(f"an epoch has {steps} step{'s' * (steps > 1)}: a smaller batch_size makes more")
    if 0 < held < FEW_ROWS and training.patience:
        found.append(
            f"{held} validation row{'s' * (held > 1)} choose the best epoch: a larger valid or patience lets chance end fewer fits"
        )
    return f"few rows; {'; '.join(found)}" if found else ""


def _with_known_labels(
    pipeline: Pipeline, rows: Sequence[TokenizedSample]
) -> tuple[list[TokenizedSample], list[Incident]]:
    """Validation rows; a target that no training row knows is taken as unknown, an incident each."""
    kept: list[TokenizedSample] = []
    strange: list[Incident] = []
    for row in rows:
        targets = dict(row.targets)
        for name, task in pipeline.tasks.items():
            try:
                task.encode([targets.get(name)])
            except SchemaError as error:
                targets[name] = None
                strange.append(Incident(row.id, name, f"not scored: {error}", "missing"))
        kept.append(replace(row, targets=targets))
    return kept, strange


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

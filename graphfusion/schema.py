"""What the columns of a table are: the modality of each input, the kind of each target.

A schema only declares. What is learned from training rows (a vocabulary, means, class names) is kept by the
modalities and tasks that learn it.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from graphfusion.errors import SchemaError, unknown_name

TABLE = "table"
"""Node type that holds all tabular columns of a row, one node a column."""


def _positive(owner: object, *names: str) -> None:
    whole = {f.name for f in fields(owner) if f.type == "int"}  # type: ignore[arg-type]
    for name in names:
        value, kinds = getattr(owner, name), (int,) if name in whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or value <= 0:
            what = "a whole number" if name in whole else "a number"
            raise SchemaError(f"{type(owner).__name__}.{name}: expected {what} above 0, got {value!r}.")


def _check_classes(owner: Class | MultiLabel) -> None:
    """Names of classes as a sequence: a text alone would be one class a letter."""
    if isinstance(owner.classes, str) or not isinstance(owner.classes, Sequence):
        raise SchemaError(f"{type(owner).__name__}.classes: expected a tuple of names, got {owner.classes!r}.")


def _check_flag(owner: object, name: str) -> None:
    if not isinstance(getattr(owner, name), bool):
        raise SchemaError(f"{type(owner).__name__}.{name}: expected True or False, got {getattr(owner, name)!r}.")


def _check_pixels(owner: Image | Video) -> None:
    name = type(owner).__name__
    if owner.channels not in (1, 3):
        raise SchemaError(f"{name}.channels: expected 1 (grey) or 3 (RGB), got {owner.channels!r}.")
    if owner.size % owner.patch:
        raise SchemaError(f"{name}.size: expected a multiple of patch={owner.patch}, got {owner.size}.")


def _check_checkpoint(owner: PretrainedText | PretrainedImage) -> None:
    name, given, tune = type(owner).__name__, owner.checkpoint, owner.tune
    if not isinstance(given, str) or not given.strip():
        raise SchemaError(f"{name}.checkpoint: expected a folder or the name of a model on the hub, got {given!r}.")
    if isinstance(tune, bool) or not isinstance(tune, int | float) or not 0 <= tune < float("inf"):
        raise SchemaError(f"{name}.tune: expected a number from 0, got {tune!r}.")
    if not isinstance(owner.of, str):
        raise SchemaError(f"{name}.of: expected the name of a column, got {owner.of!r}.")


@dataclass(frozen=True)
class Text:
    """Words. One node per subword; a blank text is a missing modality.

    `max_tokens` caps the nodes of a row, `vocab_size` the subword vocabulary trained on the training rows.
    """

    kind: ClassVar[str] = "text"
    max_tokens: int = 128
    vocab_size: int = 4096
    lowercase: bool = True

    def __post_init__(self) -> None:
        _positive(self, "max_tokens", "vocab_size")
        _check_flag(self, "lowercase")


@dataclass(frozen=True)
class Image:
    """A picture, resized to `size` x `size` pixels and cut into `patch` x `patch` pixels, one node per patch.

    `channels`: 1 (grey) or 3 (RGB).
    """

    kind: ClassVar[str] = "image"
    size: int = 64
    patch: int = 8
    channels: int = 3

    def __post_init__(self) -> None:
        _positive(self, "size", "patch")
        _check_pixels(self)


@dataclass(frozen=True)
class Audio:
    """A sound, mixed to mono, resampled to `sample_rate` Hz, as log-mel frames; one node per `frames_per_token` frames.

    `window` and `hop` are the length of a frame and the step between frames in seconds; what lies beyond
    `max_seconds` is cut. `array_rate` (Hz) is the rate of cells that are bare arrays.
    """

    kind: ClassVar[str] = "audio"
    sample_rate: int = 16_000
    bands: int = 64
    window: float = 0.025
    hop: float = 0.010
    frames_per_token: int = 4
    max_seconds: float = 30.0
    array_rate: int = 16_000

    def __post_init__(self) -> None:
        _positive(self, *(f.name for f in fields(self)))


@dataclass(frozen=True)
class Video:
    """Moving pictures: `frames_per_second` of them, each resized to `size` x `size` pixels and cut into `patch` x `patch`
    pixels, one node per patch; what lies beyond `max_seconds` is cut. The sound is a column of its own.

    `channels`: 1 (grey) or 3 (RGB). Needs `pip install '.[video]'`, from a clone.
    """

    kind: ClassVar[str] = "video"
    size: int = 32
    patch: int = 8
    channels: int = 3
    frames_per_second: float = 2.0
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        _positive(self, "size", "patch", "frames_per_second", "max_seconds")
        _check_pixels(self)


@dataclass(frozen=True)
class Tabular:
    """A scalar: `number` (standardised with the training rows) or `category`. One node in the node type `table`."""

    kind: ClassVar[str] = "tabular"
    values: str = "number"

    def __post_init__(self) -> None:
        if self.values not in ("number", "category"):
            raise SchemaError(f"Tabular.values: {unknown_name('kind of value', self.values, ('number', 'category'))}")


@dataclass(frozen=True)
class Features:
    """Precomputed features: a vector (one node) or a sequence `(n, width)` (n nodes).

    A cell may also be a mapping with `values` and, optionally, `seconds` (n, 2) (start and end of each), `speaker`
    (n integers) and `entity` (n words), which relations of the same names use. `width=0` is learned from the rows.
    `standardize`: each number of a vector with its mean and deviation over the training rows.
    """

    kind: ClassVar[str] = "features"
    width: int = 0
    max_tokens: int = 512
    standardize: bool = True

    def __post_init__(self) -> None:
        _positive(self, "max_tokens", *(["width"] if self.width != 0 else []))
        _check_flag(self, "standardize")


@dataclass(frozen=True)
class PretrainedText:
    """Words, read by a pretrained language model with its own tokenizer. One node per token; a blank text is a missing modality.

    `checkpoint`: a folder as Hugging Face's transformers writes it (config.json, model.safetensors, tokenizer.json), or the name
    of a model on its hub. `max_tokens` counts special tokens; no more than the model has places for (CLIP: 77). `tune`: the
    model's weights learn at `tune` times `lr` (0.02 is usual); 0 leaves them as they are. `of`: the column that is read, where it
    is not the one of this name: so several models read one text, a node type each, and graph presets tie tokens that share
    characters. That column is an input of its own, too, unless `columns` says None of it.
    """

    kind: ClassVar[str] = "pretrained_text"
    checkpoint: str = ""
    max_tokens: int = 128
    tune: float = 0.0
    of: str = ""

    def __post_init__(self) -> None:
        _check_checkpoint(self)
        _positive(self, "max_tokens")


@dataclass(frozen=True)
class PretrainedImage:
    """A picture, read by a pretrained vision model (a transformer or a convolutional network). One node per state of its last
    layer that stands for a part of the picture.

    `checkpoint`, `tune`, `of`: as for `PretrainedText` (config.json, model.safetensors, preprocessor_config.json). `size`: pixels
    of each side that a picture is resized to; 0 for what the checkpoint says.
    """

    kind: ClassVar[str] = "pretrained_image"
    checkpoint: str = ""
    size: int = 0
    tune: float = 0.0
    of: str = ""

    def __post_init__(self) -> None:
        _check_checkpoint(self)
        if self.size:
            _positive(self, "size")


@dataclass(frozen=True)
class Class:
    """Target with one of several classes; an empty `classes` is filled from the training rows, sorted."""

    kind: ClassVar[str] = "class"
    classes: tuple[str | int | bool, ...] = ()

    def __post_init__(self) -> None:
        _check_classes(self)


@dataclass(frozen=True)
class MultiLabel:
    """Target with any number of labels: a list of them, or one text with labels between `separator`. No label is an empty list,
    or a separator alone; an empty cell is unknown.
    """

    kind: ClassVar[str] = "multi_label"
    classes: tuple[str | int, ...] = ()
    separator: str = "|"

    def __post_init__(self) -> None:
        _check_classes(self)
        if not isinstance(self.separator, str) or not self.separator:
            raise SchemaError(f"MultiLabel.separator: expected a text of one letter or more, got {self.separator!r}.")


@dataclass(frozen=True)
class Number:
    """Target on a continuous scale."""

    kind: ClassVar[str] = "number"


Words = Text | PretrainedText
Media = Image | Audio | Video | PretrainedImage
Input = Words | Media | Tabular | Features
Target = Class | MultiLabel | Number
INPUTS: dict[str, type[Input]] = {c.kind: c for c in typing.get_args(Input)}
TARGETS: dict[str, type[Target]] = {c.kind: c for c in (Class, MultiLabel, Number)}


Columns = Mapping[str, Input | Target | None]
"""What is declared of some columns; None leaves one out."""


def column_of(name: str, spec: object) -> str:
    """The column of a table that what is declared as `name` reads: that of its name, or the one of its `of`."""
    return getattr(spec, "of", "") or name


@dataclass(frozen=True)
class Schema:
    """Inputs and targets of a table by column name; columns that are named in neither are not read.

    Raises:
        SchemaError: a column is both input and target, or its specification is of the wrong type.
    """

    inputs: Mapping[str, Input] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, allowed in (("inputs", Input), ("targets", Target)):
            for name, spec in getattr(self, part).items():
                if not isinstance(spec, typing.get_args(allowed)):
                    expected = ", ".join(c.__name__ for c in typing.get_args(allowed))
                    raise SchemaError(f"schema {part}, column {name!r}: expected one of {expected}, got {spec!r}.")
        read = {*self.inputs, *map(self.column_of, self.inputs)}
        both = sorted(read & set(self.targets))
        if both:
            raise SchemaError(f"column {both[0]!r} is an input and a target: remove it from one of them.")
        if TABLE in self.inputs and not isinstance(self.inputs[TABLE], Tabular):
            raise SchemaError(f"column {TABLE!r}: this name is taken by the tabular nodes; rename the column.")

    @property
    def node_types(self) -> tuple[str, ...]:
        """Node types in the order of the columns; all tabular columns share the last one."""
        own = tuple(name for name, spec in self.inputs.items() if not isinstance(spec, Tabular))
        return own + ((TABLE,) if len(own) < len(self.inputs) else ())

    def column_of(self, name: str) -> str:
        """The column of the table that the input `name` reads."""
        return column_of(name, self.inputs[name])

    def columns_of(self, node_type: str) -> tuple[str, ...]:
        """Inputs that make the nodes of `node_type`."""
        if node_type == TABLE:
            return tuple(name for name, spec in self.inputs.items() if isinstance(spec, Tabular))
        return (node_type,)

    def override(self, columns: Mapping[str, Input | Target]) -> Schema:
        """This schema with the given columns declared anew; every other column stays as it is."""
        inputs, targets = dict(self.inputs), dict(self.targets)
        for name, spec in columns.items():
            inputs.pop(name, None)
            targets.pop(name, None)
            if isinstance(spec, typing.get_args(Target)):
                targets[name] = typing.cast(Target, spec)
            else:
                inputs[name] = typing.cast(Input, spec)
        return replace(self, inputs=inputs, targets=targets)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal schema back."""
        return {
            part: [_written_column(name, spec) for name, spec in getattr(self, part).items()]
            for part in ("inputs", "targets")
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Schema:
        """Read what `to_dict` wrote; an unknown kind or option is refused by name."""
        return cls(
            inputs={c["column"]: _read_column(c, INPUTS) for c in document["inputs"]},
            targets={c["column"]: _read_column(c, TARGETS) for c in document["targets"]},
        )

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(column, what it is, its options) for printing."""
        for role, part in (("", self.inputs), ("target: ", self.targets)):
            for name, spec in part.items():
                options = ", ".join(f"{key}={_short(value)}" for key, value in asdict(spec).items())
                yield name, role + spec.kind, options

    def __str__(self) -> str:
        rows = list(self.rows())
        wide = [max(len(row[i]) for row in rows) if rows else 0 for i in (0, 1)]
        return "\n".join(f"{name:<{wide[0]}}  {kind:<{wide[1]}}  {options}".rstrip() for name, kind, options in rows)


def check_columns(columns: object) -> None:
    """SchemaError unless `columns` declares columns: a mapping of names to what they are."""
    if not isinstance(columns, Mapping):
        raise SchemaError(f"columns: expected a mapping such as {{'title': Text()}}, got {columns!r}.")
    known = {kind.__name__: kind for kind in (*INPUTS.values(), *TARGETS.values())}
    for name, spec in columns.items():
        if spec is not None and not isinstance(spec, tuple(known.values())):
            written = {"category": "Tabular('category')", "number": "Tabular('number')"}.get(str(spec))
            by_kind = {**INPUTS, **TARGETS}.get(str(spec))
            hint = written or (f"{by_kind.__name__}()" if by_kind else f"one of {', '.join(sorted(known))}, or None")
            raise SchemaError(f"columns[{name!r}]: expected {hint}, got {spec!r}.")


def declared_to_dict(columns: Columns | Schema) -> dict[str, Any]:
    """Plain JSON types; `declared_from_dict` gives equal declarations back."""
    if isinstance(columns, Schema):
        return {"schema": columns.to_dict()}
    return {"columns": [_written_column(name, spec) for name, spec in columns.items()]}


def declared_from_dict(document: Mapping[str, Any]) -> dict[str, Input | Target | None] | Schema:
    """Read what `declared_to_dict` wrote; an unknown kind or option is refused by name."""
    if "schema" in document:
        return Schema.from_dict(document["schema"])
    kinds = {**INPUTS, **TARGETS}
    return {c["column"]: None if c["kind"] == "none" else _read_column(c, kinds) for c in document["columns"]}


def _written_column(name: str, spec: Input | Target | None) -> dict[str, Any]:
    if spec is None:
        return {"column": name, "kind": "none"}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
    return {"column": name, "kind": spec.kind, **values}


def _short(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 6:
        return f"({', '.join(map(repr, value[:5]))}, … {len(value)} in all)"
    return repr(value)


def _read_column(document: Mapping[str, Any], kinds: Mapping[str, type]) -> Any:
    options = dict(document)
    name, kind = options.pop("column"), options.pop("kind")
    if kind not in kinds:
        raise SchemaError(f"column {name!r}: {unknown_name('kind', kind, kinds)}")
    known = {f.name for f in fields(kinds[kind])}
    for option in options:
        if option not in known:
            raise SchemaError(f"column {name!r}: {unknown_name(f'option of {kind}', option, known)}")
    if "classes" in options:
        options["classes"] = tuple(options["classes"])
    return kinds[kind](**options)

"""What a configuration says about a run: targets, columns, settings."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphfusion.config import PRESETS, SECTIONS, RunConfig, check_value, described, settings_of
from graphfusion.config_file.document import parse_yaml, read_document
from graphfusion.errors import ConfigError, GraphFusionError, unknown_name
from graphfusion.schema import INPUTS, TARGETS, Input, Target

KEYS = ("target", "preset", "seed", "model", "training", "columns")
"""What stands at the top of a configuration."""
Change = tuple[tuple[str, ...], Any]
"""Where in a configuration, and the value that goes there."""
_COLUMNS: dict[str, type[Any]] = {**INPUTS, **TARGETS}
_INPUT_WORDS = {"category": ("tabular", {"values": "category"}), "number": ("tabular", {"values": "number"})}
_TARGET_WORDS: dict[str, tuple[str, dict[str, Any]]] = {"category": ("class", {})}


@dataclass(frozen=True)
class Run:
    """The arguments of a `FusionPredictor`; `settings` by their flat names, those of the preset left out."""

    targets: tuple[str, ...] = ()
    preset: str = "fast"
    seed: int = 0
    columns: Mapping[str, Input | Target | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, document: Any) -> Run:
        """A run from plain values, every name and type checked.

        Raises:
            ConfigError, SchemaError: a key is unknown (with the nearest one), or a value of the wrong type or out of range.
        """
        if not isinstance(document, Mapping):
            raise ConfigError(f"expected a mapping with some of {', '.join(KEYS)}, got {described(document)}.")
        for key in document:
            if key not in KEYS:
                raise ConfigError(_unknown_key(key))
        preset = check_value("preset", document.get("preset", "fast"), str)
        if preset not in PRESETS:
            raise ConfigError(unknown_name("preset", preset, PRESETS))
        seed = check_value("seed", document.get("seed", 0), int)
        settings = settings_of({name: document[name] for name in SECTIONS if name in document})
        RunConfig(PRESETS[preset].model, PRESETS[preset].training, seed).override(settings)
        targets = _targets(document["target"]) if "target" in document else ()
        columns = check_value("columns", document.get("columns", {}), Mapping[str, Any])
        return cls(targets, preset, seed, {n: _column(n, c, n in targets) for n, c in columns.items()}, settings)


def read_run(path: Path | None = None, changes: Sequence[Change] = ()) -> Run:
    """The run that a YAML or JSON file describes, then changed. A file must be right by itself.

        target: label
        preset: fast
        seed: 0
        model: {dim: 32}
        training: {lr: 1e-3, epochs: 5}
        columns: {title: text, price: {kind: tabular, values: category}, id: null}

    Raises:
        ConfigError, SchemaError: as `Run.from_dict` and `read_document`; the message begins with the file's name, or with
            "command line" where a change is at fault.
    """
    document: Any = {}
    if path is not None:
        with _told(str(path)):
            document = read_document(path)
            Run.from_dict(document)
    with _told("command line"):
        for place, value in changes:
            document = _changed(document, place, value)
        return Run.from_dict(document)


def read_change(text: str, below: str = "") -> Change:
    """`training.lr=1e-3` (or `lr=1e-3`, since a setting's name says where it stands) as a change; the value is read as YAML.

    `below`: the key that the name stands under, as it is, dots and all.

    Raises:
        ConfigError: it is not NAME=VALUE, or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"expected NAME=VALUE, such as training.lr=1e-3 or title=text, got {text!r}.")
    place = (below, name) if below else tuple(name.strip().split("."))
    if place[0] not in KEYS:
        place = next(((section, *place) for section, names in SECTIONS.items() if place[0] in names), place)
    with _told(text):
        return place, parse_yaml(value) if value.strip() else None


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Puts where it comes from before the message of an error."""
    try:
        yield
    except GraphFusionError as error:
        raise type(error)(f"{where}: {error}") from error


def _changed(document: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A document with the value put at the place; mappings on the way are made."""
    head, rest = place[0], place[1:]
    if not rest:
        return {**document, head: value}
    inner = document.get(head) or {}
    if not isinstance(inner, Mapping):
        inner = {}  # a word such as `title: text`, replaced by its options
    return {**document, head: _changed(inner, rest, value)}


def _unknown_key(key: str) -> str:
    """Sentence for an unknown key at the top, which may be a setting that stands in the wrong place."""
    section = {name: section for section, names in SECTIONS.items() for name in names}
    near = difflib.get_close_matches(key, [*KEYS, *section], n=1, cutoff=0.6)
    if near and near[0] in section:
        name = near[0]
        return f"unknown key {key!r}. Did you mean the setting {name!r} of {section[name]}? Write {section[name]}: {{{name}: …}}."
    known = unknown_name("key", key, KEYS)
    if near:
        return known
    return f"{known} Settings: {', '.join(sorted(section))}. An option of a fusion strategy is fusion_options.NAME."


def _targets(value: Any) -> tuple[str, ...]:
    names = [value] if not isinstance(value, list | tuple) else list(value)
    if not names:
        raise ConfigError("target: expected a column or several, got an empty list.")
    return tuple(check_value("target", name, str) for name in names)


def _column(name: str, value: Any, is_target: bool) -> Input | Target | None:
    """What a column is, from a word (`text`, `category`, `none` …) or a mapping with `kind` and options."""
    if value is None or value == "none":
        return None
    options = (
        {"kind": value} if isinstance(value, str) else dict(check_value(f"columns.{name}", value, Mapping[str, Any]))
    )
    if "kind" not in options:
        raise ConfigError(f"columns.{name}: kind is missing; write kind: one of {', '.join(sorted(_COLUMNS))}.")
    kind = check_value(f"columns.{name}.kind", options.pop("kind"), str)
    kind, more = (_TARGET_WORDS if is_target else _INPUT_WORDS).get(kind, (kind, {}))
    options = {**more, **options}
    if kind not in _COLUMNS:
        raise ConfigError(f"columns.{name}: {unknown_name('kind', kind, {*_COLUMNS, 'category', 'none'})}")
    hints = {k: v for k, v in typing.get_type_hints(_COLUMNS[kind]).items() if k != "kind"}
    for option in options:
        if option not in hints:
            raise ConfigError(f"columns.{name}: {unknown_name(f'option of {kind}', option, hints)}")
    with _told(f"columns.{name}"):
        spec: Input | Target = _COLUMNS[kind](**{o: check_value(o, v, hints[o]) for o, v in options.items()})
        return spec

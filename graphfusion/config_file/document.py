"""Text of a configuration → plain values, within limits.

YAML is read by the rules of YAML 1.2: `true` and `false` are the only truth values, so `NO` stays a text, and `1e-3` is a
number. Anchors, aliases and tags are refused, so that nothing is written short that is long, and nothing names a class.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import yaml

from graphfusion.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_VALUES = 5_000
MAX_DIGITS = 40
ENDINGS = (".yaml", ".yml", ".json")

_NULL = ("", "~", "null", "Null", "NULL")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_HALF = re.compile("[\ud800-\udfff]")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")


def read_document(path: Path) -> Any:
    """The values of a `.yaml`, `.yml` or `.json` file.

    Raises:
        ConfigError: the file is not there, too large or of another kind, or `parse_yaml` or `parse_json` refuses it.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"expected a file ending in {', '.join(ENDINGS)}, got {path.suffix or 'no ending'}.")
    if not path.is_file():  # a pipe or device would never end
        raise ConfigError(f"no such file (looked from {Path.cwd()}).")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"expected UTF-8, got other bytes at byte {error.start}; save the file as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"expected at most {MAX_BYTES:,} bytes; a table or weights do not belong into a configuration."
        )
    return parse_json(text) if path.suffix.lower() == ".json" else parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text holds: mappings with text keys, lists, texts, numbers, truth values, None.

    Raises:
        ConfigError: it is not YAML, has an anchor, alias, tag, second document or repeated key, or exceeds a limit.
    """
    try:
        return _Reader(text).document()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f"{_place(place)}: " if place else ""
        advice = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise ConfigError(f"{where}not YAML: {error.problem or error.context}{advice}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}.") from error


def parse_json(text: str) -> Any:
    """The value that a JSON text holds, under the limits of `parse_yaml`.

    Raises:
        ConfigError: it is not JSON, has a repeated key, a number that is none (`NaN`) or exceeds a limit.
    """
    try:
        document = json.loads(text, object_pairs_hook=_mapping, parse_constant=_no_number, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    except RecursionError as error:
        raise ConfigError(_too_deep()) from error
    waiting, seen = [(document, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if isinstance(value, str):
            _whole(value)
        _hold_limits(seen, depth if isinstance(value, dict | list) else depth - 1)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((item, depth + 1) for item in inner)
    return document


class _Reader:
    """Builds the values of one YAML text from the parser's events, so that a bomb is noticed where it begins."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.seen = 0

    def document(self) -> Any:
        next(self.events)  # start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise ConfigError("there is nothing in it.")
        value = self._value(next(self.events), 1)
        next(self.events)  # end of the document
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            raise ConfigError("expected one document, got several; remove what follows the line '---'.")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        self._refuse(event)
        self.seen += 1
        if isinstance(event, yaml.ScalarEvent):
            _hold_limits(self.seen, depth - 1)
            return _scalar(event.value) if event.implicit[0] else _whole(event.value)
        _hold_limits(self.seen, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        found: dict[str, Any] = {}
        for item in self._until(yaml.MappingEndEvent):
            key = self._key(item, found)
            found[key] = self._value(next(self.events), depth + 1)
        return found

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self.events), end):
            yield event

    def _key(self, event: Any, before: Container[str]) -> str:
        """A key is the text that stands there, whatever it looks like: a column may be called 2020 or no."""
        self._refuse(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise ConfigError(f"{_place(event.start_mark)}: expected a name as key, got a list or mapping.")
        if event.value in before:
            raise ConfigError(f"{_place(event.start_mark)}: {_twice(event.value)}")
        return _whole(event.value)

    def _refuse(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise ConfigError(
                f"{_place(event.start_mark)}: '{sign}{event.anchor}' is not allowed; write the value out."
            )
        if event.tag and event.tag != "!":
            raise ConfigError(
                f"{_place(event.start_mark)}: the tag {event.tag[:60]!r} is not allowed; write the plain value."
            )


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _hold_limits(seen: int, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfigError(_too_deep())
    if seen > MAX_VALUES:
        raise ConfigError(f"expected at most {MAX_VALUES:,} values, got more.")


def _too_deep() -> str:
    return f"expected at most {MAX_DEPTH} levels, got more; a configuration is a mapping of mappings."


def _twice(key: str) -> str:
    return f"the key {key[:60]!r} is there twice; remove one."


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {_whole(key): value for key, value in pairs}
    if len(found) < len(pairs):
        raise ConfigError(_twice(Counter(key for key, _ in pairs).most_common(1)[0][0]))
    return found


def _whole(text: str) -> str:
    """A text without halves of characters, which could not be written again."""
    if _HALF.search(text):
        raise ConfigError(f"{text[:60]!a} has half a character; write the character itself.")
    return text


def _scalar(text: str) -> Any:
    """The value of a plain YAML scalar, by the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    special = _SPECIAL.fullmatch(text)
    return float(special[1] + special[2]) if special else text


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ConfigError(f"expected a number of at most {MAX_DIGITS} digits, got {len(text):,}.")
    return int(text)


def _no_number(text: str) -> None:
    raise ConfigError(f"{text} is no JSON number; write a number.")

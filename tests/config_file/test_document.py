"""Text → plain values: what YAML 1.2 says, and nothing more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfusion.config_file.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_json, parse_yaml, read_document
from graphfusion.errors import ConfigError

TEXT = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)  # beyond, JSON escapes in halves
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1e5", 100000.0), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("-3", -3), ("+3", 3), ("010", 10),
        ("NO", "NO"), ("off", "off"), ("yes", "yes"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("1_000", "1_000"), ("1:30", "1:30"), ("0x10", "0x10"), ("2020-01-02", "2020-01-02"), ("'3'", "3"), ('"true"', "true"),
        ("-.inf", -float("inf")), ("a b", "a b"), ("[1, a, {b: 2}]", [1, "a", {"b": 2}]), ("a:\n- 1\n- x: 2", {"a": [1, {"x": 2}]}),
        ("2020: 1\nno: 2\nnull: 3", {"2020": 1, "no": 2, "null": 3}), ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    ],
)  # fmt: skip
def test_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


@given(PLAIN)
def test_json_gives_what_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(max_examples=50)
@given(PLAIN)
def test_json_is_yaml(value: Any) -> None:
    assert parse_yaml(json.dumps(value)) == value


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(text)
        except ConfigError as error:
            assert str(error)  # noqa: PT017 - both ways are right


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1", "'&x' is not allowed"), ("a: *x", "'*x' is not allowed"), ("&x a: 1", "'&x' is not allowed"),
        ("a: !!python/name:os.system", "tag"), ("a: !!int '3'", "tag"), ("!x {a: 1}", "tag"),
        ("a: 1\n---\nb: 1", "one document"), ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is there twice"),
        ("", "nothing in it"), ("# only a comment", "nothing in it"), ("? [a]\n: 1", "expected a name as key"),
        ("a: \"\\ud83d\\ude00\"", "half a character"), ("\"\\udc00\": 1", "half a character"), ("a: [1", "not YAML"), ("\x01", "not YAML"), ("9" * 99, "40 digits"),
    ],
)  # fmt: skip
def test_what_yaml_may_not_hold(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"), ('{"a": NaN}', "NaN is no JSON"), ("[1,]", "line 1, column 4"),
        ("9" * 99, "40 digits"), ("[" * 9999, "levels"), ('["\\ud83d"]', "half a character"), ('{"\\ud83d": 1}', "half a character"), ("", "not JSON"),
    ],
)  # fmt: skip
def test_what_json_may_not_hold(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_json(text)


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_limits_are_where_they_are_said_to_be(parse: Any) -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    wide = json.dumps([1] * (MAX_VALUES - 1))
    assert str(parse(deep)) == deep
    assert len(parse(wide)) == MAX_VALUES - 1
    with pytest.raises(ConfigError, match=f"at most {MAX_DEPTH} levels"):
        parse(f"[{deep}]")
    with pytest.raises(ConfigError, match=f"at most {MAX_VALUES:,} values"):
        parse(json.dumps([1] * MAX_VALUES))


def test_only_files_of_text_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "utf16.yaml").write_text("a: 1", encoding="utf-16")
    (tmp_path / "large.yaml").write_text("#" * (MAX_BYTES + 1))
    (tmp_path / "bom.yaml").write_text("a: 1", encoding="utf-8-sig")
    (tmp_path / "dir.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in (("utf16", "UTF-8"), ("large", "bytes"), ("dir", "no such file"), ("pipe", "no such file")):
        with pytest.raises(ConfigError, match=message):
            read_document(tmp_path / f"{name}.yaml")
    assert read_document(tmp_path / "bom.yaml") == {"a": 1}

"""Anyone's tables: CSV files, texts and label columns, written in a hurry."""

from __future__ import annotations

import codecs
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.data import read_table
from graphfusion.errors import CellError, GraphFusionError
from graphfusion.modalities import Modality, modality_from_dict, modality_to_dict
from graphfusion.modalities.tabular import TabularModality
from graphfusion.modalities.text import TextModality
from graphfusion.predictor import FusionPredictor
from graphfusion.schema import Class, MultiLabel, Number, Target
from graphfusion.selftest.figure import Figure, count
from graphfusion.training.checkpoint import from_json, to_json


@dataclass(frozen=True)
class Case:
    """What is right: the columns of the table and what a warning says, or what the error says."""

    right: Mapping[str, Sequence[Any]] | None = None
    said: Sequence[str] = ()
    error: Sequence[str] = ()


PLAIN = "name,n\nÄra,1\nzoë,2\n"
READ: dict[str, Sequence[Any]] = {"name": ["Ära", "zoë"], "n": [1, 2]}
LONG = "long " * 60_000
CSVS: dict[str, tuple[bytes, Case]] = {
    "UTF-8": (PLAIN.encode(), Case(READ)),
    "UTF-8 with a mark": (PLAIN.encode("utf-8-sig"), Case(READ)),
    "UTF-16 LE": (codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"), Case(READ)),
    "UTF-16 BE": (codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"), Case(READ)),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), Case(error=("line 1", "UTF-16", "save it as UTF-8"))),
    "Windows-1252": (PLAIN.encode("cp1252"), Case(READ, said=("2 lines", "line 2", "Windows-1252"))),
    "two encodings": (
        "name,n\nÄra,1\n".encode() + "zoë,2\n".encode("cp1252"),
        Case(READ, said=("1 lines", "line 3", "zoë")),
    ),
    "no encoding": (b"name,n\n\x81\x9d,1\n", Case(error=("line 2", "0x81", "save it as UTF-8"))),
    "semicolons": (PLAIN.replace(",", ";").encode(), Case(READ)),
    "tabs": (PLAIN.replace(",", "\t").encode(), Case(READ)),
    "bars": (PLAIN.replace(",", "|").encode(), Case(READ)),
    "decimal commas": (
        b'name;n;s\na;1,5;7,5 cm\nb;-1.234,25;8 cm\n"c;d";;\n',
        Case({"name": ["a", "b", "c;d"], "n": [1.5, -1234.25, None], "s": ["7,5 cm", "8 cm", None]}),
    ),
    "a line that names the delimiter": (b"sep=;\r\na;b\r\n1;x, y\r\n", Case({"a": [1], "b": ["x, y"]})),
    "a row too long": (b"a,b\n1,2\n3,4,5\n", Case(error=("line 3", "expected 2", "got 3", "quotes"))),
    "a row too short": (b'a,b\n1,"x\ny"\n\n3\n', Case(error=("line 5", "expected 2", "got 1"))),
    "a name twice": (b"a,b,a \n1,2,3\n", Case(error=("line 1", "'a'", "columns 1, 3", "rename"))),
    "NUL": (b"a,b\n1,x\n2,\0\n", Case(error=("line 3", "NUL"))),
    "no rows": (b"a,b\n", Case({"a": [], "b": []})),
    "no bytes": (b"", Case(error=("line 1", "no names of columns"))),
    "a quote that never closes": (b'a,b\n1,x\n2,"y\n3,z\n', Case(error=("line 3", "quotes", "close them"))),
    "a quote within quotes": (b'a,b\n1,"she said "hi", then"\n', Case(error=("line 2", "quotes", "double"))),
    "everything in quotes": (
        f'a,"b, c"\n"x\r\ny","say ""hi"", {LONG}"\n"",5" pipe\n'.encode(),
        Case({"a": ["x\r\ny", None], "b, c": [f'say "hi", {LONG}', '5" pipe']}),
    ),
    "line ends of three systems": (b"a,b\r\n1,2\n\n3,4\r5,6", Case({"a": [1, 3, 5], "b": [2, 4, 6]})),
    "two delimiters": (b"a;b,c\n1;2,3\n", Case(error=("line 1", "cannot tell", "quotes"))),
}


def i60(work: Path, full: bool) -> Figure:
    """24 CSV files: the right table, with a warning where an encoding is guessed, or an error that names line and fix."""
    found = {name: _csv(work / f"{i}.csv", *case) for i, (name, case) in enumerate(CSVS.items())}
    return count("I60", "CSV files: the right table, or an error that names line and fix", found)


def _csv(path: Path, data: bytes, case: Case) -> str | None:
    path.write_bytes(data)
    return _wrong(lambda: read_table(path).columns, case)


def _wrong(make: Callable[[], Mapping[str, Any]], case: Case) -> str | None:
    """Why what `make` gives, warns of or raises is not what the case says; None if it is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made: Mapping[str, Any] | None = make()
            told = ""
        except GraphFusionError as error:
            made, told = None, str(error)
        except Exception as error:  # whatever else comes out is what this looks for
            return f"{type(error).__name__}: {error}"
    warned = " ".join(str(w.message) for w in caught)
    missing = [part for part in case.error if part not in told] + [part for part in case.said if part not in warned]
    if missing:
        return f"{missing[0]!r} is in no message ({(told or warned)[:120]!r})"
    if not case.error and made is None:
        return f"refused: {told[:120]}"
    if case.right is not None and (made is None or {**made} != {**case.right}):
        return f"expected {str(case.right)[:80]}, got {str(made)[:80]}"
    if warned and not case.said:
        return f"warned: {warned[:120]}"
    return None


TEXTS: dict[str, Any] = {
    "empty": "",
    "blanks": "   ",
    "line ends": "\r\n\t",
    "wide blanks": "\u00a0\u2003\u3000",
    "None": None,
    "NaN": float("nan"),
    "NaN of numpy": np.float32("nan"),
    "one letter": "a",
    "1 MB of words": "words " * 175_000,
    "a word of 300,000 letters": "x" * 300_000,
    "NUL": "a\0b",
    "half a character": "a\ud800b",
    "half a character alone": "\udfff",
    "right to left": "שלום עולם, مرحبا بالعالم",
    "an override of direction": "user\u202etxt.exe",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "accents on accents": "Z\u0300\u0301\u0302a\u0323\u0307l\u0334go e\u0301",
    "Chinese": "图神经网络融合多模态数据",
    "control characters": "\x1b[31mred\x07\x7f\ufeff",
    "a number": 2020,
}
BLANK = {"empty", "blanks", "line ends", "wide blanks", "None", "NaN", "NaN of numpy"}


def i41(work: Path, full: bool) -> Figure:
    """20 texts through the table, as texts and as categories, by what was learned and by what was saved and loaded of it.

    A blank text and a missing one are the same: no tokens. Any other gives tokens whose text, put together, is the one that
    went in (lower case, composed; half characters as `?`), up to `max_tokens`, the same after saving and loading.
    """
    table = read_table({"text": list(TEXTS.values()), "n": [1.0] * len(TEXTS)})
    cells = dict(zip(TEXTS, table.column("text"), strict=True))
    rows = [{"text": cell} for cell in cells.values()]
    words = TextModality("text", max_tokens=300).fit(rows, work)
    categories = TabularModality({"text": "category"}).fit(rows, work)
    saved = [_saved(modality, work / f"{modality.node_type.kind}.json") for modality in (words, categories)]
    found = {name: _text(name, cell, words) or _other([words, categories], saved, cell) for name, cell in cells.items()}
    return count("I41", "texts: no tokens for a blank one, else what went in; the same when loaded", found)


def _saved(modality: Modality, path: Path) -> Modality:
    """A modality as it is read back from the file that it is written to."""
    path.write_bytes(to_json(modality_to_dict(modality)))
    return modality_from_dict(from_json(path.read_bytes(), path.name))


def _other(fitted: Sequence[Modality], saved: Sequence[Modality], cell: Any) -> str | None:
    """Whether a cell has other tokens once a modality is saved and loaded."""
    if cell is None:
        return None
    one, other = ([m.tokens({"text": cell}, Path()).values for m in each] for each in (fitted, saved))
    same = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return None if same else "other tokens once saved and loaded"


def _text(name: str, cell: Any, fitted: TextModality) -> str | None:
    if cell is None:
        raw = TEXTS[name]
        silent = not isinstance(raw, str) or not len(fitted.tokens({"text": raw}, Path()))
        return None if name in BLANK and silent else "taken for missing"
    try:
        tokens = fitted.tokens({"text": cell}, Path())
        tokens.check(fitted.node_type, "text")
    except Exception as error:  # whatever comes out is what this looks for
        return f"{type(error).__name__}: {error}"
    if name in BLANK or not 0 < len(tokens) <= fitted.max_tokens:
        return f"{len(tokens)} tokens"
    text = "".join("?" if "\ud800" <= c <= "\udfff" else c for c in str(cell))
    whole, got = unicodedata.normalize("NFC", text).lower(), fitted.decode(tokens.values.tolist()).removeprefix(" ")
    if not (whole.startswith(got) if len(tokens) == fitted.max_tokens else whole == got):
        return f"the tokens say {got[:40]!r}"
    if (tokens.span < 0).any() or (tokens.span > len(text)).any() or (tokens.span[:, 0] > tokens.span[:, 1]).any():
        return "a span lies outside the text"
    return None


@dataclass(frozen=True)
class Labels:
    """Labels of the training rows and of new ones, repeated; the target if it is declared; what comes of a fit and a score:
    the classes (None for a number) and rows scored, or a message.
    """

    train: Sequence[Any]
    new: Sequence[Any]
    case: Case
    spec: Target | None = None
    valid: Sequence[Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def _learned(classes: tuple[Any, ...] | None, rows: int) -> dict[str, Sequence[Any]]:
    return {"classes": [*classes] if classes is not None else [None], "rows": [rows]}


LABELS: dict[str, Labels] = {
    "one that no training row had": Labels(
        "ab", "aZb", Case(error=("row 1", "'y'", "unknown class 'Z'", "Known: a, b"))
    ),
    "the same, counted as wrong": Labels("ab", "aZb", Case(_learned(("a", "b"), 3)), options={"unseen": "wrong"}),
    "the same, to validate with": Labels("ab", "ab", Case(_learned(("a", "b"), 2)), valid="aZ"),
    "one class": Labels("aa", "a", Case(error=("'y'", "two classes", "['a']"))),
    "some missing": Labels(["a", float("nan"), "b", None, ""], ["a", None, "b"], Case(_learned(("a", "b"), 2))),
    "all missing": Labels([float("nan"), None, " "], "a", Case(error=("'y'", "no row has a value"))),
    "truth values": Labels([True, False], [True, False, None], Case(_learned((False, True), 2))),
    "truth values and numbers": Labels([True, False, 1, 0], [1], Case(error=("'y'", "cannot tell", "bool, int"))),
    "whole numbers as floats": Labels([1.0, 2.0, None], [1, 2.0], Case(_learned((1, 2), 2)), Class()),
    "the same, not declared": Labels(
        [1.0, 2.0, None], [1, 2.0], Case(_learned(None, 2), said=("'y'", "2 whole ones", "Class()"))
    ),
    "texts and numbers": Labels(["1", 1, 2], [1], Case(error=("'y'", "mixed kinds", "number", "text")), Class()),
    "several in a text": Labels(
        ["red|blue", "blue", "red"],
        ["blue"],
        Case(_learned(("blue", "red", "red|blue"), 1), said=("'y'", "MultiLabel")),
    ),
    "several, one of them unknown": Labels(
        ["red|blue", "blue", ""],
        ["blue", "red|green"],
        Case(error=("row 1", "'y'", "unknown label 'green'")),
        MultiLabel(),
    ),
    "several where one is meant": Labels([["a"], ["b"]], ["a"], Case(error=("row 0", "'y'", "MultiLabel()")), Class()),
    "an infinite number": Labels(
        [1.5, float("inf"), 2.5], [1.5], Case(error=("row 1", "'y'", "finite", "inf")), Number()
    ),
}


def i61(work: Path, full: bool) -> Figure:
    """15 label columns through a fit of one epoch and a score: learned as stated, or refused by name before the first step."""
    found = {name: _wrong(partial(_fit, labels), labels.case) for name, labels in LABELS.items()}
    return count("I61", "label columns: learned as stated, or refused by name", found)


def _fit(labels: Labels) -> dict[str, Sequence[Any]]:
    columns = {} if labels.spec is None else {"y": labels.spec}
    predictor = FusionPredictor("y", columns=columns, epochs=1, dim=8, heads=2, layers=1, batch_size=64)
    valid = None if labels.valid is None else _labelled(labels.valid)
    predictor.fit(_labelled([*labels.train] * 4), valid, quiet=True)
    classes = getattr(predictor.schema.targets["y"], "classes", None)
    rows = _labelled(labels.new)
    answers = predictor.predict(rows)
    strange = [answer for answer in answers if classes is not None and not {*np.atleast_1d(answer)} <= {*classes}]
    if strange or len(answers) != len(rows):
        raise CellError(f"answers {answers} to {len(rows)} rows, classes {classes}")
    return _learned(classes, predictor.evaluate(rows, **labels.options)["rows"])


def _labelled(labels: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"x": float(i % 3), "text": f"row {i % 5} of some", "y": label} for i, label in enumerate(labels)]

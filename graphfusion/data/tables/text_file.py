"""The text of a file of whatever usual encoding."""

from __future__ import annotations

import codecs
import re
import warnings
from pathlib import Path

from graphfusion.errors import TableError

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order mark → codec that reads and drops it; UTF-32 first, since its mark begins with that of UTF-16."""


def read_text(path: Path) -> str:
    """The text of a UTF-8, UTF-16 or UTF-32 file (the latter two with a byte-order mark), line ends as they are.

    Lines that are not UTF-8 are taken for Windows-1252, of which Latin-1 is a part, and a warning names the first one.

    Raises:
        TableError: the file cannot be decoded, or holds NUL characters; the message names the line.
    """
    text = _decode(path.read_bytes(), path)
    if "\0" in text:
        raise _no_text(path, line_of(text, text.index("\0")))
    return text


def line_of(text: str, place: int) -> int:
    """The number, from 1, of the line that character `place` lies in."""
    return 1 + len(re.findall(r"\r\n|\r|\n", text[:place]))


def _decode(data: bytes, path: Path) -> str:
    codec = next((codec for mark, codec in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        if codec not in ("utf-8", "utf-8-sig"):
            raise TableError(f"{path}: its byte-order mark says {codec}, but {error}; save it as UTF-8.") from error
    return _decode_lines(data.removeprefix(codecs.BOM_UTF8), path)


def _no_text(path: Path, line: int) -> TableError:
    return TableError(
        f"{path}, line {line}: a NUL character, so this is no text file or UTF-16 without a byte-order mark; save it as "
        "UTF-8."
    )


def _decode_lines(data: bytes, path: Path) -> str:
    """Each line as UTF-8 if it is that, else as Windows-1252."""
    if b"\0" in data:
        raise _no_text(path, 1 + len(data[: data.index(b"\0")].splitlines()[:-1]))
    lines, odd = [], []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(_windows(line, number, path))
            odd.append(number)
    warnings.warn(
        f"{path}: {len(odd)} lines are not UTF-8 and are read as Windows-1252, the first is line {odd[0]}: "
        f"{lines[odd[0] - 1].strip()[:60]!r}; save the file as UTF-8 if that looks wrong.",
        stacklevel=6,
    )
    return "".join(lines)


def _windows(line: bytes, number: int, path: Path) -> str:
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}, line {number}: neither UTF-8 nor Windows-1252 (byte 0x{line[error.start]:02x}); save it as UTF-8."
        ) from error

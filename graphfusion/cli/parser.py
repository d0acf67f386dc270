"""Options: how they are explained, and those that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from graphfusion.config import POLICIES, ModelConfig, TrainingConfig
from graphfusion.errors import TableError, unknown_name

SETTINGS = {f.name for config in (ModelConfig, TrainingConfig) for f in dataclasses.fields(config)}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Text as it stands; the default of an option, where it has one, after its explanation."""

    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.option_strings and action.default not in (None, False, [], argparse.SUPPRESS)
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name for an unknown option."""

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parsed arguments; SystemExit with 2 where they are wrong."""
        given = list(sys.argv[1:] if arguments is None else arguments)
        options, rest = self.parse_known_args(given)
        if rest:
            self.refuse(rest[0], options.command)
        return options

    def refuse(self, argument: str, command: str) -> NoReturn:
        """Say that an argument has no meaning for a command."""
        assert self._subparsers is not None
        choices: dict[str, Parser] = self._subparsers._group_actions[0].choices  # type: ignore[assignment]
        if argument.startswith("--") and argument[2:].partition("=")[0] in SETTINGS and command == "fit":
            choices[command].error(f"{argument} is a setting: write --set {argument[2:].partition('=')[0]}=…")
        known = [o for action in choices[command]._actions for o in action.option_strings if o.startswith("--")]
        is_option = argument.startswith("-")
        choices[command].error(unknown_name("option", argument.partition("=")[0], known) if is_option else
                               f"{argument!r} is one argument too many; lists such as --set go last.")  # fmt: skip

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        if "required: TABLE" in message or "required: MODEL" in message:
            message += "; lists such as --set take all that follows them, so they go last"
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def add_command(commands: Any, name: str, sentence: str, example: str) -> Parser:
    """A command that explains itself: one sentence, one example, then its options."""
    parser: Parser = commands.add_parser(
        name,
        help=sentence,
        description=f"{sentence}\n\nexample:\n  {example}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    return parser


def add_model_and_table(parser: Parser) -> None:
    """MODEL TABLE."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="folder that a fit wrote")
    parser.add_argument("table", metavar="TABLE", help="rows: .csv, .jsonl or .parquet file")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one"
    )


def add_row_options(parser: Parser, with_modalities: bool = True) -> None:
    """What to do about the rows."""
    group = parser.add_argument_group("rows")
    group.add_argument("--media-root", metavar="DIR", help="folder of the media files; without it, that of the table")
    explained = "a cell that cannot be read: stop, leave out its row (the answer is empty), or go on without it"
    group.add_argument("--on-error", choices=POLICIES, default="error", help=explained)
    if with_modalities:
        group.add_argument("--incidents", type=Path, metavar="FILE.jsonl",
                           help="also write each cell left out, taken as missing or cut: row, column, file, reason")  # fmt: skip
        group.add_argument("--without", nargs="+", default=[], metavar="NAME", help="modalities to withhold")


def check_incidents(options: argparse.Namespace) -> None:
    """TableError if `--incidents` cannot be written, or is the table or the answers; so that this is known before the work."""
    path: Path | None = options.incidents
    if path is None:
        return
    if path.suffix.lower() != ".jsonl":
        raise TableError(f"--incidents {path}: expected a file that ends in .jsonl.")
    check_writable("--incidents", path, options.table)
    out = getattr(options, "out", None)
    if out is not None and path.resolve() == out.resolve():
        raise TableError(f"--incidents {path}: that is where the answers go (--out); choose another file.")


def check_writable(option: str, path: Path, table: str = "") -> None:
    """TableError if a file cannot be written there, or is the table that is read, if one is."""
    if not path.parent.is_dir():
        raise TableError(f"{option} {path}: there is no folder {path.parent}; make it first.")
    if path.exists() and os.path.exists(table) and path.samefile(table):
        raise TableError(f"{option} {path}: that is the table itself, which would be lost; choose another file.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise TableError(f"{option} {path}: cannot be written there.")


def write_incidents(predictor: Any, options: argparse.Namespace) -> None:
    """What the last answer's report says, where a file is asked for; a note of columns that the table lacks."""
    if predictor.report and predictor.report.absent:
        names = ", ".join(map(repr, predictor.report.absent))
        print(f"note: {options.table} has no column {names}: missing in every row", file=sys.stderr)
    if options.incidents:
        options.incidents.write_text(predictor.report.json_lines() if predictor.report else "", encoding="utf-8")


def row_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those options as arguments of the methods of `FusionPredictor`."""
    return {"without": tuple(options.without), "on_error": options.on_error, "media_root": options.media_root}

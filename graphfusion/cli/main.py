"""Entry point: arguments in, exit code out. 0 fine, 1 something was found wrong, 2 wrong use or input, 130 interrupted."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphfusion.cli import doctor, embed, evaluate, fit, predict, selftest
from graphfusion.cli.parser import Parser, add_command
from graphfusion.errors import GraphFusionError, TableError

COMMANDS: dict[str, Any] = {
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "embed": embed,
    "doctor": doctor,
    "selftest": selftest,
}
"""Name → module with SENTENCE, EXAMPLE, `add_options(parser)` and `run(options)`."""


OPTIONS: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"fit\(…, save_path='([^']*)', resume='auto'\)": r"graphfusion fit … --out \1 --resume auto",
    r"'missing' or 'skip' to go on": "missing or skip to go on",
    r"\b(on_error|resume|unseen)='(\w+)'": lambda found: f"--{found[1].replace('_', '-')} {found[2]}",
    r"\bon_error=": "--on-error ",
    r"\bsave_path\b": "--out",
    r"\bmedia_root=": "--media-root",
    r"\bcolumns=\{'([^']*)': (\w+)\(\)\}": lambda found: f"--columns {found[1]}={_kind(found[2])}",
    r"\bcolumns=\{'([^']*)': (\w+)\((\w+)=('[^']*')\)\}": lambda found: (
        f'--columns "{found[1]}={{kind: {_kind(found[2])}, {found[3]}: {found[4]}}}"'
    ),
    r"\bcolumns=": "--columns",
}
"""How an argument is written in a message → how it is written here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. SystemExit where arguments are wrong or a signal ended a fit."""
    options = make_parser().parse(arguments)
    try:
        with _notes_on_stderr():
            code: int = COMMANDS[options.command].run(options)
            _flush_stdout()
            return code
    except BrokenPipeError:  # the reader, `head` for example, has all it wants
        _end_stdout()
        return 0
    except GraphFusionError as error:
        print(f"error: {as_options(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def make_parser() -> Parser:
    """All commands with their options."""
    parser = Parser(
        prog="graphfusion", description="Fuse text, images, audio and tables as one graph.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, module in COMMANDS.items():
        module.add_options(add_command(commands, name, module.SENTENCE, module.EXAMPLE))
    return parser


def as_options(message: str) -> str:
    """A message that speaks of arguments of Python, as a user of the command line knows them."""
    for pattern, written in OPTIONS.items():
        message = re.sub(pattern, written, message)
    return message


def _kind(name: str) -> str:
    """`MultiLabel` as a configuration has it: `multi_label`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _flush_stdout() -> None:
    """TableError if what was printed cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _end_stdout()
        raise TableError(f"stdout cannot be written: {error.strerror}.") from error


def _end_stdout() -> None:
    """What is left in the buffer goes nowhere, so that the interpreter does not stumble over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Warnings as one line each on stderr, without the place in our code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"note: {as_options(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield

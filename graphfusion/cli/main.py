"""Entry point: arguments in, exit code out. 0 fine, 1 something was found wrong, 2 wrong use or input, 130 interrupted."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphfusion.cli import doctor, embed, evaluate, fit, predict, selftest
from graphfusion.cli.parser import Parser, add_command
from graphfusion.errors import GraphFusionError

COMMANDS: dict[str, Any] = {
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "embed": embed,
    "doctor": doctor,
    "selftest": selftest,
}
"""Name → module with SENTENCE, EXAMPLE, `add_options(parser)` and `run(options)`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. SystemExit where arguments are wrong or a signal ended a fit."""
    options = make_parser().parse(arguments)
    try:
        with _notes_on_stderr():
            code: int = COMMANDS[options.command].run(options)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader, `head` for example, has all it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GraphFusionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
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


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Warnings as one line each on stderr, without the place in our code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield

"""Entry point: arguments in, exit code out. 0 fine, 1 something was found wrong, 2 wrong use or input, 130 interrupted."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphfusion import __version__
from graphfusion.cli import doctor, embed, evaluate, fit, predict, selftest, weigh
from graphfusion.cli.parser import Parser, add_command
from graphfusion.cli.streams import mend_streams, to_stdout
from graphfusion.errors import GraphFusionError

COMMANDS: dict[str, Any] = {
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "embed": embed,
    "weigh": weigh,
    "doctor": doctor,
    "selftest": selftest,
}
"""Name → module with SENTENCE, EXAMPLE, `add_options(parser)` and `run(options)`."""


_QUOTED = r"('[^']*'|\"[^\"]*\")"
"""How Python writes a text."""
OPTIONS: dict[str, str | Callable[[re.Match[str]], str]] = {
    rf"fit\(…, save_path={_QUOTED}, resume='auto'\)": lambda found: (
        f"graphfusion fit … --out {_pasted(found[1])} --resume auto"
    ),
    r"'missing' or 'skip' to go on": "missing or skip to go on",
    r"\b(on_error|resume|unseen)='(\w+)'": lambda found: f"--{found[1].replace('_', '-')} {found[2]}",
    r"\bon_error=": "--on-error ",
    r"\b(another|the|below) save_path\b": r"\1 --out",
    r"^(save_path|media_root):": lambda found: {"save_path": "--out:", "media_root": "--media-root:"}[found[1]],
    r"\bmedia_root=": "--media-root",
    r"^valid=": "--valid ",
    r"^valid:": "--valid:",
    r"\bvalid=None\b": "--valid none",
    r"\bor None for no validation": "or none for no validation",
    r"\bpass valid=": "pass --valid",
    rf"\bcolumns=\{{{_QUOTED}: (\w+)\(\)\}}": lambda found: (
        f"--columns {shlex.quote(f'{ast.literal_eval(found[1])}={_kind(found[2])}')}"
    ),
    rf"\bcolumns=\{{{_QUOTED}: (\w+)\((\w+)=({_QUOTED})\)\}}": lambda found: (
        "--columns " + shlex.quote(f"{ast.literal_eval(found[1])}={{kind: {_kind(found[2])}, {found[3]}: {found[4]}}}")
    ),
    rf"\bcolumns=\{{{_QUOTED}: None\}}": lambda found: f"--columns {shlex.quote(f'{ast.literal_eval(found[1])}=none')}",
    r"\bcolumns=(?=[ .]|$)": "--columns",
    r"^(command line: unknown key .*) Write \w+: \{(\w+): …\}": r"\1 Write --set \2=…",
}
"""How an argument is written in a message → how it is written here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. SystemExit where arguments are wrong or a signal ended a fit."""
    mend_streams()
    options = make_parser().parse(arguments)
    try:
        with _notes_on_stderr():
            code: int = COMMANDS[options.command].run(options)
            with to_stdout():
                return code
    except BrokenPipeError:  # the reader, `head` for example, has all it wants
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
        prog="graphfusion",
        description="Fuse text, images, audio, video, tables and features as one graph.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"graphfusion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, module in COMMANDS.items():
        module.add_options(add_command(commands, name, module.SENTENCE, module.EXAMPLE))
    return parser


def as_options(message: str) -> str:
    """A message that speaks of arguments of Python, as a user of the command line knows them."""
    for pattern, written in OPTIONS.items():
        message = re.sub(pattern, written, message)
    return message


def _pasted(text: str) -> str:
    """A text as Python writes it, as a shell takes it."""
    return shlex.quote(ast.literal_eval(text))


def _kind(name: str) -> str:
    """`MultiLabel` as a configuration has it: `multi_label`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Warnings as one line each on stderr, without the place in our code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"note: {as_options(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield

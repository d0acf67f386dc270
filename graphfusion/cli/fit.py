"""`graphfusion fit`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from graphfusion.cli.parser import Parser, add_row_options
from graphfusion.config import PRESETS, ModelConfig, TrainingConfig
from graphfusion.config_file import Change, read_change, read_run
from graphfusion.errors import ConfigError

SENTENCE = "Fit a model to a table and save it with its best weights."
EXAMPLE = "graphfusion fit train.csv --target label --valid 0.1 --out runs/a --set lr=1e-3 epochs=5"


def add_options(parser: Parser) -> None:
    """The table, what a run is, how it goes."""
    parser.epilog = (
        "settings (fusion=help, graph=help, attention=help: an error that lists the words); help(graphfusion.ModelConfig) "
        f"and help(graphfusion.TrainingConfig) say what each is:\n{_settings()}"
    )
    parser.add_argument(
        "table", metavar="TABLE", help="training rows: .csv, .tsv, .jsonl or .parquet file, or folder of classes"
    )
    what = parser.add_argument_group("what to fit (each overrides the configuration file)")
    what.add_argument("--target", action="append", metavar="NAME", help="column to predict; again for another")
    what.add_argument("--config", type=Path, metavar="FILE",
                      help="YAML or JSON with target, preset, seed, model: {…}, training: {…}, columns: {name: kind}")  # fmt: skip
    what.add_argument("--preset", choices=tuple(PRESETS), help="starting point of all settings; without it, fast")
    what.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
                      help="settings, such as training.lr=1e-3 or model.dim=32, in short lr=1e-3 dim=32")  # fmt: skip
    what.add_argument("--columns", nargs="+", action="extend", default=[], metavar="NAME=KIND",
                      help="what columns are, such as title=text price=category id=none (left out)")  # fmt: skip
    what.add_argument("--seed", type=int, metavar="N", help="of every random choice; without it, 0")
    how = parser.add_argument_group("how it goes")
    how.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for the model, checkpoints and logs"
    )
    how.add_argument("--valid", default="0.1", metavar="SHARE|FILE", help="validation rows, or none")
    how.add_argument("--resume", choices=("auto", "restart", "never"), default="never",
                     help="if --out holds an earlier fit: go on from its last checkpoint, replace it, or refuse")  # fmt: skip
    how.add_argument("--time-limit", type=float, metavar="SECONDS", help="end after this time with what is best then")
    how.add_argument("--quiet", action="store_true", help="say nothing but errors")
    add_row_options(parser, with_modalities=False)


def _settings() -> str:
    """Every setting with its default, as `--set` takes it."""
    lines = []
    for config in (ModelConfig(), TrainingConfig()):
        known = ((name, list(value) if isinstance(value, tuple) else value) for name, value in vars(config).items())
        each = " ".join(f"{name}={json.dumps(value)}" for name, value in known)
        lines += textwrap.wrap(each, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Fit; progress goes to stderr."""
    valid = _valid(options.valid)
    found = read_run(options.config, _changes(options))
    if not found.targets:
        raise ConfigError("there is no target: pass --target NAME, or write target: NAME in the configuration file.")
    from graphfusion.predictor import FusionPredictor  # brings torch: after all that can be refused without it

    with redirect_stdout(sys.stderr):
        predictor = FusionPredictor(found.targets, found.preset, found.seed, found.columns, **found.settings)
        predictor.fit(
            options.table,
            valid=valid,
            save_path=options.out,
            time_limit=options.time_limit,
            resume=options.resume,
            on_error=options.on_error,
            media_root=options.media_root,
            quiet=options.quiet,
        )
    if not options.quiet:
        print(f"saved: {options.out}", file=sys.stderr)
    return 0


def _changes(options: argparse.Namespace) -> list[Change]:
    """What the command line says about the run, in the order of its weight."""
    found = [read_change(text) for text in options.set]
    found += [read_change(text, below="columns") for text in options.columns]
    for name in ("target", "preset", "seed"):
        if getattr(options, name) is not None:
            found.append(((name,), getattr(options, name)))
    return found


def _valid(text: str) -> Any:
    """A share, the path of a table, or None."""
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        if not os.path.exists(text):
            raise ConfigError(f"--valid {text}: expected a share such as 0.1, a table, or none.") from None
        return text

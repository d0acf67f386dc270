"""The command line: one command a module, each with a sentence, an example, its options and `run`."""

from graphfusion.cli.main import main

__all__ = ["main"]

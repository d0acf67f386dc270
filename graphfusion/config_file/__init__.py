"""The one door for configurations: a file of plain values in, a checked `Run` out. Nothing in it names code."""

from graphfusion.config_file.run import Change, Run, read_change, read_run

__all__ = ["Change", "Run", "read_change", "read_run"]

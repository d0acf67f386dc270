"""Rows in: tables, media, samples, splits, batches by budget, counted randomness, downloads."""

from graphfusion.data.media.audio import read_audio
from graphfusion.data.media.image import read_image
from graphfusion.data.random import counted_rng, counted_seed
from graphfusion.data.sample import Incident, Report, Sample
from graphfusion.data.sampler import Budget, pack, shuffled
from graphfusion.data.split import split_rows
from graphfusion.data.tables.table import Table, read_table, sealed

__all__ = [
    "Budget", "Incident", "Report", "Sample", "Table", "counted_rng", "counted_seed",
    "pack", "read_audio", "read_image", "read_table", "sealed", "shuffled", "split_rows",
]  # fmt: skip

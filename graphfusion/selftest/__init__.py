"""Faults, bad inputs and attacks, tried on this machine: `graphfusion selftest`.

Each check is a function of a folder and `full`; it makes its own cases with fixed seeds and needs no network.
"""

from graphfusion.selftest import (
    archives,
    configs,
    fits,
    folders,
    forgeries,
    huge_rows,
    images,
    invariants,
    lint,
    media,
    odd_graphs,
    predictors,
    random_tables,
    sounds,
    tables,
    video,
)
from graphfusion.selftest.figure import Check, Figure

CHECKS: dict[str, Check] = {
    "R01": folders.r01,
    "R02": folders.r02,
    "R03": folders.r03,
    "R04": fits.r04,
    "R05": folders.r05,
    "R06": folders.r06,
    "R07": fits.r07,
    "R11": fits.r11,
    "R16": fits.r16,
    "R17": huge_rows.r17,
    "R18": fits.r18,
    "R21": predictors.r21,
    "R23": invariants.r23,
    "R24": predictors.r24,
    "R26": invariants.r26,
    "R27": invariants.r27,
    "I01": images.i01,
    "I10": images.i10,
    "I12": media.i12,
    "I20": sounds.i20,
    "I21": sounds.i21,
    "I30": video.i30,
    "I41": tables.i41,
    "I50": odd_graphs.i50,
    "I60": tables.i60,
    "I61": tables.i61,
    "I63": configs.i63,
    "I70": random_tables.i70,
    "S01": forgeries.s01,
    "S02": configs.s02,
    "S03": forgeries.s03,
    "S04": archives.s04,
    "S05": media.s05,
    "S06": media.s06,
    "S07": configs.s07,
    "S13": lint.s13,
}
"""Identifier → check, in the order in which they run: faults (R), bad inputs (I), attacks (S)."""

__all__ = ["CHECKS", "Check", "Figure"]

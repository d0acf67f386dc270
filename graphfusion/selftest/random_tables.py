"""Tables of random columns with anything missing or broken, through every stage but the training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from graphfusion.config import ModelConfig
from graphfusion.data import Budget, Report, Table, counted_rng, read_table
from graphfusion.data.infer import infer_schema
from graphfusion.graph_builder import GRAPHS
from graphfusion.modalities import Modality, TokenizedSample, modalities_of, prepare
from graphfusion.model import FusionModel, make_builder, make_model
from graphfusion.schema import Audio, Features, Image, Input, Tabular, Text
from graphfusion.selftest.figure import Figure, count
from graphfusion.tasks import learn_target, make_task
from graphfusion.training import Batches, Collate, embed_rows

SPECS: dict[str, Input] = {
    "text": Text(max_tokens=6, vocab_size=260),
    "image": Image(size=8, patch=4),
    "audio": Audio(bands=8, frames_per_token=2, max_seconds=0.5),
    "number": Tabular("number"),
    "category": Tabular("category"),
    "features": Features(width=3, max_tokens=5),
}
BROKEN: dict[str, list[Any]] = {
    "text": [b"bytes", ["list"]],
    "image": [b"junk", "missing.png", np.full((2, 2), 9.0)],
    "audio": [b"junk", "../out.wav", np.array([np.nan])],
    "number": ["many", float("inf")],
    "category": [],
    "features": [np.zeros((2, 9)), "text", np.full(3, np.nan)],
}
LETTERS = list("ab cdé\u05d0\u0645👍\0\ud800\u0301\n")


@dataclass(frozen=True)
class Drawn:
    """One case: columns of the table, its rows, graph preset, policy for broken cells and batch size; `broken` counts the
    rows that hold a cell no modality can read.
    """

    specs: Mapping[str, Input]
    rows: list[dict[str, Any]]
    graph: str
    on_error: str
    batch: int
    broken: int


def i70(work: Path, full: bool) -> Figure:
    """2,000 random tables (20 if not `full`): every row is ok, skipped or repaired, as many are told of as hold a broken cell,
    each one that is not skipped has an output and finite gradients, and the output does not depend on the size of the batch (1e-5).
    """
    found = {f"case {case}": _case(_draw(case), work) for case in range(2000 if full else 20)}
    return count("I70", "random tables: every row accounted for, the same in any batch", found)


def _draw(case: int) -> Drawn:
    rng = counted_rng(0, "selftest/random table", case)
    kinds = [str(kind) for kind in rng.choice(sorted(SPECS), int(rng.integers(1, 5)))]
    rows, broken = [], 0
    for i in range(int(rng.integers(2, 8))):
        drawn = {f"{kind} {k}": _cell(kind, rng) for k, kind in enumerate(kinds)}
        broken += any(is_broken for _, is_broken in drawn.values())
        label = "xy"[i] if i < 2 else ["x", "y", None][rng.integers(3)]
        rows.append({**{name: cell for name, (cell, _) in drawn.items()}, "label": label})
    specs = {f"{kind} {k}": SPECS[kind] for k, kind in enumerate(kinds)}
    graph, on_error = str(rng.choice(sorted(GRAPHS))), str(rng.choice(["skip", "missing"]))
    return Drawn(specs, rows, graph, on_error, int(rng.integers(1, 5)), broken)


def _cell(kind: str, rng: np.random.Generator) -> tuple[Any, bool]:
    """A cell, usually good, at times missing or broken, and whether it is broken."""
    state = rng.choice(["good", "missing", "broken"], p=[0.6, 0.25, 0.15])
    if state == "broken" and BROKEN[kind]:
        return BROKEN[kind][rng.integers(len(BROKEN[kind]))], True
    if state == "missing":
        return [None, float("nan"), ""][rng.integers(3)], False
    return GOOD[kind](rng), False


def _text(rng: np.random.Generator) -> Any:
    return "".join(rng.choice(LETTERS, int(rng.integers(0, 20))))


def _image(rng: np.random.Generator) -> Any:
    pixels = rng.integers(0, 256, (*rng.integers(1, 13, 2), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return [pixels, buffer.getvalue(), pixels / 255][rng.integers(3)]


def _audio(rng: np.random.Generator) -> Any:
    import soundfile

    wave = rng.normal(0, 0.1, int(rng.integers(0, 3000)))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.astype(np.float32), 8000, format="WAV")
    return [wave, buffer.getvalue(), {"array": wave, "sampling_rate": 8000}][rng.integers(3)]


def _number(rng: np.random.Generator) -> Any:
    return [int(rng.integers(-5, 6)), float(rng.normal(0, 1000))][rng.integers(2)]


def _category(rng: np.random.Generator) -> Any:
    return ["a", "b", True, 3][rng.integers(4)]


def _features(rng: np.random.Generator) -> Any:
    return rng.normal(size=(int(rng.integers(0, 8)), 3))


GOOD = {
    "text": _text, "image": _image, "audio": _audio, "number": _number, "category": _category, "features": _features,
}  # fmt: skip


def _case(drawn: Drawn, work: Path) -> str | None:
    try:
        table = read_table(drawn.rows, work)
        schema = infer_schema(table, ["label"], drawn.specs)
        raw = [sample.values for sample in table.samples(schema)]
        modalities = {name: m.fit(raw, table.root) for name, m in modalities_of(schema).items()}
        columns = {name: schema.columns_of(name) for name in modalities}
        samples, report = prepare(table.samples(schema), modalities, columns, table.root, drawn.on_error)
        return _unaccounted(drawn, samples, report) or _unequal(drawn, table, modalities, samples)
    except Exception as error:  # whatever comes out is what this looks for
        return f"{type(error).__name__}: {str(error)[:100]}"


def _unaccounted(drawn: Drawn, samples: list[TokenizedSample], report: Report) -> str | None:
    """Why the report is not true of the rows."""
    if not report.seen == len(drawn.rows) == report.ok + report.skipped + report.repaired:
        return f"{len(drawn.rows)} rows, but {str(report).splitlines()[0]}"
    unread = len({i.row for i in report.incidents if i.action in ("skipped", "missing")})
    if unread != drawn.broken:
        return f"{drawn.broken} rows hold a broken cell, but {unread} are told of"
    left_out = {i.row for i in report.incidents if i.action == "skipped"}
    if [sample.id for sample in samples] != [i for i in range(len(drawn.rows)) if i not in left_out]:
        return "the rows that are left are not those that were not skipped"
    return None


def _unequal(
    drawn: Drawn, table: Table, modalities: Mapping[str, Modality], samples: list[TokenizedSample]
) -> str | None:
    """Why the outputs, or the gradients, of the rows are not what they should be."""
    if not samples:
        return None
    model, collate = _model(drawn, table, modalities)
    one, other = (_outputs(model, collate, samples, size) for size in (drawn.batch, len(samples)))
    if one.shape != (len(samples), 8) or not one.isfinite().all():
        return f"outputs {tuple(one.shape)}, finite: {bool(one.isfinite().all())}"
    if not torch.allclose(one, other, rtol=0, atol=1e-5):
        return f"in batches of {drawn.batch} and {len(samples)} the outputs differ by {(one - other).abs().max():.1e}"
    model.train().loss(collate(samples)).backward()  # type: ignore[no-untyped-call]
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"the gradient of {bad[0]} is not finite" if bad else None


def _model(drawn: Drawn, table: Table, modalities: Mapping[str, Modality]) -> tuple[FusionModel, Collate]:
    config = ModelConfig(dim=8, heads=2, layers=1, graph=drawn.graph, dropout=0.0)
    builder = make_builder(modalities, config)
    schema = infer_schema(table, ["label"], drawn.specs)
    spec, scale = learn_target("label", schema.targets["label"], table.column("label"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = make_task("label", spec, scale, config.dim)
        model = make_model(modalities, builder, {"label": task}, config).eval()
    return model, Collate(builder, {"label": task})


def _outputs(model: FusionModel, collate: Collate, samples: list[TokenizedSample], size: int) -> Tensor:
    return embed_rows(model, Batches.of(samples, Budget(size, 10**6, 10**6), collate))

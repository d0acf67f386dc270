"""Configurations that are wrong (I63), that name code (S02), and that are short to write and long to read (S07).

All cases of the first two take a second; of the bombs, every third is tried where not all are asked for.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from graphfusion.config import PRESETS, SECTIONS
from graphfusion.config_file import read_run
from graphfusion.config_file.document import MAX_BYTES
from graphfusion.errors import ConfigError, GraphFusionError
from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.figure import Figure, count

SECONDS = 1.0
MEGABYTES = 50
_MODEL, _TRAINING = (", ".join(sorted(SECTIONS[section])) for section in ("model", "training"))
_PRESETS = ", ".join(sorted(PRESETS))
_KEYS = "columns, model, preset, seed, target, training"
_KINDS = (
    "audio, category, class, features, image, multi_label, none, number, pretrained_image, pretrained_text, tabular, text, "
    "video"
)

WRONG: dict[str, str] = {
    "training: {epochs: '3'}": "epochs: expected a whole number, got the text '3'; write 3 without quotes.",
    "training: {epochs: 1e5}": "epochs: expected a whole number, got 100000.0; write 100000.",
    "training: {epochs: '1e5'}": "epochs: expected a whole number, got the text '1e5'; write 100000 without quotes.",
    "training: {epochs: 2.5}": "epochs: expected a whole number, got 2.5.",
    "training: {epochs: true}": "epochs: expected a whole number, got true.",
    "training: {epochs: NO}": "epochs: expected a whole number, got the text 'NO'.",
    "training: {epochs: null}": "epochs: expected a whole number, got nothing.",
    "training: {epochs: [3]}": "epochs: expected a whole number, got a list of 1.",
    "training: {epochs: {a: 3}}": "epochs: expected a whole number, got a mapping with a.",
    "training: {epochs: 0}": "epochs: expected a whole number from 1, got 0.",
    "training: {batch_size: 1_000}": "batch_size: expected a whole number, got the text '1_000'; write 1000 without quotes.",
    "training: {lr: '1e-3'}": "lr: expected a number, got the text '1e-3'; write 0.001 without quotes.",
    "training: {lr: fast}": "lr: expected a number, got the text 'fast'.",
    "training: {lr: .nan}": "lr: expected a number, got nan.",
    "training: {lr: 1e999}": "lr: expected a number, got inf.",
    "training: {lr: -1}": "lr: expected a number from 0, got -1.",
    "training: {warmup: 1}": "warmup: expected a number from 0 to below 1, got 1.",
    "training: {precision: NO}": "unknown precision 'NO'. Did you mean 'no'? Known: bf16, fp16, no.",
    "training: {precision: false}": "precision: expected text, got false; write 'false' in quotes.",
    "training: {precision: 16}": "precision: expected text, got 16; write '16' in quotes.",
    "training: {device: gpu}": "unknown device 'gpu'. Did you mean 'cpu'? Known: auto, cpu, cuda.",
    "training: {epohs: 3}": f"training: unknown setting 'epohs'. Did you mean 'epochs'? Known: {_TRAINING}.",
    "training: {Epochs: 3}": f"training: unknown setting 'Epochs'. Did you mean 'epochs'? Known: {_TRAINING}.",
    "training: {dim: 8}": "training: 'dim' is a setting of model; write it there.",
    "training: 3": "training: expected a mapping, got 3; write {name: value}.",
    "model: {dimm: 8}": f"model: unknown setting 'dimm'. Did you mean 'dim'? Known: {_MODEL}.",
    "model: {dim: 10, heads: 4}": "dim: expected a multiple of heads=4, got 10.",
    "model: {dropout: 1.0}": "dropout: expected a number from 0 to below 1, got 1.0.",
    "model: {encoders: conv}": "encoders: expected a mapping, got the text 'conv'; write {name: value}.",
    "modle: {dim: 8}": f"unknown key 'modle'. Did you mean 'model'? Known: {_KEYS}.",
    "epohs: 3": "unknown key 'epohs'. Did you mean the setting 'epochs' of training? Write training: {epochs: …}.",
    "preset: fsat": f"unknown preset 'fsat'. Did you mean 'fast'? Known: {_PRESETS}.",
    "seed: '3'": "seed: expected a whole number, got the text '3'; write 3 without quotes.",
    "seed: -1": "seed: expected a whole number from 0, got -1.",
    "target: 2020": "target: expected text, got 2020; write '2020' in quotes.",
    "columns: {title: txt}": f"columns.title: unknown kind 'txt'. Did you mean 'text'? Known: {_KINDS}.",
    "columns: {title: {kind: text, lowercase: NO}}":
        "columns.title: lowercase: expected true or false, got the text 'NO'; write false.",
    "columns: {title: {kind: text, max_token: 3}}":
        "columns.title: unknown option of text 'max_token'. Did you mean 'max_tokens'? Known: lowercase, max_tokens, vocab_size.",
    "seed: 1\nseed: 2": "line 2, column 1: the key 'seed' is there twice; remove one.",
    "training:\n\tepochs: 3":
        "line 2, column 1: not YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs.",
}  # fmt: skip
"""Configuration → the whole message that refuses it."""

CANARY = "graphfusion_canary"
CODE: tuple[str, ...] = (
    f"_target_: {CANARY}.run",
    f"training: {{_target_: {CANARY}.run}}",
    f"model: {{_target_: {CANARY}.run, _args_: [1]}}",
    f"model: {{_partial_: true, _target_: {CANARY}.run}}",
    f"columns: {{title: {{_target_: {CANARY}.run}}}}",
    f"class_path: {CANARY}.Run",
    f"model: {{class_path: {CANARY}.Run, init_args: {{dim: 8}}}}",
    f"model: {{encoders: {{class_path: {CANARY}.Run}}}}",
    f"model: {{relations: [{{class_path: {CANARY}.Run}}]}}",
    f"model: {CANARY}.Run",
    f"auto_map: {{AutoModel: {CANARY}.Run}}",
    f"model: {{auto_map: {{AutoModel: {CANARY}.Run}}}}",
    "trust_remote_code: true",
    "model: {trust_remote_code: true}",
    f"columns: {{title: {{kind: text, encoder: {CANARY}.Run, trust_remote_code: true}}}}",
    f"training: {{optimizer: {CANARY}.SGD}}",
    f"model: {{fusion: {CANARY}.Run}}",
    f"model: {{fusion: '{CANARY}:Run'}}",
    f"model: {{encoders: {{image: {CANARY}.resnet18}}}}",
    f"model: {{relations: [{{kind: {CANARY}.Full}}]}}",
    f"columns: {{title: {CANARY}.Text}}",
    f"preset: {CANARY}",
    "model: {graph: '{0.__class__.__mro__}'}",
    "training: {optimizer: '%(password)s'}",
    "training: {device: '${oc.env:HOME}'}",
    "columns: {title: '{kind.__init__.__globals__}'}",
    f"model: !!python/object/apply:{CANARY}.run [1]",
    f"model: !!python/name:{CANARY}.Run",
    f"model: !!python/module:{CANARY}",
    f"!!python/object/new:{CANARY}.Run {{dim: 8}}",
)
"""Configurations that ask for code by name."""


def i63(work: Path, full: bool) -> Figure:
    """A wrong configuration is refused with the whole message that is expected of it, the nearest name included."""
    cases: dict[str, str | None] = {}
    for text, expected in WRONG.items():
        said = _refusal(_file(work, text))
        cases[text] = None if said == expected else f"said {said!r}"
    return count("I63", "wrong configurations refused with the exact message", cases)


def s02(work: Path, full: bool) -> Figure:
    """A configuration that names code is refused, nothing is imported meanwhile, and the module that it names does not
    run. A good configuration is read before, so that graphfusion's own late imports are done.
    """
    (work / f"{CANARY}.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n")
    _refusal(_file(work, "training: {lr: 1e-3}"))
    cases: dict[str, str | None] = {}
    with _imports_of(work) as imported:
        for text in CODE:
            imported.clear()
            refused = _refusal(_file(work, text)) is not None
            cases[text] = f"imported {imported[0]}" if imported else None if refused else "was not refused"
    if (work / f"{CANARY}.ran").exists():
        cases["canary"] = "ran"
    return count("S02", "configurations that name code refused, nothing imported", cases)


def s07(work: Path, full: bool) -> Figure:
    """A bomb is refused within a second of processor time and 50 MB of Python's memory, each measured in a run of its own."""
    chosen = list(bombs().items())[:: 1 if full else 3]
    cases = {name: _defused(_file(work, text, name.split()[0].lower())) for name, text in chosen}
    return count("S07", f"YAML and JSON bombs refused in {SECONDS:g} s and {MEGABYTES} MB", cases)


def bombs() -> dict[str, str]:
    """Format and name → text."""
    size = MAX_BYTES - 100
    letters = "abcdefghi"
    laughs = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(letters))
    merges = "".join(f"{b}: &{b} {{<<: *{a}, k{b}: 1}}\n" for a, b in pairwise(letters))
    return {
        "YAML billion laughs": f"a: &a [{', '.join(['lol'] * 9)}]\n{laughs}",
        "YAML one long text, often": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 20_000)}]",
        "YAML merged mappings": f"a: &a {{k: 1}}\n{merges}",
        "YAML list in itself": "a: &a [*a, *a]",
        "YAML deep lists": "[" * size,
        "YAML deep mappings": "{a: " * (size // 4),
        "YAML wide list": f"[{'1,' * (size // 2)}]",
        "YAML deep blocks": "".join(f"{' ' * i}a:\n" for i in range(700)),
        "YAML many keys": "".join(f"k{i}: 1\n" for i in range(size // 11)),
        "YAML many documents": "--- 1\n" * (size // 6),
        "YAML long number": f"seed: {'9' * (size - 10)}",
        "YAML large file": "#\n" * (10 * MAX_BYTES),
        "JSON deep lists": "[" * size,
        "JSON wide list": f"[{'[],' * (size // 3)}1]",
        "JSON long number": f'{{"seed": {"9" * (size - 20)}}}',
        "JSON repeated keys": "{" + ",".join(['"a":1'] * (size // 6)) + "}",
    }


def _file(work: Path, text: str, ending: str = "yaml") -> Path:
    path = work / f"run.{ending}"
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path) -> str | None:
    """What is said against a configuration, without the file's name; None if a predictor is made of it."""
    try:
        run = read_run(path)
        FusionPredictor(run.targets or "label", run.preset, run.seed, run.columns, **run.settings)
    except GraphFusionError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


@contextmanager
def _imports_of(folder: Path) -> Iterator[list[str]]:
    """Names of the modules that are looked for meanwhile, where those in `folder` would be found."""

    class Watch:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            found.append(name)

    found: list[str] = []
    watch: Any = Watch()
    sys.meta_path.insert(0, watch)
    sys.path.insert(0, str(folder))
    try:
        yield found
    finally:
        sys.meta_path.remove(watch)
        sys.path.remove(str(folder))


def _defused(path: Path) -> str | None:
    """None if a bomb is refused in time and memory, else what it took."""
    began = time.process_time()
    if not _refused(path):
        return "was read"
    seconds = time.process_time() - began
    tracemalloc.start()
    _refused(path)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return None if seconds <= SECONDS and peak <= MEGABYTES else f"{seconds:.1f} s, {peak:.0f} MB"


def _refused(path: Path) -> bool:
    try:
        read_run(path)
    except ConfigError:
        return True
    return False

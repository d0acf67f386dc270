"""Attacks by saved folders: files that hold code, name other files, or claim to be what they are not."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.errors import CheckpointError
from graphfusion.fit_folder import ARTEFACT
from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.apart import apart
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import make_rows, predictor
from graphfusion.training.checkpoint import FORMAT, MANIFEST, from_safetensors, read_folder, to_json

WEIGHTS, DOCUMENT = "weights.safetensors", "predictor.json"
SLACK = 32 * 2**20
"""Bytes beside twice the file: what it takes to read the longest header that is let pass."""
Files = Mapping[str, bytes]


def payloads(canary: Path) -> dict[str, bytes]:
    """Kind of file → one that makes the file `canary` when its reader unpickles it. Put together by hand from the opcodes."""
    command = f"touch {canary}"
    text = b"X" + struct.pack("<I", len(command.encode())) + command.encode()
    second = b"\x80\x02cos\nsystem\n" + text + b"\x85R."
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
    return {
        "pickle 0": b"cos\nsystem\n(S" + repr(command).encode() + b"\ntR.",
        "pickle 2": second,
        "pickle 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "pickle in gzip": gzip.compress(second),
        "file of torch": _zip({"archive/data.pkl": second, "archive/version": b"3\n", "archive/byteorder": b"little"}),
        "numpy objects": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + second,
    }


def _zip(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return out.getvalue()


def forge(folder: Path, files: Files, listed: Files | None = None) -> Path:
    """Write a folder as an attacker would who knows the format: hashes and manifest fit whatever the files are."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in (listed or files).items()}
    document = {"format": FORMAT, "sha256": hashes}
    own = hashlib.sha256(to_json(document)).hexdigest()
    (folder / MANIFEST).write_bytes(to_json({**document, "own_sha256": own}))
    return folder


def s01(work: Path, full: bool) -> Figure:
    """Pickles in every slot and under every ending, documents that name code, links and names out of the folder: nothing runs,
    `CheckpointError`. A file that the manifest does not list is never opened: with one beside it a folder loads as ever.
    """
    canary = work / "canary"
    fitted = predictor(epochs=1).fit(make_rows(6), valid=None, quiet=True, save_path=work / "run")
    whole = read_folder(work / "run" / ARTEFACT)
    expected = fitted.predict_proba(make_rows(6))
    tries: dict[str, Callable[[Path], str | None]] = {
        **{name: partial(_refused, forged) for name, forged in _in_slots(whole, canary).items()},
        **{name: partial(_refused, forged) for name, forged in _named_code(whole).items()},
        **{name: partial(_refused, forged) for name, forged in _elsewhere(whole, canary).items()},
        **{name: partial(_ignored, whole, {file: payload}, expected) for name, file, payload in _beside(canary)},
        **{name: partial(_not_resumed, work / "run", file, payload) for name, file, payload in _progress(canary)},
    }
    cases: dict[str, str | None] = {}
    for i, (name, attack) in enumerate(tries.items() if full else list(tries.items())[::3]):
        cases[name] = attack(work / f"case-{i}") or ("code was run" if canary.exists() else None)
        canary.unlink(missing_ok=True)
    return count("S01", "malicious saved folders refused, nothing run", cases)


def _in_slots(whole: Files, canary: Path) -> dict[str, Callable[[Path], Path]]:
    """18 pickles in place of each file, 6 as a file more that the manifest lists."""
    endings = ("weights.pt", "weights.bin", "weights.pkl", "hook.py", "model.ckpt", "rows.npy")
    found: dict[str, Callable[[Path], Path]] = {}
    for (kind, payload), more in zip(payloads(canary).items(), endings, strict=True):
        for slot in (WEIGHTS, DOCUMENT):
            found[f"{kind} as {slot}"] = partial(forge, files={**whole, slot: payload})
        found[f"{kind} as {MANIFEST}"] = partial(_with_manifest, whole, payload)
        found[f"{kind} as {more}"] = partial(forge, files={**whole, more: payload})
    return found


def _with_manifest(whole: Files, payload: bytes, folder: Path) -> Path:
    (forge(folder, whole) / MANIFEST).write_bytes(payload)
    return folder


def _named_code(whole: Files) -> dict[str, Callable[[Path], Path]]:
    """7 documents that name code where a name or number is expected."""
    code = {"py/object": "os.system", "py/reduce": [{"py/function": "os.system"}, ["true"]], "_target_": "os.system"}
    document = json.loads(whole[DOCUMENT])
    changed = {
        "whole document": code,
        "targets": {**document, "targets": code},
        "setting": {**document, "config": {**document["config"], "model": code}},
        "encoder": {**document, "config": {**document["config"], "model": {"encoders": {"image": "os.system"}}}},
        "column": {**document, "schema": {"inputs": [{"column": "a", "kind": "os.system"}], "targets": []}},
        "modality": {**document, "modalities": {**document["modalities"], "caption": {"kind": "os.system", **code}}},
        "relation": {**document, "graph": {**document["graph"], "relations": [{"kind": "os.system", **code}]}},
    }
    return {f"code named as {w}": partial(forge, files={**whole, DOCUMENT: to_json(d)}) for w, d in changed.items()}


def _elsewhere(whole: Files, canary: Path) -> dict[str, Callable[[Path], Path]]:
    """3 folders whose files lie elsewhere."""

    def linked(folder: Path, name: str) -> Path:
        forge(folder, whole)
        (folder / name).rename(folder.with_suffix(".away"))
        (folder / name).symlink_to(folder.with_suffix(".away"))
        return folder

    outside = {**whole, "../weights.safetensors": whole[WEIGHTS]}
    return {
        "the weights a link": partial(linked, name=WEIGHTS),
        "the manifest a link": partial(linked, name=MANIFEST),
        "a name out of the folder": partial(forge, files=whole, listed=outside),
    }


def _beside(canary: Path) -> list[tuple[str, str, bytes]]:
    """3 files that no manifest lists."""
    return [(f"{kind} beside as {name}", name, payload) for (kind, payload), name in
            zip(payloads(canary).items(), ("weights.pt", "predictor.pkl", "__init__.py"), strict=False)]  # fmt: skip


def _progress(canary: Path) -> list[tuple[str, str, bytes]]:
    """3 files of a checkpoint that a fit would go on from."""
    return [(f"{kind} as {name}", name, payload) for (kind, payload), name in
            zip(payloads(canary).items(), ("optimizer.safetensors", "best.safetensors", "fit.json"), strict=False)]  # fmt: skip


def _refused(forged: Callable[[Path], Path], folder: Path) -> str | None:
    return _told(partial(FusionPredictor.load, forged(folder)))


def _told(function: Callable[[], object]) -> str | None:
    try:
        function()
    except CheckpointError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def _ignored(whole: Files, more: Files, expected: NDArray[np.float32], folder: Path) -> str | None:
    forge(folder, {**whole, **more}, listed=whole)
    found = FusionPredictor.load(folder).predict_proba(make_rows(6))
    return None if np.array_equal(found, expected) else "other answers"


def _not_resumed(run: Path, name: str, payload: bytes, folder: Path) -> str | None:
    shutil.copytree(run, folder)
    (last,) = (folder / "checkpoints").iterdir()
    files = {**read_folder(last), name: payload}
    shutil.rmtree(last)
    forge(last, files)
    fit = partial(predictor(epochs=1).fit, make_rows(6), valid=None, quiet=True, save_path=folder, resume=True)
    return _told(fit)


def s03(work: Path, full: bool) -> Figure:
    """Weights whose header lies: `CheckpointError`, and reading them takes no more memory than twice the file and `SLACK`.
    Without `full` the crowd of tensors is smaller.
    """
    predictor(epochs=1).fit(make_rows(6), valid=None, quiet=True).save(work / "saved")
    whole = read_folder(work / "saved")
    cases: dict[str, str | None] = {}
    for name, data in _lying(whole[WEIGHTS], 300_000 if full else 20_000).items():
        grown = apart(partial(_read, data)).grown
        refused = _refused(partial(forge, files={**whole, WEIGHTS: data}), work / name)
        cases[name] = refused or (None if grown <= len(data) + SLACK else f"{grown:,} bytes for {len(data):,}")
    return count("S03", "safetensors files that lie refused, memory at most twice the file", cases)


def _read(data: bytes) -> None:
    with suppress(CheckpointError):
        from_safetensors(data, WEIGHTS)


def _lying(data: bytes, crowd: int) -> dict[str, bytes]:
    """20 files made from one of weights."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = sorted((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    first, last = names[0], names[-1]
    begin, end = header[first]["data_offsets"]
    oblong = next(n for n in names if len(set(header[n]["shape"])) > 1)

    def changed(name: str, **entries: Any) -> bytes:
        return _file({**header, name: {**header[name], **entries}}, body)

    def renamed(name: str) -> bytes:
        return _file({(name if n == first else n): entry for n, entry in header.items()}, body)

    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    twice = json.dumps(header)[:-1] + f", {json.dumps(first)}: {json.dumps(header[first])}}}"
    return {
        "header of 2^63 bytes": _file(header, body, 2**63),
        "header of 99 MB": _file(header, body, 99_000_000),
        "header of 0 bytes": _file(header, body, 0),
        "header beyond the end": _file(header, body, len(data) - 7),
        "header of 2 MB of blanks": _file(json.dumps(header).encode() + b" " * 2**21, body),
        "10,000 tensors too many": _file({**header, **{f"t{i}": empty for i in range(10_000)}}, body),
        "a crowd of tensors": _file({f"t{i}": empty for i in range(crowd)}, b""),
        "header of nested lists": _file(b"[" * 100_000, body),
        "two tensors in one place": changed(last, data_offsets=[begin, end], shape=header[first]["shape"]),
        "a hole": changed(last, data_offsets=[o + 4 for o in header[last]["data_offsets"]]),
        "data after the last": _file(header, body + bytes(64)),
        "data cut": _file(header, body[:-4]),
        "offsets swapped": changed(first, data_offsets=[end, begin]),
        "negative offset": changed(first, data_offsets=[-4, end]),
        "shape that overflows": changed(first, shape=[2**62, 4]),
        "NUL in a name": renamed(f"{first}\0"),
        "a name out of the folder": renamed("../../weights"),
        "a name twice": _file(twice.encode(), body),
        "whole numbers": changed(first, dtype="I32"),
        "a matrix turned": changed(oblong, shape=header[oblong]["shape"][::-1]),
    }


def _file(header: Any, body: bytes, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body

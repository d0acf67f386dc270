"""Faults of saved folders: killed while written, cut, flipped bits, full disks, places that take no files."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import graphfusion
from graphfusion.data import counted_rng
from graphfusion.errors import CheckpointError, GraphFusionError
from graphfusion.pipeline import Pipeline
from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.apart import apart, fork
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import make_rows, predictor
from graphfusion.training import checkpoint
from graphfusion.training.checkpoint import (
    newest_folder,
    read_folder,
    to_json,
    to_safetensors,
    write_file,
    write_folder,
)

Files = Mapping[str, bytes]
TENSORS = ("weights.safetensors", "optimizer.safetensors")


def checkpoint_files(version: int, width: int = 64) -> dict[str, bytes]:
    """The files of a checkpoint as a fit writes it, each with other contents for each `version`."""
    generator = torch.Generator().manual_seed(version)
    weights = {f"layer.{i}.weight": torch.randn(width, width, generator=generator) for i in range(4)}
    moments = {f"{i}.exp_avg": torch.randn(width, width, generator=generator) for i in range(4)}
    return {
        "predictor.json": to_json({"version": version, "config": {"dim": width, "lr": 0.002, "name": "graph" * 40}}),
        "weights.safetensors": to_safetensors(weights),
        "optimizer.safetensors": to_safetensors(moments),
        "fit.json": to_json({"epoch": version, "history": [{"epoch": e, "loss": 1 / (e + 1)} for e in range(20)]}),
    }


def r01(work: Path, full: bool) -> Figure:
    """A process that replaces a checkpoint is killed with SIGKILL at ten boundaries, and at random moments: the next reader
    finds all of the old or all of the new one, and nothing beside it.
    """
    cases: dict[str, str | None] = {}
    for k in range(20 if full else 1):
        old, new = checkpoint_files(2 * k), checkpoint_files(2 * k + 1)
        for name, hook in _boundaries(new, k).items():
            path = work / f"{name}-{k}" / "run"
            write_folder(path, old)
            killed = apart(partial(_write_under, hook, path, new)).signal == signal.SIGKILL
            cases[f"{name} ({k})"] = _one_of(path, old, new) if killed else "was not killed"
    for k in range(100 if full else 5):
        cases[f"at random ({k})"] = _kill_at_random(work / f"random-{k}" / "run", k)
    return count("R01", "killed while a checkpoint is written: the old or the new one, whole", cases)


def _write_under(hook: AbstractContextManager[Any], path: Path, files: Files) -> None:
    with hook:
        write_folder(path, files)


def _boundaries(files: Files, k: int) -> dict[str, AbstractContextManager[Any]]:
    """Name → patch under which `write_folder` kills its process there. `k` chooses between files."""
    name = TENSORS[k % 2]
    data = files[name]
    header = 8 + int.from_bytes(data[:8], "little")
    cuts = {"0 bytes": 0, "in the header": header // 2, "after the header": header,
            "in a tensor": (header + len(data)) // 2, "last byte": len(data) - 1}  # fmt: skip
    return {
        **{where: _replaced(checkpoint, "_write_synced", partial(_write_part, name, at)) for where, at in cuts.items()},
        "before fsync": _killing(os, "fsync", k % 5, before=True),
        "after fsync": _killing(os, "fsync", k % 5),
        "between files": _killing(checkpoint, "_write_synced", k % 4),
        "between renames": _killing(Path, "rename", 0),
        "after the renames": _killing(Path, "rename", 1),
    }


def _replaced(owner: Any, name: str, hook: Callable[..., Any]) -> AbstractContextManager[Any]:
    """A patch by `hook(original, *arguments)`."""
    original = getattr(owner, name)
    return mock.patch.object(owner, name, lambda *arguments: hook(original, *arguments))


def _killing(owner: Any, name: str, at: int, before: bool = False) -> AbstractContextManager[Any]:
    """A patch that kills the process before or after call number `at`."""
    calls = iter(range(10**6))

    def hook(original: Callable[..., Any], *arguments: Any) -> Any:
        mine = next(calls) == at
        if mine and before:
            _die()
        found = original(*arguments)
        if mine:
            _die()
        return found

    return _replaced(owner, name, hook)


def _write_part(name: str, size: int, original: Callable[[Path, bytes], None], path: Path, data: bytes) -> None:
    if path.name != name:
        return original(path, data)
    path.write_bytes(data[:size])
    return _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _one_of(path: Path, *allowed: Files) -> str | None:
    """Why a folder is none of those allowed, or not alone in its parent; None if all is well."""
    try:
        found = read_folder(path)
    except CheckpointError as error:
        return str(error)
    beside = sorted({p.name for p in path.parent.iterdir()} - {path.name})
    return None if found in allowed and not beside else f"beside it: {beside}" if beside else "files of neither"


def _kill_at_random(path: Path, seed: int) -> str | None:
    """Kill a process that replaces a checkpoint on and on, each version told when it is written."""
    versions = [checkpoint_files(v) for v in range(8)]
    write_folder(path, versions[0])

    def write_on(pipe: int) -> None:
        for version in range(1, 10**6):
            write_folder(path, versions[version % 8])
            os.write(pipe, b".")

    child, pipe = fork(write_on)
    with os.fdopen(pipe, "rb") as reading:
        first = reading.read(1)
        time.sleep(float(counted_rng(seed, "selftest/kill").uniform(0, 0.05)))
        os.kill(child, signal.SIGKILL)
        told = len(first + reading.read())
    os.waitpid(child, 0)
    return _one_of(path, versions[told % 8], versions[(told + 1) % 8])


def r02(work: Path, full: bool) -> Figure:
    """Each file of a checkpoint cut at every byte below 4 KiB and every 37th after it: `CheckpointError`, and the checkpoint
    before it is the one to go on from.
    """
    before, last = _two_checkpoints(work)
    cases: dict[str, str | None] = {}
    for file in sorted(last.iterdir()):
        data = file.read_bytes()
        for size in [*range(min(len(data), 4096)), *range(4096, len(data), 37)][:: 1 if full else 199]:
            file.write_bytes(data[:size])
            cases[f"{file.name} cut to {size} bytes"] = _refused_for(before, last)
        file.write_bytes(data)
    return count("R02", "truncated checkpoints refused, the one before used", cases)


def r03(work: Path, full: bool) -> Figure:
    """Single bits flipped in weights, optimiser, settings, progress and manifest: noticed as `CheckpointError`."""
    before, last = _two_checkpoints(work)
    files = sorted(last.iterdir())
    rng = counted_rng(0, "selftest/flip")
    cases: dict[str, str | None] = {}
    for k in range(1_500 if full else 50):
        file = files[k % len(files)]
        data = bytearray(file.read_bytes())
        bit = int(rng.integers(len(data) * 8))
        data[bit // 8] ^= 1 << bit % 8
        whole = file.read_bytes()
        file.write_bytes(data)
        cases[f"{file.name}, bit {bit} ({k})"] = _refused_for(before, last)
        file.write_bytes(whole)
    return count("R03", "single flipped bits in a checkpoint noticed", cases)


def _two_checkpoints(work: Path) -> tuple[Path, Path]:
    paths = work / "epoch-00001", work / "epoch-00002"
    for version, path in enumerate(paths):
        write_folder(path, checkpoint_files(version, width=24))
    return paths


def _refused_for(before: Path, damaged: Path) -> str | None:
    try:
        read_folder(damaged)
        return "not noticed"
    except CheckpointError:
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the one that it passes over
        found = newest_folder(before.parent, "epoch-*")
    return None if found == before else f"went on from {found}"


def r05(work: Path, full: bool) -> Figure:
    """No room at any call of a replacement, and beyond a limit of the size of files: the old checkpoint and log are whole, the
    error says why, and nothing is left of the new one. With `full` also on a real disk of 20 MB, where this system allows one.
    """
    old, new = checkpoint_files(0), checkpoint_files(1)
    cases: dict[str, str | None] = {}
    for name, hook in _full_disks().items():
        path = work / name / "run"
        write_folder(path, old)
        cases[name] = _refused_write(hook, path, old, new)
    log = _first_log(work / "log")
    cases["fsync of the log"] = _refused_log(_full_disks()["fsync 0"], log)
    write_folder(work / "limit" / "run", old)
    cases["beyond RLIMIT_FSIZE"] = apart(partial(_beyond_limit, work / "limit" / "run", old, new)).value
    note = ""
    if full:
        found = _in_own_namespace("on_small_disk", work / "disk")
        note = "" if found else "no disk of 20 MB can be mounted here"
        cases |= found
    return count("R05", "disk full: the old checkpoint or log whole, a clear error, nothing left over", cases, note)


def _full_disks() -> dict[str, AbstractContextManager[Any]]:
    """Name → patch under which one call finds the disk full."""

    def at(place: int) -> Callable[..., Any]:
        calls = iter(range(10**6))

        def hook(original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            if next(calls) == place:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        return hook

    def half(name: str, original: Callable[..., Any], path: Path, data: bytes) -> Any:
        if path.name != name:
            return original(path, data)
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written = (*TENSORS, "predictor.json", "fit.json", checkpoint.MANIFEST)
    return {
        **{f"half of {name}": _replaced(checkpoint, "_write_synced", partial(half, name)) for name in written},
        **{f"fsync {i}": _replaced(os, "fsync", at(i)) for i in (0, 3, 5)},
        **{f"rename {i}": _replaced(Path, "rename", at(i)) for i in (0, 1)},
    }


def _refused_write(hook: Any, path: Path, old: Files, new: Files) -> str | None:
    try:
        with hook:
            write_folder(path, new)
        return "not noticed"
    except CheckpointError as error:
        told = f"{path}: cannot be written" in str(error)
    return _one_of(path, old) if told else "the error does not say what and where"


def _first_log(folder: Path) -> Path:
    folder.mkdir()
    write_file(folder / "metrics.jsonl", b'{"epoch": 1}')
    return folder / "metrics.jsonl"


def _refused_log(hook: Any, log: Path) -> str | None:
    before = log.read_bytes()
    try:
        with hook:
            write_file(log, before * 1000)
        return "not noticed"
    except CheckpointError:
        pass
    whole = log.read_bytes() == before and [p.name for p in log.parent.iterdir()] == [log.name]
    return None if whole else "the log was lost, or something lies beside it"


def _beyond_limit(path: Path, old: Files, new: Files) -> str | None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return _refused_write(ExitStack(), path, old, new)


def on_small_disk(folder: Path) -> dict[str, str | None]:
    """Cases of a disk of 20 MB and 64 files; only for a process in a mount namespace of its own."""
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=20m,nr_inodes=64", "tmpfs", folder)
    except (OSError, subprocess.CalledProcessError):
        return {}
    log = _first_log(folder / "log")
    path, old, large = folder / "runs" / "run", checkpoint_files(0, width=512), checkpoint_files(1, width=800)
    write_folder(path, old)
    found = {"20 MB: a larger one": _refused_write(ExitStack(), path, old, large)}
    with _filled(folder, blocks=20_000):
        found["20 MB: no byte left"] = _refused_write(ExitStack(), path, old, checkpoint_files(1))
        found["20 MB: a fit"] = _refused_fit(folder / "fit")
        found["20 MB: the log"] = _refused_log(ExitStack(), log)
    with _filled(folder, files=64):
        found["20 MB: no inode left"] = _refused_write(ExitStack(), path, old, checkpoint_files(1))
    write_folder(path, checkpoint_files(1))
    found["20 MB: with room again"] = _one_of(path, checkpoint_files(1))
    _mount("-o", "remount,ro", folder)
    found["read-only disk: written"] = _refused_write(ExitStack(), path, checkpoint_files(1), old)
    found["read-only disk: a fit"] = _refused_fit(folder / "fit")
    return found


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)  # noqa: S603, S607 - in a namespace of its own


@contextmanager
def _filled(folder: Path, blocks: int = 0, files: int = 0) -> Iterator[None]:
    """A disk without a byte left, or without an inode."""
    stuff = folder / "stuff"
    stuff.mkdir()
    with suppress(OSError):
        for i in range(files):
            (stuff / str(i)).touch()
    with suppress(OSError), (stuff / "large").open("wb", buffering=0) as file:
        for _ in range(blocks):
            file.write(bytes(1024))
    yield
    shutil.rmtree(stuff)


def _in_own_namespace(function: str, folder: Path) -> dict[str, str | None]:
    """What a function of this module finds in a process that may mount; nothing where the system does not let it."""
    code = f"from graphfusion.selftest.folders import *; print(json.dumps({function}(Path({str(folder)!r}))))"
    if shutil.which("unshare") is None:
        return {}
    done = subprocess.run(  # noqa: S603
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", code],  # noqa: S607
        env={**os.environ, "PYTHONPATH": str(Path(graphfusion.__file__).parents[1])}, capture_output=True, check=False,
    )  # fmt: skip
    if b"Traceback" in done.stderr:
        raise RuntimeError(done.stderr.decode()[-2000:])
    found: dict[str, str | None] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def r06(work: Path, full: bool) -> Figure:
    """Places that take no files: `fit` says so before it makes a model, `save` and `load` as `CheckpointError`. The disk
    without inodes and the read-only one are in R05.
    """
    places, note = _bad_places(work)
    fitted = predictor(epochs=1).fit(make_rows(6), valid=None, quiet=True)
    cases: dict[str, str | None] = {}
    for name, place in places.items():
        cases[f"fit: {name}"] = _refused_fit(place)
        cases[f"save: {name}"] = _raises(CheckpointError, lambda p=place: fitted.save(p))  # type: ignore[misc]
        cases[f"load: {name}"] = _raises(CheckpointError, lambda p=place: FusionPredictor.load(p))  # type: ignore[misc]
    kept = (work / "file").read_text() == "mine"
    cases["the file that was there"] = None if kept else "was altered"
    return count("R06", "places that take no files: told before the first step", cases, note)


def _bad_places(work: Path) -> tuple[dict[str, Path], str]:
    (work / "file").write_text("mine")
    (work / "round").symlink_to(work / "round")
    (work / "locked").mkdir(mode=0o555)
    places = {
        "a file": work / "file",
        "below a file": work / "file" / "run",
        "a name of 300 characters": work / ("x" * 300),
        "a path of 6,000 characters": work.joinpath(*["y" * 200] * 30),
        "NUL in the name": work / "a\0b",
        "a circle of links": work / "round" / "run",
        "below /proc": Path("/proc/graphfusion/run"),
        "below /sys": Path("/sys/graphfusion/run"),
    }
    if os.getuid() == 0:
        return places, "not tried: denied (permissions do not bind uid 0)"
    return {**places, "denied": work / "locked" / "run"}, ""


def _refused_fit(place: Path) -> str | None:
    """Whether `fit` refuses a place before it makes a model."""
    with mock.patch.object(Pipeline, "learn", side_effect=AssertionError("a model was made first")):
        fit = partial(predictor().fit, make_rows(6), valid=None, quiet=True, save_path=place)
        return _raises(GraphFusionError, fit)


def _raises(expected: type[Exception], function: Callable[[], object]) -> str | None:
    try:
        function()
    except expected:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not noticed"

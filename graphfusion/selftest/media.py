"""The door for media: what is no image or sound, what is enormous, what lies elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from graphfusion.data import Sample, read_audio, read_image
from graphfusion.errors import MediaError
from graphfusion.modalities import Modality, prepare
from graphfusion.modalities.audio import AudioModality
from graphfusion.modalities.image import ImageModality
from graphfusion.selftest import media_cases as make
from graphfusion.selftest.apart import peak_mb
from graphfusion.selftest.attempt import tried
from graphfusion.selftest.figure import Figure, count

PEAK_MB = 300
AS_SOUND = (16_000, 16_000, 30.0)
"""Rate to read at, rate of bare arrays, most seconds."""


def i12(work: Path, full: bool) -> Figure:
    """Eight things that are no image, as an image and as a sound: MediaError within 1 s, none is waited for."""
    (work / "text.png").write_text("no image\n" * 50)
    (work / "page.png").write_text("<!DOCTYPE html><html><body><img src='a.png'></body></html>")
    (work / "paper.png").write_bytes(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n")
    (work / "drawing.png").write_text(
        "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    )
    with zipfile.ZipFile(work / "archive.png", "w") as archive:
        archive.writestr("a.png", make.encoded(make.picture(), "PNG"))
    (work / "folder.png").mkdir()
    os.mkfifo(work / "pipe.png")
    names = [(work, f"{name}.png") for name in ("text", "page", "paper", "drawing", "archive", "folder", "pipe")]
    cases = {}
    for root, name in [*names, (Path("/dev"), "zero")]:
        cases[f"{name} as an image"] = _refused_at_once(partial(read_image, name, root))
        cases[f"{name} as a sound"] = _refused_at_once(partial(read_audio, name, root, *AS_SOUND))
    return count("I12", "things that are no image or sound", cases)


def _refused_at_once(read: Callable[[], Any], limit: float = 1.0) -> str | None:
    """Why `read` does not raise a MediaError within `limit` seconds of waiting and work."""
    found: list[Any] = []
    start = time.monotonic()
    thread = threading.Thread(target=lambda: found.append(tried(read)), daemon=True)
    thread.start()
    thread.join(10 * limit)
    seconds = time.monotonic() - start
    if not found:
        return "still waiting" if thread.is_alive() else "another error than MediaError"
    return None if isinstance(found[0], MediaError) and seconds <= limit else f"{found[0]!r:.80} after {seconds:.2f} s"


def s05(work: Path, full: bool) -> Figure:
    """16 files that are small and would be large, or say so, read one after the other by a process of its own: refused, or
    read within the limits, and its memory never grows by more than 300 MB.
    """
    for i, (name, data) in enumerate(make.bombs(full).items()):
        (work / f"{i:02} {name}").write_bytes(data)
    command = "import sys; from graphfusion.selftest.media import weigh; weigh(sys.argv[1])"
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", command, str(work)], capture_output=True, text=True, timeout=600, check=False
    )
    weights = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {weight["name"]: weight for weight in weights}
    cases: dict[str, str | None] = {}
    for name in sorted(path.name for path in work.iterdir()):
        weight = found.get(name, {"why": f"ended the process: {done.stderr[-200:]}", "peak": 0.0})
        cases[name[3:]] = weight["why"] or (f"{weight['peak']:.0f} MB" if weight["peak"] > PEAK_MB else None)
    return count("S05", "media bombs", cases, f"peak {max((w['peak'] for w in weights), default=0):.0f} MB")


def weigh(folder: str) -> None:
    """Read every file of `folder` and print for each, as a line of JSON, what was wrong and the growth of memory in MB."""
    root = Path(folder)
    read_audio(make.sound(make.tone(8_000), 8_000, "WAV", "PCM_16"), root, *AS_SOUND)  # what is imported late
    read_image(make.encoded(make.picture(), "PNG"), root)
    start = last = peak_mb()
    for path in sorted(root.iterdir()):
        is_sound = path.name[3:].startswith(("FLAC", "WAV", "Vorbis", "MP3"))
        found = tried(read_audio, path.name, root, *AS_SOUND) if is_sound else tried(read_image, path.name, root)
        most = 30 * 16_000 if is_sound else 3 * 8_400_000
        why = None if isinstance(found, MediaError) or found.size <= most else f"{found.shape} was read"
        peak = peak_mb()
        print(json.dumps({"name": path.name, "why": why, "peak": peak - start if peak > last else 0.0}))
        last = peak


def s06(work: Path, full: bool) -> Figure:
    """20 paths in the cells of a table that lead out of its folder or onto the network, as image and as sound: both cells
    refused and reported with the path, no token of the canary files, no call at the canary server.
    """
    root, server = work / "root", socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    (root / "in").mkdir(parents=True)
    (work / "canary").write_bytes(make.encoded(make.picture(), "PNG"))
    (work / "canary.wav").write_bytes(make.sound(make.tone(16_000), 16_000, "WAV", "PCM_16"))
    (root / "out").symlink_to(work)
    (root / "loop").symlink_to(root / "loop")
    for name in ("canary", "canary.wav"):
        (root / f"link-{name}").symlink_to(work / name)
    cases = {}
    with server:
        for path in _ways_out(work, server.getsockname()[1]):
            row = {"photo": path.format("canary"), "sound": path.format("canary.wav")}
            cases[path] = _let_through(row, root) or ("the server was called" if _was_called(server) else None)
    return count("S06", "paths out of the folder", cases)


def _ways_out(work: Path, port: int) -> list[str]:
    return [
        "../{}", "../../../../../../../../etc/passwd", "/etc/passwd", f"{work}/{{}}", "in/../../{}", "~", "~/{}", "~root/{}",
        "link-{}", "out/{}", "loop", f"file://{work}/{{}}", f"file:{work}/{{}}", f"http://127.0.0.1:{port}/{{}}",
        f"https://127.0.0.1:{port}/{{}}", f"tcp://127.0.0.1:{port}", "concat:../{0}|../{0}", "subfile,,start,0,end,0,,:../{}",
        "../{}\0.png", f"\\\\127.0.0.1:{port}\\share\\{{}}",
    ]  # fmt: skip


def _let_through(row: dict[str, str], root: Path) -> str | None:
    modalities: dict[str, Modality] = {
        "photo": ImageModality("photo", mean=(0.0,) * 3, std=(1.0,) * 3),
        "sound": AudioModality("sound"),
    }
    samples, report = prepare([Sample(0, row)], modalities, {name: (name,) for name in row}, root, on_error="missing")
    if samples[0].tokens:
        return f"read: {', '.join(samples[0].tokens)}"
    named = {incident.column: incident.file for incident in report.incidents}
    return None if named == row else f"reported as {named}"


def _was_called(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True

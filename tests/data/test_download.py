"""Downloads are verified, archives stay in their folder."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphfusion.data import download as module
from graphfusion.data.download import download, extract, extract_tar, extract_zip
from graphfusion.errors import TableError

CONTENT = b"some rows"


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/rows"
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            self.send_response(200 if found or self.path == "/cut" else 404)
            if self.path == "/cut":
                self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(CONTENT if found or self.path == "/cut" else b"")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_is_kept_only_with_the_right_hash(server: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "rows"
    with pytest.raises(TableError, match="expected SHA-256"):
        download(f"{server}/rows", target, "0" * 64)
    assert not list(target.parent.iterdir())
    right = hashlib.sha256(CONTENT).hexdigest()
    assert download(f"{server}/rows", target, right).read_bytes() == CONTENT
    assert download(f"{server}/gone", target, right) == target  # there already: nothing is asked for
    with pytest.raises(TableError, match="--source"):
        download(f"{server}/gone", tmp_path / "x", right)
    with pytest.raises(TableError, match="only https"):
        download("file:///etc/passwd", tmp_path / "x", right)
    assert download(f"{server}/to//rows", tmp_path / "moved", right).read_bytes() == CONTENT
    for elsewhere in ("http://example.org/rows", "ftp://127.0.0.1/rows"):
        with pytest.raises(TableError, match="only https"):
            download(f"{server}/to/{elsewhere}", tmp_path / "x", right)
    with pytest.raises(TableError, match=r"cannot be downloaded.*pass --source PATH"):
        download(f"{server}/cut", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [member("../out"), member("a/../../out"), member("l", tarfile.SYMTYPE, "/etc"), member("l", tarfile.LNKTYPE, "../x"),
     member("fifo", tarfile.FIFOTYPE), member("dev", tarfile.CHRTYPE)],
    ids=lambda m: f"{m.name}-{m.type!r}",
)  # fmt: skip
def test_nothing_leaves_the_folder(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="refused"):
        extract_tar(archive(tmp_path / "a.tar", member("fine"), bad), tmp_path / "in" / "side")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {"a.tar", "fine"}


def test_files_are_extracted(tmp_path: Path) -> None:
    extract_tar(archive(tmp_path / "a.tar", member("x/y"), member("z")), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["y", "z"]


def zipped(path: Path, *names: str, size: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, b"x" * size)
    return path


def test_nothing_is_written_before_all_members_are_known(tmp_path: Path) -> None:
    """The hostile archives themselves: graphfusion/selftest/archives.py."""
    for path in (
        zipped(tmp_path / "a.zip", "fine", "../out"),
        archive(tmp_path / "a.tar", member("fine"), member("../out")),
    ):
        with pytest.raises(TableError, match=r"member '\.\./out' leaves the folder"):
            extract(path, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("names", [("a", "A"), ("a/é", "a/e\u0301"), ("a", "./a"), ("a", "a/b"), ("x/y", "X")])
def test_names_that_meet_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"meets another one|is a file and a folder"):
        extract_zip(zipped(tmp_path / "a.zip", *names), tmp_path / "in")


def test_folders_may_differ_in_case_and_links_that_are_there_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    extract_zip(zipped(tmp_path / "a.zip", "X/a", "x/b", "link"), tmp_path / "in")
    assert (tmp_path / "secret").read_text() == "mine"
    assert {p.name: p.read_text() for p in (tmp_path / "in").rglob("*") if p.is_file()} == dict.fromkeys(
        ("a", "b", "link"), "x"
    )
    (tmp_path / "in" / "door").symlink_to(tmp_path)
    with pytest.raises(TableError, match="by a link"):
        extract_zip(zipped(tmp_path / "b.zip", "door/secret"), tmp_path / "in")


def test_limits_of_members_and_of_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 5_000)
    extract_zip(zipped(tmp_path / "a.zip", "x", size=5_000), tmp_path / "in")
    extract_zip(zipped(tmp_path / "a.zip", "x", size=9_000), tmp_path / "in")  # not a hundred times the archive
    with pytest.raises(TableError, match=r"more than \d\d,\d00 bytes"):
        extract_zip(zipped(tmp_path / "a.zip", "x", size=100_000), tmp_path / "in")
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    for path in (zipped(tmp_path / "a.zip", "x", "y", "z"), archive(tmp_path / "a.tar", *map(member, "xyz"))):
        with pytest.raises(TableError, match="more than 2 members"):
            extract(path, tmp_path / "in")

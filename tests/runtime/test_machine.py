"""The machine's settings."""

from pathlib import Path

import pytest

from attnfd.errors import UserError
from attnfd.runtime import machine


def test_settings_of_the_main_root_are_those_of_a_temporary_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, clone = tmp_path / "main", tmp_path / "clone"
    for folder, workers in ((main, 3), (clone, 5)):
        folder.mkdir()
        (folder / ".env").write_text(f"ATTNFD_WORKERS={workers}\nATTNFD_ROOT_MINE=there\n")
    for key in ("ATTNFD_WORKERS", "ATTNFD_ROOT_MINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert machine.settings().workers == 3
    assert machine.root("mine", "folder", {"mine": "here"}) == "there"
    monkeypatch.delenv("DVC_ROOT")
    assert machine.settings().workers == 5
    monkeypatch.setenv("ATTNFD_WORKERS", "1")
    assert machine.settings().workers == 1


def test_a_wrong_value_names_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("ATTNFD_DEVICE", raising=False)
    (tmp_path / ".env").write_text("ATTNFD_DEVICE=tpu\n")
    with pytest.raises(UserError, match="ATTNFD_DEVICE: found 'tpu'; allowed: 'auto', 'cpu' or 'cuda'"):
        machine.settings()

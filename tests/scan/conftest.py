"""Every test has its own working directory, and no variable names another folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_CAMVID_ROOT", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)

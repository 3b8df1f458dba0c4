"""What every reader of attnfd/datasets/ keeps to."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnfd.data.images import decode_image, decode_mask
from attnfd.data.prepared import COLUMNS, SPLITS
from attnfd.datasets.base import Reader
from attnfd.discovery import component, names
from attnfd.errors import UserError
from tests.datasets.test_shapes import small

Opener = Callable[[str], Reader]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """A reader of a dataset that is there: drawn small, or the real one."""

    def open_reader(name: str) -> Reader:
        kind = component("datasets", name)
        if "root" not in kind.Options.model_fields:
            reader = kind(small(), tmp_path / "drawn")
            reader.draw()
            return reader
        key = f"ATTNFD_{name.upper()}_ROOT"
        root = Path(os.environ.get(key) or Path(__file__).parents[3] / "shared/data" / name)
        if not root.is_dir():
            pytest.skip(f"needs the dataset: set {key}")
        return kind(kind.Options(root=str(root)), root)

    return open_reader


@pytest.mark.parametrize("name", names("datasets"))
def test_classes_colours_and_labels_fit_together(name: str) -> None:
    kind = component("datasets", name)
    count = len(kind.classes)
    assert 2 <= count <= 255
    assert len(set(kind.classes)) == count
    assert not set(kind.classes) & set(COLUMNS), "a class is a column of the index"
    assert len(kind.palette) == len(set(kind.palette)) == count
    assert all(0 <= channel <= 255 for colour in kind.palette for channel in colour)
    assert set(kind.labels) <= set(range(256))
    assert set(kind.labels.values()) - {255} == set(range(count))


@pytest.mark.parametrize("name", names("datasets"))
def test_options_are_described(name: str) -> None:
    for key, field in component("datasets", name).Options.model_fields.items():
        assert field.description, key


@pytest.mark.parametrize("name", names("datasets"))
def test_pairs_are_there_and_always_the_same(name: str, opened: Opener) -> None:
    reader = opened(name)
    pairs = reader.pairs()
    assert set(pairs) >= set(SPLITS)
    assert pairs == reader.pairs()
    images = [pair.image for listed in pairs.values() for pair in listed]
    assert len(set(images)) == len(images)
    for listed in pairs.values():
        for pair in listed[:3]:
            image, mask = decode_image(reader.root / pair.image), decode_mask(reader.root / pair.mask)
            assert image.shape[:2] == mask.shape
            assert set(np.unique(mask).tolist()) <= set(reader.labels)


@pytest.mark.parametrize("name", names("datasets"))
def test_a_missing_folder_is_explained_in_one_line(name: str, tmp_path: Path) -> None:
    kind = component("datasets", name)
    if "root" not in kind.Options.model_fields:
        pytest.skip("drawn, not read")
    with pytest.raises(UserError) as raised:
        kind(kind.Options(root="nowhere"), tmp_path / "nowhere").pairs()
    message = str(raised.value)
    assert "\n" not in message
    for word in ("nowhere", f"ATTNFD_{name.upper()}_ROOT", "prepare.root", "https://"):
        assert word in message

"""Requirements for every reader of attnfd/readers/."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnfd.data.images import decode_image, decode_mask
from attnfd.data.labels import COLOUR
from attnfd.data.prepared import COLUMNS, SPLITS
from attnfd.discovery import component, names
from attnfd.errors import UserError
from attnfd.readers.base import Reader
from tests.readers.test_shapes import small
from tests.readers.trees import TREES

Opener = Callable[[str], Reader]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """A reader of a small dataset: drawn, or a tree in the published layout."""

    def open_reader(name: str) -> Reader:
        kind = component("readers", name)
        if "root" not in kind.Options.model_fields:
            reader = kind(small(), tmp_path / "drawn")
            reader.draw()
            return reader
        root = TREES[name](tmp_path / name)
        return kind(kind.Options(root=str(root)), root)

    return open_reader


def in_colours(reader: Reader) -> bool:
    """Whether the labels are colours of a mask instead of numbers."""
    return max(reader.labels) >= COLOUR


@pytest.mark.parametrize("name", names("readers"))
def test_classes_colours_and_labels_fit_together(name: str, opened: Opener) -> None:
    reader = opened(name)
    count = len(reader.classes)
    assert 2 <= count <= 255
    assert len(set(reader.classes)) == count
    assert not set(reader.classes) & set(COLUMNS), "a class is a column of the index"
    assert len(reader.palette) == len(set(reader.palette)) == count
    assert all(0 <= channel <= 255 for colour in reader.palette for channel in colour)
    values = range(COLOUR, COLOUR + 2**24) if in_colours(reader) else range(COLOUR)
    assert all(label in values for label in reader.labels)
    assert set(reader.labels.values()) - {255} == set(range(count))


@pytest.mark.parametrize("name", names("readers"))
def test_options_are_described(name: str) -> None:
    for key, field in component("readers", name).Options.model_fields.items():
        assert field.description, key


@pytest.mark.parametrize("name", names("readers"))
def test_pairs_are_there_and_always_the_same(name: str, opened: Opener) -> None:
    reader = opened(name)
    pairs = reader.pairs()
    assert set(pairs) >= set(SPLITS)
    assert pairs == reader.pairs()
    images = [pair.image for listed in pairs.values() for pair in listed]
    assert len(set(images)) == len(images)
    for listed in pairs.values():
        for pair in listed[:3]:
            image = decode_image(reader.root / pair.image)
            mask = decode_mask(reader.root / pair.mask, colours=in_colours(reader))
            assert image.shape[:2] == mask.shape
            assert set(np.unique(mask).tolist()) <= set(reader.labels)


@pytest.mark.parametrize("name", names("readers"))
def test_a_missing_folder_is_explained_in_one_line(name: str, tmp_path: Path) -> None:
    kind = component("readers", name)
    if "root" not in kind.Options.model_fields:
        pytest.skip("drawn, not read")
    with pytest.raises(UserError) as raised:
        kind(kind.Options(root="nowhere"), tmp_path / "nowhere").pairs()
    message = str(raised.value)
    assert "\n" not in message
    for word in ("nowhere", f"ATTNFD_{name.upper()}_ROOT", "prepare.root"):
        assert word in message
    assert "https://" in message or "docs/" in message

"""Random params and files are accepted or refused with the right reason; nothing else happens."""

import copy
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attnfd.cli.preflight import check_components
from attnfd.config.params import Params
from attnfd.data.images import UNREADABLE, decode_image, decode_mask
from attnfd.data.labels import COLOUR
from attnfd.discovery import component
from attnfd.errors import UserError
from attnfd.readers.camvid import CamVid
from attnfd.readers.folder import Folder
from attnfd.readers.voc import Voc
from tests.config.test_params import SHIPPED
from tests.readers.trees import TREES, lined, sbd_mask

fuzz = partial(settings, deadline=None, derandomize=True)


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of nested mappings, also of sections."""
    for key, value in node.items():
        yield *path, key
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


SECTIONS = (
    "run",
    "training",
    "train_teacher",
    "freeze",
    "distill",
    "evaluate",
    "report",
    "students",
    "methods",
)
PLACES = [path for path in leaves(SHIPPED) if path[0] in SECTIONS or path[:2] == ("recipes", "shapes")]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
)


@fuzz(max_examples=150)
@given(st.sampled_from(PLACES), values)
def test_any_value_anywhere_is_valid_or_its_key_is_named(path: tuple[str, ...], value: Any) -> None:
    raw = copy.deepcopy(SHIPPED)
    node = raw
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    try:
        check_components(Params(raw))
    except UserError as refused:
        message = str(refused)
    else:
        return
    assert message.startswith("params.yaml: ")
    assert any(key in message for key in path)


TRAINING = {
    "epochs": st.integers(1, 500),
    "batch_size": st.integers(1, 64),
    "lr": st.floats(1e-9, 1e3),
    "momentum": st.floats(0, 0.999),
    "nesterov": st.booleans(),
    "weight_decay": st.floats(0, 1),
    "schedule": st.sampled_from(["cosine", "poly"]),
    "crop": st.lists(st.integers(8, 2000), min_size=2, max_size=2),
    "scale": st.lists(st.floats(0.1, 10), min_size=2, max_size=2).map(sorted),
    "flip": st.floats(0, 1),
    "sync_bn": st.booleans(),
    "deterministic": st.booleans(),
    "precision": st.sampled_from(["32-true", "tf32", "bf16-mixed", "16-mixed", "auto"]),
}
"""What docs and descriptions allow, key by key."""

NOT_TRAINING = {
    "epochs": st.integers(max_value=0) | st.integers(min_value=100_001) | st.floats(0.1, 0.9),
    "batch_size": st.integers(max_value=0) | st.integers(min_value=4097),
    "scale": st.tuples(st.floats(10.1, 1e300), st.floats(10.1, 1e300)).map(sorted)
    | st.tuples(st.floats(1e-300, 0.09), st.floats(1e-300, 0.09)).map(sorted),
    "lr": st.floats(max_value=0) | st.just(float("nan")) | st.just(float("inf")) | st.text(),
    "momentum": st.floats(min_value=1) | st.floats(max_value=-0.01),
    "nesterov": st.integers() | st.text(),
    "schedule": st.text().filter(lambda word: word not in ("cosine", "poly")),
    "crop": st.lists(st.integers(8, 9), min_size=3)
    | st.lists(st.integers(max_value=7), min_size=2, max_size=2)
    | st.lists(st.integers(min_value=16_385), min_size=2, max_size=2)
    | st.integers(),
    "flip": st.floats(min_value=1.01) | st.floats(max_value=-0.01),
}


@fuzz(max_examples=30)
@given(st.fixed_dictionaries(TRAINING))
def test_a_valid_training_comes_back_as_it_was_given(given: dict[str, Any]) -> None:
    raw = copy.deepcopy(SHIPPED)
    raw["recipes"]["shapes"]["distill"] = given
    found = Params(raw).distill("shapes")
    assert {key: getattr(found, key) for key in given} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }


@fuzz(max_examples=60)
@given(st.data())
def test_an_invalid_training_is_named(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(NOT_TRAINING)))
    raw = copy.deepcopy(SHIPPED)
    raw["recipes"]["shapes"]["distill"] = {key: data.draw(NOT_TRAINING[key])}
    with pytest.raises(UserError, match=rf"^params\.yaml: recipes\.shapes\.distill\.{key}"):
        Params(raw)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    (Image.fromarray(pixels) if kind == "JPEG" else Image.fromarray(pixels).convert("P")).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A small valid file in every format of masks and images."""
    matlab = tmp_path_factory.mktemp("sbd") / "a.mat"
    sbd_mask(matlab, lined(15))
    return [matlab.read_bytes(), *(saved(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"))]


@fuzz(max_examples=300)
@given(st.data())
def test_any_bytes_are_an_image_and_a_mask_or_unreadable(samples: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(samples)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    content = (
        bytes(whole[: data.draw(st.integers(0, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    )
    for decode, dimensions, kind in (
        (decode_image, 3, np.uint8),
        (decode_mask, 2, np.uint8),
        (partial(decode_mask, colours=True), 2, np.uint32),
    ):
        try:
            found = decode(io.BytesIO(content))
        except UNREADABLE:
            continue
        assert found.ndim == dimensions
        assert found.dtype == kind or content.startswith(b"MATLAB")
        assert kind != np.uint32 or found.min() >= COLOUR or content.startswith(b"MATLAB")


LISTS = {
    "camvid": (CamVid, "val.txt"),
    "voc": (Voc, "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"),
    "folder": (Folder, "val.txt"),
    "classes": (Folder, "classes.yaml"),
}
lines = st.binary(max_size=40) | st.text("ab01./\\ \n:,{}[]&*!\0é", max_size=30).map(str.encode)


@pytest.mark.parametrize("name", LISTS)
def test_any_list_is_read_or_refused(name: str, tmp_path: Path) -> None:
    kind, listed = LISTS[name]
    tree = "folder" if name == "classes" else name
    root = TREES[tree](tmp_path)
    options = component("readers", tree).Options(root=str(root))

    @fuzz(max_examples=60)
    @given(lines)
    def check(content: bytes) -> None:
        (root / listed).write_bytes(content)
        try:
            pairs = kind(options, root).pairs()
        except UserError as refused:
            message = str(refused)
        else:
            assert all(isinstance(pair.image, Path) for pair in pairs["val"])
            return
        assert Path(listed).name in message

    check()

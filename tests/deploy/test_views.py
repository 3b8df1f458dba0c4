"""Predictions from several views of an image, with networks whose outputs were calculated by hand."""

import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnfd.data.transforms import MEAN, STD
from attnfd.deploy.source import Model
from attnfd.deploy.views import Views, segment
from attnfd.errors import UserError
from attnfd.evaluation.inference import ClassMap
from attnfd.evaluation.tiles import Tiles, describe, memory
from attnfd.models.taps import Output
from tests.deploy.conftest import LEGEND, network

TWO = LEGEND.model_copy(update={"classes": ("no", "yes"), "palette": ((0, 0, 0), (255, 255, 255))})


class Says(nn.Module):
    """Two classes; a function of the images gives the probability of the second class."""

    def __init__(self, says: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.says = says
        self.device_of = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Output:
        self.seen.append(tuple(images.shape))
        yes = self.says(images).expand(len(images), *images.shape[-2:])
        return Output(torch.stack([(1 - yes).log(), yes.log()], 1), {})


def halves(left: float, right: float) -> Says:
    """Constant probabilities for the left and the right half, for any image."""
    return Says(lambda images: torch.tensor([left, right]).repeat_interleave(images.shape[-1] // 2))


def each_pixel() -> Says:
    """A probability that depends only on the pixel itself."""
    return Says(lambda images: images.sum(1).sigmoid())


def yes(
    net: nn.Module, images: Tensor, views: Views, tiles: Tiles | None = None
) -> tuple[list[list[int]], np.ndarray]:
    """Classes of the first image, and probabilities of the second class."""
    classes, shares = segment(views.of(net), images, tiles, probabilities=True)
    assert shares is not None
    assert (classes.dtype, shares.dtype) == (np.uint8, np.float16)
    np.testing.assert_allclose(shares.astype(np.float32).sum(1), 1, atol=1e-3)
    alone, none = segment(views.of(net), images, tiles)
    assert none is None
    np.testing.assert_array_equal(alone, classes)
    return classes[0].tolist(), shares[0, 1].astype(np.float32)


def blank(height: int, width: int) -> Tensor:
    return torch.zeros(1, 3, height, width, dtype=torch.uint8)


def noise(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_flip_is_the_mean_of_the_image_and_its_mirror_image() -> None:
    net = halves(0.9, 0.4)
    assert yes(net, blank(1, 2), Views())[0] == [[1, 0]]
    classes, found = yes(net, blank(1, 2), Views(flip=True))
    np.testing.assert_allclose(found, [[0.65, 0.65]], atol=1e-3)
    assert classes == [[1, 1]]


def test_what_only_depends_on_the_pixel_is_as_without_flip() -> None:
    (classes, found), (same, mirrored) = (
        yes(each_pixel(), noise(2, 5, 7), Views(flip=flip)) for flip in (False, True)
    )
    np.testing.assert_allclose(found, mirrored, atol=1e-3)
    assert classes == same


def test_scales_average_probabilities_and_no_logits() -> None:
    # The logits 2.2, 2.2 and -4.6 have a negative mean.
    by_width = {6: 0.9, 8: 0.9, 16: 0.01}
    net = Says(lambda images: torch.tensor(by_width[images.shape[-1]]))
    classes, found = yes(net, blank(4, 8), Views(scales=(0.75, 1, 2)))
    np.testing.assert_allclose(found, np.full((4, 8), 1.81 / 3), atol=1e-3)
    assert classes == [[1] * 8] * 4
    assert net.seen[:3] == [(1, 3, 3, 6), (1, 3, 4, 8), (1, 3, 8, 16)]


def test_both_at_once_are_the_mean_of_all() -> None:
    by_width = {4: halves(0.8, 0.1), 8: halves(0.5, 0.2)}
    net = Says(lambda images: by_width[images.shape[-1]].says(images))
    _, found = yes(net, blank(2, 4), Views(flip=True, scales=(1, 2)))
    # The outer columns are not next to the other half.
    np.testing.assert_allclose(found[:, [0, 3]], (0.8 + 0.1 + 0.5 + 0.2) / 4, atol=1e-3)


def test_logits_of_a_view_are_resized_to_the_images_own_size() -> None:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    net = Says(lambda images: (images * deviation + mean)[:, 0].sigmoid())  # values from 0 to 1
    images = blank(2, 4)
    images[..., 2:] = 255
    _, found = yes(net, images, Views(scales=(1, 0.5)))
    # At half the width, a column is the mean of its neighbours with weights 3, 3 and 1: 1/7 and 6/7. At full
    # width again, the inner columns are a quarter and three quarters of the way between them.
    logits = np.array([[0, 0, 1, 1], [1 / 7, 9 / 28, 19 / 28, 6 / 7]])
    np.testing.assert_allclose(found, np.tile((1 / (1 + np.exp(-logits))).mean(0), (2, 1)), atol=1e-3)


def test_a_single_view_is_the_network_itself() -> None:
    net = halves(0.9, 0.4)
    assert Views().of(net) is Views(scales=(1.0,)).of(net) is net


@pytest.mark.parametrize("views", [Views(), Views(flip=True)])
@pytest.mark.parametrize("size", [(100, 90), (40, 70), (33, 20)])
def test_tiles_have_the_probabilities_of_the_whole_image(size: tuple[int, int], views: Views) -> None:
    (whole, expected), (tiled, found) = (
        yes(each_pixel(), noise(2, *size), views, tiles) for tiles in (None, Tiles(size=32, overlap=12))
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (np.array(whole) != np.array(tiled))[abs(expected - 0.5) > 1e-3].sum() == 0


def test_tiles_are_mirrored_one_by_one() -> None:
    classes, found = yes(halves(0.9, 0.4), blank(3, 64), Views(flip=True), Tiles(size=32, overlap=0))
    np.testing.assert_allclose(found, np.full((3, 64), 0.65), atol=1e-3)
    assert classes == [[1] * 64] * 3


def test_probabilities_of_tiles_that_overlap_by_hand() -> None:
    calls = iter((0.9, 0.2))
    net = Says(lambda images: torch.tensor(next(calls)))
    _, shares = segment(net, blank(1, 60), Tiles(size=32, overlap=4), probabilities=True)
    assert shares is not None
    # Tiles start at 0 and 28. In columns 28 to 31 their weights are 4, 3, 2, 1 and 1, 2, 3, 4 fifths.
    first, second = np.log(0.9 / 0.1), np.log(0.2 / 0.8)
    between = 1 / (1 + np.exp(-(np.array([4, 3, 2, 1]) * first + np.array([1, 2, 3, 4]) * second) / 5))
    expected = [0.9] * 28 + between.tolist() + [0.2] * 28
    np.testing.assert_allclose(shares[0, 1, 0].astype(float), expected, atol=1e-3)


@pytest.mark.slow
def test_memory_with_views_and_probabilities_is_bounded_as_stated() -> None:
    tiles, size = Tiles(size=320, overlap=64), (1300, 1300)
    net = Views(flip=True, scales=(0.75, 1, 1.25)).of(network())
    said = memory(net, 3, tiles, *size, probabilities=True)
    assert said > memory(network(), 3, tiles, *size, probabilities=True) > memory(network(), 3, tiles, *size)
    line = describe(net, 3, tiles, [size], probabilities=True)
    assert f"it needs about {said / 2**30:.1f} GiB of memory" in line
    segment(net, blank(320, 330), tiles, probabilities=True)  # memory that libraries allocate once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    segment(net, blank(*size), tiles, probabilities=True)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < said


def model(net: nn.Module) -> Model:
    return Model("says", net, TWO, {}, None)  # type: ignore[arg-type]


def test_a_notebook_has_the_same_options() -> None:
    image = np.zeros((3, 64, 3), np.uint8)
    assert model(halves(0.9, 0.4)).predict(image).probabilities is None
    found = model(halves(0.9, 0.4)).predict(
        image, flip=True, scales=[1], tile=32, overlap=0, probabilities=True
    )
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, 3, 64)
    np.testing.assert_allclose(found.probabilities[1], np.full((3, 64), 0.65), atol=1e-3)
    assert repr(found) == "Prediction(3×64 pixels: yes 100.0%)"


def test_without_options_a_notebook_has_the_classes_of_an_export() -> None:
    net, image = network(), noise(1, 40, 56)
    found = Model("net", net, LEGEND, {}, None).predict(image[0])
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(found.classes), ClassMap(net)(image.movedim(1, -1))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": 2}, "scales: found 2; allowed: a list, such as"),
        ({"scales": []}, "scales: found .*; allowed: at least 1 value"),
        ({"scales": [1, 0.2]}, "scales.1: found 0.2; allowed: 0.25 to 4"),
        ({"scales": [float("nan")]}, "scales.0: found NaN; allowed: a finite number"),
        ({"flip": "yes"}, 'flip: found "yes"; allowed: boolean'),
        ({"tile": 64, "overlap": 33}, "overlap: found 33; allowed: up to half of the size 64"),
        ({"tile": 8, "overlap": 0}, "size: found 8; allowed: greater than or equal to 32"),
    ],
)
def test_other_options_say_what_to_pass(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as stopped:
        model(halves(0.9, 0.4)).predict(np.zeros((3, 64, 3), np.uint8), **options)
    assert "\n" not in str(stopped.value)


def noting(read: Callable[[], object]) -> tuple[Says, list[object]]:
    """A network, and the values that `read` returned in each of its calls."""
    found: list[object] = []

    def says(images: Tensor) -> Tensor:
        found.append(read())
        return torch.tensor(0.5)

    return Says(says), found


def test_a_network_computes_in_eval_mode_and_keeps_its_own() -> None:
    net, modes = noting(lambda: net.training)
    net.train()
    segment(Views(flip=True).of(net), blank(2, 2))
    assert modes == [False, False]
    assert net.training


@pytest.fixture
def settings() -> Iterator[None]:
    """Restores the float32 settings at the end."""
    before = allowed()
    yield
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):
        backends.fp32_precision = backends.cudnn.conv.fp32_precision = "none"
    torch.set_float32_matmul_precision(before[0])
    backends.cudnn.allow_tf32 = before[1]
    assert allowed() == before


def allowed() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [("high", True), ("highest", True), ("medium", False)])
def test_a_notebook_computes_in_float32_and_keeps_its_settings(
    before: tuple[str, bool], settings: None
) -> None:
    net, found = noting(allowed)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    model(net).predict(np.zeros((2, 2, 3), np.uint8), flip=True)
    assert found == [("highest", False)] * 2
    assert allowed() == before


def test_settings_are_back_after_an_error(settings: None) -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True

    def fails(images: Tensor) -> Tensor:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        segment(Says(fails), blank(2, 2))
    assert allowed() == ("high", True)


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="an older PyTorch has one way to set it"
)
def test_settings_by_pytorchs_newer_way_are_kept_too(settings: None) -> None:
    backends: Any = torch.backends

    def read() -> tuple[str, str]:
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision

    net, found = noting(read)
    backends.fp32_precision = backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix of the legacy and new"):
        allowed()
    segment(net, blank(2, 2))
    assert found == [("ieee", "ieee")]
    assert read() == ("tf32", "tf32")

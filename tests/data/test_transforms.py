"""Augmentation and normalisation."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnfd.data.transforms import augment, normalize
from tests.data.trees import training

MEAN_COLOUR = torch.tensor([124, 116, 104], dtype=torch.uint8)


def augmented(image: Tensor, mask: Tensor, **changes: object) -> tuple[Tensor, Tensor]:
    return augment(image, mask, training(**changes))


def test_padding_is_mean_colour_and_void() -> None:
    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    mask = torch.ones(4, 5, dtype=torch.uint8)
    image, mask = augmented(image, mask, crop=(9, 11), scale=(1.0, 1.0))
    padding = mask == 255
    assert padding.sum() == 9 * 11 - 4 * 5
    assert (mask[~padding] == 1).all()
    assert (image[:, padding] == MEAN_COLOUR[:, None]).all()
    assert (image[:, ~padding] == 0).all()


def test_flip_turns_image_and_mask() -> None:
    image = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(3, 4, 5)
    mask = image[0].clone()
    flipped = augmented(image, mask, crop=(4, 5), scale=(1.0, 1.0), flip=1.0)
    assert torch.equal(flipped[0], image.flip(-1))
    assert torch.equal(flipped[1], mask.flip(-1))
    kept = augmented(image, mask, crop=(4, 5), scale=(1.0, 1.0), flip=0.0)
    assert torch.equal(kept[0], image)
    assert torch.equal(kept[1], mask)


def test_mask_stays_on_its_image() -> None:
    torch.manual_seed(0)
    edge = 13
    mask = (torch.arange(32) >= edge).to(torch.uint8).expand(32, 32).contiguous()
    image = (255 * mask).expand(3, 32, 32).contiguous()
    for factor in (0.5, 0.7, 1.3, 1.6, 2.0):
        side = round(32 * factor)
        scaled, labels = augmented(image, mask, crop=(side, side), scale=(factor, factor), flip=0.0)
        # Areas to the right of the edge, in pixels at the original width.
        of_image = float(scaled.float().mean() / 255 * 32)
        of_mask = float(labels.float().mean() * 32)
        assert abs(of_image - (32 - edge)) < 0.1
        assert abs(of_mask - (32 - edge)) <= 0.5 / factor + 1e-6


def test_scale_is_relative_to_the_original_size() -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    areas = []
    for _ in range(200):
        _, labels = augmented(image, mask, crop=(64, 64), scale=(0.5, 2.0))
        rows, columns = (labels == 0).any(1).sum().item(), (labels == 0).any(0).sum().item()
        assert abs(rows / columns - 20 / 30) < 0.06
        areas.append(rows / 20)
    assert 0.5 <= min(areas) < 0.6
    assert 1.9 < max(areas) <= 2.0
    assert abs(np.mean(areas) - 1.25) < 0.1


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    crop=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    scale=st.tuples(st.floats(0.05, 1.0), st.floats(1.0, 3.0)),
)
def test_any_image_gives_a_crop(
    size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float]
) -> None:
    image = torch.full((*size, 3), 7, dtype=torch.uint8).permute(
        2, 0, 1
    )  # the memory layout of a decoded image
    image, mask = augmented(image, torch.full(size, 3, dtype=torch.uint8), crop=crop, scale=scale)
    assert image.shape == (3, *crop)
    assert mask.shape == crop
    # A constant image stays constant: image and padding do not mix.
    inside = mask == 3
    assert inside.any()
    assert (image[:, inside] == 7).all()
    assert (mask[~inside] == 255).all()
    assert (image[:, ~inside] == MEAN_COLOUR[:, None]).all()


def test_normalize_is_imagenets() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator())
    before = images.clone()
    normal = normalize(images)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (images.numpy().transpose(0, 2, 3, 1) / 255 - mean) / deviation
    assert normal.dtype == torch.float32
    assert normal.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(normal.numpy().transpose(0, 2, 3, 1), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(images, before)
    padding = normalize(MEAN_COLOUR.reshape(1, 3, 1, 1))
    assert padding.abs().max() < 0.01


def test_colours_and_blur_change_the_image_alone_and_draw_nothing_where_they_are_off() -> None:
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(1200).view(40, 30).remainder(5).to(torch.uint8)
    results = {}
    for name, changes in {"off": {}, "jitter": {"jitter": 0.4}, "blur": {"blur": 9.0}}.items():
        torch.manual_seed(7)
        results[name] = *augment(image, mask, training(**changes)), torch.rand(1)
    for name in ("jitter", "blur"):
        assert not torch.equal(results[name][0], results["off"][0])
        assert torch.equal(results[name][1], results["off"][1])
    torch.manual_seed(7)
    plain = augment(image, mask, training(jitter=0, blur=0))
    assert torch.equal(plain[0], results["off"][0])
    assert torch.equal(torch.rand(1), results["off"][2])
    # A blur reduces differences between neighbours and keeps the mean.
    blurred, sharp = (results[name][0].float() for name in ("blur", "off"))
    assert blurred.diff(dim=2).abs().mean() < 0.5 * sharp.diff(dim=2).abs().mean()
    assert torch.allclose(blurred.mean((1, 2)), sharp.mean((1, 2)), atol=6)


def test_scale_from_the_short_side_is_relative_to_the_crop() -> None:
    """At factor 1 the short side of every image becomes the crop's short side."""
    for height, width in ((30, 40), (90, 60)):
        image = torch.arange(height * width, dtype=torch.float).view(1, height, width).expand(3, -1, -1)
        image, mask = (
            (image / image.max() * 200).to(torch.uint8),
            torch.ones(height, width, dtype=torch.uint8),
        )
        given = training(crop=(20, 20), scale=(1.0, 1.0), scale_from="short_side", flip=0.0)
        _, crop = augment(image, mask, given)
        assert (crop == 1).all()  # No padding: the short side is 20 and the other side is longer.
        wide = training(crop=(20, 200), scale=(1.0, 1.0), scale_from="short_side", flip=0.0)
        _, crop = augment(image, mask, wide)
        assert crop.eq(1).any(0).sum() == round(width * 20 / min(height, width))

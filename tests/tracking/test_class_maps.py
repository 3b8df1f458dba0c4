"""The inputs that a logged model accepts as images, and its messages for other inputs."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnfd.evaluation.inference import ClassMap
from attnfd.models.taps import Output
from attnfd.tracking import class_maps

IMAGE = np.arange(2 * 17 * 18 * 3, dtype=np.uint8).reshape(2, 17, 18, 3)


@pytest.mark.parametrize("given", [IMAGE, IMAGE.astype(np.int64), IMAGE.astype(object)])
def test_whole_numbers_of_any_type_are_images(given: np.ndarray) -> None:
    found = class_maps.images(given)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGE)


def changed(value: Any) -> np.ndarray:
    """An image as decoded JSON, with one other value."""
    image = IMAGE.astype(object)
    image[1, 2, 3, 0] = value
    return image


def test_a_logged_model_computes_in_float32_and_keeps_the_settings_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []

    class Network(nn.Module):
        def forward(self, images: Tensor) -> Output:
            found.append(torch.backends.cudnn.allow_tf32)
            return Output(images, {})

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    class_maps.ClassMaps(ClassMap(Network()), "cpu").predict(IMAGE)
    assert found == [False]
    assert torch.backends.cudnn.allow_tf32


NUMBERS = "whole numbers from 0 to 255"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (IMAGE / 255, f"floats; allowed: {NUMBERS}; multiply an image of 0 to 1 by 255 and round it"),
        ((IMAGE / 255).astype(object), "floats"),
        (IMAGE.astype(np.float32), "floats"),
        (np.zeros((1, 20, 20, 3)), "floats"),
        (changed(0.5), "floats"),
        (changed(12.0), "floats"),
        (changed(None), "values of type object"),
        (changed("7"), "values of type str"),
        (IMAGE > 9, "values of type bool"),
        (changed(256), f"values from 0 to 256; allowed: {NUMBERS}$"),
        (changed(-1), "values from -1 to 255"),
        (changed(2**70), "values of type object"),
        (IMAGE[:, :0], r"the shape \(2, 0, 18, 3\)"),
        (IMAGE[:, :, :0], r"the shape \(2, 17, 0, 3\)"),
        (IMAGE[0], r"the shape \(17, 18, 3\); allowed: RGB images of one size, \(images, height, width, 3\)"),
        (IMAGE[..., 0], r"the shape \(2, 17, 18\)"),
        (IMAGE.transpose(0, 3, 1, 2), r"the shape \(2, 3, 17, 18\)"),
        (IMAGE[:0], r"the shape \(0, 17, 18, 3\)"),
        (np.array([[[1], [2]], [[3]]], dtype=object), r"the shape \(2,\)"),
        ("photo.png", r"the shape \(\)"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(given: Any, found: str) -> None:
    with pytest.raises(class_maps.Refused, match=f"^inputs: found {found}") as refused:
        class_maps.images(given)
    refused.value.message = "MLflow puts the pixels before it"
    answer = json.loads(refused.value.serialize_as_json())
    assert answer == {"error_code": "INVALID_PARAMETER_VALUE", "message": str(refused.value)}
    assert refused.value.get_http_status_code() == 400

"""Confusion matrices of a split, with networks whose predictions are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attnfd.data.transforms import normalize
from attnfd.evaluation.inference import confusion, confusion_matrices

K = 3


class Threshold(nn.Module):
    """Class 0, 1 or 2 by the brightness of the red channel; dropout and BN differ between the modes."""

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(
            normalize(torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 1, 1))[
                :, 0
            ]
        )
        self.head = nn.Sequential(nn.BatchNorm2d(K), nn.Dropout(0.9)).train()
        self.frozen = nn.BatchNorm2d(1).eval()

    def forward(self, images):
        assert not torch.is_grad_enabled()
        logits = -(images[:, :1] - self.levels.view(1, K, 1, 1)).abs()
        return SimpleNamespace(logits=self.head(logits))


def split():
    """Five images of two sizes, in batches of one size and so in another order, and their class maps."""
    generator = np.random.default_rng(0)
    sizes = [(6, 8), (4, 4), (6, 8), (4, 4), (6, 8)]
    truth = [generator.integers(0, K, size) for size in sizes]
    images = [torch.tensor(100 * t, dtype=torch.uint8).expand(3, -1, -1) for t in truth]
    masks = [torch.tensor(generator.choice([0, 1, 2, 255], size), dtype=torch.uint8) for size in sizes]
    batches = [
        (torch.stack([images[i] for i in group]), torch.stack([masks[i] for i in group]), torch.tensor(group))
        for group in ([4, 0], [3, 1], [2])
    ]
    return truth, masks, batches


def test_a_matrix_per_image_in_the_order_of_the_split():
    truth, masks, batches = split()
    found = confusion(Threshold(), batches, K, device="cpu")
    for matrix, pred, mask in zip(found, truth, masks, strict=True):
        expected = np.zeros((K, K))
        for i, j in zip(mask.numpy().flat, pred.flat, strict=True):
            if i != 255:
                expected[i, j] += 1
        np.testing.assert_array_equal(matrix, expected)


def test_model_comes_back_as_it_was():
    model = Threshold()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    confusion(model, split()[2], K, device="cpu")
    assert model.training
    assert model.head[1].training
    assert not model.frozen.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_mode_comes_back_after_an_error():
    model = Threshold()
    with pytest.raises(RuntimeError, match="out of bounds"):
        confusion(
            model,
            [(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.full((1, 2, 2), 77), torch.tensor([0]))],
            K,
            device="cpu",
        )
    assert model.training


def test_resize_scores_at_the_short_side():
    # Left half class 0, right half class 2, all labels 0: half of the pixels are wrong at every size.
    image = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    image[..., 8:] = 200
    mask = torch.zeros(1, 8, 16, dtype=torch.uint8)
    found = confusion(Threshold(), [(image, mask, torch.tensor([0]))], K, device="cpu", resize=4)[0]
    assert found.sum() == 4 * 8
    assert found[0, 0] == found[0, 2] == 16


def test_resized_masks_keep_void():
    mask = torch.tensor([[0, 0, 255, 255]] * 4, dtype=torch.uint8)[None]
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    found = confusion(Threshold(), [(image, mask, torch.tensor([0]))], K, device="cpu", resize=2)[0]
    np.testing.assert_array_equal(
        found, confusion_matrices(torch.zeros(1, 2, 2).long(), torch.tensor([[[0, 255]] * 2]), K)[0]
    )

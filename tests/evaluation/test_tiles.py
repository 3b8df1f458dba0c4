"""Large images in tiles: positions of tiles, results compared with the whole image, and memory."""

import itertools
import resource
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnfd.data.transforms import normalize
from attnfd.evaluation.inference import classify, confusion
from attnfd.evaluation.tiles import Tiles, classify_tiled, describe, memory
from attnfd.models.deeplab import DeepLabV3Plus


class Local(nn.Module):
    """Logits whose receptive field is 2 pixels in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Any:
        self.seen.append(tuple(images.shape))
        return SimpleNamespace(logits=self.net(images))


@pytest.fixture
def local() -> Local:
    torch.manual_seed(0)
    return Local().eval()


def image(height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("side", range(90, 400, 7))
@pytest.mark.parametrize("overlap", [0, 10, 50])
def test_tiles_cover_a_side_and_overlap_enough(side: int, overlap: int) -> None:
    tiles = Tiles(size=100, overlap=overlap)
    starts = tiles.starts(side)
    assert starts[0] == 0
    assert starts[-1] == max(0, side - 100)
    assert all(0 < later - former <= 100 - overlap for former, later in itertools.pairwise(starts))
    fewer = len(starts) - 1
    assert fewer == 0 or fewer * (100 - overlap) + overlap < side


def test_ramps_fall_over_the_overlap_and_are_never_zero() -> None:
    ramp = Tiles(size=32, overlap=3).ramp(32)
    assert ramp[:5].tolist() == [0.25, 0.5, 0.75, 1, 1]
    assert torch.equal(ramp, ramp.flip(0))


def test_an_image_that_fits_is_seen_whole(local: Local) -> None:
    batch = torch.stack([image(40, 64), image(40, 64)])
    answer = classify(local, batch, Tiles(size=64, overlap=16))
    assert local.seen == [(2, 3, 40, 64)]
    assert torch.equal(answer, classify(local, batch))


@pytest.mark.parametrize("size", [(150, 190), (64, 200), (130, 30), (65, 65)])
def test_tiles_answer_as_the_whole_image_does(local: Local, size: tuple[int, int]) -> None:
    """If every tile contains the receptive field of a pixel, its logits are the same in all of them."""
    tiles = Tiles(size=64, overlap=16)
    pixels = image(*size)
    with torch.no_grad():
        whole = local(normalize(pixels[None])).logits[0]
        tiled = classify_tiled(local, pixels, tiles)
    assert max(max(shape[2:]) for shape in local.seen[1:]) <= 64
    near = [torch.zeros(side, dtype=torch.bool) for side in size]
    for side, mask in zip(size, near, strict=True):
        for start in tiles.starts(side):
            if start > 0:
                mask[start : start + 2] = True
            if start + 64 < side:
                mask[start + 62 : start + 64] = True
    inner = ~(near[0][:, None] | near[1])
    top = whole.topk(2, dim=0).values
    clear = (top[0] - top[1]) > 1e-4  # elsewhere, rounding decides the class
    assert torch.equal(tiled[inner & clear].long(), whole.argmax(0)[inner & clear])
    # At the borders of a tile, where context is missing, its weight is small.
    assert (tiled.long() == whole.argmax(0))[clear].float().mean() > 0.98


def test_blending_by_hand() -> None:
    class Place(nn.Module):
        """A tile's number chooses class 1 or 0, and a high or low confidence."""

        calls = 0

        def forward(self, images: Tensor) -> Any:
            vote = (1.0, -2.0)[self.calls]
            self.calls += 1
            logits = torch.zeros(1, 2, *images.shape[-2:])
            logits[:, 1] = vote
            return SimpleNamespace(logits=logits)

    answer = classify_tiled(Place(), image(4, 60), Tiles(size=32, overlap=4))
    # Tiles start at 0 and 28. In columns 28 to 31 their weights are 4, 3, 2, 1 and 1, 2, 3, 4 fifths.
    assert answer[0, 26:34].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_confusion_counts_every_pixel_once(local: Local) -> None:
    pixels, mask = image(100, 150), torch.randint(0, 5, (100, 150), dtype=torch.uint8)
    batches = [(pixels[None], mask[None], torch.tensor([0]))]
    matrices = confusion(local, batches, 5, device="cpu", tiles=Tiles(size=64, overlap=16))
    assert matrices.sum() == 100 * 150


def test_memory_is_that_of_the_tile_and_a_row() -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus("mobilenetv2", 21).eval()
    tiles = Tiles(size=256, overlap=64)
    needed = [memory(model, 21, tiles, *size) for size in ((256, 256), (2000, 1000), (20000, 1000))]
    assert needed[0] < needed[1] < needed[2] < needed[1] * 2  # only the image itself grows
    assert needed[1] < memory(model, 21, Tiles(size=1000, overlap=64), 2000, 1000) / 3
    line = describe(model, 21, tiles, [(100, 100), (1000, 700)])
    assert line.startswith("The largest image, 1000 × 700 pixels, becomes 20 tiles of 256 × 256")


def test_memory_is_bounded_as_it_was_said() -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus("mobilenetv2", 21).eval()
    tiles = Tiles(size=320, overlap=64)
    with torch.no_grad():
        classify_tiled(model, image(320, 330), tiles)  # memory that libraries allocate once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        classify_tiled(model, image(1300, 1300), tiles)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < memory(model, 21, tiles, 1300, 1300)


def test_an_overlap_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap: found 17; allowed: up to half of the size 32"):
        Tiles(size=32, overlap=17)

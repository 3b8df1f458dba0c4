"""Cityscapes in its 19 evaluation classes (Cordts et al. 2016)."""

from pathlib import Path

from pydantic import Field

from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.readers.base import Grouped, Pair, Reader

IMAGE = "_leftImg8bit.png"
MASK = "_gtFine_labelIds.png"


class Options(Grouped):
    """Where the dataset is."""

    root: str = Field(description="folder with leftImg8bit and gtFine, relative to the repository's root")


class Cityscapes(Reader):
    """`leftImg8bit/<split>/<city>/` with the fine annotation: 2 975 images in `train`, 500 in `val`.

    Masks are the published `labelIds`. 19 of the ids 0 to 33 are classes, and the others are void, as in the
    benchmark; -1 (licence plate), which is stored as 255 in 8 bits, is also void.
    """

    Options = Options
    classes = (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    )  # fmt: skip
    palette = (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    )  # fmt: skip
    ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    """The label id of every class."""

    labels = {  # noqa: RUF012
        **dict.fromkeys(range(34), VOID),
        **{label: index for index, label in enumerate(ids)},
        VOID: VOID,
    }

    def pairs(self) -> dict[str, list[Pair]]:
        return {split: self._found(split) for split in ("train", "val")}

    def _found(self, split: str) -> list[Pair]:
        folder = self.root / "leftImg8bit" / split
        # A copy made on a Mac contains a `._` file for every image.
        images = sorted(folder.glob(f"*/[!.]*{IMAGE}"))
        if not images:
            raise UserError(
                f"{folder}: found no <city>/*{IMAGE}; get Cityscapes from https://www.cityscapes-dataset.com "
                "(attnfd data fetch cityscapes shows how) and name its folder in the recipe's prepare.root, "
                "or in ATTNFD_CITYSCAPES_ROOT"
            )
        return [Pair(image.relative_to(self.root), self._mask(split, image)) for image in images]

    def _mask(self, split: str, image: Path) -> Path:
        return Path("gtFine", split, image.parent.name, image.name.removesuffix(IMAGE) + MASK)

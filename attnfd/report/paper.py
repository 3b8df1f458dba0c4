"""The numbers of the paper, Tables 1 to 3, by the reader of the dataset."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from attnfd.analysis.tables import COMBINATIONS
from attnfd.config.schema import LAYERS
from attnfd.data.prepared import Card
from attnfd.paths import TEACHER

METHODS = ("none", "kd", "at", "sp", "ickd", "overhaul", "dist", "cirkd", "lad", "attnfd")


CLASSES = {"voc": 21, "cityscapes": 19}
"""Number of classes of the paper's datasets."""


class Score(NamedTuple):
    """In per cent as printed: mIoU, its standard deviation over three seeds, mean class accuracy."""

    miou: float | None = None
    std: float | None = None
    accuracy: float | None = None


def printed(card: Card) -> str:
    """The reader of a dataset with the paper's classes; "" for others, whose scores are not comparable."""
    return card.reader if CLASSES.get(card.reader) == len(card.classes) else ""


def comparison(table: pd.DataFrame, reader: str) -> pd.DataFrame:
    """`attnfd.analysis.tables.comparison` with the columns `paper_miou`, `paper_std` and `paper_accuracy`.

    They are between 0 and 1, and empty if the paper prints none. For other datasets there are no columns.
    """
    scores = {
        (student, method): score
        for student, printed in COMPARISON.get(reader, {}).items()
        for method, score in zip([""] if student == TEACHER else METHODS, printed, strict=True)
    }
    return _beside(table, ["student", "method"], scores)


def ablation(table: pd.DataFrame, reader: str) -> pd.DataFrame:
    """`attnfd.analysis.tables.ablation` with the same columns."""
    scores = {
        (student, *(layer in layers for layer in LAYERS)): score
        for student, printed in ABLATION.get(reader, {}).items()
        for layers, score in zip(COMBINATIONS, printed, strict=True)
    }
    return _beside(table, ["student", *LAYERS], scores)


def training(reader: str) -> dict[str, str]:
    """The paper's training (sec. 4.2) by setting; for other datasets, its training on VOC."""
    return {**TRAINING, **OTHER_TRAINING.get(reader, {})}


def _beside(table: pd.DataFrame, by: list[str], scores: Mapping[tuple[Any, ...], Score]) -> pd.DataFrame:
    if not scores:
        return table
    keys = table[by].itertuples(index=False, name=None)
    printed = pd.DataFrame([scores.get(key, Score()) for key in keys], index=table.index, dtype=float)
    return table.join((printed / 100).add_prefix("paper_"))


TRAINING: Mapping[str, str] = {
    "backbone": "resnet101", "weights": "imagenet", "epochs": "120", "batch_size": "6", "lr": "0.007",
    "weight_decay": "0.0005", "momentum": "0.9", "schedule": "cosine", "crop": "513, 513", "scale": "0.5, 2",
    "flip": "0.5",
}  # fmt: skip
OTHER_TRAINING: Mapping[str, Mapping[str, str]] = {
    "cityscapes": {"epochs": "50", "batch_size": "4", "lr": "0.01", "crop": "512, 1024"},
}
"""The trainings of sec. 4.2, written as `attnfd.report.provenance` writes settings."""

COMPARISON: Mapping[str, Mapping[str, list[Score]]] = {
    "voc": {
        TEACHER: [Score(77.85)],
        "resnet18": [
            Score(67.50), Score(69.13, 0.11), Score(68.95, 0.26),
            Score(69.04, 0.10), Score(69.13, 0.17), Score(70.67, 0.25),
            Score(69.84, 0.11), Score(71.02, 0.11), Score(71.42, 0.09),
            Score(73.09, 0.06),
        ],
        "mobilenetv2": [
            Score(63.92), Score(66.39, 0.21), Score(66.27, 0.17),
            Score(66.32, 0.05), Score(67.01, 0.10), Score(67.91, 0.15),
            Score(67.62, 0.22), Score(69.02, 0.16), Score(68.63, 0.07),
            Score(70.38, 0.16),
        ],
    },
    "cityscapes": {
        TEACHER: [Score(77.66, accuracy=84.05)],
        "resnet18": [
            Score(64.09, accuracy=74.80), Score(65.21, accuracy=76.32), Score(65.29, accuracy=76.27),
            Score(65.64, accuracy=76.90), Score(66.98, accuracy=77.48), Score(70.31, accuracy=80.10),
            Score(71.81, accuracy=80.73), Score(70.49, accuracy=79.99), Score(71.37, accuracy=80.93),
            Score(73.04, accuracy=83.01),
        ],
        "mobilenetv2": [
            Score(63.05, accuracy=73.38), Score(64.03, accuracy=75.34), Score(63.72, accuracy=74.79),
            Score(64.22, accuracy=75.28), Score(65.55, accuracy=76.48), Score(69.71, accuracy=79.15),
            Score(69.53, accuracy=79.10), Score(69.34, accuracy=78.66), Score(69.84, accuracy=80.49),
            Score(70.80, accuracy=81.59),
        ],
    },
}  # fmt: skip
"""Table 1 (VOC 2012 val) and Table 2 (Cityscapes val), in the order of `METHODS`."""

ABLATION: Mapping[str, Mapping[str, list[Score]]] = {
    "voc": {
        "resnet18": [
            Score(67.50, accuracy=76.49), Score(70.25, accuracy=78.88), Score(72.31, accuracy=81.48),
            Score(72.47, accuracy=82.13), Score(72.58, accuracy=81.71), Score(72.82, accuracy=81.87),
            Score(72.92, accuracy=82.68), Score(73.09, accuracy=82.95),
        ],
        "mobilenetv2": [
            Score(63.92, accuracy=73.98), Score(66.68, accuracy=77.01), Score(68.91, accuracy=79.60),
            Score(69.55, accuracy=78.50), Score(69.17, accuracy=79.61), Score(69.46, accuracy=78.65),
            Score(69.96, accuracy=79.73), Score(70.38, accuracy=81.13),
        ],
    },
}  # fmt: skip
"""Table 3 (VOC 2012 val), in the order of `COMBINATIONS`."""

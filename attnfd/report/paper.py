"""The numbers of the paper (Tables 1 to 3), in per cent as printed, by the reader of the dataset."""

import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

TEACHER = "teacher"
LAYERS = ("backbone", "encoder", "decoder")
COMBINATIONS = [layers for count in range(4) for layers in itertools.combinations(LAYERS, count)]
"""Rows of Table 3, in its order: none, one layer, two, all three."""


class Score(NamedTuple):
    """mIoU, its standard deviation over three seeds, and mean class accuracy; None where none is printed."""

    miou: float | None = None
    std: float | None = None
    accuracy: float | None = None


METHODS = ("none", "kd", "at", "sp", "ickd", "overhaul", "dist", "cirkd", "lad", "attnfd")


def _with_std(student: str, none: float, *scores: tuple[float, float]) -> dict[tuple[str, str], Score]:
    spread = [Score(miou, std) for miou, std in scores]
    return _by_method(student, [Score(none), *spread])


def _with_accuracy(student: str, *scores: tuple[float, float]) -> dict[tuple[str, str], Score]:
    return _by_method(student, [Score(miou, accuracy=accuracy) for miou, accuracy in scores])


def _by_method(student: str, scores: Iterable[Score]) -> dict[tuple[str, str], Score]:
    return {(student, method): score for method, score in zip(METHODS, scores, strict=True)}


def _by_layers(student: str, *scores: tuple[float, float]) -> dict[tuple[str, tuple[str, ...]], Score]:
    return {
        (student, layers): Score(miou, accuracy=accuracy)
        for layers, (miou, accuracy) in zip(COMBINATIONS, scores, strict=True)
    }


COMPARISON: Mapping[str, Mapping[tuple[str, str], Score]] = {
    "voc": {
        (TEACHER, ""): Score(77.85),
        **_with_std(
            "resnet18", 67.50,
            (69.13, 0.11), (68.95, 0.26), (69.04, 0.10), (69.13, 0.17), (70.67, 0.25),
            (69.84, 0.11), (71.02, 0.11), (71.42, 0.09), (73.09, 0.06),
        ),
        **_with_std(
            "mobilenetv2", 63.92,
            (66.39, 0.21), (66.27, 0.17), (66.32, 0.05), (67.01, 0.10), (67.91, 0.15),
            (67.62, 0.22), (69.02, 0.16), (68.63, 0.07), (70.38, 0.16),
        ),
    },
    "cityscapes": {
        (TEACHER, ""): Score(77.66, accuracy=84.05),
        **_with_accuracy(
            "resnet18",
            (64.09, 74.80), (65.21, 76.32), (65.29, 76.27), (65.64, 76.90), (66.98, 77.48), (70.31, 80.10),
            (71.81, 80.73), (70.49, 79.99), (71.37, 80.93), (73.04, 83.01),
        ),
        **_with_accuracy(
            "mobilenetv2",
            (63.05, 73.38), (64.03, 75.34), (63.72, 74.79), (64.22, 75.28), (65.55, 76.48), (69.71, 79.15),
            (69.53, 79.10), (69.34, 78.66), (69.84, 80.49), (70.80, 81.59),
        ),
    },
}  # fmt: skip
"""Table 1 (VOC 2012 val) and Table 2 (Cityscapes val), by student and method."""

ABLATION: Mapping[str, Mapping[tuple[str, tuple[str, ...]], Score]] = {
    "voc": {
        **_by_layers(
            "resnet18",
            (67.50, 76.49), (70.25, 78.88), (72.31, 81.48), (72.47, 82.13),
            (72.58, 81.71), (72.82, 81.87), (72.92, 82.68), (73.09, 82.95),
        ),
        **_by_layers(
            "mobilenetv2",
            (63.92, 73.98), (66.68, 77.01), (68.91, 79.60), (69.55, 78.50),
            (69.17, 79.61), (69.46, 78.65), (69.96, 79.73), (70.38, 81.13),
        ),
    },
}  # fmt: skip
"""Table 3 (VOC 2012 val), by student and distilled layers."""

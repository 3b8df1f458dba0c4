"""Tiny CamVid trees on disk, and params for them."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from attnfd import paths
from attnfd.config.schema import Prepare, Training
from attnfd.config.section import typed
from attnfd.data.prepared import Prepared, dataset_root
from stages.prepare import prepare
from tests import tasks

SIZES = ((12, 16), (9, 7), (12, 16), (5, 20), (9, 7))


def camvid_tree(root: Path, sizes: Mapping[str, tuple[tuple[int, int], ...]], seed: int = 0) -> Path:
    """Random images and masks (labels 0 to 11) of the given sizes, and a list file per split."""
    rng = np.random.default_rng(seed)
    for split, listed in sizes.items():
        lines = []
        for number, size in enumerate(listed):
            pair = f"{split}/{number}.png", f"{split}annot/{number}.png"
            save(root / pair[0], rng.integers(0, 256, (*size, 3)))
            save(root / pair[1], rng.integers(0, 12, size))
            lines.append(" ".join(pair) + "\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def params_of(reader: str, **options: Any) -> Any:
    """The part of `Params` that `prepare` reads."""
    settings = typed(Prepare, {"reader": reader, **options})
    resolved = SimpleNamespace(prepare=settings)
    return SimpleNamespace(
        source="params.yaml",
        raw={"recipes": {"tiny": {}}},
        prepare=lambda dataset: settings,
        resolve=lambda cell: resolved,
    )


def prepared_tree(root: Path, sizes: Mapping[str, tuple[tuple[int, int], ...]]) -> Prepared:
    """A tree below `root`, prepared as dataset `tiny` below the working directory."""
    params = params_of("camvid", root=str(camvid_tree(root, sizes)))
    prepare(tasks.of(params, "tiny"))
    return Prepared.load(paths.prepared("tiny"), dataset_root(params, "tiny", paths.prepared("tiny")))


def training(**changes: Any) -> Training:
    """Settings of a training, also those that `params.yaml` does not allow, such as crops of a few pixels."""
    settings: dict[str, Any] = {
        "splits": ("train",), "epochs": 1, "batch_size": 2,
        "scale_from": "original", "jitter": 0, "blur": 0,
        "lr": 0.1, "head_lr_factor": 1.0, "momentum": 0.9, "nesterov": True,
        "weight_decay": 0.0, "schedule": "cosine", "crop": (8, 10), "scale": (0.5, 2.0), "flip": 0.5,
        "sync_bn": True, "precision": "32-true", "deterministic": False, "validate_every": 1,
    }  # fmt: skip
    return Training.model_construct(**(settings | changes))

"""A dataset of four images, and results of cells that never trained, below the working directory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from attnfd import discovery, paths
from attnfd.config.schema import Distill, Prepare, Report, Run, Student, TrainTeacher, Tune
from attnfd.config.section import typed
from attnfd.data.prepared import Card, Prepared, Split, write_warnings
from attnfd.paths import Cell

CLASSES = ("ground", "square", "star")
PALETTE = ((0, 0, 0), (0, 114, 178), (230, 159, 0))
SIZE = (6, 8)
WARNINGS = ["No mask has a pixel of class star."]
VARIANTS: dict[Any, dict[str, Any]] = {
    "b": {"layers": ["backbone"]},
    "ed": {"layers": ["decoder", "encoder"]},
    "plain": {"normalize": "none", "attention": {"channel": False, "reduction": 8}},
    "early": {"layers": ["backbone"], "decay": 0.5},
}
TRAINING: dict[str, Any] = {
    "splits": ["train"], "epochs": 120, "batch_size": 8, "lr": 0.007, "head_lr_factor": 10, "momentum": 0.9,
    "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "crop": [64, 64], "scale": [0.5, 2.0],
    "flip": 0.5, "sync_bn": True, "precision": "auto", "deterministic": False, "validate_every": 1,
}  # fmt: skip
TEACHER: dict[str, Any] = {
    "backbone": "resnet101", "weights": "imagenet", "dropout": [0.5, 0.1], "attention": {},
    "checkpoint": None, "fit_epochs": 5, "seed": 0,
}  # fmt: skip


def params(
    seeds: Sequence[int] = (0,),
    methods: Sequence[str] = ("none", "kd", "attnfd"),
    students: Sequence[str] = ("resnet18",),
    ablate: Mapping[str, Any] | None = None,
    tune: Sequence[str] = (),
) -> Any:
    """The part of `Params` that `report` reads; the ablation has the variants ed and b."""
    axes = {"students": ["resnet18"], "variants": ["ed", "b"], "seeds": list(seeds), **(ablate or {})}
    run = {"datasets": ["tiny"], "students": students, "methods": methods, "seeds": seeds, "ablate": axes}
    run["tune"] = {"students": students, "methods": tune, "seeds": [0]}
    return SimpleNamespace(
        run=Run.model_validate_json(json.dumps(run)),
        report=Report(title="Tiny"),
        tune=Tune(factors=(0.3, 1), share=0.25, epochs_factor=0.5),
        prepare=lambda dataset: Prepare(reader="shapes"),
        raw={"ablate": VARIANTS},
        student=lambda student: Student(backbone=student, dropout=(0.5, 0.1)),
        train_teacher=lambda dataset: typed(TrainTeacher, TRAINING | TEACHER),
        distill=lambda dataset: typed(Distill, TRAINING | {"weights": "none", "epochs": 60}),
        method=lambda method, dataset, variant=None: typed(
            discovery.component("distillers", method).Config, VARIANTS.get(variant, {})
        ),
    )


def dataset(sizes: Sequence[tuple[int, int]] = (SIZE,) * 4) -> Prepared:
    """Image `i` has the grey level 10·i. Its mask is class 1 left of the diagonal, and void in one corner."""
    folder = paths.prepared("tiny")
    (folder / "val").mkdir(parents=True)
    rows = []
    for number, (height, width) in enumerate(sizes):
        mask = np.tril(np.ones((height, width), dtype=np.uint8))
        mask[0, -1] = 255
        names = f"val/{number}.png", f"val/{number}_mask.png"
        Image.fromarray(np.full((height, width, 3), 10 * number, dtype=np.uint8)).save(folder / names[0])
        Image.fromarray(mask).save(folder / names[1])
        row = {"split": "val", "id": f"image{number}", "image": names[0], "mask": names[1]}
        row |= {"height": height, "width": width, "void": 1}
        for kind, name in zip(("image", "mask"), names, strict=True):
            content = (folder / name).read_bytes()
            row |= {f"{kind}_bytes": len(content), f"{kind}_sha256": hashlib.sha256(content).hexdigest()}
        rows.append(row | dict.fromkeys(CLASSES, 0))
    index = pd.DataFrame(rows)
    listed = index.to_csv(index=False, lineterminator="\n").encode()
    prepared = Prepared(card(len(sizes), hashlib.sha256(listed).hexdigest()), index, folder)
    prepared.write(folder)
    write_warnings(folder, WARNINGS)
    return prepared


def card(images: int = 4, sha256: str = "") -> Card:
    """One split: an eighth is void, and 10 of a million pixels are of the class square."""
    split = Split(
        images=images, height=(1, 99), width=(1, 99), void=125_000,
        pixels=dict.fromkeys(CLASSES, 0) | dict(zip(CLASSES, (874_990, 10), strict=False)),
    )  # fmt: skip
    return Card(
        name="tiny", reader="shapes", classes=CLASSES, palette=PALETTE, void=255,
        labels={0: 0, 1: 1, 2: 2, 255: 255}, splits={"val": split}, sha256=sha256,
    )  # fmt: skip


def write(cell: Cell, miou: float, *, collapsed: bool = False, split: str = "val") -> None:
    """Results and history of a cell; its mean class accuracy is 0.1 above the mIoU.

    If it is scored on another split, its mIoU on `val` is 0.05 lower. All its images have the same score, and
    so have the two classes that occur: their IoU is the mIoU. On the kept images it predicts class 1.
    """
    cell.results.mkdir(parents=True, exist_ok=True)
    cell.model.mkdir(parents=True, exist_ok=True)
    metrics = {
        "miou": miou, "mean_accuracy": miou + 0.1, "pixel_accuracy": 0.9, "fw_iou": 0.8,
        "miou_predicted": miou, "split": split, "val": {"miou": miou - 0.05 * (split == "test")},
        "collapsed": collapsed, "images": 4, "parameters": 16_608_181, "multiply_adds": 3_000_000_000,
        "iou": {"ground": miou, "square": miou, "star": None},
    }  # fmt: skip
    (cell.results / paths.METRICS).write_text(json.dumps(metrics))
    (cell.results / paths.PER_CLASS).write_text(
        f"class,iou,accuracy,pixels\nground,{miou},0.5,9\nsquare,{miou},0.5,9\nstar,,,0\n"
    )
    right, wrong = round(200_000 * miou), round(100_000 * (1 - miou))
    matrix = np.array([[right, wrong, 0], [wrong, right, 0], [0, 0, 0]], dtype=np.uint32)
    ids = np.array([f"image{number}" for number in range(4)])
    np.savez_compressed(cell.results / paths.CONFUSION, ids=ids, matrices=np.stack([matrix] * 4))
    maps: dict[str, Any] = {name: np.ones(SIZE, dtype=np.uint8) for name in ("image1", "image3")}
    np.savez_compressed(cell.results / paths.PREDICTIONS, **maps)
    level = np.full((1, 2, 2), 7, dtype=np.uint8)
    networks = ("teacher", "student") if cell.student else ("teacher",)
    levels: dict[str, Any] = {f"{network}/encoder/raw": level for network in networks}
    np.savez_compressed(cell.results / paths.ATTENTION, ids=["image1"], **levels)
    (cell.model / paths.HISTORY).write_text(
        f"epoch,loss,ce,lr,miou\n1,2.0,1.5,0.01,\n2,1.5,1.0,0.001,{miou}\n"
    )


def results(
    settings: Any, mious: Mapping[str, float], collapsed: Sequence[str] = (), split: str = "val"
) -> list[Cell]:
    """Results of every cell of the axes, by the cell's name."""
    cells = Cell.all(settings.run, "tiny")
    assert {cell.name for cell in cells} == set(mious)
    for cell in cells:
        write(cell, mious[cell.name], collapsed=cell.name in collapsed, split=split)
    return cells


ONE_SEED = {
    "teacher": 0.8, "resnet18-none-0": 0.6, "resnet18-kd-0": 0.55, "resnet18-attnfd-0": 0.7,
    "resnet18-attnfd-b-0": 0.65, "resnet18-attnfd-ed-0": 0.68,
}  # fmt: skip

THREE_SEEDS = {
    "teacher": 0.8,
    "resnet18-none-0": 0.60, "resnet18-none-1": 0.62, "resnet18-none-2": 0.64,
    "resnet18-kd-0": 0.60, "resnet18-kd-1": 0.60, "resnet18-kd-2": 0.60,
    "resnet18-attnfd-0": 0.70, "resnet18-attnfd-1": 0.71, "resnet18-attnfd-2": 0.75,
    "resnet18-attnfd-b-0": 0.61, "resnet18-attnfd-b-1": 0.65, "resnet18-attnfd-b-2": 0.66,
    "resnet18-attnfd-ed-0": 0.67, "resnet18-attnfd-ed-1": 0.68, "resnet18-attnfd-ed-2": 0.69,
}  # fmt: skip

"""The training loop and its loader compared with the bare step, on generated images."""

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from attnfd.bench.clock import Clock
from attnfd.bench.timing import wait
from attnfd.bench.ways import CLASSES, OURS
from attnfd.config.schema import Training
from attnfd.data.loaders import train_loader
from attnfd.data.prepared import Card, Prepared, Split
from attnfd.data.transforms import normalize
from attnfd.distillers.attnfd import AttnFD
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.kernels import cast_weights
from attnfd.runtime.fabric import start_fabric
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.loop import fit
from attnfd.training.objective import Objective
from attnfd.training.optimizer import make_optimizer
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee

if TYPE_CHECKING:
    from attnfd.bench.gpu import Sizes

SIZE = (375, 500)
"""Size of most images of PASCAL VOC."""

STEPS = 20
"""Steps of an epoch."""


def time_loop(sizes: "Sizes", device: torch.device) -> dict[str, Any]:
    """The bare step's share of a step of the loop, and the time of a loader's batch over the bare step's."""
    config = Training(
        splits=("train",), epochs=3, batch_size=sizes.batch, lr=0.007, head_lr_factor=10, momentum=0.9,
        nesterov=True, weight_decay=5e-4, schedule="cosine", crop=sizes.crop, scale=(0.5, 2.0), flip=0.5,
        sync_bn=False, precision="bf16-mixed", deterministic=False, validate_every=3,
    )  # fmt: skip
    fabric = start_fabric(config.precision)
    learning, apart = (_objective(sizes, fabric) for _ in range(2))
    wrapped, optimizer = fabric.setup(apart, make_optimizer(apart, config))
    pixels = torch.randint(256, (sizes.batch, 3, *sizes.crop), dtype=torch.uint8).to(device)
    target = torch.randint(CLASSES, (sizes.batch, *sizes.crop)).to(device)

    def bare() -> None:
        optimizer.zero_grad()
        terms = wrapped(normalize(pixels), target, 0.0)
        fabric.backward(sum(terms.values()))
        optimizer.step()
        wait(device)
        apart.zero_grad()

    with TemporaryDirectory() as folder:
        prepared = _drawn(Path(folder), STEPS * sizes.batch)
        loader = train_loader(prepared, config, 0, device=device)
        clock = Clock(bare, lambda: None, len(loader), device)
        hook = learning.register_forward_pre_hook(clock.run_bare_step)
        trainee = Trainee(learning, _NoLog(), "loop", Checkpoints(Path(folder, "kept")), random_state())
        fit(trainee, prepared, config, seed=0, fabric=fabric)
        hook.remove()
        taken = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            start = time.perf_counter()
            for batch in loader:
                fabric.to_device(batch)
            wait(device)
            taken.append((time.perf_counter() - start) / len(loader))
    loop, step, batch_seconds = median(clock.loop), median(clock.bare), min(taken)
    return {
        "bare_ms": 1000 * step,
        "loop_ms": 1000 * loop,
        "bare_share": step / loop,
        "loader_ms": 1000 * batch_seconds,
        "loader_share": batch_seconds / step,
        "workers": loader.num_workers,
    }


class _NoLog:
    """A log that discards everything."""

    def metrics(self, values: Any, step: int) -> None:
        pass

    def flush(self) -> None:
        pass


def _objective(sizes: "Sizes", fabric: Any) -> Objective:
    from attnfd.bench.gpu import make_teacher

    teacher = make_teacher(sizes, frozen=True).to(fabric.device).to(memory_format=OURS.layout)
    cast_weights(teacher, fabric)
    student = DeepLabV3Plus(sizes.student, CLASSES)
    return Objective(student, AttnFD(student, teacher), teacher).train()


def _drawn(folder: Path, images: int) -> Prepared:
    """A dataset of smooth noise as JPEG, since photographs take time to decode, with masks of blocks."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(images + 2):
        height, width = SIZE
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        blocks = generator.integers(0, CLASSES, (6, 8), dtype=np.uint8)
        names = {"image": f"{number}.jpg", "mask": f"{number}.png"}
        Image.fromarray(coarse).resize((width, height)).save(folder / names["image"], quality=90)
        Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(folder / names["mask"])
        rows.append(
            {"split": "train" if number < images else "val", "id": str(number), **names}
            | {f"{kind}_sha256": _digest(folder / name) for kind, name in names.items()}
            | {"height": height, "width": width}
        )
    split = Split(images=images, height=(SIZE[0],) * 2, width=(SIZE[1],) * 2, void=0, pixels={})
    card = Card(
        name="drawn", reader="folder", void=255, sha256="",
        classes=tuple(map(str, range(CLASSES))), palette=((0, 0, 0),) * CLASSES,
        labels={index: index for index in range(CLASSES)}, splits={"train": split, "val": split},
    )  # fmt: skip
    return Prepared(card, pd.DataFrame(rows), folder)


def _digest(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()
